"""Which block's quantiser cost labels: each in turn is left float, and the flipped faces are asked again.

Faces and answers in, `Attribution` out. Knows no target and no quantiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import CalibrationError
from edge_fer.parity import metrics
from edge_fer.parity.metrics import FloatArray
from edge_fer.samples import Reference

BLOCK_COLUMNS = ("block in float", "restored", "broken", "divergence less")
# Answers (N, C) to faces (N, S, S, 3) uint8 of the int8 graph with this block in float; None: the block holds
# no quantiser.
Undo = Callable[[str, NDArray[np.uint8]], FloatArray | None]


@dataclass(frozen=True, slots=True)
class Block:
    """What one block's quantiser does to labels.

    Attributes:
        path: of the module.
        restored: (F,) bool, flipped faces that get the float label back when the block alone is float.
        broken: (K,) bool, control faces that lose it then: what any change of this size does by chance.
        js_drop: how much Jensen-Shannon divergence from the float answers vanishes, mean over the flipped
            faces, in nat.
    """

    path: str
    restored: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    js_drop: float


@dataclass(frozen=True, slots=True)
class Flip:
    """A face with another label in the int8 graph.

    Attributes:
        face: its row in the parity set.
        hash: of its crop.
        before: the float label.
        after: the int8 graph's.
    """

    face: int
    hash: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """Flipped faces, and which blocks bring their labels back.

    Attributes:
        flips: the faces.
        controls: number of control faces.
        blocks: those that hold quantisers, most restoring first.
        skipped: path to the reason why a block could not be float alone.
    """

    flips: tuple[Flip, ...]
    controls: int
    blocks: tuple[Block, ...]
    skipped: Mapping[str, str]

    @property
    def unrestored(self) -> int:
        """Flipped faces whose label no single block brings back."""
        return len(self.flips) - sum(any(one.restored[row] for one in self.blocks) for row in self._rows)

    @property
    def _rows(self) -> range:
        return range(len(self.flips))

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values for a certificate."""
        return {
            "flips": len(self.flips),
            "unrestored": self.unrestored,
            "controls": self.controls,
            "blocks": [
                {
                    "block": one.path,
                    "restored": int(one.restored.sum()),
                    "share": float(one.restored.mean()),
                    "broken": int(one.broken.sum()),
                    "js_drop": one.js_drop,
                }
                for one in self.blocks
            ],
            "faces": [
                {
                    "face": flip.face,
                    "hash": flip.hash,
                    "from": flip.before,
                    "to": flip.after,
                    "restored_by": [one.path for one in self.blocks if one.restored[row]],
                }
                for row, flip in zip(self._rows, self.flips, strict=True)
            ],
            "skipped": dict(self.skipped),
        }

    @property
    def title(self) -> str:
        """The heading of a table of `rows`."""
        return f"Attribution: {len(self.flips)} flips, {self.unrestored} that no single block restores"

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row of texts per block under `BLOCK_COLUMNS`."""
        return [
            (
                one.path,
                f"{one.restored.sum()} of {len(self.flips)}",
                f"{one.broken.sum()} of {self.controls}",
                f"{one.js_drop:.1e}",
            )
            for one in self.blocks
        ]


def attribute(
    reference: Reference,
    got: FloatArray,
    crops: NDArray[np.uint8],
    blocks: Sequence[str],
    undo: Undo,
    progress: Callable[[int], None],
) -> Attribution:
    """Ask the flipped faces, and as many control faces, again with each block in float.

    Args:
        reference: the float network's answers to the parity faces.
        got: (N, C) `probabilities` of the int8 graph, same faces.
        crops: (N, S, S, 3) uint8, the faces.
        blocks: module paths.
        undo: answers with one of them in float.
        progress: called with the number of blocks done.
    """
    expected = reference.probabilities
    flipped = np.flatnonzero(metrics.flips(expected, got))
    controls = choose_controls(expected, got, flipped)
    asked = np.concatenate([flipped, controls])
    found, skipped = [], {}
    for number, path in enumerate(blocks if len(flipped) else ()):
        try:
            answers = undo(path, crops[asked])
        except CalibrationError as error:  # no operator comes from it, or it holds all that is quantised
            skipped[path] = str(error)
        else:
            if answers is not None:
                found.append(compare(path, expected[asked], got[asked], answers, len(flipped)))
        progress(number + 1)
    found.sort(key=lambda one: (-int(one.restored.sum()), -one.js_drop))
    before, after = metrics.top1(expected), metrics.top1(got)
    names = reference.names
    flips = (Flip(int(i), str(reference.hashes[i]), names[before[i]], names[after[i]]) for i in flipped)
    return Attribution(tuple(flips), len(controls), tuple(found), skipped)


def compare(path: str, expected: FloatArray, got: FloatArray, undone: FloatArray, flips: int) -> Block:
    """Compare the answers with a block in float to those without.

    Args:
        path: of the block.
        expected: (F + K, C) distributions of the float network: the flipped faces, then the controls.
        got: of the int8 graph.
        undone: of the int8 graph with the block in float.
        flips: F.
    """
    other = metrics.flips(expected, undone)
    near = metrics.jensen_shannon(expected[:flips], got[:flips])
    nearer = metrics.jensen_shannon(expected[:flips], undone[:flips])
    return Block(path, ~other[:flips], other[flips:], float((near - nearer).mean()))


def choose_controls(expected: FloatArray, got: FloatArray, flipped: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows of faces that kept their label by as little as the flipped ones lost it, one for each.

    What is compared is the way to the other side in the int8 graph: from its label to the float one for a
    flipped face, from its label to the next one for a control. A change without a direction takes as many
    across from either group.

    Args:
        expected: (N, C) distributions of the float network.
        got: (N, C) distributions of the int8 graph.
        flipped: rows of the faces with another label; fewer controls come back where fewer faces are left.
    """
    second, first = np.sort(got, axis=1)[:, -2:].T
    margin = (first - second).astype(np.float64)
    rows = np.arange(len(got))
    free = np.ones(len(got), bool)
    free[flipped] = False
    chosen = []
    for row in flipped[: int(free.sum())]:
        way = float(first[row]) - float(got[row, metrics.top1(expected[row : row + 1])[0]])
        left = rows[free]
        nearest = left[np.argmin(np.abs(margin[left] - way))]
        free[nearest] = False
        chosen.append(nearest)
    return np.array(chosen, np.int64)
