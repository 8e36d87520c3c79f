"""The network as the four graphs of the model contract (export/README.md): what each takes, does and gives."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.network.ovsam import OpenVocabularySam
from export.network.region_head import boxes_by_level, mask_boxes, mask_visibility, read_boxes
from export.variants import LEVEL_STRIDES, RegionStore, Variant

MASK_GROUP = ("image_embedding",)
REGION_MAPS = ("c5", "p5", "p4", "p3", "p2")
PYRAMID = ("p2", "p3", "p4", "p5")
WINDOWED = ("p3", "p2")
REGION_EMBEDDINGS = ("head_embedding", "clip_embedding")
_CODES = 255
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def region_group(store: RegionStore) -> tuple[str, ...]:
    """The bundle tensors that the region encoder reads, in the order of the graphs' outputs and inputs."""
    if store == "float16":
        return REGION_MAPS
    return tuple(name + suffix for name in REGION_MAPS for suffix in ("", "_scale", "_offset"))


class StoredMap(NamedTuple):
    """A feature map as the bundle keeps it; value = codes * scale + offset for each channel."""

    codes: Tensor
    scale: Tensor
    offset: Tensor


def quantise(x: Tensor) -> StoredMap:
    """[B,C,H,W] -> uint8 codes over the range of each channel, scale and offset [B,C]."""
    low, high = x.amin((2, 3)), x.amax((2, 3))
    scale = ((high - low) / _CODES).clamp(min=torch.finfo(torch.float32).tiny)
    codes = ((x - low[..., None, None]) / scale[..., None, None]).round().clamp(0, _CODES)
    return StoredMap(codes.to(torch.uint8), scale, low)


def dequantise(stored: StoredMap) -> Tensor:
    """The map [B,C,H,W], float32."""
    return stored.codes.float() * stored.scale[..., None, None] + stored.offset[..., None, None]


class ImageEncoderGraph(nn.Module):
    """Normalise, zero the padding, then trunk, adapter and pyramid."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: OpenVocabularySam) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.adapter = network.adapter
        self.feature_pyramid = network.feature_pyramid
        self.store = network.variant.region_store
        self.register_buffer("mean", torch.tensor(_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(_STD), persistent=False)

    def forward(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor, ...]:
        """uint8 [B,S,S,3] and (height, width) [B,2] -> image embedding, then the region group."""
        embedding, maps = self.features(image, valid_size)
        if self.store == "float16":
            return embedding.half(), *(maps[name].half() for name in REGION_MAPS)
        stored = [quantise(maps[name].float()) for name in REGION_MAPS]
        return embedding.half(), *(tensor for entry in stored for tensor in entry)

    def features(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The image embedding [B,dim,G,G] and the maps c5, p2..p5 before they are stored."""
        pixels = ((image.float() - self.mean.float()) / self.std.float()).permute(0, 3, 1, 2)
        ramp = torch.arange(image.shape[1], dtype=torch.int32, device=image.device)
        rows = (ramp < valid_size[:, :1])[:, None, :, None]
        columns = (ramp < valid_size[:, 1:])[:, None, None, :]
        pixels = torch.where(rows & columns, pixels, torch.zeros_like(pixels))
        levels = self.backbone(pixels.to(self.backbone.conv1.weight.dtype))
        maps = dict(zip(PYRAMID, self.feature_pyramid(levels), strict=True))
        return self.adapter(levels), maps | {"c5": levels[-1]}


