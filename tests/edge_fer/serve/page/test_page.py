"""The page against a running service, in Chromium: a photo, several faces, a camera; desk and phone."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_fer.labels import LABELS
from tests.edge_fer.serve.page.conftest import PHOTO, SIZES, THRESHOLD, Service, Visit

Start = Callable[..., Visit]
ANSWER = "#result:not([hidden])"
LOOKS = [(size, theme) for size in SIZES for theme in ("light", "dark")]


def asked(service: Service, data: bytes) -> dict[str, Any]:
    """Ask the service without the page."""
    request = urllib.request.Request(f"{service.address}/v1/infer", data, {"Content-Type": "image/*"})
    with urllib.request.urlopen(request) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def check_panel(visit: Visit, face: dict[str, Any]) -> None:
    """Check every number and bar of the panel against what the service said of a face."""
    rows = visit.rows()
    assert tuple(rows) == LABELS
    for label, row in rows.items():
        before, after = face["primary"][label], face["probabilities"][label]
        assert row["before"] == pytest.approx(100 * before, abs=0.0501)
        assert row["after"] == pytest.approx(100 * after, abs=0.0501)
        assert row["first"] == pytest.approx(100 * before, abs=1e-3)
        assert row["final"] == pytest.approx(100 * after, abs=1e-3)
        sign = "" if abs(after - before) < 0.0005 else "▲" if after > before else "▼"
        assert row["moved"][:1] == sign
    assert visit.text("#headline").startswith(face["label"])
    assert f"{face['reliability']:.2f}" in visit.text("#gauge-text")


def drop(visit: Visit, data: bytes, name: str, kind: str = "image/jpeg") -> None:
    """Drop a file on the page, as a hand does."""
    visit.page.evaluate(
        """([text, name, type]) => {
            const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, {type}));
            for (const event of ['dragenter', 'dragover', 'drop'])
                document.getElementById('stage').dispatchEvent(
                    new DragEvent(event, {bubbles: true, cancelable: true, dataTransfer: carried}));
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_the_page_opens_quietly_and_fits(visit: Start, size: str, theme: str) -> None:
    one = visit(size, color_scheme=theme)
    page = one.open()
    assert "grefel-lite int8" in one.text("#bundle-name")
    width, height = SIZES[size]
    for selector in ("h1", "#welcome-camera", "#welcome-photo", "#welcome-example", "#bundle-pill"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, selector
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, selector
    page.click("#welcome-example")
    page.wait_for_selector(ANSWER)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The picture, the verdict and the bar of what it looks like are seen at once.
    for selector in ("#picture", "#headline", "#bars tbody tr.leading"):
        box = page.locator(selector).bounding_box()
        assert box["width"] > 100 and box["y"] >= 0 and box["y"] + box["height"] <= height, selector
    if size == "desk":
        assert page.evaluate("document.documentElement.scrollHeight") <= height


def test_dark_and_light_differ(visit: Start) -> None:
    seen = []
    for theme in ("light", "dark"):
        page = visit(color_scheme=theme).open()
        for selector, key in (("body", "backgroundColor"), ("body", "color"), (".sure", "backgroundColor")):
            seen.append(page.eval_on_selector(selector, f"one => getComputedStyle(one).{key}"))
    assert len(set(seen)) == 6


def test_a_dropped_photo_gets_the_answer_that_the_service_gives(visit: Start, service: Service) -> None:
    one = visit()
    page = one.open()
    drop(one, PHOTO.read_bytes(), "somebody.jpg")
    page.wait_for_selector(ANSWER)
    face = asked(service, PHOTO.read_bytes())["faces"][0]
    check_panel(one, face)
    assert "somebody.jpg · 1 face" in one.text("#live")
    before, after = (100 * face[key]["happiness"] for key in ("primary", "probabilities"))
    assert f"surer: happiness went from {before:.1f} % to {after:.1f} %" in one.text("#change")
    assert f"happiness {after:.0f} %" in one.text("#said")
    stages = one.text("#stage-figures")
    assert all(stage in stages for stage in ("decode", "detect", "preprocess", "recognise"))
    assert "track" not in stages


def test_a_photo_that_is_stored_lying_down_is_shown_upright(
    visit: Start, photo: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    upright = photo[:, :400]
    lying = Image.fromarray(np.rot90(upright))  # orientation 6: to be turned by 90 degrees clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif, quality=95)
    one = visit()
    page = one.open()
    page.set_input_files("#file", tmp_path / "lying.jpg")
    page.wait_for_selector(ANSWER)
    assert one.text("#headline").startswith("happiness")
    box = page.locator("#picture").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(400 / 512, abs=0.01)
    shares = [(0.1, 0.5), (0.25, 0.75), (0.75, 0.95), (0.5, 0.95)]
    drawn = page.eval_on_selector(
        "#picture",
        """(one, shares) => {
            const {data} = one.getContext('2d').getImageData(0, 0, one.width, one.height);
            const at = ([x, y]) => 4 * (Math.round(y * one.height) * one.width + Math.round(x * one.width));
            return shares.map(each => [...data.slice(at(each), at(each) + 4)]) }""",
        shares,
    )
    for (x, y), (red, green, blue, _) in zip(shares, drawn, strict=True):
        row, column = round(512 * y), round(400 * x)
        around = upright[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 3).mean(axis=0)
        assert np.abs(around - (red, green, blue)).max() < 40, (x, y)


def test_one_of_several_faces_is_chosen_by_click_and_by_key(
    visit: Start, service: Service, photo: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    second = np.where(photo > 127, 127 + (photo - 127) // 2, photo)
    Image.fromarray(np.hstack([photo, second[:, ::-1]])).save(tmp_path / "two.png")
    faces = asked(service, (tmp_path / "two.png").read_bytes())["faces"]
    assert len(faces) == 2
    left, right = sorted(faces, key=lambda face: face["box"][0])
    one = visit()
    page = one.open()
    page.set_input_files("#file", tmp_path / "two.png")
    page.wait_for_selector("#people:not([hidden])")
    for key, face in (("2", right), ("1", left)):
        page.keyboard.press(key)
        check_panel(one, face)
    page.keyboard.press("9")  # there is none
    check_panel(one, left)
    page.focus("#people input:checked")
    page.keyboard.press("ArrowRight")
    check_panel(one, right)
    drawn = page.locator("#picture").bounding_box()
    x, y, width, height = left["box"]
    scale = drawn["width"] / 1024
    page.mouse.click(drawn["x"] + scale * (x + width / 2), drawn["y"] + scale * (y + height / 2))
    check_panel(one, left)
    assert page.locator("#people input:checked").count() == 1


@pytest.mark.parametrize(("size", "theme"), [("desk", "dark"), ("phone", "light")])
def test_the_camera_is_answered_live(visit: Start, size: str, theme: str) -> None:
    one = visit(size, color_scheme=theme)
    page = one.open()
    page.click("#welcome-camera")
    page.wait_for_selector("#live.running")
    one.until(lambda: "frames/s" in one.text("#live"))
    page.keyboard.press(" ")  # the focus is on the button Pause
    page.wait_for_selector("#live.paused")
    one.until(lambda: len(one.sent) == len(one.received))
    while not json.loads(one.received[-1])["faces"]:  # between two detections a face may get lost
        seen = len(one.received)
        page.keyboard.press(".")
        one.until(lambda: len(one.received) > seen)  # noqa: B023
    check_panel(one, json.loads(one.received[-1])["faces"][0])
    assert one.text("#headline").startswith("happiness")
    frames = [json.loads(each)["frame"] for each in one.received]
    assert frames == list(range(len(one.sent))) and len(frames) >= 3
    assert set(one.sent) == {"image/jpeg"}
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


def test_pause_step_and_go_on(visit: Start) -> None:
    one = visit()
    page = one.open()
    page.keyboard.press("c")
    page.wait_for_selector("#live.running")
    page.click("#pause")
    one.until(lambda: len(one.sent) == len(one.received))
    held = len(one.sent)
    page.wait_for_timeout(400)
    assert len(one.sent) == held == len(one.received)
    for expected in (held + 1, held + 2):
        page.keyboard.press(".")
        one.until(lambda: f"paused at frame {expected - 1}" in one.text("#live"))  # noqa: B023
        page.wait_for_timeout(200)
        assert len(one.sent) == expected
    page.click("#pause")
    page.wait_for_selector("#live.running")
    one.until(lambda: len(one.received) > held + 3)
    page.keyboard.press("c")
    page.wait_for_selector("#welcome:not([hidden])")
    stopped = len(one.sent)
    page.wait_for_timeout(300)
    assert len(one.sent) == stopped
    assert sum(url.startswith("ws://") for url in one.asked) == 1  # all of it went over one stream
    page.keyboard.press("c")
    page.wait_for_selector("#live.running")
    one.until(lambda: len(one.received) > stopped)


def test_the_threshold_withholds_and_gives_back_the_answer(visit: Start) -> None:
    one = visit()
    page = one.open()
    page.click("#welcome-example")
    page.wait_for_selector(ANSWER)
    assert one.text("#threshold-value") == THRESHOLD
    page.focus("#threshold")
    page.keyboard.press("End")
    assert one.text("#headline").startswith("Not sure enough")
    assert "closest: happiness" in one.text("#headline")
    assert "not sure enough" in one.text("#gauge-text") and "not sure enough" in one.text("#said")
    page.keyboard.press("Home")
    assert one.text("#headline").startswith("happiness")
    for _ in range(20):
        page.keyboard.press("]")
    assert one.text("#threshold-value") == "1.00"
    assert one.text("#headline").startswith("Not sure enough")
    page.keyboard.press("[")
    assert one.text("#headline").startswith("happiness")  # 0.998 against 0.95
    page.click("#threshold-reset")
    assert one.text("#threshold-value") == THRESHOLD


def test_screen_readers_hear_of_a_live_picture_rarely(visit: Start) -> None:
    one = visit()
    page = one.open()
    page.evaluate(
        """() => { window.heard = []; const said = document.getElementById('said');
            new MutationObserver(() => window.heard.push(said.textContent)).observe(
                said, {childList: true, characterData: true, subtree: true}) }"""
    )
    page.click("#welcome-camera")
    page.wait_for_selector("#live.running")
    one.until(lambda: len(one.received) > 5)
    assert len(page.evaluate("window.heard")) == 1


@pytest.mark.parametrize("size", SIZES)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(visit: Start, size: str) -> None:
    page = visit(size).open()
    page.click("#welcome-example")
    page.wait_for_selector(ANSWER)
    page.evaluate("document.activeElement.blur()")
    wanted = set(
        page.evaluate(
            """[...document.querySelectorAll('a[href], button, summary, input, select')].filter(one =>
                one.checkVisibility() && !one.disabled && one.tabIndex >= 0 && one.offsetParent
            ).map(one => one.id || one.tagName)"""
        )
    )
    assert {"camera", "photo", "threshold", "keys", "SUMMARY"} <= wanted
    reached = {}
    for _ in range(len(wanted) + 3):
        page.keyboard.press("Tab")
        name, outline, width = page.evaluate(
            """(() => { const one = document.activeElement; const style = getComputedStyle(one);
            return [one.id || one.tagName, style.outlineStyle, parseFloat(style.outlineWidth)] })()"""
        )
        reached[name] = outline != "none" and width >= 2
    reached.pop("BODY", None)
    assert wanted <= set(reached)
    assert all(reached.values()), reached


def test_the_list_of_keys_opens_closes_and_switches_them_off(visit: Start) -> None:
    page = visit().open()
    page.keyboard.press("?")
    page.wait_for_selector("#keys-dialog[open]")
    page.keyboard.press("]")  # not while the list is open
    page.click("#keys-on")
    page.keyboard.press("Escape")
    before = page.text_content("#threshold-value")
    page.keyboard.press("]")
    assert page.text_content("#threshold-value") == before == THRESHOLD


def test_nothing_moves_for_those_who_ask_for_it(visit: Start) -> None:
    page = visit(reduced_motion="reduce").open()
    assert page.eval_on_selector("#gauge-fill", "one => getComputedStyle(one).transitionDuration") == "0s"
