"""The precision ladder: the order of its rungs, what may win, which blocks go back to float; a real climb."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_fer.bundle import Bundle, ModelSpec
from edge_fer.errors import CalibrationError, GateFailed
from edge_fer.parity.comparison import Report
from edge_fer.parity.gates import Gate, Thresholds, Verdict
from edge_fer.preprocess import CropSpec
from export.ladder import COLUMNS, Ladder, climb, row
from export.measure import Judged, Speed
from export.target import Graph
from export.workshop import blocks, units
from training.models import ExpressionNetwork, build
from training.models.checkpoint import save_checkpoint

from .conftest import SIZE, Command, Converter, Result
from .test_attribution import spoil

Make = Callable[..., Judged]
HARM = {"a": 0.1, "b": 0.4, "c": -0.1, "d": 0.2}


def speed(latency_ms: float, float_ms: float) -> Speed:
    return Speed(np.full(3, latency_ms), np.full(3, float_ms))


@pytest.fixture
def make(tiny_spec: ModelSpec) -> Make:
    """Make up a rung: its name, verdict and milliseconds, where float takes 10."""

    def judged(rung: str, verdict: Verdict = "passed", latency_ms: float = 10.0) -> Judged:
        gate = Gate("flips", 0.25, (0.2, 0.3), 0.02, verdict, "")
        report = Report(faces=8, gates=(gate,), figures={"accuracy": 0.5, "js_mean": 0.00123})
        graph = Graph({"model.onnx": b"x" * 1_250_000}, "none", {}, {})
        return Judged(rung, graph, tiny_spec, report, speed(latency_ms, 10.0))

    return judged


def named(blocks: frozenset[str]) -> str:
    return "".join(["static", *sorted(blocks)])


def climbed(
    make: Make, rungs: Mapping[str, tuple[Verdict, float]], static: Mapping[str, tuple[Verdict, float]]
) -> tuple[str, list[str]]:
    """Climb a ladder of made-up rungs; return the winner's name and what was told, in its order."""
    told: list[str] = []

    def tell(news: Judged | str) -> None:
        told.append(news if isinstance(news, str) else news.rung)

    ladder = Ladder(
        rungs=[(name, functools.partial(make, name, *found)) for name, found in rungs.items()],
        static=lambda blocks: make(named(blocks), *static[named(blocks)]),
        blocks=tuple(HARM),
        harm=HARM.__getitem__,
    )
    return climb(ladder, tell).rung, told


def test_rungs_are_climbed_from_the_bottom_and_the_fastest_that_passes_wins(make: Make) -> None:
    rungs: dict[str, tuple[Verdict, float]] = {"fp32": ("passed", 10), "fp16": ("passed", 4)}
    assert climbed(make, rungs, {"static": ("passed", 5)}) == ("fp16", ["fp32", "fp16", "static"])
    assert climbed(make, rungs, {"static": ("passed", 3)})[0] == "static"
    assert climbed(make, {**rungs, "fp16": ("passed", 12)}, {"static": ("passed", 11)})[0] == "fp32"


def test_the_speed_beside_float_counts_not_that_of_a_busier_minute(make: Make) -> None:
    slow_minute = Judged("fp16", *astuple(make("", "passed", 5.0)), speed(12.0, 30.0))
    rungs = [("fp32", lambda: make("fp32")), ("fp16", lambda: slow_minute)]
    ladder = Ladder(rungs=rungs, static=lambda _: make("static"), blocks=(), harm=lambda _: 0.0)
    assert climb(ladder, lambda _: None).rung == "fp16"


def astuple(judged: Judged) -> tuple[Graph, ModelSpec, Report]:
    return judged.graph, judged.spec, judged.report


@pytest.mark.parametrize("verdict", ["undecided", "failed"])
def test_what_did_not_pass_never_wins(make: Make, verdict: Verdict) -> None:
    failing = {named(frozenset(blocks)): (verdict, 1.0) for blocks in ("", "b", "bd", "abd", "abcd")}
    assert climbed(make, {"fp32": ("passed", 10), "fp16": (verdict, 0.1)}, failing)[0] == "fp32"
    with pytest.raises(GateFailed, match="no rung of the ladder passed") as error:
        climbed(make, {"fp32": (verdict, 10), "fp16": (verdict, 0.1)}, failing)
    assert error.value.exit_code == 3


