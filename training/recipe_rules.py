"""What has to hold of a recipe's values before a run begins; every comparison is one that NaN fails."""

from __future__ import annotations

import math
from pathlib import Path

from edge_fer.errors import RecipeError
from edge_fer.labels import LABELS
from training.data.augment import AugmentOptions
from training.data.order import SAMPLERS
from training.methods import METHODS, name_of
from training.methods.distillation import DistillationOptions
from training.methods.method import Rule
from training.models import DEFAULTS
from training.models.balancing import BALANCING
from training.options import DataOptions, NetworkOptions, OptimiserOptions, Recipe

CROSSING = ("grefel", "posterpp")  # whose encoders have cross-attention
PRECISIONS = ("32-true", "bf16-mixed")
OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "exponential", "steps")
# The loop multiplies the seed by about 10^11 for the generator of a batch, which has to fit into 64 bits.
LARGEST_SEED = 100_000_000
# A slip of the finger ends here and not in the allocator.
MOST = 10_000  # anchors, slots
MOST_POOLED = 1_000_000  # faces of a class in an epoch


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
    queries, crossing = network.project_query, network.model in CROSSING
    return (
        ("network.model", network.model, models, network.model in DEFAULTS),
        ("network.classes", network.classes, f"of 2 to {len(LABELS)}", 2 <= network.classes <= len(LABELS)),
        ("network.input_size", size, "of 8 to 1024", size is None or 8 <= size <= 1024),
        ("network.balancing", network.balancing, " or ".join(BALANCING), network.balancing in BALANCING),
        ("network.anchors", network.anchors, f"of 1 to {MOST}", 1 <= network.anchors <= MOST),
        ("network.delta", network.delta, "above 0", 0.0 < network.delta < math.inf),
        ("network.slots", network.slots, f"of 1 to {MOST}", 1 <= network.slots <= MOST),
        ("network.dropout", network.dropout, "from 0 to below 1", 0.0 <= network.dropout < 1.0),
        ("network.project_query", queries, f"with {' or '.join(CROSSING)} alone", crossing or not queries),
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
    average, share = recipe.optimiser.average, recipe.distillation.share
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
        (
            "distillation.share",
            share,
            f"of 0 with {name}, which takes labels alone",
            share == 0 or not kind.method.labels_alone,
        ),
    )


def data_rules(data: DataOptions) -> tuple[Rule, ...]:
    """Return what has to hold for [data]."""
    return (
        ("data.min_votes", data.min_votes, "of 1 or more", data.min_votes >= 1),
        ("data.seed", data.seed, f"of 0 to {LARGEST_SEED}", 0 <= data.seed <= LARGEST_SEED),
        ("data.noise", data.noise, "from 0 to below 1", 0.0 <= data.noise < 1.0),
        (
            "data.imbalance",
            data.imbalance,
            "of 0, or of 1 or more",
            data.imbalance == 0 or 1 <= data.imbalance < math.inf,
        ),
        ("data.subset", data.subset, "of 0 or more", data.subset >= 0),
        ("data.sampler", data.sampler, " or ".join(SAMPLERS), data.sampler in SAMPLERS),
        (
            "data.pool",
            data.pool,
            f"of 0 to {MOST_POOLED}, 0 with the balanced sampler",
            data.pool == 0 or (0 < data.pool <= MOST_POOLED and data.sampler == "all"),
        ),
        ("data.group_pool", data.group_pool, "of 0 or more", data.group_pool >= 0),
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
        # A tinier one is 0 in float32, of which there is no Beta distribution.
        (
            "augment.mixup",
            augment.mixup,
            "of 0, or of 0.001 or more",
            augment.mixup == 0 or 1e-3 <= augment.mixup < math.inf,
        ),
    )
