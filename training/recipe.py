"""Recipes: typed TOML files that say how a network is trained. Unknown keys and wrong types are refused."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import tomllib

from edge_fer.errors import RecipeError
from training.methods import DEFAULT, METHODS
from training.options import Rates, Recipe
from training.recipe_rules import check

LARGEST_NUMBER = 10**12
"""Beyond anything of use; a product of two such rates still is a float32, and a count an int64."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: unreadable, not TOML, a key unknown or missing, a value of a wrong type or out of range.
    """
    recipe = parse_recipe(read_tables(path), str(path))
    check(recipe, path)
    return recipe


def read_tables(path: Path) -> dict[str, Any]:
    """Read the tables of a recipe file, whatever they mean.

    Raises:
        RecipeError: unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise RecipeError(f"{path}: expected a recipe file, could not read it ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: expected TOML, got: {error}") from error


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
    if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
        raise RecipeError(f"{where}: expected a number of {LARGEST_NUMBER:.0e} at most, got a larger one")
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
        and 0.0 <= pair[1] <= LARGEST_NUMBER
        for pair in pairs
    )
    epochs = [pair[0] for pair in pairs] if good else []
    if not good or (epochs and epochs[0] != 0) or sorted(set(epochs)) != epochs:
        raise RecipeError(f"{where}: expected pairs [epoch, rate] from epoch 0 on in order, got {value!r}")
    return tuple((epoch, float(rate)) for epoch, rate in pairs)
