"""More connections than there may be: who has asked something is answered, who says nothing makes room."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from edge_fer.serve.settings import ServeSettings
from tests.edge_fer.serve.running import Running, read_all, running, status_of
from tests.waiting import until

POST = b"POST /v1/infer?detect=false HTTP/1.1\r\nHost: x\r\n"


def open_connections(service: Running) -> int:
    return len(service.server.server_state.connections)


@contextmanager
def many(service: Running, beginning: bytes) -> Iterator[list[socket.socket]]:
    """Take all connections that the service allows, each with the beginning of a request."""
    assert service.service.settings.limits.connections == 256
    until(lambda: open_connections(service) == 0)
    taken = [service.connect() for _ in range(256)]
    try:
        for each in taken:
            each.sendall(beginning)
        until(lambda: open_connections(service) == 256)
        yield taken
    finally:
        for each in taken:
            each.close()
    until(lambda: open_connections(service) == 0)


def test_connections_without_a_request_make_room_for_one(settings: ServeSettings, crop: bytes) -> None:
    patient = dataclasses.replace(settings.limits, header_s=60.0)
    with (
        running(dataclasses.replace(settings, limits=patient)) as service,
        many(service, b"GET / HT") as idle,
        service.client() as client,
    ):
        for _ in range(5):
            assert client.post("/v1/infer?detect=false", content=crop).status_code == 200
        assert read_all(idle[0]) == b""  # the one that had said nothing for longest
        assert open_connections(service) <= 256


def test_more_connections_than_allowed_are_told(service: Running, crop: bytes) -> None:
    with many(service, POST + b"Content-Length: 9\r\n\r\n"), closing(service.connect()) as connection:
        answer = read_all(connection)
        assert status_of(answer) == 503 and b"retry-after: 1\r\n" in answer
    with service.client() as client:
        assert client.post("/v1/infer?detect=false", content=crop).status_code == 200
