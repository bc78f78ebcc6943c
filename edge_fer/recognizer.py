"""From pixels to emotions in one object: a bundle's spec, its engine and the one preprocessing."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle, BundleWarning, default_bundle
from edge_fer.engines import Engine, EngineOptions, load_engine
from edge_fer.errors import BundleError, EngineError, InputError, UsageError
from edge_fer.parity.certificate import uncovered
from edge_fer.parity.environment import environment
from edge_fer.preprocess import CropSpec, crop_face, crop_whole
from edge_fer.spec import ModelSpec

if TYPE_CHECKING:
    from edge_fer.detectors import Detector

_MAX_BATCH = 64  # rows do not depend on their batch, so a long one is cut to bound memory


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the model says of one face.

    Attributes:
        labels: names of the C classes.
        probabilities: (C,) float32, the final, corrected distribution; sums to 1.
        primary: (C,) float32, the distribution before reliability balancing.
        reliability: 0..1, 1 - normalised entropy of `probabilities`.
        top: index of the most probable class.
        abstained: True when `reliability` lies below the threshold that was asked for.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    primary: NDArray[np.float32]
    reliability: float
    top: int
    abstained: bool

    @property
    def label(self) -> str:
        """Name of the most probable class, also when the model abstains."""
        return self.labels[self.top]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a face is in a picture.

    Attributes:
        box: x, y, width, height in pixels; None: the whole picture is the face.
        landmarks: (5, 2) float32, x, y in pixels; None when there are none.
        track: number of the person's track in a video; None in a single picture.
    """

    box: tuple[float, float, float, float] | None = None
    landmarks: NDArray[np.float32] | None = None
    track: int | None = None

    def crop(self, image: NDArray[np.uint8], spec: CropSpec) -> NDArray[np.uint8]:
        """Cut the face out of (H, W, 3) uint8 RGB 0..255: (S, S, 3) of the same kind.

        Raises:
            InputError: the picture has another shape or type, or the box is far outside of it.
        """
        return (
            crop_whole(image, spec) if self.box is None else crop_face(image, self.box, self.landmarks, spec)
        )


@dataclass(frozen=True, slots=True, eq=False)
class FaceResult:
    """One face of a picture.

    Attributes:
        place: where it is.
        prediction: what the model says of it.
        crop: (S, S, 3) uint8 RGB 0..255, what the model saw.
    """

    place: Place
    prediction: Prediction
    crop: NDArray[np.uint8]

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """x, y, width, height in pixels; None when the whole picture is the face."""
        return self.place.box

    @property
    def landmarks(self) -> NDArray[np.float32] | None:
        """(5, 2) float32, x, y in pixels; None when the detector gives none."""
        return self.place.landmarks


@dataclass(frozen=True, slots=True)
class Analysis:
    """The faces of one picture, the largest first.

    Attributes:
        faces: one entry per face; empty when there is none.
        detector: name of the detector; None when none was asked for.
        latency_ms: milliseconds for detect (when a detector ran), preprocess, recognise and total.
    """

    faces: tuple[FaceResult, ...]
    detector: str | None
    latency_ms: dict[str, float]


