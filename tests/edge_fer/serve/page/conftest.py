"""A running service, a Chromium whose camera is a film of the demo photo, and a page that is watched."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_fer.bundle import Bundle, default_bundle
from edge_fer.images import read_image

ROOT = Path(__file__).resolve().parents[4]
PHOTO = ROOT / "examples" / "astronaut.jpg"
SIZES = {"desk": (1280, 800), "phone": (390, 844)}
FRAMES = 60
THRESHOLD = f"{Bundle.load(default_bundle()).spec.min_reliability:.2f}"
"""Below it the embedded bundle abstains, by its spec and by its certificate."""


class Service:
    """`edge-fer serve` in a process of its own.

    Attributes:
        address: http://127.0.0.1:PORT.
    """

    def __init__(self, cache: Path, port: int = 0, token: str | None = None) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
        env.pop("EDGE_FER_TOKEN", None)
        if token is not None:
            env["EDGE_FER_TOKEN"] = token
        command = [sys.executable, "-m", "edge_fer", "serve", "--port", str(port), "--threads", "1"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                self.address = found.group()
                break
        else:
            pytest.fail(f"the service did not start: {said}")

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Visit:
    """A page opened in a browser: what it says, what it asks for, and what goes over its sockets."""

    def __init__(self, browser: Any, address: str, size: str = "desk", **options: Any) -> None:
        width, height = SIZES[size]
        options = {"permissions": ["camera"], "color_scheme": "light", **options}
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.address = address
        self.said: list[str] = []
        self.asked: list[str] = []
        self.received: list[str] = []
        # The browser reports what comes over a socket, but not the pictures that go.
        self.context.add_init_script(
            """window.sent = []; const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (data) {
                window.sent.push(data.type ?? data); return send.call(this, data) }"""
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        self.asked.append(socket.url)
        socket.on("framereceived", self._receive)

    def _receive(self, text: str) -> None:
        self.received.append(text)

    def open(self) -> Any:
        """Open the page and wait until it knows the bundle."""
        self.page.goto(self.address)
        self.page.wait_for_selector("#bundle-pill:not([hidden])")
        return self.page

    @property
    def sent(self) -> list[str]:
        """What went over sockets: texts, and the types of pictures."""
        texts: list[str] = self.page.evaluate("window.sent")
        return texts

    def until(self, reached: Callable[[], bool], within_s: float = 20) -> None:
        """Wait until something is so; the machine may be busy with other tests."""
        end = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < end, (self.text("#live"), self.text("#notice-text"), self.said)
            self.page.wait_for_timeout(20)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what the bars show, by label: numbers as percentages, and lengths as shares of the row."""
        rows: list[dict[str, Any]] = self.page.eval_on_selector_all(
            "#bars tbody tr",
            """rows => rows.map(row => ({
                label: row.querySelector('th').textContent,
                before: parseFloat(row.querySelector('.drawn .unseen').textContent),
                after: parseFloat(row.querySelector('.after').textContent),
                moved: row.querySelector('.moved').textContent,
                first: parseFloat(row.querySelector('i').style.width),
                final: parseFloat(row.querySelector('b').style.width),
            }))""",
        )
        return {row["label"]: row for row in rows}

    def text(self, selector: str) -> str:
        """Return an element's text, its spaces plain."""
        return " ".join(str(self.page.text_content(selector)).split())

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo photo, moved and scaled, as the stream of JPEGs that Chromium takes for a camera."""
    photo = Image.open(PHOTO)
    path = tmp_path_factory.mktemp("film") / "camera.mjpeg"
    with path.open("wb") as file:
        for turn in np.linspace(0, 2 * np.pi, FRAMES, endpoint=False):
            side = round(512 + 40 * np.sin(turn))
            frame = Image.new("RGB", (640, 480), (70, 80, 90))
            frame.paste(photo.resize((side, side)), (round(320 - side / 2 + 30 * np.cos(turn)), -20))
            frame.save(file, "JPEG", quality=90)
    return path


@contextmanager
def chromium(playwright: Any, *flags: str) -> Iterator[Any]:
    """Start the system's Chromium, which finds no other host than this one; skip where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    rules = "MAP edge.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    args = ["--no-sandbox", f"--host-resolver-rules={rules}", *flags]
    browser = playwright.chromium.launch(executable_path=path, args=args)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def browser(playwright: Any, film: Path) -> Iterator[Any]:
    with chromium(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ) as started:
        yield started


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    for package in ("fastapi", "uvicorn", "websockets", "prometheus_client"):
        pytest.importorskip(package)
    running = Service(tmp_path_factory.mktemp("cache"))
    yield running
    running.stop()


@pytest.fixture
def visit(browser: Any, service: Service) -> Iterator[Callable[..., Visit]]:
    """Open pages of the service, or of `address`; each has to have been quiet and to have stayed here."""
    opened: list[tuple[Visit, tuple[str, ...]]] = []

    def start(
        size: str = "desk", *, address: str | None = None, may_say: tuple[str, ...] = (), **options: Any
    ) -> Visit:
        one = Visit(browser, address or service.address, size, **options)
        opened.append((one, may_say))
        return one

    yield start
    for one, may_say in opened:
        one.close()
        assert [line for line in one.said if not any(each in line for each in may_say)] == []
        host = one.address.split("://", 1)[1]
        schemes = ("http://", "ws://")
        assert one.asked
        assert [
            url for url in one.asked if not url.startswith(tuple(f"{each}{host}/" for each in schemes))
        ] == []


@pytest.fixture(scope="session")
def photo() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The demo photo, (512, 512, 3) uint8 RGB."""
    return read_image(PHOTO)
