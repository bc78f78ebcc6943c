"""Picture files to and from uint8 RGB arrays, through Pillow. Knows formats and their faults, no faces."""

from __future__ import annotations

import io
import os
import secrets
import struct
import warnings
import zlib
from collections.abc import Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from edge_fer.errors import InputError, TooManyPixelsError

MAX_PIXELS = 100_000_000
_LONGEST_SIDE = 1 << 20  # longer ones cannot be cropped
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
WRITTEN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
# Pillow's names of them; it knows more, and one (EPS) runs a program on what it is given.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# A progressive JPEG is decoded by going over all of its pixels for each of its scans, which may be 36 bytes
# long: a file of 20 MB could take hours. Encoders make about ten; libtiff, too, stops at 100.
_MAX_SCANS = 100
# How a scan starts: marker, length and number of its components (ITU-T T.81, B.2.3).
_SCAN_STARTS = tuple(bytes((0xFF, 0xDA, 0, 6 + 2 * count, count)) for count in (1, 2, 3, 4))
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders let through on damaged files; there is no common base class.
_DECODER_ERRORS = (
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture file: (H, W, 3) uint8 RGB 0..255, upright; see `decode_image`.

    Raises:
        InputError: missing, unreadable or not a picture.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a picture, got a folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an encoded picture into upright RGB.

    EXIF orientation is applied, gray and palette become RGB, transparency is laid over white, 16 bits are cut
    to the upper 8, CMYK is converted, and of an animation the first frame is taken.

    Args:
        data: The file's bytes.
        name: What error messages call it.
        max_pixels: How many it may have; judged by the header, before anything is decoded.

    Returns:
        (H, W, 3) uint8 RGB 0..255.

    Raises:
        InputError: not a picture, damaged, of an unusual pixel type, of more than `max_pixels` pixels, or a
            JPEG of so many scans that it can only be meant to keep its reader busy.
    """
    if not data:
        raise InputError(f"{name}: expected a picture, got an empty file")
    try:
        # Pillow warns, in its own words, of sizes and odd tags: what matters of it is an error here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decoded(data, name, max_pixels)
    except Image.DecompressionBombError:
        raise _too_large(name, "far too many", max_pixels) from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name}: expected a JPEG, PNG, WebP, GIF, BMP or TIFF, got something else"
        ) from None
    except MemoryError:
        raise InputError(f"{name}: not enough memory to decode this picture; scale it down first") from None
    except _DECODER_ERRORS as error:
        raise InputError(f"{name}: damaged picture: {' '.join(str(error).split())}") from None


def folder_images(folder: Path) -> list[Path]:
    """Return the picture files directly in a folder; see `folder_files`."""
    return folder_files(folder, SUFFIXES, "no pictures")


def folder_files(folder: Path, suffixes: Set[str], nothing: str) -> list[Path]:
    """Return the files of these kinds directly in a folder, sorted by name, hidden ones left out.

    Args:
        folder: where to look.
        suffixes: in lower case, with the dot.
        nothing: what the error says is in the folder when none of them is.

    Raises:
        InputError: unreadable, or without such a file.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    found = [
        path
        for path in entries
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise InputError(f"{folder}: {nothing} in this folder (looked for {', '.join(sorted(suffixes))})")
    return found


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) uint8 RGB 0..255 as PNG, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB 0..255 in the format of the file's suffix; never leaves half a file.

    Raises:
        InputError: unknown suffix, or the place cannot be written to.
    """
    image_format = WRITTEN.get(path.suffix.lower())
    if image_format is None:
        raise InputError(f"{path}: expected a name ending in {', '.join(WRITTEN)}")
    options: dict[str, int] = {"quality": 92} if image_format in ("JPEG", "WEBP") else {}
    if image_format == "JPEG":
        options["subsampling"] = 0  # thin coloured lines and text smear otherwise
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            Image.fromarray(image).save(temporary, format=image_format, **options)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _decoded(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:  # reads the header only
        width, height = picture.size
        if width * height > max_pixels or max(width, height) > _LONGEST_SIDE:
            raise _too_large(name, f"{width}x{height}", max_pixels)
        if isinstance(picture, JpegImageFile) and (scans := sum(map(data.count, _SCAN_STARTS))) > _MAX_SCANS:
            raise InputError(
                f"{name}: a JPEG of {scans:,} scans, expected at most {_MAX_SCANS}; save it anew"
            )
        picture.load()
        orientation = _orientation(picture)
        pixels = _to_rgb(picture, name)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
    return np.array(pixels)


def _too_large(name: str, size: str, max_pixels: int) -> TooManyPixelsError:
    return TooManyPixelsError(
        f"{name}: {size} pixels, expected at most {max_pixels:,} in all and {_LONGEST_SIDE:,} on a side; "
        "scale it down first"
    )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except _DECODER_ERRORS:  # damaged EXIF beside sound pixels: the picture is shown as it is stored
        return 1


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return _from_deep_gray(picture, name)
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        colour = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
    return picture.convert("RGB")


def _from_deep_gray(picture: Image.Image, name: str) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    values = np.asarray(picture)
    if values.dtype.kind not in "iu" or int(values.min()) < 0 or int(values.max()) > 0xFFFF:
        raise InputError(f"{name}: expected 8 or 16 bits per channel, got {picture.mode}; convert it to 8")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
