"""docs/serve.md does not lie: its examples run against a real server, its numbers are the code's."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_fer.images import read_image, write_image
from edge_fer.serve.settings import Limits, ServeSettings
from edge_fer.serve.worker import MAX_PIXELS, MAX_STREAMS

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "serve.md"
TEXT = GUIDE.read_text(encoding="utf-8")
CODE = "import sys; sys.argv[0] = 'edge-fer'; from edge_fer.commands import main; main()"


def blocks(mark: str, language: str) -> list[str]:
    """Return the blocks of the guide that are marked for a test."""
    return re.findall(rf"<!-- test:{mark} -->\n```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the guide's examples run: a folder with pictures, and the port that stands for 8000."""

    folder: Path
    port: int

    def run(self, command: list[str]) -> str:
        """Run a command of the guide and return what it printed."""
        words = [word.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}") for word in command]
        done = subprocess.run(
            words, cwd=self.folder, env=environment(self.folder), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Return variables with which the program finds no token and no detector of this machine's user."""
    kept = {
        name: text for name, text in os.environ.items() if name not in ("EDGE_FER_TOKEN", "EDGE_FER_YUNET")
    }
    path = f"{folder / 'bin'}{os.pathsep}{kept['PATH']}"
    own = {"PYTHONPATH": str(ROOT), "PATH": path, "XDG_CACHE_HOME": str(folder / "cache")}
    return {**kept, **own, "CURL_HOME": str(folder)}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name, and `edge-fer` as a program."""
    folder = tmp_path_factory.mktemp("guide")
    photo = ROOT / "examples" / "astronaut.jpg"
    shutil.copy(photo, folder / "photo.jpg")
    write_image(folder / "crop.png", read_image(photo)[67:160, 177:270])
    (folder / "frames").mkdir()
    for number in range(3):
        shutil.copy(photo, folder / "frames" / f"{number}.jpg")
    (folder / ".curlrc").write_text("silent\nshow-error\n")
    (folder / "bin").mkdir()
    program = folder / "bin" / "edge-fer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{CODE}" "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def place(folder: Path) -> Iterator[Place]:
    """A server that anybody may ask."""
    said = folder / "said"
    with said.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-c", CODE, "serve", "--port", "0"], env=environment(folder), stderr=stream
        )
    try:
        yield Place(folder, wait_for_port(server, said))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def wait_for_port(server: subprocess.Popen[bytes], said: Path) -> int:
    """Return the port that the server says it has, once it is ready."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, said.read_text()
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", said.read_text()):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/ready", timeout=30).close()
                return int(found[1])
            except OSError:  # not yet
                pass
        time.sleep(0.1)
    raise AssertionError(f"the server did not get ready: {said.read_text()}")


def curl_lines() -> list[str]:
    return [line.partition("  #")[0].strip() for line in blocks("open", "sh")[0].splitlines()]


def test_every_curl_line_is_answered(place: Place) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    photo, pretty, several, crop, body, bundle, ready, metrics, openapi = (
        place.run(["bash", "-o", "pipefail", "-c", line]) for line in curl_lines()
    )
    assert json.loads(photo)["faces"][0]["label"] == "happiness"
    assert json.loads(body)["faces"] == json.loads(photo)["faces"] and json.loads(body)["source"] == "-"
    assert json.loads(crop)["faces"][0]["box"] is None and json.loads(crop)["detector"] is None
    assert [one["source"] for one in json.loads(several)] == ["photo.jpg", "crop.png"]
    assert json.loads(pretty)["source"] == "photo.jpg" and "\n    " in pretty
    assert set(json.loads(bundle)) == {"bundle", "certificate", "runtime"}
    assert json.loads(ready) == {"status": "ready"}
    counted = re.search(r'edge_fer_pictures_total\{result="answered"\} (\d+)', metrics)
    assert counted is not None and int(counted[1]) >= 6
    assert "/v1/infer" in json.loads(openapi)["paths"]


def test_every_python_example_runs(place: Place) -> None:
    plain, patient, stream = blocks("open", "python")
    printed = place.run([sys.executable, "-c", plain]).split()
    assert printed[0] == "happiness" and 0 < float(printed[1]) <= 1
    lines = place.run([sys.executable, "-c", patient]).splitlines()
    assert [line.split()[0] for line in lines] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(ast.literal_eval(line.partition(" ")[2])["faces"][0]["label"] == "happiness" for line in lines)
    frames = place.run([sys.executable, "-c", stream]).splitlines()
    assert frames == [f"{number} [(1, 'happiness')]" for number in range(3)]


def test_the_example_with_a_token_does_what_it_says(folder: Path) -> None:
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("no curl or no openssl on this machine")
    (script,) = blocks("token", "sh")
    here = Place(folder, free_port())
    script = script.replace("serve --token-file", f"serve --port {here.port} --token-file")
    ready, answer, refused = here.run(["bash", "-c", f"{script}\nwait"]).splitlines()
    assert json.loads(ready) == {"status": "ready"}
    assert json.loads(answer)["faces"][0]["label"] == "happiness"
    assert "token" in json.loads(refused)["error"]
    assert (folder / "token").stat().st_mode & 0o077 == 0


def ask(place: Place, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place.port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def section(title: str) -> str:
    return re.split(r"(?m)^## ", TEXT.partition(f"## {title}\n")[2])[0]


def test_the_paths_of_the_guide_are_there(place: Place) -> None:
    paths = re.findall(r"(?m)^\| `(?:GET|POST) (/[\w./]*)", section("Endpoints"))
    assert len(paths) == 8
    assert {path: ask(place, path)[0] for path in paths} == {
        **dict.fromkeys(paths, 200),
        "/v1/infer": 405,  # asked with GET
        "/v1/stream": 426,
    }


def test_the_guide_knows_every_status_that_openapi_names(place: Place) -> None:
    document = json.loads(ask(place, "/openapi.json")[1])
    named = {
        int(status)
        for operations in document["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }
    told = {
        int(code) for row in re.findall(r"(?m)^\| (\d.*?) \|", section("Errors")) for code in row.split(", ")
    }
    assert named - {200} <= told


def test_the_limits_of_the_guide_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"(?m)^\| (.+?) \| (.+?) \| .*\|$", section("Limits")))
    limits, settings = Limits(), ServeSettings()
    assert rows["files of one form"] == str(limits.files)
    assert rows["connections; streams"].startswith(f"{limits.connections}; {MAX_STREAMS},")
    assert rows["one body, one frame"] == f"{settings.max_bytes / 1e6:g} MB"
    assert rows["time from a request to its answer"] == f"{settings.time_limit_s:g} s"
    assert rows["pictures under way, all clients together"].startswith(f"{settings.queue}, ")
    assert rows["body"] == f"{limits.body_s:g} s"
    head = f"{limits.header_lines} headers, {limits.header_bytes // 1000} kB, {limits.header_s:g} s"
    assert rows["head of a request"] == head
    assert f"{MAX_PIXELS // 1_000_000} million pixels" in rows["one picture, once decoded"]
    assert f"up to {limits.files} files" in section("Endpoints")
    assert f"1000 after {limits.stream_idle_s:g} s" in section("Errors")


def test_the_greeting_of_the_guide_is_the_server_s(place: Place, folder: Path) -> None:
    shown = re.findall(r"(?m)^note: .*$", TEXT)
    said = (folder / "said").read_text().splitlines()
    wording = [
        re.sub(r"\d[\d.,]*|x86-64\S*( \S+)?|(not )?certified here", "…", line) for line in (*shown, *said)
    ]
    assert wording[: len(shown)] == wording[len(shown) :]
