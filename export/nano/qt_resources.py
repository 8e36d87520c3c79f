"""Unpack Qt's binary resources (`.rcc`): some Debian packages keep their pictures in them.

Layout, as Qt's `rcc` writes it: header `qres`, version, and where tree, data and names begin; the tree's nodes are
folders (flags, count, first child) or files (flags, locale, place of the data). All numbers are big-endian.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

COMPRESSED, FOLDER, ZSTANDARD = 1, 2, 4
ZLIB_SIZE = 4
"""Bytes in front of zlib's stream that say how long the content is."""


def unpack_resources(archive: Path, target: Path) -> None:
    """Write every file of an archive below a folder; ValueError for another format or compression."""
    for name, content in read_resources(archive.read_bytes()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_resources(archive: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Relative names and contents; ValueError for another format or compression."""
    if archive[:4] != b"qres":
        raise ValueError("not a Qt resource file: it does not begin with 'qres'")
    version, tree, data, names = struct.unpack_from(">4I", archive, 4)
    node_size = 14 if version == 1 else 22
    pending = [(0, PurePosixPath())]
    while pending:
        index, path = pending.pop()
        node = tree + index * node_size
        name, flags = struct.unpack_from(">IH", archive, node)
        here = path / _name(archive, names + name) if index else path
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", archive, node + 6)
            pending += [(child, here) for child in range(first, first + count)]
        elif flags & ZSTANDARD:
            raise ValueError(f"{here} is compressed with zstandard")
        else:
            (place,) = struct.unpack_from(">I", archive, node + 10)
            (size,) = struct.unpack_from(">I", archive, data + place)
            content = archive[data + place + 4 : data + place + 4 + size]
            yield here, zlib.decompress(content[ZLIB_SIZE:]) if flags & COMPRESSED else content


def _name(archive: bytes, place: int) -> str:
    (length,) = struct.unpack_from(">H", archive, place)
    return archive[place + 6 : place + 6 + 2 * length].decode("utf-16-be")
