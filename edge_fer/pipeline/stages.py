"""The work of the threads: find the faces of a frame, recognise them. Each keeps what one source needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from edge_fer.detectors import Detector
from edge_fer.pipeline.events import Closed, Event, Faulty, Opened, Result
from edge_fer.recognizer import FaceResult, Place, Recognizer
from edge_fer.sources import Frame, Source
from edge_fer.tracking import Cadence, FaceTracker, Smoother


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A frame whose faces were found.

    Attributes:
        frame: the frame.
        places: where its faces are.
        detector: what answered; None when every frame is one face.
        latency_ms: milliseconds of detect, where a detector ran, and track, where there is one.
        live: whether its source is live.
        alive: numbers of the people in sight and of those who may come back.
    """

    frame: Frame
    places: tuple[Place, ...]
    detector: str | None
    latency_ms: dict[str, float]
    live: bool
    alive: frozenset[int] = frozenset()


Found = Opened | Closed | Faulty | Located
Read = Opened | Closed | Faulty | Frame


class Finder:
    """Finds the faces of frames: pictures each by itself, videos with tracks that carry faces along.

    Args:
        detector: what finds faces; None: every frame is one face.
    """

    def __init__(self, detector: Detector | None) -> None:
        self._detector = detector
        self._tracker: FaceTracker | None = None
        self._live = False

    def __call__(self, item: Read) -> Found:
        """Find the faces of a frame; anything else is handed on.

        Raises:
            DetectorError: the detector failed.
        """
        if isinstance(item, Opened):
            self._open(item.source)
        return self._locate(item) if isinstance(item, Frame) else item

    def _open(self, source: Source) -> None:
        self._live = source.kind == "live"
        self._tracker = None
        if self._detector is not None and source.kind != "pictures":
            cadence = Cadence.adaptive() if self._live else Cadence.fixed()
            self._tracker = FaceTracker(self._detector, cadence)

    def _locate(self, frame: Frame) -> Located:
        if self._detector is None:
            return Located(frame, (Place(),), None, {}, self._live)
        name = self._detector.name
        if self._tracker is None:
            started = time.perf_counter()
            found = self._detector.detect(frame.image)
            detect_ms = 1000 * (time.perf_counter() - started)
            places = tuple(Place(face.box, face.landmarks) for face in found)
            return Located(frame, places, name, {"detect": detect_ms}, self._live)
        tracked = self._tracker.update(frame.image, frame.time_s or 0.0)
        latency_ms = {"track": tracked.track_ms}
        if tracked.detect_ms is not None:
            latency_ms["detect"] = tracked.detect_ms
        places = tuple(Place(face.box, face.landmarks, face.track) for face in tracked.faces)
        return Located(frame, places, name, latency_ms, self._live, self._tracker.alive)


class Judge:
    """Recognises faces that were found, and takes the mean over time of those that have a track.

    Args:
        recognizer: the model.
        smooth: False: every frame speaks for itself.
    """

    def __init__(self, recognizer: Recognizer, smooth: bool) -> None:
        self._recognizer = recognizer
        self._smooth = smooth
        self._smoother = Smoother()

    def __call__(self, item: Found) -> Event:
        """Recognise the faces of a frame; anything else is handed on.

        Raises:
            EngineError: the engine failed.
        """
        if isinstance(item, Opened):
            self._smoother = Smoother()
        return self._judge(item) if isinstance(item, Located) else item

    def _judge(self, located: Located) -> Result:
        frame = located.frame
        analysis = self._recognizer.recognise(frame.image, located.places)
        faces = analysis.faces
        if self._smooth and frame.time_s is not None:
            faces = tuple(self._smoothed(face, frame.time_s) for face in faces)
            self._smoother.forget(located.alive)
        latency_ms = {"decode": frame.decode_ms, **located.latency_ms, **analysis.latency_ms}
        latency_ms["total"] = (
            1000 * (time.monotonic() - frame.captured)
            if located.live
            else sum(value for stage, value in latency_ms.items() if stage != "total")
        )
        return Result(frame, replace(analysis, faces=faces, detector=located.detector, latency_ms=latency_ms))

    def _smoothed(self, face: FaceResult, time_s: float) -> FaceResult:
        track, told = face.place.track, face.prediction
        if track is None:
            return face
        mean = self._smoother.smooth(track, time_s, told.probabilities, told.primary, told.reliability)
        return replace(face, prediction=self._recognizer.prediction(*mean))
