"""The full-size network with the stand-in weights of the golden data, as torch modules and as the exported repository.

The first run writes weights and repository to build/ and takes minutes; the next ones read what is there.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.checkpoints import load_network, read_checkpoint
from export.golden import check_repository
from export.golden_case import GoldenCase
from export.graphs import ImageEncoderGraph
from export.labels import Float32Array
from export.network.mask_decoder import unfold_cells
from export.network.ovsam import OpenVocabularySam
from export.network.region_head import boxes_by_level, mask_boxes, mask_visibility, pyramid_level, roi_align
from export.parity import Figure
from export.repository import read_config
from export.variants import VARIANTS
from tests.export.repositories import exported
from tests.export.standin import GOLDEN, ROOT, write_checkpoints

pytestmark = pytest.mark.full_size
Maps = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden() -> GoldenCase:
    """The golden image; without its folder there is nothing to test against."""
    if not (GOLDEN / "image1.json").is_file():
        message = f"no golden data in {GOLDEN}; name its folder in OVSAM_GOLDEN"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return GoldenCase(GOLDEN, "image1")


@pytest.fixture(scope="module")
def network(golden: GoldenCase) -> OpenVocabularySam:  # noqa: ARG001 - the weights come with the golden data
    """The network, loaded from checkpoint files of the official layout."""
    paths = write_checkpoints(ROOT / "build" / "standin-checkpoints")
    return load_network(VARIANTS["ovsam-rn50x16"], {file: read_checkpoint(path) for file, path in paths.items()})


@pytest.fixture(scope="module")
def maps(network: OpenVocabularySam, golden: GoldenCase) -> Maps:
    """Every feature map of the golden image, before storage."""
    image, valid_size = (torch.from_numpy(array) for array in golden.image(1024))
    levels: list[Tensor] = []
    handle = network.backbone.register_forward_hook(lambda _, __, output: levels.extend(output))
    with torch.inference_mode():
        embedding, maps = ImageEncoderGraph(network).eval().features(image, valid_size)
    handle.remove()
    named = {f"C{index + 2}": level for index, level in enumerate(levels)}
    return named | {name.upper(): tensor for name, tensor in maps.items()} | {"embedding": embedding}


@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C5", "embedding", "P2", "P3", "P4", "P5"])
def test_a_feature_map_is_the_recorded_one(golden: GoldenCase, maps: Maps, name: str) -> None:
    stats = golden.facts["stats"][name]
    step = stats["spatial_step"]
    found = maps[name][0, :: stats["channel_step"], ::step, ::step].numpy()
    assert np.abs(found - golden.arrays[f"sample_{name}"]).max() / stats["std"] < 1e-3


def test_every_cell_has_the_recorded_position(golden: GoldenCase, network: OpenVocabularySam) -> None:
    grid = network.prompt_encoder.positions().reshape(64, 64, 256).permute(2, 0, 1)
    np.testing.assert_allclose(grid[::16, ::8, ::8], golden.arrays["dense_pe_sample"], atol=1e-5)


class Decoded:
    """Masks of all golden prompts, and what the transformer and the upscaling gave on the way."""

    def __init__(self, network: OpenVocabularySam, golden: GoldenCase, embedding: Tensor) -> None:
        coords, labels = (torch.from_numpy(array[0]) for array in golden.prompts())
        encoder, decoder = network.prompt_encoder, network.mask_decoder
        self.sparse, self.valid = encoder.sparse(coords, labels)
        dense = encoder.dense(torch.zeros(1, 1, 1), torch.zeros(1))
        self.tokens: list[Tensor] = []
        self.upscaled: list[Tensor] = []
        hooks = [
            decoder.transformer.register_forward_hook(lambda _, __, output: self.tokens.append(output[0])),
            decoder.upscaling.register_forward_hook(lambda _, __, output: self.upscaled.append(output)),
        ]
        parts = [
            decoder(embedding + dense, encoder.positions(), prompts=tokens[None], valid=valid[None])
            for tokens, valid in zip(self.sparse, self.valid, strict=True)
        ]
        self.logits = torch.cat(parts)
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def decoded(network: OpenVocabularySam, golden: GoldenCase, maps: Maps) -> Decoded:
    """The torch decoder's answers, in float32 throughout."""
    with torch.inference_mode():
        return Decoded(network, golden, maps["embedding"])


def test_masks_and_boxes_are_the_recorded_ones(golden: GoldenCase, decoded: Decoded) -> None:
    recorded = golden.arrays["lowres"].astype(np.float32)
    assert np.abs(decoded.logits.numpy() - recorded).max() < 2e-2
    boxes = mask_boxes(decoded.logits)
    assert boxes.tolist() == [case["lowres_box_1024"] for case in golden.facts["cases"]]
    assert pyramid_level(boxes).tolist() == [case["fpn_level"] for case in golden.facts["cases"]]


