"""Export: from a checkpoint to a bundle in a target's format, certified to answer the same."""

from __future__ import annotations

# Before a target imports its tools: this switches off what they report to their makers.
import calibrate  # noqa: F401
