"""Follows the faces of one source: detections now and then, optical flow between them, stable numbers.

Knows detectors' answers, flow and association; nothing of emotions.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import Box, shared
from edge_fer.tracking.association import Expected, associate, centre
from edge_fer.tracking.flow import Place, Reduced, carry, patch, reduce_frame, surroundings

if TYPE_CHECKING:
    from edge_fer.detectors import Detector
    from edge_fer.tracking.cadence import Cadence

# Longest side in pixels of the picture that each detector searches: the least at which it still finds faces
# of 1/20 of that side (32 pixels of 640: YuNet all, the cascade 81 % and from 40 pixels 98 %).
SEARCHED_SIDES = {"cascade": 480, "yunet": 320}
_SEARCHED_SIDE = 640  # of any other detector
_ALIKE_NEXT = 0.9  # correlation of a face's patch with the same face's one frame later
_ALIKE_DETECTED = 0.7  # ... with its patch of the last detection: below, something is in front of it
# Likeness of a detection to a face that was out of sight. Of 30 people with jittered boxes and another
# expression 95 % are more like themselves than 0.7; of the pairs of two people 25 % are, and 10 % than 0.8.
_ALIKE_AGAIN = 0.7
_ALIKE_ACROSS_CUT = 0.8
_CUT = 0.5  # correlation of whole frames below which they are two scenes
_REACH = 0.6  # how far a detection may be from where the face is expected, as a share of its size ...
_REACH_PER_S = 1.0  # ... and further, if it looks like it, for every second that it is out of sight
_COVERED = 0.6  # share of a box that another face's box may cover before it counts as hidden
_CLEAR = 0.3  # ... at most, for a detection to say what a face looks like
_UNSEEN_S = 1.0  # a face that flow carries but three detections in a row and for so long do not see is hidden
_UNSEEN = 3
_KEPT_S = 2.0  # a hidden face keeps its number for so long
_PENDING_MISSES = 2  # detections in a row that may miss a face that was seen once
_SLOW_S = 0.25  # at fewer frames per second there is no time for a second look
_VELOCITY_S = 0.3  # time constant of a face's mean velocity


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """One face of one frame.

    Attributes:
        track: number of the person, from 1, never used again in this source.
        box: x, y, width, height in pixels of the frame; may reach beyond its edges.
        landmarks: (5, 2) float32, x and y in pixels, in the detector's order; None when it gives none.
        detected: True: the detector saw the face in this frame; False: optical flow carried it here.
    """

    track: int
    box: Box
    landmarks: NDArray[np.float32] | None
    detected: bool


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The faces of one frame, the largest first.

    Attributes:
        faces: those in sight.
        detect_ms: how long detection took; None: there was none in this frame.
        track_ms: how long all the rest took.
    """

    faces: tuple[Tracked, ...]
    detect_ms: float | None
    track_ms: float


@dataclass(slots=True, eq=False)
class _Track:
    """A face that is followed. `number` is None until it is believed."""

    place: Place
    look: NDArray[np.float32]
    seen_s: float  # time of the last detection
    last_s: float  # time it was last in sight
    number: int | None = None
    misses: int = 0  # detections in a row that did not see it
    hidden: bool = False
    across_cut: bool = False
    velocity: tuple[float, float] = (0.0, 0.0)  # of the centre, pixels per second

    def move(self, place: Place, elapsed_s: float) -> None:
        """Take the place that flow found, and the velocity from it."""
        if elapsed_s > 0:
            share = 1 - math.exp(-elapsed_s / _VELOCITY_S)
            old, new = centre(self.place.box), centre(place.box)
            self.velocity = (
                self.velocity[0] + share * ((new[0] - old[0]) / elapsed_s - self.velocity[0]),
                self.velocity[1] + share * ((new[1] - old[1]) / elapsed_s - self.velocity[1]),
            )
        self.place = place

    def drift(self, elapsed_s: float) -> None:
        """Move on with the last velocity: nobody sees where the face is."""
        x, y = self.velocity[0] * elapsed_s, self.velocity[1] * elapsed_s
        box, landmarks = self.place.box, self.place.landmarks
        moved = None if landmarks is None else landmarks + np.array([x, y], np.float32)
        self.place = Place((box[0] + x, box[1] + y, box[2], box[3]), moved)


