"""`POST /v1/infer`: pictures in, the JSON of `infer --json` out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn

from starlette.requests import Request
from starlette.responses import Response

from edge_fer.errors import EdgeFerError, InputError, TooManyPixelsError
from edge_fer.output import analysis_record, json_line
from edge_fer.serve.bodies import asked_detection
from edge_fer.serve.multipart import Upload
from edge_fer.serve.refusal import NOT_KEPT, Gone, Refusal, error_line, unavailable
from edge_fer.serve.service import Service
from edge_fer.serve.worker import Answer, Busy

_Waiting = list["asyncio.Future[Answer]"]


class _TooSlow(Exception):
    """The time limit is over, and no other request is to blame."""


async def infer(service: Service, request: Request) -> Response:
    """Answer a request with one object for one picture, and an array for several.

    Raises:
        Refusal: see `Bodies.uploads`; 413 too many pixels, 422 no picture, or a wrong query, 500 the engine
            failed, 503 no room, or the time went on others, 504 the time was too short for these alone.
        Gone: the client went away.
    """
    detect = asked_detection(request.scope["query_string"])
    uploads = await service.bodies.uploads(request)
    deadline = time.monotonic() + service.settings.time_limit_s
    waiting = _submit(service, uploads, detect, deadline)
    connection = request.scope["state"].get("connection")
    if connection is not None:
        connection.cancel_when_lost(waiting)
    await asyncio.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
    alone = service.worker.pending <= sum(not each.done() for each in waiting)
    outcomes = [_outcome(each, alone) for each in waiting]
    return Response(_body(service, uploads, outcomes), 200, NOT_KEPT, "application/json")


def _submit(service: Service, uploads: Sequence[Upload], detect: bool, deadline: float) -> _Waiting:
    waiting: _Waiting = []
    try:
        for upload in uploads:
            future = service.worker.submit(upload.data, upload.name, detect=detect, deadline=deadline)
            waiting.append(asyncio.wrap_future(future))
    except Busy as busy:
        for each in waiting:
            each.cancel()
        service.monitor.unanswered("refused", len(uploads))
        raise _no_room(busy) from None
    return waiting


def _outcome(future: asyncio.Future[Answer], alone: bool) -> Answer | BaseException:
    """Return what became of a picture.

    Args:
        future: its answer to come; cancelled if it has not come.
        alone: whether no other request's pictures are under way.
    """
    if not future.done():
        future.cancel()
        return _TooSlow() if alone else TimeoutError()
    if future.cancelled():
        return Gone()
    return future.exception() or future.result()


def _body(service: Service, uploads: Sequence[Upload], outcomes: Sequence[Answer | BaseException]) -> bytes:
    texts: list[str] = []
    broken: list[InputError] = []
    for upload, outcome in zip(uploads, outcomes, strict=True):
        if isinstance(outcome, Answer):
            texts.append(json_line(analysis_record(outcome.moment, outcome.analysis)))
        elif isinstance(outcome, InputError):
            broken.append(outcome)
            texts.append(json_line({"source": upload.name, "error": error_line(str(outcome))}))
        else:
            _fail(service, outcome, len(uploads))
    service.monitor.unanswered("broken", len(broken))
    if len(broken) == len(uploads):
        raise _unreadable(broken)
    return (texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]").encode() + b"\n"


def _fail(service: Service, error: BaseException, pictures: int) -> NoReturn:
    """Tell a client whose pictures are not to blame; all of them go without an answer."""
    limit = f"no answer within {service.settings.time_limit_s:g} s"
    if isinstance(error, _TooSlow):
        service.monitor.unanswered("late", pictures)
        raise Refusal(
            HTTPStatus.GATEWAY_TIMEOUT,
            f"{limit}: send fewer or smaller pictures at a time, or serve with a longer --time-limit",
        )
    if isinstance(error, TimeoutError):
        service.monitor.unanswered("late", pictures)
        raise unavailable(
            f"{limit}, which went on other pictures: try again later", service.worker.retry_after_s
        )
    if isinstance(error, Busy):
        service.monitor.unanswered("refused", pictures)
        raise _no_room(error)
    if isinstance(error, EdgeFerError):
        raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    raise error


def _unreadable(broken: Sequence[InputError]) -> Refusal:
    text = str(broken[0])
    if len(broken) > 1:
        text = f"none of the {len(broken)} pictures can be read; {text}"
    large = all(isinstance(error, TooManyPixelsError) for error in broken)
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if large else HTTPStatus.UNPROCESSABLE_ENTITY
    return Refusal(status, text)


def _no_room(busy: Busy) -> Refusal:
    return unavailable(str(busy), busy.retry_after_s)
