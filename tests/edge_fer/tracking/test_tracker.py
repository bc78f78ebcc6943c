"""Numbers that stay, faces that are reported and not: on pasted faces with a detector that errs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_fer.tracking import Cadence, FaceTracker, Tracked
from tests.edge_fer.tracking.clips import Box, Part, Person, Picture, astronaut, overlap, play, texture
from tests.edge_fer.tracking.scripted import ScriptedDetector

FALSE_BOX = (40.0, 330.0, 80.0, 80.0)


@pytest.fixture(scope="module")
def people() -> tuple[Person, Person]:
    """Two people: the astronaut, and her mirror image in another light."""
    return astronaut(), astronaut().lit((0.55, 0.7, 0.9), mirrored=True)


@dataclass
class Seen:
    """What a tracker reported, frame by frame, beside the truth."""

    times: list[float] = field(default_factory=list)
    faces: list[tuple[Tracked, ...]] = field(default_factory=list)

    def numbers(self, part: Part) -> list[int | None]:
        """Return the number of the reported face that overlaps a part's true box the most."""
        found: list[int | None] = []
        for time_s, faces in zip(self.times, self.faces, strict=True):
            box = part.box(time_s)
            best = max(faces, key=lambda face: overlap(face.box, box), default=None) if box else None
            found.append(best.track if best and box and overlap(best.box, box) > 0.5 else None)
        return found


def track(tracker: FaceTracker, detector: ScriptedDetector, clip: Sequence[tuple[float, Picture]]) -> Seen:
    seen = Seen()
    for time_s, frame in clip:
        detector.time_s = time_s
        seen.times.append(time_s)
        seen.faces.append(tracker.update(frame, time_s).faces)
    return seen


def follow(
    parts: Sequence[Part], seconds: float, every: int = 5, seed: int = 0, fps: float = 30, **errors: float
) -> tuple[Seen, ScriptedDetector]:
    detector = scripted(parts, seed=seed, **errors)
    clip = list(play(parts, seconds, seed=seed, fps=fps))
    return track(FaceTracker(detector, Cadence.fixed(every)), detector, clip), detector


def scripted(parts: Sequence[Part], seed: int = 0, **errors: float) -> ScriptedDetector:
    def boxes(time_s: float) -> list[Box]:
        return [box for part in parts if (box := part.box(time_s)) is not None]

    return ScriptedDetector(boxes, seed=seed, **errors)


def still(person: Person, x: float = 320, y: float = 240, side: float = 110) -> Part:
    return Part(lambda time_s: person, lambda time_s: (x, y, side))


def crossing(people: tuple[Person, Person]) -> list[Part]:
    """Two people who walk past each other four times in 10 s, not quite in line; the second is in front."""

    def walk(phase: float, y: float, side: float) -> Callable[[float], tuple[float, float, float]]:
        return lambda t: (
            320 + 200 * math.cos(2 * math.pi * t / 5 + phase),
            y + 8 * math.sin(2 * t),
            side * (1 + 0.1 * math.sin(t)),
        )

    return [
        Part(lambda t: people[0], walk(0, 230, 95)),
        Part(lambda t: people[1], walk(math.pi, 250, 110)),
    ]


@pytest.mark.parametrize("seed", range(2))
def test_numbers_stay_through_ten_seconds_of_crossing(people: tuple[Person, Person], seed: int) -> None:
    parts = crossing(people)
    covered = [overlap(*(part.box(n / 30) for part in parts)) > 0.2 for n in range(300)]  # type: ignore[arg-type]
    assert sum(np.diff(np.array(covered, int)) == 1) == 4
    seen, _ = follow(parts, 10, seed=seed, jitter=0.03, misses=0.1)
    back, front = (seen.numbers(part) for part in parts)
    assert {number for faces in seen.faces for number in (face.track for face in faces)} == {1, 2}
    first, second = back[0], front[0]
    assert {first, second} == {1, 2}
    # In front always itself; behind itself where it can be seen, and given back soon after.
    clear = np.flatnonzero(~np.array(covered))
    assert set(front) <= {second, None}
    assert {back[frame] for frame in clear} <= {first, None}
    assert np.mean([front[frame] == second for frame in range(300)]) > 0.98
    assert np.mean([back[frame] == first for frame in clear]) > 0.9


