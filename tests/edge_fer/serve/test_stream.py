"""The WebSocket: an object for every frame that is recognised, tracks over time, and how it ends."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from edge_fer.serve.settings import ServeSettings
from tests.edge_fer.serve.conftest import QUICK
from tests.edge_fer.serve.running import ASTRONAUT, Running, held_up, running
from tests.waiting import until


def talk(service: Running, query: str = "", **options: Any) -> ClientConnection:
    url = f"{service.url.replace('http', 'ws')}/v1/stream{query}"
    return connect(url, proxy=None, max_size=None, open_timeout=10, **options)


def answer(stream: ClientConnection) -> Any:
    text = stream.recv(timeout=10)
    assert isinstance(text, str)
    return json.loads(text)


def closed(stream: ClientConnection) -> int:
    """Read until the server closes, and return its code."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            stream.recv(timeout=10)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code


def test_frames_get_objects_with_numbers_times_and_tracks(service: Running) -> None:
    photo = ASTRONAUT.read_bytes()
    with talk(service) as stream:
        records = []
        for _ in range(3):
            stream.send(photo)
            records.append(answer(stream))
    assert [record["source"] for record in records] == 3 * ["stream"]
    assert [record["frame"] for record in records] == [0, 1, 2]
    times = [record["time_s"] for record in records]
    assert times[0] == 0 and times == sorted(times) and 0 < times[2] < 20
    assert list(records[0]) == ["source", "frame", "time_s", "faces", "detector", "latency_ms"]
    assert {record["faces"][0]["track"] for record in records} == {records[0]["faces"][0]["track"]}
    assert records[0]["faces"][0]["track"] is not None and records[0]["detector"] == "cascade"


def test_a_broken_frame_gets_its_error_and_the_stream_goes_on(service: Running, crop: bytes) -> None:
    with talk(service, "?detect=false") as stream:
        for frame in (crop, b"no picture", crop):
            stream.send(frame)
            record = answer(stream)
            if frame is not crop:
                assert list(record) == ["source", "frame", "error"] and record["frame"] == 1
                assert record["source"] == "stream" and record["error"].startswith("stream: expected a JPEG")
    assert record["frame"] == 2 and record["faces"][0]["box"] is None and record["detector"] is None


def test_a_newer_frame_replaces_the_one_that_waits(service: Running, crop: bytes) -> None:
    with talk(service, "?detect=false") as stream, held_up(service.service) as held:
        stream.send(crop)
        until(lambda: held.runs == 1)
        # The thread that finds faces prepares one more frame, which nothing replaces any more.
        stream.send(crop)
        until(lambda: service.service.worker.pending == 2)
        time.sleep(0.2)
        for _ in range(5):
            stream.send(crop)
        until(lambda: "frames_replaced_total 0.0" not in metrics(service))
        time.sleep(0.3)
        held.open.set()
        numbers = [answer(stream)["frame"]]
        while numbers[-1] != 6:
            numbers.append(answer(stream)["frame"])
    assert numbers[0] == 0 and numbers == sorted(numbers) and len(numbers) < 7


def metrics(service: Running) -> str:
    return service.service.monitor.render()[0].decode()


def test_streams_are_counted_while_they_last(service: Running, crop: bytes) -> None:
    until(lambda: "edge_fer_streams 0.0" in metrics(service))
    with talk(service) as stream:
        stream.send(crop)
        answer(stream)
        assert "edge_fer_streams 1.0" in metrics(service)
    until(lambda: "edge_fer_streams 0.0" in metrics(service))


