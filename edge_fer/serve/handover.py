"""What the thread that finds faces has ready for the one that recognises them, bounded in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.pipeline.stages import Located
from edge_fer.serve.jobs import Job

_CAPACITY = 32  # two of the largest runs
_CAPACITY_BYTES = 32_000_000  # a few pictures, or all the crops that there may be


@dataclass(slots=True, eq=False)
class Found:
    """A job whose faces were found.

    Attributes:
        job: the job.
        located: of a stream, the frame with its pixels and the places of its faces; of a picture, which needs
            none any more, without pixels.
        crops: of a picture, (S, S, 3) uint8 RGB 0..255 for each face.
        preprocess_ms: milliseconds that cropping took.
        since: `time.monotonic()` when it was ready.
    """

    job: Job
    located: Located
    crops: list[NDArray[np.uint8]]
    preprocess_ms: float
    since: float

    @property
    def size_bytes(self) -> int:
        """Bytes of the pixels that it holds."""
        return self.located.frame.image.nbytes + sum(crop.nbytes for crop in self.crops)


class Handover:
    """A queue of bounded length and size, between one thread that puts and one that takes."""

    def __init__(self) -> None:
        self._items: deque[Found] = deque()
        lock = threading.RLock()
        self._filled, self._emptied = threading.Condition(lock), threading.Condition(lock)
        self._closed = False

    def put(self, found: Found) -> None:
        """Add an item, waiting for room; when the handover is closed it is let go."""
        size_bytes = found.size_bytes
        with self._filled:
            self._emptied.wait_for(lambda: self._closed or self._has_room(size_bytes))
            if not self._closed:
                self._items.append(found)
                self._filled.notify()

    def take(
        self, choose: Callable[[Sequence[Found]], int], timeout_s: float | None = None
    ) -> list[Found] | None:
        """Wait for items and return as many of the first ones as `choose` says; None: closed.

        Args:
            choose: gets what waits, at least one, and says how many are taken.
            timeout_s: how long to wait; then the list is empty.
        """
        with self._filled:
            self._filled.wait_for(lambda: self._items or self._closed, timeout_s)
            if self._closed:
                return None
            taken = [self._items.popleft() for _ in range(choose(self._items))] if self._items else []
            self._emptied.notify()
            return taken

    def close(self) -> None:
        """Let everything go, and nothing more in."""
        with self._filled:
            self._closed = True
            self._items.clear()
            self._filled.notify_all()
            self._emptied.notify_all()

    def _has_room(self, size_bytes: int) -> bool:
        held_bytes = sum(item.size_bytes for item in self._items)
        return not self._items or (
            len(self._items) < _CAPACITY and held_bytes + size_bytes <= _CAPACITY_BYTES
        )
