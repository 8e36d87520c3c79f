"""Brush RLE against a plain decoder, which itself is held to bytes that Label Studio's SDK wrote."""

import time

import cv2
import numpy as np
import pytest

from service.core.brush_rle import encode_brush_rle
from service.core.types import BoolArray
from tests.brush_decoder import decode_brush

SDK_MASK = ("........", "..#####.", "..#####.", "..#####.", "........", "#.......")
SDK_RLE = bytes.fromhex("000000c0391bfe2700c27ff6c0309ffdb00c27ff88c023ffc36000")  # label-studio-sdk's encode_rle
SECONDS = 0.06


def ragged(height: int, width: int, *, sigma: float, seed: int = 0) -> BoolArray:
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    mask: BoolArray = cv2.GaussianBlur(noise, (0, 0), sigma) > 0
    return mask


def test_the_tests_own_decoder_reads_what_the_sdk_writes() -> None:
    expected = np.array([[pixel == "#" for pixel in row] for row in SDK_MASK])
    np.testing.assert_array_equal(decode_brush(SDK_RLE, width=8, height=6), expected)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (40, 33)])
def test_a_mask_comes_back(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(7).random(shape) < share
    rle = encode_brush_rle(mask)
    np.testing.assert_array_equal(decode_brush(rle.tolist(), width=shape[1], height=shape[0]), mask)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 64, 65, 16384, 16385, 32768, 40000])
def test_runs_at_the_limits_of_each_record_size(length: int) -> None:
    flat = np.zeros(length + 3, np.bool_)
    flat[:length] = True
    for mask in (flat[None, :], ~flat[None, :]):
        rle = encode_brush_rle(mask)
        np.testing.assert_array_equal(decode_brush(rle.tolist(), width=flat.size, height=1), mask)


def test_a_view_that_is_not_contiguous() -> None:
    mask = ragged(60, 40, sigma=2)[:, ::2]
    np.testing.assert_array_equal(decode_brush(encode_brush_rle(mask).tolist(), width=20, height=60), mask)


def test_a_ragged_mask_of_12_megapixels_is_quick() -> None:
    """CPU time, the best of five: other work on the machine is not what is measured."""
    mask = ragged(3000, 4000, sigma=6)
    runs = np.count_nonzero(mask.ravel()[1:] != mask.ravel()[:-1])
    spent = []
    for _ in range(5):
        started = time.process_time()
        encode_brush_rle(mask)
        spent.append(time.process_time() - started)
    print(f"12 megapixels, {runs} runs: {1000 * min(spent):.1f} ms")
    assert runs > 400_000
    assert min(spent) < SECONDS
