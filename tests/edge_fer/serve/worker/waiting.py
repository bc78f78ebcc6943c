"""How a test gives a worker something to do, and keeps it at work."""

from __future__ import annotations

import time
from concurrent.futures import Future

from edge_fer.serve.worker import Answer, Worker
from tests.edge_fer.serve.worker.stand_ins import Watched, crop
from tests.waiting import until


def soon() -> float:
    """Return a deadline that no test reaches."""
    return time.monotonic() + 60


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
