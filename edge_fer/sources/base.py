"""What a frame and a source of frames are, and which frames of one are given. Opens nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import UsageError

Kind = Literal["pictures", "video", "live"]
# Matroska rounds times to milliseconds: a frame that is due at 66.7 ms may say 66.
_TICK_S = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: (H, W, 3) uint8 RGB 0..255, upright, contiguous; nobody else writes to it.
        source: what results call the source: path, `camera:0`, URL without credentials, `-`.
        index: number of the frame in its source from 0, broken and left out ones counted; None: a picture.
        time_s: of a file the container's time, else seconds since the first frame; None: a picture.
        captured: `time.monotonic()` when the frame was got from the source.
        decode_ms: time that decoding and conversion to RGB took.
    """

    image: NDArray[np.uint8]
    source: str
    index: int | None
    time_s: float | None
    captured: float
    decode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which frames of every source the user wants.

    Attributes:
        every: one frame of so many, the first of each group (`--every`).
        fps: at most so many frames of each second of the source's time (`--fps`).
        start_s: no frame before this time (`--start`).
        end_s: no frame at or after this time (`--end`).
        max_frames: stop after so many given frames (`--max-frames`).

    Raises:
        UsageError: a value out of its range, or both `every` and `fps`.
    """

    every: int = 1
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        _expect(self.every >= 1, f"--every {self.every}: expected 1 or more")
        _expect(
            self.fps is None or (self.fps > 0 and math.isfinite(self.fps)),
            f"--fps {self.fps}: expected a number above 0",
        )
        _expect(self.fps is None or self.every == 1, "--every and --fps: both thin the frames out; give one")
        for option, value in (("--start", self.start_s), ("--end", self.end_s)):
            _expect(
                value is None or (value >= 0 and math.isfinite(value)),
                f"{option} {value}: expected seconds, 0 or more",
            )
        start_s = self.start_s or 0.0
        _expect(
            self.end_s is None or self.end_s > start_s,
            f"--end {self.end_s}: expected a time after --start {start_s}",
        )
        _expect(
            self.max_frames is None or self.max_frames >= 1,
            f"--max-frames {self.max_frames}: expected 1 or more",
        )

    def ends(self) -> bool:
        """Tell whether a live source ends by itself."""
        return self.end_s is not None or self.max_frames is not None

    def timed(self) -> list[str]:
        """Return the options given that speak of time, as typed; pictures have none."""
        given = {"--fps": self.fps, "--start": self.start_s, "--end": self.end_s}
        return [option for option, value in given.items() if value is not None]


class Source(Protocol):
    """Frames one after another; used by one reading thread, `close` by any.

    Attributes:
        name: as in `Frame.source`; of a set of pictures the first one's.
        kind: "live" sources skip what the reader is too slow for; the others give every frame.
        frames: how many frames will be given, where known; of a video an estimate.
        fps: nominal frames per second of what is given, where known.
        dropped: frames so far that were broken and were skipped.
        reopened: times so far that a live source was lost and came back.
        paths: files that it reads.
    """

    name: str
    kind: Kind
    frames: int | None
    fps: float | None
    dropped: int
    reopened: int
    paths: tuple[Path, ...]

    def read(self) -> Frame | None:
        """Return the next frame; None: the end, or stopped.

        Raises:
            InputError: one picture is broken, or nothing of a video can be read; reading may go on after it.
        """

    def close(self) -> None:
        """Let everything go; may be called twice, and from another thread."""


class Thinning:
    """Decides frame by frame what a `Selection` leaves of one source.

    Frames fall into groups: `every` successive ones, or those of one period of 1/`fps` seconds. Of each group
    the first that arrives is given, whether frames come one by one or, live, with gaps.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._first: tuple[int, float] | None = None  # index and time where the groups begin
        self._group = -1
        self._given = 0

    def is_over(self, time_s: float = 0.0) -> bool:
        """Tell whether no frame from this time on will be given."""
        limit, end_s = self._selection.max_frames, self._selection.end_s
        return (limit is not None and self._given >= limit) or (end_s is not None and time_s >= end_s)

    def takes(self, index: int, time_s: float) -> bool:
        """Tell whether this frame is given, and count it as given if so."""
        start_s = self._selection.start_s or 0.0
        if time_s < start_s or self.is_over(time_s):
            return False
        if self._first is None:
            self._first = (index, time_s)
        group = self._group_of(index, time_s)
        if group <= self._group:
            return False
        self._group = group
        self._given += 1
        return True

    def _group_of(self, index: int, time_s: float) -> int:
        assert self._first is not None
        if self._selection.fps is None:
            return (index - self._first[0]) // self._selection.every
        return math.floor((time_s - self._first[1] + _TICK_S) * self._selection.fps)


def expected_frames(total: int, fps: float, selection: Selection) -> int:
    """Estimate how many of a video's `total` frames, at `fps` frames per second, a selection leaves."""
    end_s = min(total / fps, selection.end_s if selection.end_s is not None else math.inf)
    seconds = max(0.0, end_s - (selection.start_s or 0.0))
    frames = math.ceil(seconds * fps / selection.every - 1e-6)
    if selection.fps is not None:
        frames = min(frames, math.ceil(seconds * selection.fps - 1e-6))
    return frames if selection.max_frames is None else min(frames, selection.max_frames)


def given_fps(fps: float | None, selection: Selection) -> float | None:
    """Return the frames per second that a selection leaves of a source's nominal `fps`."""
    if fps is None:
        return selection.fps
    return min(fps / selection.every, selection.fps or math.inf)


def _expect(met: bool, text: str) -> None:
    if not met:
        raise UsageError(text)
