"""Keeps what native libraries say of themselves away from the user's terminal; their warnings pass."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STDERR = 2
# TensorFlow Lite's own prefix, and absl's: I0512 09:30:00.000000, or I0000 00:00:1715500000.000000.
_INFORMATION = re.compile(
    rb"INFO: |I\d{4} [\d:.]+ +\d+ |WARNING: All log messages before absl"
    rb"|WARNING: \[[gn]pu_registry\.cc"  # accelerators that nobody asked for
)
# OpenCV's own ([ WARN:0@0.069] global ..., OpenCV: FFMPEG: ...), and FFmpeg's ([mov,mp4 @ 0x55fdab]).
_OPENCV = re.compile(rb"\[ ?[A-Z]+:\d+@[\d.]+\] |OpenCV: |\[[^\]]* @ 0x[0-9a-f]+\] ")


@contextmanager
def without_information() -> Iterator[None]:
    """Hold back standard error of the whole process; at the end write on what is not mere information."""
    with _without(_INFORMATION):
        yield


@contextmanager
def without_opencv_messages() -> Iterator[None]:
    """Hold back what OpenCV and FFmpeg say, errors too: for calls whose failure the caller tells."""
    with _without(_OPENCV):
        yield


@contextmanager
def _without(unwanted: re.Pattern[bytes]) -> Iterator[None]:
    """Hold back standard error of the whole process; at the end write on the lines that are not unwanted.

    C++ writes to the file descriptor, past `sys.stderr`. For short stretches only: other threads' lines wait
    as well. Where there is no standard error nothing is done.
    """
    try:
        sys.stderr.flush()
        saved = os.dup(_STDERR)
    except (AttributeError, OSError, ValueError):  # no sys.stderr, closed, or no descriptor
        yield
        return
    with _memory_file() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, _STDERR)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not unwanted.match(line):
                    os.write(_STDERR, line)


def _memory_file() -> IO[bytes]:
    """Return a file that needs no folder where the system has such: a board's whole disk may be read-only."""
    try:
        return os.fdopen(os.memfd_create("edge-fer"), "w+b")
    except (AttributeError, OSError):  # not Linux, or forbidden
        return tempfile.TemporaryFile()
