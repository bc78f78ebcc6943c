"""The shape of parity.json, and a check of it: `parity.schema.json` beside this file is the authority.

A device has no validator, so the few keywords that the schema uses are checked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from edge_fer.spec import shorten

REPORT = "edge-fer-parity-2"
MATRIX = "edge-fer-parity-matrix-1"

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


@cache
def schema() -> Mapping[str, object]:
    """Return the JSON Schema (draft 2020-12) of parity.json."""
    text = (files("edge_fer.parity") / "parity.schema.json").read_text(encoding="utf-8")
    loaded: Mapping[str, object] = json.loads(text)
    return loaded


def check_report(value: object) -> dict[str, object]:
    """Return the value if it is a report or a matrix of reports.

    Raises:
        ValueError: it is not; the text names the place.
    """
    name = value.get("schema") if isinstance(value, dict) else None
    definitions = _mapping(schema()["$defs"])
    kinds = {REPORT: "report", MATRIX: "matrix"}
    if not isinstance(value, dict) or not isinstance(name, str) or name not in kinds:
        raise ValueError(f"expected the schema {REPORT} or {MATRIX}, got {name!r}")
    _check(value, _mapping(definitions[kinds[name]]), "the report")
    return value


def _check(value: object, rule: Mapping[str, object], where: str) -> None:
    reference = rule.get("$ref")
    if isinstance(reference, str):
        definitions = _mapping(schema()["$defs"])
        return _check(value, _mapping(definitions[reference.rpartition("/")[2]]), where)
    allowed = [rule["const"]] if "const" in rule else rule.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        raise ValueError(f"{where}: expected {' or '.join(map(str, allowed))}, got {shorten(value)}")
    types = rule.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    if names and not any(_is(value, name) for name in names):
        raise ValueError(f"{where}: expected {' or '.join(names)}, got {shorten(value)}")
    if isinstance(value, str):
        pattern = rule.get("pattern")
        if isinstance(pattern, str) and not re.search(pattern, value):
            raise ValueError(f"{where}: expected a text like {pattern}, got {shorten(value)}")
    elif isinstance(value, dict):
        _check_object(value, rule, where)
    elif isinstance(value, list):
        _check_array(value, rule, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(value, rule, where)
    return None


def _check_object(value: dict[str, object], rule: Mapping[str, object], where: str) -> None:
    required = rule.get("required")
    for key in required if isinstance(required, list) else []:
        if key not in value:
            raise ValueError(f"{where}: expected the key {key!r}, it is missing")
    properties = _mapping(rule.get("properties", {}))
    others = rule.get("additionalProperties", True)
    for key, item in value.items():
        if key in properties:
            _check(item, _mapping(properties[key]), f"{where}: {key}")
        elif others is False:
            raise ValueError(f"{where}: unknown key {shorten(key)}")
        elif isinstance(others, dict):
            _check(item, others, f"{where}: {shorten(key)}")


def _check_array(value: list[object], rule: Mapping[str, object], where: str) -> None:
    least, most = rule.get("minItems"), rule.get("maxItems")
    if isinstance(least, int) and len(value) < least:
        raise ValueError(f"{where}: expected at least {least} items, got {len(value)}")
    if isinstance(most, int) and len(value) > most:
        raise ValueError(f"{where}: expected at most {most} items, got {len(value)}")
    items = _mapping(rule.get("items", {}))
    for number, item in enumerate(value):
        _check(item, items, f"{where} {number}")


def _check_range(value: float, rule: Mapping[str, object], where: str) -> None:
    least, most = rule.get("minimum"), rule.get("maximum")
    # written so that NaN, which Python's parser lets through, fails
    if isinstance(least, (int, float)) and not value >= least:
        raise ValueError(f"{where}: expected at least {least}, got {value}")
    if isinstance(most, (int, float)) and not value <= most:
        raise ValueError(f"{where}: expected at most {most}, got {value}")


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):  # an int to Python, not to JSON
        return name == "boolean"
    if isinstance(value, float) and name == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)
    return value
