"""Image bytes to pixels, under limits, as a person would see them.

Pillow reads (it tells the size from the header before it decodes), OpenCV scales (its bilinear is the reference's).
"""

import hashlib
import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.core.errors import ImageTooLarge, InvalidImage
from service.core.types import Letterbox, Size, UInt8Array

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_TRANSPOSED = {5, 6, 7, 8}  # EXIF orientations that swap width and height
_EXIF_ORIENTATION = 0x0112


def digest_of(content: bytes) -> str:
    """The image's public name: sha256 of the original bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def decode_image(content: bytes, *, max_pixels: int) -> UInt8Array:
    """Decode to RGB uint8 [H, W, 3] as displayed: EXIF turned, alpha over white, 16 bit scaled, first frame.

    Raises InvalidImage, or ImageTooLarge by the header's size, before any pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: our limit is stricter and raises
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise ImageTooLarge(
                    f"the image has {image.width} x {image.height} = {pixels} pixels; the limit is {max_pixels}"
                )
            return _as_displayed(image)
    except Image.DecompressionBombError as error:  # far over our limit: Pillow refuses before it tells the size
        raise ImageTooLarge(f"the image is over the limit of {max_pixels} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(f"the bytes are not an image of a supported type ({', '.join(FORMATS)})") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError) as error:
        # what Pillow's parsers raise on damaged files, by their own documentation and by fuzzing
        raise InvalidImage(f"the image is damaged: {error}") from error


def resize_to_model(image: UInt8Array, *, input_size: int) -> tuple[UInt8Array, Letterbox]:
    """Scale RGB [h, w, 3] to the model frame: [S, S, 3] with zeros as padding, and the letterbox (SPEC section 1)."""
    letterbox = Letterbox.fit(Size(*image.shape[:2]), input_size=input_size)
    height, width = letterbox.resized
    frame = np.zeros((input_size, input_size, 3), dtype=np.uint8)
    if letterbox.resized == letterbox.original:
        frame[:height, :width] = image
    else:
        frame[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return frame, letterbox


def _as_displayed(image: Image.Image) -> UInt8Array:
    if image.mode.startswith(("I;16", "I", "F")):
        return _deep_gray(image)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # a copy of 50 megapixels is 200 MB
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _deep_gray(image: Image.Image) -> UInt8Array:
    """Gray of 16 or 32 bit or float to 8 bit; Pillow's own conversion would clip it to white."""
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F" or values.max(initial=0) > 65535:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        values = (values - low) / max(high - low, 1e-12) * 65535
    gray = Image.fromarray(np.clip(np.nan_to_num(values) / 257 + 0.5, 0, 255).astype(np.uint8))
    if orientation != 1:
        gray.getexif()[_EXIF_ORIENTATION] = orientation
        gray = ImageOps.exif_transpose(gray)
    return np.asarray(gray.convert("RGB"))
