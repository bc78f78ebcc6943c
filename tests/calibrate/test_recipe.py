"""The vocabulary of recipes: what is refused, what a tool offers, which modules a path covers."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from calibrate.recipe import Offer, Recipe, check_modules, covers
from edge_fer.errors import CalibrationError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", "u8"),
        ("activations", "s8-7bit"),
        ("ranges", "max"),
        ("bias_correction", "yes"),
        ("smooth_quant", 1.5),
        ("smooth_quant", float("nan")),
    ],
)
def test_words_outside_the_vocabulary_are_refused(field: str, value: object) -> None:
    with pytest.raises(CalibrationError, match=rf"recipe: expected {field} .*, got {value}$"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_a_recipe_is_plain_json() -> None:
    recipe = Recipe(smooth_quant=0.5, float_modules=frozenset({"b.1", "a"}))
    content = json.loads(json.dumps(recipe.to_json()))
    assert set(content) == {field.name for field in fields(Recipe)}
    assert (content["weights"], content["smooth_quant"], content["float_modules"]) == (
        "s8",
        0.5,
        ["a", "b.1"],
    )


def test_a_tool_refuses_what_it_does_not_offer() -> None:
    offer = Offer(tool="A tool", weights=("s8",), activations=("u8",), ranges=("minmax", "mse"))
    recipe = Recipe(ranges="mse")
    offer.check(recipe)
    offer.check(replace(recipe, symmetric=True, float_first=False, float_modules=frozenset({"x"})))
    for change in (
        {"weights": "s8-7bit"},
        {"activations": "s8"},
        {"ranges": "mean"},
        {"bias_correction": "fast"},
        {"smooth_quant": 0.0},
    ):
        with pytest.raises(CalibrationError, match=rf"^A tool: expected (no )?{next(iter(change))}"):
            offer.check(replace(recipe, **change))  # type: ignore[arg-type]


def test_a_module_covers_what_is_beneath_it() -> None:
    modules = ("encoder.stages.1", "head")
    assert all(covers(modules, path) for path in ("head", "encoder.stages.1", "encoder.stages.1.0.conv1"))
    assert not any(covers(modules, path) for path in ("", "encoder", "encoder.stages.10", "x.head"))
    assert not covers((), "head")


def test_a_module_without_operators_is_refused() -> None:
    present = {"encoder.stages.1.0", "encoder.stem"}
    check_modules({"encoder", "encoder.stages.1"}, present)
    check_modules((), present)
    with pytest.raises(CalibrationError, match=r"float_modules: .*, got encoder\.stages\.2$"):
        check_modules({"encoder", "encoder.stages.2"}, present)
