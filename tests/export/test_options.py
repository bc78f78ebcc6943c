"""What `export` is asked for: options that cannot work are refused early, recipes are read or refused."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.recipe import ACTIVATIONS, BIAS_CORRECTIONS, RANGES, WEIGHTS, Recipe
from edge_fer.errors import CalibrationError, UsageError
from export.options import READERS, ExportOptions, check_options, read_recipe

DEFAULT = Recipe(weights="s8-7bit", activations="u8", ranges="percentile", smooth_quant=0.95)
SOUND = ExportOptions(precision="int8", calibration_data="faces", parity_data="others")


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(),
        ExportOptions(target="tflite", precision="fp16"),
        SOUND,
        replace(SOUND, recipe="ranges=minmax", stability=True),
        replace(SOUND, attribution=True),
        replace(SOUND, recipe="dynamic", calibration_data=None, attribution=True),
        ExportOptions(precision="int8", recipe="dynamic"),  # its ranges come as it runs
        replace(SOUND, precision="auto", recipe="ranges=minmax", stability=True, golden="parity"),
    ],
)
def test_what_can_work_is_not_refused(options: ExportOptions) -> None:
    check_options(options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ExportOptions(target="coreml"), "--target coreml: expected onnx, openvino, tflite"),
        (ExportOptions(precision="int4"), "--precision int4: expected fp32, fp16, int8, auto"),
        (replace(SOUND, calibration_data=None), "--precision int8 needs --calibration-data"),
        (
            replace(SOUND, calibration_data=None, precision="auto"),
            "--precision auto needs --calibration-data",
        ),
        (replace(SOUND, parity_data=None, precision="auto"), "--precision auto needs --parity-data"),
        (ExportOptions(golden="parity"), "--golden parity needs --parity-data"),
        (ExportOptions(recipe="dynamic"), "--recipe is for int8 and auto, got --precision fp32"),
        (ExportOptions(recipe="ranges=mse", precision="fp16"), "for int8 and auto, got --precision fp16"),
        (replace(SOUND, precision="auto", recipe="dynamic"), "--recipe dynamic is one rung"),
        (replace(SOUND, parity_data=None, stability=True), "--stability needs int8"),
        (replace(SOUND, recipe="dynamic", stability=True), "--stability needs int8"),
        (ExportOptions(parity_data="others", stability=True), "--stability needs int8"),
        (replace(SOUND, parity_data=None, attribution=True), "--attribution needs --precision int8 or auto"),
        (replace(SOUND, precision="fp16", attribution=True), "--attribution needs --precision int8 or auto"),
        (replace(SOUND, recipe="speed=high"), "--recipe speed=high: expected dynamic, or KEY=VALUE"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(options: ExportOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        check_options(options)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_only_static_int8_and_the_ladder_calibrate() -> None:
    assert SOUND.calibrates and replace(SOUND, precision="auto").calibrates
    assert not replace(SOUND, recipe="dynamic").calibrates
    assert not replace(SOUND, precision="fp16").calibrates and not ExportOptions().calibrates


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (None, {}),
        ("weights=s8", {"weights": "s8"}),
        ("activations=s8", {"activations": "s8"}),
        ("symmetric=yes", {"symmetric": True}),
        ("symmetric=no", {"symmetric": False}),
        ("ranges=mse", {"ranges": "mse"}),
        ("smooth_quant=0.5", {"smooth_quant": 0.5}),
        ("smooth_quant=none", {"smooth_quant": None}),
        ("bias_correction=slow", {"bias_correction": "slow"}),
        ("float_first=no", {"float_first": False}),
        ("float_modules=encoder.stages.1+head", {"float_modules": frozenset({"encoder.stages.1", "head"})}),
        ("weights=s8,ranges=entropy", {"weights": "s8", "ranges": "entropy"}),
    ],
)
def test_a_recipe_changes_only_what_it_names(text: str | None, changes: dict[str, object]) -> None:
    assert read_recipe(text, DEFAULT) == replace(DEFAULT, **changes)


def test_every_choice_of_a_recipe_can_be_written() -> None:
    assert set(READERS) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("static", UsageError, "--recipe static: expected dynamic, or KEY=VALUE of weights"),
        ("range=mse", UsageError, "--recipe range=mse: expected dynamic, or KEY=VALUE"),
        ("weights=s8, ranges=mse", UsageError, "expected dynamic, or KEY=VALUE"),
        ("symmetric=true", UsageError, "--recipe symmetric=true: expected yes or no, got 'true'"),
        ("smooth_quant=half", UsageError, "--recipe smooth_quant=half: could not convert"),
        ("smooth_quant=1.5", CalibrationError, "expected smooth_quant from 0 to 1 or none, got 1.5"),
        ("smooth_quant=nan", CalibrationError, "expected smooth_quant from 0 to 1 or none, got nan"),
        ("weights=s4", CalibrationError, "expected weights s8 or s8-7bit, got s4"),
        ("activations", CalibrationError, "expected activations u8 or s8, got"),
    ],
)
def test_what_is_no_recipe_is_one_line(text: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        read_recipe(text, DEFAULT)
    assert "\n" not in str(error.value)


# Control characters are made harmless at the command line's edge, for every message alike.
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
VALUES = st.sampled_from(["", "yes", "none", "0.3", "inf", "1e999", "s8", "u8", "mse", "dynamic"]) | WORDS
ENTRIES = st.tuples(st.sampled_from(sorted(READERS)) | WORDS, st.sampled_from(["=", "==", ""]), VALUES)


@given(st.lists(ENTRIES.map("".join), max_size=4).map(",".join) | WORDS)
def test_any_text_gives_a_recipe_or_one_line(text: str) -> None:
    try:
        recipe = read_recipe(text, DEFAULT)
    except (UsageError, CalibrationError) as error:
        assert "\n" not in str(error)
    else:
        assert recipe.weights in WEIGHTS and recipe.activations in ACTIVATIONS
        assert recipe.ranges in RANGES and recipe.bias_correction in BIAS_CORRECTIONS
        assert recipe.smooth_quant is None or 0 <= recipe.smooth_quant <= 1
