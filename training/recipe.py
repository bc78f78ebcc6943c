"""Recipes: typed TOML files that say how a network is trained. Unknown keys and wrong types are refused."""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import tomllib

from edge_fer.errors import RecipeError
from edge_fer.labels import LABELS
from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec
from training.data.augment import AugmentOptions
from training.methods import DEFAULT, METHODS, name_of
from training.methods.distillation import DistillationOptions
from training.methods.grefel import GrefelOptions
from training.methods.method import Rule
from training.models import DEFAULTS
from training.models.balancing import BALANCING

PRECISIONS = ("32-true", "bf16-mixed")
OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "exponential", "steps")
SAMPLERS = ("all", "balanced")
# The loop multiplies the seed by about 10^11 for the generator of a batch, which has to fit into 64 bits.
LARGEST_SEED = 100_000_000

Rates = tuple[tuple[int, float], ...]  # from which epoch on, which rate


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network, and what of its spec the recipe sets; without `head` it is the method's own choice."""

    model: str
    classes: int = 8
    input_size: int | None = None
    head: str | None = None
    anchors: int = 10
    delta: float = 1.0
    slots: int = 5
    dropout: float = 0.5
    balancing: str = "both"
    printed_order: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserOptions:
    """How the weights are found.

    `kind` is adamw, adam or sgd (with `momentum`). `schedule` is one-cycle (linear warm-up over the first
    `warmup` of the steps, cosine to zero), exponential (times `gamma` after every epoch) or steps (`rates`:
    pairs of an epoch and the rate from there on). The head and what the method trains beside the network get
    `head_rate` times that, or `head_rates` of their own.

    `batch_size` faces make a step, over all processes; each computes them in `accumulate` parts. `average` is
    the decay per step of the moving average of the weights that is validated and kept in the checkpoints; 0
    keeps the weights themselves. `sharpness` is the radius of sharpness-aware minimisation; 0 is without.
    `frozen_norms` leaves BatchNorms at their running statistics. `patience` ends a run after so many epochs
    without a better validation accuracy, `minutes` of training after so long; 0 is without. With `minutes`
    the schedule goes by time, and `epochs` are the most it may take.
    """

    epochs: int
    batch_size: int = 128
    accumulate: int = 1
    kind: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    schedule: str = "one-cycle"
    warmup: float = 0.1
    gamma: float = 0.9
    rates: Rates = ()
    head_rate: float = 1.0
    head_rates: Rates = ()
    clip_norm: float = 5.0
    average: float = 0.0
    sharpness: float = 0.0
    frozen_norms: bool = False
    patience: int = 0
    minutes: float = 0.0
    precision: str = "32-true"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What is made of the training faces; the validation faces stay as they are.

    `votes` takes the distribution of the votes as target where there are some, without the emotions of fewer
    than `min_votes`; else the label. `noise` is the share of faces that get a wrong label, `imbalance` the
    factor between the largest and the smallest class that is made by leaving faces out, `subset` how many
    faces are kept, stratified; 0 is without. `sampler` draws every face once an epoch (all), or every class
    equally often (balanced); `pool` is how many faces of a class an epoch draws from, 0 for all.
    `valence_arousal` says where methods that need it find it: with the faces (""), in a CSV file, or
    "prototypes", points around one per class, which stand in for annotations.
    """

    votes: bool = True
    min_votes: int = 1
    noise: float = 0.0
    imbalance: float = 0.0
    subset: int = 0
    sampler: str = "all"
    pool: int = 0
    valence_arousal: str = ""


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
    """One training run but for its data; `method` are the options of one of METHODS."""

    name: str
    network: NetworkOptions
    crop: CropOptions = field(default_factory=CropOptions)
    optimiser: OptimiserOptions
    method: object = field(default_factory=GrefelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    weights: WeightsNote = field(default_factory=WeightsNote)

    def to_json(self) -> dict[str, object]:
        """Return the recipe with all its defaults as plain JSON values."""
        values = json.loads(json.dumps(asdict(self)))
        return {**values, "method": {"name": name_of(self.method), **values["method"]}}


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
    recipe = parse_recipe(values, str(path))
    check(recipe, path)
    return recipe


def parse_recipe(values: dict[str, object], where: str) -> Recipe:
    """Build a recipe from the tables of a file; [method] names whose options it holds."""
    method = values.get("method", {})
    if not isinstance(method, dict):
        raise RecipeError(f"{where}: method: expected a table, got {method!r}")
    name = method.get("name", DEFAULT)
    if not isinstance(name, str) or name not in METHODS:
        raise RecipeError(f"{where}: expected method.name {' or '.join(sorted(METHODS))}, got {name!r}")
    own = {key: value for key, value in method.items() if key != "name"}
    options = parse(METHODS[name].options, own, f"{where}: method")
    rest = {key: value for key, value in values.items() if key != "method"}
    return replace(parse(Recipe, rest, where), method=options)


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
    if kind == Rates:
        return parse_rates(value, where)
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in options and type(value) is int:
        return float(value)
    if type(value) not in options:
        names = " or ".join(option.__name__ for option in options if option is not types.NoneType)
        raise RecipeError(f"{where}: expected {names}, got {value!r}")
    return value


def parse_rates(value: object, where: str) -> Rates:
    """Check a list of [epoch, rate] pairs whose first epoch is 0 and whose epochs rise."""
    pairs: list[Any] = value if isinstance(value, list) else [None]
    good = all(
        isinstance(pair, list)
        and len(pair) == 2
        and type(pair[0]) is int
        and type(pair[1]) in (int, float)
        and 0.0 <= pair[1] < math.inf
        for pair in pairs
    )
    epochs = [pair[0] for pair in pairs] if good else []
    if not good or (epochs and epochs[0] != 0) or sorted(set(epochs)) != epochs:
        raise RecipeError(f"{where}: expected pairs [epoch, rate] from epoch 0 on in order, got {value!r}")
    return tuple((epoch, float(rate)) for epoch, rate in pairs)


def check(recipe: Recipe, path: Path) -> None:
    """Refuse values no run can use. Every comparison is written so that NaN fails it."""
    rules = (
        *network_rules(recipe.network),
        *optimiser_rules(recipe.optimiser),
        *method_rules(recipe),
        *data_rules(recipe.data),
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
        ("network.balancing", network.balancing, " or ".join(BALANCING), network.balancing in BALANCING),
        ("network.anchors", network.anchors, "of 1 or more", network.anchors >= 1),
        ("network.delta", network.delta, "above 0", 0.0 < network.delta < math.inf),
        ("network.slots", network.slots, "of 1 or more", network.slots >= 1),
        ("network.dropout", network.dropout, "from 0 to below 1", 0.0 <= network.dropout < 1.0),
    )


def optimiser_rules(optimiser: OptimiserOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [optimiser]."""
    o = optimiser
    above = {"learning_rate": o.learning_rate, "clip_norm": o.clip_norm, "gamma": o.gamma}
    least = {
        "weight_decay": o.weight_decay,
        "head_rate": o.head_rate,
        "sharpness": o.sharpness,
        "minutes": o.minutes,
    }
    chosen = {
        "kind": (o.kind, OPTIMISERS),
        "schedule": (o.schedule, SCHEDULES),
        "precision": (o.precision, PRECISIONS),
    }
    rules: tuple[Rule, ...] = (
        ("epochs", o.epochs, "above 0", o.epochs > 0),
        ("batch_size", o.batch_size, "of 2 or more", o.batch_size >= 2),
        ("accumulate", o.accumulate, "of 1 or more", o.accumulate >= 1),
        ("warmup", o.warmup, "of 0 to 1", 0.0 <= o.warmup <= 1.0),
        ("momentum", o.momentum, "from 0 to below 1", 0.0 <= o.momentum < 1.0),
        ("average", o.average, "from 0 to below 1", 0.0 <= o.average < 1.0),
        ("patience", o.patience, "of 0 or more", o.patience >= 0),
        ("seed", o.seed, f"of 0 to {LARGEST_SEED}", 0 <= o.seed <= LARGEST_SEED),
        ("checkpoint_every", o.checkpoint_every, "above 0", o.checkpoint_every > 0),
        ("rates", o.rates, 'given with schedule = "steps" alone', bool(o.rates) == (o.schedule == "steps")),
        *((name, value, "above 0", 0.0 < value < math.inf) for name, value in above.items()),
        *((name, value, "of 0 or more", 0.0 <= value < math.inf) for name, value in least.items()),
        *((name, value, " or ".join(names), value in names) for name, (value, names) in chosen.items()),
    )
    return tuple((f"optimiser.{name}", value, wanted, good) for name, value, wanted, good in rules)


