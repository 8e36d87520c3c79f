"""The parts of the network against the plain formulas they are rearranged from."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch.nn import functional

from export.graphs import PromptDecoderGraph, TextEncoderGraph, dequantise, quantise
from export.network.adapter import RelativeAttention
from export.network.attention_pool import AttentionPool
from export.network.mask_decoder import Attention, MaskDecoder, Upscaling, unfold_cells
from export.network.ovsam import OpenVocabularySam
from export.network.region_head import mask_boxes, mask_visibility, pyramid_level, roi_align
from tests.export.tiny_network import TINY, tiny_network
from tests.onnx_models import FLOAT, INT64, tensor


@pytest.fixture(scope="module")
def network() -> OpenVocabularySam:
    """One tiny network for all tests of this module."""
    return tiny_network()


def _randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)


@torch.no_grad()
def test_decoder_attention_keeps_queries_and_keys_apart() -> None:
    """The stand-in weights share the two projections, so a mix-up has to be caught here."""
    attention = Attention(16, 8, heads=2)
    _randomise(attention)
    query, key, value = torch.randn(3, 2, 5, 16).unbind()
    heads = [
        projection(x).unflatten(-1, (2, 4)).transpose(1, 2)
        for projection, x in ((attention.q_proj, query), (attention.k_proj, key), (attention.v_proj, value))
    ]
    expected = attention.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(query, key, value), expected)


@torch.no_grad()
def test_upscaling_puts_every_sub_cell_where_the_transposed_convolutions_do() -> None:
    upscaling = Upscaling(8, 6, 3)
    _randomise(upscaling)
    image = torch.randn(2, 8, 5, 5)
    middle = upscaling.first(image)
    normed = functional.gelu(upscaling.norm(middle.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    expected = functional.gelu(upscaling.second(normed))
    cells = upscaling(image.flatten(2).transpose(1, 2))
    torch.testing.assert_close(unfold_cells(cells.flatten(1, 3), grid=5), expected)


@torch.no_grad()
def test_relative_attention_matches_its_definition_cell_by_cell() -> None:
    size, dim = 3, 8
    attention = RelativeAttention(dim, 1, size=size)
    _randomise(attention)
    x = torch.randn(1, size, size, dim)
    query, key, value = attention.qkv(x.reshape(-1, dim)).chunk(3, dim=-1)
    cells = [(y, x) for y in range(size) for x in range(size)]
    logits = torch.empty(len(cells), len(cells))
    for i, (y, left) in enumerate(cells):
        for j, (other_y, other_left) in enumerate(cells):
            row, column = attention.rel_pos_h[y - other_y + size - 1], attention.rel_pos_w[left - other_left + size - 1]
            logits[i, j] = query[i] @ key[j] * dim**-0.5 + query[i] @ row + query[i] @ column
    expected = attention.proj(logits.softmax(-1) @ value).reshape(1, size, size, dim)
    torch.testing.assert_close(attention(x), expected)


@torch.no_grad()
def test_folded_attention_pool_equals_the_pool_as_written() -> None:
    pool = AttentionPool(128, 24, cells=3)
    _randomise(pool)
    region = torch.randn(4, 128, 3, 3)
    tokens = region.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    heads = [p(tokens).unflatten(-1, (2, 64)).transpose(1, 2) for p in (pool.q_proj, pool.k_proj, pool.v_proj)]
    expected = pool.c_proj(functional.scaled_dot_product_attention(*heads)[:, :, 0].flatten(1))
    torch.testing.assert_close(pool(region), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("labels", [[1], [1, 0, 1], [2, 3], [1, 2, 3]])
def test_an_unused_slot_changes_nothing(network: OpenVocabularySam, labels: list[int]) -> None:
    torch.manual_seed(0)
    graph = PromptDecoderGraph(network)
    embedding = torch.randn(1, TINY.decoder.dim, TINY.grid, TINY.grid)
    coords = torch.rand(1, 1, len(labels), 2) * TINY.input_size
    no_mask = (torch.zeros(1, 1, 1, 1), torch.zeros(1, 1))
    alone = graph(embedding, coords, torch.tensor([[labels]]), *no_mask)
    wild, padded_labels = torch.tensor([[[[3e4, -7.0], [math.inf, math.nan]]]]), torch.tensor([[[*labels, -1, -1]]])
    padded = [
        graph(embedding, torch.cat([coords, x], 2), padded_labels, *no_mask) for x in (wild, torch.zeros_like(wild))
    ]
    assert torch.equal(padded[0][0], padded[1][0])
    torch.testing.assert_close(padded[0][0], alone[0], rtol=0, atol=2e-3)


@torch.no_grad()
def test_each_label_has_its_own_embedding_and_only_a_box_drops_the_padding_token(network: OpenVocabularySam) -> None:
    encoder = network.prompt_encoder
    coords = torch.tensor([[[10.0, 20.0]]])
    for label in range(4):
        tokens, valid = encoder.sparse(coords, torch.tensor([[label]]))
        kind = tokens[0, 0] - encoder.fourier((coords[0, 0] + 0.5) / TINY.input_size)
        torch.testing.assert_close(kind, torch.Tensor(encoder.point_embeddings[label].weight)[0])
        torch.testing.assert_close(tokens[0, 1], encoder.not_a_point_embed.weight[0])
        assert valid[0].tolist() == [True, label < 2]


@torch.no_grad()
def test_a_mask_prompt_counts_only_when_it_is_said_to_be_there(network: OpenVocabularySam) -> None:
    mask = torch.randn(2, TINY.low_res_size, TINY.low_res_size)
    dense = network.prompt_encoder.dense(mask, torch.tensor([0.0, 1.0]))
    none = network.prompt_encoder.dense(torch.zeros(1, 1, 1), torch.zeros(1))
    torch.testing.assert_close(dense[:1], none)
    torch.testing.assert_close(dense[1:], network.prompt_encoder.mask_downscaling(mask[1:, None]))


@torch.no_grad()
def test_padding_after_a_text_changes_nothing(network: OpenVocabularySam) -> None:
    graph = TextEncoderGraph(network)
    ids = torch.tensor([[49406, 320, 49407]])
    torch.testing.assert_close(graph(functional.pad(ids, (0, 5))), graph(ids))
    torch.testing.assert_close(graph(ids).norm(dim=-1), torch.ones(1))


def test_boxes_end_behind_the_last_positive_cell_and_empty_masks_have_none() -> None:
    logits = torch.full((2, 32, 32), -1.0)
    logits[0, 3:6, 11] = 5
    assert mask_boxes(logits).tolist() == [[44.0, 12.0, 48.0, 24.0], [0.0, 0.0, 0.0, 0.0]]
    assert mask_visibility(logits).tolist() == [1.0, 0.0]


def test_a_speck_between_the_samples_of_the_reduced_grid_is_not_visible() -> None:
    logits = torch.full((1, 32, 32), -1.0)
    logits[0, 0, 0] = 5
    assert mask_visibility(logits).tolist() == [0.0]


def test_a_side_on_a_threshold_belongs_to_the_coarser_level() -> None:
    sides = torch.tensor([111.0, 112.0, 223.9, 224.0, 448.0, 1024.0, 0.0])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    assert pyramid_level(boxes).tolist() == [0, 1, 1, 2, 3, 3, 0]


def test_roi_align_averages_the_cells_of_the_box() -> None:
    features = torch.arange(64, dtype=torch.float32).reshape(1, 1, 8, 8)
    region = roi_align(features, torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0]), 2, 4.0)
    torch.testing.assert_close(region[0, 0], torch.tensor([[22.5, 24.5], [38.5, 40.5]]))


def test_roi_align_reads_nothing_outside_the_map() -> None:
    regions = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[16.0, 16.0, 48.0, 48.0]]), torch.tensor([0]), 4, 4.0)
    assert regions[0, 0, 0, 0] == 1
    assert regions[0, 0, 3, 3] == 0


_BOXES = {
    "inside": [1.0, 2.0, 30.0, 31.0],
    "smaller than a cell": [4.0, 4.0, 4.001, 4.001],
    "partly outside": [16.0, 16.0, 60.0, 60.0],
    "outside": [-40.0, -40.0, -10.0, -10.0],
    "zero": [0.0, 0.0, 0.0, 0.0],
    "a point": [5.0, 5.0, 5.0, 5.0],
    "no height": [4.0, 4.0, 20.0, 4.0],
    "no width": [4.0, 4.0, 4.0, 20.0],
    "inside out": [20.0, 20.0, 4.0, 4.0],
}


@pytest.mark.parametrize("box", _BOXES.values(), ids=list(_BOXES))
def test_roi_align_gives_what_the_onnx_operator_gives(box: list[float]) -> None:
    """An empty box has no samples, so both give zeros."""
    features, boxes = torch.randn(1, 2, 8, 8), torch.tensor([box])
    region = roi_align(features, boxes, torch.tensor([0]), 4, 4.0)
    inputs = [tensor("x", FLOAT, 1, 2, 8, 8), tensor("boxes", FLOAT, "N", 4), tensor("index", INT64, "N")]
    node = helper.make_node(
        "RoiAlign",
        ["x", "boxes", "index"],
        ["y"],
        coordinate_transformation_mode="half_pixel",
        output_height=4,
        output_width=4,
        sampling_ratio=0,
        spatial_scale=0.25,
    )
    graph = helper.make_graph([node], "roi", inputs, [tensor("y", FLOAT, "N", 2, 4, 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": features.numpy(), "boxes": boxes.numpy(), "index": np.zeros(1, np.int64)})
    np.testing.assert_allclose(region, expected, atol=1e-6)
    assert region.any() == (box[2] > box[0] and box[3] > box[1] and box[2] > 0)


def test_a_stored_map_is_off_by_half_a_code_at_most() -> None:
    x = torch.randn(2, 5, 6, 7) * torch.tensor([1.0, 3.0, 0.0, 10.0, 0.1])[None, :, None, None]
    stored = quantise(x)
    error = (dequantise(stored) - x).abs().amax((2, 3))
    assert (error <= stored.scale * 0.51 + 1e-6).all()


def test_the_decoder_is_built_from_its_sizes_alone() -> None:
    assert MaskDecoder(TINY.decoder, grid=TINY.grid).grid * 4 == TINY.low_res_size
