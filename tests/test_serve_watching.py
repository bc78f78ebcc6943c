"""What watches the service: rules raised when they should be, and a dashboard whose queries are answered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from edge_fer.labels import LABELS
from edge_fer.recognizer import Analysis, FaceResult, Place, Prediction
from edge_fer.serve.monitor import STAGES, Monitor, Served
from tests.test_serve_examples import ROOT, SERVE, free_port, load, tool

DASHBOARD = SERVE / "grafana" / "dashboards" / "edge-fer.json"
NAME = re.compile(r"\b(?:edge_fer|process)_\w+")


def busy_monitor() -> Monitor:
    """Return a monitor that has seen everything at least once."""
    served = Served(
        model="tiny",
        precision="int8",
        engine="onnxruntime",
        sha256="0" * 64,
        certified_here=False,
        labels=LABELS,
        reference_reliability=0.7,
    )
    monitor = Monitor(served, queue_depth=lambda: 3)
    work(monitor)
    return monitor


def work(monitor: Monitor) -> None:
    flat = np.full(8, 0.125, np.float32)
    told = [Prediction(LABELS, flat, flat, 0.4, place, place == 0) for place in range(8)]
    faces = tuple(FaceResult(Place(), each, np.zeros((2, 2, 3), np.uint8)) for each in told)
    monitor.answer(Analysis(faces, None, dict.fromkeys(STAGES[1:], 1.5)), 0.001)
    monitor.request("/v1/infer", 200, 0.01)
    monitor.request("/v1/infer", 503, 0.001)
    monitor.unanswered("refused")
    monitor.streams(1)
    monitor.dropped_frame()


def known_names() -> set[str]:
    text, _ = busy_monitor().render()
    families = text_string_to_metric_families(text.decode())
    return {sample.name for family in families for sample in family.samples}


def queries() -> list[str]:
    """Return every query of the dashboard, its variables filled in."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "5s") for query in found]


def rules() -> list[dict[str, Any]]:
    return [rule for group in load(SERVE / "rules.yml")["groups"] for rule in group["rules"]]


def test_rules_and_dashboard_speak_of_metrics_that_exist() -> None:
    known = known_names()
    spoken = {
        name for query in [*queries(), *(rule["expr"] for rule in rules())] for name in NAME.findall(query)
    }
    assert len(spoken) > 15 and not spoken - known
    for path in (SERVE / "rules.yml", ROOT / "docs" / "serve.md"):
        assert (
            not set(NAME.findall(path.read_text()))
            - known
            - {"edge_fer_request_seconds", "edge_fer_stage_seconds"}
        )


def test_the_panels_of_the_dashboard_lie_side_by_side() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}" and panel["title"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = " ".join(panel["title"] + panel["description"] for panel in dashboard["panels"])
    assert "no accuracy" in titles and "What people feel cannot be read here" in titles


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "config", SERVE / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and f"{len(rules())} rules found" in done.stdout, done.stdout + done.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    told = ",".join(
        f'{key}="{value}"' for key, value in {"instance": "a", "job": "edge-fer", **labels}.items()
    )
    return {"series": f"{name}{{{told}}}", "values": values}


CALM = [
    series("up", "1x120"),
    series("edge_fer_pictures_total", "0+600x120", result="answered"),
    series("edge_fer_pictures_total", "0x120", result="refused"),
    series("edge_fer_pictures_total", "0x120", result="late"),
    series("edge_fer_reliability_drift", "0.1x120"),
    series("edge_fer_reliability_faces", "1000x120"),
    series("edge_fer_bundle_info", "1x120", certified_here="true", model="m"),
]


