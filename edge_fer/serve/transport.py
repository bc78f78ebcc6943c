"""A connection's way out that sends what is written together at once. Knows bytes, no HTTP."""

from __future__ import annotations

import asyncio
from typing import Any


class JoiningTransport:
    """A transport that joins what is written in one turn of the event loop: head and body of an answer.

    Two packets cost twice the system calls, and at each of them the thread of the loop has to wait its turn
    among those that recognise.

    Args:
        transport: what sends; all but writing and closing is its own.
        loop: whose turns count.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)

    def flush(self) -> None:
        """Send now what was written."""
        if self._written:
            data = b"".join(self._written)
            self._written.clear()
            self._transport.write(data)

    def write_eof(self) -> None:
        """Send what was written, and that nothing follows."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what was written, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
