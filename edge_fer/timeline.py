"""Who showed what when: the people of a video over time. Knows tracks, labels and seconds, no models.

Memory is bounded however long it runs: the whole time is kept in at most 1024 steps, whose width doubles when
they are used up, for at most 200 tracks; of more, those seen longest are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

STEPS = 1024
TRACKS = 200
UNSURE = "unsure"
LETTERS = {
    "neutral": "n",
    "happiness": "h",
    "surprise": "u",
    "sadness": "s",
    "anger": "a",
    "disgust": "d",
    "fear": "f",
    "contempt": "c",
    "other": "o",
    UNSURE: "?",
}
_FIRST_STEP_S = 1 / 32
_LONGEST_HOLD_S = 2.0  # after the last frame that showed it, a face is shown on for so long at most
_USUAL_FRAME_S = 0.04  # how long a frame lasts when there is no other to tell


def clock(seconds: float) -> str:
    """Return a time as m:ss or h:mm:ss, cut to whole seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True, slots=True)
class TimelineFace:
    """One face of one frame.

    Attributes:
        track: whose face it is.
        label: what it shows; None: the model abstained.
        probabilities: every label's probability, 0..1.
        reliability: 0..1.
    """

    track: int
    label: str | None
    probabilities: Mapping[str, float]
    reliability: float


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of one track; shares are of the time that it was seen.

    Attributes:
        track: its number.
        first_s: time of the first frame with it, in seconds.
        last_s: time of the last one.
        frames: frames with it.
        reliability: mean, 0..1.
        abstained: share of time without a label, 0..1.
        shares: share of time of each label that occurred, the most frequent first; with `abstained` they sum
            to 1.
        probabilities: mean of every label's probability over its frames.
    """

    track: int
    first_s: float
    last_s: float
    frames: int
    reliability: float
    abstained: float
    shares: Mapping[str, float]
    probabilities: Mapping[str, float]

    @property
    def label(self) -> str | None:
        """The most frequent label; None: the model always abstained."""
        return next(iter(self.shares), None)


@dataclass(slots=True, eq=False)
class _Record:
    """What is kept of a track; `steps` are seconds per step: of each label, abstained, times reliability."""

    first_s: float
    last_s: float
    steps: NDArray[np.float32]
    sums: NDArray[np.float64]  # of the probabilities, and of the reliability
    frames: int = 0


@dataclass(slots=True, eq=False)
class Timeline:
    """Collects the faces of each frame.

    Attributes:
        source: what the pictures and tables call it.
        labels: names of the classes.
        more: tracks that were seen and are no longer kept.
    """

    source: str
    labels: Sequence[str]
    more: int = 0
    _step_s: float = _FIRST_STEP_S
    _first_s: float | None = None
    _last_s: float = 0.0
    _frame_s: float = _USUAL_FRAME_S
    _now: Sequence[TimelineFace] = ()
    _records: dict[int, _Record] = field(default_factory=dict)

    def add(self, time_s: float, faces: Sequence[TimelineFace]) -> None:
        """Add a frame, one without faces too: only so is it known that they were gone.

        Args:
            time_s: its time in seconds; one before the last frame's counts as the last frame's.
            faces: who was seen in it.
        """
        if self._first_s is None:
            self._first_s = time_s
        else:
            time_s = max(time_s, self._last_s)
            self._hold(time_s)
            self._frame_s = min(time_s - self._last_s, _LONGEST_HOLD_S) or self._frame_s
        self._last_s = time_s
        present = {face.track for face in faces}
        self._now = [face for face in faces if self._count(time_s, face, present)]

    @property
    def span(self) -> tuple[float, float]:
        """Time of the first frame and of the end of the last one, in seconds."""
        first = self._first_s or 0.0
        return first, max(self._last_s, first) + self._frame_s

    def people(self) -> list[Person]:
        """Return every track that is kept, those seen longest first."""
        found = [self._person(track, record) for track, record in self._finished().items()]
        return sorted(found, key=lambda person: (-person.frames, person.track))

    def draw(self, width: int = 1280) -> NDArray[np.uint8]:
        """Draw one band per person over time; see `edge_fer.timeline_plot`.

        Args:
            width: of the picture in pixels.

        Returns:
            (H, W, 3) uint8 RGB 0..255; the height follows the number of people.
        """
        from edge_fer.timeline_plot import draw_timeline

        return draw_timeline(self, width)

    def strip(self, track: int, cells: int) -> list[str | None]:
        """Return what a person showed, in equal parts of the whole time.

        Args:
            track: the person.
            cells: number of parts.

        Returns:
            For each part the label seen longest in it, UNSURE, or None: not seen in it.
        """
        shown, _ = self.bands(track, cells)
        names = (*self.labels, UNSURE)
        return [None if index < 0 else names[index] for index in shown.tolist()]

    def bands(self, track: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what a person showed and how reliable it was, in equal parts of the whole time.

        Args:
            track: the person.
            cells: number of parts.

        Returns:
            (cells,) int64: index of the label seen longest, the number of labels when unsure for longest, -1
            when absent; and (cells,) float64: mean reliability 0..1, NaN when absent.
        """
        first, end = self.span
        steps = self._finished()[track].steps.astype(np.float64)
        edges = np.linspace(0, (end - first) / self._step_s, cells + 1)
        sums = np.vstack([np.zeros(steps.shape[1]), np.cumsum(steps, axis=0)])
        grid = np.arange(len(sums))
        at_edges = np.stack([np.interp(edges, grid, column) for column in sums.T], axis=1)
        parts = np.diff(at_edges, axis=0)
        seconds = parts[:, :-1].sum(axis=1)
        present = seconds > 1e-6 * (end - first)
        shown = np.where(present, parts[:, :-1].argmax(axis=1), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return shown, np.where(present, parts[:, -1] / seconds, np.nan)

    def _count(self, time_s: float, face: TimelineFace, present: Collection[int]) -> bool:
        record = self._records.get(face.track)
        if record is None:
            if len(self._records) >= TRACKS and not self._forget_one(present):
                return False
            width = len(self.labels) + 2
            steps, sums = np.zeros((STEPS, width), np.float32), np.zeros(width - 1)
            record = self._records[face.track] = _Record(time_s, time_s, steps, sums)
        record.last_s = time_s
        record.frames += 1
        record.sums[:-1] += [face.probabilities.get(label, 0.0) for label in self.labels]
        record.sums[-1] += face.reliability
        return True

    def _forget_one(self, present: Collection[int]) -> bool:
        """Make room for a newcomer: the track seen least goes, if it is not in the picture."""
        gone = [track for track in self._records if track not in present]
        if not gone:
            return False
        del self._records[min(gone, key=lambda track: (self._records[track].frames, track))]
        self.more += 1
        return True

    def _hold(self, until_s: float) -> None:
        """Count the last frame's faces as shown until now."""
        assert self._first_s is not None
        while until_s - self._first_s >= STEPS * self._step_s:
            self._step_s *= 2
            for record in self._records.values():
                record.steps[: STEPS // 2] = record.steps[0::2] + record.steps[1::2]
                record.steps[STEPS // 2 :] = 0
        self._spread(self._records, min(until_s, self._last_s + _LONGEST_HOLD_S))

    def _spread(self, records: Mapping[int, _Record], until_s: float) -> None:
        assert self._first_s is not None
        begin, end = ((time_s - self._first_s) / self._step_s for time_s in (self._last_s, until_s))
        first, last = int(begin), min(int(end), STEPS - 1)
        edges = np.arange(first, last + 1)
        seconds = self._step_s * np.maximum(np.minimum(edges + 1, end) - np.maximum(edges, begin), 0)
        for face in self._now:
            if face.track in records:
                column = len(self.labels) if face.label is None else self.labels.index(face.label)
                steps = records[face.track].steps
                steps[first : last + 1, column] += seconds
                steps[first : last + 1, -1] += seconds * face.reliability

    def _finished(self) -> dict[int, _Record]:
        """Return the records with the last frame counted, which nothing has followed yet."""
        now = {face.track for face in self._now}
        finished = {
            track: _Record(record.first_s, record.last_s, record.steps.copy(), record.sums, record.frames)
            if track in now
            else record
            for track, record in self._records.items()
        }
        if self._first_s is not None:
            self._spread(finished, self._last_s + self._frame_s)
        return finished

    def _person(self, track: int, record: _Record) -> Person:
        seconds = record.steps[:, :-1].sum(axis=0, dtype=np.float64)
        shares = seconds / (seconds.sum() or 1.0)
        ranked = sorted(zip(shares[:-1].tolist(), self.labels, strict=True), key=lambda pair: -pair[0])
        means = record.sums / record.frames
        return Person(
            track=track,
            first_s=record.first_s,
            last_s=record.last_s,
            frames=record.frames,
            reliability=float(means[-1]),
            abstained=float(shares[-1]),
            shares={label: share for share, label in ranked if share > 0},
            probabilities=dict(zip(self.labels, means[:-1].tolist(), strict=True)),
        )