@pytest.mark.parametrize(
    ("alert", "changed"),
    [
        (None, []),
        ("EdgeFerDown", [series("up", "0x120")]),
        ("EdgeFerQueueFull", [series("edge_fer_pictures_total", "0+60x120", result="refused")]),
        (None, [series("edge_fer_pictures_total", "0+3x120", result="refused")]),  # one in two hundred
        ("EdgeFerLate", [series("edge_fer_pictures_total", "0+60x120", result="late")]),
        ("EdgeFerNoRequests", [series("edge_fer_pictures_total", "700x120", result="answered")]),
        ("EdgeFerDrift", [series("edge_fer_reliability_drift", "-0.2x120")]),
        ("EdgeFerDrift", [series("edge_fer_reliability_drift", "0.2x120")]),
        (
            None,
            [
                series("edge_fer_reliability_drift", "-0.2x120"),
                series("edge_fer_reliability_faces", "299x120"),
            ],
        ),
        (
            "EdgeFerNotCertifiedHere",
            [series("edge_fer_bundle_info", "1x120", certified_here="false", model="m")],
        ),
    ],
)
def test_an_alert_is_raised_when_it_should_and_not_before(
    tmp_path: Path, alert: str | None, changed: list[dict[str, str]]
) -> None:
    new = {one["series"] for one in changed}
    given = [one for one in CALM if one["series"] not in new] + changed
    expect_alert(tmp_path, alert, given, "1m", "100m")


@pytest.mark.parametrize(("after", "alert"), [(0.72, None), (0.68, "EdgeFerReliabilityChanged")])
def test_a_change_against_the_week_before_is_told(tmp_path: Path, after: float, alert: str | None) -> None:
    day = 24 * 12  # in steps of five minutes
    given = [
        series("edge_fer_reliability_mean", f"0.8x{8 * day} {after}x{day}"),
        series("edge_fer_reliability_faces", f"1000x{9 * day}"),
    ]
    expect_alert(tmp_path, alert, given, "5m", f"{8 * 24 + 2}h", every="30m")


def expect_alert(
    folder: Path,
    alert: str | None,
    given: list[dict[str, str]],
    interval: str,
    moment: str,
    every: str = "1m",
) -> None:
    """Have promtool check that this alert, and no other, is raised at this moment."""
    queried = [
        {
            "expr": f'count(ALERTS{{alertstate="firing", alertname="{rule["alert"]}"}}) or vector(0)',
            "eval_time": moment,
            "exp_samples": [{"labels": "{}", "value": int(rule["alert"] == alert)}],
        }
        for rule in rules()
    ]
    case = {"interval": interval, "input_series": given, "promql_expr_test": queried}
    file = folder / "case.yml"
    whole = {"rule_files": [str(SERVE / "rules.yml")], "evaluation_interval": every, "tests": [case]}
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def metrics_server() -> Iterator[int]:
    """Serve a monitor that goes on working, as a server would."""
    monitor = busy_monitor()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            work(monitor)
            text, kind = monitor.render()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """Run Prometheus with the example's configuration, but for the target and a faster pace."""
    program, port = tool("prometheus"), free_port()
    shutil.copy(SERVE / "rules.yml", folder)
    text = (SERVE / "prometheus.yml").read_text()
    text = text.replace("edge-fer:8000", f"127.0.0.1:{target}").replace("15s", "300ms")
    (folder / "prometheus.yml").write_text(text)
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{address}{path}?{urllib.parse.urlencode(query)}", timeout=5) as answer:
        return json.load(answer)["data"]


def test_prometheus_answers_every_query_of_the_dashboard(tmp_path: Path) -> None:
    with metrics_server() as target, prometheus(tmp_path, target) as address:
        deadline = time.monotonic() + 30
        asked = [re.sub(r"label_values\((\w+), \w+\)", r"\1", query) for query in queries()]
        empty = asked
        while empty and time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                empty = [query for query in empty if not ask(address, "/api/v1/query", query=query)["result"]]
            except OSError:  # it is still starting
                continue
        assert not empty
        found = ask(address, "/api/v1/query", query=queries()[1])["result"]
        assert float(found[0]["value"][1]) > 0
        told = [rule for group in ask(address, "/api/v1/rules")["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in told] == [rule["alert"] for rule in rules()]
        assert {rule["health"] for rule in told} == {"ok"}
