"""faces.csv, a line per face, and the short table on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edge_fer.parity import metrics
from training.evaluate.results import Result

Column = Sequence[object]


def faces_csv(results: Sequence[Result]) -> str:
    """Return a line per face: hash, name and label, then each checkpoint's columns.

    In a run the columns of a checkpoint begin with its name: best_prediction, last_prediction ...
    """
    faces = results[0].faces
    columns: dict[str, Column] = {
        "face": range(len(faces.names)),
        "hash": faces.hashes(),
        "name": faces.names,
        "label": [faces.labels[number] for number in faces.numbers],
    }
    for result in results:
        prefix = f"{result.name}_" if len(results) > 1 else ""
        columns |= {f"{prefix}{name}": column for name, column in _columns(result)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _columns(result: Result) -> Iterator[tuple[str, Column]]:
    answers, names, votes = result.answers, result.faces.labels, result.faces.tensors.votes
    yield "prediction", [names[top] for top in metrics.top1(answers.probabilities)]
    yield "primary_prediction", [names[top] for top in metrics.top1(answers.primary)]
    yield "reliability", _digits(answers.reliability)
    if result.balanced:
        yield "correction_weight", _digits(answers.correction_weight)
        yield "anchor_weight", _digits(answers.anchor_weight)
    if answers.nearest is not None:
        yield "nearest_anchor", answers.nearest.tolist()
    if votes is not None:
        yield "jeffreys", _digits(metrics.jeffreys(answers.probabilities, votes.numpy()))
    for kind, rows in (("primary", answers.primary), ("probabilities", answers.probabilities)):
        spread = metrics.spread(rows)
        for name in ("highest", "lowest", "deviation"):
            yield f"{kind}_{name}", _digits(getattr(spread, name))
        for name, column in zip(names, rows.T, strict=True):
            yield f"{kind}_{name}", _digits(column)


def _digits(values: metrics.FloatArray) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values]


ROWS: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "probabilities.accuracy", ".4f"),
    ("accuracy of primary", "primary.accuracy", ".4f"),
    ("gain of balancing", "balancing.gain", "+.4f"),
    ("mean recall", "probabilities.mean_recall", ".4f"),
    ("macro-F1", "probabilities.macro_f1", ".4f"),
    ("ECE", "probabilities.ece", ".4f"),
    ("Brier", "probabilities.brier", ".4f"),
    ("NLL (nat)", "probabilities.nll", ".4f"),
    ("risk at 80 % coverage", "probabilities.risk_at_80", ".4f"),
    ("area under risk–coverage", "probabilities.aurc", ".4f"),
    ("Jeffreys against votes (nat)", "votes.jeffreys_mean", ".4f"),
    ("weight of the correction", "balancing.correction_weight", ".3f"),
    ("weight of the anchors in it", "balancing.anchor_weight", ".3f"),
    ("share of anchors used", "anchors.used_share", ".3f"),
    ("rms of anchors / of embeddings", "anchors.rms_ratio", ".2f"),
    ("Davies–Bouldin, embeddings", "clusters.embeddings.davies_bouldin", ".3f"),
    ("Calinski–Harabasz, embeddings", "clusters.embeddings.calinski_harabasz", ".1f"),
)


def summary_rows(checkpoints: Sequence[Mapping[str, object]]) -> list[tuple[str, ...]]:
    """Return a row per figure and a cell per checkpoint; figures that none of them has are left out."""
    rows = []
    for title, path, digits in ROWS:
        values = [_find(one, path) for one in checkpoints]
        if any(value is not None for value in values):
            rows.append((title, *("" if value is None else format(value, digits) for value in values)))
    return rows


def _find(value: object, path: str) -> float | None:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None
