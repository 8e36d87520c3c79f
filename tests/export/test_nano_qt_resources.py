"""Qt's resource archives, packed here by hand from the layout that `rcc` writes."""

import struct
import zlib
from pathlib import Path

import pytest

from export.nano.qt_resources import COMPRESSED, FOLDER, ZSTANDARD, read_resources, unpack_resources

PLAIN, LONG = b"a picture", b"text " * 100


def archive(*, flags: int = 0, version: int = 2) -> bytes:
    """Root / images / {one.webp, two.txt}; the second is compressed."""
    squeezed = struct.pack(">I", len(LONG)) + zlib.compress(LONG)
    data = b"".join(struct.pack(">I", len(part)) + part for part in (PLAIN, squeezed))
    names, places = b"", []
    for name in ("images", "one.webp", "two.txt"):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    time = b"" if version == 1 else bytes(8)
    tree = b"".join(
        (
            struct.pack(">IHII", 0, FOLDER, 1, 1) + time,
            struct.pack(">IHII", places[0], FOLDER, 2, 2) + time,
            struct.pack(">IHII", places[1], flags, 0, 0) + time,
            struct.pack(">IHII", places[2], COMPRESSED, 0, len(PLAIN) + 4) + time,
        )
    )
    start = 20
    header = b"qres" + struct.pack(">4I", version, start, start + len(tree), start + len(tree) + len(data))
    return header + tree + data + names


@pytest.mark.parametrize("version", [1, 2])
def test_files_come_with_their_folders_and_contents(tmp_path: Path, version: int) -> None:
    """Whether they are compressed or not."""
    packed = tmp_path / "some.rcc"
    packed.write_bytes(archive(version=version))
    unpack_resources(packed, tmp_path / "out")
    assert (tmp_path / "out/images/one.webp").read_bytes() == PLAIN
    assert (tmp_path / "out/images/two.txt").read_bytes() == LONG


def test_what_cannot_be_read_is_refused() -> None:
    """Another format, and a compression that this reader does not know."""
    with pytest.raises(ValueError, match="not a Qt resource file"):
        list(read_resources(b"PK\x03\x04" + bytes(40)))
    with pytest.raises(ValueError, match=r"images/one\.webp is compressed with zstandard"):
        list(read_resources(archive(flags=ZSTANDARD)))
