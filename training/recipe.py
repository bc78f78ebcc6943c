"""Recipes: typed TOML files that say how a network is trained. Unknown keys and wrong types are refused."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import tomllib

from edge_fer.errors import RecipeError
from edge_fer.labels import LABELS
from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec
from training.data.augment import AugmentOptions
from training.methods.distillation import DistillationOptions
from training.methods.grefel import GrefelOptions
from training.models import DEFAULTS

PRECISIONS = ("32-true", "bf16-mixed")
# The loop multiplies the seed by about 10^11 for the generator of a batch, which has to fit into 64 bits.
LARGEST_SEED = 100_000_000

Rule = tuple[str, object, str, bool]  # name, value, what is expected of it, whether it holds


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
    """AdamW under a one-cycle rate: linear warm-up over the first `warmup` of the steps, cosine to zero.

    `average` is the decay per step of the moving average of the weights that is validated and kept in the
    checkpoints; 0 keeps the weights themselves.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    clip_norm: float = 5.0
    average: float = 0.0
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

    def spec(self, size: int) -> CropSpec:
        """Return the rule for crops of `size` pixels.

        Raises:
            ValueError: an option outside its range.
        """
        return CropSpec(size=size, margin=self.margin, alignment=self.alignment, template=self.template())


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsNote:
    """What a bundle says of the weights this recipe gives."""

    licence: str = "not stated"
    training_data: str = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run but for its data."""

    name: str
    network: NetworkOptions
    crop: CropOptions = field(default_factory=CropOptions)
    optimiser: OptimiserOptions
    method: GrefelOptions = field(default_factory=GrefelOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    weights: WeightsNote = field(default_factory=WeightsNote)

    def to_json(self) -> dict[str, object]:
        """Return the recipe with all its defaults as plain JSON values."""
        return asdict(self)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: unreadable, not TOML, a key unknown or missing, a value of a wrong type or out of range.
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
    """Refuse values no run can use. Every comparison is written so that NaN fails it."""
    rules = (
        *network_rules(recipe.network),
        *optimiser_rules(recipe.optimiser),
        *method_rules(recipe.method),
        *training_delta_rules(recipe),
        *distillation_rules(recipe.distillation),
        *augment_rules(recipe.augment),
    )
    for name, value, wanted, good in rules:
        if not good:
            raise RecipeError(f"{path}: expected {name} {wanted}, got {value!r}")
    try:
        recipe.crop.spec(1)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error


def network_rules(network: NetworkOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [network]."""
    size = network.input_size
    models = " or ".join(sorted(DEFAULTS))
    return (
        ("network.model", network.model, models, network.model in DEFAULTS),
        ("network.classes", network.classes, f"of 2 to {len(LABELS)}", 2 <= network.classes <= len(LABELS)),
        ("network.input_size", size, "of 8 to 1024", size is None or 8 <= size <= 1024),
        ("network.head", network.head, "balanced or linear", network.head in ("balanced", "linear")),
        ("network.anchors", network.anchors, "of 1 or more", network.anchors >= 1),
        ("network.delta", network.delta, "above 0", 0.0 < network.delta < math.inf),
        ("network.slots", network.slots, "of 1 or more", network.slots >= 1),
        ("network.dropout", network.dropout, "from 0 to below 1", 0.0 <= network.dropout < 1.0),
    )


def optimiser_rules(optimiser: OptimiserOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [optimiser]."""
    rate, decay, precision = optimiser.learning_rate, optimiser.weight_decay, optimiser.precision
    return (
        ("optimiser.epochs", optimiser.epochs, "above 0", optimiser.epochs > 0),
        ("optimiser.batch_size", optimiser.batch_size, "of 2 or more", optimiser.batch_size >= 2),
        ("optimiser.learning_rate", rate, "above 0", 0.0 < rate < math.inf),
        ("optimiser.weight_decay", decay, "of 0 or more", 0.0 <= decay < math.inf),
        ("optimiser.warmup", optimiser.warmup, "of 0 to 1", 0.0 <= optimiser.warmup <= 1.0),
        ("optimiser.clip_norm", optimiser.clip_norm, "above 0", optimiser.clip_norm > 0.0),
        ("optimiser.average", optimiser.average, "from 0 to below 1", 0.0 <= optimiser.average < 1.0),
        ("optimiser.precision", precision, " or ".join(PRECISIONS), precision in PRECISIONS),
        ("optimiser.seed", optimiser.seed, f"of 0 to {LARGEST_SEED}", 0 <= optimiser.seed <= LARGEST_SEED),
        ("optimiser.checkpoint_every", optimiser.checkpoint_every, "above 0", optimiser.checkpoint_every > 0),
    )


def method_rules(method: GrefelOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [method]."""
    names = ("classification", "anchor", "centre", "primary", "similarity")
    weights = {f"method.{name}": getattr(method, name) for name in names}
    return (
        *((name, value, "of 0 or more", 0.0 <= value < math.inf) for name, value in weights.items()),
        ("method.smoothing", method.smoothing, "from 0 to below 1", 0.0 <= method.smoothing < 1.0),
        ("method.margin", method.margin, "above 0", method.margin > 0.0),
        ("method.min_votes", method.min_votes, "of 1 or more", method.min_votes >= 1),
        ("method.balance", method.balance, "of 0 to 1", 0.0 <= method.balance <= 1.0),
        ("method.warmup_epochs", method.warmup_epochs, "of 0 or more", method.warmup_epochs >= 0),
    )


def training_delta_rules(recipe: Recipe) -> tuple[Rule, ...]:
    """Return what has to hold for method.training_delta: only an average can differ from what is trained."""
    delta, average, head = recipe.method.training_delta, recipe.optimiser.average, recipe.network.head
    if delta is None:
        return ()
    return (
        ("method.training_delta", delta, "above 0", 0.0 < delta < math.inf),
        ("optimiser.average", average, "above 0 where method.training_delta is set", average > 0.0),
        ("network.head", head, "balanced where method.training_delta is set", head == "balanced"),
    )


def distillation_rules(distillation: DistillationOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [distillation]."""
    share, embedding = distillation.share, distillation.embedding
    return (
        ("distillation.share", share, "of 0 to 1", 0.0 <= share <= 1.0),
        ("distillation.embedding", embedding, "of 0 or more", 0.0 <= embedding < math.inf),
    )


def augment_rules(augment: AugmentOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [augment]: probabilities and shares in 0..1, scale and gamma below 1."""
    shares = ("flip", "translate", "brightness", "contrast", "blur", "erase")
    ranges = {name: getattr(augment, name) for name in shares}
    return (
        *((f"augment.{name}", value, "of 0 to 1", 0.0 <= value <= 1.0) for name, value in ranges.items()),
        ("augment.rotate", augment.rotate, "of 0 to 180", 0.0 <= augment.rotate <= 180.0),
        ("augment.scale", augment.scale, "from 0 to below 1", 0.0 <= augment.scale < 1.0),
        ("augment.gamma", augment.gamma, "from 0 to below 1", 0.0 <= augment.gamma < 1.0),
        ("augment.noise", augment.noise, "of 0 or more", 0.0 <= augment.noise < math.inf),
        ("augment.erase_area", augment.erase_area, "of 0.02 to 1", 0.02 <= augment.erase_area <= 1.0),
        ("augment.mixup", augment.mixup, "of 0 or more", 0.0 <= augment.mixup < math.inf),
    )
