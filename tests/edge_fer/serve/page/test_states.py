"""What the page does when something is not as it should be; each of them happens to the real service."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.edge_fer.serve.page.conftest import PHOTO, THRESHOLD, Service, Visit, chromium

Start = Callable[..., Visit]
ANSWER = "#result:not([hidden])"
NOTICE = "#notice:not([hidden])"


@pytest.fixture
def told(service: Service) -> dict[str, Any]:
    """What GET /v1/bundle says."""
    with urllib.request.urlopen(f"{service.address}/v1/bundle") as response:
        content: dict[str, Any] = json.load(response)
    return content


@pytest.fixture(scope="module")
def shy_browser(playwright: Any) -> Iterator[Any]:
    """A browser that gives nobody its camera."""
    with chromium(playwright, "--use-fake-device-for-media-stream", "--deny-permission-prompts") as started:
        yield started


def test_a_token_is_asked_for_and_a_lost_service_is_found_again(visit: Start, tmp_path: Path) -> None:
    guarded = Service(tmp_path, token="sesame")
    expected = ("status of 401", "WebSocket connection", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET")
    one = visit(address=guarded.address, may_say=expected)
    page = one.page
    page.goto(guarded.address)
    for token in ("mustard", "sesame"):
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        if token == "mustard":
            one.until(lambda: "not accepted" in one.text("#token-why"))
    page.wait_for_selector("#bundle-pill:not([hidden])")
    assert page.evaluate("[...Object.values(sessionStorage)]") == ["sesame"]
    assert page.evaluate("localStorage.length") == 0 and page.evaluate("document.cookie") == ""
    assert not any("sesame" in url for url in one.asked)
    page.click("#welcome-camera")
    page.wait_for_selector("#live.running")
    assert one.sent[0] == '{"token":"sesame"}' and set(one.sent[1:]) == {"image/jpeg"}

    guarded.stop()
    page.wait_for_selector(f"{NOTICE}.error")
    one.until(lambda: "Trying again in" in one.text("#notice-text"))
    seen = len(one.received)
    again = Service(tmp_path, port=guarded.port)  # the same place, and now without a token
    try:
        one.until(lambda: len(one.received) > seen + 1)
        assert page.locator("#notice").is_hidden()
    finally:
        page.close()
        again.stop()


def test_a_token_may_be_refused(visit: Start, service: Service) -> None:
    one = visit(may_say=("status of 401",))
    one.page.route("**/v1/bundle", lambda route: route.fulfill(status=401, json={"error": "a token"}))
    one.page.goto(service.address)
    one.page.wait_for_selector("#token-dialog[open]")
    one.page.click("#token-cancel")
    one.page.wait_for_selector(f"{NOTICE}.error")
    assert "token" in one.text("#notice-text") and one.text("#bundle-name") == "token needed"


def test_a_busy_service_is_asked_again_when_it_said(visit: Start) -> None:
    one = visit(may_say=("status of 503",))
    page = one.open()
    left = [503]

    def answer(route: Any) -> None:
        if left:
            route.fulfill(
                status=left.pop(), headers={"Retry-After": "2"}, json={"error": "the queue is full"}
            )
        else:
            route.continue_()

    page.route("**/v1/infer", answer)
    page.click("#welcome-example")
    one.until(lambda: "Trying again in 2 s" in one.text("#notice-text"))
    page.wait_for_selector(ANSWER)
    assert page.locator("#notice").is_hidden()
    assert sum(url.endswith("/v1/infer") for url in one.asked) == 2


def test_a_full_service_is_tried_again_for_the_camera(visit: Start) -> None:
    one = visit()
    refusals = [1013]

    def answer(socket: Any) -> None:
        if refusals:
            socket.close(code=refusals.pop())
        else:
            socket.connect_to_server()

    one.page.route_web_socket("**/v1/stream", answer)
    page = one.open()
    page.click("#welcome-camera")
    one.until(lambda: "as many cameras as it takes" in one.text("#notice-text"))
    page.wait_for_selector("#live.running")
    assert page.locator("#notice").is_hidden()


def test_a_photo_that_is_too_large_or_none_is_refused_with_the_reason(visit: Start, tmp_path: Path) -> None:
    one = visit(may_say=("status of 413", "status of 422"))
    page = one.open()
    (tmp_path / "huge.jpg").write_bytes(PHOTO.read_bytes() + bytes(21_000_000))
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    (tmp_path / "no.pdf").write_bytes(b"no picture")  # by its type: it is not even sent
    told = (
        ("huge.jpg", "more than the server takes"),
        ("no.jpg", "JPEG"),
        ("no.pdf", "no.pdf is no picture"),
    )
    for name, word in told:
        page.set_input_files("#file", tmp_path / name)
        one.until(lambda: word in one.text("#notice-text"))  # noqa: B023
        assert page.locator("#notice").get_attribute("role") == "alert"
    assert page.locator("#result").is_hidden()


def test_a_picture_without_a_face_says_so(visit: Start, tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 400, 3), 128, np.uint8)).save(tmp_path / "wall.png")
    one = visit()
    page = one.open()
    page.set_input_files("#file", tmp_path / "wall.png")
    page.wait_for_selector(f"{NOTICE}.warning")
    assert "No face found" in one.text("#notice-text") and "No face found" in one.text("#said")
    assert "no faces" in one.text("#live")
    assert page.locator("#result").is_hidden() and page.locator("#guide").is_visible()


def test_a_format_that_the_browser_does_not_know_is_answered(visit: Start, tmp_path: Path) -> None:
    Image.open(PHOTO).save(tmp_path / "somebody.tif")
    one = visit()
    page = one.open()
    page.set_input_files("#file", tmp_path / "somebody.tif")
    page.wait_for_selector(ANSWER)
    assert one.text("#headline").startswith("happiness")
    assert "cannot show this picture's format" in one.text("#notice-text")


def test_a_camera_that_is_not_given_is_explained(shy_browser: Any, service: Service) -> None:
    one = Visit(shy_browser, service.address, permissions=[])
    page = one.open()
    page.click("#welcome-camera")
    one.until(lambda: "not allowed" in one.text("#notice-text"))
    assert page.locator("#welcome").is_visible() and page.locator("#notice-action").is_visible()
    one.close()
    assert one.said == []


def test_a_page_that_is_not_secure_says_what_that_means(shy_browser: Any, service: Service) -> None:
    one = Visit(shy_browser, f"http://edge.test:{service.port}", permissions=[])
    page = one.open()
    assert "https or localhost" in one.text("#insecure") and page.locator("#insecure").is_visible()
    page.click("#welcome-camera")
    page.wait_for_selector(f"{NOTICE}.warning")
    assert "SSH tunnel" in one.text("#notice-text")
    page.click("#welcome-example")
    page.wait_for_selector(ANSWER)
    one.close()
    assert one.said == []


@pytest.mark.parametrize(
    ("change", "pill", "text"),
    [
        ({}, "passed", "certified here"),
        ({"runtime": {"certified_here": False}}, "undecided", "not certified on this machine"),
        ({"certificate": None, "runtime": {"certified_here": False}}, "undecided", "no certificate"),
        ({"bundle": {"failed": True}}, "failed", "failed its certificate"),
    ],
)
def test_whether_the_bundle_is_certified_here_is_said(
    visit: Start, told: dict[str, Any], change: dict[str, Any], pill: str, text: str
) -> None:
    for key, value in change.items():
        told[key] = value if value is None else {**told[key], **value}
    one = visit()
    one.page.route("**/v1/bundle", lambda route: route.fulfill(json=told))
    page = one.open()
    assert one.text("#bundle-pill") == text
    assert pill in str(page.get_attribute("#bundle-pill", "class"))
    page.click(".bundle summary")
    assert ("self-test" in one.text("#bundle-facts")) == (pill == "undecided")


@pytest.mark.parametrize(
    ("server", "bundle", "value", "origin"),
    [(0.31, 0.62, "0.31", "server"), (None, 0.62, "0.62", "bundle"), (None, None, THRESHOLD, "certificate")],
)
def test_the_threshold_starts_where_the_service_or_the_bundle_says(
    visit: Start, told: dict[str, Any], server: float | None, bundle: float | None, value: str, origin: str
) -> None:
    told["runtime"]["min_reliability"], told["bundle"]["min_reliability"] = server, bundle
    one = visit()
    one.page.route("**/v1/bundle", lambda route: route.fulfill(json=told))
    one.open()
    assert one.text("#threshold-value") == value
    assert origin in one.text("#threshold-origin")
