"""The pipeline on real files: the answers of one step after the other, in order, and ends of every kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.detectors import Detection, load_detector
from edge_fer.errors import DetectorError, EngineError, InputError
from edge_fer.images import write_image
from edge_fer.inference import resolve_sources
from edge_fer.pipeline.events import Closed, Event, Faulty, Opened, Result
from edge_fer.pipeline.pipeline import Pipeline
from edge_fer.pipeline.stages import Finder, Judge
from edge_fer.recognizer import Recognizer
from edge_fer.sources import Selection, SourcePlan
from tests.clips import ASTRONAUT, moving_faces, write_clip
from tests.conftest import pattern

FRAMES = 24


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(folder / "two.avi", moving_faces(FRAMES, faces=2, size=(320, 240)))


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load(threads=1)


def plans(*paths: Path) -> list[SourcePlan]:
    found, faulty = resolve_sources([str(path) for path in paths], Selection())
    assert not faulty
    return found


def run(
    sources: Sequence[SourcePlan],
    recognizer: Recognizer,
    detector: object = None,
    stop: threading.Event | None = None,
    smooth: bool = True,
) -> list[Event]:
    pipeline = Pipeline(
        sources,
        recognizer,
        detector,  # type: ignore[arg-type]
        selection=Selection(),
        smooth=smooth,
        stop=stop or threading.Event(),
    )
    with pipeline:
        return list(pipeline)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edge-fer ")]


@pytest.mark.parametrize("smooth", [True, False])
def test_threads_change_no_answer(clip: Path, recognizer: Recognizer, smooth: bool) -> None:
    events = run(plans(clip), recognizer, load_detector("cascade"), smooth=smooth)
    assert isinstance(events[0], Opened) and isinstance(events[-1], Closed)
    results = [event for event in events[1:-1] if isinstance(event, Result)]
    assert [result.frame.index for result in results] == list(range(FRAMES))

    source = plans(clip)[0].open(Selection(), threading.Event())
    finder, judge = Finder(load_detector("cascade")), Judge(recognizer, smooth)
    judge(finder(Opened(source)))
    for result in results:
        frame = source.read()
        assert frame is not None
        expected = judge(finder(frame))
        assert isinstance(expected, Result)
        assert len(result.analysis.faces) == len(expected.analysis.faces)
        for got, wanted in zip(result.analysis.faces, expected.analysis.faces, strict=True):
            assert (got.place.track, got.box) == (wanted.place.track, wanted.box)
            np.testing.assert_array_equal(got.prediction.probabilities, wanted.prediction.probabilities)
    source.close()
    assert sum(len(result.analysis.faces) == 2 for result in results) > 0.9 * FRAMES
    assert not threads()


def test_smoothed_answers_are_means_and_raw_ones_the_network_s(clip: Path, recognizer: Recognizer) -> None:
    raw = run(plans(clip), recognizer, load_detector("cascade"), smooth=False)
    for result in (event for event in raw if isinstance(event, Result)):
        for face in result.analysis.faces:
            (alone,) = recognizer.predict(face.crop)
            np.testing.assert_allclose(face.prediction.probabilities, alone.probabilities, atol=1e-6)
    smooth = run(plans(clip), recognizer, load_detector("cascade"))
    told, mean = (
        np.array([e.analysis.faces[0].prediction.probabilities for e in events if isinstance(e, Result)])
        for events in (raw, smooth)
    )
    np.testing.assert_array_equal(told[0], mean[0])
    assert np.abs(np.diff(mean, axis=0)).mean() < 0.6 * np.abs(np.diff(told, axis=0)).mean()


def test_latencies_are_told_by_stage(clip: Path, recognizer: Recognizer) -> None:
    events = run(plans(clip), recognizer, load_detector("cascade"))
    latencies = [event.analysis.latency_ms for event in events if isinstance(event, Result)]
    assert "detect" in latencies[0]
    detected = [index for index, one in enumerate(latencies) if "detect" in one]
    assert 1 < len(detected) < FRAMES / 2
    for one in latencies:
        assert {"decode", "track", "preprocess", "recognise", "total"} <= set(one)
        parts = sum(value for stage, value in one.items() if stage != "total")
        assert one["total"] == pytest.approx(parts, rel=1e-6)


def test_pictures_and_videos_follow_in_order_and_a_broken_one_stops_no_other(
    clip: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = [ASTRONAUT, tmp_path / "broken.png", tmp_path / "broken.mp4", clip, ASTRONAUT]
    events = run(plans(*paths), recognizer, load_detector("cascade"))
    told = [
        event.frame.source
        if isinstance(event, Result)
        else type(event).__name__ + (f" {event.error}" if isinstance(event, Faulty) else "")
        for event in events
    ]
    first = told.index(str(clip))
    assert told[:2] == ["Opened", str(ASTRONAUT)] and "broken.png" in told[2]
    assert told[3] == "Closed" and told[4].startswith("Faulty") and "broken.mp4" in told[4]
    assert told[first - 1] == "Opened" and told[first : first + FRAMES] == [str(clip)] * FRAMES
    assert told[first + FRAMES :] == ["Closed", "Opened", str(ASTRONAUT), "Closed"]
    photo = [event for event in events if isinstance(event, Result) and event.frame.index is None]
    assert [face.place.track for event in photo for face in event.analysis.faces] == [None, None]
    answers = [event.analysis.faces[0].prediction.probabilities for event in photo]
    np.testing.assert_array_equal(*answers)


def test_without_a_detector_every_frame_is_one_face(clip: Path, recognizer: Recognizer) -> None:
    events = run(plans(clip), recognizer)
    results = [event for event in events if isinstance(event, Result)]
    assert len(results) == FRAMES
    for result in results:
        (face,) = result.analysis.faces
        assert (face.box, face.place.track, result.analysis.detector) == (None, None, None)
        assert not {"detect", "track"} & set(result.analysis.latency_ms)


class _BrokenDetector:
    name = "broken"

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        raise DetectorError("it broke")


class _BrokenEngine:
    name = "broken"

    def run(self, images: NDArray[np.uint8]) -> object:
        raise EngineError("it broke")


def test_what_fails_in_a_thread_reaches_the_caller(clip: Path, recognizer: Recognizer) -> None:
    with pytest.raises(DetectorError, match="it broke"):
        run(plans(clip), recognizer, _BrokenDetector())
    broken = Recognizer(recognizer.spec, _BrokenEngine())  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="it broke"):
        run(plans(clip), broken)
    assert not threads()


def test_a_stop_ends_between_frames_and_gives_out_what_is_under_way(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    for number in range(200):
        write_image(tmp_path / f"{number:03}.png", pattern(number, 40, 40))
    stop = threading.Event()
    results: list[str] = []
    with Pipeline(
        plans(tmp_path), recognizer, None, selection=Selection(), smooth=True, stop=stop
    ) as pipeline:
        for event in pipeline:
            if isinstance(event, Result):
                results.append(Path(event.frame.source).name)
                if len(results) == 20:
                    stop.set()
                    told = time.monotonic()
    assert time.monotonic() - told < 1
    assert results == [f"{number:03}.png" for number in range(len(results))]
    assert 20 <= len(results) < 40
    assert not threads()


def test_a_caller_that_leaves_early_ends_the_threads(clip: Path, recognizer: Recognizer) -> None:
    with (
        pytest.raises(InputError, match="enough"),
        Pipeline(
            plans(clip), recognizer, None, selection=Selection(), smooth=True, stop=threading.Event()
        ) as pipeline,
    ):
        for event in pipeline:
            if isinstance(event, Result):
                raise InputError("enough")
    assert not threads()
