"""nano's mask network: a small neck over the frozen trunk, and a prompt decoder in the manner of SAM.

What SAM's decoder learns slowly at this size is given to it: each click also brings the image feature under it, dense
click / box / previous-mask maps, and maps of cosine similarity between every cell and the clicked one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.nano.trunk import CHANNELS

WIDTH = 128
EIGHTH, QUARTER = 32, 16
UPSCALED_EIGHTH, UPSCALED_QUARTER = 40, 16
HEADS = 4
MAPS = 7
"""Dense maps per level: click +, click -, box, previous mask, and similarity to click +, click -, box."""
LABEL_KINDS = 4
MASKED = -1e9
LOGIT_SCALE = 4.0


class Features(NamedTuple):
    """The mask group of the bundle: H/16 x WIDTH, H/8 x EIGHTH, H/4 x QUARTER channels."""

    embedding: Tensor
    eighth: Tensor
    quarter: Tensor


class Prompts(NamedTuple):
    """coords [B,N,P,2] in pixels of the model frame, labels [B,N,P], mask [B,N,m,m] logits, has_mask [B,N]."""

    coords: Tensor
    labels: Tensor
    mask: Tensor
    has_mask: Tensor


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of BxCxHxW."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        y: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """ConvNeXt's block: depthwise kernel, norm, two pointwise layers, residual."""

    def __init__(self, channels: int, *, kernel: int = 7, expansion: int = 3) -> None:
        """Keeps shape."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels),
            ChannelNorm(channels),
            nn.Conv2d(channels, expansion * channels, 1),
            nn.GELU(),
            nn.Conv2d(expansion * channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """BxCxHxW -> the same."""
        return x + self.body(x)


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own and a mask over the keys."""

    def __init__(self, inner: int = WIDTH) -> None:
        """`inner` is shared by all heads."""
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, inner) for _ in range(3))
        self.out = nn.Linear(inner, WIDTH)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Query RxTxC, key and value RxUxC, additive mask Rx1x1xU -> RxTxC."""
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (HEADS, x.shape[2] // HEADS)).transpose(1, 2)


class Neck(nn.Module):
    """Trunk features -> the mask group: global context at H/32, blocks at H/16, detail kept at H/8 and H/4.

    The embedding is made of the picture at two scales. The trunk learnt from things that fill 224 pixels; what fills
    500 comes back as its parts unless the picture is also seen at half its size.
    """

    def __init__(self) -> None:
        """Build with fixed sizes."""
        super().__init__()
        self.deep = nn.Conv2d(CHANNELS[32], WIDTH, 1)
        self.position = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.middle = nn.Conv2d(CHANNELS[16], WIDTH, 1)
        self.blocks = nn.Sequential(ConvBlock(WIDTH), ConvBlock(WIDTH), ChannelNorm(WIDTH))
        self.scales = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.eighth = nn.Conv2d(CHANNELS[8], EIGHTH, 1)
        self.to_eighth = nn.Conv2d(WIDTH, EIGHTH, 1)
        self.eighth_block = ConvBlock(EIGHTH, kernel=5)
        self.quarter = nn.Conv2d(CHANNELS[4], QUARTER, 1)
        self.to_quarter = nn.Conv2d(EIGHTH, QUARTER, 1)
        self.quarter_block = ConvBlock(QUARTER, kernel=5, expansion=2)

    def forward(self, maps: dict[int, Tensor], halved: dict[int, Tensor]) -> Features:
        """Trunk maps by stride, of the picture and of the picture at half its size -> Features."""
        both = torch.cat([self._embed(maps), _double(self._embed(halved))], dim=1)
        embedding = self.scales(both)
        eighth = self.eighth_block(self.eighth(maps[8]) + _double(self.to_eighth(embedding)))
        quarter = self.quarter_block(self.quarter(maps[4]) + _double(self.to_quarter(eighth)))
        return Features(embedding, eighth, quarter)

    def _embed(self, maps: dict[int, Tensor]) -> Tensor:
        x = self.deep(maps[32])
        x = x + self.position(x)
        tokens = x.flatten(2).transpose(1, 2)
        normed = self.norms[0](tokens)
        tokens = tokens + self.attention(normed, normed, normed)
        tokens = tokens + self.mlp(self.norms[1](tokens))
        deep = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        embedding: Tensor = self.blocks(_double(deep) + self.middle(maps[16]))
        return embedding


class TwoWayLayer(nn.Module):
    """SAM's layer: tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self) -> None:
        """Cross attention runs at half width, as in SAM."""
        super().__init__()
        self.among_tokens, self.to_image, self.from_image = Attention(), Attention(WIDTH // 2), Attention(WIDTH // 2)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, *, code: Tensor, position: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens RxTxC with their code, image RxUxC with its position, mask Rx1x1xT over the tokens."""
        query = tokens + code
        tokens = self.norms[0](tokens + self.among_tokens(query, query, tokens, mask))
        tokens = self.norms[1](tokens + self.to_image(tokens + code, image + position, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.from_image(image + position, tokens + code, tokens, mask))
        return tokens, image


class PromptDecoder(nn.Module):
    """Features and prompts -> mask logits at H/4. Slots labelled -1 are masked out of everything."""

    position_matrix: Tensor

    def __init__(self) -> None:
        """The position code is SAM's: random Fourier features of the normalised place."""
        super().__init__()
        self.register_buffer("position_matrix", torch.randn(2, WIDTH // 2))
        self.kinds = nn.Embedding(LABEL_KINDS, WIDTH)
        self.mask_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.sampled = nn.Linear(WIDTH + EIGHTH, WIDTH)
        self.dense = nn.Conv2d(MAPS, WIDTH, 1)
        self.layers = nn.ModuleList([TwoWayLayer(), TwoWayLayer()])
        self.reduce = nn.Conv2d(WIDTH, UPSCALED_EIGHTH, 1)
        self.at_eighth = nn.Conv2d(EIGHTH, UPSCALED_EIGHTH, 1)
        self.maps_eighth = nn.Conv2d(MAPS, UPSCALED_EIGHTH, 1)
        self.mix_eighth = nn.Sequential(
            ChannelNorm(UPSCALED_EIGHTH),
            nn.ReLU(),
            nn.Conv2d(UPSCALED_EIGHTH, UPSCALED_EIGHTH, 3, padding=1),
            nn.ReLU(),
        )
        self.to_quarter = nn.Conv2d(UPSCALED_EIGHTH, UPSCALED_QUARTER, 1)
        self.at_quarter = nn.Conv2d(QUARTER, UPSCALED_QUARTER, 1)
        self.maps_quarter = nn.Conv2d(MAPS, UPSCALED_QUARTER, 1)
        self.mix_quarter = nn.Sequential(
            nn.ReLU(), nn.Conv2d(UPSCALED_QUARTER, UPSCALED_QUARTER, 3, padding=1), nn.ReLU()
        )
        self.hyper = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, UPSCALED_QUARTER + MAPS + 1))

    def forward(self, features: Features, prompts: Prompts) -> Tensor:
        """-> BxNxLxL with L = 4 x the embedding's side."""
        batch, count = prompts.labels.shape[:2]
        place = PromptPlaces(prompts, size=16 * features.embedding.shape[2])
        maps = [
            place.maps(level, previous) for level, previous in zip(features, _pyramid(prompts, features), strict=True)
        ]
        tokens, code, mask = self._tokens(features, place)
        image = features.embedding[:, None] + self.dense(maps[0].flatten(0, 1)).unflatten(0, (batch, count))
        height, width = image.shape[3:]
        image = image.flatten(3).transpose(2, 3).flatten(0, 1)
        position = self._position(_grid(height, width, image).flatten(0, 1))[None]
        for layer in self.layers:
            tokens, image = layer(tokens, image, code=code, position=position, mask=mask)
        image = image.transpose(1, 2).unflatten(2, (height, width))
        return self._upscale(image, features, maps, tokens[:, 0]).unflatten(0, (batch, count))

    def _tokens(self, features: Features, place: "PromptPlaces") -> tuple[Tensor, Tensor, Tensor]:
        """Mask token and one token a slot: contents RxTxC, codes RxTxC, additive mask Rx1x1xT."""
        under = torch.cat([place.sample(features.embedding), place.sample(features.eighth)], dim=3)
        code = self._position(place.normalised) + self.kinds(place.labels.clamp(min=0))
        points = (self.sampled(under) + code).flatten(0, 1)
        first = self.mask_token.expand(points.shape[0], 1, WIDTH)
        mask = torch.where(place.used, 0.0, MASKED).flatten(0, 1)
        mask = functional.pad(mask, (1, 0))[:, None, None]
        return torch.cat([first, points], 1), torch.cat([first, code.flatten(0, 1)], 1), mask

    def _position(self, normalised: Tensor) -> Tensor:
        """(x, y) in 0-1 -> Fourier code, [..., WIDTH]."""
        phase = 2 * torch.pi * ((2 * normalised - 1) @ self.position_matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def _upscale(self, image: Tensor, features: Features, maps: list[Tensor], token: Tensor) -> Tensor:
        batch, count = maps[0].shape[:2]
        eighth = _double(self.reduce(image)) + self.maps_eighth(maps[1].flatten(0, 1))
        x = self.mix_eighth(_per_prompt(self.at_eighth(features.eighth), eighth, batch, count))
        quarter = _double(self.to_quarter(x)) + self.maps_quarter(maps[2].flatten(0, 1))
        x = self.mix_quarter(_per_prompt(self.at_quarter(features.quarter), quarter, batch, count))
        x = torch.cat([x, maps[2].flatten(0, 1)], dim=1)
        weights = self.hyper(token)
        return torch.einsum("rc,rchw->rhw", weights[:, :-1], x) + weights[:, -1, None, None]


class PromptPlaces:
    """Where the prompts lie, and the dense maps that say so on a level of the features."""

    def __init__(self, prompts: Prompts, *, size: int) -> None:
        """`size` is the side of the model frame in pixels."""
        self.labels = prompts.labels
        self.used = prompts.labels >= 0
        coords = torch.where(self.used[..., None], prompts.coords + 0.5, 0.0)
        self.normalised = coords / size
        self.kind = [(prompts.labels == label).to(coords.dtype) for label in range(LABEL_KINDS)]
        self.low, self.high = ((self.kind[label][..., None] * self.normalised).sum(2) for label in (2, 3))
        self.has_box = self.kind[3].amax(2)

    def sample(self, level: Tensor) -> Tensor:
        """Bilinear features at the slots: BxCxHxW -> BxNxPxC."""
        sampled = functional.grid_sample(level, 2 * self.normalised - 1, padding_mode="border", align_corners=False)
        return sampled.permute(0, 2, 3, 1)

    def maps(self, level: Tensor, previous: Tensor) -> Tensor:
        """BxNxMAPSxHxW for a level BxCxHxW and the previous mask BxNxHxW at its size."""
        height, width = level.shape[2:]
        x, y = _ramp(width, level), _ramp(height, level)
        spread = 1.5 / height
        bumps = self._bumps(x, y, spread)
        positive, negative = ((bumps * self.kind[label][..., None, None]).amax(2) for label in (1, 0))
        box = self._box(x, y, 0.5 / height)
        similar = self._similar(level, box)
        return torch.stack([positive, negative, box, previous, *similar], dim=2)

    def _bumps(self, x: Tensor, y: Tensor, spread: float) -> Tensor:
        """A Gaussian on each slot: BxNxPxHxW."""
        across = torch.exp(-0.5 * ((x - self.normalised[..., :1]) / spread) ** 2)
        down = torch.exp(-0.5 * ((y - self.normalised[..., 1:]) / spread) ** 2)
        return down[..., :, None] * across[..., None, :]

    def _box(self, x: Tensor, y: Tensor, softness: float) -> Tensor:
        """1 inside the box, 0 outside, soft edges: BxNxHxW."""
        low, high = self.low, self.high
        across = torch.sigmoid((x - low[..., :1]) / softness) * torch.sigmoid((high[..., :1] - x) / softness)
        down = torch.sigmoid((y - low[..., 1:]) / softness) * torch.sigmoid((high[..., 1:] - y) / softness)
        return down[..., :, None] * across[..., None, :] * self.has_box[..., None, None]

    def _similar(self, level: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosine to the nearest click +, click -, and to the inside of the box: BxNxHxW, 0 without such a prompt."""
        unit = functional.normalize(level, dim=1, eps=1e-4).flatten(2)
        clicked = functional.normalize(self.sample(level), dim=3, eps=1e-4)
        cosine = (clicked.flatten(1, 2) @ unit).unflatten(1, self.labels.shape[1:])
        near = []
        for label in (1, 0):
            kind = self.kind[label]
            nearest = (cosine + (kind - 1)[..., None] * -MASKED).amax(2)
            near.append(torch.where(kind.amax(2)[..., None] > 0, nearest, 0.0))
        inside = functional.normalize(box.flatten(2) @ unit.transpose(1, 2), dim=2, eps=1e-4) @ unit
        size = level.shape[2:]
        positive, negative, boxed = (similarity.unflatten(2, size) for similarity in (*near, inside))
        return positive, negative, boxed


def _pyramid(prompts: Prompts, features: Features) -> list[Tensor]:
    """The previous logits, squashed, at each level's size: BxNxHxW."""
    size = features.quarter.shape[2:]
    full = functional.interpolate(prompts.mask, size=size, mode="nearest")
    full = torch.tanh(full / LOGIT_SCALE) * prompts.has_mask[..., None, None]
    return [functional.avg_pool2d(full, 4), functional.avg_pool2d(full, 2), full]


def _per_prompt(shared: Tensor, own: Tensor, batch: int, count: int) -> Tensor:
    """Add an image's map to each of its prompts' maps: BxCxHxW + (BN)xCxHxW."""
    return (shared[:, None] + own.unflatten(0, (batch, count))).flatten(0, 1)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _ramp(count: int, like: Tensor) -> Tensor:
    """Cell centres in 0-1."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    """(x, y) of cell centres, HxWx2."""
    y, x = torch.meshgrid(_ramp(height, like), _ramp(width, like), indexing="ij")
    return torch.stack([x, y], dim=2)