def test_blocks_go_back_one_by_one_the_most_harmful_first_until_it_passes(make: Make) -> None:
    static: dict[str, tuple[Verdict, float]] = {
        "static": ("failed", 2),
        "staticb": ("undecided", 3),
        "staticbd": ("passed", 4),
    }
    winner, told = climbed(make, {"fp32": ("passed", 10)}, static)
    assert winner == "staticbd"
    assert [name for name in told if " " not in name] == ["fp32", "static", "staticb", "staticbd"]
    # Not all of them: that would be the float rung again.
    static["staticbd"] = static["staticabd"] = ("failed", 4)
    winner, told = climbed(make, {"fp32": ("passed", 10)}, static)
    assert (winner, told[-1]) == ("fp32", "staticabd")


def test_static_int8_that_passes_asks_for_no_blocks_harm(make: Make) -> None:
    ladder = Ladder(
        rungs=[],
        static=lambda blocks: make(named(blocks)),
        blocks=("a", "b"),
        harm=lambda block: pytest.fail(f"{block} was measured"),
    )
    assert climb(ladder, lambda _: None).rung == "static"


def test_a_rung_that_cannot_be_made_is_told_and_left_out(make: Make) -> None:
    def refuse(*_: object) -> Judged:
        raise CalibrationError("nothing was quantised")

    told: list[Judged | str] = []
    ladder = Ladder(
        rungs=[("dynamic", refuse), ("fp32", lambda: make("fp32"))],
        static=lambda blocks: refuse() if blocks else make("static", "failed", 1.0),
        blocks=("a", "b", "c"),
        harm=lambda _: 0.0,
    )
    assert climb(ladder, told.append).rung == "fp32"
    assert told[0] == "dynamic: nothing was quantised"
    assert told[-1] == "static int8, float a: nothing was quantised"
    assert len(told) == 4


def test_a_block_that_cannot_be_float_alone_stays_int8(make: Make) -> None:
    def harm(block: str) -> float:
        if block == "c":  # the others are float already: nothing to quantise is left
            raise CalibrationError("nothing was quantised")
        return 0.0

    told: list[Judged | str] = []
    static: dict[str, Verdict] = {"static": "failed", "statica": "failed", "staticab": "passed"}
    ladder = Ladder(
        rungs=[("fp32", lambda: make("fp32"))],
        static=lambda blocks: make(named(blocks), static[named(blocks)], 2.0),
        blocks=("a", "b", "c"),
        harm=harm,
    )
    assert climb(ladder, told.append).rung == "staticab"
    assert "c stays int8: nothing was quantised" in told


def test_a_row_shows_what_the_choice_rests_on(make: Make) -> None:
    cells = ("fp16", "passed", "-", "0.5000", "25.00%", "0.0012", "1.25 MB", "4.00 ms", "2.50x")
    assert row(make("fp16", "passed", 4.0)) == cells
    assert len(COLUMNS) == len(cells)
    assert row(make("fp16", "undecided"))[:3] == ("fp16", "undecided", "flips")


def test_blocks_are_the_encoders_parts_opened_once(small: ExpressionNetwork) -> None:
    assert blocks(small) == ["encoder.stem", *(f"encoder.stages.{number}" for number in range(3))]
    network = build("grefel")
    modules = dict(network.named_modules())
    found = blocks(network)
    assert len(found) == len(set(found)) > 5 and set(found) <= set(modules)
    inside = sum(p.numel() for path in found for p in modules[path].parameters())
    assert inside > 0.9 * sum(parameter.numel() for parameter in network.encoder.parameters())


def test_units_are_blocks_opened_as_far_as_they_are_lists(small: ExpressionNetwork) -> None:
    stages = [f"encoder.stages.{stage}.{number}" for stage in range(3) for number in range(2)]
    assert units(small) == ["encoder.stem", *stages]
    network = build("grefel")
    modules = dict(network.named_modules())
    found = units(network)
    assert len(found) == len(set(found)) > 2 * len(blocks(network))
    # Nothing is lost on the way down, and nothing is in two of them.
    sizes = [
        sum(sum(p.numel() for p in modules[path].parameters()) for path in paths(network))
        for paths in (units, blocks)
    ]
    assert sizes[0] == sizes[1]
    assert not [path for path in found if type(modules[path]).__name__ in ("Conv2d", "Linear")]


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_another_block_in_float_needs_no_second_calibration(target: str, convert: Converter) -> None:
    converted = convert(target)
    recipe = converted.default_recipe
    faces = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
    seen: list[int] = []
    graphs = {}
    for block in ("encoder.stages.0", "encoder.stages.1.0", "encoder.stages.2"):
        one_less = replace(recipe, float_modules=frozenset({block}))
        graphs[block] = converted.int8_graph(faces, one_less, seen.append)
    assert seen[-1] == 6 and len(seen) == len(set(seen))
    # A calibration of its own gives the same bytes.
    converted.prepared.known.clear()  # type: ignore[attr-defined]
    assert converted.int8_graph(faces, one_less, seen.append) == graphs[block]
    assert len(seen) > len(set(seen)) and len({str(graph.quantised_ops) for graph in graphs.values()}) > 1


