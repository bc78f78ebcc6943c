"""The recipes with published hyper-parameters: they load, and say what the papers say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import training
from training.building import build_network
from training.methods.cross_entropy import CrossEntropyOptions
from training.methods.dan import DanOptions
from training.methods.dmue import DmueOptions
from training.methods.eac import EacOptions
from training.methods.grefel import GrefelOptions
from training.methods.ldlva import LdlvaOptions
from training.methods.rac_rsl import RacRslOptions
from training.methods.rul import RulOptions
from training.methods.scn import ScnOptions
from training.recipe import load_recipe

PAPERS = Path(training.__file__).parent / "recipes/papers"
METHODS = {
    "grefel": GrefelOptions(anchor=1.0, centre=1.0, classification=1.0, smoothing=0.11),
    "posterpp": CrossEntropyOptions(),
    "eac": EacOptions(),
    "rac-rsl": RacRslOptions(),
    "rac-rsl-code": RacRslOptions(variant="code", consistency=0.1, smoothing=0.3),
    "scn": ScnOptions(),
    "rul": RulOptions(),
    "dan": DanOptions(),
    "cross-entropy": CrossEntropyOptions(),
    "ldlva": LdlvaOptions(),
    "dmue": DmueOptions(neck=False),
}
# epochs, batch, kind, rate, weight decay, schedule
OPTIMISERS = {
    "grefel": (1000, 256, "adam", 3e-4, 0.0, "exponential"),
    "posterpp": (200, 144, "adam", 3.5e-5, 0.0, "exponential"),
    "eac": (60, 32, "adam", 2e-4, 1e-4, "exponential"),
    "rac-rsl": (60, 32, "adam", 1e-4, 1e-4, "exponential"),
    "rac-rsl-code": (157, 32, "adamw", 5e-4 * 32 / 512, 0.05, "one-cycle"),
    "scn": (70, 64, "adam", 1e-3, 1e-4, "exponential"),
    "rul": (60, 64, "adam", 2e-4, 1e-4, "exponential"),
    "dan": (40, 256, "sgd", 0.1, 1e-4, "steps"),
    "cross-entropy": (60, 32, "adam", 1e-4, 1e-4, "exponential"),
    "ldlva": (60, 32, "adam", 1e-3, 0.0, "steps"),
    "dmue": (36, 72, "adam", 1e-4, 1e-4, "steps"),
}
GAMMAS = {"grefel": 0.995, "posterpp": 0.98}  # elsewhere 0.9
# Pixels, and what is erased: how often, and the largest share.
PIXELS = {"rac-rsl-code": 112}  # elsewhere 224
ERASED = {"grefel": (0.0, 0.15), "posterpp": (0.5, 0.1), "ldlva": (0.5, 0.3), "rac-rsl-code": (0.25, 0.33)}
ONE_HOT = ("grefel", "posterpp", "cross-entropy", "ldlva", "dmue")  # labels, where there are votes too
# Those of schedule "steps": the rate from each epoch on.
RATES = {
    "dan": ((0, 0.1), (10, 0.01), (20, 0.001), (30, 0.0001)),
    "ldlva": ((0, 1e-3), (10, 1e-4), (20, 1e-5), (40, 1e-6)),
    "dmue": ((0, 1e-4), (6, 5e-5), (12, 1e-5), (22, 5e-5), (25, 1e-5)),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_a_recipe_says_what_its_paper_says(name: str) -> None:
    recipe = load_recipe(PAPERS / f"{name}.toml")
    o = recipe.optimiser
    assert recipe.name == name
    assert recipe.method == METHODS[name]
    found = (o.epochs, o.batch_size, o.kind, o.learning_rate, o.weight_decay, o.schedule)
    assert found == OPTIMISERS[name]
    assert o.rates == RATES.get(name, ())
    assert recipe.data.votes == (name not in ONE_HOT)
    if o.schedule == "exponential":
        assert o.gamma == GAMMAS.get(name, 0.9)
    assert o.sharpness == (0.05 if name == "posterpp" else 0.0)
    with torch.device("meta"):
        assert build_network(recipe).spec.input_size == PIXELS.get(name, 224)
    assert (recipe.augment.erase, recipe.augment.erase_area) == ERASED.get(name, (0.5, 0.25))


def test_every_recipe_of_a_paper_is_checked() -> None:
    assert set(METHODS) == set(OPTIMISERS) == {path.stem for path in PAPERS.glob("*.toml")}


def test_the_constants_of_the_methods_are_the_published_ones() -> None:
    published: dict[object, dict[str, object]] = {
        GrefelOptions(): {"anchor": 1.0, "centre": 1.0, "classification": 1.0, "smoothing": 0.11},
        EacOptions(): {"consistency": 5.0, "erase_area": 0.25},
        RacRslOptions(): {"consistency": 2.0, "smoothing": 0.1, "beta": 0.9999, "transform": "flip"},
        ScnOptions(): {"high_share": 0.7, "margin": 0.15, "relabel_epoch": 10, "relabel_margin": 0.2},
        DanOptions(): {"affinity": 1.0, "partition": 1.0},
        CrossEntropyOptions(): {"class_weights": "none", "smoothing": 0.0, "centre": 0.0, "centre_rate": 0.5},
        LdlvaOptions(): {
            "neighbours": 8,
            "similarity": "l1",
            "uncertainty_start": 0.5,
            "uncertainty_rate": 10.0,
            "uncertainty_momentum": 0.0,
            "discriminative": 0.01,
            "centre_rate": 0.5,
            "separation": 0.1,
        },
        DmueOptions(): {
            "latent": "negatives",
            "temperature": 1.2,
            "dropout": 0.5,
            "omega": 0.5,
            "gamma": 1000.0,
            "ramp_epochs": 9,
            "ramp_factor": 5.0,
            "similarity": "supplement",
        },
    }
    for options, constants in published.items():
        assert {name: getattr(options, name) for name in constants} == constants


def test_grefel_has_ten_anchors_of_each_class_and_draws_500_faces_of_each() -> None:
    recipe = load_recipe(PAPERS / "grefel.toml")
    n = recipe.network
    assert (n.anchors, n.delta, n.dropout, n.balancing) == (10, 1.0, 0.5, "both")
    assert recipe.data.pool == 500
    with torch.device("meta"):
        hidden = build_network(recipe).head.primary
    assert [layer.out_features for layer in hidden if isinstance(layer, torch.nn.Linear)] == [64, 64, 8]


def test_the_code_warms_up_for_2000_of_60000_steps() -> None:
    o = load_recipe(PAPERS / "rac-rsl-code.toml").optimiser
    assert o.epochs * (12271 // o.batch_size) == pytest.approx(60_000, rel=0.005)
    assert o.warmup * 60_000 == pytest.approx(2000, rel=0.005)


def test_the_rate_of_ruls_head_is_tenfold() -> None:
    assert load_recipe(PAPERS / "rul.toml").optimiser.head_rate == 10.0


def test_noise_has_the_published_variance_in_levels() -> None:
    for name in ("eac", "rac-rsl", "scn", "rul"):
        augment = load_recipe(PAPERS / f"{name}.toml").augment
        assert (255 * augment.noise) ** 2 == pytest.approx(30, rel=0.01)
        assert (augment.erase, augment.erase_area) == (0.5, 0.25)


def test_the_heads_of_dmue_have_rates_of_their_own_and_its_batches_are_balanced() -> None:
    recipe = load_recipe(PAPERS / "dmue.toml")
    heads = ((0, 1e-3), (4, 5e-4), (8, 1e-4), (14, 1e-5), (22, 5e-5), (25, 1e-5))
    assert recipe.optimiser.head_rates == heads
    assert recipe.data.sampler == "balanced"
