"""Label Studio's brush RLE, decoded bit by bit as its format says; slow, plain, and made without our encoder."""

from collections.abc import Sequence

import numpy as np

from service.core.types import BoolArray


def decode_brush(rle: Sequence[int], *, width: int, height: int) -> BoolArray:
    """The mask [H, W] of an `rle`; fails unless all four bytes of each pixel are equal, and 0 or 255."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    assert len(values) == count == 4 * width * height
    assert len(bits) - position < 8
    pixels = np.array(values, dtype=np.uint8).reshape(height, width, 4)
    assert np.isin(pixels, (0, 255)).all()
    assert (pixels == pixels[:, :, :1]).all()
    mask: BoolArray = pixels[:, :, 3] == 255
    return mask
