"""What is answered: the JSON of `infer --json`, and for everything else the right status and one line."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from typing import Any

import pytest
from PIL import Image

from edge_fer.serve.settings import ServeSettings
from tests.conftest import json_lines, run_command
from tests.edge_fer.serve.running import ASTRONAUT, Running, error_of, held_up, running
from tests.waiting import until

CROP = {"params": {"detect": "false"}}


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("source", "time_s", "latency_ms")}


@pytest.mark.parametrize("detect", ["true", "false"])
def test_an_answer_is_that_of_infer(service: Running, settings: ServeSettings, detect: str) -> None:
    arguments = [ASTRONAUT, "--json", "--bundle", settings.bundle, "--detector", "cascade"]
    if detect == "false":
        arguments = [*arguments[:-2], "--no-detect"]
    (printed,) = json_lines(run_command("infer", *arguments))
    with service.client() as client:
        response = client.post("/v1/infer", params={"detect": detect}, content=ASTRONAUT.read_bytes())
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    answered = response.json()
    assert list(answered) == list(printed) and list(answered["latency_ms"]) == list(printed["latency_ms"])
    assert answered["source"] == "-" and answered["time_s"] is None
    assert json.dumps(without_times(answered)) == json.dumps(without_times(printed))
    assert len(answered["faces"]) == 1


@pytest.mark.parametrize(
    "kind", [None, "image/png", "IMAGE/JPEG", "application/octet-stream", "image/x-y; a=b"]
)
def test_a_raw_body_may_have_these_types(service: Running, crop: bytes, kind: str | None) -> None:
    with service.client() as client:
        headers = {} if kind is None else {"content-type": kind}
        response = client.post("/v1/infer", **CROP, content=crop, headers=headers)
    assert response.status_code == 200 and response.json()["detector"] is None


def test_a_file_has_its_name_and_several_are_an_array_in_their_order(service: Running, crop: bytes) -> None:
    with service.client() as client:
        one = client.post("/v1/infer", **CROP, files={"any": ("C:\\fotos\\a \u00e4.png", crop)})
        sent = [("x", ("../up/one.png", crop)), ("y", ("two.txt", b"no")), ("x", ("three.png", crop))]
        several = client.post("/v1/infer", **CROP, files=sent)
    assert one.status_code == 200 and one.json()["source"] == "a \u00e4.png"
    first, second, third = several.json()
    assert several.status_code == 200
    assert (first["source"], third["source"]) == ("one.png", "three.png")
    assert without_times(first) == without_times(one.json()) == without_times(third)
    assert list(second) == ["source", "error"] and second["source"] == "two.txt"
    assert second["error"].startswith("two.txt: expected a JPEG")


def test_broken_pictures_alone_are_an_error(service: Running, crop: bytes) -> None:
    with service.client() as client:
        for body in (b"", b"no picture", crop[:60]):
            response = client.post("/v1/infer", content=body)
            assert response.status_code == 422 and error_of(response).startswith("-: ")
        both = client.post("/v1/infer", files=[("a", ("a.png", b"1")), ("b", ("b.png", b"2"))])
    assert both.status_code == 422 and error_of(both).startswith("none of the 2 pictures can be read; a.png")


CURLS_TYPE = "application/x-www-form-urlencoded"  # what `curl --data-binary @photo.jpg` says


def bomb(side: int) -> bytes:
    """A small file of very many pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("side", [7_000, 15_000])
