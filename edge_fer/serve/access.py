"""Who may ask: the bearer token, and the web pages whose scripts may use the service."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from edge_fer.serve.refusal import Refusal

_HINT = "send the header 'Authorization: Bearer TOKEN'"


class Access:
    """The rule for who may ask.

    Args:
        token: what clients have to show; None: anybody may ask.
    """

    def __init__(self, token: bytes | None) -> None:
        self._token = token

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return self._token is None

    def knows(self, token: bytes) -> bool:
        """Tell whether this is the token; how long that takes tells nothing of what is wrong with it."""
        return self._token is None or hmac.compare_digest(token, self._token)

    def check(self, headers: Headers) -> None:
        """Let a request pass that shows the token.

        Raises:
            Refusal: 401.
        """
        if self.open:
            return
        sent = headers.get("authorization")
        scheme, _, token = (sent or "").partition(" ")
        if scheme.lower() == "bearer" and self.knows(token.strip().encode("latin-1")):
            return
        said = "a token is needed, got none" if sent is None else "this is not the token"
        raise Refusal(HTTPStatus.UNAUTHORIZED, f"{said}: {_HINT}", {"WWW-Authenticate": "Bearer"})


def check_origin(headers: Headers) -> None:
    """Let a request pass that comes from no web page, or from this server's own.

    Browsers let any page send to any address, also to a service that only its visitor's machine can reach.

    Raises:
        Refusal: 403.
    """
    origin = headers.get("origin")
    if origin is None:
        return
    try:
        theirs = urlsplit(origin).netloc.lower()
    except ValueError:
        theirs = ""
    if not theirs or theirs != headers.get("host", "").lower():
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "a web page of another server may not use this one: open this server's own page, or have a proxy "
            "pass the header Host on",
        )
