"""The measuring process of a bundle as its parent sees it: `worker` is the other side."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from edge_fer.engines.base import EngineOptions, NodeTime
from edge_fer.engines.contract import one_line
from edge_fer.errors import EngineError

_PACKAGE = Path(__file__).resolve().parents[1]
_LEAVE_S = 10.0


class Worker:
    """A fresh process that has loaded one bundle and run it once; use as a context, which ends it.

    Attributes:
        first_ms: milliseconds from the first line of the process's program to the first answer: importing the
            engine, reading, verifying and loading the bundle, one run.
        engine: what the engine says of itself.

    Raises:
        EngineError: the bundle does not load there.
    """

    def __init__(self, path: Path, options: EngineOptions, batch: int) -> None:
        self._path = path
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        asked = {"path": str(path), "engine": dataclasses.asdict(options), "batch": batch}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE.name}.bench.worker", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=_environment(),
            text=True,
            encoding="utf-8",
        )
        try:
            answer = self._read()
        except BaseException:
            self.close()
            raise
        self.first_ms = float(str(answer["first_ms"]))
        self.engine: dict[str, object] = dict(answer["engine"])  # type: ignore[call-overload]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def time(self, batch: int, runs: int) -> list[float]:
        """Return what each of `runs` runs of `batch` faces took, in milliseconds, after one not counted."""
        return [float(ms) for ms in self._ask(time=runs, batch=batch)["ms"]]  # type: ignore[attr-defined]

    def peak_rss_bytes(self) -> int | None:
        """Return the largest resident set so far; None where the system does not tell."""
        found = self._ask(peak=1)["peak_rss_bytes"]
        return None if found is None else int(str(found))

    def profile(self, batch: int, runs: int) -> list[list[NodeTime]]:
        """Return `Engine.profile` of `batch` faces."""
        found = self._ask(profile=runs, batch=batch)["runs"]
        return [[NodeTime(str(kind), float(ms)) for kind, ms in nodes] for nodes in found]  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def _ask(self, **order: int) -> dict[str, object]:
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(json.dumps(order) + "\n")
                stream.flush()
        except BrokenPipeError:
            pass  # reading tells why
        return self._read()

    def _read(self) -> dict[str, object]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            code = self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read().decode(errors="replace").strip().splitlines()
            raise EngineError(
                f"{self._path}: the process that measured it ended with {code}"
                + (f": {one_line(Exception(said[-1]))}" if said else "")
            )
        answer: dict[str, object] = json.loads(line)
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        return answer


def _environment() -> dict[str, str]:
    """Return the environment in which the child finds this very package."""
    paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # SAFEPATH (3.11 on): no module of the folder where the user happens to be.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
