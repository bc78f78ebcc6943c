"""How a test gives a worker something to do, and waits for what another thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from edge_fer.serve.worker import Answer, Worker
from tests.edge_fer.serve.worker.stand_ins import Watched, crop


def soon() -> float:
    """Return a deadline that no test reaches."""
    return time.monotonic() + 60


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("waited for too long")
        time.sleep(0.005)


def submit(worker: Worker, data: bytes, deadline: float | None = None) -> Future[Answer]:
    """Give the worker a ready crop, called x."""
    return worker.submit(data, "x", detect=False, deadline=deadline or soon())


def hold(worker: Worker, engine: Watched) -> Future[Answer]:
    """Let the engine begin a picture and not end it until its gate is opened; return the picture's future."""
    engine.gate.clear()
    runs = len(engine.sizes)
    future = submit(worker, crop(99))
    until(lambda: len(engine.sizes) > runs)
    return future
