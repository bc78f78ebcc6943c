"""Connections that cannot be held for ever: uvicorn's protocols, with a time for everything a client does."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from edge_fer.serve.refusal import Refusal
from edge_fer.serve.settings import Limits
from edge_fer.serve.transport import JoiningTransport
from edge_fer.serve.websocket import STREAM_PATH

_LONGEST_LINE = 8000  # the WebSocket library breaks off at 8,192 without an answer
_PROBE_S = 1.0
_SLICE_BYTES = 16_384
_FRAMES_OF_A_SLICE = 256  # empty fragments cost far more time than they take to send
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "expected an HTTP/1.1 request, got a malformed one")
_CUT_OFF = Refusal(HTTPStatus.BAD_REQUEST, "expected a whole request, got a part of one")
_SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, "the head of the request did not arrive in time")
_FULL = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too many connections: try again in a second", {"Retry-After": "1"}
)


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 of one connection.

    Args:
        limits: times, and how many connections there may be.
        **uvicorn: what uvicorn gives a protocol.
    """

    def __init__(self, *, limits: Limits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self.app_state = {**self.app_state, "connection": self}
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._discarding = False  # an answer was given, and what still comes is thrown away
        self._awaited: Sequence[asyncio.Future[Any]] = ()
        self._since = self.loop.time()  # of the last answer, or of the beginning

    def cancel_when_lost(self, futures: Sequence[asyncio.Future[Any]]) -> None:
        """Cancel these when the client goes away before they are done."""
        self._awaited = futures
        if self.transport.is_closing():
            self._cancel_awaited()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))
        transport.set_write_buffer_limits(0)  # so that `pause_writing` tells of every byte that waits
        if len(self.connections) > self._limits.connections and not self._make_room():
            self._refuse(_FULL)
        else:
            self._head_timer = self.loop.call_later(self._limits.header_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._cancel_awaited()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        super().data_received(data)
        self._watch_head()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that has sent all that it will; only what is cut off gets no other answer."""
        if self._discarding or self.transport.is_closing():
            return None
        state = self.conn.their_state
        if state in (h11.DONE, h11.MUST_CLOSE) and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if self.scope["http_version"] == "1.1":  # older clients know no such lines
                self.loop.call_later(_PROBE_S, self._probe)
            return True  # the connection stays until the answer is written
        begun = state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(_CUT_OFF)
            return True
        return None

    def on_response_complete(self) -> None:
        self._awaited = ()
        self._since = self.loop.time()
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._answered_early():
            self._set_linger_timer()
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 cannot read; it suggests a status."""
        status = getattr(sys.exc_info()[1], "error_status_hint", HTTPStatus.BAD_REQUEST)
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        elif status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            text = f"expected headers of at most {self._limits.header_bytes:,} bytes in all"
            self._refuse(Refusal(status, text))
        else:
            self._refuse(Refusal(status, _MALFORMED.text))

    def _should_upgrade(self) -> bool:
        """Tell whether this is a WebSocket; the application answers all else, whatever it wants to become."""
        headers = dict(self.headers)
        return (
            self._get_upgrade() == b"websocket"
            and self.scope["method"] == "GET"
            and self.scope["path"] == STREAM_PATH
            and self.scope["http_version"] == "1.1"
            and headers.get(b"sec-websocket-version") == b"13"
            and _KEY.fullmatch(headers.get(b"sec-websocket-key", b"")) is not None
            and not {b"content-length", b"transfer-encoding"} & headers.keys()
            and len(self.headers) <= self._limits.header_lines
            and all(len(name) + len(value) < _LONGEST_LINE for name, value in self.headers)
            and len(self.scope["raw_path"]) + len(self.scope["query_string"]) < _LONGEST_LINE
        )

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_head_timer()
        super().handle_websocket_upgrade(event)

    def _make_room(self) -> bool:
        """Close the connection that has been without a request for longest; tell whether there was one.

        A client that opens connections and says nothing would keep all others out.
        """
        unused = [each for each in self.connections if isinstance(each, GuardedProtocol) and each._unused()]
        oldest = min(unused, key=lambda each: (not each._discarding, each._since), default=self)
        if oldest is not self:
            oldest.transport.abort()
        return oldest is not self

    def _unused(self) -> bool:
        """Tell whether nothing was asked here, or what was asked is answered."""
        return not self.transport.is_closing() and (
            self._discarding or (self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE)
        )

    def _watch_head(self) -> None:
        """Start the time for a head with its first bytes, and stop it with its last."""
        if self._linger_timer is not None and not self._answered_early():
            self._linger_timer.cancel()  # the rest came in time, and was thrown away
            self._linger_timer = None
        if self.conn.their_state is not h11.IDLE:
            self._stop_head_timer()
        elif self._head_timer is None and self.conn.trailing_data[0]:
            self._head_timer = self.loop.call_later(self._limits.header_s, self._head_is_late)

    def _answered_early(self) -> bool:
        """Tell whether a request was answered whose body is still coming."""
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.trailing_data[0]:
            self._refuse(_SLOW)
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer without the application, and close the connection so that the answer is read."""
        if self.transport.is_closing():
            return
        response = refusal.response()
        head = h11.Response(
            status_code=refusal.status,
            headers=[*response.raw_headers, (b"connection", b"close")],
            reason=STATUS_PHRASES[refusal.status],
        )
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._stop_head_timer()
        # Closed while bytes wait here, the connection would be reset and the answer lost on its way.
        self._discarding = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self._set_linger_timer()

    def _set_linger_timer(self) -> None:
        self._linger_timer = self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _probe(self) -> None:
        """Find out whether who sends no more still reads.

        If not, the first line brings a reset, at which the next one fails; whoever reads passes over them.
        """
        if not self.transport.is_closing() and self.conn.our_state is h11.SEND_RESPONSE:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.loop.call_later(_PROBE_S, self._probe)

    def _cancel_awaited(self) -> None:
        for future in self._awaited:
            future.cancel()
        self._awaited = ()


class StreamProtocol(WebSocketsSansIOProtocol):
    """WebSocket of one connection.

    Args:
        limits: how long a client may take to read, and how much it may send before its stream is opened.
        **uvicorn: what uvicorn gives a protocol.
    """

    def __init__(self, *, limits: Limits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self.app_state = {**self.app_state, "connection": self}
        self._opened = False
        self._received_bytes = 0
        self._write_timer: asyncio.TimerHandle | None = None
        self.close_timeout = limits.linger_s

    def open(self) -> None:
        """Take messages of full size from now on."""
        self._opened = True

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        # Reading pauses behind each message: what follows an honest client's token does not get so far.
        if not self._opened and self._received_bytes > self._limits.stranger_bytes:
            self.transport.abort()
        for start in range(0, len(data), _SLICE_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + _SLICE_BYTES])

    def handle_events(self) -> None:
        """Hand on what a slice held; cut off who sends frames of next to nothing, which no size bounds."""
        if len(self.conn.events) > _FRAMES_OF_A_SLICE:
            self.transport.abort()
        else:
            super().handle_events()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()  # every ping would add an answer to what waits
        self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def shutdown(self) -> None:
        """Tell the client that the server goes away."""
        if self.handshake_complete and not self.close_sent:
            self.conn.send_close(1001, "the service is being stopped")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1001})
        super().shutdown()
