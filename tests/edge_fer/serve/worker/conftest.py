"""A worker of the tiny bundle, whose engine a test can hold up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_fer.recognizer import Recognizer
from edge_fer.serve.worker import Worker
from tests.edge_fer.serve.worker.stand_ins import NoFaces, Watched, watched
from tests.waiting import until


@pytest.fixture
def tiny(tiny_bundle: Path) -> tuple[Recognizer, Watched]:
    return watched(Recognizer.load(tiny_bundle, threads=1))


@pytest.fixture
def worker(tiny: tuple[Recognizer, Watched]) -> Iterator[Worker]:
    """A started worker for 4 pictures at a time, with a detector that finds nobody."""
    made = Worker(tiny[0], NoFaces(), capacity=4)
    made.start()
    until(lambda: made.ready)
    tiny[1].sizes.clear()
    yield made
    made.close()