@pytest.mark.parametrize("hidden_s", [0.3, 0.8, 1.5])
@pytest.mark.parametrize("speed", [0.0, 60.0])
def test_a_covered_face_is_not_reported_and_gets_its_number_back(
    people: tuple[Person, Person], hidden_s: float, speed: float
) -> None:
    def place(time_s: float) -> tuple[float, float, float] | None:
        return None if 1 <= time_s < 1 + hidden_s else (220 + speed * time_s, 240, 100)

    part = Part(lambda t: people[0], place)
    seen, _ = follow([part], 4, jitter=0.02)
    reported = [[face.track for face in faces] for faces in seen.faces]
    again = math.ceil(30 * (1 + hidden_s))
    assert all(numbers == [1] for numbers in reported[:30])
    assert all(numbers == [] for numbers in reported[30:again])
    # Back with the next detection, 5 frames later at the latest.
    assert all(numbers == [1] for numbers in reported[again + 5 :])


def test_one_who_comes_back_after_long_is_somebody_new(people: tuple[Person, Person]) -> None:
    part = Part(lambda t: people[0], lambda t: None if 1 <= t < 3.5 else (320, 240, 100))
    seen, _ = follow([part], 5)
    assert {number for number in seen.numbers(part) if number} == {1, 2}
    assert seen.faces[-1][0].track == 2


def test_somebody_else_in_the_same_place_does_not_inherit_the_number_at_a_cut() -> None:
    first, other = still(astronaut(), 320, 240), Part(lambda t: drawn(), lambda t: (322, 238, 112))
    scenes = [*list(play([first], 1, seed=1)), *((1 + t, frame) for t, frame in play([other], 1, seed=2))]
    detector = ScriptedDetector(lambda t: [(first if t < 1 else other).box(t)])  # type: ignore[list-item]
    seen = track(FaceTracker(detector, Cadence.fixed(5)), detector, scenes)
    assert [face.track for face in seen.faces[29]] == [1]
    # The cut's frame is searched at once; the newcomer is reported after the second look.
    assert detector.calls[6] == 1.0
    assert seen.faces[30] == ()
    assert [face.track for face in seen.faces[31]] == [2]


def drawn() -> Person:
    """Return a face-sized texture that looks like nobody."""
    return Person(texture(9, 220, 220), np.ones((220, 220), np.float32))


@pytest.mark.parametrize("every", [1, 5, 15])
def test_missed_detections_neither_end_a_track_nor_make_it_flicker(
    people: tuple[Person, Person], every: int
) -> None:
    part = Part(lambda t: people[0], lambda t: (320 + 120 * math.sin(t), 240, 100))
    seen, detector = follow([part], 6, every=every, misses=0.3, seed=1)
    start = next(number for number, faces in enumerate(seen.faces) if faces)
    assert len(detector.calls) >= 180 // every
    assert all([face.track for face in faces] == [1] for faces in seen.faces[start:])


def test_a_face_that_the_detector_does_not_see_for_long_is_no_longer_reported(
    people: tuple[Person, Person],
) -> None:
    part = still(people[0])
    detector = ScriptedDetector(lambda t: [part.box(t)] if t < 1 else [])  # type: ignore[list-item]
    seen = track(FaceTracker(detector, Cadence.fixed(5)), detector, list(play([part], 4)))
    last = max(time_s for time_s, faces in zip(seen.times, seen.faces, strict=True) if faces)
    assert 1.8 < last < 2.4


