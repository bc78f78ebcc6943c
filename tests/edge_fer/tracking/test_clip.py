"""From frames to labels with the embedded bundle: as good as detecting everywhere, steadier, not late."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from edge_fer import Recognizer
from edge_fer.detectors import Detector
from edge_fer.detectors.cascade import CascadeDetector
from edge_fer.images import read_image
from edge_fer.preprocess import crop_face
from edge_fer.recognizer import Prediction
from edge_fer.tracking import Cadence, FaceTracker, Smoother
from tests.edge_fer.tracking.clips import ROOT, Box, Part, Person, Picture, astronaut, cut_out, overlap, play
from tests.edge_fer.tracking.scripted import ScriptedDetector

LONDON = ROOT.parent / "shared" / "data" / "london"
PEOPLE = ("001", "010", "020")
Clip = Sequence[tuple[float, Picture]]

needs_london = pytest.mark.skipif(not LONDON.is_dir(), reason=f"no photos at {LONDON}")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load(threads=1)


def analyse(
    clip: Clip,
    part: Part,
    detector: Detector,
    recognizer: Recognizer,
    every: int = 5,
    side: int | None = None,
) -> tuple[list[Prediction], list[Box]]:
    """Return what the model says of the person in every frame, and the boxes; all frames have to show it."""
    tracker = FaceTracker(detector, Cadence.fixed(every), side)
    predictions, boxes = [], []
    for time_s, frame in clip:
        truth = part.box(time_s)
        assert truth is not None
        if isinstance(detector, ScriptedDetector):
            detector.time_s = time_s
        face = max(tracker.update(frame, time_s).faces, key=lambda face: overlap(face.box, truth))
        boxes.append(face.box)
        predictions += recognizer.predict(crop_face(frame, face.box, face.landmarks, recognizer.spec.input))
    return predictions, boxes


def smooth(clip: Clip, predictions: Sequence[Prediction]) -> list[int]:
    smoother = Smoother()
    return [
        int(smoother.smooth(1, time_s, one.probabilities, one.primary, one.reliability)[0].argmax())
        for (time_s, _), one in zip(clip, predictions, strict=True)
    ]


def flips(labels: Sequence[int]) -> int:
    return int(np.count_nonzero(np.diff(labels)))


def test_tracking_is_four_times_faster_than_detecting_everywhere_with_the_same_labels(
    recognizer: Recognizer,
) -> None:
    person = astronaut()
    part = Part(
        lambda t: person,
        lambda t: (320 + 140 * math.sin(t), 240 + 60 * math.sin(1.6 * t), 115 + 40 * math.sin(1.3 * t)),
    )
    clip = list(play([part], 1.2, seed=1))
    cost = {}
    for way, every, side in (("everywhere", 1, 640), ("tracked", 5, None)):
        started = time.process_time()  # all threads; a busy machine does not count
        predictions, boxes = analyse(clip, part, CascadeDetector(), recognizer, every, side)
        cost[way] = time.process_time() - started, [one.label for one in predictions], boxes
    everywhere, tracked = cost["everywhere"], cost["tracked"]
    assert np.mean([one == other for one, other in zip(everywhere[1], tracked[1], strict=True)]) >= 0.99
    assert (
        np.mean([overlap(one, other) > 0.7 for one, other in zip(everywhere[2], tracked[2], strict=True)])
        >= 0.99
    )
    assert everywhere[0] >= 4 * tracked[0]


def without_mouth(person: Person) -> Person:
    """Hide the smile under the skin above it: the model then says neutral."""
    head, side = person.head.copy(), len(person.head)
    top, bottom, left, right = (round(share * side) for share in (0.58, 0.75, 0.38, 0.62))
    head[top:bottom, left:right] = head[top - 2, left:right]
    return Person(head, person.mask)


@pytest.mark.parametrize(("side", "noise"), [(36, 36), (48, 46), (60, 60)])
def test_flicker_is_halved_and_a_change_shows_within_half_a_second(
    recognizer: Recognizer, side: float, noise: float
) -> None:
    """A small face in much noise, as in the dark, moves; after 3 s its smile is gone."""
    smiling = astronaut()
    serious = without_mouth(smiling)
    part = Part(
        lambda t: smiling if t < 3 else serious,
        lambda t: (320 + 60 * math.sin(t), 240, side),
    )
    clip = list(play([part], 5, seed=1, noise=noise))
    detector = ScriptedDetector(lambda t: [box for box in [part.box(t)] if box], jitter=0.03)
    raw, _ = analyse(clip, part, detector, recognizer)
    labels, steady = [one.top for one in raw], smooth(clip, raw)
    happiness, neutral = (recognizer.spec.labels.index(label) for label in ("happiness", "neutral"))
    assert flips(labels) >= 10
    assert flips(steady) <= flips(labels) / 2
    assert np.mean(np.array(steady[:90]) == happiness) > 0.9
    assert set(steady[90 + 15 :]) == {neutral}


@needs_london
@pytest.mark.parametrize("person", PEOPLE)
def test_a_smile_of_a_real_person_shows_within_half_a_second(recognizer: Recognizer, person: str) -> None:
    """Neutral fades into smiling in 0.2 s; the delay counts from when the model itself says so for good."""
    detector: Detector = CascadeDetector()

    def head(expression: str) -> Person:
        photo = read_image(LONDON / f"{person}_{expression}.jpg")
        photo = np.asarray(cv2.resize(photo, (640, round(640 * photo.shape[0] / photo.shape[1]))), np.uint8)
        return cut_out(photo, detector.detect(photo)[0].box)

    neutral, smiling = head("neutral"), head("happiness")
    size = len(neutral.head), len(neutral.head)
    smile = np.asarray(cv2.resize(smiling.head, size), np.float64)

    def who(time_s: float) -> Person:
        share = min(1.0, max(0.0, (time_s - 2) / 0.2))
        return Person((neutral.head * (1 - share) + smile * share).astype(np.uint8), neutral.mask)

    part = Part(who, lambda t: (320 + 40 * math.sin(2 * t), 240, 120))
    clip = list(play([part], 4, seed=3))
    scripted = ScriptedDetector(lambda t: [box for box in [part.box(t)] if box])
    raw, _ = analyse(clip, part, scripted, recognizer)
    happiness = recognizer.spec.labels.index("happiness")
    labels, steady = np.array([one.top for one in raw]), np.array(smooth(clip, raw))
    assert labels[30] != happiness and (labels[80:] == happiness).all()
    itself, shown = (np.flatnonzero(values != happiness).max() + 1 for values in (labels, steady))
    assert 0 <= (shown - itself) / 30 <= 0.5
    assert flips(list(steady)) == 1
