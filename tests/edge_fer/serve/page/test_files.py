"""The files of the page: how they are given out, what they may load, whether their colours can be read."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import product
from typing import Any

import pytest

from edge_fer.draw import label_colour
from edge_fer.labels import LABELS
from tests.edge_fer.serve.page.conftest import PHOTO

applications = pytest.importorskip("starlette.applications")
testclient = pytest.importorskip("starlette.testclient")

PAGE = files("edge_fer.serve.page")
NAMES = sorted(entry.name for entry in PAGE.iterdir() if not entry.name.startswith("__"))
TYPES = {
    "css": "text/css",
    "html": "text/html",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
GROUNDS = ("--paper", "--panel")


@pytest.fixture(scope="module")
def client() -> Any:
    from edge_fer.serve.page import page_routes

    return testclient.TestClient(applications.Starlette(routes=page_routes()))


def text(name: str) -> str:
    return PAGE.joinpath(name).read_text(encoding="utf-8")


def path(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_given_out_with_its_type_and_a_tag(client: Any, name: str) -> None:
    response = client.get(path(name))
    assert response.status_code == 200 and response.content == PAGE.joinpath(name).read_bytes()
    assert response.headers["content-type"].split(";")[0] == TYPES[name.rsplit(".", 1)[1]]
    tag = response.headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}'):
        kept = client.get(path(name), headers={"If-None-Match": sent})
        assert kept.status_code == 304 and kept.content == b"" and kept.headers["etag"] == tag
    assert client.get(path(name), headers={"If-None-Match": '"other"'}).status_code == 200
    head = client.head(path(name))
    assert head.status_code == 200 and head.content == b""
    assert int(head.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_comes_with_the_headers_that_keep_it_in(client: Any, name: str) -> None:
    headers = client.get(path(name)).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert (
        "camera=(self)" in headers["permissions-policy"] and "microphone=()" in headers["permissions-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "wrong",
    [
        "/page/",
        "/page/index.html",
        "/page/__init__.py",
        "/page/../__init__.py",
        "/page/%2e%2e/app.py",
        "/page/MAIN.JS",
    ],
)
def test_no_other_path_names_a_file(client: Any, wrong: str) -> None:
    assert client.get(wrong).status_code == 404
    assert client.post(path("main.js")).status_code == 405


def test_nothing_is_inline_or_from_elsewhere() -> None:
    page = text("index.html")
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page) == []
    outside = re.compile(r"https?://[^\s\"')]+|[\"'(]//[a-z]")
    for name in NAMES:
        if not name.endswith(".jpg"):
            found = [each for each in outside.findall(text(name)) if each != "http://www.w3.org/2000/svg"]
            assert found == [], name


def test_every_file_is_used_and_everything_used_is_there() -> None:
    used = set(re.findall(r"(?:href|src)=\"page/([\w.]+)\"", text("index.html")))
    used |= set(re.findall(r"fetch\(\"page/([\w.]+)\"", text("main.js")))
    scripts = [name for name in NAMES if name.endswith(".js")]
    for name in scripts:
        used |= set(re.findall(r"from \"\./([\w.]+)\"", text(name)))
    assert used | {"index.html"} == set(NAMES)
    named = set(re.findall(r"\bat\(\"([\w-]+)\"\)", text("main.js")))
    there = re.findall(r"\sid=\"([\w-]+)\"", text("index.html"))
    assert named <= set(there) and len(there) == len(set(there))


def test_files_are_short() -> None:
    assert all(len(text(name).splitlines()) <= 400 for name in NAMES if not name.endswith(".jpg"))


def test_the_example_is_the_demo_photo() -> None:
    assert PAGE.joinpath("astronaut.jpg").read_bytes() == PHOTO.read_bytes()


def test_labels_have_the_colours_that_annotated_pictures_have() -> None:
    colours = dict(re.findall(r"(\w+): \"(#[0-9a-f]{6})\"", text("words.js")))
    assert colours == {label: "#{:02x}{:02x}{:02x}".format(*label_colour(label)) for label in LABELS}
    unsure = re.search(r"UNSURE_ON_PICTURE = \"(#[0-9a-f]{6})\"", text("words.js"))
    assert unsure and unsure[1] == "#{:02x}{:02x}{:02x}".format(*label_colour(None))


def colours(theme: str) -> dict[str, str]:
    """Return the page's named colours in a colour scheme, the dark ones laid over the light ones."""
    blocks = re.findall(r":root \{(.*?)\}", text("page.css"), re.DOTALL)
    assert len(blocks) == 2
    found: dict[str, str] = {}
    for block in blocks[: 1 if theme == "light" else 2]:
        found.update(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block))
    return found


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours by WCAG 2.2, 1..21."""

    def luminance(colour: str) -> float:
        shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


def weaker(pairs: list[tuple[str, str]], theme: str, least: float) -> dict[tuple[str, str], float]:
    """Return the pairs of named colours whose contrast is too low."""
    known = colours(theme)
    ratios = {(one, other): contrast(known[one], known[other]) for one, other in pairs}
    return {pair: ratio for pair, ratio in ratios.items() if ratio < least}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme: str) -> None:
    pairs = [*product(("--ink", "--muted", "--pass", "--open"), GROUNDS)]
    pairs += [(f"--{kind}", f"--{kind}-tint") for kind in ("pass", "fail", "open", "idle")]
    pairs += [("--paper", "--ink"), ("--stage-ink", "--stage"), ("--stage-muted", "--stage")]
    assert weaker(pairs, theme, 4.5) == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_bars_and_controls_can_be_seen(theme: str) -> None:
    stages = ("--decode", "--detect", "--track-stage", "--preprocess", "--recognise", "--rest")
    drawn = (*(f"--{label}" for label in LABELS), *stages, "--control", "--focus", "--muted", "--unsure")
    pairs = [*product(drawn, GROUNDS), *product(("--pass", "--open", "--ink"), ("--track",))]
    assert weaker(pairs, theme, 3) == {}


def test_fixed_colours_of_notices_and_the_stage_can_be_read() -> None:
    css = text("page.css")
    notices = re.findall(r"background: (#[0-9a-f]{6}); color: (#[0-9a-f]{6})", css)
    assert len(notices) >= 4
    assert all(contrast(ground, ink) >= 4.5 for ground, ink in notices)
