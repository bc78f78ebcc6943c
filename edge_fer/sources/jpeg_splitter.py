"""Cuts a stream of bytes into JPEG pictures by their markers. Decodes none, reads from nowhere."""

from __future__ import annotations

from collections.abc import Iterator

MAX_JPEG_BYTES = 64 * 1024 * 1024
_START = b"\xff\xd8\xff"
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RESTARTS = range(0xD0, 0xD8)
_FIRST_MARKER = 0xC0  # below it nothing but TEM stands in a picture
_SHORTEST_SEGMENT = 2  # a length counts its own two bytes


class JpegSplitter:
    """Cuts a stream of bytes into JPEG pictures, whatever the chunks it arrives in.

    It walks the segments by their lengths, as a thumbnail in one holds end markers of its own, and looks for
    markers only in entropy-coded data, where 0xFF is followed by 0 or a restart (ITU-T T.81, annex B). What
    stands between pictures is passed over. Of a picture that breaks off, the walk goes on at the next start
    marker. At most `limit` bytes and one chunk are kept.

    Attributes:
        broken: pictures so far that were cut off, malformed or over `limit` bytes.
        passed_over: bytes so far that belong to no picture.
    """

    def __init__(self, limit: int = MAX_JPEG_BYTES) -> None:
        self.broken = 0
        self.passed_over = 0
        self._limit = limit
        self._buffer = bytearray()
        self._at = 0  # how far the walk has come; 0: outside of a picture
        self._in_scan = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take more of the stream and give each picture that is complete by now."""
        self._buffer += data
        while True:
            if self._at == 0 and not self._find_start():
                return
            if (picture := self._walk()) is not None:
                yield picture
            elif self._at:  # in the middle of a picture
                if len(self._buffer) <= self._limit:
                    return
                self._give_up()

    def end(self) -> None:
        """Count what the stream broke off in."""
        if self._at:
            self.broken += 1
        else:
            self.passed_over += len(self._buffer)
        self._buffer.clear()
        self._at = 0

    def _find_start(self) -> bool:
        found = self._buffer.find(_START)
        if found >= 0:
            self._pass_over(found)
            self._at, self._in_scan = 2, False
            return True
        kept = next((n for n in (2, 1) if self._buffer.endswith(_START[:n])), 0)
        self._pass_over(len(self._buffer) - kept)
        return False

    def _pass_over(self, count: int) -> None:
        self.passed_over += count
        del self._buffer[:count]

    def _give_up(self) -> None:
        """Count a broken picture and drop it up to where the walk stands.

        Not from its first byte on: the thumbnail of a broken picture is no picture of the stream.
        """
        self.broken += 1
        del self._buffer[: self._at]
        self._at = 0

    def _walk(self) -> bytes | None:
        """Go on through segments and scans; None with `_at` > 0: more is needed; with 0: it was broken."""
        while not self._in_scan or self._skip_scan():
            at = self._marker_place()
            if at is None:
                return None
            marker = self._buffer[at]
            if at == self._at or marker == _SOI or (marker < _FIRST_MARKER and marker != _TEM):
                self._give_up()
                return None
            if marker == _EOI:
                return self._take(at + 1)
            if marker == _TEM or marker in _RESTARTS:
                self._at = at + 1
            elif not self._skip_segment(at, is_scan=marker == _SOS):
                return None
        return None

    def _marker_place(self) -> int | None:
        """Return where the byte behind 0xFF (one or more are allowed) stands; None: it has yet to arrive."""
        at = self._at
        while at < len(self._buffer) and self._buffer[at] == 0xFF:
            at += 1
        return at if at < len(self._buffer) else None

    def _take(self, size: int) -> bytes:
        picture = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._at = 0
        return picture

    def _skip_segment(self, marker_at: int, *, is_scan: bool) -> bool:
        """Move behind the segment of this marker; False: it has not arrived yet, or is malformed."""
        length = int.from_bytes(self._buffer[marker_at + 1 : marker_at + 3], "big")
        behind = marker_at + 1 + length
        if len(self._buffer) < max(behind, marker_at + 3):
            return False
        if length < _SHORTEST_SEGMENT:
            self._give_up()
            return False
        self._at, self._in_scan = behind, is_scan
        return True

    def _skip_scan(self) -> bool:
        """Move to the marker behind entropy-coded data; False: it has not arrived yet."""
        while (found := self._buffer.find(0xFF, self._at)) >= 0:
            self._at = found
            if found + 1 >= len(self._buffer):
                return False
            following = self._buffer[found + 1]
            if following != 0 and following not in _RESTARTS:
                self._in_scan = False
                return True
            self._at = found + 2
        self._at = len(self._buffer)
        return False
