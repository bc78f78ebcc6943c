"""Each mark of a plot stands where its axis says, worked out from the ticks; every plot names itself."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.labels import LABELS
from edge_fer.parity.render import plot_decisions, plot_probabilities
from edge_fer.parity.render.html_report import PLOTS
from edge_fer.parity.render.plot import Plot
from edge_fer.parity.render.plot_inline import margin, paired_bars, side_by_side
from edge_fer.parity.render.reading import Value
from edge_fer.parity.render.summary import gate_rows
from edge_fer.parity.render.svg import Scale, round_up
from tests.edge_fer.parity.render.sample_report import Sample, sample_report

DRAWS = [(slug, draw) for _, draws in PLOTS.values() for slug, _, draw in draws]
CLOSE = 0.02  # coordinates are written with two decimals


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return sample_report(Sample(noise=0.3))


def drawn(plot: Plot | None) -> Element:
    assert plot is not None
    return ElementTree.fromstring(plot.svg)


def styled(svg: Element, name: str, style: str) -> list[Element]:
    return [one for one in svg.iter(name) if one.get("class") == style]


def at(one: Element, *names: str) -> list[float]:
    return [float(one.attrib[name]) for name in names]


def ticks(svg: Element, along: str, log: bool = False) -> Scale:
    """Rebuild an axis from the first and the last number beside it."""
    anchor = {"x": "middle", "y": "end"}[along]
    found = [
        (_number(one.text or ""), at(one, along)[0])
        for one in styled(svg, "text", "tick")
        if one.get("text-anchor") == anchor and (one.text or "")[0].isdigit()
    ]
    (low, start), (high, stop) = found[0], found[-1]
    shift = 4.0 if along == "y" else 0.0  # a text's baseline lies below the line it names
    return Scale(low, high, start - shift, stop - shift, log)


def _number(text: str) -> float:
    plain = text.replace(",", "").removesuffix("%")
    return float(plain) / (100 if text.endswith("%") else 1)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_even_and_inside(low: float, span: float, most: int) -> None:
    scale = Scale(low, low + span, 0, 100)
    found = scale.ticks(most)
    slack = 1e-6 * (span + abs(low))
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert len(found) <= most + 1
    steps = [after - before for before, after in pairwise(found)]
    assert not steps or max(steps) - min(steps) <= slack


@given(st.floats(1e-12, 1e12))
def test_an_axis_ends_at_a_round_number_not_far_above(value: float) -> None:
    end = round_up(value)
    assert value * (1 - 1e-9) <= end <= 2 * value * (1 + 1e-9)
    assert f"{end:.1e}" == f"{float(f'{end:.1e}'):.1e}" and math.isclose(
        end, float(f"{end:.1e}"), rel_tol=1e-9
    )


def test_a_logarithmic_scale_gives_each_decade_the_same_room() -> None:
    scale = Scale(1e-6, 1.0, 0, 60, log=True)
    assert [scale(value) for value in (1e-6, 1e-3, 1.0)] == pytest.approx([0, 30, 60])
    assert scale.ticks(9) == pytest.approx([10.0**power for power in range(-6, 1)])


@pytest.mark.parametrize(("slug", "draw"), DRAWS, ids=[slug for slug, _ in DRAWS])
def test_every_plot_says_what_it_shows(slug: str, draw: Any, report: dict[str, Any]) -> None:
    plot = draw(Value(report), "p")
    svg = drawn(plot)
    assert svg.get("role") == "img"
    named = {one.get("id"): one.text for one in svg}
    assert all(len(named[name] or "") > 10 for name in (svg.get("aria-labelledby") or "").split())
    assert len(plot.reading) > 60 and plot.rows
    assert all(len(row) == len(plot.columns) for row in plot.rows)


@pytest.mark.parametrize(("slug", "draw"), DRAWS, ids=[slug for slug, _ in DRAWS])
def test_a_plot_without_its_figures_is_not_drawn(slug: str, draw: Any, report: dict[str, Any]) -> None:
    assert draw(Value({**report, "details": {}, "figures": {}}), "p") is None


@pytest.mark.parametrize(("slug", "draw"), DRAWS, ids=[slug for slug, _ in DRAWS])
def test_every_mark_lies_within_the_drawing(slug: str, draw: Any, report: dict[str, Any]) -> None:
    svg = drawn(draw(Value(report), "p"))
    _, _, width, height = map(float, (svg.get("viewBox") or "").split())
    for one in svg.iter():
        for across, size, most in (("x", "width", width), ("cx", "r", width), ("y", "height", height)):
            if one is not svg and across in one.attrib:
                start, extent = float(one.attrib[across]), float(one.get(size) or 0)
                assert start >= -CLOSE and start + extent <= most + CLOSE, one.attrib


def test_reliability_diagram_puts_accuracy_over_confidence(report: dict[str, Any]) -> None:
    svg = drawn(plot_probabilities.reliability_diagram(Value(report), "p"))
    x, y = ticks(svg, "x"), ticks(svg, "y")
    for key, found in (
        ("reference_calibration", [at(one, "cx", "cy") for one in styled(svg, "circle", "mark float")]),
        ("calibration", [at(one, "x", "y", "width") for one in styled(svg, "rect", "mark bundle")]),
    ):
        points = [
            point[:2] if len(point) == 2 else [side + point[2] / 2 for side in point[:2]] for point in found
        ]
        bins = report["details"]["curves"][key]
        expected = [(x(each["confidence"]), y(each["accuracy"])) for each in bins]
        np.testing.assert_allclose(points[:15], expected, atol=CLOSE)  # the last one is the legend's


def test_divergence_bars_stand_on_a_logarithmic_axis(report: dict[str, Any]) -> None:
    svg = drawn(plot_probabilities.divergence_histogram(Value(report), "p"))
    x, y = ticks(svg, "x", log=True), ticks(svg, "y")
    found = report["details"]["curves"]["divergence"]
    bars = [at(one, "x", "y", "width", "height") for one in styled(svg, "rect", "bar bundle soft")]
    shown = [index for index, number in enumerate(found["counts"]) if number]
    by_left = {round(left - 0.4, 1): (top, height) for left, top, _, height in bars}
    for index in shown:
        left = x(found["edges"][index])
        near = min(by_left, key=lambda each: abs(each - left))
        assert near == pytest.approx(left, abs=0.1)
        top, height = by_left[near]
        assert top == pytest.approx(y(found["counts"][index]), abs=CLOSE)
        assert top + height == pytest.approx(y(0), abs=CLOSE)
    guides = sorted(at(one, "x1")[0] for one in styled(svg, "line", "guide"))
    expected = [x(report["figures"][key]) for key in ("js_mean", "js_p95")]
    assert guides == pytest.approx(expected, abs=CLOSE)
    assert at(styled(svg, "line", "limit")[0], "x1")[0] == pytest.approx(x(0.005), abs=CLOSE)


def test_confidence_cells_and_crosses_stand_at_their_probabilities(report: dict[str, Any]) -> None:
    svg = drawn(plot_decisions.confidence_scatter(Value(report), "p"))
    x, y = ticks(svg, "x"), ticks(svg, "y")
    found = report["details"]["curves"]["confidence"]
    counts, edges = np.array(found["counts"]), np.array(found["edges"])
    cells = [at(one, "x", "y", "fill-opacity") for one in styled(svg, "rect", "density")[:-1]]
    rows, columns = np.nonzero(counts)
    expected = [(x(edges[i]), y(edges[j + 1])) for i, j in zip(rows, columns, strict=True)]
    np.testing.assert_allclose([cell[:2] for cell in cells], expected, atol=CLOSE)
    shades = np.array([cell[2] for cell in cells])
    order = np.argsort(counts[rows, columns], kind="stable")
    assert (np.diff(shades[order]) >= -1e-9).all()  # never lighter for more faces
    crosses = styled(svg, "path", "cross")
    first = [float(part) for part in crosses[0].attrib["d"].replace("M", "").split("L")[0].split()]
    middle = [side + 3.6 for side in first]
    assert middle == pytest.approx([x(found["flips"][0][0]), y(found["flips"][0][1])], abs=CLOSE)
    assert len(crosses) == len(found["flips"]) + 1  # and the legend's


def test_the_scatter_says_how_many_of_the_changed_labels_it_draws(report: dict[str, Any]) -> None:
    shown, figures = len(report["details"]["curves"]["confidence"]["flips"]), report["figures"]
    part = {**report, "figures": {**figures, "flips": shown + 1000}}
    plots = [plot_decisions.confidence_scatter(Value(each), "p") for each in (report, part)]
    readings = [plot.reading for plot in plots if plot is not None]
    assert f"{shown} of the {shown + 1000:,} are drawn" in readings[1]
    assert "are drawn" not in readings[0] and figures["flips"] == shown


def test_recall_marks_stand_at_the_recall(report: dict[str, Any]) -> None:
    svg = drawn(plot_decisions.recall_by_class(Value(report), "p"))
    x = ticks(svg, "x")
    circles = [at(one, "cx")[0] for one in styled(svg, "circle", "mark float")][:8]
    squares = [sum(at(one, "x")) + 3.2 for one in styled(svg, "rect", "mark bundle")][:8]
    rows = report["details"]["recall"]
    assert circles == pytest.approx([x(row["reference_recall"]) for row in rows], abs=CLOSE)
    assert squares == pytest.approx([x(row["recall"]) for row in rows], abs=CLOSE)
    ends = [at(one, "x1", "x2") for one in styled(svg, "line", "whisker bundle")]
    np.testing.assert_allclose(ends, [[x(bound) for bound in row["interval"]] for row in rows], atol=CLOSE)


def test_bars_of_flips_are_as_high_as_the_share_and_split_by_direction(report: dict[str, Any]) -> None:
    svg = drawn(plot_decisions.flips_by_confidence(Value(report), "p"))
    y = ticks(svg, "y")
    one_flip = abs(y(1) - y(0))
    rows = report["details"]["flips_by_confidence"]
    for style, kind in (
        ("to-wrong", "to_wrong"),
        ("between-wrong", "between_wrong"),
        ("to-right", "to_right"),
    ):
        heights = [at(one, "height")[0] for one in styled(svg, "rect", style)][:-1]  # without the legend's
        expected = [row[kind] / row["faces"] * one_flip for row in rows if row[kind]]
        assert heights == pytest.approx(expected, abs=CLOSE)


def test_flip_matrix_holds_every_count_in_its_place(report: dict[str, Any]) -> None:
    svg = drawn(plot_decisions.flip_matrix(Value(report), "p"))
    matrix = np.array(report["details"]["flip_matrix"])
    cells = [one for one in svg.iter("text") if one.get("class") in (None, "kept")]
    shown = [0 if one.text == "·" else int((one.text or "").replace(",", "")) for one in cells]
    assert shown == matrix.ravel().tolist()
    places = np.array([at(one, "x", "y") for one in cells]).reshape(8, 8, 2)
    assert np.ptp(places[:, :, 0], axis=0).max() == 0 and np.ptp(places[:, :, 1], axis=1).max() == 0
    assert (np.diff(places[0, :, 0]) > 0).all() and (np.diff(places[:, 0, 1]) > 0).all()


def test_risk_coverage_marks_the_abstention_threshold(report: dict[str, Any]) -> None:
    svg = drawn(plot_probabilities.risk_coverage(Value(report), "p"))
    x, y = ticks(svg, "x"), ticks(svg, "y")
    kept = report["details"]["abstention"]
    mark = at(styled(svg, "circle", "mark float")[0], "cx", "cy")
    assert mark == pytest.approx([x(kept["reference_coverage"]), y(kept["reference_risk"])], abs=CLOSE)
    curve = styled(svg, "polyline", "curve bundle")[0].attrib["points"].split()
    drawn_points = [[float(side) for side in point.split(",")] for point in curve]
    found = report["details"]["curves"]["risk_coverage"]
    expected = [(x(a), y(b)) for a, b in zip(found["coverage"], found["risk"], strict=True)]
    np.testing.assert_allclose(drawn_points, expected, atol=CLOSE)


def test_reliability_bars_and_outline_show_both_counts(report: dict[str, Any]) -> None:
    svg = drawn(plot_probabilities.reliability_histogram(Value(report), "p"))
    y = ticks(svg, "y")
    found = report["details"]["curves"]["reliability"]
    tops = [at(one, "y")[0] for one in styled(svg, "rect", "bar bundle soft")][:20]
    assert tops == pytest.approx([y(number) for number in found["counts"]], abs=CLOSE)
    outline = styled(svg, "polyline", "curve float")[0].attrib["points"].split()
    levels = [float(point.split(",")[1]) for point in outline][1:-1:2]
    assert levels == pytest.approx([y(number) for number in found["reference_counts"]], abs=CLOSE)


def test_bars_of_latency_are_as_long_as_the_times(report: dict[str, Any]) -> None:
    svg = drawn(plot_probabilities.latency(Value(report), "p"))
    x, times = ticks(svg, "x"), report["figures"]["latency_ms"]
    widths = [at(one, "width")[0] for one in styled(svg, "rect", "bar bundle")][:3]
    expected = [x(times[key]) - x(0) for key in ("p50", "p90", "p99")]
    assert widths == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    ("name", "value", "interval", "threshold", "edge"),
    [
        ("flips", 0.01, [0.004, 0.016], 0.02, [0.02]),
        ("flips", 0.5, [0.4, 0.6], 0.02, [0.02]),
        ("accuracy", 0.97, [0.96, 0.98], 0.99, [0.99]),
        ("calibration", -0.004, [-0.02, 0.006], 0.01, [-0.01, 0.01]),
    ],
)
def test_the_margin_of_a_gate_is_to_scale(
    name: str, value: float, interval: list[float], threshold: float, edge: list[float]
) -> None:
    gate = {"name": name, "value": value, "interval": interval, "threshold": threshold, "verdict": "failed"}
    row = gate_rows(Value([gate]))[0]
    svg = ElementTree.fromstring(margin(row, "m") or "")
    whisker = at(styled(svg, "line", "whisker plain")[0], "x1", "x2")
    scale = Scale(interval[0], interval[1], whisker[0], whisker[1])
    point = float(styled(svg, "path", "point failed")[0].attrib["d"].split()[0].removeprefix("M"))
    far = abs(scale(threshold)) + 180
    assert point == pytest.approx(scale(value), abs=far * 1e-3)
    edges = [at(one, "x1")[0] for one in styled(svg, "line", "limit")]
    assert edges == pytest.approx([scale(each) for each in edge], abs=far * 1e-3)
    field = at(styled(svg, "rect", "allowed")[0], "x", "width")
    inside = {"flips": field[0] + field[1], "accuracy": field[0], "calibration": field[0]}[name]
    assert inside == pytest.approx(edges[0], abs=CLOSE)


@pytest.mark.parametrize(
    ("name", "interval", "threshold", "used"),
    [
        ("flips", [0.001, 0.015], 0.02, 0.75),
        ("accuracy", [0.985, 1.0], 0.99, 1.5),
        ("calibration", [-0.008, 0.001], 0.01, 0.8),
    ],
)
def test_the_deciding_bound_tells_how_much_of_the_limit_is_used(
    name: str, interval: list[float], threshold: float, used: float
) -> None:
    gate = {"name": name, "value": 0.0, "interval": interval, "threshold": threshold, "verdict": "passed"}
    assert gate_rows(Value([gate]))[0].used == pytest.approx(used)


def test_paired_bars_are_as_long_as_the_probabilities(report: dict[str, Any]) -> None:
    face = report["details"]["worst"][0]
    svg = ElementTree.fromstring(paired_bars(Value(face), LABELS, 0.8, "b") or "")
    for series, key in (("float", "reference"), ("bundle", "bundle")):
        widths = [at(one, "width")[0] for one in styled(svg, "rect", f"bar {series}")]
        np.testing.assert_allclose(widths, np.array(face[key]) / 0.8 * (268 - 72), atol=CLOSE)


def test_gates_side_by_side_share_one_axis(report: dict[str, Any]) -> None:
    other = sample_report(Sample(noise=0.1, seed=3))
    rows = [gate_rows(Value(each["gates"]))[4] for each in (report, other)]
    svg = ElementTree.fromstring(side_by_side([(("a",), rows[0]), (("b", "elsewhere"), rows[1])], "s") or "")
    limits = [at(one, "x1")[0] for one in styled(svg, "line", "limit")]
    assert limits[0] == limits[1]
    points = [
        float(one.attrib["d"].split()[0].removeprefix("M"))
        for one in svg.iter("path")
        if (one.get("class") or "").startswith("point")
    ]
    start = at(styled(svg, "rect", "allowed")[0], "x")[0]
    values = [row.number or 0.0 for row in rows]
    assert (points[0] - start) / (points[1] - start) == pytest.approx(values[0] / values[1], rel=1e-3)
