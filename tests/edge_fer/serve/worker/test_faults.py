"""What fails fails for whom it belongs to: no thread ends, nobody else notices, and no future is lost."""

from __future__ import annotations

import concurrent.futures
import random
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from edge_fer.errors import DetectorError, EngineError, InputError
from edge_fer.recognizer import Recognizer
from edge_fer.serve.batching import Batching
from edge_fer.serve.worker import Answer, Busy, Worker
from tests.edge_fer.serve.worker.stand_ins import NoFaces, Watched, WatchedDetector, crop, encoded
from tests.edge_fer.serve.worker.waiting import hold, soon, submit
from tests.waiting import until

BLACK = encoded(np.zeros((16, 16, 3), np.uint8))


def test_faults_end_one_job_and_no_thread(worker: Worker) -> None:
    for data, text in ((b"", "empty"), (b"GIF89a", "damaged|something else"), (crop(0, 30)[:99], "damaged")):
        with pytest.raises(InputError, match=f"x: .*({text})"):
            submit(worker, data).result(20)
    assert submit(worker, crop(0)).result(20)


def test_too_many_pixels_are_refused(tiny: tuple[Recognizer, Watched]) -> None:
    worker = Worker(tiny[0], NoFaces(), max_pixels=255)
    worker.start()
    with pytest.raises(InputError, match="16x16 pixels, expected at most 255"):
        submit(worker, crop(0)).result(20)
    worker.close()


@pytest.mark.parametrize("error", [DetectorError("gone"), ZeroDivisionError("a bug"), MemoryError()])
def test_whatever_the_detector_raises_reaches_who_asked(
    tiny: tuple[Recognizer, Watched], error: Exception
) -> None:
    detector = WatchedDetector(NoFaces())
    worker = Worker(tiny[0], detector)
    worker.start()
    until(lambda: worker.ready)
    detector.error = error
    assert worker.submit(crop(0), "x", deadline=soon()).exception(20) is error
    assert submit(worker, crop(0)).result(20)
    detector.error = None
    assert worker.submit(crop(0), "x", deadline=soon()).result(20).analysis.faces == ()
    worker.close()


def test_nobodys_picture_fails_for_anothers(tiny: tuple[Recognizer, Watched]) -> None:
    recognizer, engine = tiny
    worker = Worker(recognizer, NoFaces())
    worker.start()
    until(lambda: worker.ready)
    worker._recognition.batching = Batching((1, 2, 4))
    engine.refuses = lambda images: EngineError("black") if not images.any(axis=(1, 2, 3)).all() else None
    hold(worker, engine)
    futures = [submit(worker, BLACK if seed == 2 else crop(seed)) for seed in range(5)]
    until(lambda: len(worker._handover._items) == 5)
    engine.gate.set()
    failed = [future.exception(20) is not None for future in futures]
    assert failed == [False, False, True, False, False]
    assert worker.ready
    worker.close()


