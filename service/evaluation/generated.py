"""Pictures for a comparison without any at hand: shapes on a shaded ground, the same for the same number everywhere."""

import cv2
import numpy as np

from service.client.images import read_image

_SIZE = (480, 640)  # height, width
_SHAPES = 9


def generate(number: int) -> bytes:
    """Picture `number` as a PNG file."""
    rng = np.random.default_rng(number)
    height, width = _SIZE
    ramp = np.linspace(0, 60, width, dtype=np.float32)[None, :, None]
    ground = rng.integers(60, 180, 3).astype(np.float32) + ramp + rng.normal(0, 6, (height, width, 3))
    canvas = np.clip(ground, 0, 255).astype(np.uint8)
    for _ in range(_SHAPES):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(20, 110)), int(rng.integers(20, 110)))
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        if rng.random() < 0.5:
            cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            corners = cv2.boxPoints((centre, axes, float(rng.uniform(0, 90))))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], colour)
    content = read_image(canvas).content
    if content is None:
        raise TypeError("pixels were packed")
    return content
