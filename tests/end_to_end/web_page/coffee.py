"""Pictures for the page, and steps that many tests begin with."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from tests.end_to_end.gateway import SAMPLES
from tests.end_to_end.web_page.visitor import Frame, Visitor

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
COFFEE_SIZE = (600, 400)
CUP = (340, 200)
SPOON = (390, 245)


@contextmanager
def expected_errors(visitor: Visitor) -> Iterator[None]:
    """What the browser's console says of a request that is meant to fail is no fault of the page."""
    before = list(visitor.errors)
    yield
    visitor.settle()
    visitor.errors[:] = before


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose pixel (x, y) has the colour (x, y, 90): a screenshot tells what lies where."""
    x, y = np.meshgrid(np.arange(width, dtype=np.uint8), np.arange(height, dtype=np.uint8))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=2))


def packed(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=form, **options)
    return stream.getvalue()


def click_cup(visitor: Visitor) -> Frame:
    """Open the coffee picture and click the cup."""
    visitor.open("coffee.jpg", COFFEE)
    frame = visitor.frame(*COFFEE_SIZE)
    visitor.page.mouse.click(*frame.at(*CUP))
    visitor.answered()
    return frame
