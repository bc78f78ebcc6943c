"""The WebSocket `/v1/stream`: a frame in, the JSON of its faces out, for as long as frames come."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_fer.errors import EdgeFerError, InputError
from edge_fer.output import analysis_record, json_line
from edge_fer.serve.access import check_origin
from edge_fer.serve.bodies import asked_detection
from edge_fer.serve.refusal import error_line
from edge_fer.serve.service import Service
from edge_fer.serve.streams import NAME
from edge_fer.serve.worker import Answer, Busy, Stream

STREAM_PATH = "/v1/stream"
_NORMAL, _GOING_AWAY, _NO_SUCH_DATA, _NOT_ALLOWED, _LATER = 1000, 1001, 1003, 1008, 1013


class _Ended(Exception):
    """The server ends a stream.

    Attributes:
        code: of RFC 6455.
        reason: in words, at most 123 bytes.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def stream(service: Service, socket: WebSocket) -> None:
    """Answer the frames of one client until it leaves.

    Raises:
        Refusal: before the connection is made: 401, 403, or 422 a wrong query.
    """
    check_origin(socket.headers)
    detect = asked_detection(socket.scope["query_string"])
    known = "authorization" in socket.headers or service.access.open
    if known:
        service.access.check(socket.headers)
    await socket.accept()
    try:
        if not known:
            await _introduce(service, socket)
        await _open(service, socket, detect)
    except _Ended as end:
        await socket.close(end.code, end.reason)
    except WebSocketDisconnect:
        pass


async def _introduce(service: Service, socket: WebSocket) -> None:
    """Wait for the token as the first message: scripts of a page cannot set headers."""
    try:
        message = await asyncio.wait_for(socket.receive(), service.settings.limits.header_s)
    except asyncio.TimeoutError:
        raise _Ended(_NOT_ALLOWED, "the first message has to be the token") from None
    _check_connected(message)
    if not service.access.knows(_token(message.get("text") or "")):
        raise _Ended(_NOT_ALLOWED, "the first message has to be the right token")


def _token(text: str) -> bytes:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return b""
    token = content.get("token") if isinstance(content, dict) else None
    return token.encode("utf-8", "replace") if isinstance(token, str) else b""


async def _open(service: Service, socket: WebSocket, detect: bool) -> None:
    try:
        frames = service.worker.stream(detect=detect)
    except Busy as busy:
        raise _Ended(_LATER, error_line(str(busy), 120)) from None
    connection = socket.scope["state"].get("connection")
    if connection is not None:
        connection.open()
    service.monitor.streams(1)
    try:
        await _Conversation(service, socket, frames).run()
    finally:
        service.monitor.streams(-1)
        frames.close()


class _Conversation:
    """Frames and their answers, one connection's."""

    def __init__(self, service: Service, socket: WebSocket, frames: Stream) -> None:
        self._service = service
        self._socket = socket
        self._frames = frames
        self._received = 0
        self._waiting: dict[asyncio.Future[Answer], int] = {}  # frame numbers, oldest first

    async def run(self) -> None:
        """Take frames as they come, and answer as they are done.

        Raises:
            _Ended: nothing came for too long, or something that is no frame.
            WebSocketDisconnect: the client left.
        """
        idle_s = self._service.settings.limits.stream_idle_s
        receiving = asyncio.ensure_future(self._socket.receive())
        heard = time.monotonic()
        try:
            while True:
                left_s = heard + idle_s - time.monotonic()
                if left_s <= 0:
                    raise _Ended(_NORMAL, f"no frame for {idle_s:g} s")
                awaited: set[asyncio.Future[Any]] = {receiving, *self._waiting}
                await asyncio.wait(awaited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                await self._answer()
                if receiving.done():
                    heard = time.monotonic()
                    self._take(receiving.result(), heard)
                    receiving = asyncio.ensure_future(self._socket.receive())
        finally:
            receiving.cancel()
            for each in self._waiting:  # nobody hears any more what becomes of them
                each.cancel()

    def _take(self, message: Message, received: float) -> None:
        _check_connected(message)
        data = message.get("bytes")
        if not self._received and _token(message.get("text") or ""):
            return  # shown though none is needed, or beside the header
        if not isinstance(data, bytes):
            raise _Ended(_NO_SUCH_DATA, "expected binary messages, one picture each, got text")
        try:
            future = self._frames.submit(data, received)
        except Busy:
            raise _Ended(_GOING_AWAY, "the service is being stopped") from None
        self._waiting[asyncio.wrap_future(future)] = self._received
        self._received += 1

    async def _answer(self) -> None:
        for future in [each for each in self._waiting if each.done()]:
            number = self._waiting.pop(future)
            if future.cancelled():  # a newer frame took its place
                self._service.monitor.dropped_frame()
                continue
            error = future.exception()
            if isinstance(error, Busy):
                raise _Ended(_GOING_AWAY, "the service is being stopped")
            if error is None:
                answer = future.result()
                record = analysis_record(answer.moment, answer.analysis)
            elif isinstance(error, EdgeFerError):
                if isinstance(error, InputError):
                    self._service.monitor.unanswered("broken")
                record = {"source": NAME, "frame": number, "error": error_line(str(error))}
            else:
                raise error
            await self._socket.send_text(json_line(record))


def _check_connected(message: Message) -> None:
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
