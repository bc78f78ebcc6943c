"""Recipes: typed TOML files that say how a network is trained. Unknown keys and wrong types are refused."""

from __future__ import annotations

import tomllib
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from edge_fer.errors import RecipeError
from edge_fer.preprocess import FERPLUS_TEMPLATE
from training.data.augment import AugmentOptions
from training.methods.grefel import GrefelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network, and what of its spec the recipe sets."""

    model: str
    classes: int = 8
    input_size: int | None = None
    head: str = "balanced"
    anchors: int = 10
    delta: float = 1.0
    slots: int = 5
    dropout: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserOptions:
    """AdamW under a one-cycle learning rate: linear warm-up over `warmup` of the steps, then cosine to zero."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    clip_norm: float = 5.0
    precision: str = "32-true"
    seed: int = 0
    checkpoint_every: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CropOptions:
    """How the device has to cut a face to match the training faces (see `edge_fer.preprocess.CropSpec`)."""

    margin: float = 0.0
    alignment: str = "none"

    def template(self) -> tuple[tuple[float, float], ...]:
        """Return the five landmarks of the training faces in crop units, empty without alignment."""
        return FERPLUS_TEMPLATE if self.alignment == "five-point" else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run but for its data."""

    name: str
    network: NetworkOptions
    crop: CropOptions = field(default_factory=CropOptions)
    optimiser: OptimiserOptions
    method: GrefelOptions = field(default_factory=GrefelOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def to_json(self) -> dict[str, object]:
        """Return the recipe with all its defaults as plain JSON values."""
        return asdict(self)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: unreadable, not TOML, an unknown or missing key, or a value of the wrong type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: expected a recipe file, could not read it ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected TOML, got: {error}") from error
    recipe = parse(Recipe, values, str(path))
    check(recipe, path)
    return recipe


def parse(kind: Any, values: object, where: str) -> Any:
    """Build the dataclass `kind` from a TOML table, recursively and strictly."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}, expected one of {', '.join(sorted(hints))}")
    arguments = {}
    for item in fields(kind):
        if item.name in values:
            arguments[item.name] = convert(hints[item.name], values[item.name], f"{where}: {item.name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise RecipeError(f"{where}: missing key {item.name!r}")
    return kind(**arguments)


def convert(kind: Any, value: object, where: str) -> object:
    """Check one value against its type; an integer is accepted where a float is expected."""
    if is_dataclass(kind):
        return parse(kind, value, where)
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in options and type(value) is int:
        return float(value)
    if type(value) not in options:
        names = " or ".join(option.__name__ for option in options if option is not types.NoneType)
        raise RecipeError(f"{where}: expected {names}, got {value!r}")
    return value


def check(recipe: Recipe, path: Path) -> None:
    """Refuse values no run can use."""
    optimiser = recipe.optimiser
    positive = {
        "epochs": optimiser.epochs,
        "learning_rate": optimiser.learning_rate,
        "checkpoint_every": optimiser.checkpoint_every,
    }
    for name, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{path}: expected optimiser.{name} above 0, got {value}")
    if optimiser.batch_size < 2:
        raise RecipeError(f"{path}: expected optimiser.batch_size of 2 or more, got {optimiser.batch_size}")
    if optimiser.precision not in ("32-true", "bf16-mixed"):
        raise RecipeError(
            f"{path}: expected optimiser.precision 32-true or bf16-mixed, got {optimiser.precision!r}"
        )
