"""What the drift monitor of `edge-fer serve` shows for photos of a folder, as they are and made worse.

    python -m tests.benchmarks.drift FOLDER [--detector FILE.onnx]

Prints a Markdown table for docs/serve.md: the drift, and how often the label of the photo as it is stays.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer import Recognizer
from edge_fer.bundle import Bundle, default_bundle
from edge_fer.detectors import load_detector
from edge_fer.images import folder_images, read_image
from edge_fer.recognizer import Prediction
from edge_fer.serve.monitor import Served

WIDTH = 640
Picture = NDArray[np.uint8]


def blurred(share: float) -> Callable[[Picture], Picture]:
    """Return what blurs by a Gaussian of this share of the width."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), share * image.shape[1]).astype(np.uint8)


def noisy(image: Picture) -> Picture:
    noise = np.random.default_rng(0).normal(0, 40, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as they are": lambda image: image,
    "blurred, 1 % of the width": blurred(0.01),
    "blurred, 2 % of the width": blurred(0.02),
    "a quarter of the light": lambda image: (image // 4).astype(np.uint8),
    "noise, sigma 40 of 255": noisy,
}


def pictures(folder: Path) -> Iterator[Picture]:
    for path in folder_images(folder):
        image = read_image(path)
        scale = WIDTH / image.shape[1]
        yield cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--detector", default="cascade")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    reference = Served.of(bundle, "", False).reference_reliability
    if reference is None:
        raise SystemExit(f"{given.bundle} has no reference outputs: name another bundle")
    recognizer, detector = Recognizer.load(bundle, threads=1), load_detector(given.detector)
    told: dict[str, list[Prediction | None]] = {name: [] for name in CHANGES}
    for image in pictures(given.folder):
        for name, change in CHANGES.items():
            faces = recognizer.analyze(change(image), detector).faces
            told[name].append(faces[0].prediction if faces else None)
    print(f"| {len(told['as they are'])} photos, {detector.name} | faces | mean | drift | same label |")
    print("|---|---|---|---|---|")
    for name, answers in told.items():
        found = [one.reliability for one in answers if one]
        pairs = [
            (one, other) for one, other in zip(answers, told["as they are"], strict=True) if one and other
        ]
        mean = statistics.mean(found)
        same = statistics.mean(one.label == other.label for one, other in pairs)
        print(f"| {name} | {len(found)} | {mean:.3f} | {mean - reference:+.3f} | {same:.0%} |")


if __name__ == "__main__":
    main()
