"""The network definitions: the only place in the project that defines a trainable network."""

from __future__ import annotations

from training.models.balancing import HeadOutput
from training.models.encoder import MapEncoder
from training.models.network import (
    DEFAULTS,
    ENCODERS,
    HEADS,
    ExpressionNetwork,
    NetworkSpec,
    build,
    build_from_spec,
    calibrated,
    standardise,
)

__all__ = [
    "DEFAULTS",
    "ENCODERS",
    "HEADS",
    "ExpressionNetwork",
    "HeadOutput",
    "MapEncoder",
    "NetworkSpec",
    "build",
    "build_from_spec",
    "calibrated",
    "standardise",
]