class FaceTracker:
    """Finds and follows the faces of one source, frame by frame.

    A face of the first frame is reported in the first frame; one that appears later once a second detection
    has seen it, which is the next frame's, so that a single false detection is nobody. A face that the
    detector misses is carried on by flow. One that is covered, or that flow lost, is not reported, but for
    2 s its number waits for it where its motion takes it.

    Args:
        detector: what finds faces.
        cadence: when it is asked.
        side: longest side in pixels of the picture that it searches; None: what was measured to be enough.
    """

    def __init__(self, detector: Detector, cadence: Cadence, side: int | None = None) -> None:
        self._detector = detector
        self._cadence = cadence
        self._side = side or SEARCHED_SIDES.get(detector.name, _SEARCHED_SIDE)
        self._tracks: list[_Track] = []
        self._numbers = 0
        self._before: Reduced | None = None
        self._before_s = 0.0

    @property
    def alive(self) -> frozenset[int]:
        """Numbers of the people in sight and of those who may come back; for `Smoother.forget`."""
        return frozenset(track.number for track in self._tracks if track.number is not None)

    def update(self, image: NDArray[np.uint8], time_s: float) -> TrackedFrame:
        """Take the next frame.

        Args:
            image: (H, W, 3) uint8 RGB 0..255, upright.
            time_s: its time in the source, in seconds.

        Raises:
            DetectorError: the detector failed.
        """
        started = time.perf_counter()
        frame = reduce_frame(image)
        elapsed_s = max(0.0, time_s - self._before_s)
        lost = self._carry(frame, time_s, elapsed_s)
        pending = any(track.number is None for track in self._tracks)
        detect_ms = None
        if self._cadence.due(time_s, urgent=lost or pending):
            detect_started = time.perf_counter()
            found = self._detector.detect(image, self._side)
            detect_ms = 1000 * (time.perf_counter() - detect_started)
            self._cadence.took(detect_ms)
            at_once = self._before is None or elapsed_s > _SLOW_S
            self._take([Place(face.box, face.landmarks) for face in found], frame, time_s, at_once)
            _hide_covered(self._tracks, frame, time_s)
        for track in self._tracks:
            if track.misses >= _UNSEEN and time_s - track.seen_s > _UNSEEN_S:
                track.hidden = True
        self._tracks = [track for track in self._tracks if not _is_over(track, time_s)]
        self._before, self._before_s = frame, time_s
        total_ms = 1000 * (time.perf_counter() - started)
        return TrackedFrame(self._faces(time_s), detect_ms, total_ms - (detect_ms or 0.0))

    def _faces(self, time_s: float) -> tuple[Tracked, ...]:
        faces = [
            Tracked(track.number, track.place.box, track.place.landmarks, track.seen_s == time_s)
            for track in self._tracks
            if track.number is not None and not track.hidden
        ]
        return tuple(sorted(faces, key=lambda face: -face.box[2] * face.box[3]))

    def _carry(self, frame: Reduced, time_s: float, elapsed_s: float) -> bool:
        """Bring every track into this frame; return whether a face was lost on the way."""
        visible = [track for track in self._tracks if not track.hidden]
        for track in self._tracks:
            if track.hidden:
                track.drift(elapsed_s)
        if self._before is None or not visible:
            return False
        before = self._before
        cut = _is_cut(before, frame)
        places = [None] * len(visible) if cut else carry(before, frame, [track.place for track in visible])
        for track, place in zip(visible, places, strict=True):
            if place is None or not self._believable(track, place, before, frame):
                track.hidden, track.across_cut = True, cut
                if cut:
                    track.velocity = 0.0, 0.0
                track.drift(elapsed_s)
            else:
                track.move(place, elapsed_s)
                track.last_s = time_s
        _hide_covered(visible, frame, time_s)
        return any(track.hidden for track in visible)

    @staticmethod
    def _believable(track: _Track, place: Place, before: Reduced, after: Reduced) -> bool:
        look = patch(after, place.box)
        return (
            float((patch(before, track.place.box) * look).sum()) >= _ALIKE_NEXT
            and float((track.look * look).sum()) >= _ALIKE_DETECTED
        )

    def _take(self, found: list[Place], frame: Reduced, time_s: float, at_once: bool) -> None:
        """Give the detections of this frame to the tracks; the rest are new faces."""
        around = [surroundings(frame, place.box) for place in found]
        tracks = sorted(self._tracks, key=lambda track: track.hidden)
        pairs = associate([_expected(track, time_s) for track in tracks], found, around)
        for index, track in enumerate(tracks):
            if index in pairs:
                self._see(track, found[pairs[index]], frame, time_s)
            else:
                track.misses += 1
        for index, place in enumerate(found):
            if index not in pairs.values():
                track = _Track(place, patch(frame, place.box), time_s, time_s)
                self._tracks.append(track)
                if at_once:
                    self._believe(track)

    def _see(self, track: _Track, place: Place, frame: Reduced, time_s: float) -> None:
        others = (other for other in self._tracks if other is not track and not other.hidden)
        if all(shared(place.box, other.place.box) <= _CLEAR for other in others):
            track.look = patch(frame, place.box)
        track.place, track.seen_s, track.last_s = place, time_s, time_s
        track.misses, track.hidden = 0, False
        self._believe(track)

    def _believe(self, track: _Track) -> None:
        if track.number is None:
            self._numbers += 1
            track.number = self._numbers


