"""The recipes of cross-entropy, LDLVA and DMUE load and say what the papers say."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from training.methods.cross_entropy import CrossEntropyOptions
from training.methods.dmue import DmueOptions
from training.methods.ldlva import LdlvaOptions
from training.recipe import load_recipe

PAPERS = Path(training.__file__).parent / "recipes/papers"
METHODS = {
    "cross-entropy": CrossEntropyOptions(),
    "ldlva": LdlvaOptions(),
    "dmue": DmueOptions(neck=False),
}
# epochs, batch, weight decay, rates by epoch
OPTIMISERS = {
    "cross-entropy": (60, 32, 1e-4, ()),
    "ldlva": (60, 32, 0.0, ((0, 1e-3), (10, 1e-4), (20, 1e-5), (40, 1e-6))),
    "dmue": (36, 72, 1e-4, ((0, 1e-4), (6, 5e-5), (12, 1e-5), (22, 5e-5), (25, 1e-5))),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_a_recipe_says_what_its_paper_says(name: str) -> None:
    recipe = load_recipe(PAPERS / f"{name}.toml")
    o = recipe.optimiser
    assert recipe.name == name
    assert recipe.method == METHODS[name]
    assert not recipe.data.votes
    assert o.kind == "adam"
    assert (o.epochs, o.batch_size, o.weight_decay, o.rates) == OPTIMISERS[name]


def test_the_heads_of_dmue_have_rates_of_their_own_and_its_batches_are_balanced() -> None:
    recipe = load_recipe(PAPERS / "dmue.toml")
    heads = ((0, 1e-3), (4, 5e-4), (8, 1e-4), (14, 1e-5), (22, 5e-5), (25, 1e-5))
    assert recipe.optimiser.head_rates == heads
    assert recipe.data.sampler == "balanced"
