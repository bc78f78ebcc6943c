"""Keeps what native libraries say of themselves away from the user's terminal; their warnings pass."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
# TensorFlow Lite's own prefix, and absl's: I0512 09:30:00.000000, or I0000 00:00:1715500000.000000.
_INFORMATION = re.compile(
    rb"INFO: |I\d{4} [\d:.]+ +\d+ |WARNING: All log messages before absl"
    rb"|WARNING: \[[gn]pu_registry\.cc"  # accelerators that nobody asked for
)


@contextmanager
def without_information() -> Iterator[None]:
    """Hold back standard error of the whole process; at the end write on what is not mere information.

    C++ writes to the file descriptor, past `sys.stderr`. For short stretches only: other threads' lines wait
    as well. Where there is no standard error nothing is done.
    """
    try:
        sys.stderr.flush()
        saved = os.dup(_STDERR)
    except (AttributeError, OSError, ValueError):  # no sys.stderr, closed, or no descriptor
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, _STDERR)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not _INFORMATION.match(line):
                    os.write(_STDERR, line)
