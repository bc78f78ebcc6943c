"""What connects two threads: a short queue in which a camera's newer frame may take an older one's place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of bounded length between one thread that puts and one that takes.

    Attributes:
        skipped: items that newer ones replaced before they were taken.
    """

    def __init__(self, capacity: int) -> None:
        self.skipped = 0
        self._capacity = capacity
        self._items: deque[tuple[T, bool]] = deque()
        lock = threading.Lock()
        self._filled, self._emptied = threading.Condition(lock), threading.Condition(lock)
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T, *, replaceable: bool = False) -> bool:
        """Add an item, waiting for room; False when the channel is closed.

        Args:
            item: what is handed on.
            replaceable: it takes the place of a replaceable item that waits, instead of waiting itself: only
                the newest frame of a camera is worth anything.
        """
        with self._emptied:
            if replaceable and self._items and self._items[-1][1]:
                self._items.pop()
                self.skipped += 1
            while len(self._items) >= self._capacity and not self._closed:
                self._emptied.wait()
            if self._closed:
                return False
            self._items.append((item, replaceable))
            self._filled.notify()
            return True

    def take(self, timeout_s: float | None = None) -> T | None:
        """Return the next item; None when the channel is closed and empty, or after the time-out.

        Raises:
            BaseException: what the channel was closed with, once it is empty.
        """
        with self._filled:
            self._filled.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                if self._error is not None:
                    raise self._error
                return None
            item, _ = self._items.popleft()
            self._emptied.notify()
            return item

    def __iter__(self) -> Iterator[T]:
        """Give the items until the channel is closed and empty."""
        while (item := self.take()) is not None:
            yield item

    @property
    def exhausted(self) -> bool:
        """Whether nothing waits and nothing more can come, not even an error."""
        with self._filled:
            return self._closed and not self._items and self._error is None

    def close(self, error: BaseException | None = None) -> None:
        """Let nothing more in; what waits can still be taken.

        Args:
            error: why there is nothing more; who takes gets it at the end.
        """
        with self._filled:
            if not self._closed:
                self._closed, self._error = True, error
            self._filled.notify_all()
            self._emptied.notify_all()

    def abandon(self) -> None:
        """Close the channel and drop what waits."""
        with self._filled:
            self._items.clear()
        self.close()
