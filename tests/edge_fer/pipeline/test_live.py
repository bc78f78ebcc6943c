"""The live policy through the whole pipeline: a camera on loopback that is faster than recognition."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.detectors import Detection
from edge_fer.engines import Outputs
from edge_fer.pipeline.events import Closed, Opened, Result
from edge_fer.pipeline.pipeline import Pipeline
from edge_fer.recognizer import Recognizer
from edge_fer.sources import Selection, resolve
from tests.edge_fer.sources.mjpeg_camera import MjpegCamera
from tests.edge_fer.sources.painted import number_in

RECOGNITION_S = 0.5  # long enough for a busy machine's own delays not to count
RESULTS = 6


class _SlowEngine:
    """The real engine on a board that is slower."""

    name = "slow"

    def __init__(self, recognizer: Recognizer) -> None:
        self._engine = recognizer.engine

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        time.sleep(RECOGNITION_S)
        return self._engine.run(images)


class _OneFace:
    """A detector that finds a face in one place of every frame, and takes its time."""

    name = "one face"

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        time.sleep(0.05)
        return [Detection((20.0, 4.0, 80.0, 80.0), None, 1.0)]


@pytest.mark.parametrize("detector", [None, _OneFace()], ids=["crops", "faces"])
def test_results_are_of_the_newest_frame_when_recognition_is_slower_than_the_camera(
    detector: _OneFace | None,
) -> None:
    loaded = Recognizer.load(threads=1)
    slow = Recognizer(loaded.spec, _SlowEngine(loaded))  # type: ignore[arg-type]
    stop = threading.Event()
    ages: list[float] = []
    numbers: list[int] = []
    with (
        MjpegCamera(fps=30) as camera,
        Pipeline(
            resolve([camera.url]), slow, detector, selection=Selection(), smooth=True, stop=stop
        ) as pipeline,
    ):
        for event in pipeline:
            if isinstance(event, Result):
                number = number_in(event.frame.image)
                age_s = time.monotonic() - camera.sent_at[number]
                total_ms = event.analysis.latency_ms["total"]
                assert 0 < total_ms <= 1000 * age_s + 1
                if not event.analysis.faces:  # flow does not follow painted squares for ever
                    continue
                assert total_ms >= 1000 * RECOGNITION_S
                numbers.append(number)
                ages.append(age_s)
                if len(ages) == RESULTS:
                    stop.set()
        assert pipeline.skipped > 0
    steps = np.diff(numbers)
    assert (steps > 0).all() and np.median(steps) >= 0.8 * RECOGNITION_S * 30
    # The first results may wait for threads and libraries to start.
    assert max(ages[2:]) < 2 * RECOGNITION_S, ages


def test_the_frames_asked_for_are_results_however_many_were_skipped() -> None:
    loaded = Recognizer.load(threads=1)
    slow = Recognizer(loaded.spec, _SlowEngine(loaded))  # type: ignore[arg-type]
    with (
        MjpegCamera(fps=30) as camera,
        Pipeline(
            resolve([camera.url]),
            slow,
            None,
            selection=Selection(max_frames=3),
            smooth=True,
            stop=threading.Event(),
        ) as pipeline,
    ):
        kinds = [type(event) for event in pipeline]
        assert pipeline.skipped > 0
    assert kinds == [Opened, *[Result] * 3, Closed]


def test_a_stop_ends_a_live_source_at_once() -> None:
    stop = threading.Event()
    with MjpegCamera(fps=30) as camera:
        pipeline = Pipeline(
            resolve([camera.url]),
            Recognizer.load(threads=1),
            None,
            selection=Selection(),
            smooth=True,
            stop=stop,
        )
        with pipeline:
            kinds = []
            for event in pipeline:
                kinds.append(type(event))
                if len(kinds) == 10:
                    camera.hangs_at = 0  # nothing more comes: the reader waits for a frame
                    time.sleep(0.3)
                    told = time.monotonic()
                    stop.set()
        assert time.monotonic() - told < 1
    assert kinds[0] is Opened and kinds[-1] is Closed and set(kinds[1:-1]) == {Result}
