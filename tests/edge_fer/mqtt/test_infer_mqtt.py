"""`infer --mqtt` as a user meets it: the lines of --json on a topic, and ends of every kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import soak
from tests.clips import ASTRONAUT, moving_faces, write_clip
from tests.conftest import error_lines, json_lines, run_command
from tests.edge_fer.mqtt.mosquitto import Listener, Mosquitto, free_port, once, wait_for
from tests.edge_fer.sources.mjpeg_camera import MjpegCamera

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", soak.CODE, "infer"]
TOPIC, AVAILABILITY = "home/porch", "home/porch/availability"


def url(broker: Mosquitto) -> str:
    return f"mqtt://{broker.address}/{TOPIC}"


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in {"source", "time_s", "latency_ms"}}


@pytest.mark.parametrize("as_json", [True, False])
def test_a_photo_s_answer_is_that_of_json(
    broker: Mosquitto, listener: Listener, tmp_path: Path, as_json: bool
) -> None:
    pytest.importorskip("paho.mqtt.client")
    outputs = [*(["--json"] if as_json else []), "--csv", tmp_path / "f.csv", "--output", tmp_path / "out"]
    result = run_command("infer", ASTRONAUT, *outputs, "--mqtt", url(broker))
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["astronaut.jpg"]
    wait_for(lambda: len(listener.heard) == 3)
    (text,) = listener.texts(TOPIC)
    assert listener.texts(AVAILABILITY) == ["online", "offline"]
    assert result.stdout == (text + "\n" if as_json else "")
    (record,) = json_lines(run_command("infer", ASTRONAUT, "--json"))
    assert without_times(json.loads(text)) == without_times(record) and record["faces"]


def test_a_video_and_what_home_assistant_is_told(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    pytest.importorskip("paho.mqtt.client")
    clip = write_clip(tmp_path / "one.avi", moving_faces(12, size=(320, 240)))
    options = ("--json", "--mqtt", url(broker), "--mqtt-discovery", "homeassistant")
    result = run_command("infer", clip, tmp_path / "absent.jpg", *options)
    assert result.exit_code == 1 and "absent.jpg" in error_lines(result)[0]
    wait_for(lambda: listener.texts(AVAILABILITY) == ["online", "offline"])
    assert listener.texts(TOPIC) == result.stdout.splitlines() and len(listener.texts(TOPIC)) == 12
    with Listener(broker.port, name="home assistant") as late:
        wait_for(lambda: len(late.heard) == 4)
        kept = {topic: text for topic, text, retained in late.heard if retained}
    assert kept.pop(AVAILABILITY) == "offline"
    for topic, text in kept.items():
        assert topic.startswith("homeassistant/sensor/edge_fer_home_porch_")
        assert json.loads(text)["device"]["model"] == "grefel-lite int8"


def test_a_broker_is_stopped_and_started_while_a_camera_runs(broker: Mosquitto, listener: Listener) -> None:
    pytest.importorskip("paho.mqtt.client")
    with MjpegCamera(fps=25) as camera:
        process = start(camera.url, "--no-detect", "--json", "--mqtt", url(broker))
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(20)]
        broker.stop()
        lines += [process.stdout.readline() for _ in range(25)]  # a second of a camera
        broker.start()
        wait_for(lambda: lines[-1].rstrip() in listener.texts(TOPIC))
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    texts = [line.rstrip() for line in lines] + rest.splitlines()
    wait_for(lambda: listener.texts(AVAILABILITY)[-1] == "offline")
    assert once(listener.texts(TOPIC)) == texts
    broker_lines = [line for line in errors.splitlines() if "broker" in line]
    assert len(broker_lines) == 2 and "is away" in broker_lines[0] and "is back" in broker_lines[1]


def test_a_kill_of_the_publisher_flips_the_availability(broker: Mosquitto, listener: Listener) -> None:
    pytest.importorskip("paho.mqtt.client")
    with MjpegCamera(fps=25) as camera:
        process = start(camera.url, "--no-detect", "--mqtt", url(broker))
        wait_for(lambda: len(listener.texts(TOPIC)) > 5)
        assert listener.texts(AVAILABILITY) == ["online"]
        process.kill()
        process.communicate(timeout=10)
    wait_for(lambda: listener.texts(AVAILABILITY) == ["online", "offline"], 3)
    with Listener(broker.port, name="late") as late:
        wait_for(lambda: late.heard == [(AVAILABILITY, "offline", True)])


def test_a_stop_while_the_broker_is_away_is_bounded() -> None:
    pytest.importorskip("paho.mqtt.client")
    with MjpegCamera(fps=25) as camera:
        process = start(
            camera.url, "--no-detect", "--json", "--mqtt", f"mqtt://me@127.0.0.1:{free_port()}/porch",
            EDGE_FER_MQTT_PASSWORD="hunter2",
        )  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
        assert time.monotonic() - told < 8  # 3 s, and what a busy machine adds; with no signal 10
    count = len(lines) + rest.count("\n")
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: {count} of {count} results did not reach the broker 127.0.0.1:")
    assert "hunter2" not in errors + rest + "".join(lines)


def test_a_refused_login_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paho.mqtt.client")
    monkeypatch.setenv("EDGE_FER_MQTT_PASSWORD", "hunter2")
    with Mosquitto(tmp_path / "broker", anonymous=False) as broker:
        target = f"mqtt://me@{broker.address}/{TOPIC}"
        result = run_command("infer", ASTRONAUT, "--csv", tmp_path / "f.csv", "--mqtt", target, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    said = "it refuses the login: not authorized; check user and password of --mqtt"
    assert error_lines(result) == [f"error: the broker {broker.address}: {said}"]
    assert not (tmp_path / "f.csv").exists() and "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mqtt", "mqtt://me:hunter2@/porch"], "expected mqtt[s]://"),
        (["--mqtt", "mqtt://broker.example/a/+"], "wildcard"),
        (["--mqtt-discovery", "homeassistant"], "give both"),
        (["--mqtt", "mqtt://broker.example/a", "--mqtt-discovery", "a//b"], "empty level"),
    ],
)
def test_wrong_usage(options: list[str], said: str) -> None:
    result = run_command("infer", ASTRONAUT, "--json", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = error_lines(result)
    assert said in line and "hunter2" not in line


def test_without_paho_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['paho'] = None; " + soak.CODE
    command = [sys.executable, "-c", code, "infer", str(ASTRONAUT), "--json"]
    done = subprocess.run(
        [*command, "--mqtt", "mqtt://h/t"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: --mqtt needs the package paho-mqtt")
    assert "pip install 'edge-fer[mqtt]'" in done.stderr
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1
