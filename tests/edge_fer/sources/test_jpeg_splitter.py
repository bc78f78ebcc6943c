"""Cutting JPEGs apart: any pictures, any chunks, anything between them."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_fer.sources.jpeg_splitter import JpegSplitter
from tests.edge_fer.sources.painted import paint

NOISE = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """Return a JPEG with a whole JPEG in its EXIF segment, as cameras write it."""
    thumbnail = encoded(Image.fromarray(NOISE[::4, ::4].copy()))
    return encoded(Image.fromarray(NOISE), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail)


PICTURES = [
    encoded(Image.fromarray(NOISE), quality=98),
    encoded(Image.fromarray(NOISE), progressive=True),
    encoded(Image.fromarray(NOISE), restart_marker_blocks=1),
    encoded(Image.fromarray(NOISE).convert("L"), comment=b"\xff\xd8\xff\xe0 \xff\xd9 in a comment"),
    encoded(Image.fromarray(paint(7)), quality=30),
    with_thumbnail(),
]
# Anything that does not hold the beginning of a picture, nor makes one with what follows.
GARBAGE = st.binary(max_size=40).filter(lambda data: b"\xff\xd8" not in data and not data.endswith(b"\xff"))


def split(splitter: JpegSplitter, chunks: Iterable[bytes]) -> list[bytes]:
    pictures = [picture for chunk in chunks for picture in splitter.feed(chunk)]
    splitter.end()
    return pictures


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = [*sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def test_the_pictures_hold_what_makes_splitting_hard() -> None:
    assert PICTURES[0].count(b"\xff\x00") > 3, "stuffed bytes"
    assert PICTURES[1].count(b"\xff\xda") > 3, "several scans"
    assert all(PICTURES[2].count(bytes([0xFF, 0xD0 + n])) for n in range(8)), "restart markers"
    assert all(picture.count(b"\xff\xd9") > 1 for picture in (PICTURES[3], PICTURES[5])), "end markers within"


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(GARBAGE, st.sampled_from(PICTURES)), max_size=5),
    GARBAGE,
    st.lists(st.integers(0, 1 << 20), max_size=30),
)
def test_any_chunks_and_garbage_give_the_same_pictures(
    parts: list[tuple[bytes, bytes]], tail: bytes, places: list[int]
) -> None:
    stream = b"".join(garbage + picture for garbage, picture in parts) + tail
    splitter = JpegSplitter()
    assert split(splitter, cut(stream, places)) == [picture for _, picture in parts]
    assert splitter.broken == 0
    assert splitter.passed_over == len(tail) + sum(len(garbage) for garbage, _ in parts)


@pytest.mark.parametrize("picture", PICTURES)
def test_byte_by_byte(picture: bytes) -> None:
    splitter = JpegSplitter()
    stream = picture + b"\r\n" + picture
    assert split(splitter, (stream[at : at + 1] for at in range(len(stream)))) == [picture, picture]
    assert splitter.passed_over == 2


def test_fill_bytes_before_markers_are_allowed() -> None:
    at = PICTURES[0].index(b"\xff\xdb")
    filled = PICTURES[0][:at] + b"\xff\xff\xff" + PICTURES[0][at:-2] + b"\xff\xff" + PICTURES[0][-2:]
    assert split(JpegSplitter(), [filled]) == [filled]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_that_breaks_off_costs_at_most_itself_and_the_next(picture: bytes, share: float) -> None:
    # Cut off within a segment, it swallows as much of the next as its length says, and may end with it.
    splitter = JpegSplitter()
    stream = picture[: int(len(picture) * share)] + b"".join(PICTURES)
    found = split(splitter, [stream])
    assert found[-5:] == PICTURES[1:]
    assert len(found) == 5 or found[0] == PICTURES[0] or found[0].endswith(PICTURES[0][-100:])
    assert len(found) <= 6


def test_the_thumbnail_of_a_picture_that_breaks_off_is_no_picture() -> None:
    splitter = JpegSplitter()
    assert split(splitter, [PICTURES[5][:-40] + PICTURES[0]]) == [PICTURES[0]]
    assert splitter.broken == 1
    assert split(splitter, [PICTURES[5][:-40]]) == []
    assert splitter.broken == 2


def test_a_picture_without_end_is_given_up_at_the_limit() -> None:
    splitter = JpegSplitter(limit=10_000)
    header = PICTURES[0][: PICTURES[0].index(b"\xff\xda") + 14]
    endless = [header, *[b"\x55" * 1000] * 100, PICTURES[4]]
    kept = 0
    found: list[bytes] = []
    for chunk in endless:
        found += splitter.feed(chunk)
        kept = max(kept, len(splitter._buffer))
    assert found == [PICTURES[4]] and splitter.broken == 1
    assert kept <= 11_000


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_noise_with_start_markers_ends_and_does_not_depend_on_chunks(noise: bytes, places: list[int]) -> None:
    stream = (
        noise.replace(b"\x01", b"\xff\xd8\xff")
        .replace(b"\x02", b"\xff\xd9")
        .replace(b"\x03", b"\xff\xda\0\x02")
    )
    whole, cut_up = JpegSplitter(), JpegSplitter()
    assert split(whole, [stream]) == split(cut_up, cut(stream, places))
    assert (whole.broken, whole.passed_over) == (cut_up.broken, cut_up.passed_over)
