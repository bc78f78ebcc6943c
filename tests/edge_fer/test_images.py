"""Every kind of picture file, sound and broken, against arrays made here."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from edge_fer.errors import InputError
from edge_fer.images import decode_image, encode_png, folder_images, read_image, write_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(picture: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """Build a PNG by hand; Pillow cannot write every kind that it has to read."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png_16(values: NDArray[np.uint16], colour_type: int) -> bytes:
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, colour_type, rows)


def one_line(error: pytest.ExceptionInfo[InputError], name: str) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(name)
    return text


def test_rgb_is_unchanged_and_owned() -> None:
    image = decode_image(encode_png(RGB), "x")
    np.testing.assert_array_equal(image, RGB, strict=True)
    assert image.flags.writeable
    assert image.flags.c_contiguous


def test_gray_and_bilevel_become_rgb() -> None:
    gray = RGB[..., 0]
    expected = np.repeat(gray[..., None], 3, 2)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(gray), "PNG"), "x"), expected)
    bits = Image.fromarray(gray > 127)
    expected = np.repeat(np.where(gray > 127, 255, 0).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(decode_image(encoded(bits, "PNG"), "x"), expected)


def over_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    mixed: NDArray[np.float64] = colour * share + 255 * (1 - share)
    return mixed


def test_transparency_is_laid_over_white() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, RGB.shape[:2], dtype=np.uint8)
    alpha[0] = 0
    alpha[1] = 255
    rgba = decode_image(encoded(Image.fromarray(np.dstack([RGB, alpha])), "PNG"), "x")
    np.testing.assert_allclose(rgba, over_white(RGB, alpha), rtol=0, atol=1)
    assert (rgba[0] == 255).all()
    np.testing.assert_array_equal(rgba[1], RGB[1])
    gray = np.dstack([RGB[..., 0], alpha])
    both = decode_image(encoded(Image.fromarray(gray, "LA"), "PNG"), "x")
    np.testing.assert_allclose(both, over_white(np.repeat(gray[..., :1], 3, 2), alpha), rtol=0, atol=1)


def test_palette_with_transparency() -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    np.testing.assert_array_equal(
        decode_image(encoded(picture, "PNG"), "x"), [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    )
    np.testing.assert_array_equal(
        decode_image(encoded(picture, "PNG", transparency=1), "x"),
        [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]],
    )


@pytest.mark.parametrize("colour_type", [0, 2], ids=["gray", "rgb"])
def test_sixteen_bits_keep_the_upper_eight(colour_type: int) -> None:
    shape = (5, 7) if colour_type == 0 else (5, 7, 3)
    values = np.random.default_rng(3).integers(0, 65536, shape).astype(np.uint16)
    values.flat[:4] = 0, 255, 256, 65535
    image = decode_image(png_16(values, colour_type), "x")
    upper = (values >> 8).astype(np.uint8)
    expected = upper if colour_type == 2 else np.repeat(upper[..., None], 3, 2)
    np.testing.assert_array_equal(image, expected, strict=True)


def test_sixteen_bit_tiff() -> None:
    values = np.arange(0, 65536, 1311).astype(np.uint16).reshape(5, 10)
    image = decode_image(encoded(Image.fromarray(values), "TIFF"), "x")
    np.testing.assert_array_equal(image[..., 1], values >> 8)


def test_float_pictures_are_refused() -> None:
    data = encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    with pytest.raises(InputError, match="8 or 16 bits") as caught:
        decode_image(data, "deep.tif")
    one_line(caught, "deep.tif")


def test_cmyk_jpeg() -> None:
    flat = Image.new("RGB", (32, 32), (200, 60, 20))
    image = decode_image(encoded(flat.convert("CMYK"), "JPEG", quality=100), "x")
    np.testing.assert_allclose(image, np.broadcast_to((200, 60, 20), (32, 32, 3)), rtol=0, atol=4)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_animations_give_the_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 5), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data, "x") == (255, 0, 0)).all()


# What a viewer shows for each EXIF orientation, by its definition (EXIF 2.3, table 6).
STORED_AS = {
    1: np.copy,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
    9: np.copy,
}


