"""Calibration: manifests, and quantisers from a float graph and a manifest to an int8 graph."""

from __future__ import annotations

import os

# The quantiser imports ONNX Runtime, whose Linux wheels from 1.29 on report to their maker if not told not to
# before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