@pytest.mark.parametrize("query", ["", "?detect=false"])
def test_all_streams_count_a_frame_a_second_for_the_drift(
    service: Running, crop: bytes, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_fer.serve.monitor._STREAM_GAP_S", 1000.0)
    monkeypatch.setattr(service.service.monitor._drift, "_frame_counts_at", 0.0)
    before = drift_faces(service)
    with talk(service, query) as stream:
        for _ in range(3):
            stream.send(ASTRONAUT.read_bytes())
            assert len(answer(stream)["faces"]) == 1
    assert drift_faces(service) == before + 1


def drift_faces(service: Running) -> float:
    """Return how many faces the drift monitor rests on."""
    found = re.search(r"^edge_fer_reliability_faces (\S+)", metrics(service), re.MULTILINE)
    assert found
    return float(found.group(1))


def test_frames_of_a_client_that_left_are_dropped_and_no_fault_of_theirs_is_told(
    service: Running, crop: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with held_up(service.service) as held:
        with talk(service, "?detect=false") as stream:
            stream.send(crop)
            until(lambda: held.runs == 1)
            stream.send(crop)
            until(lambda: service.service.worker.pending == 2)
        until(lambda: service.service.worker.pending == 0)  # also the one that the engine works on
        held._engine = None  # type: ignore[assignment]
    with talk(service, "?detect=false") as stream:  # the loop has heard of the failure before
        stream.send(crop)
        assert answer(stream)["frame"] == 0
    gc.collect()  # asyncio complains of what nobody asked for when it is thrown away
    assert capfd.readouterr().err == ""


def test_eight_streams_and_no_more(service: Running, crop: bytes) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(talk(service, "?detect=false")) for _ in range(8)]
        for stream in streams:
            stream.send(crop)
            assert answer(stream)["frame"] == 0
        with talk(service) as ninth:
            assert closed(ninth) == 1013
    with talk(service, "?detect=false") as stream:
        until(lambda: "edge_fer_streams 1.0" in metrics(service))
        stream.send(crop)
        assert answer(stream)["frame"] == 0


def test_a_stream_without_frames_is_closed_although_it_answers_pings(service: Running) -> None:
    with talk(service) as stream:
        started = time.monotonic()
        stream.ping()
        assert closed(stream) == 1000
        assert QUICK.stream_idle_s - 0.2 < time.monotonic() - started < QUICK.stream_idle_s + 4


def test_a_frame_that_is_too_large_and_text_end_it(service: Running) -> None:
    with talk(service) as stream:
        stream.send(bytes(300_001))
        assert closed(stream) == 1009
    with talk(service) as stream:
        stream.send("hello")
        assert closed(stream) == 1003


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1:1", "http://[", ""])
def test_pages_of_other_servers_get_no_stream(service: Running, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        talk(service, origin=origin)
    assert refused.value.response.status_code == 403
    assert list(json.loads(refused.value.response.body)) == ["error"]


def test_the_server_s_own_page_gets_one(service: Running, crop: bytes) -> None:
    with talk(service, "?detect=false", origin=service.url) as stream:
        stream.send(crop)
        assert answer(stream)["frame"] == 0


def test_a_wrong_query_gets_no_stream(service: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        talk(service, "?detect=perhaps")
    assert refused.value.response.status_code == 422


TOKEN = b"s3cret-t0ken"


@pytest.fixture(scope="module")
def closed_service(settings: ServeSettings) -> Iterator[Running]:
    with running(dataclasses.replace(settings, token=TOKEN, max_bytes=3_000_000)) as started:
        yield started


def header(token: str) -> dict[str, dict[str, str]]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


def test_a_token_in_the_header_or_in_the_first_message(closed_service: Running, crop: bytes) -> None:
    with talk(closed_service, "?detect=false", **header(TOKEN.decode())) as stream:
        stream.send(crop)
        assert answer(stream)["frame"] == 0
    with talk(closed_service, "?detect=false") as stream:
        stream.send(json.dumps({"token": TOKEN.decode()}))
        stream.send(crop)
        assert answer(stream)["frame"] == 0


@pytest.mark.parametrize(
    "first", ['{"token": "wrong"}', '{"token": 3}', "[]", "no json", "[" * 5000, b"\xff\xd8"]
)
def test_anything_else_first_ends_it(closed_service: Running, first: str | bytes) -> None:
    with talk(closed_service) as stream:
        stream.send(first)
        assert closed(stream) == 1008


def test_who_shows_no_token_cannot_fill_the_memory(closed_service: Running) -> None:
    large = bytes(2_000_000)  # a frame may have that size
    with talk(closed_service, "?detect=false") as stream:
        stream.send(json.dumps({"token": TOKEN.decode()}))
        stream.send(large)
        assert answer(stream)["frame"] == 0
    with talk(closed_service) as stream, pytest.raises(ConnectionClosed) as ended:
        stream.send(large)
        stream.recv(timeout=10)
    assert ended.value.rcvd is None  # cut off, before there was a message that might hold the token


def test_a_wrong_header_gets_no_stream_and_silence_ends_it(closed_service: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        talk(closed_service, **header("wrong"))
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
    with talk(closed_service) as stream:
        assert closed(stream) == 1008


def test_a_token_that_is_not_needed_does_no_harm(service: Running, crop: bytes) -> None:
    with talk(service, "?detect=false") as stream:
        stream.send('{"token": "of another server"}')
        stream.send(crop)
        assert answer(stream)["frame"] == 0


def test_many_headers_or_a_body_make_no_stream_and_no_harm(service: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        talk(service, additional_headers=[(f"x-{number}", "y") for number in range(100)])
    assert refused.value.response.status_code == 431
    with pytest.raises(InvalidStatus) as refused:
        talk(service, additional_headers={"x": 9000 * "y"})
    assert refused.value.response.status_code in (426, 431)


def test_frames_of_no_size_are_cut_off(service: Running, crop: bytes) -> None:
    """An unfinished message of empty fragments has no size, and would keep the server busy for nothing."""
    with talk(service, "?detect=false") as stream:
        piece = bytes([0x00, 0x80, 0, 0, 0, 0])
        with pytest.raises((ConnectionClosed, ConnectionError)) as ended:
            stream.socket.sendall(bytes([0x02, 0x80, 0, 0, 0, 0]) + piece * 20_000)
            stream.recv(timeout=5)
        assert getattr(ended.value, "rcvd", None) is None  # cut off, not closed for being idle
    with talk(service, "?detect=false") as stream:
        stream.send(crop)
        assert answer(stream)["frame"] == 0
