"""What the `export` command was asked for, and what of it cannot work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibrate.recipe import Recipe
from edge_fer.errors import UsageError
from export.target import TARGETS

PRECISIONS = ("fp32", "fp16", "int8", "auto")
DYNAMIC = "dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What the `export` command was asked for; see its help."""

    checkpoint: str | None = None
    target: str = "onnx"
    precision: str = "fp32"
    output: Path | None = None
    calibration_data: str | None = None
    samples: int | None = None
    seed: int = 0
    recipe: str | None = None
    stability: bool = False
    attribution: bool = False
    embedding: bool = False
    parity_data: str | None = None
    golden: str | None = None
    card: Path | None = None

    @property
    def calibrates(self) -> bool:
        """True when calibration faces are needed."""
        return self.precision == "auto" or (self.precision == "int8" and self.recipe != DYNAMIC)


def check_options(options: ExportOptions) -> None:
    """Refuse what cannot work before anything is computed.

    Raises:
        UsageError: a target or precision that does not exist, or an option without what it works on.
        CalibrationError: a value that no recipe knows.
    """
    if options.target not in TARGETS:
        raise UsageError(f"--target {options.target}: expected {', '.join(TARGETS)}")
    if options.precision not in PRECISIONS:
        raise UsageError(f"--precision {options.precision}: expected {', '.join(PRECISIONS)}")
    if options.calibrates and options.calibration_data is None:
        raise UsageError(
            f"--precision {options.precision} needs --calibration-data: faces like those the model will see"
        )
    if options.precision == "auto" and options.parity_data is None:
        raise UsageError("--precision auto needs --parity-data: it climbs until every gate passes on it")
    if options.golden == "parity" and options.parity_data is None:
        raise UsageError("--golden parity needs --parity-data: the golden samples are taken from it")
    if options.recipe is not None and options.precision not in ("int8", "auto"):
        raise UsageError(f"--recipe is for int8 and auto, got --precision {options.precision}")
    if options.recipe == DYNAMIC and options.precision == "auto":
        raise UsageError("--recipe dynamic is one rung of --precision auto: leave it out, or take int8")
    if options.stability and not (options.calibrates and options.parity_data):
        raise UsageError("--stability needs int8 with --calibration-data, and --parity-data to answer")
    if options.attribution and not (options.precision in ("int8", "auto") and options.parity_data):
        raise UsageError("--attribution needs --precision int8 or auto, and --parity-data with faces to flip")
    if options.recipe != DYNAMIC:
        read_recipe(options.recipe, Recipe())


def read_recipe(text: str | None, default: Recipe) -> Recipe:
    """Change a target's default recipe by what the user wrote, `ranges=percentile,weights=s8`.

    Raises:
        UsageError: an unknown key or value.
        CalibrationError: a value that no recipe knows.
    """
    choices: dict[str, Any] = {}
    for entry in filter(None, (text or "").split(",")):
        key, _, value = entry.partition("=")
        if key not in READERS:
            raise UsageError(f"--recipe {entry}: expected dynamic, or KEY=VALUE of {', '.join(READERS)}")
        try:
            choices[key] = READERS[key](value)
        except ValueError as error:
            raise UsageError(f"--recipe {entry}: {error}") from error
    return replace(default, **choices)


def _yes_or_no(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(f"expected yes or no, got {value!r}")
    return value == "yes"


def _share(value: str) -> float | None:
    return None if value == "none" else float(value)


def _modules(value: str) -> frozenset[str]:
    return frozenset(filter(None, value.split("+")))


READERS: Mapping[str, Callable[[str], object]] = {
    "weights": str,
    "activations": str,
    "symmetric": _yes_or_no,
    "ranges": str,
    "smooth_quant": _share,
    "bias_correction": str,
    "float_first": _yes_or_no,
    "float_modules": _modules,
}
