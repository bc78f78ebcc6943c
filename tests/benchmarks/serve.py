"""`edge-fer serve` under load: statuses, latency, memory, and throughput against `bench` of the same bundle.

    python -m tests.benchmarks.serve --bundle grefel-onnx-int8.fer -- --allow-untrained
    python -m tests.benchmarks.serve --detect                          # photos, and the time of every stage

The server has one processor, with one thread for the engine, and the clients another. Ready crops are posted;
each round of load follows one of `bench --threads 1` on the server's processor: noise hits both alike.
Prints Markdown tables for docs/serve.md; exit 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from edge_fer.bundle import Bundle, default_bundle
from edge_fer.detectors import load_detector
from edge_fer.images import read_image
from edge_fer.preprocess import crop_face

CODE = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv.pop(1))})
from edge_fer.commands import main
main()
"""
ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"
HOST = "127.0.0.1"
ALLOWED = {200, 503}
GROWTH_BYTES = 10_000_000
SHARE = 0.90  # of the throughput of bench
WARM_UP = 0.15  # share of the load before which memory may still grow


@dataclass(slots=True)
class Tally:
    """What the clients saw: seconds of every answered request, and how often each status came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, and waits as long as a 503 asks it to."""

    def __init__(self, request: bytes, tally: Tally, until: float) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request, self._tally, self._until = request, tally, until
        self._received = bytearray()
        self._asked, self._waiting = 0.0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self._until or self.done.done():
            self._finish()
            return
        self._waiting = False
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert length, f"an answer without a length: {head!r}"
        if len(self._received) < end + 4 + int(length[1]):
            return
        self._received.clear()
        status = int(head.split()[1])
        self._tally.statuses[status] += 1
        if status == 200:
            self._tally.seconds.append(time.perf_counter() - self._asked)
            self._ask()
            return
        wait = re.search(rb"retry-after: (\d+)", head)
        wait_s = int(wait[1]) if wait else 0.1
        if time.perf_counter() + wait_s >= self._until:
            self._finish()
        else:
            self._waiting = True
            asyncio.get_running_loop().call_later(wait_s, self._ask)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            if not self._waiting:  # between two requests the server may close a connection
                self._tally.statuses["connection lost"] += 1
            self.done.set_result(None)


def post(body: bytes, detect: bool) -> bytes:
    """Return a request as it goes over the wire."""
    query = "" if detect else "?detect=false"
    head = f"POST /v1/infer{query} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def rss_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stages(self) -> dict[str, tuple[float, float]]:
        """Return how many pictures went through each stage, and their seconds in it."""
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name in ("edge_fer_stage_seconds_count", "edge_fer_stage_seconds_sum"):
                    found.setdefault(sample.labels["stage"], {})[sample.name[-3:]] = sample.value
        return {stage: (values["unt"], values["sum"]) for stage, values in found.items()}


def edge_fer(core: int) -> list[str]:
    """Return how the program is called so that it stays on one processor."""
    return [sys.executable, "-c", CODE, str(core)]


@contextmanager
def serving(bundle: Path, options: list[str], core: int) -> Iterator[Server]:
    """Start the server on one processor; end it as an operator would."""
    command = [*edge_fer(core), "serve", "--bundle", str(bundle), "--port", "0", "--threads", "1"]
    environment = {name: text for name, text in os.environ.items() if name != "EDGE_FER_TOKEN"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*command, *options], stderr=said, cwd=ROOT, env=environment)
        try:
            yield Server(process, wait_for_port(process, said.fileno()))
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
            print(f"\nThe server ended with exit code {code}.", file=sys.stderr)


