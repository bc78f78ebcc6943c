"""Compares detecting on every full frame with tracking, on clips of one face that moves and zooms.

Run from the checkout: python -m tests.benchmarks.tracking [PHOTO ...] [--detector D] [--every 3,5,8]
Every photo has one face; the default is the demo photo.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer import Recognizer
from edge_fer.detectors import Detector, load_detector
from edge_fer.images import read_image
from edge_fer.preprocess import crop_face
from edge_fer.tracking import Cadence, FaceTracker
from tests.edge_fer.tracking.clips import ASTRONAUT, FPS, HEIGHT, WIDTH, Box, Part, cut_out, overlap, play


@dataclass
class Run:
    """What one way of finding faces gave and how long each stage took, in milliseconds per frame."""

    labels: list[str | None] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)

    def note(self, stage: str, value_ms: float) -> None:
        self.stages.setdefault(stage, []).append(value_ms)

    def frames_per_s(self) -> float:
        return len(self.labels) / (sum(map(sum, self.stages.values())) / 1000)


def decode(path: Path, run: Run) -> Iterator[NDArray[np.uint8]]:
    video = cv2.VideoCapture(str(path))
    while True:
        started = time.perf_counter()
        good, frame = video.read()
        if not good:
            return
        image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        run.note("decode", 1000 * (time.perf_counter() - started))
        yield np.asarray(image, np.uint8)


def analyse(path: Path, part: Part, tracker: FaceTracker, recognizer: Recognizer) -> Run:
    """Decode, track and recognise a clip; of several faces the one where the person is counts."""
    run = Run()
    for number, image in enumerate(decode(path, run)):
        time_s = number / FPS
        tracked = tracker.update(image, time_s)
        run.note("track", tracked.track_ms)
        if tracked.detect_ms is not None:
            run.note("detect", tracked.detect_ms)
        started = time.perf_counter()
        crops = [crop_face(image, one.box, one.landmarks, recognizer.spec.input) for one in tracked.faces]
        cropped = time.perf_counter()
        predictions = recognizer.predict(np.stack(crops)) if crops else []
        run.note("crop", 1000 * (cropped - started))
        run.note("recognise", 1000 * (time.perf_counter() - cropped))
        truth = part.box(time_s)
        best = max(
            zip(tracked.faces, predictions, strict=True),
            key=lambda pair: overlap(pair[0].box, truth),  # type: ignore[arg-type]
            default=None,
        )
        run.labels.append(best[1].label if best else None)
        run.boxes.append(best[0].box if best else None)
        if best:
            run.numbers.add(best[0].track)
    return run


def write_clip(path: Path, part: Part, seconds: float, seed: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for _, frame in play([part], seconds, seed=seed):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def person_of(photo: Path, detector: Detector) -> Part:
    image = read_image(photo)
    share = 1024 / max(image.shape)
    if share < 1:
        image = np.asarray(
            cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8
        )
    person = cut_out(image, detector.detect(image)[0].box)

    def place(t: float) -> tuple[float, float, float]:
        return 320 + 140 * math.sin(t), 240 + 60 * math.sin(1.6 * t), 115 + 40 * math.sin(1.3 * t)

    return Part(lambda t: person, place)


def describe(name: str, run: Run, base: Run) -> str:
    both = [
        (one, other)
        for one, other in zip(run.boxes, base.boxes, strict=True)
        if one is not None and other is not None
    ]
    stages = " ".join(f"{stage} {statistics.median(values):.2f}" for stage, values in run.stages.items())
    return (
        f"{name:>24}: {run.frames_per_s():6.1f} frames/s ({run.frames_per_s() / base.frames_per_s():4.1f}x), "
        f"same label {np.mean([a == b for a, b in zip(run.labels, base.labels, strict=True)]):.3f}, "
        f"IoU > 0.8 {np.mean([overlap(a, b) > 0.8 for a, b in both]):.3f}, "
        f"{len(run.stages.get('detect', []))} detections, numbers {sorted(run.numbers)}; median ms: {stages}"
    )


def main() -> None:
    """Print a line per photo and cadence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=Path, default=[ASTRONAUT])
    parser.add_argument("--detector")
    parser.add_argument("--every", default="5")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    detector, recognizer = load_detector(arguments.detector), Recognizer.load()
    with tempfile.TemporaryDirectory() as folder:
        for seed, photo in enumerate(arguments.photos):
            part = person_of(photo, detector)
            clip = Path(folder) / "clip.mp4"
            write_clip(clip, part, arguments.seconds, seed + 1)
            base = analyse(clip, part, FaceTracker(detector, Cadence.fixed(1), 640), recognizer)
            print(f"{photo.name}, {detector.name}")
            print(describe("every frame, side 640", base, base))
            for every in map(int, arguments.every.split(",")):
                run = analyse(clip, part, FaceTracker(detector, Cadence.fixed(every)), recognizer)
                print(describe(f"every {every}, default side", run, base))


if __name__ == "__main__":
    main()
