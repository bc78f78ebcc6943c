"""Draws what became of the probabilities: calibration, divergence, reliability, abstention, and time."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fer.parity.render.plot import FLOAT, Plot, bundle_name, series_legend, whole_percent
from edge_fer.parity.render.reading import Value, count, decimal, percent, small
from edge_fer.parity.render.svg import BOTTOM, RIGHT, TOP, WIDTH, Chart, Drawing, Point, Scale, round_up


def reliability_diagram(report: Value, name: str) -> Plot | None:
    """Draw confidence against accuracy in bins of equal numbers of faces, for both models."""
    curves, figures = report["details"]["curves"], report["figures"]
    bundle, reference = (curves[key].items for key in ("calibration", "reference_calibration"))
    points = [_pairs(rows, "confidence", "accuracy") for rows in (reference, bundle)]
    if not all(points):
        return None
    chart = Chart(330)
    chart.scale((0, 1), (0, 1))
    chart.axes(("confidence (top probability)", "share that was right"), (whole_percent, whole_percent))
    chart.line(chart.at(0, 0), chart.at(1, 1), "ideal")
    for series, line in zip(("float", "bundle"), points, strict=True):
        _plot_line(chart, line, series)
    chart.legend(series_legend(report))
    ours, theirs = figures["ece"].number, figures["reference_ece"].number
    return Plot(
        title="Reliability diagram",
        svg=chart.svg(
            name,
            "Reliability diagram of both models",
            f"The expected calibration error is {decimal(ours)} for the bundle and {decimal(theirs)} for the "
            "float checkpoint.",
        ),
        reading=(
            "On the dashed diagonal a model that says 80 % is right 80 % of the time; above it, it is too "
            "modest, below, too sure. Two lines on top of each other mean the export kept the calibration, "
            "good or bad. Each point holds the same number of faces."
        ),
        columns=("float confidence", "float accuracy", "bundle confidence", "bundle accuracy", "share"),
        rows=[
            (
                percent(before["confidence"].number),
                percent(before["accuracy"].number),
                percent(after["confidence"].number),
                percent(after["accuracy"].number),
                percent(after["share"].number),
            )
            for before, after in zip(reference, bundle, strict=False)
        ],
    )


def _pairs(rows: Sequence[Value], x: str, y: str) -> list[Point]:
    """Return the points of the rows that hold both numbers; an empty bin holds none."""
    return _known([row[x].number for row in rows], [row[y].number for row in rows])


def _known(xs: Sequence[float | None], ys: Sequence[float | None]) -> list[Point]:
    pairs = zip(xs, ys, strict=False)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _plot_line(chart: Chart, points: Sequence[Point], series: str, *, marks: bool = True) -> None:
    placed = [(chart.x.inside(x), chart.y.inside(y)) for x, y in points]
    chart.curve(placed, f"curve {series}")
    for at in placed if marks else []:
        chart.mark(at, series)


def risk_coverage(report: Value, name: str) -> Plot | None:
    """Draw the error rate of the kept faces against their share, for both models."""
    found, kept = report["details"]["curves"]["risk_coverage"], report["details"]["abstention"]
    coverage, risks = found["coverage"].numbers, [found[key].items for key in ("reference_risk", "risk")]
    if not coverage or not any(risks):
        return None
    lines = [_known(coverage, [each.number for each in risk]) for risk in risks]
    chart = Chart(330)
    top = max([y for line in lines for _, y in line], default=0.0)
    chart.scale((0, 1), (0, min(1.0, round_up(max(1.1 * top, 0.01)))))
    chart.axes(("coverage: share of faces answered", "error among them"), (whole_percent, whole_percent))
    for series, line, prefix in zip(("float", "bundle"), lines, ("reference_", ""), strict=True):
        _plot_line(chart, line, series, marks=False)
        x, y, bounds = (kept[f"{prefix}{key}"] for key in ("coverage", "risk", "risk_interval"))
        if x.number is not None and y.number is not None:
            at = chart.x.inside(x.number)
            if bounds.interval is not None:
                ends = [(at, chart.y.inside(bound)) for bound in bounds.interval]
                chart.line(ends[0], ends[1], f"whisker {series}")
            chart.mark((at, chart.y.inside(y.number)), series)
    chart.legend(series_legend(report))
    threshold, origin = decimal(kept["threshold"].number, 3), kept["origin"].text
    return Plot(
        title="Risk against coverage",
        svg=chart.svg(
            name,
            "Risk-coverage curves of both models",
            f"At the abstention threshold of {threshold} ({origin}) the bundle answers "
            f"{percent(kept['coverage'].number)} of the faces with an error of "
            f"{percent(kept['risk'].number)}; the float checkpoint "
            f"{percent(kept['reference_coverage'].number)} with {percent(kept['reference_risk'].number)}.",
        ),
        reading=(
            "Faces are answered in order of reliability, the surest first; lower is better. The marks "
            f"stand at the abstention threshold, reliability {threshold} ({origin}), with the interval of "
            "the error. The far left rests on few faces and is rough."
        ),
        columns=("coverage", "float error", "bundle error"),
        rows=[
            (percent(x, 0), *(percent(risk[index].number if index < len(risk) else None) for risk in risks))
            for index, x in enumerate(coverage)
            if index % 10 == 0
        ],
    )


def divergence_histogram(report: Value, name: str) -> Plot | None:
    """Draw how many faces moved how far, on a logarithmic axis."""
    found, figures = report["details"]["curves"]["divergence"], report["figures"]
    edges, counts = found["edges"].numbers, found["counts"].numbers
    filled = [index for index, number in enumerate(counts) if number]
    if len(edges) != len(counts) + 1 or not filled or min(edges) <= 0:
        return None
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 2, len(counts))
    limit = report["thresholds"]["divergence"].number
    last_edge = max(edges[last], min(2 * (limit or 0.0), edges[-1]))
    chart = Chart(300)
    chart.scale((edges[first], last_edge), (0, round_up(max(counts))), log_x=True)
    chart.axes(("Jensen–Shannon divergence, nat", "faces"), (_power, count))
    for index in range(first, last):
        left, right = chart.x(edges[index]), chart.x(edges[index + 1])
        top = chart.y(counts[index])
        chart.box((left + 0.4, top), (right - left - 0.8, chart.y.start - top), "bar bundle soft")
    lines = (("mean", figures["js_mean"].number), ("p95", figures["js_p95"].number), ("limit", limit))
    known = [(value, title) for title, value in lines if value is not None and value > 0]
    for row, (value, title) in enumerate(sorted(known, reverse=True)):  # so that no name lies across a line
        _upright(chart, value, title, 9.0 + 11 * row)
    return Plot(
        title="How far probabilities moved",
        svg=chart.svg(
            name,
            "Histogram of the Jensen-Shannon divergence per face",
            f"Mean {small(figures['js_mean'].number)}, 95 % of the faces below "
            f"{small(figures['js_p95'].number)}, largest {small(figures['js_max'].number)} nat.",
        ),
        reading=(
            "How far each face's distribution lies from the float model's: 0 is the same, 0.69 nat is "
            "nothing in common. The axis is logarithmic, so each step to the right is ten times farther. "
            "The gate limits the mean, not each face."
        ),
        columns=("from, nat", "to, nat", "faces"),
        rows=[
            (small(edges[index]), small(edges[index + 1]), count(counts[index]))
            for index in range(first, last)
        ],
    )


def _upright(chart: Chart, value: float, title: str, y: float) -> None:
    """Draw a line at a divergence with its name at this height; each name has a row of its own."""
    x, limit = chart.x.inside(value), title == "limit"
    chart.line((x, y - 7), (x, chart.y.start), "limit" if limit else "guide")
    left = x > 150
    text, style = ("limit of the mean", "note strong") if limit else (title, "note")
    chart.write((x + (-4 if left else 4), y + 1), text, style, anchor="end" if left else None)


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+00", "") if value < 0.01 else f"{value:g}"


def reliability_histogram(report: Value, name: str) -> Plot | None:
    """Draw the distribution of the reliability of both models with the abstention threshold."""
    found, kept = report["details"]["curves"]["reliability"], report["details"]["abstention"]
    edges, ours, theirs = (found[key].numbers for key in ("edges", "counts", "reference_counts"))
    if len(edges) < 2 or len(edges) != len(ours) + 1 or len(edges) != len(theirs) + 1:
        return None
    chart = Chart(300)
    chart.scale((edges[0], edges[-1]), (0, round_up(max(*ours, *theirs, 1))))
    chart.axes(("reliability (1 − normalised entropy)", "faces"), (lambda value: f"{value:g}", count))
    outline: list[Point] = [chart.at(edges[0], 0)]
    for index, number in enumerate(ours):
        left, right = chart.x(edges[index]), chart.x(edges[index + 1])
        top = chart.y(number)
        chart.box((left + 0.8, top), (right - left - 1.6, chart.y.start - top), "bar bundle soft")
        outline += [chart.at(edges[index], theirs[index]), chart.at(edges[index + 1], theirs[index])]
    chart.curve([*outline, chart.at(edges[-1], 0)], "curve float")
    threshold = kept["threshold"].number
    if threshold is not None:
        x = chart.x.inside(threshold)
        chart.line((x, TOP - 6), (x, chart.y.start), "limit")
        side = -5 if x > chart.width / 2 else 5
        at = (x + side, TOP + 4)
        chart.write(
            at, f"abstains below {decimal(threshold, 3)}", "note strong", anchor="end" if side < 0 else None
        )
    chart.legend([("curve float", FLOAT), ("bar bundle soft", bundle_name(report))])
    return Plot(
        title="Reliability of both models",
        svg=chart.svg(
            name,
            "Histogram of the reliability of both models",
            f"At the threshold of {decimal(threshold, 3)} the bundle keeps "
            f"{percent(kept['coverage'].number)} of the faces, the float checkpoint "
            f"{percent(kept['reference_coverage'].number)}.",
        ),
        reading=(
            "The stepped line is the float model, the bars the bundle. Where both agree, a threshold set "
            "on one holds for the other; bars shifted to one side mean the bundle answers too many or too "
            "few faces."
        ),
        columns=("reliability from", "to", "float faces", "bundle faces"),
        rows=[
            (decimal(edges[i], 2), decimal(edges[i + 1], 2), count(theirs[i]), count(ours[i]))
            for i in range(len(ours))
        ],
    )


def latency(report: Value, name: str) -> Plot | None:
    """Draw the percentiles of the time per face of both models."""
    times = report["figures"]["latency_ms"]
    found = [(p, times[f"fp32_{p}"].number, times[p].number) for p in ("p50", "p90", "p99")]
    known = [number for _, *pair in found for number in pair if number is not None]
    if not known or max(known) <= 0:
        return None
    step, left = 58.0, 46.0
    bottom = TOP + step * len(found)
    drawing = Drawing(bottom + BOTTOM)
    scale = Scale(0, round_up(max(known) * 1.25), left, WIDTH - RIGHT)
    for value in scale.ticks():
        drawing.line((scale(value), TOP), (scale(value), bottom), "grid")
        drawing.write((scale(value), bottom + 16), f"{value:g}", "tick", anchor="middle")
    drawing.write(((left + WIDTH) / 2, bottom + 36), "milliseconds for one face", "name", anchor="middle")
    for row, (title, *pair) in enumerate(found):
        top = TOP + step * row + 8
        drawing.write((left - 8, top + 26), title, "tick strong", anchor="end")
        for index, (series, number) in enumerate(zip(("float", "bundle"), pair, strict=True)):
            if number is not None:
                y = top + index * 22
                drawing.box((left, y), (scale(number) - left, 18), f"bar {series}")
                drawing.write((scale(number) + 6, y + 13), f"{number:.3g}")
    drawing.legend([("bar float", "fp32, same engine"), ("bar bundle", bundle_name(report))])
    ratio, threads = times["ratio"].number, times["threads"].text
    speed = decimal(ratio, 2, "x the speed of fp32")
    return Plot(
        title="Time per face",
        svg=drawing.svg(
            name,
            "Latency percentiles of both models",
            f"Median {small(times['p50'].number)} ms against {small(times['fp32_p50'].number)} ms: {speed}.",
        ),
        reading=(
            f"{speed}, threads: {threads}. Both were timed in turns in one run on the machine of this "
            "report; p99 shows its hiccups as much as the model's. It says nothing about another machine."
        ),
        columns=("percentile", "fp32, ms", "bundle, ms"),
        rows=[(title, small(before), small(after)) for title, before, after in found],
    )
