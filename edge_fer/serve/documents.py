"""What OpenAPI says of each route: words, shapes, examples and errors. No route is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from edge_fer.serve import examples
from edge_fer.serve.schemas import Answer, BundleFacts, Error, Status

ABOUT = (
    "Facial expressions of faces in pictures, as probabilities with a reliability. The answers are those of "
    "`edge-fer infer --json`. Nothing that is sent is kept.\n\nFrames go through the WebSocket `/v1/stream`: "
    "each binary message is a picture, each text message that comes back is the object of one frame. A frame "
    "that comes while another waits takes its place. Where a token is needed, the header Authorization or "
    '`{"token": "…"}` as the first message shows it.'
)
_INFER = (
    "The body is a picture (JPEG, PNG, WebP, GIF, BMP or TIFF; also as application/octet-stream or without a "
    "type), or multipart/form-data with one or more files under any names. One picture gives one object. "
    "Several give an array in their order, in which an object with `error` stands for each that cannot be "
    "read.\n\n`curl --data-binary @photo.jpg URL/v1/infer`\n\n"
    "`curl -F a=@one.jpg -F b=@two.jpg URL/v1/infer`"
)
_SCHEME = "token"
_TOKEN_NEEDED = ("/v1/", "/metrics")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
# The form is told in words only: no schema can say that a part is a picture, so tools would send anything
# in it and call the refusal a fault.
_PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif")
_REASONS = {
    400: "The request, or the form in it, is malformed.",
    401: "The token is missing or wrong.",
    403: "A web page of another server asks.",
    408: "The body came too slowly.",
    411: "There is no body.",
    413: "Too many bytes, files or pixels.",
    415: "The body is of another type.",
    422: "This is no picture, or the query is wrong.",
    431: "The headers are too large.",
    500: "The engine or the detector failed.",
    503: "There is too much to do, or the service is ending; Retry-After says when to try again.",
    504: "The time limit is too short for this request, also if there is no other.",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": _REASONS[status]} for status in statuses}


def _route(
    name: str, summary: str, description: str, responses: Mapping[int | str, Any], **extra: Any
) -> dict[str, Any]:
    return {
        "operation_id": name,
        "summary": summary,
        "description": description,
        "responses": dict(responses),
        "response_model": None,
        "openapi_extra": extra,
    }


_DETECT = {
    "name": "detect",
    "in": "query",
    "required": False,
    "description": "false: every picture is one face, cropped already",
    "schema": {"type": "boolean", "default": True},
}
# Put into the finished document: FastAPI would leave out of them what is null.
_EXAMPLES: Mapping[tuple[str, str, str], Mapping[str, object]] = {
    ("/v1/infer", "post", "200"): {
        "one picture": examples.PICTURE,
        "several pictures": [examples.PICTURE, examples.BROKEN],
    },
    ("/v1/bundle", "get", "200"): {
        "embedded bundle, shortened": {
            "bundle": {"format": 1, "model": "grefel-lite", "verdict": "passed"},
            "certificate": None,
            "runtime": examples.RUNTIME,
        }
    },
    ("/health", "get", "200"): {"alive": {"status": "alive"}},
    ("/ready", "get", "200"): {"ready": {"status": "ready"}},
    ("/ready", "get", "503"): {"busy": {"status": "busy"}, "starting": {"status": "starting"}},
}

ROUTES: Mapping[str, Mapping[str, Any]] = {
    "/v1/infer": _route(
        "infer",
        "Recognise the expressions in pictures",
        _INFER,
        {
            200: {"model": Answer, "description": "The faces."},
            **_errors(400, 403, 408, 411, 413, 415, 422, 431, 500, 503, 504),
        },
        parameters=[_DETECT],
        requestBody={
            "required": True,
            "content": dict.fromkeys(_PICTURES, _BINARY),
        },
    ),
    "/v1/bundle": _route(
        "bundle",
        "Tell which bundle answers",
        "Its spec, its certificate, and how it runs here.",
        {200: {"model": BundleFacts, "description": "The facts."}},
    ),
    "/health": _route(
        "health",
        "Tell that the process lives",
        "Answered also while the worker is busy.",
        {200: {"model": Status, "description": "It does."}},
    ),
    "/ready": _route(
        "ready",
        "Tell whether a picture would be answered",
        "For load balancers and orchestrators.",
        {
            200: {"model": Status, "description": "It would."},
            503: {"model": Status, "description": "It would not, just now."},
        },
    ),
    "/metrics": _route(
        "metrics",
        "Give the metrics",
        "In Prometheus' text format.",
        {200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    ),
}


def describe(app: FastAPI, token_needed: bool) -> None:
    """Finish the document of an application that has all its routes: examples, and who needs the token."""
    document = app.openapi()  # made once and kept
    for (path, method, status), values in _EXAMPLES.items():
        answer = document["paths"][path][method]["responses"][status]["content"]["application/json"]
        answer["examples"] = {name: {"value": value} for name, value in values.items()}
    if not token_needed:
        return
    document["components"]["securitySchemes"] = {_SCHEME: {"type": "http", "scheme": "bearer"}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path, operations in document["paths"].items():
        if path.startswith(_TOKEN_NEEDED):
            for operation in operations.values():
                operation["security"] = [{_SCHEME: []}]
                operation["responses"]["401"] = {"description": _REASONS[401], "content": error}
