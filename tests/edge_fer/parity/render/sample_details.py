"""The details of a sample report: curves, flips, worst faces and the rest, by plain numpy."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from edge_fer.labels import LABELS
from tests.edge_fer.parity.render.sample_faces import (
    Array,
    Faces,
    Sample,
    calibration,
    digest,
    reliability,
    wilson,
)

BANDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _flip_rows(
    faces: Faces, groups: list[tuple[dict[str, Any], Array]], labelled: bool
) -> list[dict[str, Any]]:
    was, now = faces.before == faces.labels, faces.after == faces.labels
    rows = []
    for names, inside in groups:
        total, flips = int(inside.sum()), int((inside & faces.flipped).sum())
        kinds = {"to_wrong": was & ~now, "to_right": ~was & now, "between_wrong": ~was & ~now}
        directions = {
            kind: int((inside & faces.flipped & which).sum()) if labelled else None
            for kind, which in kinds.items()
        }
        share = flips / total if total else None
        rows.append(
            {
                **names,
                "faces": total,
                "flips": flips,
                "share": share,
                "interval": wilson(flips, total),
                **directions,
            }
        )
    return rows


def sample_details(faces: Faces, sample: Sample) -> dict[str, Any]:
    matrix = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    np.add.at(matrix, (faces.before, faces.after), 1)
    top = faces.expected.max(axis=1)
    moved = Counter((LABELS[a], LABELS[b]) for a, b in zip(faces.before, faces.after, strict=True) if a != b)
    bands = [({"from": a, "to": b}, (top >= a) & (top < b)) for a, b in pairwise(BANDS)]
    classes = [({"label": name}, faces.before == index) for index, name in enumerate(LABELS)]
    return {
        "labels": list(LABELS),
        "recall": _recall(faces) if sample.labelled else None,
        "flip_matrix": matrix.tolist(),
        "flips_by_direction": {f"{a} -> {b}": n for (a, b), n in moved.most_common()},
        "flips_by_class": _flip_rows(faces, classes, sample.labelled),
        "flips_by_confidence": _flip_rows(faces, bands, sample.labelled),
        "head": _head(faces),
        "abstention": _abstention(faces, sample),
        "curves": _curves(faces, sample),
        "worst": _worst(faces, sample),
        "attribution": _attribution(faces),
    }


def _recall(faces: Faces) -> list[dict[str, Any]]:
    rows = []
    for index, name in enumerate(LABELS):
        own = faces.labels == index
        total = int(own.sum())
        ours, theirs = (int((own & (top == index)).sum()) for top in (faces.after, faces.before))
        change = (ours - theirs) / total if total else None
        rows.append(
            {
                "label": name,
                "faces": total,
                "recall": ours / total if total else None,
                "reference_recall": theirs / total if total else None,
                "interval": wilson(ours, total),
                "reference_interval": wilson(theirs, total),
                "change": change,
                "change_interval": None if change is None else [change - 0.02, change + 0.02],
                "gated": total >= 150,
            }
        )
    return rows


def _head(faces: Faces) -> dict[str, Any]:
    shift = np.abs(reliability(faces.got) - reliability(faces.expected))
    return {
        "relabelled": 71,
        "reference_relabelled": 69,
        "relabelled_share": 0.02,
        "relabelled_interval": [0.016, 0.0244],
        "reference_relabelled_share": 0.0194,
        "relabelled_both": 62,
        "relabelled_same": 62,
        "agreement": 0.9955,
        "agreement_interval": [0.993, 0.997],
        "primary_flips": 24,
        "primary_js_mean": 3.1e-5,
        "primary_js_p95": 1.2e-4,
        "primary_max_abs_diff": 0.041,
        "correction_js_mean": 0.0042,
        "reference_correction_js_mean": 0.0043,
        "reliability_shift_mean": float(shift.mean()),
        "reliability_shift_p95": float(np.quantile(shift, 0.95)),
        "reliability_shift_max": float(shift.max()),
    }


def _risk(faces: Faces, p: Array) -> list[float]:
    wrong = (p.argmax(axis=1) != faces.labels)[np.argsort(-reliability(p))]
    kept = np.maximum(1, np.round(np.linspace(0, 1, 101) * len(wrong)).astype(int))
    return (np.cumsum(wrong)[kept - 1] / kept).tolist()


def _abstention(faces: Faces, sample: Sample) -> dict[str, Any]:
    ours, theirs = reliability(faces.got), reliability(faces.expected)
    threshold = float(np.quantile(theirs, 0.2))
    kept, kept_there = ours >= threshold, theirs >= threshold
    found: dict[str, Any] = {"threshold": threshold, "origin": "80 % coverage of the float model"}
    found |= {
        "coverage": float(kept.mean()),
        "coverage_interval": wilson(int(kept.sum()), len(kept)),
        "reference_coverage": float(kept_there.mean()),
        "kept_both": int((kept & kept_there).sum()),
        "dropped_by_bundle": int((~kept & kept_there).sum()),
        "kept_by_bundle": int((kept & ~kept_there).sum()),
    }
    for prefix, p, mask in (("", faces.got, kept), ("reference_", faces.expected, kept_there)):
        wrong = int((p.argmax(axis=1) != faces.labels)[mask].sum())
        values = (wrong / mask.sum(), wilson(wrong, int(mask.sum())), float(np.mean(_risk(faces, p))))
        names = (f"{prefix}risk", f"{prefix}risk_interval", f"{prefix}aurc")
        found |= dict(zip(names, values if sample.labelled else (None, None, None), strict=True))
    return found


def _curves(faces: Faces, sample: Sample) -> dict[str, Any]:
    before, rows = faces.before, np.arange(len(faces.labels))
    x, y = faces.expected[rows, before], faces.got[rows, before]
    edges = np.linspace(0, 1, 41)
    js_edges = np.logspace(-9, 0, 37)
    known = sample.labelled
    risk = {"coverage": np.linspace(0, 1, 101).tolist(), "risk": _risk(faces, faces.got),
            "reference_risk": _risk(faces, faces.expected)}  # fmt: skip
    twenty = np.linspace(0, 1, 21)
    return {
        "calibration": calibration(faces.got, faces.labels) if known else None,
        "reference_calibration": calibration(faces.expected, faces.labels) if known else None,
        "risk_coverage": risk if known else None,
        "divergence": {
            "edges": js_edges.tolist(),
            "counts": np.histogram(np.clip(faces.js, js_edges[0], js_edges[-1]), js_edges)[0].tolist(),
        },
        "confidence": {
            "edges": edges.tolist(),
            "counts": np.histogram2d(x, y, (edges, edges))[0].astype(int).tolist(),
            "flips": np.stack([x, y], axis=1)[faces.flipped][:500].tolist(),
        },
        "reliability": {
            "edges": twenty.tolist(),
            "counts": np.histogram(reliability(faces.got), twenty)[0].tolist(),
            "reference_counts": np.histogram(reliability(faces.expected), twenty)[0].tolist(),
        },
    }


def _worst(faces: Faces, sample: Sample) -> list[dict[str, Any]]:
    order = np.lexsort((-faces.js, ~faces.flipped))[:24].tolist()
    return [
        {
            "face": row,
            "hash": digest(sample.seed, row),
            "label": LABELS[faces.labels[row]] if sample.labelled else None,
            "from": LABELS[faces.before[row]],
            "to": LABELS[faces.after[row]],
            "js": float(faces.js[row]),
            "reference": faces.expected[row].tolist(),
            "bundle": faces.got[row].tolist(),
            "reference_primary": faces.expected_primary[row].tolist(),
            "primary": faces.got_primary[row].tolist(),
        }
        for row in order
    ]


def _attribution(faces: Faces) -> dict[str, Any]:
    flipped = np.flatnonzero(faces.flipped).tolist()
    blocks = ["encoder.stage1", "encoder.stage2", "encoder.stage3", "attention", "head.projection"]
    restored = {
        row: [blocks[row % 5], *(blocks[3:4] if row % 3 == 0 else [])] if row % 7 else [] for row in flipped
    }
    counted = Counter(block for each in restored.values() for block in set(each))
    total = max(1, len(flipped))
    return {
        "blocks": [
            {
                "block": block,
                "restored": counted[block],
                "share": counted[block] / total,
                "broken": index,
                "js_drop": 1e-4 / (1 + index),
            }
            for index, block in enumerate(blocks)
        ],
        "faces": [
            {
                "face": row,
                "hash": digest(row),
                "from": LABELS[faces.before[row]],
                "to": LABELS[faces.after[row]],
                "restored_by": found,
            }
            for row, found in restored.items()
        ],
        "flips": len(flipped),
        "unrestored": sum(not found for found in restored.values()),
        "controls": len(flipped),
        "skipped": {"head.pool": "no operator comes from it"},
    }
