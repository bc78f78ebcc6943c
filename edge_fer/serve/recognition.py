"""Recognises what was found, pictures together where that changes nothing but the time.

Used by one thread; its attributes are read by any.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from edge_fer.pipeline.events import Result
from edge_fer.recognizer import Analysis, FaceResult, Prediction, Recognizer
from edge_fer.serve.batching import Batching, measure
from edge_fer.serve.handover import Found
from edge_fer.serve.jobs import Answer

_DEAD = 3  # failures in a row


class Recognition:
    """A recogniser, what may run together on it, and whether it works.

    Attributes:
        batching: what may run together; single faces until `warm_up` has measured more.
        warm: whether `warm_up` is over.
        failures: runs that failed since the last one that did not.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.batching = Batching()
        self.warm = False
        self.failures = 0
        self._recognizer = recognizer
        self._size = recognizer.spec.input.size

    @property
    def failing(self) -> bool:
        """Whether the engine fails on whatever it is given."""
        return self.failures >= _DEAD

    def warm_up(self) -> None:
        """Run the graph for the first times, and measure what may run together."""
        try:
            self.batching = measure(self._recognizer.engine, self._size)
        except Exception:  # noqa: BLE001 (no memory, for example: the thread goes on and those who ask are told)
            self.failures = _DEAD
        self.warm = True

    def probe(self) -> None:
        """Try whether an engine that failed works again."""
        try:
            self._recognizer.predict(np.zeros((1, self._size, self._size, 3), np.uint8))
        except Exception:  # noqa: BLE001 (it is tried again)
            self.failures += 1
        else:
            self.failures = 0

    def together(self, waiting: Sequence[Found]) -> int:
        """Return how many of what waits, the first ones, `answers` may be given at once."""
        faces = []
        for found in waiting:
            if found.job.judge is not None:
                break
            faces.append(len(found.crops))
            if sum(faces) > self.batching.largest:
                break
        return self.batching.together(faces) if faces else 1

    def answers(self, together: Sequence[Found]) -> list[Answer]:
        """Recognise one frame of a stream, or pictures in one run.

        Raises:
            EngineError: the engine failed.
        """
        begun = time.monotonic()
        judge = together[0].job.judge
        if judge is not None:
            result = judge(together[0].located)
            assert isinstance(result, Result)  # a judge turns what was located into nothing else
            analyses = [result.analysis]
        else:
            analyses = self._analyses(together)
        if any(analysis.faces for analysis in analyses):
            self.failures = 0
        return [
            Answer(found.job.moment, analysis, found.job.waited_s + begun - found.since)
            for found, analysis in zip(together, analyses, strict=True)
        ]

    def _analyses(self, together: Sequence[Found]) -> list[Analysis]:
        started = time.perf_counter()
        crops = [crop for found in together for crop in found.crops]
        predictions = self._recognizer.predict(np.stack(crops)) if crops else []
        recognise_ms = 1000 * (time.perf_counter() - started)
        analyses = []
        for found in together:
            count = len(found.crops)
            analyses.append(_analysis(found, predictions[:count], recognise_ms))
            predictions = predictions[count:]
        return analyses


def _analysis(found: Found, predictions: Sequence[Prediction], recognise_ms: float) -> Analysis:
    located = found.located
    latency_ms = {
        "decode": located.frame.decode_ms,
        **located.latency_ms,
        "preprocess": found.preprocess_ms,
        "recognise": recognise_ms if found.crops else 0.0,
    }
    latency_ms["total"] = sum(latency_ms.values())
    return Analysis(
        faces=tuple(map(FaceResult, located.places, predictions, found.crops)),
        detector=located.detector,
        latency_ms=latency_ms,
    )
