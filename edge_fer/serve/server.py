"""The process of the service: loads, listens, answers until a signal, and ends in good order."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from edge_fer.bundle import Bundle, default_bundle
from edge_fer.cli_errors import complain, end_at_once, notice
from edge_fer.detectors import load_detector
from edge_fer.recognizer import Recognizer
from edge_fer.serve.app import create_app
from edge_fer.serve.facts import read_facts
from edge_fer.serve.listener import listen, reach, url
from edge_fer.serve.monitor import Monitor, Served
from edge_fer.serve.protocol import GuardedProtocol, StreamProtocol
from edge_fer.serve.service import Service
from edge_fer.serve.settings import ServeSettings
from edge_fer.serve.worker import Worker
from edge_fer.stopping import Stop, stop_on_signals

if TYPE_CHECKING:
    from fastapi import FastAPI

_LAST_S = 2.0  # for answers that are ready to reach their clients


def serve(settings: ServeSettings) -> None:
    """Answer requests until SIGINT, SIGTERM or SIGHUP, and then what waits; a second Ctrl-C ends at once.

    Raises:
        InputError: the address cannot be had.
        BundleError, EngineError, DetectorError, UsageError: the bundle does not run here as asked.
    """
    listener = listen(settings.host, settings.port)
    with listener:
        app = load_app(settings)
        service: Service = app.state.service
        service.worker.start()
        for line in _greeting(listener, service):
            notice(line)
        try:
            with stop_on_signals() as stop:
                asyncio.run(Server(app, service, stop).serve([listener]))
        except KeyboardInterrupt as error:
            end_at_once(error)
        finally:
            service.worker.close()


def load_app(settings: ServeSettings) -> FastAPI:
    """Load the model and all that stands around it; its worker is not started.

    Raises:
        BundleError, EngineError, DetectorError, UsageError: the bundle does not run here as asked.
    """
    bundle = Bundle.load(settings.bundle or default_bundle())
    options = settings.engine
    recognizer = Recognizer.load(
        bundle,
        engine=options.engine,
        threads=options.threads,
        device=options.device,
        provider=options.provider,
        min_reliability=settings.min_reliability,
        allow_untrained=settings.allow_untrained,
    )
    detector = load_detector(settings.detector)
    facts = read_facts(bundle, recognizer, detector, options)
    served = Served.of(bundle, recognizer.engine.name, bool(facts.runtime["certified_here"]))
    worker = Worker(
        recognizer,
        detector,
        capacity=settings.queue,
        on_answer=lambda answer: monitor.answer(
            answer.analysis, answer.waited_s, streamed=answer.moment.frame is not None
        ),
    )
    monitor = Monitor(served, queue_depth=lambda: worker.pending)
    return create_app(worker, monitor, facts, settings)


def _greeting(listener: socket.socket, service: Service) -> Iterator[str]:
    facts = service.facts.runtime
    yield f"{url(listener)}: {reach(listener)}"
    yield str(facts["summary"])
    certified = "certified here" if facts["certified_here"] else "not certified here"
    yield f"{facts['precision']} on {facts['engine']}, {certified}, faces found by {facts['detector']}"
    yield "anybody may ask: no token was given" if service.access.open else "a token is needed"


class Server(uvicorn.Server):
    """uvicorn without its signals and logs, which drains the worker before it closes connections.

    Args:
        app: what answers; its worker is started.
        service: what its routes share.
        stop: ends it.
    """

    def __init__(self, app: FastAPI, service: Service, stop: Stop) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=functools.partial(GuardedProtocol, limits=settings.limits),  # type: ignore[arg-type]
                ws=functools.partial(StreamProtocol, limits=settings.limits),  # type: ignore[arg-type]
                ws_max_size=settings.max_bytes,
                ws_per_message_deflate=False,  # pictures are compressed
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=settings.limits.idle_s,  # type: ignore[arg-type]
                timeout_graceful_shutdown=_LAST_S,  # type: ignore[arg-type]
                h11_max_incomplete_event_size=settings.limits.header_bytes,
            )
        )
        self._service = service
        self._stop = stop
        _silence("uvicorn")

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer on these sockets until `stop` is set."""
        asyncio.get_running_loop().set_exception_handler(_report)
        await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `Stop`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end; asked ten times a second."""
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what waits, and only then close those that are open."""
        notice("stopping: what waits is answered first")
        self._service.draining = True
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, StreamProtocol):
                connection.shutdown()
        seconds = self._service.settings.limits.drain_s
        worker = self._service.worker
        if not await _in_thread(lambda: worker.drain(seconds)):
            complain(f"not all that waited was answered within {seconds:g} s")
            threading.Thread(target=worker.close, daemon=True).start()  # tells those who still wait
        await super().shutdown(sockets)


async def _in_thread(work: Callable[[], bool]) -> bool:
    """Await what blocks; unlike the loop's own threads, this one keeps nobody who ends at once."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def run() -> None:
        result = work()
        loop.call_soon_threadsafe(done.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _silence(name: str) -> None:
    # Its lines hold paths, queries and what clients sent.
    logger = logging.getLogger(name)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, OSError):  # a client that went away
        complain(
            f"internal error, {type(error).__name__ if error else 'in the event loop'}: please report it"
        )
