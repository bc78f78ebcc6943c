"""The page in a real browser: Chromium, at a desk and on a phone, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_fer.parity.render.html import render_html
from edge_fer.parity.render.html_report import PLOTS
from tests.edge_fer.parity.render.sample_report import Sample, sample_pictures, sample_report

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
SLUGS = [slug for _, draws in PLOTS.values() for slug, _, _ in draws]


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    passed = sample_report()
    failed = sample_report(Sample(noise=0.45, target="tflite", speed=1.05, seed=2))
    found = {"one": [passed], "two": [passed, failed]}
    for name, reports in found.items():
        text = render_html(reports, sample_pictures(passed))
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in found}


class Visit:
    """A page opened in a browser that notes what it complains of and what it asks for."""

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], theme: str) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme
        )
        self.page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def box(self, selector: str) -> dict[str, float]:
        """Return where an element is drawn."""
        return self.page.eval_on_selector(
            selector,
            "one => { const r = one.getBoundingClientRect(); "
            "return {left: r.left, right: r.right, top: r.top, bottom: r.bottom, "
            "width: r.width, height: r.height} }",
        )

    def close(self) -> None:
        self._context.close()


@pytest.fixture(params=[(name, theme) for name in SIZES for theme in ("light", "dark")], ids="-".join)
def visit(request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]) -> Iterator[Visit]:
    size, theme = request.param
    opened = Visit(browser, pages["one"], SIZES[size], theme)
    yield opened
    opened.close()


def test_the_page_opens_quietly_and_fits(visit: Visit, pages: dict[str, Path]) -> None:
    page = visit.page
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [pages["one"].as_uri()]
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    verdict = visit.box("h1")
    assert verdict["height"] > 30 and verdict["top"] >= 0 and verdict["bottom"] <= height
    for slug in SLUGS:
        drawn = visit.box(f"#r1-{slug}-figure > svg[role=img]")
        assert drawn["width"] > 250 and drawn["height"] > 150, slug
        assert drawn["left"] >= 0 and drawn["right"] <= width, slug


def test_dark_and_light_differ_and_reach_the_drawings(browser: Any, pages: dict[str, Path]) -> None:
    seen = []
    for theme in ("light", "dark"):
        visit = Visit(browser, pages["one"], SIZES["desk"], theme)
        for selector, key in (("body", "backgroundColor"), ("h2", "color"), ("svg .tick", "fill")):
            seen.append(visit.page.eval_on_selector(selector, f"one => getComputedStyle(one).{key}"))
        visit.close()
    assert len(set(seen)) == 6


@pytest.mark.parametrize("size", SIZES)
def test_the_keyboard_reaches_every_region_and_link(browser: Any, pages: dict[str, Path], size: str) -> None:
    visit = Visit(browser, pages["one"], SIZES[size], "light")
    stops = visit.page.evaluate(
        "document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length"
        " - [...document.querySelectorAll('details:not([open]) [tabindex]')].length"
    )
    reached = []
    for _ in range(stops):
        visit.page.keyboard.press("Tab")
        reached.append(
            visit.page.evaluate(
                "(() => { const one = document.activeElement; const style = getComputedStyle(one); "
                "return [one.className || one.tagName, one.getAttribute('aria-label') || one.textContent, "
                "style.outlineStyle, parseFloat(style.outlineWidth)] })()"
            )
        )
    assert reached[0][0] == "skip"
    assert any(label.startswith("Gates of") for _, label, _, _ in reached)
    assert sum(kind == "scroll" for kind, *_ in reached) >= 8
    assert sum(kind == "SUMMARY" for kind, *_ in reached) >= len(SLUGS)
    assert all(outline != "none" and width >= 2 for _, _, outline, width in reached)
    visit.close()


@pytest.mark.parametrize("size", SIZES)
def test_several_reports_fit_too(browser: Any, pages: dict[str, Path], size: str) -> None:
    visit = Visit(browser, pages["two"], SIZES[size], "dark")
    assert visit.said == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert visit.box("h1")["bottom"] <= SIZES[size][1]
    table = visit.box("#matrix .scroll")
    assert table["top"] < SIZES[size][1] and table["right"] <= SIZES[size][0]
    inside = visit.page.evaluate(
        "[...document.querySelectorAll('.cards')].map(t => t.scrollWidth <= t.parentElement.clientWidth)"
    )
    assert len(inside) == 5 and (size == "desk" or all(inside))  # on a phone no gate hides sideways
    pictures = "[...document.images].every(one => one.complete && one.naturalWidth > 0)"
    assert visit.page.evaluate(pictures)
    visit.close()
