"""The examples around the service: every file parses, fits the others, and speaks of metrics that exist."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tomllib
import typer
import yaml

from edge_fer import commands
from tests.test_guides import unknown_words

ROOT = Path(__file__).parents[1]
SERVE = ROOT / "examples" / "serve"
UNIT = SERVE / "edge-fer-serve.service"
DASHBOARD = SERVE / "grafana" / "dashboards" / "edge-fer.json"
NAME = re.compile(r"\b(?:edge_fer|process)_\w+")


def load(path: Path) -> dict[str, Any]:
    parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def services() -> dict[str, dict[str, Any]]:
    return load(SERVE / "compose.yaml")["services"]  # type: ignore[no-any-return]


def with_token(path: Path) -> dict[str, Any]:
    """Return what a file holds once its lines for a token are no comments any more."""
    lines = path.read_text(encoding="utf-8").splitlines()
    wanted = re.compile(
        r"(\s*)# (secrets:.*|  edge-fer-token:|    file: \S+|authorization:|  credentials_file: \S+)$"
    )
    text = "\n".join(wanted.sub(r"\1\2", line) for line in lines)
    parsed = yaml.safe_load(text)
    assert isinstance(parsed, dict)
    return parsed


def test_the_services_are_pinned_hardened_and_watched() -> None:
    assert set(services()) == {"edge-fer", "camera", "mosquitto", "prometheus", "grafana"}
    for name, service in services().items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z./-]+:v?\d+\.\d+\.\d+", service["image"]), name
            assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service or name == "camera"  # nothing listens in it
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert not service.get("privileged") and "mem_limit" in service, name


def test_the_services_hold_no_secret() -> None:
    for service in services().values():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", variable):
                assert value.startswith("${GRAFANA_PASSWORD:?"), variable
    for path in SERVE.rglob("*"):
        if path.is_file():
            assert not re.search(r"(?i)(password|token)\s*[=:]\s*[\"']?[0-9a-f]{8,}", path.read_text()), path


def test_what_the_services_mount_and_build_from_exists() -> None:
    for service in services().values():
        for volume in service.get("volumes", ()):
            source, _, options = volume.partition(":")
            assert source in load(SERVE / "compose.yaml")["volumes"] or (
                (SERVE / source).exists() and options.endswith(":ro")
            )
        if "build" in service:
            context = SERVE / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file() and (context / "edge_fer").is_dir()
            extras = set(service["build"]["args"]["EXTRAS"].strip("[]").split(","))
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert extras <= set(project["optional-dependencies"])
            assert unknown_words("edge-fer", service["command"]) == []
            name, *words = map(str, service["command"])
            command: Any = typer.main.get_command(commands.app)
            command.commands[name].make_context(name, words)  # an option without its value ends here


def test_the_services_find_each_other() -> None:
    job = load(SERVE / "prometheus.yml")["scrape_configs"][0]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert host in services() and port in services()[host]["command"]
    source = load(SERVE / "grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services()
    provider = load(SERVE / "grafana/provisioning/dashboards/edge-fer.yml")["providers"][0]
    mounts = [volume.split(":") for volume in services()["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"], "ro"] in mounts
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home) == Path(provider["options"]["path"]) / DASHBOARD.name
    mqtt = next(word for word in services()["camera"]["command"] if word.startswith("mqtt://"))
    assert urllib.parse.urlsplit(mqtt).hostname in services()


def test_the_lines_for_a_token_fit_each_other() -> None:
    compose = with_token(SERVE / "compose.yaml")
    job = with_token(SERVE / "prometheus.yml")["scrape_configs"][0]
    (name,) = compose["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{name}"
    for service in ("edge-fer", "prometheus"):
        assert compose["services"][service]["secrets"] == [name]
    command = re.search(r"# command: (\[.*\])", (SERVE / "compose.yaml").read_text())
    assert command is not None
    words = yaml.safe_load(command[1])
    assert words[-2:] == ["--token-file", f"/run/secrets/{name}"] and unknown_words("edge-fer", words) == []
    assert "secrets" not in load(SERVE / "compose.yaml")


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_the_broker_starts_and_passes_messages_on(tmp_path: Path) -> None:
    program, publish, subscribe = tool("mosquitto"), tool("mosquitto_pub"), tool("mosquitto_sub")
    port = str(free_port())
    text = (SERVE / "mosquitto.conf").read_text()
    assert "listener 1883\n" in text
    # Outside the container of the example nothing else keeps it to this machine.
    (tmp_path / "mosquitto.conf").write_text(text.replace("listener 1883\n", f"listener {port} 127.0.0.1\n"))
    with (tmp_path / "log").open("wb") as log:
        broker = subprocess.Popen(
            [program, "-c", tmp_path / "mosquitto.conf"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        message = [publish, "-p", port, "-q", "1", "-r", "-t", "edge-fer/door", "-m", "x" * 8000]
        for _ in range(50):
            if subprocess.run(message, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        asked = [subscribe, "-p", port, "-t", "edge-fer/#", "-C", "1", "-W", "5"]
        got = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert got.stdout == "x" * 8000 + "\n"
        assert broker.poll() is None
    finally:
        broker.terminate()
        broker.wait(10)
    said = (tmp_path / "log").read_text()
    assert "Error" not in said and "recommended" not in said, said


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = UNIT.read_text()
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", text))
    assert settings["DynamicUser"] == "yes" and settings["Restart"] == "always"
    assert settings["LoadCredential"].startswith("token:") and "EDGE_FER_TOKEN" not in settings["Environment"]
    words = settings["ExecStart"].split()
    assert words[words.index("--token-file") + 1] == "${CREDENTIALS_DIRECTORY}/token"
    assert unknown_words("edge-fer", words[1:]) == []
    assert "WatchdogSec" not in settings and "MemoryDenyWriteExecute" not in settings
    systemd = tool("systemd-analyze")
    unit = tmp_path / UNIT.name
    # The program is not installed where the unit expects it; everything else has to hold.
    unit.write_text(text.replace("/opt/edge-fer/bin/edge-fer", shutil.which("true") or "/bin/true"))
    done = subprocess.run([systemd, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
