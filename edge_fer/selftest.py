"""Replays a bundle's golden samples on this machine and compares with what its certificate promises.

Knows the tolerance of each precision and CPU class. Prints nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines import Engine, EngineOptions, Outputs, load_engine
from edge_fer.errors import BundleError
from edge_fer.parity.certificate import bundle_reports, report_for
from edge_fer.parity.environment import environment
from edge_fer.parity.exact import preprocess_gate
from edge_fer.parity.gates import finite
from edge_fer.samples import Golden

COLUMNS = ("check", "value", "threshold", "verdict", "reason")

FLOAT_TOLERANCE = 1e-4
"""Largest difference of `probabilities` to PyTorch, the fp32 gate's; a larger certified one replaces it."""

SAME_CLASS_SLACK = 5e-3
"""int8 on the certified CPU class: added to each sample's certified difference. Other kernels for the same
graph (ONNX Runtime without its fusions) moved the embedded bundle's samples by up to 0.0026."""

OTHER_CLASS_FACTOR, OTHER_CLASS_SLACK = 2.0, 5e-2
"""int8 on another CPU class, which rounds in other kernels: twice the certified difference of each sample and
this. As ARM, OpenVINO moved samples of `grefel-lite` by up to 0.049, ONNX Runtime by 0.0052 (docs/arm64.md).
"""

SLOW = 2.0
"""Times the certified latency from which on a warning is due."""

_RUNS = 30
_WARM_UP = 5

