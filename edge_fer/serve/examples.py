"""Examples for OpenAPI: what the embedded bundle really said of the demo photo; a test runs it again."""

from __future__ import annotations

from typing import Any

PICTURE: dict[str, Any] = {
    "source": "astronaut.jpg",
    "frame": None,
    "time_s": None,
    "faces": [
        {
            "box": [177.0, 67.0, 93.0, 93.0],
            "landmarks": None,
            "label": "happiness",
            "probabilities": {
                "neutral": 0.0038271,
                "happiness": 0.9764242,
                "surprise": 0.000965,
                "sadness": 0.0039715,
                "anger": 0.004196,
                "disgust": 0.0048469,
                "fear": 0.0045193,
                "contempt": 0.00125,
            },
            "primary": {
                "neutral": 4.28e-05,
                "happiness": 0.9980007,
                "surprise": 0.0001508,
                "sadness": 6.09e-05,
                "anger": 0.0001392,
                "disgust": 0.000717,
                "fear": 0.0003374,
                "contempt": 0.000551,
            },
            "reliability": 0.9255524,
            "abstained": False,
            "track": None,
        }
    ],
    "detector": "cascade",
    "latency_ms": {
        "decode": 2.853,
        "detect": 24.176,
        "track": None,
        "preprocess": 0.238,
        "recognise": 0.533,
        "total": 27.8,
    },
}
BROKEN = {
    "source": "notes.txt",
    "error": "notes.txt: expected a JPEG, PNG, WebP, GIF, BMP or TIFF, got something else",
}
RUNTIME = {
    "version": "0.1.0",
    "engine": "onnxruntime 1.31.1",
    "precision": "int8",
    "threads": 1,
    "device": "cpu",
    "detector": "cascade",
    "certified_here": True,
    "summary": "grefel-lite onnx int8: parity passed on 3,553 faces, 28 labels changed, certified on x86-64 "
    "avx512-vnni",
    "min_reliability": None,
    "batch": 1,
}
"""Of `GET /v1/bundle`; bundle and certificate beside it are the files of the bundle, and long."""
