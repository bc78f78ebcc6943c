"""Keeps what a tool says of its own inner life away from the user."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet_tool(level: int = logging.WARNING) -> Iterator[None]:
    """Hold back standard output, warnings, and log records up to a level.

    Standard error stays open for the caller's own progress bar.
    """
    before = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(level)
        try:
            yield
        finally:
            logging.disable(before)
