"""The application: which path is answered by what. Knows no socket and no process."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

import edge_fer
from edge_fer.serve import documents
from edge_fer.serve.facts import Facts
from edge_fer.serve.guard import Guard
from edge_fer.serve.inference import infer
from edge_fer.serve.monitor import Monitor
from edge_fer.serve.page import page_routes
from edge_fer.serve.refusal import NOT_KEPT, Refusal
from edge_fer.serve.service import Service
from edge_fer.serve.settings import ServeSettings
from edge_fer.serve.websocket import STREAM_PATH, stream
from edge_fer.serve.worker import Worker

_TEXTS = {
    404: "nothing is here: expected one of the paths in /openapi.json",
    405: "this path has other methods: see the header Allow",
}


def create_app(worker: Worker, monitor: Monitor, facts: Facts, settings: ServeSettings) -> FastAPI:
    """Make the application; `app.state.service` is what its routes share.

    Args:
        worker: started by somebody else.
        monitor: counts requests, pictures that are refused, and streams; the worker's answers reach it
            without this application.
        facts: of the bundle that the worker runs.
        settings: the token and the limits.
    """
    service = Service(worker=worker, monitor=monitor, facts=facts, settings=settings)
    app = FastAPI(
        title="edge-fer",
        version=edge_fer.__version__,
        description=documents.ABOUT,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _explain},
    )
    app.state.service = service
    app.router.route_class = _PlainRoute
    _add_routes(app, service)
    app.routes.extend(page_routes())

    async def talk(socket: WebSocket) -> None:
        await stream(service, socket)

    app.routes.append(WebSocketRoute(STREAM_PATH, talk))
    app.add_middleware(Guard, service=service, routes=[str(getattr(each, "path", "")) for each in app.routes])
    documents.describe(app, token_needed=not service.access.open)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    def add(path: str, method: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        app.add_api_route(path, answer, methods=[method], **documents.ROUTES[path])

    facts_body = functools.cache(service.facts.body)  # 160 kB, too much to write anew for everybody who asks

    async def ask(request: Request) -> Response:
        return await infer(service, request)

    async def bundle(request: Request) -> Response:
        return Response(facts_body(service.worker.batch), 200, NOT_KEPT, "application/json")

    async def health(request: Request) -> Response:
        return _status("alive")

    async def ready(request: Request) -> Response:
        status = service.status
        return _status(status, 200 if status == "ready" else 503)

    async def metrics(request: Request) -> Response:
        text, content_type = service.monitor.render()
        return Response(text, 200, {**NOT_KEPT, "Content-Type": content_type})

    async def not_a_stream(request: Request) -> Response:
        raise Refusal(426, "expected a WebSocket, got a plain request", {"Upgrade": "websocket"})

    add("/v1/infer", "POST", ask)
    add("/v1/bundle", "GET", bundle)
    add("/health", "GET", health)
    add("/ready", "GET", ready)
    add("/metrics", "GET", metrics)
    app.add_api_route(STREAM_PATH, not_a_stream, include_in_schema=False)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = _TEXTS.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, text, error.headers).response()


def _status(status: str, code: int = 200) -> Response:
    headers = NOT_KEPT if code == 200 else {**NOT_KEPT, "Retry-After": "1"}
    return Response(b'{"status":"%s"}\n' % status.encode(), code, headers, "application/json")


class _PlainRoute(APIRoute):
    """A route whose answer is bytes already: FastAPI describes it, and does nothing else between."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = set(self.methods or ())
        if "GET" in methods:
            methods.add("HEAD")
        if scope["method"] not in methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
