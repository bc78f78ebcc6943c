"""Streams: who is who over time, the mean over time, only the newest frame waiting, and their ends."""

from __future__ import annotations

import concurrent.futures
import json
import time

import numpy as np
import pytest

from edge_fer.detectors import load_detector
from edge_fer.errors import DetectorError, InputError
from edge_fer.images import decode_image
from edge_fer.output import LATENCY_STAGES, analysis_record
from edge_fer.recognizer import Place, Recognizer
from edge_fer.serve.batching import Batching
from edge_fer.serve.worker import Busy, Worker
from tests.clips import moving_faces
from tests.edge_fer.serve.worker.stand_ins import NoFaces, Watched, WatchedDetector, crop, encoded
from tests.edge_fer.serve.worker.waiting import hold, submit
from tests.waiting import until


def test_faces_have_tracks_and_the_mean_over_time() -> None:
    """The mean is computed here, by the smoother's formula, from what is said of each frame by itself."""
    recognizer = Recognizer.load(threads=1)
    worker = Worker(recognizer, load_detector("cascade"))
    worker.start()
    stream = worker.stream()
    told: dict[int, list[tuple[float, np.ndarray, float]]] = {}
    begun = time.monotonic()
    for number, image in enumerate(moving_faces(8, faces=2, size=(320, 240), fps=5)):
        data = encoded(image, "JPEG", quality=90)
        answer = stream.submit(data, begun + 0.2 * number).result(20)
        moment, analysis = answer.moment, answer.analysis
        assert (moment.source, moment.frame) == ("stream", number)
        assert moment.time_s == pytest.approx(0.2 * number, abs=1e-6)
        assert analysis.detector == "cascade" and set(analysis.latency_ms) <= set(LATENCY_STAGES)
        for face in analysis.faces:
            track = face.place.track
            assert track is not None and face.box is not None
            alone = recognizer.recognise(decode_image(data, "x"), [Place(face.box)]).faces[0].prediction
            both = np.stack([alone.probabilities, alone.primary])
            told.setdefault(track, []).append((0.2 * number, both, alone.reliability))
            weights = [max(r, 1e-3) * np.exp((time_s - 0.2 * number) / 0.3) for time_s, _, r in told[track]]
            mean = sum(w * p for w, (_, p, _) in zip(weights, told[track], strict=True)) / sum(weights)
            given = np.stack([face.prediction.probabilities, face.prediction.primary])
            np.testing.assert_allclose(given, mean, atol=1e-5)
    assert sorted(map(len, told.values())) in (
        [7, 7],
        [7, 8],
        [8, 8],
    )  # a newcomer is believed one frame later
    # Ten times what the comparison above lets pass; which boxes are found moves with the load.
    differences = [abs(both - frames[0][1]).max() for frames in told.values() for _, both, _ in frames]
    assert max(differences) > 1e-4
    record = json.loads(json.dumps(analysis_record(moment, analysis)))
    assert record["source"] == "stream" and record["frame"] == 7
    worker.close()


def test_two_streams_know_nothing_of_each_other() -> None:
    worker = Worker(Recognizer.load(threads=1), load_detector("cascade"))
    worker.start()
    first, second = worker.stream(), worker.stream()
    data = encoded(next(moving_faces(1, faces=2, size=(320, 240))))
    for number in range(3):
        faces = first.submit(data, number / 10).result(20).analysis.faces
        assert {face.place.track for face in faces} == {1, 2}
    answer = second.submit(data, 100.0).result(20)
    assert {face.place.track for face in answer.analysis.faces} == {1, 2}
    assert (answer.moment.frame, answer.moment.time_s) == (0, 0.0)
    worker.close()


