"""The live page: plain HTML, CSS and JavaScript beside this module, as routes. Knows no model."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The browser itself is told that the page may reach this server only: no picture can go anywhere else.
# 'self' covers the WebSocket of the same host and port, too.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # An update of the package must reach the browser at once; the ETag makes asking cheap.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return the routes of the page: `/` is index.html, `/page/NAME` each other file.

    The files are read once and there is one route for each: no path in a request ever names a file. They
    answer GET and HEAD, and 304 to the ETag that they sent. No token is needed for any: they hold nothing
    but what the wheel holds.
    """
    names = sorted(entry.name for entry in files(__name__).iterdir() if _suffix(entry.name) in _TYPES)
    return [_route("/" if name == "index.html" else f"/page/{name}", name) for name in names]


def _route(path: str, name: str) -> Route:
    content = files(__name__).joinpath(name).read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": etag}

    async def give(request: Request) -> Response:
        asked = request.headers.get("if-none-match", "")
        if etag in (each.strip().removeprefix("W/") for each in asked.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_TYPES[_suffix(name)], headers=headers)

    return Route(path, give, methods=["GET"], include_in_schema=False)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