@pytest.fixture
def auto(
    tmp_path: Path, command: Command, small: ExpressionNetwork, train_faces: Path, valid_faces: Path
) -> Callable[[], Result]:
    """Climb on the drawn faces, to x.fer, with a network one block of which eight bits ruin."""
    checkpoint = tmp_path / "loud" / "loud.safetensors"
    checkpoint.parent.mkdir()
    loud = spoil(small, "encoder.stages.1.0")
    save_checkpoint(checkpoint, loud, CropSpec(size=SIZE, margin=0.0), {"weights": {}})
    arguments = ["--target", "onnx", "--precision", "auto", "--golden", "synthetic", "--samples", 100]
    arguments += ["--calibration-data", train_faces, "--parity-data", valid_faces]
    return lambda: command("export", checkpoint, *arguments, "--output", tmp_path / "x.fer")


def test_auto_returns_the_block_that_hurts_and_writes_what_passes(
    tmp_path: Path, auto: Callable[[], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What 152 faces can show.
    limits = {"flips": 0.05, "sure_flips": 0.05, "accuracy_ratio": 0.9, "divergence": 0.02}
    limits |= {"ece_change": 0.2, "coverage_shift": 0.1}
    monkeypatch.setattr("edge_fer.parity.report.Thresholds", functools.partial(Thresholds, **limits))
    done = auto()
    assert (done.code, done.output) == (0, [str(tmp_path / "x.fer")]), done.errors
    bundle = Bundle.load(tmp_path / "x.fer")
    certificate = json.loads(bundle.member("parity.json"))
    rungs = {rung["rung"]: rung for rung in certificate["ladder"]["rungs"]}
    names = list(rungs)
    assert names[:3] == ["fp32", "fp16", "static int8"]
    assert all(name.startswith("static int8, float encoder.stages.") for name in names[3:]) and names[3:]
    verdicts = [rung["verdict"] == "passed" for rung in rungs.values()]
    assert verdicts == [True, True, *[False] * (len(names) - 3), True]
    [dynamic] = certificate["ladder"]["skipped"]
    assert dynamic.startswith("dynamic int8: expected matrix products")
    assert all((rung["held back by"] == "-") == (rung["verdict"] == "passed") for rung in rungs.values())
    # What is written is the fastest of those that passed, float blocks and all.
    passed = [rung for rung in rungs.values() if rung["verdict"] == "passed"]
    fastest = max(passed, key=lambda rung: float(rung["over fp32"].rstrip("x")))
    ratio = certificate["figures"]["latency_ms"]["ratio"]
    assert f"{ratio:.2f}x" == fastest["over fp32"]
    table = [line for line in done.errors if line.startswith("│")]
    assert len(table) >= len(rungs) and all(any(name in line for line in table) for name in names[:3])
    if fastest["rung"] == names[-1]:
        float_blocks = certificate["recipe"]["float_modules"]
        assert names[-1] == f"static int8, float {', '.join(float_blocks)}"
        assert bundle.spec.precision == "int8" and 0 < bundle.spec.quantised_ops["Conv"] < 14


def test_auto_hands_nothing_out_where_nothing_is_decided(tmp_path: Path, auto: Callable[[], Result]) -> None:
    done = auto()
    assert (done.code, done.output) == (3, [])
    assert done.errors[-1].startswith(
        "error: no rung of the ladder passed every gate: give more parity faces"
    )
    assert any("static int8" in line and "undecided" in line for line in done.errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loud", "x.parity.json"]
    report = json.loads((tmp_path / "x.parity.json").read_text())
    assert report["verdict"] == "failed"
    rungs = {rung["rung"]: rung["verdict"] for rung in report["rungs"]}
    assert set(list(rungs)[:3]) == {"fp32", "fp16", "static int8"} and "passed" not in rungs.values()
    assert all({"gates", "figures", "environment"} <= set(rung) for rung in report["rungs"])
