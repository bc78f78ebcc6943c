"""Engines and detectors around real ones, which a test holds up, breaks or counts; and pictures to send."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fer.detectors import Detection, Detector
from edge_fer.engines import Engine
from edge_fer.engines.base import Outputs
from edge_fer.recognizer import Recognizer


class Watched:
    """An engine that notes the size of every run, waits while `gate` is closed, and fails as told."""

    name = "onnxruntime"

    def __init__(self, engine: Engine) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []
        self.refuses: Callable[[NDArray[np.uint8]], Exception | None] = lambda images: None
        self._engine = engine

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(images))
        assert self.gate.wait(20)
        if error := self.refuses(images):
            raise error
        return self._engine.run(images)

    def describe(self) -> dict[str, object]:
        return self._engine.describe()


class WatchedDetector:
    """A detector that notes the shape of every picture, waits while `gate` is closed, and fails as told."""

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self.gate = threading.Event()
        self.gate.set()
        self.shapes: list[tuple[int, ...]] = []
        self.error: Exception | None = None
        self._detector = detector

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        self.shapes.append(image.shape)
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return self._detector.detect(image, side)


class NoFaces:
    """A detector that finds nobody, at once."""

    name = "none"

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        return []


class Fixed:
    """A detector that finds the same face in every picture."""

    name = "fixed"

    def __init__(self, face: Detection) -> None:
        self._face = face

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        return [self._face]


def watched(recognizer: Recognizer) -> tuple[Recognizer, Watched]:
    """Return the same recogniser with an engine that can be watched."""
    engine = Watched(recognizer.engine)
    return Recognizer(recognizer.spec, engine, recognizer.min_reliability), engine  # type: ignore[arg-type]


def encoded(image: NDArray[np.uint8], image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format, **options)
    return buffer.getvalue()


def crop(seed: int, side: int = 16) -> bytes:
    """Return a PNG of noise."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8))
