"""The Markdown of a pull request, read back by a Markdown parser: its tables hold, and no text breaks out."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edge_fer.parity.render.html import render_html
from edge_fer.parity.render.markdown import plain, render_markdown
from edge_fer.parity.render.reading import Value
from edge_fer.parity.render.summary import SLICE_COLUMNS, slice_rows
from tests.edge_fer.parity.render.sample_report import Sample, sample_report
from tests.edge_fer.parity.render.test_html import parse, planted, texts

REPORT = sample_report()
BAD = sample_report(Sample(noise=0.45, target="tflite", speed=1.05, seed=2))
PARSER = MarkdownIt("commonmark").enable("table")


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of every table, as a reader would see them."""
    found: list[list[list[str]]] = []
    tokens = PARSER.parse(text)
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(shown(tokens[index + 1]))
    return found


def shown(token: Token) -> str:
    """Return the text of a token; anything but plain text in it is an error."""
    children = token.children or []
    assert {child.type for child in children} <= {"text", "text_special", "strong_open", "strong_close"}
    return "".join(child.content for child in children)


def shape(text: str) -> list[str]:
    return [token.type for token in PARSER.parse(text)]


def test_the_verdict_is_the_first_line_and_the_gates_the_first_table() -> None:
    text = render_markdown([REPORT])
    assert text.splitlines()[0] == "## Parity of grefel-lite onnx int8: PASSED"
    gates = tables(text)[0]
    assert [row[0] for row in gates[1:]] == [gate["name"] for gate in REPORT["gates"]]
    for row, gate in zip(gates[1:], REPORT["gates"], strict=True):
        assert row[4].endswith(f" {gate['verdict']}") and row[5] == gate["reason"]
    assert text == render_markdown([json.loads(json.dumps(REPORT))])


def test_flips_of_every_class_are_listed() -> None:
    rows = tables(render_markdown([REPORT]))[2][1:]
    wanted = REPORT["details"]["flips_by_class"]
    assert [row[:3] for row in rows] == [
        [each["label"], f"{each['faces']:,}", str(each["flips"])] for each in wanted
    ]
    assert [row[5:] for row in rows] == [
        [str(each[kind]) for kind in ("to_wrong", "to_right", "between_wrong")] for each in wanted
    ]


def test_every_slice_has_a_table_with_its_note() -> None:
    report = copy.deepcopy(BAD)
    gates = report["slices"][0]["values"][0]["gates"]
    for gate, verdict in zip(gates, ("failed", "undecided", "undecided", "passed", "failed"), strict=False):
        gate["verdict"] = verdict
    text = render_markdown([report])
    found = tables(text)[3:]
    assert len(found) == len(report["slices"]) == 2
    for table, part in zip(found, report["slices"], strict=True):
        assert table[0] == [part["column"], *SLICE_COLUMNS]
        assert plain(part["note"]) in text
        for row, value in zip(table[1:], part["values"], strict=True):
            figures = value["figures"]
            assert row[:5] == [
                value["value"],
                f"{value['faces']:,}",
                f"{figures['accuracy']:.2%}",
                f"{figures['reference_accuracy']:.2%}",
                f"{figures['flips']:,} ({figures['flips'] / value['faces']:.2%})",
            ]
    assert found[0][1][5] == f"failed: {gates[0]['name']}, {gates[4]['name']}; 2 undecided"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["passed", "passed", "not run"], "2 passed"),
        (["not run"], "none run"),
        ([], "none run"),
        (["passed", "undecided"], "1 undecided"),
    ],
)
def test_a_slice_says_in_a_word_what_its_gates_found(verdicts: list[str], said: str) -> None:
    gates = [{"name": "flips", "verdict": verdict} for verdict in verdicts]
    value = {"value": "(none)", "faces": 7, "gates": gates, "figures": {"accuracy": None, "flips": 1}}
    rows = slice_rows(Value({"slices": [{"column": "age", "note": "", "values": [value]}]}))
    assert rows == [("age", [("(none)", "7", "–", "–", "1 (14.29%)", said)])]


def test_several_reports_start_with_a_table_of_all() -> None:
    text = render_markdown([REPORT, BAD])
    assert text.splitlines()[0] == "## Parity of 2 bundles: FAILED"
    head, *rows = tables(text)[0]
    assert head[2 : 2 + len(REPORT["gates"])] == [gate["name"] for gate in REPORT["gates"]]
    assert [row[1] for row in rows] == ["✔ passed", "✘ failed, size only"]
    signs = {"passed": "✔", "failed": "✘", "undecided": "?", "not run": "–", "size only": "▽"}
    assert rows[1][2 : 2 + len(BAD["gates"])] == [signs[gate["verdict"]] for gate in BAD["gates"]]
    assert text.count("<details>") == text.count("</details>") == 8  # and of each, two slices


def test_an_emulated_processor_is_called_so_wherever_it_is_named() -> None:
    emulated = copy.deepcopy(REPORT)
    emulated["environment"]["emulated"] = "qemu-user 10.0, cortex-a76"
    both = render_markdown([REPORT, emulated]), texts(parse(render_html([REPORT, emulated])))
    for several, alone in zip(both, (render_markdown([emulated]), render_html([emulated])), strict=True):
        assert "x86-64 avx512-vnni (emulated)" in several and "x86-64 avx512-vnni (emulated)" in alone
        assert "on x86-64 avx512-vnni:" in several or "on x86-64 avx512-vnni." in several  # the real one
    assert "(emulated)" not in render_markdown([REPORT]) + render_html([REPORT])


def test_absent_figures_are_said_to_be_absent() -> None:
    text = render_markdown([{**REPORT, "faces": 0, "details": {}, "figures": {}, "slices": []}])
    assert "no faces were compared" in text and "not measured" in text
    assert len(tables(text)) == 2
    assert "None" not in text


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "two\nlines\r\n\r\n# three",
        "`code` ``more`",
        "<script>alert(1)</script><!--",
        "**bold** _it_ ~~no~~ $x$",
        "[a](http://evil.example) ![b](c) www.evil.example",
        "@everyone #1 GH-2 &lt;",
        "\\|",
    ],
)
def test_what_markdown_would_read_as_its_own_is_shown_as_it_is(text: str) -> None:
    page = render_markdown([planted(text)])
    assert shape(page) == shape(render_markdown([planted("plain")]))
    assert tables(page)[0][1][0] == " ".join(text.split())
    cell = plain(text)
    assert not set(cell) & set("\\`*_[]|~<>@$!\n") and "://" not in cell and "www." not in cell


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_no_text_of_a_report_breaks_a_table(text: Any) -> None:
    page = render_markdown([planted(text), planted(text)])
    assert shape(page) == shape(render_markdown([planted("plain"), planted("plain")]))
    page.encode("utf-8")