def _expected(track: _Track, time_s: float) -> Expected:
    if not track.hidden:
        return Expected(track.place, track.look, near=_REACH, far=_REACH, least_alike=-1.0)
    far = _REACH + _REACH_PER_S * (time_s - track.last_s)
    if track.across_cut:  # where it was says nothing about the new scene
        return Expected(track.place, track.look, near=0.0, far=far, least_alike=_ALIKE_ACROSS_CUT)
    return Expected(track.place, track.look, near=_REACH, far=far, least_alike=_ALIKE_AGAIN)


def _is_over(track: _Track, time_s: float) -> bool:
    if track.number is None:
        return track.hidden or track.misses >= _PENDING_MISSES
    return track.hidden and time_s - track.last_s > _KEPT_S


def _is_cut(before: Reduced, after: Reduced) -> bool:
    if before.gray.shape != after.gray.shape:
        return True
    height, width = before.gray.shape
    whole = 0.0, 0.0, width * float(before.factor[0]), height * float(before.factor[1])
    return float((patch(before, whole) * patch(after, whole)).sum()) < _CUT


def _hide_covered(tracks: list[_Track], frame: Reduced, time_s: float) -> None:
    """Of two faces in one place, unless the detector sees both now, hide one: the other is in front of it.

    It is the one without a number, or that detections missed more often, or that looks less like itself.
    """

    def doubt(track: _Track) -> tuple[bool, int, float]:
        return track.number is None, track.misses, -_likeness_to_itself(track, frame)

    for number, first in enumerate(tracks):
        for second in tracks[number + 1 :]:
            if first.hidden or second.hidden or first.seen_s == second.seen_s == time_s:
                continue
            if shared(first.place.box, second.place.box) >= _COVERED:
                max(second, first, key=doubt).hidden = True


def _likeness_to_itself(track: _Track, frame: Reduced) -> float:
    return float((track.look * patch(frame, track.place.box)).sum())
