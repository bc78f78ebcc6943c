"""A network camera on 127.0.0.1: MJPEG over HTTP, paced like the real thing, with a real one's faults."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.edge_fer.sources.painted import jpeg


class MjpegCamera:
    """Sends painted frames, numbered since it was switched on, to whoever connects.

    Attributes:
        fps: frames per second.
        broken: numbers of frames sent damaged.
        drops_at: the connection is closed before this frame, once.
        hangs_at: nothing more is sent from this frame on while it is set; the connection stays open.
        login: `user:password` that it asks for.
        refuses: while set, no one is let in.
        sent_at: monotonic time at which each frame was sent.
        connections: how many were accepted.
    """

    def __init__(self, fps: float = 30) -> None:
        self.fps = fps
        self.broken: set[int] = set()
        self.drops_at: int | None = None
        self.hangs_at: int | None = None
        self.login: str | None = None
        self.refuses = False
        self.sent_at: dict[int, float] = {}
        self.connections = 0
        self._started = time.monotonic()
        self._off = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._serve(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"

    def __enter__(self) -> MjpegCamera:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._off.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        expected = self.login and "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.refuses or (expected and request.headers["Authorization"] != expected):
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        self.connections += 1
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        with contextlib.suppress(OSError):  # the viewer left
            self._send_frames(request)
        request.close_connection = True

    def _send_frames(self, request: BaseHTTPRequestHandler) -> None:
        # The number is the camera's own clock: after a break it is further on, as the world is.
        number = int((time.monotonic() - self._started) * self.fps) + 1
        while not self._off.wait(max(0.0, self._started + number / self.fps - time.monotonic())):
            if self.drops_at is not None and number >= self.drops_at:
                self.drops_at = None
                request.connection.shutdown(socket.SHUT_RDWR)
                return
            while self.hangs_at is not None and number >= self.hangs_at and not self._off.wait(0.05):
                pass
            data = jpeg(number) if number not in self.broken else b"\xff\xd8\xff\xdb\0" + bytes(900)
            self.sent_at[number] = time.monotonic()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
            number += 1
