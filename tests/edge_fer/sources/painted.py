"""Frames that carry their number as black and white squares, and videos of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.sources import Frame, Source
from edge_fer.sources.opencv import silence

WIDTH, HEIGHT = 320, 96
_BITS, _SIDE = 12, 24
_TIMESCALE = 15360  # what OpenCV's writer gives a file of 30 frames per second
_TURNED = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def paint(number: int) -> NDArray[np.uint8]:
    """Return (HEIGHT, WIDTH, 3) RGB: the number in squares at the top left, and red below."""
    image = np.full((HEIGHT, WIDTH, 3), 70, np.uint8)
    for bit in range(_BITS):
        image[8:32, 8 + bit * _SIDE : 8 + (bit + 1) * _SIDE] = 255 * (number >> bit & 1)
    image[56:] = (220, 40, 30)
    return image


def number_in(image: NDArray[np.uint8]) -> int:
    """Read the painted number back, and see that red is red."""
    red, green, blue = (float(value) for value in image[64:90].mean(axis=(0, 1)))
    assert red > 170 and green < 90 and blue < 90, "not RGB"
    return sum(int(image[20, 20 + bit * _SIDE, 1] > 127) << bit for bit in range(_BITS))


def jpeg(number: int) -> bytes:
    """Encode a painted frame."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(paint(number), cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def write_video(path: Path, frames: int, code: str = "mp4v", fps: float = 30) -> Path:
    """Write a video of the frames 0, 1, 2 …"""
    silence()
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(cv2.cvtColor(paint(number), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def with_durations(video: Path, durations: Sequence[int]) -> list[float]:
    """Give each frame of an MP4 by OpenCV its own duration, in 1/15360 s; return the frames' times.

    The table of times (`stts`) stands in `moov` behind the frames, so no frame moves when it grows; the
    duration in the edit list would cut the video otherwise (ISO/IEC 14496-12, 8.6).
    """
    data = bytearray(video.read_bytes())
    boxes = list(_way_to(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"))
    at, size = boxes[-1]
    table = b"".join(struct.pack(">II", 1, duration) for duration in durations)
    body = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(durations)) + table
    for place, old in boxes[:-1]:
        struct.pack_into(">I", data, place, old + len(body) - size)
    data[at : at + size] = body
    struct.pack_into(">I", data, data.index(b"elst") + 12, 1000 * sum(durations) // _TIMESCALE + 1)
    video.write_bytes(data)
    return [sum(durations[:index]) / _TIMESCALE for index in range(len(durations))]


def turned(video: Path, degrees: int) -> Path:
    """Write into an MP4 that it is to be shown turned clockwise, as phones do (the matrix in `tkhd`)."""
    data = bytearray(video.read_bytes())
    a, b, c, d = _TURNED[degrees]
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    video.write_bytes(data)
    return video


def read_all(source: Source) -> list[Frame]:
    """Read a source to its end."""
    return list(iter(source.read, None))


def _way_to(data: bytearray, *kinds: bytes) -> Iterator[tuple[int, int]]:
    at, end = 0, len(data)
    for kind in kinds:
        while True:
            assert at < end, kind
            size, found = struct.unpack_from(">I4s", data, at)
            if found == kind:
                break
            at += size
        yield at, size
        at, end = at + 8, at + size