@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_is_applied(orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](RGB)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(stored, "PNG", exif=exif), "x")
    np.testing.assert_array_equal(image, RGB, strict=True)


def test_damaged_exif_beside_sound_pixels_is_ignored() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        assert decode_image(data, "x").shape == RGB.shape
    assert remarks == []


def test_single_pixel() -> None:
    np.testing.assert_array_equal(decode_image(encode_png(RGB[:1, :1]), "x"), RGB[:1, :1])


@pytest.mark.parametrize(("side", "shown"), [(20_000, "pixels"), (10_001, "10001x10001")])
def test_too_many_pixels_are_refused_before_decoding(
    side: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object) -> None:
        raise AssertionError("decoded")

    data = png(side, side, 8, 2, b"")
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="at most 100,000,000") as caught:
            decode_image(data, "bomb.png")
    assert shown in one_line(caught, "bomb.png")


def test_limit_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns from 89 million pixels on; up to 100 million are ours to take, without a warning."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(encode_png(RGB), "x", max_pixels=54).shape == RGB.shape
        with pytest.raises(InputError, match="x: 9x6 pixels, expected at most 53 in all"):
            decode_image(encode_png(RGB), "x", max_pixels=53)


def test_a_jpeg_of_many_scans_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last scan over and over: libjpeg takes every one for a refinement of all the pixels."""
    data = encoded(Image.fromarray(RGB), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scans, last = data.count(b"\xff\xda"), data[start:-2]

    def with_scans(count: int) -> bytes:
        return data[:-2] + last * (count - scans) + data[-2:]

    assert decode_image(with_scans(100), "x").shape == RGB.shape
    monkeypatch.setattr(JpegImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match="a JPEG of 101 scans, expected at most 100") as caught:
        decode_image(with_scans(101), "bomb.jpg")
    one_line(caught, "bomb.jpg")


def test_what_phones_write_behind_a_jpeg_does_not_count_as_scans() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    noise = np.random.default_rng(7).integers(0, 256, 10_000_000, dtype=np.uint8).tobytes()
    assert noise.count(b"\xff\xda") > 100
    assert decode_image(data + noise, "x").shape == RGB.shape


def test_no_program_is_run_on_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives Encapsulated PostScript to Ghostscript, which is a programming language."""
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *given, **named: pytest.fail("started"))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError, match="expected a JPEG, PNG, WebP, GIF, BMP or TIFF, got something else"):
        decode_image(script, "x.eps")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(image_format: str, share: float) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    with pytest.raises(InputError) as caught:
        decode_image(data[: int(len(data) * share)], "cut.img")
    one_line(caught, "cut.img")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]), st.integers(0, 2**32 - 1))
def test_damaged_files_give_a_picture_or_one_line(image_format: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(Image.fromarray(RGB), image_format))
    for position in rng.integers(0, len(data), 4):
        data[position] = rng.integers(0, 256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd tags
        try:
            image = decode_image(bytes(data), "odd")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert image.dtype == np.uint8
            assert image.shape[2:] == (3,)


@pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 5000, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_a_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        decode_image(data, "note.txt")
    one_line(caught, "note.txt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="got a folder"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / ("n" * 5000))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".jpg", ".jpeg", ".webp"])
def test_written_pictures_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    write_image(path, smooth)
    np.testing.assert_allclose(read_image(path).astype(int), smooth, rtol=0, atol=8)
    if suffix.lower() in (".png", ".bmp"):
        np.testing.assert_array_equal(read_image(path), smooth)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_writing_fails_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="expected a name ending in"):
        write_image(tmp_path / "out.xyz", RGB)
    with pytest.raises(InputError, match="cannot be written"):
        write_image(tmp_path / "none" / "out.png", RGB)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "out.png").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left") as caught:
        write_image(tmp_path / "out.png", RGB)
    one_line(caught, str(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == b"old"


def test_the_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "note.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner.png").mkdir()
    assert folder_images(tmp_path) == [tmp_path / "a.JPG", tmp_path / "b.png"]
    for folder, text in ((tmp_path / "inner.png", "no pictures"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(InputError, match=text):
            folder_images(folder)
