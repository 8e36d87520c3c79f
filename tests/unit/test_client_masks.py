"""The client's own reading of masks: COCO's RLE, and outlines exact to the pixel."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from service.client.masks import BoolArray, Polygon, Rle, decode_rle, find_polygons

SHAPES = [(1, 1), (1, 9), (9, 1), (5, 7), (40, 31), (200, 333)]


def random_mask(shape: tuple[int, int], *, share: float) -> BoolArray:
    mask: BoolArray = np.random.default_rng(7).random(shape) < share
    return mask


def signed_area(polygon: Polygon) -> float:
    x, y = polygon.points.astype(float).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_rle_of_pycocotools_is_decoded_to_the_pixel(shape: tuple[int, int], share: float) -> None:
    mask = random_mask(shape, share=share)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_rle(Rle(shape, encoded["counts"].decode())), mask)


def test_runs_longer_than_a_group_of_bits_are_decoded() -> None:
    mask = np.zeros((2000, 3000), np.bool_)
    mask[1999, 2999] = mask[3, 5] = True
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_rle(Rle((2000, 3000), encoded["counts"].decode())), mask)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_outlines_enclose_exactly_the_masks_pixels(shape: tuple[int, int], share: float) -> None:
    mask = random_mask(shape, share=share)
    polygons = find_polygons(mask)
    assert sum(signed_area(polygon) for polygon in polygons) == mask.sum()
    assert all((signed_area(polygon) < 0) == polygon.hole for polygon in polygons)
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    assert sum(not polygon.hole for polygon in polygons) == parts


def test_a_ring_has_an_outline_and_a_hole_with_their_corners_only() -> None:
    mask = np.zeros((8, 10), np.bool_)
    mask[1:7, 2:9] = True
    mask[3:5, 4:6] = False
    outline, hole = find_polygons(mask)
    assert sorted(map(tuple, outline.points.tolist())) == [(2, 1), (2, 7), (9, 1), (9, 7)]
    assert sorted(map(tuple, hole.points.tolist())) == [(4, 3), (4, 5), (6, 3), (6, 5)]
    assert (outline.hole, hole.hole) == (False, True)
