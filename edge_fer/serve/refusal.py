"""What a client is told that does not get what it asked for: a status and one line, always as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from edge_fer.cli_errors import one_line

NOT_KEPT: Mapping[str, str] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer that depends on what was asked."""


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of the answer.
        text: what was expected, what was got, what to do.
        headers: beside those of every error.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer."""
        return Response(
            json.dumps({"error": error_line(self.text)}).encode() + b"\n",
            self.status,
            {**NOT_KEPT, **self.headers},
            "application/json",
        )


class Gone(Exception):
    """The client has closed its connection: nobody reads an answer."""


def unavailable(text: str, retry_after_s: int = 1) -> Refusal:
    """Return the refusal of a service that can do no more just now."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text, {"Retry-After": str(retry_after_s)})


def error_line(text: str, longest: int = 500) -> str:
    """Return an error's text as one printable line of at most so many characters."""
    line = one_line(text)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
