"""One part of an embedding bundle as bytes: versioned, checksummed, no pickle.

    magic "OVS" | version u8 | crc32 u32 of the rest | header length u32 | header JSON | arrays, raw, one after another

The header lists name, dtype and shape of each array. Little-endian throughout.
"""

import json
import struct
import zlib

import numpy as np

from service.core.types import Array, Tensors

VERSION = 1
_PREFIX = struct.Struct("<3sBII")
_MAGIC = b"OVS"
_TYPES = frozenset({"uint8", "int8", "int32", "int64", "float16", "float32"})


class InvalidPart(ValueError):
    """The bytes are not a part written by this version, or were damaged."""


def encode_part(tensors: Tensors) -> bytes:
    """Tensors -> bytes."""
    fields = [{"name": name, "type": array.dtype.name, "shape": array.shape} for name, array in tensors.items()]
    header = json.dumps(fields).encode()
    body = b"".join([header, *(np.ascontiguousarray(array).tobytes() for array in tensors.values())])
    return _PREFIX.pack(_MAGIC, VERSION, zlib.crc32(body), len(header)) + body


def decode_part(content: bytes) -> dict[str, Array]:
    """Bytes -> tensors (read-only views of `content`); raises InvalidPart."""
    if len(content) < _PREFIX.size:
        raise InvalidPart("truncated prefix")
    magic, version, checksum, header_length = _PREFIX.unpack_from(content)
    if magic != _MAGIC or version != VERSION:
        raise InvalidPart("foreign bytes or another version")
    body = memoryview(content)[_PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise InvalidPart("checksum differs")
    tensors: dict[str, Array] = {}
    start = header_length
    for field in json.loads(bytes(body[:header_length])):
        if field["type"] not in _TYPES:
            raise InvalidPart("unknown type")
        dtype, shape = np.dtype(field["type"]), tuple(field["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        tensors[field["name"]] = np.frombuffer(body, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return tensors
