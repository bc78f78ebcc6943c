"""What comes in: the body of a request within its limits of bytes and time, and the query. All in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request

from edge_fer.serve.multipart import Upload, read_form
from edge_fer.serve.refusal import Gone, Refusal, unavailable
from edge_fer.serve.settings import Limits

_FORM = "multipart/form-data"
_TYPES = f"expected a picture (image/*), application/octet-stream or {_FORM}"
_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last is curl's own choice
_ANSWERS = {"true": True, "false": False}


class Bodies:
    """Receives the bodies of requests.

    Args:
        max_bytes: of one body.
        limits: time for it, bytes of all that come in at a time, files of one.
    """

    def __init__(self, max_bytes: int, limits: Limits) -> None:
        self._max_bytes = max_bytes
        self._limits = limits
        self._held = 0

    async def uploads(self, request: Request) -> list[Upload]:
        """Return the pictures of a request.

        Raises:
            Refusal: 400 a malformed form, 408 too slow, 411 or 413 of no told or too large a size, 415 of
                another type, 503 too much comes in at a time.
            Gone: the client went away.
        """
        content_type, is_form = _content_type(request.headers)
        self._check_length(request.headers)
        try:
            with _TimeLimit(self._limits.body_s), self._room() as take:
                body = await self._receive(request, take)
        except asyncio.TimeoutError:
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not arrive within {self._limits.body_s:g} s: send smaller pictures",
            ) from None
        return read_form(content_type, body, self._limits.files) if is_form else [Upload("-", body)]

    async def _receive(self, request: Request, take: Callable[[int], None]) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await request.receive()
            if message["type"] != "http.request":
                raise Gone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            take(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks) if len(chunks) > 1 else chunk

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length")
        if "transfer-encoding" in headers:
            return
        if length is None:
            raise Refusal(
                HTTPStatus.LENGTH_REQUIRED,
                "expected a picture as the body, with Content-Length or in chunks, got no body",
            )
        if int(length) > self._max_bytes:  # digits: the protocol saw to that
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected a body of at most {self._max_bytes:,} bytes, got more: scale the picture down, "
            "or send several one by one",
        )

    @contextmanager
    def _room(self) -> Iterator[Callable[[int], None]]:
        """Give what counts bytes that are held; they are let go at the end."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._held + size > self._limits.upload_bytes:
                raise unavailable("too many pictures are being received: try again in a second")
            taken += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= taken


class _TimeLimit:
    """Ends what is awaited within it by a TimeoutError, as `asyncio.timeout` does from Python 3.11 on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # only coroutines await

        def end() -> None:
            self._over = True
            task.cancel()

        self._timer = asyncio.get_running_loop().call_later(self._seconds, end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._over and kind is asyncio.CancelledError:
            raise asyncio.TimeoutError from error


def asked_detection(query: bytes) -> bool:
    """Return whether faces are to be found, or the picture is one.

    Args:
        query: as sent, without the question mark.

    Raises:
        Refusal: 422 of another query than nothing, `detect=true` and `detect=false`.
    """
    if not query:
        return True
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=1)
    except ValueError:
        pairs = []
    if pairs and pairs[0][0] == "detect" and pairs[0][1] in _ANSWERS:
        return _ANSWERS[pairs[0][1]]
    raise Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY, "expected no query, ?detect=true or ?detect=false, got another one"
    )


def _content_type(headers: Headers) -> tuple[str, bool]:
    """Return the content type, and whether it is a form."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "expected a body as it is, got one with Content-Encoding: leave it out, pictures are compressed",
        )
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _FORM:
        return content_type, True
    if kind in _RAW or kind.startswith("image/"):
        return content_type, False
    raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{_TYPES}, got another Content-Type")
