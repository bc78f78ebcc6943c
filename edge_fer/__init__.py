"""edge-fer: facial expression recognition on small computers, from bundles that prove themselves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_fer.bundle import Bundle
    from edge_fer.recognizer import Prediction, Recognizer

__version__ = "0.1.0"
__all__ = ["Bundle", "Prediction", "Recognizer", "__version__"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'edge_fer' has no attribute {name!r}")
    return getattr(import_module(f"edge_fer.{'bundle' if name == 'Bundle' else 'recognizer'}"), name)
