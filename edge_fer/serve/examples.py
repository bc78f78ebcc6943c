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
                "neutral": 4.3e-05,
                "happiness": 0.9996002,
                "surprise": 1.94e-05,
                "sadness": 3.21e-05,
                "anger": 5.37e-05,
                "disgust": 0.0001487,
                "fear": 7.68e-05,
                "contempt": 2.62e-05,
            },
            "primary": {
                "neutral": 0.0008488,
                "happiness": 0.9890104,
                "surprise": 0.0004833,
                "sadness": 0.0009244,
                "anger": 0.0017482,
                "disgust": 0.0036819,
                "fear": 0.0024506,
                "contempt": 0.0008525,
            },
            "reliability": 0.9979727,
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
    "summary": "grefel-lite onnx int8: parity passed on 3,553 faces, 22 labels changed, certified on x86-64 "
    "avx512-vnni",
    "min_reliability": None,
    "batch": 1,
}
"""Of `GET /v1/bundle`; bundle and certificate beside it are the files of the bundle, and long."""
