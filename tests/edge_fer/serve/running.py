"""A service that really runs, in a thread of the test or as a process, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from edge_fer.engines.base import Engine, Outputs
from edge_fer.serve.listener import listen, url
from edge_fer.serve.server import Server, load_app
from edge_fer.serve.service import Service
from edge_fer.serve.settings import ServeSettings
from edge_fer.stopping import Stop
from tests.waiting import until

ROOT = Path(__file__).parents[3]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
# A suite that runs in the background of a shell inherits an ignored SIGINT.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND = [
    sys.executable,
    "-c",
    f"{LISTEN}from edge_fer.commands import main; main()",
    "serve",
    "--port",
    "0",
]


@dataclass(frozen=True)
class Running:
    """A service in a thread.

    Attributes:
        url: its address.
        service: what its routes share.
        stop: ends it when set.
        server: that it runs on.
        thread: that it runs in.
    """

    url: str
    service: Service
    stop: Stop
    server: Server
    thread: threading.Thread

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self) -> socket.socket:
        """Open a raw connection; who waits on it for more than ten seconds fails."""
        return socket.create_connection(self.address, timeout=10)

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that neither proxies nor retries."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)


@contextmanager
def running(settings: ServeSettings) -> Iterator[Running]:
    """Run a service in a thread; at the end it has stopped, or the test fails."""
    app = load_app(settings)
    service: Service = app.state.service
    with closing(listen(settings.host, settings.port)) as listener:
        stop = Stop()
        server = Server(app, service, stop)
        service.worker.start()
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        address = url(listener)
        thread.start()
        try:
            until(lambda: server.started and service.status == "ready")
            yield Running(address, service, stop, server, thread)
        finally:
            stop.set()
            thread.join(20)
            service.worker.close()
        assert not thread.is_alive()


@contextmanager
def process(*arguments: object, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Run `edge-fer serve` as a process; gives it, its URL, and the lines that it printed at the start."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    started = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stderr is not None
        lines: list[str] = []
        address = None
        for line in started.stderr:
            lines.append(line.rstrip())
            found = re.match(r"note: (http://\S+): ", line)
            address = found.group(1) if found else address
            if "token" in line:  # the last of the greeting
                break
        assert address is not None, lines
        with httpx.Client(base_url=address, trust_env=False) as client:
            until(lambda: client.get("/ready").status_code == 200)
        yield started, address, lines
    finally:
        started.kill()
        started.wait()
        for stream in (started.stdout, started.stderr):
            assert stream is not None
            stream.close()


def read_all(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes; a reset ends it, too."""
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


def status_of(answer: bytes) -> int:
    """Return the status of a raw answer."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    """Return the JSON of a raw answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def error_of(response: httpx.Response) -> str:
    """Return the one line of an error, and check that it is one."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    text = response.json()["error"]
    assert isinstance(text, str) and text.isprintable() and 5 < len(text) <= 500
    return text


class _Held:
    """An engine that waits until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.open = threading.Event()
        self.runs = 0

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        self.runs += 1
        assert self.open.wait(20)
        return self._engine.run(images)


@contextmanager
def held_up(service: Service) -> Iterator[_Held]:
    """Keep the engine from answering until the block ends, or `open` is set."""
    recognizer = service.worker._recognizer
    engine = recognizer.engine
    held = _Held(engine)
    recognizer.engine = held  # type: ignore[assignment]
    try:
        yield held
    finally:
        held.open.set()
        recognizer.engine = engine
        until(lambda: service.worker.pending == 0)
