"""RLE, polygons and PNG hold a mask to the pixel, by other people's decoders."""

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from service.core.encodings import encode_png, encode_polygons, encode_rle
from service.core.masks import restore_mask
from service.core.types import BoolArray, Letterbox, Size

SHAPES = [(1, 1), (1, 9), (9, 1), (5, 7), (64, 48), (301, 503)]
SHARES = [0.0, 0.01, 0.5, 0.99, 1.0]


def masks() -> list[BoolArray]:
    random = np.random.default_rng(7)
    noise = [random.random(shape) < share for shape in SHAPES for share in SHARES]
    rings = np.zeros((80, 90), np.uint8)
    for radius, value in ((35, 1), (28, 0), (20, 1), (10, 0), (4, 1)):
        cv2.circle(rings, (45, 40), radius, value, -1)
    return [*noise, rings.astype(bool)]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}-{mask.mean():.2f}")
def test_all_three_forms_are_exact(mask: BoolArray) -> None:
    counts = encode_rle(mask).encode()
    assert counts == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert np.array_equal(coco.decode({"size": list(mask.shape), "counts": counts}), mask)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(mask)))), mask)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [ring.points for ring in encode_polygons(mask)], (1,))
    assert np.array_equal(filled.astype(bool), mask)


def test_holes_are_told_apart_and_follow_their_outline() -> None:
    mask = np.zeros((20, 40), bool)
    mask[2:18, 2:18] = mask[2:18, 22:38] = True
    mask[8:12, 8:12] = False
    rings = encode_polygons(mask)
    assert sorted(ring.hole for ring in rings) == [False, False, True]
    hole = next(index for index, ring in enumerate(rings) if ring.hole)
    assert rings[hole - 1].points[:, 0].max() < 20


def test_simplified_polygons_have_fewer_points_and_stay_near() -> None:
    mask = np.zeros((200, 200), np.uint8)
    cv2.circle(mask, (100, 100), 80, 1, -1)
    (exact,), (simple,) = encode_polygons(mask.astype(bool)), encode_polygons(mask.astype(bool), simplify=2.0)
    assert len(simple.points) < len(exact.points) / 3
    distances = np.abs(np.hypot(*(simple.points - 100).T) - 80)
    assert distances.max() < 3


def test_a_ragged_twelve_megapixel_mask_is_rendered_at_the_pace_of_the_reference() -> None:
    """Scaled up and encoded within three encodings of pycocotools, in processor time; the milliseconds are printed.

    Which of the two encodes faster depends on the processor: it was ours on one, and pycocotools on a newer one.
    """
    random = np.random.default_rng(1)
    logits = cv2.GaussianBlur(random.standard_normal((256, 256)).astype(np.float32), (0, 0), 2).astype(np.float32) * 10
    letterbox = Letterbox.fit(Size(3000, 4000), input_size=1024)
    ours, reference = [], []
    for _ in range(7):
        started = time.process_time()
        mask = restore_mask(logits, letterbox, input_size=1024)
        counts = encode_rle(mask)
        ours.append(time.process_time() - started)
        expected = coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
        reference.append(time.process_time() - started - ours[-1])
    print(f"12 MP, {len(counts)} characters: {1000 * min(ours):.0f} ms, pycocotools {1000 * min(reference):.0f} ms")
    assert counts.encode() == expected
    assert len(counts) > 100_000
    assert min(ours) < 3 * min(reference)
