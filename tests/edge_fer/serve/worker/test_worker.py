"""The worker's answers are those of `infer`, whoever else asks; and every future ends, come what may."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_fer.detectors import Detection, load_detector
from edge_fer.output import analysis_record
from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec, crop_face, crop_whole
from edge_fer.recognizer import Recognizer
from edge_fer.serve.batching import Batching
from edge_fer.serve.worker import Answer, Busy, Worker
from edge_fer.spec import ModelSpec
from tests.clips import ASTRONAUT, head_of_the_photo, moving_faces
from tests.conftest import run_command
from tests.edge_fer.serve.worker.stand_ins import Fixed, NoFaces, Watched, WatchedDetector, crop, encoded
from tests.edge_fer.serve.worker.waiting import hold, soon, submit
from tests.waiting import until

BLACK = encoded(np.zeros((16, 16, 3), np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Path]]:
    """Picture files to search for faces (True), and ready crops (False)."""
    folder = tmp_path_factory.mktemp("pictures")
    two = next(moving_faces(1, faces=2, size=(320, 240)))
    head = head_of_the_photo()
    turned = np.ascontiguousarray(np.rot90(head))  # EXIF orientation 6 turns it back
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    files = {
        "two.png": encoded(two),
        "five.jpg": encoded(np.vstack([np.hstack([two, two]), np.hstack([two, two[:, ::-1]])]), "JPEG"),
        "nobody.png": crop(1, 100),
        "head.webp": encoded(head, "WEBP"),
        "turned.jpg": encoded(turned, "JPEG", exif=exif),
        "c64.png": encoded(np.ascontiguousarray(head[30:94, 80:144])),
        "c64.jpg": encoded(np.ascontiguousarray(head[80:144, 60:124]), "JPEG"),
        "c200.png": encoded(np.ascontiguousarray(head[30:230])),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = [folder / name for name in files]
    return {
        True: [*(path for path in paths if not path.name.startswith("c")), ASTRONAUT],
        False: [*(path for path in paths if path.name.startswith("c")), folder / "head.webp"],
    }


def comparable(record: dict[str, object]) -> dict[str, object]:
    """Return a record without what may differ; of the latencies, which there are."""
    latency_ms = record["latency_ms"]
    assert isinstance(latency_ms, dict)
    stages = {stage: value is not None for stage, value in latency_ms.items()}
    return {**record, "source": None, "time_s": None, "latency_ms": stages}


def test_answers_under_mixed_load_are_those_of_infer(pictures: dict[bool, list[Path]]) -> None:
    expected: dict[tuple[bool, str], dict[str, object]] = {}
    for detect, option in ((True, "--detector=cascade"), (False, "--no-detect")):
        printed = run_command("infer", *pictures[detect], option, "--json").stdout.splitlines()
        for path, line in zip(pictures[detect], printed, strict=True):
            expected[detect, path.name] = comparable(json.loads(line))
    assert sorted(len(record["faces"]) for record in expected.values()) == [0, *[1] * 7, 2, 8]  # type: ignore[arg-type]

    worker = Worker(Recognizer.load(), load_detector("cascade"), capacity=500)
    got: list[tuple[tuple[bool, str], Future[Answer]]] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        mixed = [(detect, path) for detect in (True, *[False] * 8) for path in pictures[detect]]
        for number in rng.permutation(len(mixed)).tolist():
            detect, path = mixed[number]
            future = worker.submit(path.read_bytes(), path.name, detect=detect, deadline=soon())
            got.append(((detect, path.name), future))
            worker.submit(b"no picture", "broken", deadline=soon())

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    worker.start()
    for thread in threads:
        thread.join()
    assert {key for key, _ in got} == set(expected)
    for key, future in got:
        answer = future.result(60)
        assert answer.moment.source == key[1]
        record = json.loads(json.dumps(analysis_record(answer.moment, answer.analysis)))
        assert comparable(record) == expected[key]
    worker.close()


def test_pictures_run_together_and_keep_every_bit(tiny: tuple[Recognizer, Watched]) -> None:
    """Sizes as if this machine gained from four; the bits are those of each crop alone."""
    recognizer, engine = tiny
    worker = Worker(recognizer, NoFaces())
    worker.start()
    until(lambda: worker.ready)
    worker._recognition.batching = Batching((1, 2, 4))
    engine.sizes.clear()
    hold(worker, engine)
    futures = [submit(worker, crop(seed)) for seed in range(7)]
    until(lambda: len(worker._handover._items) == 7)
    engine.gate.set()
    answers = [future.result(20) for future in futures]
    assert engine.sizes == [1, 4, 2, 1]
    for seed, answer in enumerate(answers):
        image = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        alone = recognizer.predict(image)[0]
        told = answer.analysis.faces[0].prediction
        assert told.probabilities.tobytes() == alone.probabilities.tobytes()
        assert told.primary.tobytes() == alone.primary.tobytes()
        assert told.reliability == alone.reliability
    worker.close()


def test_a_picture_without_faces_is_charged_with_nobodys_run(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    worker._recognition.batching = Batching((1, 2))
    hold(worker, tiny[1])
    futures = [worker.submit(crop(0), "nobody", deadline=soon()), submit(worker, crop(1))]
    until(lambda: len(worker._handover._items) == 2)
    tiny[1].gate.set()
    nobody, somebody = (future.result(20).analysis for future in futures)
    assert nobody.faces == () and nobody.latency_ms["recognise"] == 0
    assert len(somebody.faces) == 1 and somebody.latency_ms["recognise"] > 0


@pytest.mark.parametrize("shape", [(16, 16), (16, 30), (30, 16), (5, 5), (16, 1)])
def test_ready_crops_of_any_size_are_seen_as_elsewhere(
    worker: Worker, tiny: tuple[Recognizer, Watched], shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(5).integers(0, 256, (*shape, 3)).astype(np.uint8)
    (face,) = submit(worker, encoded(image)).result(20).analysis.faces
    np.testing.assert_array_equal(face.crop, tiny[0].analyze(image, detect=False).faces[0].crop)


def test_landmarks_align_the_crop(tiny: tuple[Recognizer, Watched], tiny_spec: ModelSpec) -> None:
    aligned = replace(tiny_spec.input, alignment="five-point", template=FERPLUS_TEMPLATE)
    recognizer = Recognizer(replace(tiny_spec, input=aligned), tiny[1])  # type: ignore[arg-type]
    image = np.random.default_rng(5).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    points = np.array([[30, 30], [60, 35], [45, 45], [30, 60], [55, 62]], np.float32)
    detector = Fixed(Detection((20.0, 20.0, 50.0, 50.0), points, 1.0))
    worker = Worker(recognizer, detector)
    worker.start()
    (face,) = worker.submit(encoded(image), "x", deadline=soon()).result(20).analysis.faces
    worker.close()
    expected = recognizer.analyze(image, detector).faces[0]
    np.testing.assert_array_equal(face.crop, expected.crop)
    assert face.box == expected.box and face.landmarks is points
    upright = crop_face(image, expected.box, None, aligned)
    assert (face.crop != upright).any()


@pytest.mark.parametrize("side", [16, 63, 64, 112])
def test_a_crop_of_the_right_size_is_what_resampling_gives(side: int) -> None:
    """The worker leaves out a resampling that changes nothing."""
    image = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.uint8)
    np.testing.assert_array_equal(crop_whole(image, CropSpec(size=side, margin=0.3)), image)


def test_pictures_are_taken_while_it_warms_up(tiny: tuple[Recognizer, Watched]) -> None:
    recognizer, engine = tiny
    engine.gate.clear()
    worker = Worker(recognizer, NoFaces())
    early = submit(worker, crop(0))
    worker.start()
    assert (worker.status, worker.ready, worker.batch, worker.pending) == ("starting", False, 1, 1)
    engine.gate.set()
    assert len(early.result(20).analysis.faces) == 1
    assert worker.ready
    worker.close()


def test_a_full_queue_refuses_with_the_time_that_it_needs(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    busy_s = []
    for _ in range(4):
        started = time.monotonic()
        hold(worker, tiny[1])
        submit(worker, crop(0))
        time.sleep(0.1)
        tiny[1].gate.set()
        until(lambda: worker.pending == 0)
        busy_s.append(time.monotonic() - started)
        time.sleep(0.2)  # nothing to do: does not count
    assert 0.05 <= worker._queue._pace.picture_s <= max(busy_s) / 2  # two pictures each time
    tiny[1].gate.clear()
    futures = [submit(worker, crop(seed)) for seed in range(4)]
    assert worker.status == "busy" and not worker.ready and worker.pending == 4
    worker._queue._pace._seconds, worker._queue._pace._pictures = 26.0, 10.0
    with pytest.raises(Busy) as caught:
        submit(worker, crop(9))
    assert caught.value.retry_after_s == 11  # 4 pictures of 2.6 s
    assert "\n" not in str(caught.value)
    tiny[1].gate.set()
    assert concurrent.futures.wait(futures, 20).not_done == set()
    until(lambda: worker.ready)
    submit(worker, crop(9)).result(20)


def test_bytes_are_bounded_and_a_large_picture_alone_is_taken(tiny: tuple[Recognizer, Watched]) -> None:
    detector = WatchedDetector(NoFaces())
    worker = Worker(tiny[0], detector, capacity=50, capacity_bytes=1000)
    large = crop(0, 40)
    assert len(large) > 1000
    first = worker.submit(large, "large", deadline=soon())  # not started: all of it waits
    with pytest.raises(Busy):
        submit(worker, BLACK)
    first.cancel()
    for _ in range(1000 // len(BLACK)):
        submit(worker, BLACK)
    with pytest.raises(Busy):
        submit(worker, BLACK)
    worker.start()
    until(lambda: worker.pending == 0)
    worker.close()


def test_a_cancelled_picture_makes_room_and_is_never_looked_at(tiny: tuple[Recognizer, Watched]) -> None:
    detector = WatchedDetector(NoFaces())
    worker = Worker(tiny[0], detector, capacity=3)
    worker.start()
    until(lambda: worker.ready)
    detector.shapes.clear()
    detector.gate.clear()
    held = worker.submit(crop(0, 20), "held", deadline=soon())
    waiting = [worker.submit(crop(0, 30 + number), "waits", deadline=soon()) for number in range(2)]
    until(lambda: detector.shapes)
    assert waiting[0].cancel()
    assert len(worker._queue._waiting) == 1
    again = worker.submit(crop(0, 40), "again", deadline=soon())
    assert held.cancel()  # its faces are being looked for: the rest of the work is left out
    done, _ = concurrent.futures.wait([held, waiting[0]], 5)
    assert done == {held, waiting[0]}
    detector.gate.set()
    assert waiting[1].result(20).moment.source == "waits" and again.result(20)
    assert detector.shapes == [(20, 20, 3), (31, 31, 3), (40, 40, 3)]
    until(lambda: worker.pending == 0)
    worker.close()


def test_no_work_is_begun_after_the_deadline(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    first = hold(worker, tiny[1])
    late = submit(worker, crop(1), deadline=time.monotonic() + 0.05)
    past = submit(worker, b"not even a picture", deadline=time.monotonic() - 1)
    with pytest.raises(TimeoutError, match="x: not begun within the time limit"):
        past.result(20)
    time.sleep(0.1)
    tiny[1].gate.set()
    assert len(first.result(20).analysis.faces) == 1
    with pytest.raises(TimeoutError):
        late.result(20)
    assert tiny[1].sizes == [1]


def test_a_picture_whose_turn_would_come_too_late_is_refused(
    worker: Worker, tiny: tuple[Recognizer, Watched]
) -> None:
    first = hold(worker, tiny[1])
    submit(worker, crop(1))
    worker._queue._pace._seconds, worker._queue._pace._pictures = 26.0, 10.0
    with pytest.raises(Busy) as caught:  # 5.2 s for two, more than four fifths of 6 s
        submit(worker, crop(2), deadline=time.monotonic() + 6.0)
    assert caught.value.retry_after_s == 6
    third = submit(worker, crop(2), deadline=time.monotonic() + 7.0)
    tiny[1].gate.set()
    assert first.result(20) and third.result(20)
    until(lambda: worker.pending == 0)
    worker._queue._pace._seconds = 1e6  # however slow it is, with nothing to do it tries
    assert submit(worker, crop(3), deadline=time.monotonic() + 6.0).result(20)


def test_drain_answers_everything_and_takes_nothing(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    tiny[1].gate.clear()
    futures = [submit(worker, crop(seed)) for seed in range(3)]
    assert not worker.drain(0.05)
    assert worker.status == "draining" and not worker.ready
    with pytest.raises(Busy) as caught:
        submit(worker, crop(4))
    assert caught.value.retry_after_s >= 1
    tiny[1].gate.set()
    assert worker.drain(20)
    assert all(future.done() and future.exception() is None for future in futures)


def test_close_ends_every_future(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    tiny[1].gate.clear()
    futures = [submit(worker, crop(seed)) for seed in range(4)]
    until(lambda: tiny[1].sizes)
    closing = threading.Thread(target=worker.close)
    closing.start()
    for future in futures:  # also the one that the engine works on: a library may hold it for ever
        assert isinstance(future.exception(20), Busy)
    tiny[1].gate.set()
    closing.join(20)
    assert not closing.is_alive() and worker.pending == 0
    assert not any(thread.is_alive() for thread in worker._threads)
    with pytest.raises(Busy):
        submit(worker, crop(0))
    worker.close()


def test_waiting_is_told_apart_from_work(worker: Worker, tiny: tuple[Recognizer, Watched]) -> None:
    first = hold(worker, tiny[1])
    second = submit(worker, crop(1))
    time.sleep(0.3)
    tiny[1].gate.set()
    assert first.result(20).waited_s < 0.25 < first.result().analysis.latency_ms["recognise"] / 1000
    latency_ms = second.result(20).analysis.latency_ms
    assert second.result().waited_s > 0.25 > latency_ms["total"] / 1000
    assert latency_ms["total"] == pytest.approx(sum(latency_ms.values()) - latency_ms["total"])