def test_faces_of_the_first_frame_are_reported_in_it_largest_first(people: tuple[Person, Person]) -> None:
    parts = [still(people[0], 150, 200, 80), still(people[1], 450, 250, 120)]
    seen, _ = follow(parts, 0.5)
    assert {face.track for face in seen.faces[0]} == {1, 2}
    for faces in seen.faces:
        assert len(faces) == 2 and faces[0].box[2] > faces[1].box[2]
    assert [face.detected for face in seen.faces[0]] == [True, True]
    assert [face.detected for face in seen.faces[1]] == [False, False]


def test_a_single_false_detection_is_nobody_and_a_newcomer_waits_for_one_frame(
    people: tuple[Person, Person],
) -> None:
    newcomer = Part(lambda t: people[1], lambda t: None if t < 1 else (480, 240, 100))
    parts = [still(people[0], 200), newcomer]
    detector = scripted(parts)
    detector.extra = lambda t: [FALSE_BOX] if round(30 * t) in (10, 20) else []
    seen = track(FaceTracker(detector, Cadence.fixed(5)), detector, list(play(parts, 2)))
    assert {face.track for faces in seen.faces for face in faces} == {1, 2}
    assert all(overlap(face.box, FALSE_BOX) == 0 for faces in seen.faces for face in faces)
    assert detector.calls.count(11 / 30) == 1  # the second look
    appeared = next(number for number, faces in enumerate(seen.faces) if len(faces) == 2)
    assert 31 <= appeared <= 30 + 5 + 1


def test_two_boxes_on_one_face_become_one(people: tuple[Person, Person]) -> None:
    part = still(people[0])
    detector = scripted([part])
    detector.extra = lambda t: [(275.0, 195.0, 104.0, 104.0)] if t == 0 else []
    seen = track(FaceTracker(detector, Cadence.fixed(5)), detector, list(play([part], 0.6)))
    assert len(seen.faces[0]) == 2
    assert [len(faces) for faces in seen.faces[1:]] == [1] * 17


def test_one_frame_a_second_reports_every_face_at_once(people: tuple[Person, Person]) -> None:
    part = Part(lambda t: people[0], lambda t: (200 + 40 * t, 240, 100) if t > 0 else None)
    seen, _ = follow([part], 6, fps=1)
    assert [[face.track for face in faces] for faces in seen.faces] == [[], *([[1]] * 5)]


def test_a_file_gives_the_same_at_every_run(people: tuple[Person, Person]) -> None:
    first, second = (follow(crossing(people), 2, jitter=0.03, misses=0.1)[0].faces for _ in range(2))
    assert [[(one.track, one.box) for one in faces] for faces in first] == [
        [(one.track, one.box) for one in faces] for faces in second
    ]


def test_dead_tracks_are_dropped_and_numbers_never_used_again() -> None:
    frames = [texture(seed) for seed in range(4)]
    detector = ScriptedDetector(lambda t: [(100 + 400 * ((7 * t) % 1), 200.0, 90.0, 90.0)])
    tracker = FaceTracker(detector, Cadence.fixed(5))
    known: set[int] = set()
    for number in range(400):
        detector.time_s = number / 3
        faces = tracker.update(frames[number % 4], number / 3).faces
        new = {face.track for face in faces} - known
        assert all(one > max(known, default=0) for one in new)
        known |= new
        assert len(tracker.alive) <= 10 and len(tracker._tracks) <= 10
        assert {face.track for face in faces} <= tracker.alive
    assert len(known) > 20


def test_the_detector_is_told_how_large_a_picture_to_search() -> None:
    sides: list[int] = []

    class Listening(ScriptedDetector):
        def detect(self, image: Picture, side: int = 640) -> list[object]:  # type: ignore[override]
            sides.append(side)
            return []

    for name, side in (("cascade", None), ("yunet", None), ("scripted", None), ("cascade", 640)):
        detector = Listening(lambda t: [])
        detector.name = name
        FaceTracker(detector, Cadence.fixed(1), side).update(texture(0), 0.0)
    assert sides == [480, 320, 640, 640]
