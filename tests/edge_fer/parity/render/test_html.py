"""The page holds everything the report does, nothing of it can inject, and it needs nothing from outside."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer.parity.render.html import render_html
from edge_fer.parity.render.html_report import PLOTS
from edge_fer.parity.render.markup import clean, escape, tag
from tests.edge_fer.parity.render.sample_report import Sample, sample_pictures, sample_report

REPORT = sample_report()
BAD = sample_report(Sample(noise=0.45, target="tflite", speed=1.05, seed=2))
ARM = sample_report(Sample(noise=0.2, cpu_class="aarch64 dotprod"))
SLUGS = [slug for _, draws in PLOTS.values() for slug, _, _ in draws]

# one of each thing that repeats, for the tests that render many pages
SMALL = copy.deepcopy(REPORT)
for found in (SMALL["details"], SMALL["details"]["attribution"]):
    found.update({key: found[key][:2] for key in ("worst", "faces") if key in found})
SMALL["details"]["curves"]["confidence"] |= {"edges": [0.0, 0.5, 1.0], "counts": [[3, 1], [0, 7]]}
SMALL["slices"] = SMALL["slices"][:1]

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(page: str) -> Element:
    """Read the page as XML, which stops at anything that is not closed or not escaped."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def texts(root: Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def by_id(root: Element) -> dict[str, Element]:
    return {one.attrib["id"]: one for one in root.iter() if "id" in one.attrib}


