"""What `edge-fer serve` is told, and the limits that it holds whoever sends to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_fer.engines import EngineOptions

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the server one client, or all of them together, may take.

    Attributes:
        header_s: seconds for the head of a request, from its first byte.
        body_s: seconds for the whole body.
        idle_s: seconds that a connection is kept between two requests.
        write_s: seconds for a client to take what it was sent.
        linger_s: seconds in which what a refused client still sends is thrown away, so that it reads why.
        drain_s: seconds for the work that waits when the service is stopped.
        stream_idle_s: seconds without a frame after which a stream is closed.
        connections: open at a time, of all kinds.
        header_bytes: of the request line and all headers.
        header_lines: headers of a request.
        files: pictures in one request.
        upload_bytes: bodies that are being received at a time, together.
        stranger_bytes: of a stream that was not opened yet: its token is missing, or there are too many.
    """

    header_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 15.0
    write_s: float = 20.0
    linger_s: float = 3.0
    drain_s: float = 10.0
    stream_idle_s: float = 60.0
    connections: int = 256
    header_bytes: int = 16_384
    header_lines: int = 64
    files: int = 32
    upload_bytes: int = 256_000_000
    stranger_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What the user asked `serve` for.

    Attributes:
        bundle: folder or zip; None: the embedded one.
        host: name or address to listen on.
        port: 0: a free one.
        detector: what `load_detector` takes.
        min_reliability: a threshold from 0 to 1, or "auto"; None: no abstention.
        token: what clients have to show; None: anybody may ask.
        queue: pictures that may wait.
        max_bytes: of the body of one request, and of one frame of a stream.
        time_limit_s: seconds from a received request to its answer.
        engine: engine, threads, device and provider.
        allow_untrained: serve a bundle with untrained weights all the same.
        debug: print the traceback of what should not happen.
        limits: what every client has to keep to.
    """

    bundle: Path | None = None
    host: str = LOOPBACK
    port: int = 8000
    detector: str | None = None
    min_reliability: str | None = None
    token: bytes | None = field(default=None, repr=False)
    queue: int = 64
    max_bytes: int = 20_000_000
    time_limit_s: float = 10.0
    engine: EngineOptions = field(default_factory=EngineOptions)
    allow_untrained: bool = False
    debug: bool = False
    limits: Limits = field(default_factory=Limits)
