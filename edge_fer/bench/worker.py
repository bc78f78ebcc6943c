"""The process that holds one bundle while it is measured; it imports only what inference needs.

Orders come as JSON lines on standard input, answers go out as JSON lines on standard output. `process` is the
other side.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_fer.bundle import Bundle
    from edge_fer.engines import Engine

_STATUS = Path("/proc/self/status")
_IDLE_WINDOW_S = 0.01
_IDLE_SHARE = 0.1  # of one core; below it the engine's threads sleep
_IDLE_LIMIT_S = 0.3


def main() -> None:
    """Load the bundle that the first argument describes, then obey orders until standard input ends."""
    started = time.perf_counter()  # before numpy and the engine: they are part of the first inference
    asked = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    from edge_fer.errors import EdgeFerError

    try:
        _serve(asked, started, answers)
    except EdgeFerError as error:
        _answer(answers, {"error": str(error)})
        raise SystemExit(1) from None


def peak_rss_bytes() -> int | None:
    """Return the largest resident set of this process; None where the system does not tell.

    Linux starts a child's `ru_maxrss` at its parent's, so the process's own high-water mark is read there.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _serve(asked: dict[str, object], started: float, answers: TextIO) -> None:
    from edge_fer.bundle import Bundle
    from edge_fer.engines import EngineOptions, load_engine

    bundle = Bundle.load(str(asked["path"]))
    engine = load_engine(bundle, EngineOptions(**asked["engine"]))  # type: ignore[arg-type]
    batch = int(str(asked["batch"]))
    images = _images(bundle, batch)
    del bundle  # as `Recognizer` does: the engine has what it needs
    engine.run(images[:batch])
    first_ms = 1e3 * (time.perf_counter() - started)
    _answer(answers, {"first_ms": first_ms, "engine": engine.describe()})
    for line in sys.stdin:
        _answer(answers, _obey(json.loads(line), engine, images))


def _obey(order: dict[str, int], engine: Engine, images: NDArray[np.uint8]) -> dict[str, object]:
    if "peak" in order:
        return {"peak_rss_bytes": peak_rss_bytes()}
    batch = _repeat(images, order["batch"])
    if "profile" in order:
        return {"runs": engine.profile(batch, order["profile"])}
    engine.run(batch)  # what other bundles have driven out of the caches comes back
    milliseconds = []
    for _ in range(order["time"]):
        started = time.perf_counter()
        engine.run(batch)
        milliseconds.append(1e3 * (time.perf_counter() - started))
    _wait_until_idle()
    return {"ms": milliseconds}


def _wait_until_idle() -> None:
    """Wait until the engine's threads sleep: some spin for a while, which would hit the next bundle."""
    deadline = time.monotonic() + _IDLE_LIMIT_S
    while time.monotonic() < deadline:
        busy = time.process_time()
        time.sleep(_IDLE_WINDOW_S)
        if time.process_time() - busy < _IDLE_SHARE * _IDLE_WINDOW_S:
            return


def _images(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    """Return the golden crops, repeated up to `count`; noise for a bundle without: (N, S, S, 3) uint8 RGB."""
    import numpy as np

    golden, size = bundle.golden(), bundle.spec.input.size
    if golden is None or len(golden.crops) == 0:
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return _repeat(golden.crops, count)


def _repeat(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.resize(images, (count, *images.shape[1:]))


def _answer(answers: TextIO, record: dict[str, object]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
