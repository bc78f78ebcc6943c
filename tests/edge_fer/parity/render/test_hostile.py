"""Reports as no measurement writes them: huge numbers, long lists, deep nesting. The page stays sound."""

from __future__ import annotations

import copy
import re
import time
import xml.etree.ElementTree as ElementTree
from random import Random
from typing import Any

import pytest

from edge_fer.parity import curves, worst
from edge_fer.parity.documents import document
from edge_fer.parity.render.html import render_html
from edge_fer.parity.render.markdown import render_markdown
from edge_fer.parity.schema import check_report, schema
from tests.edge_fer.parity.render.sample_report import sample_report
from tests.edge_fer.parity.render.test_html import SMALL, change_leaves, parse

REPORT = sample_report()
EXTREMES = (1e308, -1e308, 1e13, -1e13, 1e12, 5e-324, -5e-324, 1e-300, 0.0, -0.5, 10**400)
GATE = {"name": "x", "value": None, "interval": None, "threshold": None, "verdict": "passed", "reason": ""}


def numbers(page: str) -> list[str]:
    """Return the values of all attributes of drawings that hold numbers."""
    kinds = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d", "points", "viewBox",
             "transform", "fill-opacity")  # fmt: skip
    return [one.attrib[name] for one in parse(page).iter() for name in kinds if name in one.attrib]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_no_number_of_a_report_breaks_a_drawing(seed: int, share: float) -> None:
    random = Random(seed)

    def extreme(leaf: Any) -> Any:
        return random.choice(EXTREMES) if is_number(leaf) and random.random() < share else leaf

    report = change_leaves(SMALL, extreme)
    page = render_html([report, report])
    assert not [value for value in numbers(page) if re.search("nan|inf", value, re.IGNORECASE)]
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)
    render_markdown([report, report])


@pytest.mark.parametrize("value", [1e308, -1e308, 1e13])
def test_a_number_beyond_all_measurement_is_not_drawn(value: float) -> None:
    report = change_leaves(SMALL, lambda leaf: value if is_number(leaf) else leaf)
    page = render_html([report])
    assert not [one for one in parse(page).iter("svg") if one.get("class") == "plot"]
    assert f"{value:.4g}" in page  # among all figures, as it was reported


LIMITS = (
    ("details worst", worst.MOST_FACES),
    ("details worst reference", 64),
    ("details labels", 64),
    ("details curves confidence flips", 500),
    ("details curves confidence counts", 64),
    ("details curves calibration", 1001),
    ("details curves risk_coverage risk", 1001),
    ("details curves divergence counts", 1001),
    ("details curves reliability edges", 1001),
    ("details flip_matrix", 64),
    ("details recall", 64),
    ("details flips_by_class", 64),
    ("details flips_by_confidence", 64),
    ("gates", 32),
    ("slices", 16),
    ("slices values", 64),
    ("bundle labels", 64),
)


def place(report: Any, path: str) -> Any:
    for key in path.split():
        report = (report[0] if isinstance(report, list) else report)[key]
    return report


@pytest.mark.parametrize(("path", "most"), LIMITS)
def test_lists_that_are_drawn_or_listed_have_an_end(path: str, most: int) -> None:
    report = copy.deepcopy(REPORT)
    found = place(report, path)
    found[:] = (found * most)[:most]
    check_report(report)
    found.append(found[0])
    with pytest.raises(ValueError, match=f"at most {most} items, got {most + 1}"):
        check_report(report)


def test_what_a_report_lists_itself_lies_within_the_limits() -> None:
    described = schema()["$defs"]
    flips = described["curves"]["properties"]["confidence"]["properties"]["flips"]  # type: ignore[index]
    assert flips["maxItems"] >= curves.MOST_FLIPS
    assert described["details"]["properties"]["worst"]["maxItems"] == worst.MOST_FACES  # type: ignore[index]
    check_report(REPORT)


def test_the_keys_of_an_attribution_are_described() -> None:
    for change in (
        lambda found: found.update(controls="many"),
        lambda found: found.update(skipped={"a": 1}),
        lambda found: found["blocks"][0].update(broken=-1),
        lambda found: found["blocks"][0].update(js_drop="little"),
    ):
        report = copy.deepcopy(REPORT)
        change(report["details"]["attribution"])
        with pytest.raises(ValueError, match="attribution"):
            check_report(report)


def largest() -> Any:
    """Return a report with every list as long as the schema lets it be."""
    report = copy.deepcopy(REPORT)
    for path, most in sorted(LIMITS, key=lambda each: -each[0].count(" ")):  # the inner lists first
        found = place(report, path)
        found[:] = (found * most)[:most]
    labels = [f"label {index}" for index in range(64)]
    details = report["details"]
    details["labels"] = labels
    details["flip_matrix"] = [[7] * 64 for _ in labels]
    details["flips_by_direction"] = {f"{index}": index for index in range(100_000)}
    confidence = details["curves"]["confidence"]
    confidence |= {"edges": [index / 64 for index in range(65)], "counts": [[3] * 64 for _ in labels]}
    for face in details["worst"]:
        face |= {key: [1 / 64] * 64 for key in ("reference", "bundle", "primary", "reference_primary")}
    report["gates"] = [{**GATE, "name": f"gate {index}"} for index in range(32)]
    report["figures"] |= {f"figure {index}": index for index in range(100_000)}
    report["environment"]["versions"] = {f"package {index}": "1" for index in range(100_000)}
    return report


def test_the_longest_report_is_drawn_in_seconds() -> None:
    report = check_report(largest())
    started = time.process_time()
    page = render_html([report])
    assert time.process_time() - started < 6  # 1.5 s on a quiet core
    assert "be more in parity.json" in page
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert len(page) < 20_000_000


def test_deep_nesting_is_written_without_descending_into_it() -> None:
    deep: Any = 1
    for _ in range(700):
        deep = {"a": deep, "b": [deep]} if _ == 0 else {"a": deep}
    report = {**REPORT, "figures": {**REPORT["figures"], "deep": deep}}
    assert "deep" in render_html([check_report(report)])


def test_more_reports_than_anyone_reads_are_refused() -> None:
    check_report(document([SMALL] * 64))
    with pytest.raises(ValueError, match="at most 64 items"):
        check_report(document([SMALL] * 65))
