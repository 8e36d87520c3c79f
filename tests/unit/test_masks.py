"""Masks come back to the original frame as the reference does it, and clean-up does what the manifest says."""

import numpy as np
import pytest

from service.core.masks import clean_up_logits, low_res_box, mask_box, restore_mask, stability
from service.core.spec import CleanUp
from service.core.types import Box, Float32Array, Letterbox, Point, Prompt, Size

SQUARE = Letterbox.fit(Size(100, 100), input_size=64)
RULES = CleanUp(smooth_sigma=0.0, keep_prompted=True, fill_holes_below=0.2, drop_islands_below=0.1)


def logits(*boxes: tuple[int, int, int, int], side: int = 16) -> Float32Array:
    values = np.full((side, side), -4.0, np.float32)
    for x1, y1, x2, y2 in boxes:
        values[y1:y2, x1:x2] = 4.0
    return values


def clean(values: Float32Array, prompt: Prompt, rules: CleanUp = RULES) -> Float32Array:
    return clean_up_logits(values, prompt, rules=rules, letterbox=SQUARE, input_size=64)


def test_restoring_scales_crops_the_padding_and_scales_again() -> None:
    letterbox = Letterbox.fit(Size(50, 100), input_size=64)
    mask = restore_mask(logits((4, 2, 12, 6)), letterbox, input_size=64)
    assert mask.shape == (50, 100)
    assert mask_box(mask) == pytest.approx((25, 12.5, 75, 37.5), abs=2)
    below = restore_mask(logits((0, 9, 16, 16)), letterbox, input_size=64)
    assert not below[:-4].any()


def test_boxes_of_masks() -> None:
    mask = np.zeros((10, 20), bool)
    assert mask_box(mask) == Box(0, 0, 0, 0)
    mask[3:5, 7:8] = True
    assert mask_box(mask) == Box(7, 3, 8, 5)
    assert low_res_box(mask[:, :10], input_size=40) == Box(28, 12, 32, 20)


def test_stability_is_the_iou_at_plus_and_minus_one() -> None:
    values = np.array([[3.0, 0.5], [-0.5, -3.0]], np.float32)
    assert stability(values) == pytest.approx(1 / 3)
    assert stability(np.full((2, 2), -9, np.float32)) == 0.0


def test_only_the_clicked_component_stays() -> None:
    values = logits((1, 1, 5, 5), (9, 9, 14, 14))
    cleaned = clean(values, Prompt(points=(Point(15, 15),)))
    assert np.array_equal(cleaned > 0, logits((1, 1, 5, 5)) > 0)


def test_a_click_beside_the_mask_takes_nothing_away() -> None:
    values = logits((1, 1, 5, 5), (9, 9, 14, 14))
    assert np.array_equal(clean(values, Prompt(points=(Point(95, 5),))), values)


def test_a_box_drops_islands_and_keeps_the_rest() -> None:
    values = logits((1, 1, 8, 8), (12, 12, 13, 13), (9, 1, 14, 6))
    cleaned = clean(values, Prompt(box=Box(0, 0, 100, 100)))
    assert np.array_equal(cleaned > 0, logits((1, 1, 8, 8), (9, 1, 14, 6)) > 0)


def test_small_holes_are_filled_and_large_or_open_ones_are_not() -> None:
    values = logits((0, 0, 12, 12))
    values[2, 2] = values[5:11, 5:11] = values[0, 8] = -4.0
    mask = clean(values, Prompt(points=(Point(20, 3),))) > 0
    assert mask[2, 2]
    assert not mask[7, 7]
    assert not mask[0, 8]


def test_clicks_are_smoothed_and_boxes_are_not() -> None:
    rules = CleanUp(smooth_sigma=1.0, keep_prompted=True, fill_holes_below=0.0, drop_islands_below=0.0)
    values = logits((3, 3, 4, 4), (6, 6, 12, 12))
    assert not clean(values, Prompt(points=(Point(50, 50),)), rules)[3, 3] > 0
    assert clean(values, Prompt(box=Box(0, 0, 100, 100)), rules)[3, 3] > 0


def test_an_empty_mask_stays_empty() -> None:
    values = logits()
    assert np.array_equal(clean(values, Prompt(points=(Point(1, 1),))), values)
