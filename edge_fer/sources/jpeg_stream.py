"""Standard input as a source: JPEG pictures one after another."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from edge_fer.cli_errors import notice
from edge_fer.errors import InputError
from edge_fer.images import decode_image
from edge_fer.sources.base import Frame, Kind, Selection, Thinning, given_fps
from edge_fer.sources.jpeg_splitter import JpegSplitter

_CHUNK = 1 << 16
_TICK_S = 0.1


class JpegStream:
    """Reads pictures from a file descriptor; a pipe holds its writer back, so every picture is given.

    Times are seconds from the arrival of the first picture. Broken pictures are skipped and counted.
    """

    kind: Kind = "video"

    def __init__(self, descriptor: int, selection: Selection, stop: threading.Event) -> None:
        self.name = "-"
        self.paths: tuple[Path, ...] = ()
        self.frames = selection.max_frames
        self.fps = given_fps(None, selection)
        self.dropped = 0
        self.reopened = 0
        self._descriptor = descriptor
        self._stop = stop
        self._closed = False
        self._thinning = Thinning(selection)
        self._splitter = JpegSplitter()
        self._complete = 0
        self._undecodable = 0
        self._pictures = self._split()
        self._first_s: float | None = None

    def read(self) -> Frame | None:
        """Return the next picture that the selection leaves; see `Source.read`.

        Raises:
            InputError: the input is over, and there was no picture in it.
        """
        while not self._thinning.is_over() and (picture := next(self._pictures, None)) is not None:
            data, index, captured = picture
            self._first_s = captured if self._first_s is None else self._first_s
            time_s = captured - self._first_s
            if self._thinning.is_over(time_s):
                break
            if (
                self._thinning.takes(index, time_s)
                and (frame := self._decode(data, index, captured)) is not None
            ):
                return frame
        return None

    def close(self) -> None:
        """Stop reading; see `Source.close`. The descriptor belongs to the process and stays open."""
        self._closed = True

    def _decode(self, data: bytes, index: int, captured: float) -> Frame | None:
        started = time.perf_counter()
        try:
            image = decode_image(data, self.name)
        except InputError:
            self._undecodable += 1
            self.dropped += 1
            return None
        return Frame(
            image=image,
            source=self.name,
            index=index,
            time_s=captured - (self._first_s or 0.0),
            captured=captured,
            decode_ms=1000 * (time.perf_counter() - started),
        )

    def _split(self) -> Iterator[tuple[bytes, int, float]]:
        """Give each picture with its number in the stream, broken ones counted, and its time of arrival."""
        while data := self._receive():
            captured = time.monotonic()
            for picture in self._splitter.feed(data):
                self.dropped = self._undecodable + self._splitter.broken
                yield picture, self._complete + self._splitter.broken, captured
                self._complete += 1
        if data is not None:
            self._finish()

    def _receive(self) -> bytes | None:
        """Wait for more; empty at the end of the input, None when stopped."""
        while not (self._stop.is_set() or self._closed):
            if select.select([self._descriptor], [], [], _TICK_S)[0]:
                return os.read(self._descriptor, _CHUNK)
        return None

    def _finish(self) -> None:
        self._splitter.end()
        self.dropped = self._undecodable + self._splitter.broken
        if self._complete == self._undecodable:
            raise InputError(
                f"-: expected JPEG pictures on standard input, got {self.dropped} damaged ones and"
                f" {self._splitter.passed_over} bytes that are none"
            )
        if self.dropped or self._splitter.passed_over:
            notice(
                f"-: {self.dropped} damaged pictures were left out,"
                f" {self._splitter.passed_over} bytes that are no JPEG were passed over"
            )


def open_standard_input(selection: Selection, stop: threading.Event) -> JpegStream:
    """Return standard input as a source.

    Raises:
        InputError: it is closed, or a terminal.
    """
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # no sys.stdin, or nothing behind it
        raise InputError("-: expected JPEG pictures on standard input, but it is closed") from None
    if os.isatty(descriptor):
        raise InputError("-: expected JPEG pictures on standard input, got a terminal; pipe them in")
    return JpegStream(descriptor, selection, stop)