class PromptDecoderGraph(nn.Module):
    """Prompts of an image to mask logits, boxes and visibility."""

    def __init__(self, network: OpenVocabularySam) -> None:
        super().__init__()
        self.prompt_encoder = network.prompt_encoder
        self.mask_decoder = network.mask_decoder

    def forward(
        self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B,dim,G,G], [B,N,P,2], [B,N,P], [B,N,m,m], [B,N] -> logits [B,N,L,L], boxes [B,N,4], visibility [B,N]."""
        images, prompts = point_labels.shape[:2]
        tokens, valid = self.prompt_encoder.sparse(point_coords.flatten(0, 1), point_labels.flatten(0, 1))
        dense = self.prompt_encoder.dense(mask_input.flatten(0, 1), has_mask.flatten())
        source = image_embedding.to(dense.dtype)[:, None] + torch.unflatten(dense, 0, (images, prompts))
        positions = self.prompt_encoder.positions()
        logits = self.mask_decoder(source.flatten(0, 1), positions, prompts=tokens, valid=valid).float()
        boxes, visibility = mask_boxes(logits), mask_visibility(logits)
        logits, boxes, visibility = (torch.unflatten(x, 0, (images, prompts)) for x in (logits, boxes, visibility))
        return logits, boxes, visibility


class RegionEncoderGraph(nn.Module):
    """Boxes of an image to the two region embeddings."""

    def __init__(self, network: OpenVocabularySam) -> None:
        super().__init__()
        self.region_head = network.region_head
        self.attention_pool = network.attention_pool
        self.clip_cells = network.variant.clip_cells
        self.store = network.variant.region_store

    def forward(self, boxes: Tensor, p3_origin: Tensor, p2_origin: Tensor, *stored: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [B,N,4], first cells (row, column) [B,2] of the windows, the region group -> [B,N,D] twice."""
        images, prompts = boxes.shape[:2]
        maps = self._maps(stored)
        index = torch.arange(images, device=boxes.device)[:, None].expand(-1, prompts).flatten()
        flat = boxes.float().flatten(0, 1)
        framed = boxes_by_level(flat, shifts=self._shifts(p2_origin, p3_origin, index))
        head = self.region_head([maps[name] for name in PYRAMID], framed, index)
        cells = read_boxes(maps["c5"], flat, index, self.clip_cells, float(LEVEL_STRIDES[-1]))
        clip = self.attention_pool(cells.to(self.attention_pool.positional_embedding.dtype))
        drawn = (flat[:, 2:] > flat[:, :2]).all(1, keepdim=True)
        head, clip = (functional.normalize(feature.float(), dim=-1) * drawn for feature in (head, clip))
        return torch.unflatten(head, 0, (images, prompts)), torch.unflatten(clip, 0, (images, prompts))

    def _maps(self, stored: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self.store == "float16":
            return {name: tensor.float() for name, tensor in zip(REGION_MAPS, stored, strict=True)}
        entries = zip(stored[::3], stored[1::3], stored[2::3], strict=True)
        return {name: dequantise(StoredMap(*entry)) for name, entry in zip(REGION_MAPS, entries, strict=True)}

    def _shifts(self, p2_origin: Tensor, p3_origin: Tensor, index: Tensor) -> list[Tensor]:
        """How far each level's frame lies from the whole map's, (x, y, x, y) pixels [B*N,4]."""
        whole = torch.zeros_like(p2_origin)
        origins = zip((p2_origin, p3_origin, whole, whole), LEVEL_STRIDES, strict=True)
        return [origin.flip(1).repeat(1, 2)[index].float() * stride for origin, stride in origins]


class TextEncoderGraph(nn.Module):
    """Token ids to unit text embeddings."""

    def __init__(self, network: OpenVocabularySam) -> None:
        super().__init__()
        self.text_encoder = network.text_encoder

    def forward(self, token_ids: Tensor) -> Tensor:
        """[M,T] -> [M,D]."""
        return functional.normalize(self.text_encoder(token_ids).float(), dim=-1)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph with example inputs by name, the axes that stay free and the names of its outputs."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    free_axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    max_batch_size: int


def graph_specs(network: OpenVocabularySam, *, seed: int = 0) -> list[GraphSpec]:
    """The four graphs with generated inputs: each is fed with shapes of the one before it, filled with noise."""
    generator = torch.Generator().manual_seed(seed)
    variant = network.variant
    return [
        _image_encoder_spec(network, generator),
        _prompt_decoder_spec(network, generator),
        _region_encoder_spec(network, generator),
        GraphSpec(
            name="text_encoder",
            module=TextEncoderGraph(network).eval(),
            inputs={"token_ids": torch.randint(0, variant.text.vocabulary, (2, 9), generator=generator)},
            free_axes={"token_ids": {0: "texts", 1: "tokens"}},
            outputs=("text_embedding",),
            max_batch_size=64,
        ),
    ]


def _image_encoder_spec(network: OpenVocabularySam, generator: torch.Generator) -> GraphSpec:
    size = network.variant.input_size
    return GraphSpec(
        name="image_encoder",
        module=ImageEncoderGraph(network).eval(),
        inputs={
            "image": torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator),
            "valid_size": torch.tensor([[size, size * 2 // 3], [size // 2, size]], dtype=torch.int32),
        },
        free_axes={"image": {0: "images"}, "valid_size": {0: "images"}},
        outputs=MASK_GROUP + region_group(network.variant.region_store),
        max_batch_size=4,
    )


def _prompt_decoder_spec(network: OpenVocabularySam, generator: torch.Generator) -> GraphSpec:
    variant = network.variant
    labels = torch.tensor([[1, -1, -1, -1], [0, 1, 2, 3], [2, 3, -1, -1]], dtype=torch.int32)
    axes = {0: "images", 1: "prompts"}
    embedding = torch.randn(2, variant.decoder.dim, variant.grid, variant.grid, generator=generator)
    return GraphSpec(
        name="prompt_decoder",
        module=PromptDecoderGraph(network).eval(),
        inputs={
            "image_embedding": (embedding * 0.2).half(),
            "point_coords": torch.rand(2, 3, 4, 2, generator=generator) * variant.input_size,
            "point_labels": labels.expand(2, -1, -1).contiguous(),
            "mask_input": torch.randn(2, 3, variant.low_res_size, variant.low_res_size, generator=generator),
            "has_mask_input": torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
        },
        free_axes={
            "image_embedding": {0: "images"},
            "point_coords": axes | {2: "points"},
            "point_labels": axes | {2: "points"},
            "mask_input": axes | {2: "mask_side", 3: "mask_side"},
            "has_mask_input": axes,
        },
        outputs=("mask_logits", "boxes", "visibility"),
        max_batch_size=8,
    )


def _region_encoder_spec(network: OpenVocabularySam, generator: torch.Generator) -> GraphSpec:
    size = network.variant.input_size
    boxes = torch.tensor([[0.1, 0.1, 0.16, 0.2], [0.3, 0.1, 0.45, 0.3], [0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.9, 1.0]])
    inputs = {
        "boxes": (boxes * size).round().expand(2, -1, -1).contiguous(),
        "p3_origin": torch.zeros(2, 2, dtype=torch.int32),
        "p2_origin": torch.zeros(2, 2, dtype=torch.int32),
    }
    free_axes = {"boxes": {0: "images", 1: "prompts"}, "p3_origin": {0: "images"}, "p2_origin": {0: "images"}}
    for name in REGION_MAPS:
        for key, tensor in _stored_noise(network.variant, name, generator).items():
            inputs[key] = tensor
            free_axes[key] = {0: "images"}
        if name in WINDOWED:
            free_axes[name] = {0: "images", 2: f"{name}_rows", 3: f"{name}_columns"}
    return GraphSpec(
        name="region_encoder",
        module=RegionEncoderGraph(network).eval(),
        inputs=inputs,
        free_axes=free_axes,
        outputs=REGION_EMBEDDINGS,
        max_batch_size=8,
    )


def _stored_noise(variant: Variant, name: str, generator: torch.Generator) -> dict[str, Tensor]:
    stride = LEVEL_STRIDES[int(name[1]) - 2]
    channels = variant.trunk.level_channels[-1] if name == "c5" else variant.decoder.dim
    side = variant.input_size // stride
    values = torch.randn(2, channels, side, side, generator=generator)
    if variant.region_store == "float16":
        return {name: values.half()}
    codes, scale, offset = quantise(values)
    return {name: codes, f"{name}_scale": scale, f"{name}_offset": offset}
