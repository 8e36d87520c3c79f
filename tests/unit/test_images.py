"""Any image a person may send becomes what the person sees, or a clear refusal."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.core.errors import ImageTooLarge, InvalidImage
from service.core.images import decode_image, digest_of, resize_to_model
from service.core.types import Letterbox, Size, UInt8Array

LIMIT = 50_000_000
ORIENTATION = 0x0112


def scene() -> UInt8Array:
    """Wide, with a red left half and a green top right quarter: every turn looks different."""
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[:, :30] = (200, 0, 0)
    pixels[:20, 30:] = (0, 200, 0)
    return pixels


def packed(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def decode(content: bytes) -> UInt8Array:
    return decode_image(content, max_pixels=LIMIT)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_lossless_formats_give_the_pixels(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.abs(decode(packed(Image.fromarray(scene()), form, **options)).astype(int) - scene()).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_look_the_same(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(scene())
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(decode(packed(stored, exif=exif)), scene())


def test_gray_palette_and_cmyk_become_rgb() -> None:
    image = Image.fromarray(scene())
    gray = decode(packed(image.convert("L")))
    assert gray.shape == (40, 60, 3)
    assert np.array_equal(gray[..., 0], gray[..., 2])
    assert np.abs(decode(packed(image.convert("P", palette=Image.Palette.ADAPTIVE))).astype(int) - scene()).max() < 8
    assert np.abs(decode(packed(image.convert("CMYK"), "JPEG", quality=100)).astype(int) - scene()).mean() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_shown_on_white(mode: str) -> None:
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    content = packed(Image.new("P", (10, 10), 0), transparency=0) if mode == "P" else packed(image.convert(mode))
    assert (decode(content) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    shown = decode(packed(Image.fromarray(ramp)))
    assert np.abs(shown[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_one_pixel_and_a_thin_strip_pass() -> None:
    assert decode(packed(Image.new("RGB", (1, 1)))).shape == (1, 1, 3)
    frame, letterbox = resize_to_model(decode(packed(Image.new("RGB", (20_000, 10), "red"))), input_size=512)
    assert letterbox.resized == Size(1, 512)
    assert (frame[0, :, 0] == 255).all()
    assert not frame[1:].any()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_files_are_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    content = packed(Image.fromarray(noise), form)
    for share in (0.02, 0.5, 0.95):
        with pytest.raises(InvalidImage):
            decode(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am a .jpg", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%PDF-1.4", b"<svg/>"]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(content)


def test_random_damage_never_escapes_as_another_error() -> None:
    random = np.random.default_rng(3)
    noise = Image.fromarray(random.integers(0, 255, (30, 30, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"):
        content = packed(noise, form)
        for _ in range(60):
            damaged = bytearray(content)
            for position in random.integers(0, len(content), 6):
                damaged[position] = random.integers(0, 256)
            with contextlib.suppress(InvalidImage, ImageTooLarge):
                assert decode(bytes(damaged)).ndim == 3


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageTooLarge, match="3600000000"):
        decode(bomb)


def test_the_pixel_limit_names_limit_and_actual() -> None:
    with pytest.raises(ImageTooLarge, match=r"10 x 20 = 200 pixels; the limit is 199"):
        decode_image(packed(Image.new("L", (10, 20))), max_pixels=199)


def test_the_digest_is_of_the_bytes() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("original", "resized"), [((800, 1200), (683, 1024)), ((10, 10), (1024, 1024)), ((3000, 2), (1024, 1))]
)
def test_the_letterbox_rounds_as_the_reference(original: tuple[int, int], resized: tuple[int, int]) -> None:
    letterbox = Letterbox.fit(Size(*original), input_size=1024)
    assert letterbox.resized == Size(*resized)
    assert letterbox.scale == (resized[1] / original[1], resized[0] / original[0])
