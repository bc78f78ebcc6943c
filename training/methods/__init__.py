"""The methods of the papers, each in a file of its own, by the name that recipes use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.methods import cross_entropy, dan, dmue, eac, grefel, ldlva, rac_rsl, rul, scn
from training.methods.method import Method, Rule


@dataclass(frozen=True, slots=True)
class MethodKind:
    """A method, the dataclass of its options, and what has to hold of them."""

    method: type[Method]
    options: type[Any]
    rules: Callable[[Any], tuple[Rule, ...]]


METHODS: dict[str, MethodKind] = {
    "cross_entropy": MethodKind(
        cross_entropy.CrossEntropy, cross_entropy.CrossEntropyOptions, cross_entropy.rules
    ),
    "dan": MethodKind(dan.Dan, dan.DanOptions, dan.rules),
    "dmue": MethodKind(dmue.Dmue, dmue.DmueOptions, dmue.rules),
    "eac": MethodKind(eac.Eac, eac.EacOptions, eac.rules),
    "grefel": MethodKind(grefel.Grefel, grefel.GrefelOptions, grefel.rules),
    "ldlva": MethodKind(ldlva.Ldlva, ldlva.LdlvaOptions, ldlva.rules),
    "rac_rsl": MethodKind(rac_rsl.RacRsl, rac_rsl.RacRslOptions, rac_rsl.rules),
    "rul": MethodKind(rul.Rul, rul.RulOptions, rul.rules),
    "scn": MethodKind(scn.Scn, scn.ScnOptions, scn.rules),
}
DEFAULT = "grefel"


def name_of(options: object) -> str:
    """Return the name of the method whose options these are."""
    return next(name for name, kind in METHODS.items() if type(options) is kind.options)
