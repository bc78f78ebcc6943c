"""The methods of the papers, each in a file of its own, by the name that recipes use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.methods import grefel
from training.methods.method import Method, Rule


@dataclass(frozen=True, slots=True)
class MethodKind:
    """A method, the dataclass of its options, and what has to hold of them."""

    method: type[Method]
    options: type[Any]
    rules: Callable[[Any], tuple[Rule, ...]]


METHODS: dict[str, MethodKind] = {
    "grefel": MethodKind(grefel.Grefel, grefel.GrefelOptions, grefel.rules),
}
DEFAULT = "grefel"


def name_of(options: object) -> str:
    """Return the name of the method whose options these are."""
    return next(name for name, kind in METHODS.items() if type(options) is kind.options)
