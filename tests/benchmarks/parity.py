"""Times a parity report from stored outputs: 10,000 faces and three bundles, from arrays to JSON and HTML.

Run: python tests/benchmarks/parity.py [--faces N] [--bundles B]

The outputs are drawn, seeded: what a report costs depends on their number, not on where they come from.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace

import numpy as np

from edge_fer.engines.base import Outputs
from edge_fer.labels import LABELS
from edge_fer.parity.comparison import compare
from edge_fer.parity.documents import document
from edge_fer.parity.environment import environment
from edge_fer.parity.render.html import render_html
from edge_fer.parity.render.markdown import render_markdown
from edge_fer.parity.schema import check_report
from edge_fer.samples import Reference


def drawn(logits: np.ndarray) -> Outputs:
    """Return what a network with these logits (N, C) would answer."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    primary = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1) / np.log(p.shape[1])
    return Outputs(p, primary.astype(np.float32), (1 - entropy).astype(np.float32))


def main() -> None:
    """Print the seconds of each step and the peak memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--bundles", type=int, default=3)
    asked = parser.parse_args()
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(asked.faces, len(LABELS))) * 2
    answer = drawn(logits)
    labels = np.array([generator.choice(len(LABELS), p=row / row.sum()) for row in answer.probabilities])
    hashes = np.array([f"{face:064x}" for face in range(asked.faces)])
    reference = Reference(
        labels=labels.astype(np.int16),
        hashes=hashes,
        probabilities=answer.probabilities,
        primary=answer.primary,
        reliability=answer.reliability,
        name="drawn",
        names=LABELS,
    )
    noisy = [drawn(logits + generator.normal(size=logits.shape) * 0.05) for _ in range(asked.bundles)]
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    started = time.perf_counter()
    bundle = {
        "model": "drawn",
        "target": "onnx",
        "engine": "none",
        "precision": "int8",
        "labels": list(LABELS),
    }
    about = {"name": "drawn", "faces": asked.faces, "sha256": "0" * 64}
    reports = [
        replace(
            compare(reference, outputs),
            bundle={**bundle, "digest": f"{number:064x}", "min_reliability": None},
            reference=about,
            environment=environment(),
        ).to_json()
        for number, outputs in enumerate(noisy)
    ]
    compared = time.perf_counter()
    text = json.dumps(document(reports), allow_nan=False)
    checked = time.perf_counter()
    check_report(json.loads(text))
    rendering = time.perf_counter()
    page, markdown = render_html(reports), render_markdown(reports)
    done = time.perf_counter()
    after_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{asked.bundles} bundles, {asked.faces:,} faces: {done - started:.2f} s in all")
    print(f"  compare {compared - started:.2f} s, JSON {checked - compared:.2f} s, ", end="")
    print(f"schema {rendering - checked:.2f} s, HTML and Markdown {done - rendering:.2f} s")
    print(f"  parity.json {len(text) / 1e3:.0f} kB, parity.html {len(page) / 1e3:.0f} kB, ", end="")
    print(f"parity.md {len(markdown) / 1e3:.0f} kB")
    print(f"  peak memory {after_mb:.0f} MB, of it {before_mb:.0f} MB before the comparison")


if __name__ == "__main__":
    main()