def wait_for_port(process: subprocess.Popen[bytes], said: int) -> int:
    """Read from what the server says which port it has, and wait until it is ready."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        text = os.pread(said, 100_000, 0).decode()
        found = re.search(rf"http://{re.escape(HOST)}:(\d+)", text)
        if found:
            port = int(found[1])
            try:
                Server(process, port).get("/ready")
            except OSError:  # not yet, by a refused connection or a 503
                pass
            else:
                return port
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{os.pread(said, 100_000, 0).decode()}")


def bench(bundle: Path, core: int) -> float:
    """Return the crops per second of `bench --threads 1`, on this processor."""
    command = [*edge_fer(core), "bench", str(bundle), "--threads", "1", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return float(json.loads(done.stdout)["throughput_per_s"])


def face_crop(bundle: Bundle) -> bytes:
    """Return the face of the demo photo as the bundle wants it, as JPEG."""
    image = read_image(PHOTO)
    found = load_detector("cascade").detect(image)[0]
    crop = crop_face(image, found.box, None, bundle.spec.input)
    done, encoded = cv2.imencode(".jpg", crop[..., ::-1])
    assert done
    return encoded.tobytes()


@dataclass(slots=True)
class Measured:
    """What came out of all rounds."""

    tally: Tally = field(default_factory=Tally)
    memory: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    bench_rates: list[float] = field(default_factory=list)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)


async def load(server: Server, request: bytes, given: argparse.Namespace, measured: Measured) -> float:
    """Let the clients ask for one round; return how long it took until the last was answered."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    until = started + given.seconds / given.rounds
    asking = []
    for _ in range(given.clients):
        _, client = await loop.create_connection(
            lambda: Client(request, measured.tally, until), HOST, server.port
        )
        asking.append(client.done)
    watching = asyncio.ensure_future(watch(server, measured.memory))
    await asyncio.wait_for(asyncio.gather(*asking), given.seconds + 60)
    watching.cancel()
    return time.perf_counter() - started


async def watch(server: Server, memory: list[int]) -> None:
    """Sample the server's memory until somebody cancels this."""
    while True:
        memory.append(server.rss_bytes())
        await asyncio.sleep(0.25)


def measure(given: argparse.Namespace, core: int) -> Measured:
    """Run all rounds against one server."""
    bundle = Bundle.load(given.bundle)
    request = post(PHOTO.read_bytes() if given.detect else face_crop(bundle), given.detect)
    measured = Measured()
    with serving(given.bundle, given.options, core) as server:
        before = server.stages()
        for _ in range(given.rounds):
            if not given.detect:
                measured.bench_rates.append(bench(given.bundle, core))
            answered = len(measured.tally.seconds)
            took = asyncio.run(load(server, request, given, measured))
            measured.rates.append((len(measured.tally.seconds) - answered) / took)
        for stage, (count, seconds) in server.stages().items():
            old_count, old_seconds = before.get(stage, (0.0, 0.0))
            measured.stages[stage] = count - old_count, seconds - old_seconds
    return measured


def report(measured: Measured, given: argparse.Namespace) -> bool:
    """Print the tables and say whether the bounds hold."""
    statuses, memory = measured.tally.statuses, measured.memory[int(WARM_UP * len(measured.memory)) :]
    growth = max(memory) - memory[0]
    p50, p99 = (1000 * np.percentile(measured.tally.seconds, percent) for percent in (50, 99))
    said = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items(), key=str))
    what = "photos of 512x512, with detection" if given.detect else "ready crops"
    print(f"| {given.clients} clients, {given.seconds:.0f} s, {what} | measured | bound |\n|---|---|---|")
    print(f"| answers by status | {said} | 200 and 503 alone |")
    print(f"| latency, p50 and p99 | {p50:.1f}, {p99:.1f} ms | |")
    print(f"| throughput, median of {given.rounds} rounds | {statistics.median(measured.rates):.1f}/s | |")
    kept = set(statuses) <= ALLOWED and growth <= GROWTH_BYTES
    if measured.bench_rates:
        share = statistics.median(
            ours / theirs for ours, theirs in zip(measured.rates, measured.bench_rates, strict=True)
        )
        print(f"| `bench --threads 1`, in turns | {statistics.median(measured.bench_rates):.1f}/s | |")
        print(f"| share of it, median of the rounds' | {share:.1%} | {SHARE:.0%} |")
        kept = kept and share >= SHARE
    megabytes = f"{memory[0] / 1e6:.1f}, {memory[-1] / 1e6:.1f}, {growth / 1e6:+.1f} MB"
    print(f"| memory: first, last, most above the first | {megabytes} | {GROWTH_BYTES / 1e6:+.0f} MB |")
    print("\n| stage | pictures | ms a picture |\n|---|---|---|")
    for stage, (count, seconds) in measured.stages.items():
        if count:
            print(f"| {stage} | {count:,.0f} | {1000 * seconds / count:.3f} |")
    return kept


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--detect", action="store_true", help="post the demo photo instead of a ready crop")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60, help="of load, in all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("options", nargs="*", help="further options of serve, after --")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("expected two processors, one for the server and one for the clients")
    os.sched_setaffinity(0, {cores[-1]})
    raise SystemExit(0 if report(measure(given, cores[0]), given) else 1)


if __name__ == "__main__":
    main()
