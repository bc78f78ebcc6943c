"""How an encoder is quantised statically: one vocabulary for all targets, whatever each tool calls it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields

from edge_fer.errors import CalibrationError

WEIGHTS = ("s8", "s8-7bit")
ACTIVATIONS = ("u8", "s8")
RANGES = ("minmax", "mean", "percentile", "entropy", "mse")
BIAS_CORRECTIONS = ("none", "fast", "slow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The choices of a static quantisation; each target's module holds its own default, `DEFAULT`.

    Attributes:
        weights: signed 8 bits, one scale per output channel; with "s8-7bit" they keep 7 of them, so that
            u8 x s8 products cannot saturate the 16-bit sums of x86 without VNNI.
        activations: unsigned or signed 8 bits, one scale per tensor.
        symmetric: activations with zero point 0 (signed) or starting at 0 (unsigned).
        ranges: how an activation's range follows from what the faces give: "minmax" the extremes over all
            faces, "mean" the mean of each face's extremes, "percentile" all but the outermost values,
            "entropy" the least information lost, "mse" the least squared error.
        smooth_quant: how much of the activations' spread moves into the weights of matrix products, 0..1
            (Xiao et al. 2023, Eq. 4); None: nothing. It acts where the encoder attends.
        bias_correction: whether biases make up for the mean error that quantisation leaves.
        float_first: the convolutions that read the pixels compute in float. A grid of 8 bits that holds 0
            exactly, for the padding, misses all 256 levels of a pixel by up to half a step and in the same
            direction; these layers are a small share of the work, and quantising their narrower inputs
            instead of the pixels costs more than it saves.
        float_modules: module paths of the network that stay float with everything beneath them, such as
            "encoder.stages.1.0".

    Raises:
        CalibrationError: a choice outside the vocabulary.
    """

    weights: str = "s8"
    activations: str = "u8"
    symmetric: bool = False
    ranges: str = "minmax"
    smooth_quant: float | None = None
    bias_correction: str = "none"
    float_first: bool = True
    float_modules: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        choices = {
            "weights": WEIGHTS,
            "activations": ACTIVATIONS,
            "ranges": RANGES,
            "bias_correction": BIAS_CORRECTIONS,
        }
        for field, known in choices.items():
            check_choice("recipe", field, getattr(self, field), known)
        if self.smooth_quant is not None and not 0.0 <= self.smooth_quant <= 1.0:
            raise CalibrationError(
                f"recipe: expected smooth_quant from 0 to 1 or none, got {self.smooth_quant}"
            )

    def to_json(self) -> dict[str, object]:
        """Return the recipe as plain JSON values, for certificates."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "float_modules": sorted(self.float_modules)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one quantiser can do of a recipe."""

    tool: str
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    ranges: tuple[str, ...]
    symmetric_activations: tuple[str, ...] = ACTIVATIONS
    bias_corrections: tuple[str, ...] = ("none",)
    smooth_quant: bool = False

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that the tool would have to change.

        Raises:
            CalibrationError: names the field and what the tool offers.
        """
        check_choice(self.tool, "weights", recipe.weights, self.weights)
        check_choice(self.tool, "activations", recipe.activations, self.activations)
        check_choice(self.tool, "ranges", recipe.ranges, self.ranges)
        check_choice(self.tool, "bias_correction", recipe.bias_correction, self.bias_corrections)
        if recipe.symmetric and recipe.activations not in self.symmetric_activations:
            raise CalibrationError(
                f"{self.tool}: expected {' or '.join(self.symmetric_activations)} activations in a symmetric "
                f"recipe, got {recipe.activations}"
            )
        if recipe.smooth_quant is not None and not self.smooth_quant:
            raise CalibrationError(f"{self.tool}: expected no smooth_quant, got {recipe.smooth_quant}")


def check_choice(who: str, field: str, got: object, known: Collection[object]) -> None:
    """Raise CalibrationError unless `got` is one of the known values."""
    if got not in known:
        expected = " or ".join(str(value) for value in known)
        raise CalibrationError(f"{who}: expected {field} {expected}, got {got}")


def covers(modules: Iterable[str], path: str) -> bool:
    """Tell whether a module path is one of `modules` or lies beneath one."""
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def check_modules(asked: Collection[str], present: Collection[str]) -> None:
    """Refuse module paths that no operator comes from: they would change nothing without a word.

    Args:
        asked: the paths of a recipe.
        present: the module of every operator of the encoder.

    Raises:
        CalibrationError: names the first such path.
    """
    for module in sorted(asked):
        if not any(covers([module], path) for path in present):
            raise CalibrationError(
                f"float_modules: expected modules of which the encoder has operators, got {module}"
            )


def check_quantised(counts: Mapping[str, int], carriers: Collection[str]) -> None:
    """Refuse a graph in which no operator that carries the work was quantised: it would be the float one.

    Args:
        counts: operator type to how many were quantised.
        carriers: the types of convolutions and matrix products.

    Raises:
        CalibrationError: none of them was.
    """
    if not any(counts.get(kind) for kind in carriers):
        raise CalibrationError(
            "expected quantised convolutions or matrix products, the quantiser left all of them float"
        )
