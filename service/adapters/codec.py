"""One part of an embedding bundle as bytes: versioned, checksummed, no pickle.

    magic "OVS" | version u8 | coding u8 | crc32 u32 of what follows | body
    body: header length u32 | header JSON | arrays, raw, one after another; zstd-compressed where coding is 1

The header lists name, dtype and shape of each array. Little-endian throughout. Parts of quantised codes are compressed,
parts with float features are not: they hardly shrink (SPEC section 13).
"""

import json
import struct
import zlib

import numpy as np
import zstandard

from service.core.types import Array, Tensors

VERSION = 2
_PREFIX = struct.Struct("<3sBBI")
_LENGTH = struct.Struct("<I")
_MAGIC = b"OVS"
_RAW, _ZSTD = 0, 1
_TYPES = frozenset({"uint8", "int8", "int32", "int64", "float16", "float32"})
_LARGEST_BODY = 2**30  # a damaged frame must not make us allocate more than any part can need


class InvalidPart(ValueError):
    """The bytes are not a part written by this version, or were damaged."""


def encode_part(tensors: Tensors) -> bytes:
    """Tensors -> bytes."""
    fields = [{"name": name, "type": array.dtype.name, "shape": array.shape} for name, array in tensors.items()]
    header = json.dumps(fields).encode()
    arrays = [np.ascontiguousarray(array).tobytes() for array in tensors.values()]
    body = b"".join([_LENGTH.pack(len(header)), header, *arrays])
    codes = sum(array.nbytes for array in tensors.values() if array.dtype == np.uint8)
    coding = _ZSTD if 2 * codes > len(body) else _RAW
    if coding == _ZSTD:
        body = zstandard.ZstdCompressor(level=1).compress(body)
    return _PREFIX.pack(_MAGIC, VERSION, coding, zlib.crc32(body)) + body


def decode_part(content: bytes) -> dict[str, Array]:
    """Bytes -> tensors (read-only); raises InvalidPart."""
    if len(content) < _PREFIX.size:
        raise InvalidPart("truncated prefix")
    magic, version, coding, checksum = _PREFIX.unpack_from(content)
    if magic != _MAGIC or version != VERSION or coding not in (_RAW, _ZSTD):
        raise InvalidPart("foreign bytes or another version")
    body = memoryview(content)[_PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise InvalidPart("checksum differs")
    if coding == _ZSTD:
        body = memoryview(_decompress(body))
    (header_length,) = _LENGTH.unpack_from(body)
    start = _LENGTH.size + header_length
    tensors: dict[str, Array] = {}
    for field in json.loads(bytes(body[_LENGTH.size : start])):
        if field["type"] not in _TYPES:
            raise InvalidPart("unknown type")
        dtype, shape = np.dtype(field["type"]), tuple(field["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        tensors[field["name"]] = np.frombuffer(body, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return tensors


def _decompress(body: memoryview) -> bytes:
    if zstandard.frame_content_size(body) > _LARGEST_BODY:
        raise InvalidPart("too large")
    try:
        return zstandard.ZstdDecompressor().decompress(body)
    except zstandard.ZstdError as error:
        raise InvalidPart("damaged frame") from error
