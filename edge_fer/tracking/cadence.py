"""Decides in which frames the detector runs. Knows times and how long things take, no pictures."""

from __future__ import annotations

import math
from collections import deque
from statistics import median_low

from edge_fer.errors import UsageError

DEFAULT_EVERY = 5  # frames; by measurement, see tests/benchmarks/tracking.py
_LONGEST_GAP_S = 0.5  # in a file of few frames per second, newcomers must not wait for the fifth frame
_LARGEST_EVERY = 15
_SHARE = 1 / 3  # of the time there is that detection may take; with urgent ones at most twice that
_REMEMBERED = 9  # measurements that a median is taken of


class Cadence:
    """When to detect; one per source.

    A face that was lost or is not confirmed yet makes a detection *urgent*: it runs in the same frame.
    """

    def __init__(self, every: int, adapts: bool) -> None:
        """Use `fixed` or `adaptive`."""
        self._every = every
        self._adapts = adapts
        self._frames = 0  # since the last detection
        self._detected_s: float | None = None
        self._frame_s: float | None = None
        self._urgent_left = True
        self._intervals_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._detect_s: deque[float] = deque(maxlen=_REMEMBERED)

    @classmethod
    def fixed(cls, every: int = DEFAULT_EVERY) -> Cadence:
        """Detect in every n-th frame, and after half a second of the source's time at the latest: for files.

        Depends on the frames and their times alone, so every run gives the same.

        Raises:
            UsageError: `every` is below 1.
        """
        if every < 1:
            raise UsageError(f"expected a detection every 1 or more frames, got {every}")
        return cls(every, adapts=False)

    @classmethod
    def adaptive(cls) -> Cadence:
        """Detect as often as there is time for: live.

        Every k frames, k = detection time / (1/3 of the time between frames), rounded up, 1..15; both times
        are medians of the last nine. At most one urgent detection between two regular ones.
        """
        return cls(DEFAULT_EVERY, adapts=True)

    @property
    def every(self) -> int:
        """Frames from one regular detection to the next at present."""
        return self._every

    def due(self, time_s: float, urgent: bool) -> bool:
        """Tell whether to detect in this frame; ask once per frame, with its time in seconds."""
        if self._frame_s is not None and time_s > self._frame_s:
            self._intervals_s.append(time_s - self._frame_s)
        self._frame_s = time_s
        self._frames += 1
        first = self._detected_s is None
        late = (
            self._detected_s is not None and time_s - self._detected_s >= _LONGEST_GAP_S and not self._adapts
        )
        regular = first or late or self._frames >= self._every
        if not regular and not (urgent and self._urgent_left):
            return False
        self._urgent_left = regular or not self._adapts
        self._frames = 0
        self._detected_s = time_s
        return True

    def took(self, detect_ms: float) -> None:
        """Note how long a detection took, in milliseconds."""
        self._detect_s.append(detect_ms / 1000)
        if self._adapts and self._intervals_s:
            # The lower median: frames that a detection kept waiting do not count as the camera's pace.
            room_s = _SHARE * median_low(self._intervals_s)
            self._every = min(_LARGEST_EVERY, max(1, math.ceil(median_low(self._detect_s) / room_s)))