def test_a_dead_engine_shows_and_one_that_is_back_too(
    tiny: tuple[Recognizer, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_fer.serve.worker._PROBE_S", 0.05)
    worker = Worker(tiny[0], NoFaces())
    worker.start()
    until(lambda: worker.ready)
    for refuses in (True, True, False, True, True, False):  # now and then is not dead
        tiny[1].refuses = lambda images, refuses=refuses: EngineError("memory") if refuses else None
        submit(worker, crop(0)).exception(20)
        until(lambda: worker.pending == 0)
        assert worker.ready
    tiny[1].refuses = lambda images: EngineError("dead")
    for seed in range(3):
        assert worker.ready
        assert isinstance(submit(worker, crop(seed)).exception(20), EngineError)
        until(lambda: worker.pending == 0)
    assert worker.status == "failing" and not worker.ready
    submit(worker, crop(9)).exception(20)
    assert worker.submit(crop(9), "nobody", deadline=soon()).result(20).analysis.faces == ()
    assert worker.status == "failing"  # the engine had nothing to do with that
    tiny[1].refuses = lambda images: None
    until(lambda: worker.ready)
    worker.close()


def test_an_engine_that_never_worked_is_not_ready(tiny: tuple[Recognizer, Watched]) -> None:
    tiny[1].refuses = lambda images: EngineError("dead")
    worker = Worker(tiny[0], NoFaces())
    worker.start()
    until(lambda: worker.status == "failing")
    assert isinstance(submit(worker, crop(0)).exception(20), EngineError)
    worker.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_a_bug_leaves_nobody_waiting(tiny: tuple[Recognizer, Watched]) -> None:
    worker = Worker(tiny[0], NoFaces())
    worker._recognition.together = lambda waiting: 1 // 0  # type: ignore[method-assign]
    early = submit(worker, crop(0))
    worker.start()
    assert isinstance(early.exception(20), Busy) and not worker.ready
    with pytest.raises(Busy):
        submit(worker, crop(1))
    until(lambda: not any(thread.is_alive() for thread in worker._threads))


def test_callbacks_may_do_anything(tiny: tuple[Recognizer, Watched]) -> None:
    told: list[Answer] = []

    def tell(answer: Answer) -> None:
        told.append(answer)
        raise ValueError("who listens has a bug")

    worker = Worker(tiny[0], NoFaces(), on_answer=tell)
    worker.start()
    second: list[Future[Answer]] = []

    def leave(_: Future[Answer]) -> None:
        raise SystemExit

    first = submit(worker, crop(0))
    first.add_done_callback(lambda _: second.append(submit(worker, crop(1))))
    first.add_done_callback(leave)
    assert len(first.result(20).analysis.faces) == 1
    until(lambda: second)
    assert second[0].result(20)
    third = submit(worker, crop(2))
    closed = threading.Event()
    third.add_done_callback(lambda _: (worker.close(), closed.set()))  # in the worker's own thread
    assert third.result(20) and closed.wait(20)
    until(lambda: not any(thread.is_alive() for thread in worker._threads))
    assert len(told) == 3


@pytest.mark.parametrize("seed", range(3))
def test_no_future_is_lost_whatever_happens_when(tiny: tuple[Recognizer, Watched], seed: int) -> None:
    """Askers, streams, cancellations, callbacks, faults and the end of it all, from many threads at once."""
    recognizer, engine = tiny
    engine.refuses = lambda images: EngineError("black") if not images.any(axis=(1, 2, 3)).all() else None
    worker = Worker(recognizer, NoFaces(), capacity=20, on_answer=lambda answer: random.random())
    worker.start()
    futures: list[Future[Answer]] = []
    ended = threading.Event()
    pictures = [BLACK, b"broken", *map(crop, range(6))]

    def ask(number: int) -> None:
        rng = random.Random(100 * seed + number)
        stream = None
        while not ended.is_set():
            try:
                if rng.random() < 0.02:
                    stream = worker.stream(detect=rng.random() < 0.5)
                if stream is not None and rng.random() < 0.5:
                    future = stream.submit(rng.choice(pictures), time.monotonic())
                else:
                    deadline = time.monotonic() + rng.choice([-1, 0.001, 0.01, 20, 20, 20])
                    future = worker.submit(
                        rng.choice(pictures), "x", detect=rng.random() < 0.5, deadline=deadline
                    )
            except Busy:
                time.sleep(0.001)
                continue
            futures.append(future)
            if rng.random() < 0.3:
                future.add_done_callback(lambda _: rng.choice(futures).cancel())
            if rng.random() < 0.3:
                rng.choice(futures[-30:]).cancel()
            if stream is not None and rng.random() < 0.05:
                stream.close()
                stream = None
            time.sleep(rng.choice([0, 0, 0.0005]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    if seed:  # 0: the end comes at once
        assert worker.drain(20)
        assert all(future.done() for future in list(futures))
    worker.close()
    ended.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert concurrent.futures.wait(futures, 20).not_done == set()
    assert worker.pending == 0 and not any(thread.is_alive() for thread in worker._threads)
    outcomes = {
        "cancelled" if future.cancelled() else type(future.exception()).__name__ for future in futures
    }
    assert outcomes >= {"cancelled", "NoneType", "InputError", "EngineError", "TimeoutError"}
    assert outcomes <= {"cancelled", "NoneType", "InputError", "EngineError", "TimeoutError", "Busy"}