def test_a_small_file_of_many_pixels_is_too_large(service: Running, crop: bytes, side: int) -> None:
    picture = bomb(side)
    assert len(picture) < 300_000
    with service.client() as client:
        response = client.post("/v1/infer", content=picture)
        assert response.status_code == 413 and "40,000,000" in error_of(response)
        both = client.post("/v1/infer", **CROP, files=[("a", ("a", picture)), ("b", ("b", crop))])
        assert both.status_code == 200 and "40,000,000" in both.json()[0]["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json"}, 415),
        ({"content-type": "image/png", "content-encoding": "gzip"}, 415),
        ({"content-type": "multipart/form-data"}, 400),
        ({"content-type": "multipart/form-data; boundary=" + 71 * "b"}, 400),
        ({"content-type": "multipart/form-data; boundary=elsewhere"}, 400),
        ({"origin": "http://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_wrong_types_forms_and_pages_are_refused(
    service: Running, crop: bytes, headers: dict[str, str], status: int
) -> None:
    with service.client() as client:
        response = client.post("/v1/infer", content=crop, headers=headers)
    assert response.status_code == status
    error_of(response)


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_what_curl_and_others_send_is_taken_as_a_picture(service: Running, crop: bytes, kind: str) -> None:
    with service.client() as client:
        response = client.post("/v1/infer", **CROP, content=crop, headers={"content-type": kind})
    assert response.status_code == 200 and len(response.json()["faces"]) == 1


def test_the_server_s_own_page_may_ask(service: Running, crop: bytes) -> None:
    with service.client() as client:
        headers = {"origin": service.url, "content-type": "image/png"}
        assert client.post("/v1/infer", **CROP, content=crop, headers=headers).status_code == 200


FORM = {"content-type": "multipart/form-data; boundary=b"}
FILE = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\nx'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        FILE,
        FILE + b"\r\n--b",
        FILE.replace(b"; filename", b"; nickname") + b"\r\n--b--\r\n",
        FILE.replace(b"form-data", b"attachment") + b"\r\n--b--\r\n",
        FILE.replace(b"Content-Disposition", b"Content-Type") + b"\r\n--b--\r\n",
        FILE.replace(b"\r\n\r\n", b"\r\n") + b"\r\n--b--\r\n",
        FILE + b"\r\n--bx\r\n--b--\r\n",
    ],
)
def test_malformed_forms_are_refused(service: Running, body: bytes) -> None:
    with service.client() as client:
        response = client.post("/v1/infer", content=body, headers=FORM)
    assert response.status_code == 400 and error_of(response).startswith("expected multipart/form-data")


def test_no_more_files_than_allowed_and_no_more_bytes(service: Running, crop: bytes) -> None:
    with service.client() as client:
        for count, status in ((4, 200), (5, 413)):
            files = [("f", (f"{number}.png", crop)) for number in range(count)]
            assert client.post("/v1/infer", **CROP, files=files).status_code == status
        response = client.post("/v1/infer", content=bytes(300_001))
        assert response.status_code == 413 and "300,000" in error_of(response)
        chunked = client.post("/v1/infer", content=iter([bytes(200_000), bytes(200_000)]))
        assert chunked.status_code == 413
        assert client.post("/v1/infer", content=bytes(300_000)).status_code == 422


@pytest.mark.parametrize(
    "query", ["detect=no", "detect=", "detect", "detct=false", "detect=true&detect=true", "%ff", 20 * "a&"]
)
def test_another_query_is_refused(service: Running, crop: bytes, query: str) -> None:
    with service.client() as client:
        response = client.post(f"/v1/infer?{query}", content=crop)
    assert response.status_code == 422 and "detect=false" in error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/infer", 405, "POST"),
        ("TRACE", "/v1/infer", 405, "POST"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("DELETE", "/openapi.json", 405, "GET, HEAD"),
        ("GET", "/docs", 404, None),
        ("GET", "/v1/infer/", 404, None),
        ("GET", "/page/../../../pyproject.toml", 404, None),
        ("GET", "/page/%2e%2e/%2e%2e/app.py", 404, None),
        ("GET", "/page/__init__.py", 404, None),
        ("GET", "/%00", 404, None),
        ("GET", "/" + 5000 * "a", 414, None),
        ("GET", "/v1/stream", 426, None),
    ],
)
def test_other_paths_and_methods(
    service: Running, method: str, path: str, status: int, allow: str | None
) -> None:
    with service.client() as client:
        response = client.request(method, path)
    assert response.status_code == status
    error_of(response)
    sent = response.headers.get("allow")
    assert (sent and ", ".join(sorted(sent.split(", ")))) == allow


