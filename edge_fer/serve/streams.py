"""A client's stream of frames: its faces are followed and smoothed over time, and only the newest waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.output import Moment
from edge_fer.pipeline.events import Opened
from edge_fer.pipeline.stages import Finder, Judge
from edge_fer.serve.jobs import Answer, Job, JobQueue
from edge_fer.sources import Frame
from edge_fer.sources.base import Kind

NAME = "stream"


class Stream:
    """Frames of one client, one after another. `Worker.stream` makes it; `close` it when the client leaves.

    Args:
        queue: where its frames wait.
        finder: finds faces; this stream's own.
        judge: recognises and smooths; this stream's own.
        on_close: called once.
        on_end: called with the future of every frame that has ended.
    """

    def __init__(
        self,
        queue: JobQueue,
        finder: Finder,
        judge: Judge,
        *,
        on_close: Callable[[Stream], None],
        on_end: Callable[[Future[Answer]], None],
    ) -> None:
        self._queue = queue
        self._finder = finder
        self._judge = judge
        self._on_close = on_close
        self._on_end = on_end
        self._lock = threading.RLock()
        self._last: Job | None = None
        self._first_s: float | None = None
        self._frames = 0
        self._closed = False
        finder(Opened(_Client()))

    def submit(self, data: bytes, received: float) -> Future[Answer]:
        """Take the next frame. If one of this stream still waits, its future is cancelled: this one is newer.

        Args:
            data: an encoded picture.
            received: `time.monotonic()` when it came.

        Returns:
            The answer to come; instead of it, InputError (no picture), DetectorError or EngineError.

        Raises:
            Busy: the service is ending.
            InputError: the stream is closed.
        """
        with self._lock:
            if self._closed:
                raise InputError(f"{NAME}: expected frames until it is closed, got one after that")
            if self._first_s is None:
                self._first_s = received
            moment = Moment(NAME, self._frames, max(0.0, received - self._first_s))
            self._frames += 1
            job = Job(data=data, moment=moment, finder=self._finder, judge=self._judge, received=received)
            before, self._last = self._last, job
        job.future.add_done_callback(self._on_end)
        self._queue.put_frame(job, before)
        return job.future

    def close(self) -> None:
        """Take no more frames and drop the one that waits; may be called twice."""
        with self._lock:
            already, self._closed = self._closed, True
            last, self._last = self._last, None
        if already:
            return
        if last is not None:
            last.future.cancel()
        self._on_close(self)


class _Client:
    """What a stream's faces come from, as the stages know sources: live, and read by nobody."""

    kind: Kind = "live"
    name = NAME
    frames: int | None = None
    fps: float | None = None
    dropped = 0
    reopened = 0
    paths: tuple[Path, ...] = ()

    def read(self) -> Frame | None:
        """Return None: the client sends its frames."""
        return None

    def close(self) -> None:
        """Leave the client alone."""
