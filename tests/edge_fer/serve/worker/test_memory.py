"""Memory: few decoded pictures at a time, and nothing kept of what is done."""

from __future__ import annotations

import concurrent.futures
import gc
import time
import tracemalloc

import numpy as np

from edge_fer.recognizer import Recognizer
from edge_fer.serve.worker import Worker
from tests.edge_fer.serve.worker.stand_ins import NoFaces, Watched, crop, encoded
from tests.edge_fer.serve.worker.waiting import hold, submit
from tests.waiting import until


def test_memory_stays_flat_without_the_garbage_collector(worker: Worker) -> None:
    """What is left over from answers, errors and cancellations would be kept by cycles."""
    sound, broken = crop(0, 200), crop(1, 200)[:50_000]

    def work() -> None:
        for number in range(30):
            if number % 3:
                submit(worker, sound if number % 3 == 1 else broken).exception(20)
            else:
                submit(worker, sound).cancel()
        until(lambda: worker.pending == 0)

    work()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        work()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            work()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # one picture is 120,000
    finally:
        tracemalloc.stop()
        gc.enable()


def test_pixels_are_let_go_before_recognition(tiny: tuple[Recognizer, Watched]) -> None:
    recognizer, engine = tiny
    worker = Worker(recognizer, NoFaces())
    worker.start()
    until(lambda: worker.ready)
    image = np.zeros((1500, 2000, 3), np.uint8)
    data = encoded(image)
    hold(worker, engine)
    tracemalloc.start()
    try:
        futures = [submit(worker, data) for _ in range(20)]
        until(lambda: len(worker._handover._items) == 20)
        waiting, most = tracemalloc.get_traced_memory()
        assert waiting < image.nbytes / 10
        assert most < 4 * image.nbytes
    finally:
        tracemalloc.stop()
        engine.gate.set()
    assert all(future.result(20) for future in futures)
    worker.close()


def test_few_frames_are_in_memory_whoever_sends_how_many(tiny: tuple[Recognizer, Watched]) -> None:
    recognizer, engine = tiny
    worker = Worker(recognizer, NoFaces())
    worker.start()
    until(lambda: worker.ready)
    image = np.zeros((2000, 2000, 3), np.uint8)
    data = encoded(image)
    streams = [worker.stream(detect=False) for _ in range(8)]
    engine.gate.clear()
    tracemalloc.start()
    try:
        frames = [stream.submit(data, number) for number in range(2) for stream in streams]
        until(lambda: len(worker._handover._items) == 2)
        time.sleep(0.5)
        assert len(worker._handover._items) == 2  # 24 of 32 MB
        engine.gate.set()
        assert concurrent.futures.wait(frames, 20).not_done == set()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One is recognised, two wait, one is ready for that, and one is made from Pillow's.
    assert 3 * image.nbytes < most < 6.5 * image.nbytes
    worker.close()


def test_the_bytes_of_a_broken_frame_are_let_go(worker: Worker) -> None:
    stream = worker.stream(detect=False)
    assert stream.submit(bytes(1_000_000), time.monotonic()).exception(20)
    until(lambda: worker.pending == 0)
    assert stream._last is not None and stream._last.data == b""  # it stays until the next one comes
    stream.close()
