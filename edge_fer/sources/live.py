"""Live sources: a thread of its own keeps the newest frame ready, and opens again what was lost."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.cli_errors import notice
from edge_fer.errors import InputError
from edge_fer.sources.base import Frame, Kind, Selection, Thinning, given_fps
from edge_fer.sources.opencv import to_rgb

# A broken frame fails once; a stream that is gone fails again and again, at once.
_FAILURES_OF_A_LOST_STREAM = 10
_LONGEST_PAUSE_S = 30.0
_TICK_S = 0.1
_CLOSING_S = 0.3


class Connection(Protocol):
    """An open camera or stream; used and closed by one thread."""

    def read(self) -> NDArray[np.uint8] | None:
        """Wait for the next frame: (H, W, 3) uint8 BGR; None: it is broken, or the stream is gone."""

    def close(self) -> None:
        """Let the camera or stream go."""


class LiveSource:
    """Gives at each `read` the newest frame that there is, never an older one, and each at most once.

    The thread takes every frame as it comes, so that no buffer of the camera, the network or FFmpeg fills up
    and adds to the age of results. A source that is lost is opened again after 1, 2, 4 … 30 seconds.

    Args:
        name: what results call it; without credentials.
        connect: opens it; raises InputError when it cannot. Called from the thread.
        selection: which frames are wanted; times are seconds since the first frame.
        stop: ends `read` and the thread.

    Raises:
        InputError: it cannot be opened at the start.
    """

    kind: Kind = "live"

    def __init__(
        self, name: str, connect: Callable[[], Connection], selection: Selection, stop: threading.Event
    ) -> None:
        self.name = name
        self.paths: tuple[Path, ...] = ()
        self.frames = selection.max_frames
        self.fps = given_fps(None, selection)
        self.dropped = 0
        self.reopened = 0
        self._connect = connect
        self._stop = stop
        self._closed = threading.Event()
        self._thinning = Thinning(selection)
        self._fresh = threading.Condition()  # guards the three below
        self._newest: tuple[NDArray[np.uint8], int, float] | None = None  # BGR, index, captured
        self._opened = False
        self._failure: BaseException | None = None
        self._received = 0
        self._first_s: float | None = None
        # A daemon: a read that hangs in a driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"edge-fer live {name}", daemon=True)
        # A thread that comes back from OpenCV while the interpreter ends aborts the process.
        atexit.register(self.close)
        self._thread.start()
        self._await_opening()

    def read(self) -> Frame | None:
        """Wait for a frame newer than the last one given; see `Source.read`."""
        while (newest := self._wait()) is not None:
            image, index, captured = newest
            time_s = captured - (self._first_s or 0.0)
            if self._thinning.is_over(time_s):
                return None
            if self._thinning.takes(index, time_s):
                started = time.perf_counter()
                rgb = to_rgb(image)
                decode_ms = 1000 * (time.perf_counter() - started)
                return Frame(
                    image=rgb,
                    source=self.name,
                    index=index,
                    time_s=time_s,
                    captured=captured,
                    decode_ms=decode_ms,
                )
        return None

    def close(self) -> None:
        """Stop the thread; one that hangs in a driver is left to its time-out. See `Source.close`."""
        self._closed.set()
        self._thread.join(_CLOSING_S)
        if not self._thread.is_alive():  # else there is one more wait at exit
            atexit.unregister(self.close)

    def _is_halted(self) -> bool:
        return self._stop.is_set() or self._closed.is_set()

    def _await_opening(self) -> None:
        with self._fresh:
            while not (self._opened or self._failure or self._is_halted()):
                self._fresh.wait(_TICK_S)
        if self._failure is not None:
            self.close()
            raise self._failure

    def _wait(self) -> tuple[NDArray[np.uint8], int, float] | None:
        with self._fresh:
            while self._newest is None:
                if self._is_halted() or self._thinning.is_over():
                    return None
                if self._failure is not None:
                    raise self._failure
                self._fresh.wait(_TICK_S)
            newest, self._newest = self._newest, None
        return None if self._is_halted() else newest

    def _run(self) -> None:
        try:
            self._receive_for_ever()
        except BaseException as error:  # noqa: BLE001 (the reader's thread raises it)
            with self._fresh:
                self._failure = error
                self._fresh.notify_all()

    def _receive_for_ever(self) -> None:
        connection: Connection | None = self._connect()
        with self._fresh:
            self._opened = True
            self._fresh.notify_all()
        pause_s, lost = 1.0, False
        while not self._is_halted():
            if connection is not None:
                try:
                    received = self._receive(connection, lost)
                finally:
                    connection.close()
                if received:
                    pause_s, lost = 1.0, False
            if not lost and not self._is_halted():
                notice(f"{self.name}: lost; trying to open it again")
                lost = True
            self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            connection = self._reconnect()

    def _reconnect(self) -> Connection | None:
        try:
            return None if self._is_halted() else self._connect()
        except InputError:
            return None  # told once, when it was lost

    def _receive(self, connection: Connection, lost: bool) -> bool:
        """Take frames until the stream is gone; return whether there was one."""
        failures, received = 0, False
        while failures < _FAILURES_OF_A_LOST_STREAM and not self._is_halted():
            image = connection.read()
            if image is None:
                failures += 1
                continue
            if lost and not received:
                self.reopened += 1
                notice(f"{self.name}: back")
            received = True
            self.dropped += failures
            self._offer(image, failures)
            failures = 0
        return received

    def _offer(self, image: NDArray[np.uint8], broken: int) -> None:
        captured = time.monotonic()
        with self._fresh:
            if self._first_s is None:
                self._first_s = captured
            index = self._received + broken
            self._received = index + 1
            self._newest = (image, index, captured)
            self._fresh.notify_all()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_halted() and (left := until - time.monotonic()) > 0:
            self._closed.wait(min(left, _TICK_S))
