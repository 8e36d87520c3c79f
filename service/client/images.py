"""An image as a caller has it: a file, bytes, pixels or a digest; named by the digest of its bytes."""

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ImageLike = str | Path | bytes | NDArray[np.uint8]
"""A path, a file's bytes, pixels [H, W, 3] or [H, W] in RGB or gray, or the "sha256:..." of an image sent before."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image's name, and its bytes where they are at hand."""

    digest: str
    content: bytes | None = field(repr=False)


def read_image(image: ImageLike) -> ImageFile:
    """Name an image; reads files, and packs pixels without loss."""
    if isinstance(image, str) and _DIGEST.fullmatch(image):
        return ImageFile(image, None)
    if isinstance(image, np.ndarray):
        content = _encode_png(image)
    else:
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
    return ImageFile(f"sha256:{hashlib.sha256(content).hexdigest()}", content)


def find_images(folder: Path) -> list[Path]:
    """All image files under a folder, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit PNG: signature, header, one stream of unfiltered rows, end."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels must be uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = np.pad(np.ascontiguousarray(pixels).reshape(height, -1), ((0, 0), (1, 0)))  # each row's filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