def method_rules(recipe: Recipe) -> tuple[Rule, ...]:
    """Return what has to hold for [method] itself, and for the head it trains."""
    name = name_of(recipe.method)
    kind, head = METHODS[name], recipe.network.head
    heads = kind.method.heads
    delta = getattr(recipe.method, "training_delta", None)
    average = recipe.optimiser.average
    return (
        *((f"method.{n}", value, wanted, good) for n, value, wanted, good in kind.rules(recipe.method)),
        ("network.head", head, f"{' or '.join(heads)} for {name}", head is None or head in heads),
        # Only an average can differ from what is trained.
        (
            "optimiser.average",
            average,
            "above 0 where method.training_delta is set",
            delta is None or average > 0,
        ),
    )


def data_rules(data: DataOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [data]."""
    return (
        ("data.min_votes", data.min_votes, "of 1 or more", data.min_votes >= 1),
        ("data.noise", data.noise, "from 0 to below 1", 0.0 <= data.noise < 1.0),
        (
            "data.imbalance",
            data.imbalance,
            "of 0, or of 1 or more",
            data.imbalance == 0 or 1 <= data.imbalance < math.inf,
        ),
        ("data.subset", data.subset, "of 0 or more", data.subset >= 0),
        ("data.sampler", data.sampler, " or ".join(SAMPLERS), data.sampler in SAMPLERS),
        ("data.pool", data.pool, "of 0 or more", data.pool >= 0),
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