class Recognizer:
    """A model that is ready to run.

    Attributes:
        spec: what the bundle says of the model.
        engine: what runs the graph.
        min_reliability: faces below it are marked as abstained; None: never.
    """

    __slots__ = ("_detector", "engine", "min_reliability", "spec")

    def __init__(self, spec: ModelSpec, engine: Engine, min_reliability: float | None = None) -> None:
        self.spec = spec
        self.engine = engine
        self.min_reliability = min_reliability
        self._detector: Detector | None = None

    @classmethod
    def load(
        cls,
        bundle: Path | str | Bundle | None = None,
        *,
        engine: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        provider: str | None = None,
        min_reliability: float | str | None = None,
        allow_untrained: bool = False,
    ) -> Recognizer:
        """Verify a bundle and load its graph. The bundle's bytes are let go afterwards.

        Args:
            bundle: a folder, a zip or a loaded bundle; None: the embedded one.
            engine: onnxruntime, openvino or tflite; None: the bundle's own.
            threads: threads that work on one inference; None: the engine's choice.
            device: cpu, cuda, cuda:1 ...
            provider: the engine's way to the device.
            min_reliability: a threshold from 0 to 1, or "auto" for the bundle's own; None: no abstention.
            allow_untrained: load a bundle with untrained weights all the same.

        Raises:
            BundleError: the bundle cannot be trusted, or is untrained.
            EngineError: the engine does not load it.
            UsageError: the threshold is none.

        Warns:
            BundleWarning: the bundle failed a parity gate, is untrained, or has no certificate of this class
                of CPUs.
        """
        loaded = (
            bundle
            if isinstance(bundle, Bundle)
            else Bundle.load(default_bundle() if bundle is None else bundle)
        )
        threshold = _threshold(min_reliability, loaded)
        if loaded.spec.untrained and not allow_untrained:
            raise BundleError(
                f"{loaded.path} holds untrained weights, its answers mean nothing: "
                "export a trained checkpoint, or pass --allow-untrained (allow_untrained=True) to try it"
            )
        for text in _warnings(loaded):
            warnings.warn(text, BundleWarning, stacklevel=2)
        options = EngineOptions(engine=engine, threads=threads, device=device, provider=provider)
        return cls(loaded.spec, load_engine(loaded, options), threshold)

    def predict(self, crops: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Recognise faces that are cropped already.

        Args:
            crops: (N, S, S, 3) or one (S, S, 3), uint8 RGB 0..255, S = `spec.input.size`.

        Returns:
            One prediction per crop.

        Raises:
            InputError: the crops have another shape or type.
            EngineError: the engine failed.
        """
        batch = self._batch(crops)
        predictions: list[Prediction] = []
        for start in range(0, len(batch), _MAX_BATCH):
            predictions += self._predict_batch(batch[start : start + _MAX_BATCH])
        return predictions

    def analyze(
        self, image: NDArray[np.uint8], detector: Detector | None = None, detect: bool = True
    ) -> Analysis:
        """Find the faces of a picture and recognise each.

        Args:
            image: (H, W, 3) uint8 RGB 0..255, upright.
            detector: what finds the faces; None: the default one.
            detect: False: the whole picture is one face.

        Raises:
            InputError: the picture has another shape or type.
            DetectorError, EngineError: they failed.
        """
        _check_picture(image)
        if not detect:
            return self.recognise(image, (Place(),))
        detector = detector or self._default_detector()
        started = time.perf_counter()
        found = detector.detect(image)
        detect_ms = 1000 * (time.perf_counter() - started)
        analysis = self.recognise(image, [Place(face.box, face.landmarks) for face in found])
        total_ms = detect_ms + analysis.latency_ms["total"]
        return Analysis(
            faces=analysis.faces,
            detector=detector.name,
            latency_ms={"detect": detect_ms, **analysis.latency_ms, "total": total_ms},
        )

    def recognise(self, image: NDArray[np.uint8], places: Sequence[Place]) -> Analysis:
        """Crop and recognise faces whose places are known, in the order given.

        Args:
            image: (H, W, 3) uint8 RGB 0..255, upright.
            places: where the faces are.

        Raises:
            InputError: the picture has another shape or type.
            EngineError: the engine failed.
        """
        _check_picture(image)
        started = time.perf_counter()
        crops = [place.crop(image, self.spec.input) for place in places]
        cropped = time.perf_counter()
        predictions = self.predict(np.stack(crops)) if crops else []
        done = time.perf_counter()
        return Analysis(
            faces=tuple(map(FaceResult, places, predictions, crops)),
            detector=None,
            latency_ms={
                "preprocess": 1000 * (cropped - started),
                "recognise": 1000 * (done - cropped),
                "total": 1000 * (done - started),
            },
        )

    def prediction(
        self, probabilities: NDArray[np.float32], primary: NDArray[np.float32], reliability: float
    ) -> Prediction:
        """Return the prediction that these outputs of the graph, or means of them over time, stand for.

        Args:
            probabilities: (C,) float32, sums to 1.
            primary: (C,) float32, sums to 1.
            reliability: 0..1, of `probabilities`.
        """
        return Prediction(
            labels=self.spec.labels,
            probabilities=probabilities,
            primary=primary,
            reliability=reliability,
            top=int(probabilities.argmax()),
            abstained=self.min_reliability is not None and reliability < self.min_reliability,
        )

    def _default_detector(self) -> Detector:
        if self._detector is None:
            from edge_fer.detectors import load_detector

            self._detector = load_detector(None)
        return self._detector

    def _batch(self, crops: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        size = self.spec.input.size
        try:
            batch = crops if isinstance(crops, np.ndarray) else np.asarray(crops)
        except ValueError as error:  # crops of several sizes
            raise InputError(
                f"expected crops uint8 (N, {size}, {size}, 3) RGB, got several shapes"
            ) from error
        if batch.ndim == 3:
            batch = batch[None]
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (size, size, 3):
            raise InputError(f"expected crops uint8 (N, {size}, {size}, 3) RGB, got {_describe(crops)}")
        return batch

    def _predict_batch(self, batch: NDArray[np.uint8]) -> list[Prediction]:
        outputs = self.engine.run(batch)
        told = (outputs.probabilities, outputs.primary, outputs.reliability)
        if not all(np.isfinite(values).all() for values in told):
            raise EngineError("the graph answered with values that are not finite: export the bundle again")
        rows = zip(outputs.probabilities, outputs.primary, outputs.reliability.tolist(), strict=True)
        return [self.prediction(*row) for row in rows]


def _threshold(asked: float | str | None, bundle: Bundle) -> float | None:
    if asked is None:
        return None
    if asked == "auto":
        if bundle.spec.min_reliability is None:
            raise UsageError(
                f"{bundle.path} has no abstention threshold of its own: give a number from 0 to 1"
            )
        return bundle.spec.min_reliability
    try:
        threshold = float(asked)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise UsageError(f"expected a minimal reliability from 0 to 1, or auto, got {asked}")
    return threshold


def _warnings(bundle: Bundle) -> list[str]:
    texts = []
    if bundle.verdict == "failed":
        texts.append(f"{bundle.path} failed a parity gate and was kept all the same: see `edge-fer info`")
    if bundle.spec.untrained:
        texts.append(f"{bundle.path} holds untrained weights: its answers mean nothing")
    strange = uncovered(bundle, str(environment()["cpu_class"]))
    return [*texts, strange] if strange else texts


def _check_picture(image: NDArray[np.uint8]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"expected a picture uint8 (H, W, 3) RGB, got {_describe(image)}")


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
