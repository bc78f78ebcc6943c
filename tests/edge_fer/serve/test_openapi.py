"""The OpenAPI document: complete, with examples that a run confirms; and a fuzzer finds nothing behind it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge_fer.serve import examples
from edge_fer.serve.settings import ServeSettings
from tests.conftest import json_lines, run_command
from tests.edge_fer.serve.running import ASTRONAUT, Running, running

ROUTES = {"/v1/infer": "post", "/v1/bundle": "get", "/health": "get", "/ready": "get", "/metrics": "get"}


def document(service: Running) -> dict[str, Any]:
    with service.client() as client:
        loaded: dict[str, Any] = client.get("/openapi.json").json()
    return loaded


def answers(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], object]]:
    """Return the schema of every answer that has examples, with each of them."""
    for path, method in ROUTES.items():
        for answer in document["paths"][path][method]["responses"].values():
            content = answer["content"].get("application/json", {})
            for example in content.get("examples", {}).values():
                yield {**content["schema"], "components": document["components"]}, example["value"]


def test_every_route_is_there_and_every_error_is_told(service: Running) -> None:
    paths = document(service)["paths"]
    assert {path: [*operations] for path, operations in paths.items()} == {
        path: [method] for path, method in ROUTES.items()
    }
    told = {int(status) for status in paths["/v1/infer"]["post"]["responses"]}
    assert told == {200, 400, 403, 408, 411, 413, 415, 422, 431, 500, 503, 504}


def test_examples_and_real_answers_have_the_shapes_that_are_told(service: Running, crop: bytes) -> None:
    loaded = document(service)
    pairs = list(answers(loaded))
    assert len(pairs) == 7
    for schema, example in pairs:
        jsonschema.Draft202012Validator(schema).validate(example)
    infer, bundle = pairs[0][0], pairs[2][0]
    with service.client() as client:
        for files in ([("a", ("a", crop))], [("a", ("a", crop)), ("b", ("b", b"x"))]):
            response = client.post("/v1/infer", params={"detect": "false"}, files=files)
            jsonschema.Draft202012Validator(infer).validate(response.json())
        photo = client.post("/v1/infer", content=ASTRONAUT.read_bytes()).json()
        jsonschema.Draft202012Validator(infer).validate(photo)
        jsonschema.Draft202012Validator(bundle).validate(client.get("/v1/bundle").json())


def test_the_example_is_what_a_run_says() -> None:
    (printed,) = json_lines(run_command("infer", ASTRONAUT, "--json", "--detector", "cascade"))
    assert list(printed) == list(examples.PICTURE)
    (face,), (example,) = printed["faces"], examples.PICTURE["faces"]
    assert {key: face[key] for key in ("landmarks", "label", "abstained", "track")} == {
        key: example[key] for key in ("landmarks", "label", "abstained", "track")
    }
    # Another class of processors, or another version of OpenCV, may differ in the last places.
    assert face["box"] == pytest.approx(example["box"], abs=4)
    for kind in ("probabilities", "primary"):
        assert list(face[kind]) == list(example[kind])
        assert list(face[kind].values()) == pytest.approx(list(example[kind].values()), abs=0.02)
    assert face["reliability"] == pytest.approx(example["reliability"], abs=0.05)
    assert list(printed["latency_ms"]) == list(examples.PICTURE["latency_ms"])
    assert printed["latency_ms"]["track"] is None


def test_a_token_is_told_where_it_is_needed(settings: ServeSettings) -> None:
    with running(dataclasses.replace(settings, token=b"secret")) as service:
        loaded = document(service)
    (scheme,) = loaded["components"]["securitySchemes"].values()
    assert scheme == {"type": "http", "scheme": "bearer"}
    needed = [path for path, method in ROUTES.items() if "security" in loaded["paths"][path][method]]
    assert needed == ["/v1/infer", "/v1/bundle", "/metrics"]
    assert all("401" in loaded["paths"][path][ROUTES[path]]["responses"] for path in needed)
    assert "secret" not in json.dumps(loaded)


@pytest.mark.slow
def test_a_fuzzer_finds_nothing(settings: ServeSettings, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    with running(settings) as service:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
        command += ["--seed", "7", "--max-examples", "10", "--max-time", "6", "--generation-database", "none"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "5 selected / 5 total" in done.stdout
