"""Stands before every route: sizes of the head, foreign pages, the token, and what becomes of failures."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_fer.cli_errors import complain
from edge_fer.serve.access import check_origin
from edge_fer.serve.refusal import Gone, Refusal
from edge_fer.serve.service import Service

OTHER = "other"
"""What metrics call the route of a request that none of the routes is for."""

_LONGEST_TARGET = 4096


class Guard:
    """Lets in what keeps to the rules, makes every failure one line of JSON, and counts.

    Args:
        app: the routes.
        service: the rules.
        routes: paths that are counted one by one.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one WebSocket from its beginning to its end."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            await send(message)

        try:
            try:
                self._check(scope)
                await self._app(scope, receive, note)
            except Refusal as refusal:
                await _answer(refusal, scope, receive, note)
            except Gone:
                return
            except Exception as error:  # noqa: BLE001 (this is the server's edge)
                self._report(error)
                if not status:
                    await _answer(_INTERNAL, scope, receive, note)
        finally:
            if status:
                route = scope["path"] if scope["path"] in self._routes else OTHER
                self._service.monitor.request(route, status, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        limits = self._service.settings.limits
        sent = scope["headers"]
        if len(sent) > limits.header_lines or sum(len(k) + len(v) for k, v in sent) > limits.header_bytes:
            raise Refusal(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"expected at most {limits.header_lines} headers of {limits.header_bytes:,} bytes in all",
            )
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in sent}:
            raise Refusal(  # whoever stands between may have read the other one (RFC 9112, section 6.1)
                HTTPStatus.BAD_REQUEST,
                "expected Content-Length or Transfer-Encoding, got both",
                {"Connection": "close"},
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_TARGET:
            raise Refusal(
                HTTPStatus.REQUEST_URI_TOO_LONG, f"expected a path of at most {_LONGEST_TARGET:,} bytes"
            )
        path, is_http = scope["path"], scope["type"] == "http"
        if is_http and (path == "/metrics" or path.startswith("/v1/")):
            headers = Headers(raw=sent)
            self._service.access.check(headers)
            if scope["method"] == "POST":
                check_origin(headers)

    def _report(self, error: Exception) -> None:
        # Its text may hold what the client sent.
        complain(f"internal error, {type(error).__name__}: --debug shows where, please report it")
        if self._service.settings.debug:
            traceback.print_exception(error)


_INTERNAL = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the operator's log says more")


async def _answer(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    # Starlette's response knows how to refuse a WebSocket's handshake, too.
    await refusal.response()(scope, receive, send)