def test_tokens_are_the_recorded_ones_on_the_way(golden: GoldenCase, decoded: Decoded) -> None:
    for index, (tokens, valid) in enumerate(zip(decoded.sparse, decoded.valid, strict=True)):
        np.testing.assert_allclose(tokens[valid], golden.arrays[f"sparse_{index}"], atol=1e-4)
    for index in (0, 10):
        own = torch.ones(2, dtype=torch.bool)
        tokens = decoded.tokens[index][0][torch.cat([own, decoded.valid[index]])]
        np.testing.assert_allclose(tokens, golden.arrays[f"tokens_out_{index}"], atol=1e-3)
        upscaled = unfold_cells(decoded.upscaled[index].flatten(1, 3), grid=64)[0, :, ::16, ::16]
        np.testing.assert_allclose(upscaled, golden.arrays[f"upscaled_sample_{index}"], atol=1e-3)


def _region_features(network: OpenVocabularySam, maps: Maps, boxes: Tensor) -> dict[str, Tensor]:
    index = torch.zeros(len(boxes), dtype=torch.int64)
    framed = boxes_by_level(boxes, shifts=[torch.zeros_like(boxes)] * 4)
    pyramid = [maps[name] for name in ("P2", "P3", "P4", "P5")]
    cells = roi_align(maps["C5"], boxes, index, 12, 32.0)
    return {
        "fpn_roi_sample": network.region_head.read(pyramid, framed, index)[:, ::32],
        "clip_roi_sample": cells[:, ::384],
        "roi_feature": network.region_head(pyramid, framed, index),
        "clip_feature": network.attention_pool(cells),
    }


def _unit(features: Tensor) -> Float32Array:
    unit: Float32Array = torch.nn.functional.normalize(features, dim=-1).numpy()
    return unit


@torch.inference_mode()
def test_labels_of_the_masks_are_the_recorded_ones(
    golden: GoldenCase, network: OpenVocabularySam, maps: Maps, decoded: Decoded
) -> None:
    features = _region_features(network, maps, mask_boxes(decoded.logits))
    classifier = golden.classifier()
    head, clip = (classifier.logits(_unit(features[key])) for key in ("roi_feature", "clip_feature"))
    final = classifier.fuse(head, clip, mask_visibility(decoded.logits).numpy())
    for key, found in (("head_logits", head), ("clip_logits", clip), ("final", final)):
        assert np.abs(found - golden.arrays[key]).max() < 1e-2
    assert final[:, :-1].argmax(1).tolist() == [case["label"] for case in golden.facts["cases"]]


@torch.inference_mode()
def test_regions_of_every_size_are_the_recorded_ones(
    golden: GoldenCase, network: OpenVocabularySam, maps: Maps
) -> None:
    recorded = np.load(golden.folder / "image1_rois.npz")
    boxes = torch.from_numpy(recorded["boxes"])
    assert pyramid_level(boxes).tolist() == recorded["level"].tolist()
    features = _region_features(network, maps, boxes)
    for key, found in features.items():
        np.testing.assert_allclose(found, recorded[key], atol=1e-2)
    classifier = golden.classifier()
    head, clip = (classifier.logits(_unit(features[key])) for key in ("roi_feature", "clip_feature"))
    final = classifier.fuse(head, clip, np.ones(len(boxes), np.float32))
    assert np.abs(final - recorded["final"]).max() < 1e-2
    assert np.array_equal(final.argmax(1), recorded["final"].argmax(1))


@torch.inference_mode()
def test_texts_are_encoded_as_recorded(golden: GoldenCase, network: OpenVocabularySam) -> None:
    recorded: Any = np.load(golden.folder / "text_classifier.npz")
    tokens = torch.from_numpy(recorded["tokens_first2_last2"])[:2]
    np.testing.assert_allclose(network.text_encoder(tokens), recorded["raw_first4"][:2], atol=1e-3)


@pytest.fixture(scope="module")
def repository(network: OpenVocabularySam) -> Path:
    """The exported repository; read only."""
    return exported("ovsam-rn50x16", lambda: network)


@pytest.fixture(scope="module")
def figures(repository: Path) -> dict[str, Figure]:
    """All figures of the exported repository on the golden image."""
    return {figure.name: figure for figure in check_repository(repository, GOLDEN, case="image1")}


def test_the_export_is_within_every_tolerance(figures: dict[str, Figure]) -> None:
    assert [figure for figure in figures.values() if not figure.holds] == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("boxes equal of 22", 22),
        ("labels: equal of 22", 22),
        ("labels with the CLIP RoI of the prompt's box: equal of 8", 8),
        ("labels of drawn RoIs: equal of 29", 29),
    ],
)
def test_the_export_gives_the_recorded_boxes_and_labels(figures: dict[str, Figure], name: str, count: int) -> None:
    assert figures[f"image1 {name}"].value == count


def test_what_is_cached_for_an_image_stays_small(repository: Path) -> None:
    """The mask object and the label object in bytes, from the shapes of the configuration."""
    bundle = json.loads((repository / "manifest.json").read_text())["bundle"]
    sizes = _tensor_bytes(repository)
    assert sum(sizes[name] for name in bundle["mask"]) <= 2.1 * 2**20
    assert sum(sizes[name] for name in bundle["region"]) <= 25 * 2**20


def _tensor_bytes(repository: Path) -> dict[str, int]:
    widths = {2: 1, 10: 2, 11: 4}  # TYPE_UINT8, TYPE_FP16, TYPE_FP32
    outputs = read_config(repository / "image_encoder").output
    return {tensor.name: int(np.prod(tensor.dims)) * widths[tensor.data_type] for tensor in outputs}
