"""Who may ask: with a token, without, with a wrong one; and how long it takes to tell."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

from edge_fer.serve.access import Access
from edge_fer.serve.refusal import Refusal
from edge_fer.serve.settings import ServeSettings
from tests.edge_fer.serve.running import Running, error_of, running

TOKEN = b"s3cret-t0ken"


@pytest.fixture(scope="module")
def guarded(settings: ServeSettings) -> Iterator[Running]:
    with running(dataclasses.replace(settings, token=TOKEN)) as started:
        yield started


NEEDED = [("POST", "/v1/infer?detect=false"), ("GET", "/v1/bundle"), ("GET", "/metrics")]


@pytest.mark.parametrize(("method", "path"), [*NEEDED, ("GET", "/v1/nowhere"), ("DELETE", "/v1/infer")])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic s3cret-t0ken",
        "s3cret-t0ken",
        "Bearer S3CRET-T0KEN",
    ],
)
def test_without_the_token_nothing_is_told(
    guarded: Running, crop: bytes, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    with guarded.client() as client:
        response = client.request(method, path, headers=headers, content=crop if method == "POST" else None)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in error_of(response) and "s3cret" not in response.text


@pytest.mark.parametrize(("method", "path"), NEEDED)
def test_with_the_token_all_is_told(guarded: Running, crop: bytes, method: str, path: str) -> None:
    with guarded.client(headers={"Authorization": "bearer s3cret-t0ken"}) as client:
        assert client.request(method, path, content=crop if method == "POST" else None).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/openapi.json"])
def test_what_needs_no_token(guarded: Running, path: str) -> None:
    with guarded.client() as client:
        assert client.get(path).status_code == 200


def test_a_body_without_token_is_not_received(guarded: Running) -> None:
    with guarded.connect() as connection:
        head = b"POST /v1/infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the clock, which proves nothing on a busy machine: by what compares them."""
    compared: list[tuple[object, object]] = []
    original = hmac.compare_digest

    def watch(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return original(first, second)

    monkeypatch.setattr(hmac, "compare_digest", watch)
    access = Access(TOKEN)
    access.check(Headers({"authorization": "Bearer s3cret-t0ken"}))
    for wrong in ("wrong", "s3cret-t0ke", "", "s3cret-t0ken\xe4"):
        with pytest.raises(Refusal):
            access.check(Headers({"authorization": f"Bearer {wrong}"}))
        assert not access.knows(wrong.encode())
    assert len(compared) == 9 and all(isinstance(side, bytes) for pair in compared for side in pair)
