"""The process in which `doctor` tries what may take a process down: engines, bundles, OpenCV, a detector.

A wheel for another processor ends in a signal, not in an exception. `tried` starts such a process and returns
what it said until it ended; `main` is the process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edge_fer.cli_errors import one_line
from edge_fer.errors import DetectorError, EdgeFerError

PATIENCE_S = 300.0  # a slow card, a slow processor, an engine that compiles
_PACKAGE = Path(__file__).resolve().parent
_RUNS = 5
_REASON_CHARACTERS = 300

Json = dict[str, object]


def tried(*arguments: str, patience_s: float = PATIENCE_S) -> tuple[list[Json], str | None]:
    """Run this module with some arguments in a process of its own.

    Returns:
        The records that it printed, in order; and why it ended before its end, None when it did not.
    """
    paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # SAFEPATH (3.11 on): no module of the folder where the user happens to be.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", f"{_PACKAGE.name}.probe", *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return _records(late.stdout), f"it gave no answer in {patience_s:g} s"
    except OSError as error:
        return [], f"no process could be started: {error.strerror or error}"
    return _records(done.stdout), _ending(done.returncode, done.stderr)


def _records(output: bytes | None) -> list[Json]:
    whole = (output or b"").decode(errors="replace").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _ending(code: int, complaints: bytes) -> str | None:
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        wrong = ", so it is built for another processor" if -code == signal.SIGILL else ""
        return f"its process was ended by {name}{wrong}"
    said = complaints.decode(errors="replace").strip().splitlines()
    return one_line(said[-1])[:_REASON_CHARACTERS] if said else f"its process ended with {code}"


def main() -> None:
    """Print what the arguments ask for, one JSON object per line: `engine NAME BUNDLE…` or `pictures`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    kind, *rest = sys.argv[1:]
    for record in _engine(*rest) if kind == "engine" else _pictures():
        answers.write(json.dumps(record) + "\n")
        answers.flush()


def _engine(name: str, *bundles: str) -> Iterator[Json]:
    """Yield what the engine is, then for each bundle how long a face takes, or why it does not run."""
    from edge_fer.engines import installed

    try:
        found = installed(name)
    except EdgeFerError as error:
        yield {"fault": str(error), "remedy": getattr(error, "remedy", None)}
        return
    yield {"package": found.package, "version": found.version, "places": list(found.places)}
    for path in bundles:
        try:
            yield {"face_ms": _face_ms(path)}
        except EdgeFerError as error:
            yield {"fault": str(error)}


def _face_ms(path: str) -> float:
    """Run a bundle on one of its golden samples; return the median of a few runs, in milliseconds."""
    import numpy as np

    from edge_fer.bundle import Bundle
    from edge_fer.engines import load_engine

    bundle = Bundle.load(path)
    engine = load_engine(bundle)
    golden, size = bundle.golden(), bundle.spec.input.size
    face = np.zeros((1, size, size, 3), np.uint8) if golden is None else golden.crops[:1]
    took = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        engine.run(face)
        took.append(1e3 * (time.perf_counter() - started))
    return float(np.median(took[1:]))


def _pictures() -> Iterator[Json]:
    """Yield OpenCV's version and what it reads video with, then the detector that `infer` would take."""
    try:
        import cv2
    except ImportError as error:
        yield {"fault": f"OpenCV does not import ({one_line(error)[:_REASON_CHARACTERS]})"}
        return
    registry = cv2.videoio_registry
    listed = {*registry.getCameraBackends(), *registry.getStreamBackends()}
    # A backend that is a plug-in is listed whether its file is there or not.
    there = (backend for backend in listed if registry.hasBackend(backend))
    yield {"opencv": cv2.__version__, "video": sorted({registry.getBackendName(one) for one in there})}
    try:
        yield {"detector": default_detector()}
    except DetectorError as error:
        yield {"fault": str(error)}


def default_detector() -> str:
    """Return the name of the detector that `infer` takes when none is asked for.

    Raises:
        DetectorError: there is none.
    """
    from edge_fer.detectors import load_detector

    detector = load_detector()
    engine = getattr(detector, "engine", None)
    return f"{detector.name} on {engine}" if engine else detector.name


if __name__ == "__main__":
    main()