def change_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild parsed JSON with every leaf, and every key that is data, put through `change`."""
    if isinstance(value, dict):
        return {key: change_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [change_leaves(item, change) for item in value]
    return change(value)


def test_the_page_is_the_same_bytes_for_the_same_report() -> None:
    again = json.loads(json.dumps(REPORT))
    assert render_html([REPORT], sample_pictures(REPORT)) == render_html([again], sample_pictures(again))


@pytest.mark.parametrize("slug", SLUGS)
def test_every_plot_is_on_the_page_with_its_reading(slug: str) -> None:
    found = by_id(parse(render_html([REPORT])))
    figure = found[f"r1-{slug}-figure"]
    assert figure.find("svg[@role='img']") is not None
    assert len(figure.findtext("figcaption") or "") > 60


def test_every_gate_stands_in_the_table_with_all_that_is_known_of_it() -> None:
    for report in (REPORT, BAD, sample_report(Sample(labelled=False))):
        section = by_id(parse(render_html([report])))["r1-gates"]
        rows = section.findall(".//tbody/tr")
        assert [row.findtext("th") for row in rows] == [gate["name"] for gate in report["gates"]]
        for row, gate in zip(rows, report["gates"], strict=True):
            assert gate["verdict"] in texts(row) and gate["reason"] in texts(row)
            drawn = row.find(".//svg[@role='img']")
            assert (drawn is None) == (gate["value"] is None)


@pytest.mark.parametrize(
    ("verdict", "size_only", "words"),
    [
        ("passed", False, "PASSED"),
        ("failed", False, "FAILED"),
        ("undecided", True, "UNDECIDED, size only"),
        ("splendid", False, "UNDECIDED"),
    ],
)
def test_the_verdict_comes_first(verdict: str, size_only: bool, words: str) -> None:
    root = parse(render_html([{**REPORT, "verdict": verdict, "size_only": size_only}]))
    headings = [one for one in root.iter() if re.fullmatch("h[1-6]", one.tag)]
    assert headings[0].tag == "h1" and headings[0].text == words
    assert [one.tag for one in headings].count("h1") == 1


def test_the_first_sentence_says_what_was_compared() -> None:
    header = parse(render_html([REPORT])).find(".//header")
    assert header is not None
    said = texts(header)
    for part in ("grefel-lite", "onnx", "int8", "onnxruntime", "x86-64 avx512-vnni", "3,553 faces", "float"):
        assert part in said
    assert "ferplus:valid" in said and "All 11 gates passed." in said


def test_gates_that_failed_or_could_not_decide_are_named_beside_the_verdict() -> None:
    said = texts(by_id(parse(render_html([BAD])))["r1-verdict"].find("..") or parse(render_html([BAD])))
    failed = [gate["name"] for gate in BAD["gates"] if gate["verdict"] == "failed"]
    assert failed and f"Failed: {'; '.join(failed)}." in said


def test_headings_go_down_one_level_at_a_time() -> None:
    for page in (render_html([REPORT]), render_html([REPORT, BAD])):
        levels = [int(one.tag[1]) for one in parse(page).iter() if re.fullmatch("h[1-6]", one.tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    root = parse(render_html([REPORT, BAD, ARM]))
    ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    for one in root.iter():
        wanted = (one.get("aria-labelledby") or "").split()
        wanted += [one.attrib["href"][1:]] if one.get("href", "").startswith("#") else []
        assert set(wanted) <= set(ids)


def test_every_drawing_is_named_or_hidden_and_every_region_takes_the_focus() -> None:
    root = parse(render_html([REPORT, BAD], sample_pictures(REPORT)))
    for svg in root.iter("svg"):
        named = svg.get("role") == "img" and svg.findtext("title") and svg.findtext("desc")
        assert named or svg.get("aria-hidden") == "true"
    regions = [one for one in root.iter() if one.get("role") == "region"]
    assert regions and all(one.get("tabindex") == "0" and one.get("aria-label") for one in regions)
    assert all(one.get("alt") for one in root.iter("img"))
    inside = {id(table) for region in regions for table in region.iter("table")}
    assert inside == {id(table) for table in root.iter("table")}


def test_nothing_is_asked_of_the_network_and_nothing_runs() -> None:
    page = render_html([REPORT, BAD], sample_pictures(BAD))
    root = parse(page)
    for one in root.iter():
        assert one.tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in one.attrib if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "action"):
            assert one.get(name, "#").startswith(("#", "data:"))
    style = root.findtext("head/style") or ""
    assert re.findall(r"url\(([^)]*)\)", style) == ["#hatch"] and "@import" not in style
    policy = next(
        one.attrib["content"] for one in root.iter("meta") if "Security-Policy" in one.get("http-equiv", "")
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"


def planted(text: str) -> dict[str, Any]:
    """Return the report with the text in place of every string, and in every key that names something."""
    changed = change_leaves(SMALL, lambda leaf: text if isinstance(leaf, str) else leaf)
    directions = changed["details"]["flips_by_direction"]
    changed["details"]["flips_by_direction"] = {f"{text}{key}": n for key, n in directions.items()}
    changed["environment"]["versions"] = {text or "none": "1"}
    return changed


def shape(root: Element) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.tag, tuple(one.attrib)) for one in root.iter()]


@cache
def plain_shape() -> list[tuple[str, tuple[str, ...]]]:
    return shape(parse(render_html([planted("plain"), planted("plain")])))


HOSTILE = (
    "</title><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '" onload="alert(1)" x=\'',
    "<img src=//evil.example/x>",
    "]]>--><!--",
    "&lt;b&gt; &amp; &#60;",
    "\x00\x1b[31m\ud800\u202e\ufffe",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_known_trick_leaves_its_place(text: str) -> None:
    root = parse(render_html([planted(text)], {text: b"x"}))
    assert shape(root) == shape(parse(render_html([planted("plain")], {"plain": b"x"})))
    assert clean(text) in "".join(root.itertext())


@few
@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_no_text_of_a_report_becomes_markup(text: str) -> None:
    page = render_html([planted(text), planted(text)])
    assert shape(parse(page)) == plain_shape()
    page.encode("utf-8")


@few
@given(st.text())
def test_what_is_escaped_reads_back_as_it_was(text: str) -> None:
    root = ElementTree.fromstring(tag("p", text, title=text))
    assert (root.text or "") == clean(text)
    assert escape(escape(text)) == escape(text)


@few
@given(st.randoms(use_true_random=False), st.sampled_from([None, {}, []]))
def test_absent_values_read_as_absent(random: Any, absent: Any) -> None:
    kept = ("bundle", "verdict")  # a report without them is none

    def drop(value: Any) -> Any:
        if random.random() < 0.08:
            return copy.copy(absent) if isinstance(value, (dict, list)) else None
        if isinstance(value, dict):
            return {key: drop(item) for key, item in value.items()}
        return [drop(item) for item in value] if isinstance(value, list) else value

    said = texts(
        parse(render_html([{key: item if key in kept else drop(item) for key, item in SMALL.items()}]))
    )
    assert not re.search(r"\b(None|nan|inf)\b", said)


def test_a_report_without_faces_is_a_page_without_plots() -> None:
    empty = {**REPORT, "faces": 0, "details": {}, "figures": {}, "slices": [], "reference": None}
    root = parse(render_html([empty]))
    assert "no faces were compared" in texts(root)
    assert "not measured" in texts(root)
    assert not list(root.iter("figure"))


def test_nothing_measured_reads_as_nothing_proven() -> None:
    gates = [{**gate, "value": None, "verdict": "not run"} for gate in REPORT["gates"]]
    assert "nothing is proven" in texts(parse(render_html([{**REPORT, "gates": gates}])))


def test_pictures_stand_beside_their_faces_and_only_there() -> None:
    pictures = sample_pictures(REPORT)
    first = REPORT["details"]["worst"][0]["hash"]
    root = parse(render_html([REPORT], {first: pictures[first], "stranger": b"never"}))
    sources = [one.attrib["src"] for one in root.iter("img")]
    assert sources == [f"data:image/png;base64,{base64.b64encode(pictures[first]).decode()}"]
    assert texts(by_id(root)["r1-worst"]).count("no picture") == 23


def test_slices_come_with_their_gates_and_the_note_on_many_comparisons() -> None:
    said = texts(by_id(parse(render_html([REPORT])))["r1-slices"])
    for part in ("gender", "female", "male", "age band", "60+", "by chance", REPORT["slices"][0]["note"]):
        assert part in said


def test_attribution_names_the_blocks() -> None:
    found = REPORT["details"]["attribution"]
    section = by_id(parse(render_html([REPORT])))["r1-attribution"]
    assert all(row["block"] in texts(section) for row in found["blocks"])
    without = copy.deepcopy(REPORT)
    del without["details"]["attribution"]
    assert "r1-attribution" not in by_id(parse(render_html([without])))


def test_attribution_sets_what_a_block_breaks_beside_what_it_restores() -> None:
    found = REPORT["details"]["attribution"]
    section = by_id(parse(render_html([REPORT])))["r1-attribution"]
    rows = section.findall(".//tbody")[0].findall("tr")
    for row, block in zip(rows, found["blocks"], strict=True):
        said = [texts(cell) for cell in row]
        assert said[1] == f"{block['restored']} of {found['flips']}"
        assert said[4] == f"{block['broken']} of {found['controls']}"
        assert float(said[5].removesuffix(" nat")) == pytest.approx(block["js_drop"], rel=0.05)
    assert "not clearly above" in texts(section) and "control" in texts(section)
    assert "head.pool no operator comes from it" in texts(section)
    older = copy.deepcopy(REPORT)
    for key in ("controls", "skipped"):
        del older["details"]["attribution"][key]
    for block in older["details"]["attribution"]["blocks"]:
        del block["broken"], block["js_drop"]
    said = texts(by_id(parse(render_html([older])))["r1-attribution"])
    assert "control" not in said and "broken" not in said and "None" not in said


def test_reports_that_share_a_target_are_told_apart_beside_their_gates() -> None:
    other = copy.deepcopy(ARM)
    other["bundle"]["model"] = "grefel-swin"
    found = by_id(parse(render_html([REPORT, other, BAD])))
    drawn = [texts(one) for one in found["side-by-side"].iter("svg")]
    assert drawn
    for said in drawn:
        for part in ("x86-64 avx512-vnni", "aarch64 dotprod", "grefel-lite", "grefel-swin"):
            assert said.count(part) == 2  # beside the marks, and in the description
    plain = found = by_id(parse(render_html([REPORT, BAD])))
    assert "avx512" not in texts(plain["side-by-side"])


def test_one_thing_is_not_said_to_be_several() -> None:
    pattern = re.compile(r"(?<![\d.,])1 (?:faces|labels|gates|flips|classes|reports)\b")
    assert not [text for text in parse(render_html([single(REPORT)])).itertext() if pattern.search(text)]


def single(value: Any) -> Any:
    """Return the report with a single one of everything that is counted."""
    if isinstance(value, dict):
        kept = {key: single(item) for key, item in value.items()}
        counted = {"faces", "flips", "unrestored", "controls", "kept_both"} & set(value)
        return kept | {key: 1 for key in counted if isinstance(value[key], int)}
    if isinstance(value, list):
        if value and all(isinstance(row, list) for row in value) and isinstance(value[0][0], int):
            square = [[0] * len(value) for _ in value]
            square[0][1] = 1
            return square
        return [single(item) for item in value]
    return value


def test_the_whole_environment_and_every_threshold_are_there() -> None:
    said = texts(by_id(parse(render_html([REPORT])))["r1-everything"])
    for part in ("AMD EPYC", "avx512_vnni", "2.4.6", "1.31.1", "accuracy_ratio 0.99", "mcnemar_p 0.359"):
        assert part in said


def test_several_reports_share_a_table_and_the_worst_decides() -> None:
    root = parse(render_html([REPORT, ARM, BAD]))
    assert next(root.iter("h1")).text == "FAILED"
    rows = by_id(root)["matrix"].findall(".//tbody/tr")
    assert len(rows) == 3
    for row, report in zip(rows, (REPORT, ARM, BAD), strict=True):
        said = texts(row)
        assert report["environment"]["cpu_class"] in said
        assert f"{report['figures']['accuracy']:.2%}" in said
        # one pill and one hidden word for each gate
        words = re.findall(r"passed|failed|undecided|not run|(?<!, )size only", said)
        assert words == [report["verdict"], *(gate["verdict"] for gate in report["gates"])]
    assert next(parse(render_html([REPORT, ARM])).iter("h1")).text == "UNDECIDED"
    assert next(parse(render_html([REPORT, REPORT])).iter("h1")).text == "PASSED"


def test_three_reports_with_all_their_pictures_stay_small_and_quick() -> None:
    reports = [sample_report(Sample(seed=seed, noise=0.3)) for seed in range(3)]
    pictures = {key: picture for each in reports for key, picture in sample_pictures(each, 96).items()}
    assert len(pictures) == 72
    started = time.process_time()
    page = render_html(reports, pictures)
    assert time.process_time() - started < 3  # 0.3 s on a quiet core
    assert len(page.encode()) < 5_000_000


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.1 defines it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_and_mark_stands_out(theme: int) -> None:
    style = files("edge_fer.parity.render").joinpath("page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split(":root {")[1 + theme].split("}")[0]))
    grounds = [colours["paper"], colours["panel"]]
    for name in ("ink", "muted", "pass", "fail", "open", "idle", "focus"):
        assert all(contrast(colours[name], ground) >= 4.5 for ground in grounds), name
    for name in ("pass", "fail", "open"):
        assert contrast(colours[name], colours[f"{name}-tint"]) >= 4.5
        assert contrast(colours["ink"], colours[f"{name}-tint"]) >= 4.5
    for name in ("float", "bundle"):  # marks and lines
        assert all(contrast(colours[name], ground) >= 3 for ground in grounds), name
