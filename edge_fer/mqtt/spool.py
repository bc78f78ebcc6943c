"""What waits for the broker, in order and bounded. Knows no network."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

MESSAGES = 10_000
BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One message: its number in the order of their coming, from 0, and its bytes."""

    number: int
    payload: bytes


class Spool:
    """Keeps messages until the broker has acknowledged them; above a bound the oldest are dropped.

    A message waits, is sent (`take`), and is gone when it was acknowledged (`settle`). When a connection
    ends, what was sent and not acknowledged waits again, at its old place (`rewind`). What is sent is never
    dropped: the broker may have it. Any thread may call any method.

    Args:
        messages: how many are kept.
        size_bytes: how many bytes of them.
    """

    def __init__(self, messages: int = MESSAGES, size_bytes: int = BYTES) -> None:
        self._most, self._most_bytes = messages, size_bytes
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self._sent: dict[int, Entry] = {}  # in the order of their numbers
        self._bytes = 0
        self._given = 0
        self._dropped = 0

    def __len__(self) -> int:
        """Messages that wait or are sent and not acknowledged."""
        with self._lock:
            return len(self._waiting) + len(self._sent)

    @property
    def waiting(self) -> int:
        """Messages that are not sent."""
        return len(self._waiting)

    @property
    def given(self) -> int:
        """Messages that were put in so far."""
        return self._given

    @property
    def dropped(self) -> int:
        """Messages that were dropped so far."""
        return self._dropped

    def put(self, payload: bytes) -> bool:
        """Add the newest message; False when messages were dropped for it, or it alone is above the bound."""
        with self._lock:
            entry = Entry(self._given, payload)
            self._given += 1
            if len(payload) > self._most_bytes:
                self._dropped += 1
                return False
            self._waiting.append(entry)
            self._bytes += len(payload)
            before = self._dropped
            while self._waiting and (
                len(self._waiting) + len(self._sent) > self._most or self._bytes > self._most_bytes
            ):
                self._bytes -= len(self._waiting.popleft().payload)
                self._dropped += 1
            return self._dropped == before

    def take(self) -> Entry | None:
        """Return the oldest message that waits, as sent from now on; None: none waits."""
        with self._lock:
            if not self._waiting:
                return None
            entry = self._waiting.popleft()
            self._sent[entry.number] = entry
            return entry

    def settle(self, number: int) -> None:
        """Forget a message that was sent: the broker has it."""
        with self._lock:
            self._bytes -= len(self._sent.pop(number).payload)

    def rewind(self) -> None:
        """Let everything that was sent and not acknowledged wait again, before all others."""
        with self._lock:
            self._waiting.extendleft(reversed(self._sent.values()))
            self._sent.clear()
