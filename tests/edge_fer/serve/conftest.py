"""The tiny bundle, served once for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_fer.bundle import ModelSpec, write_bundle
from edge_fer.images import encode_png
from edge_fer.serve.settings import Limits, ServeSettings
from tests.conftest import pattern
from tests.edge_fer.serve.running import Running, running

QUICK = Limits(header_s=0.6, body_s=1.0, idle_s=5.0, write_s=1.0, linger_s=0.5, stream_idle_s=2.5, files=4)


@pytest.fixture(scope="module")
def served_bundle(
    tmp_path_factory: pytest.TempPathFactory, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> Path:
    return write_bundle(tmp_path_factory.mktemp("served") / "tiny.fer", tiny_spec, tiny_members).path


@pytest.fixture(scope="module")
def settings(served_bundle: Path) -> ServeSettings:
    return ServeSettings(
        bundle=served_bundle, port=0, detector="cascade", queue=8, max_bytes=300_000, limits=QUICK
    )


@pytest.fixture(scope="module")
def service(settings: ServeSettings) -> Iterator[Running]:
    with running(settings) as started:
        yield started


@pytest.fixture(scope="session")
def crop() -> bytes:
    """A face crop as PNG, of the tiny bundle's own size."""
    return encode_png(pattern(7, 16, 16))
