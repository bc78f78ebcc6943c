"""Calibration: manifests, and quantisers from a float graph and a manifest to an int8 graph."""

from __future__ import annotations

import os
import sys

# The quantiser imports ONNX Runtime, whose Linux wheels from 1.29 on report to their maker if not told not to
# before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO and NNCF report through the package openvino_telemetry, unless a file in the home folder or CI=true
# forbids it. Without that package they say nothing: None makes its import fail.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
