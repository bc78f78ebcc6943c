"""Clients that are slow, cut off, malformed or endless: the right status, and no harm to anybody else."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.edge_fer.serve.conftest import QUICK
from tests.edge_fer.serve.running import (
    Running,
    body_of,
    held_up,
    read_all,
    status_of,
)
from tests.waiting import until

POST = b"POST /v1/infer?detect=false HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@contextmanager
def others_are_served(service: Running, crop: bytes) -> Iterator[None]:
    """Check that another client gets its answers all the while, and quickly."""
    ended = threading.Event()
    answers: list[tuple[int, float]] = []

    def ask() -> None:
        with service.client() as client:
            while not ended.is_set() or len(answers) < 3:
                started = time.monotonic()
                response = client.post("/v1/infer?detect=false", content=crop)
                answers.append((response.status_code, time.monotonic() - started))
                ended.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < 2


def refusal(service: Running, *pieces: bytes, half_close: bool = False) -> int:
    """Send pieces and return the status of the answer, which has to be one line of JSON and the last one."""
    with closing(service.connect()) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer, "expected an answer, got none"
    assert list(body_of(answer)) == ["error"]
    assert b"\r\nconnection: close\r\n" in answer.lower() or b"408" in answer or b"413" in answer
    return status_of(answer)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"\r\nhello\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /he\x00alth HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nna me: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nname: \x00\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: two\r\n\r\n", 400),
        (POST + b"Content-Length: " + 5000 * b"9" + b"\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (GET + b"x: " + 20_000 * b"y", 431),
        (GET + b"x: " + 200_000 * b"y" + b"\r\n\r\n", 431),
    ],
)
def test_malformed_requests(service: Running, crop: bytes, request_bytes: bytes, status: int) -> None:
    with others_are_served(service, crop):
        assert refusal(service, request_bytes) == status


def answered(service: Running, request_bytes: bytes) -> bytes:
    """Send a request and return the first piece of its answer; the connection may stay."""
    with closing(service.connect()) as connection:
        connection.sendall(request_bytes)
        return connection.recv(65536)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"".join(b"x-%d: y\r\n" % number for number in range(100)) + b"\r\n", 431),
        (GET + b"x: " + 16_300 * b"y" + b"\r\n" + b"z: " + 300 * b"y" + b"\r\n\r\n", 431),
        (b"GET /" + 8000 * b"a" + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /..//..//etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /page/%2e%2e%2f%2e%2e%2fapp.py HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /page/index.html%00.png HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://elsewhere/health HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET //health HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (POST + b"\r\n", 411),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
        (GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200),  # another path: no upgrade
    ],
)
def test_requests_that_are_well_formed_and_wrong(
    service: Running, crop: bytes, request_bytes: bytes, status: int
) -> None:
    with others_are_served(service, crop):
        assert status_of(answered(service, request_bytes)) == status


def test_a_head_that_comes_too_slowly(service: Running, crop: bytes) -> None:
    started = time.monotonic()
    with others_are_served(service, crop), closing(service.connect()) as connection:
        connection.sendall(GET)
        for _ in range(30):
            try:
                connection.sendall(b"x: y\r\n")
            except OSError:  # the server has closed
                break
            time.sleep(0.05)
        answer = read_all(connection)
    assert time.monotonic() - started > QUICK.header_s
    assert status_of(answer) == 408


def test_a_connection_that_says_nothing_is_closed(service: Running) -> None:
    with closing(service.connect()) as connection:
        started = time.monotonic()
        assert read_all(connection) == b""
        assert QUICK.header_s - 0.1 < time.monotonic() - started < QUICK.header_s + 3


def test_the_second_head_of_a_connection_may_not_be_slow_either(service: Running) -> None:
    with closing(service.connect()) as connection:
        connection.sendall(GET + b"\r\n")
        assert status_of(connection.recv(65536)) == 200
        connection.sendall(GET)
        started = time.monotonic()
        assert status_of(read_all(connection)) == 408
        assert time.monotonic() - started < QUICK.header_s + QUICK.linger_s + 1


@pytest.mark.parametrize("head", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_comes_too_slowly(service: Running, crop: bytes, head: bytes) -> None:
    with others_are_served(service, crop), closing(service.connect()) as connection:
        connection.sendall(POST + head)
        for _ in range(30):
            try:
                connection.sendall(b"1\r\nx\r\n" if b"chunked" in head else b"x")
            except OSError:
                break
            time.sleep(0.05)
        answer = read_all(connection)
    assert status_of(answer) == 408 and "1 s" in body_of(answer)["error"]


def test_a_body_without_end_is_cut_off(service: Running, crop: bytes) -> None:
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    with others_are_served(service, crop), closing(service.connect()) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        answer = b""
        connection.setblocking(False)
        ends = time.monotonic() + 8
        while time.monotonic() < ends:  # goes on sending after it was told to stop
            try:
                sent += connection.send(chunk)
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break
            try:
                answer += connection.recv(65536)
            except BlockingIOError:
                pass
            except OSError:
                break
        assert time.monotonic() < ends, "the server never closed"
    assert status_of(answer) == 413 and sent > 300_000


def test_a_connection_goes_on_after_a_body_that_was_refused(service: Running, crop: bytes) -> None:
    """The time for throwing a body away is over with the body, also where the next request comes at once."""
    large = POST + b"Content-Length: 300001\r\n\r\n" + bytes(300_001)
    small = POST + b"Content-Length: %d\r\n\r\n" % len(crop)
    with closing(service.connect()) as connection:
        connection.sendall(large)
        assert status_of(connection.recv(65536)) == 413
        connection.sendall(small)
        time.sleep(QUICK.linger_s + 0.2)
        connection.sendall(crop)
        assert status_of(connection.recv(65536)) == 200
        connection.sendall(GET + b"\r\n" + small)
        assert status_of(connection.recv(65536)) == 200
        time.sleep(QUICK.linger_s + 0.2)
        connection.sendall(crop)
        assert status_of(connection.recv(65536)) == 200


def test_a_body_larger_than_told_is_not_taken_for_a_request(service: Running, crop: bytes) -> None:
    head = POST + b"Content-Length: %d\r\n\r\n" % len(crop)
    with closing(service.connect()) as connection:
        connection.sendall(head + crop + b"more of it\r\n\r\n")
        answer = read_all(connection)
    assert status_of(answer) == 200
    assert [answer.count(b"HTTP/1.1 %d " % status) for status in (200, 400)] == [1, 1]


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET,
        b"GE",
        POST + b"Content-Length: 100\r\n\r\n0123456789",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n012",
        POST
        + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 500\r\n\r\n--b\r\nContent-D",
    ],
)
def test_what_is_cut_off_is_refused(service: Running, crop: bytes, request_bytes: bytes) -> None:
    with others_are_served(service, crop):
        assert refusal(service, request_bytes, half_close=True) == 400


def test_a_client_that_will_send_no_more_gets_its_answer(service: Running, crop: bytes) -> None:
    with closing(service.connect()) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(crop) + crop)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert status_of(answer) == 200 and body_of(answer)["faces"]


@pytest.mark.parametrize("reset", [True, False])
def test_the_picture_of_a_client_that_left_is_dropped(service: Running, crop: bytes, reset: bool) -> None:
    worker = service.service.worker
    with held_up(service.service) as held:
        first = worker.submit(crop, "first", detect=False, deadline=float("inf"))
        until(lambda: held.runs == 1)
        connection = service.connect()
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(crop) + crop)
        until(lambda: worker.pending == 2)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        until(lambda: worker.pending == 1, 4)
        assert not first.done()


def test_a_client_that_reads_nothing_is_left(service: Running, crop: bytes) -> None:
    with others_are_served(service, crop), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(service.address)
        me = connection.getsockname()
        connection.setblocking(False)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            try:
                connection.send(50 * request)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        assert time.monotonic() < ends, "the server holds the connection for ever"
        until(lambda: me not in {each.client for each in list(service.server.server_state.connections)}, 5)


def test_pipelined_requests_are_answered_in_their_order(service: Running, crop: bytes) -> None:
    post = POST + b"Content-Length: %d\r\n\r\n" % len(crop) + crop
    last = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with closing(service.connect()) as connection:
        connection.sendall(post + GET + b"\r\n" + post + last)
        answer = read_all(connection)
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 200, 200, 404]


def test_a_client_that_asks_whether_to_send_is_told(service: Running, crop: bytes) -> None:
    with closing(service.connect()) as connection:
        expecting = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(expecting % len(crop))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(crop)
        assert status_of(connection.recv(65536)) == 200
    with closing(service.connect()) as connection:
        connection.sendall(expecting % 99_999_999)
        assert status_of(connection.recv(65536)) == 413


UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize(
    "frames",
    [
        b"\xff" * 100,
        b"\x82\x05hello",  # not masked
        b"\x83\x80aaaa",  # a kind that is none
        b"\xc2\x80aaaa",  # compressed, which was not agreed upon
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffaaaa",  # very long
        b"\x80\x80aaaa",  # the end of what never began
        b"\x81\x82\x00\x00\x00\x00\xff\xfe",  # text that is none
        b"\x88\x81aaaaX",  # a malformed close
        b"\x89\xfe\x01\x00aaaa",  # a ping that is too long
    ],
)
def test_malformed_frames_end_a_stream_and_harm_nobody(
    service: Running, crop: bytes, capfd: pytest.CaptureFixture[str], frames: bytes
) -> None:
    with others_are_served(service, crop), closing(service.connect()) as connection:
        connection.sendall(UPGRADE)
        assert status_of(connection.recv(65536)) == 101
        connection.sendall(frames)
        assert read_all(connection)[:1] in (b"\x88", b"")  # it is closed
    assert capfd.readouterr().err == ""


def test_handshakes_that_are_none(service: Running, crop: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    for change in (
        (b"Version: 13", b"Version: 8"),
        (b"AAAA==", b"not a key"),
        (b"GET", b"POST"),
        (b"Host: x\r\n", b"Host: x\r\nContent-Length: 5\r\n"),
        (b"HTTP/1.1", b"HTTP/1.0"),
    ):
        answer = answered(service, UPGRADE.replace(*change))
        assert status_of(answer) in (405, 426) and list(body_of(answer)) == ["error"]
    assert capfd.readouterr().err == ""


def test_a_client_that_pings_and_reads_nothing_is_left(service: Running, crop: bytes) -> None:
    ping = b"\x89\xfdaaaa" + 125 * b"x"
    with others_are_served(service, crop), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(service.address)
        connection.sendall(UPGRADE)
        connection.setblocking(False)
        me, held, ends = connection.getsockname(), 0, time.monotonic() + 15
        while time.monotonic() < ends:
            for each in list(service.server.server_state.connections):
                if each.client == me:
                    held = max(held, each.transport.get_write_buffer_size())
            try:
                connection.send(100 * ping)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        assert time.monotonic() < ends
        assert 0 < held < 1_000_000  # answers that wait: of what was read at once, and no more
