"""A mask as Label Studio's brush RLE, which is not COCO's: runs of bytes of an RGBA picture, packed into a bit stream.

The stream is a 32-bit count of bytes (4 H W), 5 bits of word size - 1, four times 4 bits of length size - 1, and then
records: a bit (1: one byte repeated), 2 bits that choose a length size, the length - 1, and the byte. A pixel is four
equal bytes, 0 or 255; pixels go row by row. All records are made and packed at once, since a loop over the runs of a
ragged mask takes longer than the network.
"""

import numpy as np
from numpy.typing import NDArray

from service.core.types import BoolArray, UInt8Array

_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 2**16 // 4  # pixels in the longest record
_HEADER_BITS = 32 + 5 + 4 * 4


def encode_brush_rle(mask: BoolArray) -> UInt8Array:
    """The bytes of Label Studio's `rle` for a mask [H, W]."""
    lengths, values = _records(mask)
    codes = _PREFIXES.take(lengths, mode="clip")
    codes += lengths * 1024 - 256  # (4 * length - 1) << 8
    codes += values
    return _pack(_header(4 * mask.size), codes.view(np.uint64), _SIZES.take(lengths, mode="clip"))


def _tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By length in pixels up to 65, which stands for all longer ones: a record's first bits, and its size in bits."""
    index = np.searchsorted(np.array([2, 4, 64]), np.arange(66))
    bits = np.array(_LENGTH_BITS)[index]
    return (4 | index) << (bits + 8), bits + 11


_PREFIXES, _SIZES = _tables()


def _records(mask: BoolArray) -> tuple[NDArray[np.int64], UInt8Array]:
    """Lengths in pixels and values (0 or 255) of all records: the runs, with long ones cut."""
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    edges = np.flatnonzero((flat[1:] ^ flat[:-1]).view(np.bool_))
    bounds = np.empty(edges.size + 2, np.int64)
    bounds[0], bounds[-1] = 0, flat.size
    np.add(edges, 1, out=bounds[1:-1])
    runs = bounds[1:] - bounds[:-1]
    values = np.zeros(runs.size, np.uint8)
    values[1 - int(flat[0]) :: 2] = 255
    if runs.max() <= _LONGEST:
        return runs, values
    counts = -(-runs // _LONGEST)
    lengths = np.full(int(counts.sum()), _LONGEST, dtype=np.int64)
    lengths[np.cumsum(counts) - 1] = runs - (counts - 1) * _LONGEST
    return lengths, np.repeat(values, counts)


def _header(count: int) -> int:
    value = count << 5 | 7
    for bits in _LENGTH_BITS:
        value = value << 4 | bits - 1
    return value


def _pack(header: int, codes: NDArray[np.uint64], sizes: NDArray[np.int64]) -> UInt8Array:
    """Concatenate the header and codes of 14 to 27 bits, the highest bit first.

    A code touches at most two words of 32 bits, and some code begins in every word, so the codes that begin in a word
    are one slice, and only the last of them can reach into the next word.
    """
    started = _HEADER_BITS % 32  # bits of the header in the first word that codes share
    ends = np.cumsum(sizes)
    ends += started
    begins = ends - sizes
    words = begins >> 5
    pairs = codes << (64 - sizes - (begins & 31)).view(np.uint64)  # each code in the two words that it may touch
    firsts = np.flatnonzero(words[1:] != words[:-1]) + 1
    firsts = np.concatenate([np.zeros(1, np.int64), firsts])
    packed = np.zeros(firsts.size + 1, dtype=np.uint64)
    packed[:-1] = np.bitwise_or.reduceat(pairs >> np.uint64(32), firsts)
    packed[1:] |= pairs[np.append(firsts[1:], len(codes)) - 1] & np.uint64(2**32 - 1)
    packed[0] |= np.uint64(header << (32 - started) & 2**32 - 1)
    head = (header >> started).to_bytes(_HEADER_BITS // 32 * 4, "big")
    stream = np.concatenate([np.frombuffer(head, np.uint8), packed.astype(">u4").view(np.uint8)])
    return stream[: len(head) + -(-int(ends[-1]) // 8)]
