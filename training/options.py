"""What a recipe says: network, crop, optimiser, data, augmentation, method, as frozen dataclasses."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec
from training.data.augment import AugmentOptions
from training.data.order import Sampling
from training.methods import name_of
from training.methods.distillation import DistillationOptions
from training.methods.grefel import GrefelOptions

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
    project_query: bool = False


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
    faces are kept, stratified; 0 is without. `seed` draws these, so that runs of several seeds share them.
    `sampler` draws every face once an epoch (all), or every class
    equally often (balanced); `pool` is how many faces of every class an epoch draws, `group_pool` how many of
    every video before that, 0 for all. `valence_arousal` says where methods that need neighbours find
    them: by what the faces' annotations say (""), in a file of neighbours, or by "prototypes", points around
    one per class, which stand in for annotations.
    """

    votes: bool = True
    min_votes: int = 1
    seed: int = 0
    noise: float = 0.0
    imbalance: float = 0.0
    subset: int = 0
    sampler: str = "all"
    pool: int = 0
    group_pool: int = 0
    valence_arousal: str = ""

    def sampling(self) -> Sampling:
        """Return how the faces of an epoch are chosen."""
        return Sampling(sampler=self.sampler, pool=self.pool, group_pool=self.group_pool)


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
