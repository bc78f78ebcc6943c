"""The recipes with published hyper-parameters: they load, and say what the papers say."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from training.methods.cross_entropy import CrossEntropyOptions
from training.methods.dan import DanOptions
from training.methods.dmue import DmueOptions
from training.methods.eac import EacOptions
from training.methods.ldlva import LdlvaOptions
from training.methods.rac_rsl import RacRslOptions
from training.methods.rul import RulOptions
from training.methods.scn import ScnOptions
from training.recipe import load_recipe

PAPERS = Path(training.__file__).parent / "recipes/papers"
METHODS = {
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
ONE_HOT = ("cross-entropy", "ldlva", "dmue")  # labels, where there are votes too
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
        assert o.gamma == 0.9


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
