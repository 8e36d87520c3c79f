"""The parts of the recogniser comparison: graphs cut and counted, masks and maps as the baselines read them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.baselines.cut_graph import CutGraph, cut
from service.baselines.flops import count_flops
from service.baselines.regions import GREY, cropped, low_res_mask, pooled_tensors
from service.core.bundles import REGION_PART
from service.core.types import Array, Letterbox, Size, Tensors
from tests.fakes import SPEC

LETTERBOX = Letterbox(Size(40, 80), Size(32, 64))


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def model() -> onnx.ModelProto:
    """Two branches on one convolution: up (transposed convolution) and flat (product, general product)."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["map", "up_kernel"], ["up"], strides=[2, 2]),
        helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "table"], ["row"]),
        helper.make_node("Gemm", ["row", "row"], ["square"], transA=1),
        helper.make_node("Add", ["square", "offset"], ["flat"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["images", 3, "rows", "columns"]),
        helper.make_tensor_value_info("offset", TensorProto.FLOAT, [5, 5]),
    ]
    outputs = [
        helper.make_tensor_value_info("up", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("flat", TensorProto.FLOAT, [5, 5]),
    ]
    weights = [weight("kernel", 4, 3, 3, 3), weight("up_kernel", 4, 2, 2, 2), weight("table", 4, 5)]
    graph = helper.make_graph(nodes, "branches", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SHAPES = {"image": (1, 3, 8, 10), "offset": (5, 5)}
CONVOLUTION = 2 * (4 * 8 * 10) * (3 * 3 * 3)
TRANSPOSED = 2 * (4 * 8 * 10) * (2 * 2 * 2)
PRODUCTS = 2 * 5 * 4 + 2 * 5 * 5 * 1


def test_flops_are_two_for_each_multiply_add_counted_by_hand() -> None:
    assert count_flops(model(), SHAPES) == CONVOLUTION + TRANSPOSED + PRODUCTS


def test_a_cut_graph_runs_and_costs_what_its_outputs_depend_on(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    tensors: Tensors = {"image": np.ones((1, 3, 8, 10), np.float32), "offset": np.zeros((5, 5), np.float32)}
    whole = CutGraph(path, ["up", "flat"], threads=1)
    up, flat = (CutGraph(path, [name], threads=1) for name in ("up", "flat"))
    assert up.inputs == ("image",)
    assert up.flops() == 0
    both = whole.run(tensors)
    for part in (up, flat):
        ((name, value),) = part.run(tensors).items()
        assert np.array_equal(value, both[name])
    assert up.flops() == CONVOLUTION + TRANSPOSED
    assert flat.flops() == CONVOLUTION + PRODUCTS
    assert whole.flops() == CONVOLUTION + TRANSPOSED + PRODUCTS


def test_weights_beside_a_graph_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    graph = CutGraph(path, ["up"], threads=1)
    assert graph.run({"image": np.ones((1, 3, 8, 10), np.float32)})["up"].max() == pytest.approx(27 * 4)


def test_an_output_that_is_not_there_is_told() -> None:
    with pytest.raises(KeyError, match="sideways"):
        cut(model(), ["sideways"])


def test_a_mask_becomes_cells_that_are_half_covered() -> None:
    """A cell is 4 pixels of the 64 of the model frame, 5 of the original here; the padding below stays empty."""
    mask = np.zeros((40, 80), np.bool_)
    mask[10:20, 20:33] = True  # columns 20 to 33 are cells 4 to 6.6
    cells = low_res_mask(mask, LETTERBOX, spec=SPEC)
    assert np.argwhere(cells).tolist() == [[row, column] for row in (2, 3) for column in (4, 5, 6)]


def test_a_mask_smaller_than_half_a_cell_keeps_the_cell_it_lies_in() -> None:
    mask = np.zeros((40, 80), np.bool_)
    mask[12, 27] = True
    assert np.argwhere(low_res_mask(mask, LETTERBOX, spec=SPEC)).tolist() == [[2, 5]]


def test_a_crop_shows_the_object_on_grey() -> None:
    pixels = np.full((20, 30, 3), 200, np.uint8)
    mask = np.zeros((20, 30), np.bool_)
    mask[5, 10:14], mask[6, 10] = True, True
    crop = cropped(pixels, mask)
    assert crop.shape == (2, 4, 3)
    assert (crop[0] == 200).all()
    assert crop[1].tolist() == [[200] * 3] + [list(GREY)] * 3


@pytest.mark.parametrize("store", ["raw", "quantised"])
def test_a_pooled_map_is_its_mean_under_the_mask_in_every_cell(store: str) -> None:
    """A map of 4 x 4 cells under a mask of 16 x 16: one cell whole, one half."""
    codes = np.arange(2 * 16, dtype=np.uint8).reshape(1, 2, 4, 4)
    scale, offset = np.array([[0.5, 2.0]], np.float32), np.array([[-1.0, 3.0]], np.float32)
    values = codes.astype(np.float32) * scale[..., None, None] + offset[..., None, None]
    cells = np.zeros((16, 16), np.bool_)
    cells[0:4, 0:4], cells[0:4, 4:6] = True, True
    expected = (values[0, :, 0, 0] + 0.5 * values[0, :, 0, 1]) / 1.5
    region: dict[str, Array] = {"map": values.astype(np.float16)}
    names: tuple[str, ...] = ("map",)
    if store == "quantised":
        names = ("map", "map_scale", "map_offset")
        region = {"map": codes, "map_scale": scale, "map_offset": offset}
    pooled = pooled_tensors({REGION_PART: region}, cells, spec=replace(SPEC, region_tensors=names))
    found = pooled["map"].astype(np.float32)
    assert pooled["map"].dtype == region["map"].dtype
    if store == "quantised":
        scales, offsets = (pooled[f"map_{part}"].astype(np.float32)[..., None, None] for part in ("scale", "offset"))
        found = found * scales + offsets
    assert found.shape == (1, 2, 4, 4)
    np.testing.assert_allclose(found, np.broadcast_to(expected[None, :, None, None], found.shape), rtol=1e-3)
    assert pooled["boxes"].tolist() == [[[0, 0, 64, 64]]]