def test_a_full_queue_is_told_with_the_time_to_come_back(service: Running, crop: bytes) -> None:
    with service.client() as client, held_up(service.service):
        waiting = [
            service.service.worker.submit(crop, "x", detect=False, deadline=float("inf")) for _ in range(8)
        ]
        refused = client.post("/v1/infer", **CROP, content=crop)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        error_of(refused)
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "busy"})
        assert client.get("/health").json() == {"status": "alive"}
        waiting.pop().cancel()
        files = [("f", (f"{number}.png", crop)) for number in range(2)]
        assert client.post("/v1/infer", **CROP, files=files).status_code == 503
        assert service.service.worker.pending == 7  # of the form nothing stays


def test_bodies_that_come_in_at_a_time_are_bounded_together(settings: ServeSettings, crop: bytes) -> None:
    narrow = dataclasses.replace(settings.limits, upload_bytes=1000, body_s=10.0)
    with running(dataclasses.replace(settings, limits=narrow)) as service, service.client() as client:
        head = b"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
        with service.connect() as slow:
            slow.sendall(head + bytes(890))
            until(lambda: service.service.bodies._held > 0)
            refused = client.post("/v1/infer", **CROP, content=crop)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        until(lambda: service.service.bodies._held == 0)
        assert client.post("/v1/infer", **CROP, content=crop).status_code == 200


def test_an_answer_that_takes_too_long_is_told(settings: ServeSettings, crop: bytes) -> None:
    quick = dataclasses.replace(settings, time_limit_s=0.3)
    with running(quick) as service, service.client() as client, held_up(service.service):
        response = client.post("/v1/infer", **CROP, content=crop)
        assert response.status_code == 504 and "0.3 s" in error_of(response)


def test_an_answer_that_others_are_in_the_way_of_may_be_asked_for_again(
    settings: ServeSettings, crop: bytes
) -> None:
    quick = dataclasses.replace(settings, time_limit_s=0.3)
    with running(quick) as service, service.client() as client, held_up(service.service):
        other = service.service.worker.submit(crop, "other", detect=False, deadline=time.monotonic() + 20)
        # The broken ones end at once: as many pictures are under way as were sent, but one is another's.
        files = [("f", (f"{number}.png", data)) for number, data in enumerate((crop, b"1", b"2"))]
        for sent in ({"content": crop}, {"files": files}):
            response = client.post("/v1/infer", **CROP, **sent)  # type: ignore[arg-type]
            assert response.status_code == 503 and "other pictures" in error_of(response)
            assert int(response.headers["retry-after"]) >= 1 and not other.done()


def test_an_engine_that_fails_is_told_and_shows(service: Running, crop: bytes) -> None:
    with service.client() as client, held_up(service.service) as held:
        held.open.set()
        held._engine = None  # type: ignore[assignment]
        response = client.post("/v1/infer", **CROP, content=crop)
        assert response.status_code == 500
        error_of(response)
    with service.client() as client:
        assert client.post("/v1/infer", **CROP, content=crop).status_code == 200


def test_facts_of_the_bundle(service: Running, settings: ServeSettings) -> None:
    (printed,) = json_lines(run_command("info", settings.bundle, "--json"))
    with service.client() as client:
        facts = client.get("/v1/bundle").json()
    assert facts["bundle"] == printed
    assert settings.bundle is not None
    assert facts["certificate"] == json.loads((settings.bundle / "parity.json").read_bytes())
    runtime = facts["runtime"]
    assert runtime["certified_here"] is True and runtime["detector"] == "cascade" and runtime["batch"] >= 1
    assert runtime["engine"].startswith("onnxruntime ") and runtime["min_reliability"] is None
    assert "parity passed" in runtime["summary"] and str(settings.bundle.parent) not in runtime["summary"]


def test_metrics_count_by_route_and_never_by_path(service: Running, crop: bytes) -> None:
    with service.client() as client:
        client.get("/secret-path-of-somebody")
        client.post("/v1/infer", **CROP, content=crop)
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'edge_fer_requests_total{route="/v1/infer",status="200"}' in response.text
    assert 'edge_fer_requests_total{route="other",status="404"}' in response.text
    assert "secret" not in response.text