CheckVerdict = Literal["passed", "warning", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a self-test.

    Attributes:
        name: what was compared.
        value: the measured figure; None when there is none.
        threshold: what it is held against; None when the check was not run.
        verdict: passed, warning, failed, or not run.
        reason: one sentence with the figures behind the verdict.
    """

    name: str
    value: float | None
    threshold: float | None
    verdict: CheckVerdict
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return the check as plain JSON values; what is not finite becomes None."""
        return {
            "name": self.name,
            "value": finite(self.value),
            "threshold": finite(self.threshold),
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a self-test found.

    Attributes:
        bundle: where it was loaded from.
        checks: in the order of the table.
        environment: where it was made.
    """

    bundle: str
    checks: tuple[Check, ...]
    environment: Mapping[str, object]

    @property
    def verdict(self) -> Literal["passed", "failed"]:
        """Failed if any check failed; a warning does not count."""
        return "failed" if any(check.verdict == "failed" for check in self.checks) else "passed"

    def to_json(self) -> dict[str, object]:
        """Return the record of the command."""
        return {
            "bundle": self.bundle,
            "verdict": self.verdict,
            "checks": [check.to_json() for check in self.checks],
            "environment": dict(self.environment),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the table, in the order of `COLUMNS`."""
        return [
            (
                check.name,
                "" if check.value is None else f"{check.value:.3g}",
                "" if check.threshold is None else f"<= {check.threshold:.3g}",
                check.verdict,
                check.reason,
            )
            for check in self.checks
        ]


@dataclass(frozen=True, slots=True)
class _Certified:
    """What the certificate says of the machine it was made on; None for what it does not say."""

    difference: float | None
    differences: NDArray[np.float64] | None
    cpu: str | None
    cpu_class: str | None
    engine: Mapping[str, object]
    p50_ms: float | None
    threads: int | None


def run_self_test(bundle: Bundle, options: EngineOptions) -> SelfTest:
    """Decode, crop and run the golden samples here, and compare pixels, outputs, labels and latency.

    Args:
        bundle: what is tested.
        options: engine, threads, device and provider; on the processor of the certificate, threads that are
            left out are those of its latency.

    Raises:
        BundleError: it has no golden samples, or it is int8 and no certificate says how it may differ.
        EngineError: the engine does not load it, or fails.
    """
    golden = bundle.golden()
    if golden is None or len(golden.crops) == 0:
        raise BundleError(f"{bundle.path} holds no golden samples to replay: export the bundle again")
    machine = environment()
    certified = _read_certificate(bundle, str(machine["cpu_class"]))
    if options.threads is None and machine["cpu"] == certified.cpu:
        options = replace(options, threads=certified.threads)
    engine = load_engine(bundle, options)
    here = environment(engine)
    tolerance, why = _tolerance(bundle, certified, str(here["cpu_class"]), len(golden.crops))
    outputs = engine.run(golden.crops)
    pixels = preprocess_gate(golden, bundle.spec)
    checks = (
        Check("pixels", pixels.value, 0, "passed" if pixels.verdict == "passed" else "failed", pixels.reason),
        _check_outputs(golden, outputs, tolerance, why),
        _check_labels(golden, outputs, tolerance),
        _check_latency(golden, engine, certified, here),
    )
    return SelfTest(str(bundle.path), checks, here)


def _tolerance(
    bundle: Bundle, certified: _Certified, cpu_class: str, samples: int
) -> tuple[NDArray[np.float64], str]:
    """Return how far the `probabilities` of each sample may lie from PyTorch's, (G,), and the reason.

    Every sample has its own certified difference: one that int8 finds hard says nothing of the others.
    """
    difference, every = certified.difference, np.ones(samples)
    if bundle.spec.precision != "int8":
        return max(FLOAT_TOLERANCE, difference or 0.0) * every, f"{bundle.spec.precision}"
    if difference is None:
        raise BundleError(
            f"{bundle.path} is int8 and its certificate does not say how far the golden samples may differ: "
            "export the bundle again"
        )
    own = certified.differences
    own = difference * every if own is None or len(own) != samples else own
    if cpu_class == certified.cpu_class:
        return own + SAME_CLASS_SLACK, f"certified at most {difference:.3g} on this CPU class, {cpu_class}"
    other = f"another CPU class, {certified.cpu_class or 'unknown'}; this is {cpu_class}"
    return OTHER_CLASS_FACTOR * own + OTHER_CLASS_SLACK, f"certified at most {difference:.3g} on {other}"


def _check_outputs(golden: Golden, outputs: Outputs, tolerance: NDArray[np.float64], why: str) -> Check:
    """Hold every sample's largest difference against its own tolerance (G,); told is the worst of them."""
    pairs = {
        "primary": (outputs.primary, golden.primary),
        "reliability": (outputs.reliability, golden.reliability),
    }
    found = {
        name: float(np.abs(np.subtract(got, expected, dtype=np.float64)).max())
        for name, (got, expected) in pairs.items()
    }
    each = np.abs(np.subtract(outputs.probabilities, golden.probabilities, dtype=np.float64)).max(axis=1)
    worst = int(np.argmax(each - tolerance))
    # A NaN compares as not passed; the other outputs have no certified difference, but must be numbers.
    passed = bool((each <= tolerance).all()) and all(map(math.isfinite, found.values()))
    others = ", ".join(f"{name} {difference:.2g}" for name, difference in found.items())
    reason = f"{len(golden.crops)} golden samples, {why}; {others}"
    reason += f"; sample {worst} is nearest to its tolerance"
    value, threshold = float(each[worst]), float(tolerance[worst])
    return Check("outputs", value, threshold, "passed" if passed else "failed", reason)


def _check_labels(golden: Golden, outputs: Outputs, tolerance: NDArray[np.float64]) -> Check:
    """Count changed labels; where the float network's first two classes are close, either one may win."""
    changed = outputs.probabilities.argmax(axis=1) != golden.probabilities.argmax(axis=1)
    first_two = np.sort(golden.probabilities.astype(np.float64), axis=1)[:, -2:]
    close = first_two[:, 1] - first_two[:, 0] < 2 * tolerance
    total, wrong = int(changed.sum()), int((changed & ~close).sum())
    reason = f"{total} of {len(changed)} labels changed, {total - wrong} of them close calls"
    return Check("labels", wrong, 0, "failed" if wrong else "passed", reason)


def _check_latency(
    golden: Golden, engine: Engine, certified: _Certified, here: Mapping[str, object]
) -> Check:
    """Compare the median latency of one face with the certified one, on the same processor alone."""
    reason = _not_comparable(engine, certified, here)
    if reason or certified.p50_ms is None:
        return Check("latency", None, None, "not run", f"not compared: {reason}")
    face = golden.crops[:1]
    milliseconds = []
    for _ in range(_WARM_UP + _RUNS):
        started = time.perf_counter()
        engine.run(face)
        milliseconds.append(1e3 * (time.perf_counter() - started))
    median_ms = float(np.median(milliseconds[_WARM_UP:]))
    ratio = median_ms / certified.p50_ms
    threads = certified.threads or "default"
    reason = f"p50 {median_ms:.2f} ms here, {certified.p50_ms:.2f} ms certified, {threads} threads"
    return Check("latency", ratio, SLOW, "warning" if ratio > SLOW else "passed", reason)


def _not_comparable(engine: Engine, certified: _Certified, here: Mapping[str, object]) -> str:
    """Return why the certified latency says nothing here; empty when it does."""
    if not certified.p50_ms:
        return "the certificate holds no latency"
    if here["emulated"]:
        return f"this processor is emulated ({here['emulated']})"
    if here["cpu"] is None or here["cpu"] != certified.cpu:
        return f"certified on {certified.cpu or 'an unknown processor'}, this is {here['cpu'] or 'unknown'}"
    described = engine.describe()
    for key in ("threads", "provider", "device"):
        was = certified.threads if key == "threads" else certified.engine.get(key)
        if was is not None and described.get(key) != was:
            return f"certified with {key} {was}, this run has {described.get(key)}"
    return ""


def _read_certificate(bundle: Bundle, cpu_class: str) -> _Certified:
    certificate = report_for(bundle_reports(bundle), cpu_class) or {}
    figures, made_on = _object(certificate.get("figures")), _object(certificate.get("environment"))
    latency = _object(figures.get("latency_ms"))
    threads = latency.get("threads")
    return _Certified(
        difference=_number(figures.get("golden_max_abs_diff")),
        differences=_numbers(figures.get("golden_abs_diffs")),
        cpu=_text(made_on.get("cpu")),
        cpu_class=_text(made_on.get("cpu_class")),
        engine=_object(made_on.get("engine")),
        p50_ms=_number(latency.get("p50")),
        threads=threads if isinstance(threads, int) and not isinstance(threads, bool) else None,
    )


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _numbers(value: object) -> NDArray[np.float64] | None:
    """Return finite numbers that are not negative, (G,) float64; None for anything else."""
    numbers = [_number(item) for item in value] if isinstance(value, list) else []
    found = [number for number in numbers if number is not None]
    return np.array(found) if found and len(found) == len(numbers) else None


def _number(value: object) -> float | None:
    """Return a finite number that is not negative; None for anything else."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < 0
    ):
        return None
    return float(value)
