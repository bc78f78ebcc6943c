"""The precision ladder: from float to static int8, and back block by block where int8 hurts too much.

One criterion on every rung, the gates; the fastest rung that passes them is taken. Knows graphs and their
judge, and nothing of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_fer.errors import CalibrationError, GateFailed
from export.measure import Judged

COLUMNS = (
    "rung",
    "verdict",
    "held back by",
    "accuracy",
    "flips",
    "divergence",
    "size",
    "one face",
    "over fp32",
)
Static = Callable[[frozenset[str]], Judged]


class NoRungPasses(GateFailed):
    """No rung of the ladder passed every gate.

    Attributes:
        rungs: all that were judged.
    """

    def __init__(self, rungs: Sequence[Judged]) -> None:
        super().__init__(
            "no rung of the ladder passed every gate: give more parity faces, or another checkpoint"
        )
        self.rungs = rungs


@dataclass(frozen=True, slots=True)
class Ladder:
    """How to make and judge each rung.

    Attributes:
        rungs: name and maker of the rungs whose form is fixed, from the bottom up.
        static: makes static int8 with these modules left in float.
        blocks: module paths that can be returned to float, each one alone.
        harm: maps a block to how much divergence (nat, mean per face) vanishes when it alone is float.
    """

    rungs: Sequence[tuple[str, Callable[[], Judged]]]
    static: Static
    blocks: Sequence[str]
    harm: Callable[[str], float]


def climb(ladder: Ladder, tell: Callable[[Judged | str], None]) -> Judged:
    """Judge every rung and return the fastest that passes its gates.

    Args:
        ladder: the rungs.
        tell: called with each rung as it is judged, or with a sentence on one that cannot be.

    Raises:
        NoRungPasses: the float one included.
    """
    judged = []
    for name, make in ladder.rungs:
        try:
            judged.append(make())
        except CalibrationError as error:
            tell(f"{name}: {error}")
            continue
        tell(judged[-1])
    judged += list(with_float_blocks(ladder, tell))
    passing = [one for one in judged if one.report.verdict == "passed"]
    if not passing:
        raise NoRungPasses(judged)
    # By the ratio, which each rung was measured for in one run: the machine may be busier in another.
    return max(passing, key=lambda one: one.speed.ratio)


def with_float_blocks(ladder: Ladder, tell: Callable[[Judged | str], None]) -> Iterator[Judged]:
    """Yield static int8, then one more block in float each time, the most harmful first, until it passes."""
    returned: frozenset[str] = frozenset()
    current = ladder.static(returned)
    tell(current)
    yield current
    if current.report.verdict == "passed":
        return
    # All blocks but one at most: with every one in float it would be the float rung again.
    for block in most_harmful_first(ladder, tell)[: len(ladder.blocks) - 1]:
        returned |= {block}
        try:
            current = ladder.static(returned)
        except CalibrationError as error:  # the blocks that are left may hold nothing to quantise
            tell(f"static int8, float {', '.join(sorted(returned))}: {error}")
            return
        tell(current)
        yield current
        if current.report.verdict == "passed":
            return


def most_harmful_first(ladder: Ladder, tell: Callable[[Judged | str], None]) -> list[str]:
    """Return the blocks by their harm; left out, and told, are those that cannot be float alone."""
    harm: dict[str, float] = {}
    for block in ladder.blocks:
        try:
            harm[block] = ladder.harm(block)
        except CalibrationError as error:  # no operator comes from it, or it holds all that is quantised
            tell(f"{block} stays int8: {error}")
    return sorted(harm, key=harm.__getitem__, reverse=True)


def row(judged: Judged) -> tuple[str, ...]:
    """Return the cells of a rung under `COLUMNS`."""
    figures = judged.report.figures
    holding = [gate.name for gate in judged.report.gates if gate.verdict in ("failed", "undecided")]
    return (
        judged.rung,
        judged.report.verdict,
        ", ".join(holding) or "-",
        number(figures.get("accuracy"), ".4f"),
        number(judged.flips, ".2%"),
        number(figures.get("js_mean"), ".2g"),
        f"{judged.graph.size_bytes / 1e6:.2f} MB",
        f"{judged.speed.latency_ms:.2f} ms",
        f"{judged.speed.ratio:.2f}x",
    )


def number(value: object, form: str) -> str:
    """Return a figure as text, a dash for none."""
    return format(value, form) if isinstance(value, int | float) else "-"
