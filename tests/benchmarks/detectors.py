"""Measure the face detectors here: time per search, beside a recogniser, and what a smaller side costs.

Prints Markdown tables. YuNet's file is the installed one, or the one that EDGE_FER_YUNET or --yunet names.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer import Recognizer
from edge_fer.detectors import Detector
from edge_fer.detectors.cache import find_installed
from edge_fer.detectors.cascade import CascadeDetector
from edge_fer.detectors.yunet import YunetDetector
from edge_fer.errors import DetectorError
from edge_fer.images import read_image

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
SIDES = (640, 320)
ENGINES = ("onnxruntime", "openvino", "opencv")
WIDTH, HEIGHT = 640, 480
GRAY = 110

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A detector and what it is called in the tables."""

    what: str
    detector: Detector


def candidates(yunet: Path | None) -> list[Candidate]:
    """Return the cascade, and YuNet on every engine and with two threads, where they are to be had."""
    found = [Candidate("cascade", CascadeDetector())]
    for engine in ENGINES if yunet else ():
        for threads in (1, 2) if engine == "onnxruntime" else (1,):
            what = f"YuNet, {engine}" + (f", {threads} threads" if threads > 1 else "")
            try:
                found.append(Candidate(what, YunetDetector(yunet, threads, engine)))
            except DetectorError as error:
                print(f"{what} is left out: {error}")
    return found


def time_in_turn(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median times in ms of calls that take turns, after one that does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, kept in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            if number:
                kept.append((time.perf_counter() - started) * 1e3)
    return [statistics.median(kept) for kept in times]


def print_times(found: list[Candidate], rounds: int) -> None:
    """Print the milliseconds of one search at every side."""
    image = cv2.resize(read_image(PHOTO), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    pairs = [(candidate, side) for candidate in found for side in SIDES]
    calls = [lambda one=one, side=side: one.detector.detect(image, side) for one, side in pairs]
    medians = dict(zip(pairs, time_in_turn(calls, rounds), strict=True))
    print(f"\nOne search of a {WIDTH}x{HEIGHT} picture, medians of {rounds}, {os.cpu_count()} CPUs.\n")
    print("| detector | side 640, ms | side 320, ms | ratio |\n|---|---|---|---|")
    for one in found:
        large, small = (medians[one, side] for side in SIDES)
        print(f"| {one.what} | {large:.1f} | {small:.1f} | {small / large:.2f} |")


def print_beside(found: list[Candidate], seconds: float) -> None:
    """Print how often a detector and a recogniser get through when both run all the time."""
    image = cv2.resize(read_image(PHOTO), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    recognizer = Recognizer.load()
    crop = recognizer.analyze(image, found[0].detector).faces[0].crop
    print(f"\nDetector and recogniser in two threads for {seconds:.0f} s.\n")
    print("| detector | searches per s | faces per s |\n|---|---|---|")
    for one in found:
        searches, faces = both_at_once(
            lambda one=one: one.detector.detect(image), lambda: recognizer.predict(crop), seconds
        )
        print(f"| {one.what} | {searches / seconds:.0f} | {faces / seconds:.0f} |")


def both_at_once(first: Callable[[], object], second: Callable[[], object], seconds: float) -> list[int]:
    """Return how often each of two calls ends in this time."""
    counts, until = [0, 0], time.perf_counter() + seconds

    def work(place: int, call: Callable[[], object]) -> None:
        while time.perf_counter() < until:
            call()
            counts[place] += 1

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def print_agreement(found: list[Candidate], photos: Sequence[Path]) -> None:
    """Print what a search at side 320 finds of the faces that side 640 finds, by size of the photo in it."""
    print(f"\n{len(photos)} photos of one face each, in a gray {WIDTH}x{HEIGHT} picture.\n")
    print("| detector | photo, px | box, px | at 640 | at 320 | extra at 320 | IoU p50 | IoU p10 |")
    print("|---|---|---|---|---|---|---|---|")
    for one in found:
        for size in (480, 360, 240, 160, 120, 80):
            print_row(one, size, [placed(path, size) for path in photos])


def print_row(one: Candidate, size: int, pictures: Sequence[Image]) -> None:
    """Print one line of that table."""
    pairs = [[one.detector.detect(picture, side) for side in SIDES] for picture in pictures]
    overlaps = [overlap(a[0].box, b[0].box) for a, b in pairs if a and b]
    boxes = [a[0].box[2] for a, _ in pairs if a]
    best, worst = np.percentile(overlaps, (50, 10)) if overlaps else (0.0, 0.0)
    shares = [sum(bool(pair[place]) for pair in pairs) / len(pairs) for place in (0, 1)]
    extra = sum(max(0, len(b) - 1) for _, b in pairs)
    width = statistics.median(boxes) if boxes else 0
    print(
        f"| {one.what} | {size} | {width:.0f} | {shares[0]:.0%} | {shares[1]:.0%} "
        f"| {extra} | {best:.2f} | {worst:.2f} |"
    )


def placed(path: Path, size: int) -> Image:
    """Return a gray picture with the photo, scaled to `size` pixels of height, somewhere in it."""
    photo = read_image(path)
    width = round(photo.shape[1] * size / photo.shape[0])
    small = cv2.resize(photo, (width, size), interpolation=cv2.INTER_AREA)
    picture = np.full((HEIGHT, WIDTH, 3), GRAY, np.uint8)
    rng = np.random.default_rng(sum(path.name.encode()))  # the same place in every run
    top, left = rng.integers(0, HEIGHT - size + 1), rng.integers(0, WIDTH - width + 1)
    picture[top : top + size, left : left + width] = small
    return picture


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes x, y, width, height."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(0.0, across) * max(0.0, down)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--yunet", type=Path, help="YuNet's ONNX file")
    parser.add_argument("--rounds", type=int, default=30, help="searches per figure")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pair of threads; 0: none")
    parser.add_argument("--photos", type=Path, help="folder of portraits, for the agreement of the two sides")
    options = parser.parse_args()
    named = options.yunet or os.environ.get("EDGE_FER_YUNET")
    installed = find_installed()
    yunet = Path(named) if named else installed[0] if installed else None
    found = candidates(yunet)
    print_times(found, options.rounds)
    if options.seconds:
        print_beside(found, options.seconds)
    if options.photos:
        print_agreement(found[:2], sorted(options.photos.glob("*.jpg")))


if __name__ == "__main__":
    main()
