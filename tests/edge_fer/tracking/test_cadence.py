"""When the detector runs: fixed for files, adapted to the time there is for live sources."""

from __future__ import annotations

import pytest

from edge_fer.errors import UsageError
from edge_fer.tracking.cadence import Cadence


def detections(
    cadence: Cadence, frames: int, interval_s: float, urgent: frozenset[int] = frozenset()
) -> list[int]:
    return [number for number in range(frames) if cadence.due(number * interval_s, number in urgent)]


def test_fixed_detects_in_every_kth_frame_from_the_first_on() -> None:
    assert detections(Cadence.fixed(5), 16, 1 / 30) == [0, 5, 10, 15]
    assert detections(Cadence.fixed(1), 4, 1 / 30) == [0, 1, 2, 3]


def test_an_urgent_detection_is_at_once_and_the_count_starts_again() -> None:
    assert detections(Cadence.fixed(5), 16, 1 / 30, frozenset({2, 3})) == [0, 2, 3, 8, 13]


def test_few_frames_a_second_are_all_searched() -> None:
    assert detections(Cadence.fixed(5), 4, 1.0) == [0, 1, 2, 3]
    assert detections(Cadence.fixed(5), 9, 0.2) == [0, 3, 6]


def test_a_cadence_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="1 or more frames, got 0"):
        Cadence.fixed(0)


def live(detect_ms: float, interval_s: float, seconds: float = 20.0) -> tuple[Cadence, list[float]]:
    """Play a live source whose frames wait for the detector: those that come meanwhile are dropped."""
    cadence, time_s, detected = Cadence.adaptive(), 0.0, []
    while time_s < seconds:
        wait_s = interval_s
        if cadence.due(time_s, urgent=False):
            detected.append(time_s)
            cadence.took(detect_ms)
            wait_s = interval_s * max(1, -(-detect_ms // (1000 * interval_s)))
        time_s += wait_s
    return cadence, detected


@pytest.mark.parametrize(
    ("detect_ms", "interval_s", "every"),
    [(5, 1 / 30, 1), (21, 1 / 30, 2), (80, 1 / 30, 8), (80, 1 / 10, 3), (400, 1 / 30, 15)],
)
def test_adaptive_leaves_two_thirds_of_the_time_to_others(
    detect_ms: float, interval_s: float, every: int
) -> None:
    cadence, detected = live(detect_ms, interval_s)
    assert cadence.every == every
    share = len([time_s for time_s in detected if time_s >= 10]) * detect_ms / 1000 / 10
    assert share <= 0.36 or every == 15


def test_adaptive_follows_a_detector_that_gets_faster() -> None:
    cadence = Cadence.adaptive()
    for number in range(200):
        if cadence.due(number / 30, urgent=False):
            cadence.took(100 if number < 100 else 5)
    assert cadence.every == 1


def test_adaptive_gives_one_urgent_detection_between_two_regular_ones() -> None:
    cadence = Cadence.adaptive()
    detected = []
    for number in range(100):
        if cadence.due(number / 30, urgent=True):
            cadence.took(100)
            detected.append(number)
    assert cadence.every == 9 or cadence.every == 10
    # From a regular one to an urgent one is a frame, and then the whole way to the next regular one.
    gaps = [after - before for before, after in zip(detected[-5:], detected[-4:], strict=False)]
    assert set(gaps) == {1, cadence.every}
