"""Where the time goes: the nodes of a profile in classes that are the same for every engine.

Knows the operators' names in ONNX Runtime, OpenVINO, TensorFlow Lite and XNNPACK. Knows no engine.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_fer.engines.base import NodeTime

KERNELS = ("convolution", "matrix", "attention")
"""Classes that do the work: convolutions, matrix products, and both products of a fused attention."""

# The first pattern that a name contains decides.
_CLASSES = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("attention", r"attention"),
        ("convolution", r"conv(?!ert)"),
        ("matrix", r"gemm|mat_?mul|matrix|fully_?\s?connected"),
        ("softmax", r"softmax"),
        ("subgraph", r"subgraph"),
        ("quantise", r"quant|convert|(?<!broad)cast"),
        (
            "layout",
            r"reorder|transpose|permute|shape|squeeze|concat|slice|split|pad|gather|expand|broadcast|copy",
        ),
        ("normalise", r"norm|mvn|\brms"),
        ("reduce", r"pool|reduce|mean|\bsum"),
        (
            "eltwise",
            (
                r"add|sub|mul|div|neg|abs|elu|clip|clamp|erf|sqrt|square|pow|log|exp|max|min|sigmoid|tanh|select"
                r"|where|greater|less|equal|eltwise|math"
            ),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class ClassTime:
    """What one class of nodes takes.

    Attributes:
        name: one of `KERNELS`, another class, or the operator's own name for a rare one.
        count: nodes of this class that ran.
        ms: milliseconds per run.
        share: of the time of all executed nodes, 0..1.
        operators: milliseconds per run by operator, in the engine's own words, the longest first.
    """

    name: str
    count: int
    ms: float
    share: float
    operators: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a bundle goes.

    Attributes:
        classes: the longest first.
        total_ms: all executed nodes of one run together; what lies between nodes is not in it.
        kernel_share: share of the classes in `KERNELS`, with the operators fused into their nodes, 0..1.
    """

    classes: tuple[ClassTime, ...]
    total_ms: float
    kernel_share: float

    def to_json(self) -> dict[str, object]:
        """Return the profile as plain JSON values."""
        return {
            "kernel_share": self.kernel_share,
            "total_ms": self.total_ms,
            "classes": [
                {
                    "class": one.name,
                    "count": one.count,
                    "ms": one.ms,
                    "share": one.share,
                    "operators": dict(one.operators),
                }
                for one in self.classes
            ],
        }


def summarise(runs: Sequence[Sequence[NodeTime]]) -> Profile:
    """Add up the nodes by class: means over the fastest quarter of the runs, which were disturbed least.

    Args:
        runs: `Engine.profile`; at least one run.
    """
    ranked = sorted(runs, key=lambda nodes: sum(node.ms for node in nodes))
    fastest = ranked[: (len(ranked) + 3) // 4]
    operators: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for nodes in fastest:
        for node in nodes:
            operators[node.type] += node.ms / len(fastest)
        for name, count in Counter(node_class(node.type) for node in nodes).items():
            counts[name] = max(counts[name], count)
    total = sum(operators.values())
    classes = [_class_time(name, count, operators, total) for name, count in counts.items()]
    classes.sort(key=lambda one: -one.ms)
    return Profile(tuple(classes), total, sum(one.share for one in classes if one.name in KERNELS))


def node_class(kind: str) -> str:
    """Return the class of an operator; its own name when it is in none."""
    return next((name for name, pattern in _CLASSES if pattern.search(kind)), kind)


def _class_time(name: str, count: int, operators: Mapping[str, float], total_ms: float) -> ClassTime:
    own = {kind: ms for kind, ms in operators.items() if node_class(kind) == name}
    ms = sum(own.values())
    longest_first = dict(sorted(own.items(), key=lambda item: -item[1]))
    return ClassTime(name, count, ms, ms / total_ms if total_ms else 0.0, longest_first)
