"""A web server on 127.0.0.1 that behaves as badly as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server gives, and what it was asked.

    Attributes:
        content: of every path.
        ranges: whether it can give a part.
        tag: the ETag; None: no validator is sent.
        drops: after how many bytes each connection breaks off, in turn; those after them do not.
        announced: Content-Length of the whole; None: the truth; -1: none is sent.
        stall_s: how long it is silent after half of the bytes.
        status: instead of an answer.
        location: with a status of 3xx.
        lying_range: Content-Range of every part, whatever was asked for.
    """

    content: bytes
    ranges: bool = True
    tag: str | None = '"1"'
    drops: list[int] = field(default_factory=list)
    announced: int | None = None
    stall_s: float = 0.0
    status: int | None = None
    location: str | None = None
    lying_range: str | None = None
    url: str = ""
    paths: list[str] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)

    @property
    def asked_ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on a free port; `site.url` is the address of a file there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.paths.append(self.path)
            site.asked.append(self.headers)
            try:
                _answer(self, site)
            except OSError:
                self.close_connection = True  # the client had enough

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/yunet.onnx"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    start = _start(handler.headers, site)
    if site.status is not None or start >= len(site.content) > 0:
        handler.send_response(site.status or 416)
        if site.location:
            handler.send_header("Location", site.location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body = site.content[start:]
    handler.send_response(206 if start else 200)
    if start:
        last, size = len(site.content) - 1, len(site.content)
        handler.send_header("Content-Range", site.lying_range or f"bytes {start}-{last}/{size}")
    if site.tag is not None:
        handler.send_header("ETag", site.tag)
    if site.announced != -1:
        announced = len(site.content) if site.announced is None else site.announced
        handler.send_header("Content-Length", str(announced - start))
    handler.end_headers()
    drop = site.drops.pop(0) if site.drops else len(body)
    half = min(drop, len(body) // 2)
    handler.wfile.write(body[:half])
    handler.wfile.flush()
    time.sleep(site.stall_s)
    handler.wfile.write(body[half:drop])
    handler.close_connection = True


def _start(headers: Message, site: Site) -> int:
    asked = headers.get("Range", "")
    known = headers.get("If-Range")
    if not site.ranges or not asked or (known is not None and known != site.tag):
        return 0
    return int(asked.removeprefix("bytes=").rstrip("-"))