def test_without_detection_every_frame_is_one_face(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    stream = worker.stream(detect=False)
    for seed in range(3):
        answer = stream.submit(crop(seed), seed / 10).result(20)
        alone = tiny[0].predict(decode_image(crop(seed), "x"))[0]
        (face,) = answer.analysis.faces
        assert (face.box, face.place.track, answer.analysis.detector) == (None, None, None)
        assert face.prediction.probabilities.tobytes() == alone.probabilities.tobytes()


def test_only_the_newest_frame_waits_and_keeps_its_turn(tiny: tuple[Recognizer, Watched]) -> None:
    detector = WatchedDetector(NoFaces())
    told: list[tuple[str, int | None]] = []
    worker = Worker(
        tiny[0], detector, on_answer=lambda answer: told.append((answer.moment.source, answer.moment.frame))
    )
    worker.start()
    until(lambda: worker.ready)
    detector.shapes.clear()
    detector.gate.clear()
    fast, slow = worker.stream(), worker.stream()
    begun = fast.submit(crop(0, 20), 0)
    until(lambda: detector.shapes)
    old = [fast.submit(crop(0, 30 + number), number / 10) for number in range(1, 4)]
    other = slow.submit(crop(0, 50), 0)
    picture = worker.submit(crop(0, 60), "picture", deadline=time.monotonic() + 20)
    newest = fast.submit(crop(0, 40), 1)
    assert [future.cancelled() for future in old] == [True] * 3
    assert concurrent.futures.wait(old, 5).not_done == set()
    assert worker.pending == 4
    detector.gate.set()
    assert begun.result(20).moment.frame == 0
    assert (newest.result(20).moment.frame, newest.result().moment.time_s) == (4, 1.0)
    assert other.result(20).moment.frame == 0 and picture.result(20)
    # The fast one's newest frame has the place of the frame that it replaced, before the others.
    assert told == [("stream", 0), ("stream", 4), ("stream", 0), ("picture", None)]
    worker.close()


def test_a_frame_is_recognised_by_itself_among_pictures(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    worker._recognition.batching = Batching((1, 2, 4))
    held = hold(worker, tiny[1])
    stream = worker.stream(detect=False)
    futures = [submit(worker, crop(0)), stream.submit(crop(1), 0), submit(worker, crop(2))]
    until(lambda: len(worker._handover._items) == 3)
    tiny[1].gate.set()
    for seed, future in zip((99, 0, 1, 2), (held, *futures), strict=True):
        (face,) = future.result(20).analysis.faces
        alone = tiny[0].predict(decode_image(crop(seed), "x"))[0]
        assert face.prediction.probabilities.tobytes() == alone.probabilities.tobytes()


def test_a_broken_frame_is_told_and_the_next_one_goes_on(worker: Worker) -> None:
    stream = worker.stream()
    assert stream.submit(crop(0, 30), 1.0).result(20).moment.frame == 0
    with pytest.raises(InputError, match="stream: expected a JPEG"):
        stream.submit(b"no picture", 2.0).result(20)
    assert stream.submit(crop(0, 31), 3.0).result(20).moment.frame == 2


def test_a_detector_that_fails_ends_no_stream(tiny: tuple[Recognizer, Watched]) -> None:
    detector = WatchedDetector(NoFaces())
    worker = Worker(tiny[0], detector)
    worker.start()
    until(lambda: worker.ready)
    stream = worker.stream()
    detector.error = DetectorError("gone")
    assert stream.submit(crop(0, 30), 0.0).exception(20) is detector.error
    detector.error = None
    assert stream.submit(crop(0, 30), 1.0).result(20).moment.frame == 1
    worker.close()


def test_frames_of_any_size_may_follow_each_other() -> None:
    worker = Worker(Recognizer.load(threads=1), load_detector("cascade"))
    worker.start()
    stream = worker.stream()
    face = encoded(next(moving_faces(1, size=(320, 240))))
    for number, shape in enumerate([(1, 1), (1, 3000), (3000, 1), (2, 2), (23, 24), (100, 7), (7, 100)]):
        odd = encoded(np.full((*shape, 3), 90, np.uint8))
        assert stream.submit(odd, number).result(20).analysis.faces == ()
        assert stream.submit(face, number + 0.5).result(20).moment.frame == 2 * number + 1
    worker.close()


def test_so_many_streams_and_no_more(worker: Worker) -> None:
    streams = [worker.stream() for _ in range(8)]
    with pytest.raises(Busy) as caught:
        worker.stream()
    assert caught.value.retry_after_s >= 1
    streams[3].close()
    streams[3].close()
    worker.stream()
    with pytest.raises(Busy):
        worker.stream()
    with pytest.raises(InputError, match="closed"):
        streams[3].submit(crop(0), 0)


def test_frames_and_pictures_have_bounds_of_their_own(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    tiny[1].gate.clear()
    stream = worker.stream(detect=False)
    frames = [stream.submit(crop(1), 0)]
    pictures = [submit(worker, crop(0)) for _ in range(4)]  # frames take no room from them
    with pytest.raises(Busy):
        submit(worker, crop(0))
    frames.append(worker.stream(detect=False).submit(crop(1), 0))
    tiny[1].gate.set()
    assert all(future.result(20) for future in (*pictures, *frames))


def test_a_client_that_leaves_takes_its_frame_along(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    tiny[1].gate.clear()
    stream = worker.stream(detect=False)
    begun = stream.submit(crop(0), 0)
    until(lambda: tiny[1].sizes)
    waiting = stream.submit(crop(1), 1)
    stream.close()
    assert waiting.cancelled()
    tiny[1].gate.set()
    assert begun.result(20)
    until(lambda: worker.pending == 0)
    assert tiny[1].sizes == [1]


def test_the_end_of_the_service_ends_frames(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    tiny[1].gate.clear()
    stream = worker.stream(detect=False)
    frames = [stream.submit(crop(0), 0)]
    until(lambda: tiny[1].sizes)
    frames.append(stream.submit(crop(1), 1))
    assert not worker.drain(0.01)
    with pytest.raises(Busy):
        stream.submit(crop(2), 2)
    with pytest.raises(Busy):
        worker.stream()
    tiny[1].gate.set()
    assert worker.drain(20)
    assert all(frame.result(0) for frame in frames)


def test_old_frames_do_not_pile_up_behind_a_slow_recogniser(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    until(lambda: worker.ready)
    tiny[1].gate.clear()
    stream = worker.stream(detect=False)
    frames = []
    for number in range(20):
        frames.append(stream.submit(crop(number), number / 20))
        time.sleep(0.02)
    assert worker.pending <= 3  # two are worked on, one waits
    assert sum(future.cancelled() for future in frames) >= 17 and not frames[-1].cancelled()
    tiny[1].gate.set()
    assert frames[-1].result(20).moment.frame == 19
