"""Calibration: manifests, and quantisers from a float graph and a manifest to an int8 graph."""

from __future__ import annotations

import os

# The quantiser imports ONNX Runtime, whose Linux wheels report to their maker from 1.29 on if not told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
