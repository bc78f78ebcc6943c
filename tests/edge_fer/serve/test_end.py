"""How the service ends: nothing new comes in, what waits is answered, streams are told."""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import closing

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edge_fer.serve.settings import ServeSettings
from tests.edge_fer.serve.running import held_up, running
from tests.waiting import until

POST = b"POST /v1/infer?detect=false HTTP/1.1\r\nHost: x\r\n"


class Asking(threading.Thread):
    """A client that waits for the answer to one picture."""

    def __init__(self, url: str, picture: bytes) -> None:
        super().__init__()
        self._url, self._picture = f"{url}/v1/infer?detect=false", picture
        self.status = 0
        self.start()

    def run(self) -> None:
        answer = httpx.post(self._url, content=self._picture, timeout=30, trust_env=False)
        self.status = answer.status_code


def test_what_waits_is_answered_and_nothing_new_comes_in(settings: ServeSettings, crop: bytes) -> None:
    with running(settings) as service, service.client() as kept:
        address = f"{service.url.replace('http', 'ws')}/v1/stream"
        with held_up(service.service) as held, connect(address, proxy=None) as stream:
            asking = [Asking(service.url, crop) for _ in range(5)]
            until(lambda: service.service.worker.pending == 5)
            assert kept.get("/ready").json() == {"status": "ready"}
            service.stop.set()
            until(lambda: kept.get("/ready").json() == {"status": "draining"})
            assert kept.get("/ready").status_code == 503
            refused = kept.post("/v1/infer?detect=false", content=crop)
            assert refused.status_code == 503 and "retry-after" in refused.headers
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{service.url}/health", trust_env=False)
            with pytest.raises(ConnectionClosed) as ended:
                stream.recv(timeout=5)
            assert ended.value.rcvd is not None and ended.value.rcvd.code == 1001
            held.open.set()
            for each in asking:
                each.join()
        assert [each.status for each in asking] == 5 * [200]


def test_connections_that_do_nothing_hold_up_nobody(settings: ServeSettings) -> None:
    with running(settings) as service, closing(service.connect()) as half, closing(service.connect()):
        half.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
        time.sleep(0.1)
        started = time.monotonic()
        service.stop.set()
        service.thread.join(20)
        assert time.monotonic() - started < 8


def test_work_that_takes_too_long_is_left(
    settings: ServeSettings, crop: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = dataclasses.replace(settings.limits, drain_s=0.5)
    quick = dataclasses.replace(settings, limits=limits)
    with running(quick) as service, held_up(service.service):
        asking = Asking(service.url, crop)
        until(lambda: service.service.worker.pending == 1)
        service.stop.set()
        service.thread.join(20)
        assert not service.thread.is_alive()
    asking.join()
    assert asking.status == 503
    assert "not all that waited was answered within 0.5 s" in capsys.readouterr().err
