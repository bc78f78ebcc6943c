"""A seeded parity report of the agreed shape, for the tests of its forms. No model is behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_fer.images import encode_png
from edge_fer.labels import LABELS
from tests.edge_fer.parity.render.sample_details import sample_details
from tests.edge_fer.parity.render.sample_faces import Faces, Sample, digest, ece, wilson


def sample_report(sample: Sample | None = None) -> dict[str, Any]:
    """Return a whole report as parsed JSON."""
    sample = Sample() if sample is None else sample
    faces = Faces.draw(sample)
    gates = _gates(faces, sample)
    figures = _figures(faces, sample)
    verdicts = {gate["verdict"] for gate in gates}
    return {
        "schema": "edge-fer-parity-2",
        "verdict": next((each for each in ("failed", "undecided") if each in verdicts), "passed"),
        "size_only": sample.speed < 1.2,
        "faces": len(faces.expected),
        "gates": gates,
        "figures": figures,
        "details": sample_details(faces, sample),
        "slices": _slices(faces, sample),
        "thresholds": {
            "confidence": 0.95,
            "accuracy_ratio": 0.99,
            "flips": 0.02,
            "divergence": 0.005,
            "seed": 0,
        },
        "reference": {"name": "ferplus:valid", "faces": 3553, "sha256": digest("reference")},
        "bundle": {
            "model": "grefel-lite",
            "target": sample.target,
            "engine": {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "tflite"}[sample.target],
            "precision": sample.precision,
            "labels": list(LABELS),
            "digest": digest(sample.target, sample.precision),
            "min_reliability": 0.31,
        },
        "environment": _environment(sample),
    }


def sample_pictures(report: dict[str, Any], size: int = 64) -> dict[str, bytes]:
    """Return a PNG of noise, the largest that a picture can be, for each of the worst faces."""
    rng = np.random.default_rng(1)
    return {
        row["hash"]: encode_png(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        for row in report["details"]["worst"]
    }


def _gate(
    name: str, value: float, interval: list[float] | None, threshold: float, reason: str
) -> dict[str, Any]:
    lower, upper = interval or (value, value)
    if name in ("accuracy", "per class", "speed"):
        verdict = "passed" if lower >= threshold else "failed" if upper < threshold else "undecided"
    elif name in ("calibration", "reliability head"):
        inside = -threshold <= lower and upper <= threshold
        verdict = "passed" if inside else "failed" if lower > threshold or upper < -threshold else "undecided"
    else:
        verdict = "passed" if upper <= threshold else "failed" if lower > threshold else "undecided"
    if name == "speed" and verdict != "passed":
        verdict = "size only"
    return {
        "name": name,
        "value": value,
        "interval": interval,
        "threshold": threshold,
        "verdict": verdict,
        "reason": reason,
    }


def _gates(faces: Faces, sample: Sample) -> list[dict[str, Any]]:
    n, flips, js = len(faces.labels), int(faces.flipped.sum()), faces.js
    was, now = faces.before == faces.labels, faces.after == faces.labels
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    ratio, half = now.sum() / was.sum(), 1.645 * np.sqrt(lost + gained) / was.sum()
    surest = np.argsort(-faces.expected.max(axis=1))[: n // 2]
    sure, error = int(faces.flipped[surest].sum()), 1.645 * js.std() / np.sqrt(n)
    change = ece(faces.got, faces.labels) - ece(faces.expected, faces.labels)
    worst, about = -0.021, f"of {n} faces changed their label"
    rows = [
        _gate("preprocess", 0, None, 0, "16 of 16 golden crops are identical"),
        _gate("batch", 0, None, 0, "16 faces alone and in other company: max abs diff 0, 0 flips"),
        _gate(
            "fp32 export",
            1.25e-6,
            None,
            1e-4,
            f"max abs diff 1.3e-06, the top label agrees on {n} of {n} faces",
        ),
        _gate("accuracy", float(ratio), [ratio - half, ratio + half], 0.99, f"{lost} lost, {gained} gained"),
        _gate("flips", flips / n, wilson(flips, n), 0.02, f"{flips} {about}"),
        _gate(
            "flips, surest half",
            sure / len(surest),
            wilson(sure, len(surest)),
            0.005,
            f"{sure} changed",
        ),
        _gate("distribution", js.mean(), [js.mean() - error, js.mean() + error], 0.005, f"JS on {n} faces"),
        _gate("calibration", change, [change - 0.002, change + 0.002], 0.01, f"ECE on {n} faces"),
        _gate("per class", worst, [worst - 0.018, worst + 0.015], -0.05, "sadness changes most"),
        _gate("reliability head", 0.0014, [-0.002, 0.005], 0.01, "coverage 0.801 against 0.800"),
        _gate(
            "speed", sample.speed, [sample.speed - 0.06, sample.speed + 0.06], 1.2, "0.40 ms against 0.83 ms"
        ),
    ]
    if not sample.labelled:
        for row in rows:
            if row["name"] in ("accuracy", "calibration", "per class"):
                row.update(value=None, interval=None, threshold=None, verdict="not run", reason="no labels")
    return rows


def _figures(faces: Faces, sample: Sample) -> dict[str, Any]:
    was, now, flipped, js = faces.before == faces.labels, faces.after == faces.labels, faces.flipped, faces.js
    latency = {f"{kind}p{q}": base * more for kind, base in (("", 0.83 / sample.speed), ("fp32_", 0.83))
               for q, more in ((50, 1.0), (90, 1.12), (99, 1.6))}  # fmt: skip
    known: dict[str, Any] = {
        "accuracy": float(now.mean()),
        "reference_accuracy": float(was.mean()),
        "primary_accuracy": float((faces.got_primary.argmax(axis=1) == faces.labels).mean()),
        "ece": ece(faces.got, faces.labels),
        "reference_ece": ece(faces.expected, faces.labels),
        "brier": 0.2704,
        "reference_brier": 0.26998,
        "nll": 0.5875,
        "reference_nll": 0.5867,
        "flips_to_wrong": int((was & ~now).sum()),
        "flips_to_right": int((~was & now).sum()),
        "flips_between_wrong": int((flipped & ~was & ~now).sum()),
        "mcnemar_p": 0.359,
        "temperature": 1.31,
        "reference_temperature": 1.30,
    }
    known = known if sample.labelled else dict.fromkeys(known)
    return known | {
        "faces": len(js),
        "js_mean": float(js.mean()),
        "js_p50": float(np.median(js)),
        "js_p95": float(np.quantile(js, 0.95)),
        "js_max": float(js.max()),
        "jeffreys_mean": float(js.mean() * 8),
        "max_abs_diff": float(np.abs(faces.got - faces.expected).max()),
        "flips": int(flipped.sum()),
        "repair_temperature": 1.004,
        "latency_ms": {
            **latency,
            "ratio": sample.speed,
            "verdict": "faster" if sample.speed >= 1.2 else "size only",
            "threads": 2,
        },
    }


def _slices(faces: Faces, sample: Sample) -> list[dict[str, Any]]:
    rng = np.random.default_rng(sample.seed + 1)
    columns = {"gender": ("female", "male"), "age band": ("0-19", "20-39", "40-59", "60+")}
    slices = []
    for column, values in columns.items():
        member = rng.integers(0, len(values), len(faces.labels))
        parts = [
            Faces(*(part[member == index] for part in (faces.labels, faces.expected, faces.got,
                                                         faces.expected_primary, faces.got_primary)))
            for index in range(len(values))
        ]  # fmt: skip
        rows = [
            {
                "value": value,
                "faces": len(part.labels),
                "gates": _gates(part, sample)[3:9],
                "figures": _figures(part, sample),
            }
            for value, part in zip(values, parts, strict=True)
        ]
        note = f"{6 * len(values)} comparisons, each at 95 %"
        slices.append({"column": column, "note": note, "values": rows})
    return slices


def _environment(sample: Sample) -> dict[str, Any]:
    arm = sample.cpu_class.startswith("aarch64")
    return {
        "system": "Linux",
        "machine": "aarch64" if arm else "x86_64",
        "cpu": "Cortex-A76" if arm else "AMD EPYC",
        "cpu_class": sample.cpu_class,
        "features": ["asimd", "asimddp"] if arm else ["avx2", "avx512_vnni", "avx512bw", "fma"],
        "cores": 4 if arm else 2,
        "threads": None,
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "edge_fer": "0.1.0"},
        "engine": {
            "engine": "onnxruntime",
            "version": "1.31.1",
            "provider": "CPUExecutionProvider",
            "threads": 2,
        },
    }
