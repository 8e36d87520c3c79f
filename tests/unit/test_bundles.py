"""Parts of a bundle go apart and together again; a click reads only the tiles under its box."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.bundles import letterbox_of, mask_inputs, region_inputs, region_parts, split_bundle, windows_for
from service.core.spec import WindowSpec
from service.core.types import Array, Box, Letterbox, Size
from tests.fakes import SPEC

TILED = replace(
    SPEC,
    region_tensors=("whole", "fine", "fine_scale"),
    windows={"fine": WindowSpec(stride=1, tile=16, sizes=(0, 30), channels=3, type="uint8")},
)
LETTERBOX = Letterbox(Size(40, 30), Size(64, 48))


def bundle() -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        "image_embedding": random.random((1, 2, 4, 4)).astype(np.float16),
        "whole": random.random((1, 3, 4, 4)).astype(np.float16),
        "fine": random.integers(0, 255, (1, 3, 64, 64), dtype=np.uint8),
        "fine_scale": np.ones((1, 3), np.float32),
    }


def test_the_mask_part_is_all_that_a_mask_needs() -> None:
    whole = bundle()
    parts = split_bundle(whole, LETTERBOX, spec=TILED)
    assert letterbox_of(parts["mask"]) == LETTERBOX
    assert list(mask_inputs(parts["mask"])) == ["image_embedding"]
    assert set(parts["region"]) == {"whole", "fine_scale"}
    assert len(parts) == 2 + 16


@pytest.mark.parametrize("box", [Box(0, 0, 10, 10), Box(20, 33, 40, 50), Box(60, 60, 64, 64), Box(30, 0, 31, 29)])
def test_a_window_is_the_cut_of_the_whole_with_a_margin(box: Box) -> None:
    whole = bundle()
    parts = split_bundle(whole, LETTERBOX, spec=TILED)
    windows = windows_for([box], spec=TILED)
    names = region_parts(windows)
    inputs = region_inputs({name: parts[name] for name in names}, windows, spec=TILED)
    row, column = (int(cell) for cell in inputs["fine_origin"][0])
    height, width = inputs["fine"].shape[2:]
    assert np.array_equal(inputs["fine"], whole["fine"][:, :, row : row + height, column : column + width])
    assert row <= max(0, box.y1 - 2)
    assert column <= max(0, box.x1 - 2)
    assert row + height >= min(64, box.y2 + 2)
    assert column + width >= min(64, box.x2 + 2)
    assert len(names) - 1 <= 9


def test_boxes_that_do_not_need_a_tensor_read_none_of_it() -> None:
    parts = split_bundle(bundle(), LETTERBOX, spec=TILED)
    windows = windows_for([Box(0, 0, 60, 60), Box(0, 0, 0, 0)], spec=TILED)
    assert region_parts(windows) == ["region"]
    inputs = region_inputs(parts, windows, spec=TILED)
    assert inputs["fine"].shape == (1, 3, 16, 16)
    assert not inputs["fine"].any()


def test_a_raw_store_has_no_scales_to_tell_the_shape_of_a_tile_that_is_not_read() -> None:
    raw = replace(
        TILED, region_tensors=("whole", "fine"), windows={"fine": replace(TILED.windows["fine"], type="float16")}
    )
    whole = bundle() | {"fine": np.ones((1, 3, 64, 64), np.float16)}
    inputs = region_inputs(split_bundle(whole, LETTERBOX, spec=raw), [], spec=raw)
    assert inputs["fine"].shape == (1, 3, 16, 16)
    assert inputs["fine"].dtype == "float16"


def test_windows_of_several_boxes_are_united() -> None:
    (window,) = windows_for([Box(0, 0, 8, 8), Box(40, 20, 50, 30)], spec=TILED)
    assert (window.rows, window.columns) == ((0, 3), (0, 4))
