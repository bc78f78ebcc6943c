"""The command as a process: what it says, how it ends, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from PIL import Image

from edge_fer.errors import InputError
from edge_fer.serve.listener import listen, reach, url
from tests.conftest import run_command
from tests.edge_fer.serve.running import ASTRONAUT, ROOT, process, status_of
from tests.waiting import until

POST = b"POST /v1/infer?detect=false HTTP/1.1\r\nHost: x\r\n"
SECRET = "s3cret-t0ken"
FILES = Path("/proc/self/fd")


def ipv6() -> bool:
    """Tell whether this machine talks to itself over IPv6."""
    try:
        listen("::1", 0).close()
    except InputError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "start", "reached"),
    [
        ("127.0.0.1", "http://127.0.0.1:", "only this machine can reach it"),
        ("0.0.0.0", "http://0.0.0.0:", "every machine"),
    ],
)
def test_an_address_in_words(host: str, start: str, reached: str) -> None:
    with closing(listen(host, 0)) as listener:
        assert url(listener).startswith(start) and not url(listener).endswith(":0")
        assert reach(listener).startswith(reached)


def test_an_address_that_cannot_be_had_is_one_line(served_bundle: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken" in one_error("--port", port)
    assert "--host 192.0.2.1: expected an address of this machine" in one_error("--host", "192.0.2.1")
    assert "--host no.such.host.invalid: expected" in one_error("--host", "no.such.host.invalid")
    assert "--host " in one_error("--host", "a" * 70)


def one_error(*arguments: object) -> str:
    result = run_command("serve", *arguments)
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only users may lack permission")
def test_a_port_of_the_system_is_one_line() -> None:
    assert "not allowed" in one_error("--port", 80)


@pytest.mark.parametrize("text", ["", "\n", "two words", "t\u00f6ken", "tab\there"])
def test_what_is_no_token_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    assert "expected a token" in one_error("--token-file", file)
    monkeypatch.setenv("EDGE_FER_TOKEN", text)
    assert "EDGE_FER_TOKEN: expected a token" in one_error()
    assert "cannot be read" in one_error("--token-file", tmp_path / "none")


@pytest.mark.parametrize(
    "arguments", [("--port", 65536), ("--queue", 0), ("--max-megabytes", 0), ("--time-limit", -1)]
)
def test_wrong_usage(arguments: tuple[object, ...]) -> None:
    assert run_command("serve", *arguments).exit_code == 2


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "websockets", "prometheus_client"])
def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = one_error()
    assert "pip install 'edge-fer[serve]'" in line and package in line


def test_other_commands_import_nothing_of_the_service() -> None:
    packages = ("fastapi", "starlette", "uvicorn", "h11", "websockets", "prometheus_client", "pydantic")
    code = f"import sys, edge_fer.commands; print(*set({packages!r}).intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_second_ctrl_c_ends_at_once(served_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"  # takes a fifth of a second or more to decode and search
    Image.effect_noise((500, 500), 40).resize((4000, 4000)).convert("RGB").save(file, quality=30)
    large = file.read_bytes()
    with process("--bundle", served_bundle, "--detector", "cascade", "--time-limit", 60) as (started, url, _):
        port = int(url.rpartition(":")[2])
        busy = []
        for _ in range(20):
            busy.append(socket.create_connection(("127.0.0.1", port)))
            busy[-1].sendall(POST.replace(b"?detect=false", b"") + b"Content-Length: %d\r\n\r\n" % len(large))
            busy[-1].sendall(large)
        until(lambda: "edge_fer_queue_depth 2" in httpx.get(f"{url}/metrics", trust_env=False).text)
        started.send_signal(signal.SIGINT)
        time.sleep(1.3)  # within a second it would be the same wish
        assert started.poll() is None
        started.send_signal(signal.SIGINT)
        assert started.wait(8) == 130
        for each in busy:
            each.close()


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_nothing_is_stored_and_nothing_about_pictures_is_said(served_bundle: Path, tmp_path: Path) -> None:
    """A folder for temporary files that does not exist: whoever wants one fails."""
    nowhere = str(tmp_path / "nowhere")
    arguments = ("--bundle", served_bundle, "--detector", "cascade", "--debug", "--host", "::1")
    variables = {"TMPDIR": nowhere, "TEMP": nowhere, "TMP": nowhere, "EDGE_FER_TOKEN": SECRET}
    photo = ASTRONAUT.read_bytes()
    padding = bytes(3_000_000)  # beyond the sizes at which frameworks put bodies into files
    headers = {"Authorization": f"Bearer {SECRET}"}
    with process(*arguments, **variables) as (started, url, lines):
        assert url.startswith("http://[::1]:") and f"{url}: only this machine" in lines[0]
        assert "fp32 on onnxruntime " in lines[2] and ", certified here" in lines[2] and "cascade" in lines[2]
        assert "a token is needed" in lines[-1] and SECRET not in "".join(lines)
        with httpx.Client(base_url=url, trust_env=False, timeout=30, headers=headers) as client:
            files = [("f", ("private-name.jpg", photo + padding)), ("f", ("second-name.jpg", photo))]
            assert client.post("/v1/infer", files=files).status_code == 200
            assert client.post("/v1/infer", content=photo + padding).status_code == 200
            assert client.post("/v1/infer?private-query", content=photo).status_code == 422
            assert client.post("/v1/infer", files={"f": ("broken-name.jpg", b"x")}).status_code == 422
            assert client.get("/private-path", headers={"Authorization": "Bearer wrong"}).status_code == 404
            assert client.get("/v1/bundle", headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get("/private-path").status_code == 404
            if FILES.exists():
                held = [str(each.readlink()) for each in Path(f"/proc/{started.pid}/fd").iterdir()]
                assert not [name for name in held if "deleted" in name or nowhere in name]
        with closing(socket.create_connection(("::1", int(url.rpartition(":")[2])))) as raw:
            raw.sendall(b"malformed-secret\r\n\r\n")
            assert status_of(raw.recv(65536)) == 400
        started.send_signal(signal.SIGTERM)
        assert started.wait(10) == 0
        assert started.stderr is not None and started.stdout is not None
        assert started.stderr.read() == "note: stopping: what waits is answered first\n"
        assert started.stdout.read() == ""
    assert not Path(nowhere).exists()
