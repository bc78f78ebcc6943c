"""How measurements are told: the JSON record of a bundle, and the rows of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edge_fer.bench.measure import Measured
from edge_fer.bench.profile import KERNELS, Profile

COLUMNS = (
    *("bundle", "precision", "engine", "threads"),
    *("first ms", "p50 ms", "p90 ms", "p99 ms", "faces/s", "memory MB", "size MB", ""),
)
PROFILE_COLUMNS = ("class", "count", "ms per run", "share", "longest operators, ms")
_SHOWN = 3


def record(measured: Measured, environment: Mapping[str, object], recommended: bool) -> dict[str, object]:
    """Return the JSON object of one bundle; `profile` is in it when it was asked for."""
    spec = measured.candidate.spec
    fields: dict[str, object] = {
        "bundle": str(measured.candidate.path),
        "model": spec.model,
        "target": spec.target,
        "precision": spec.precision,
        "engine": measured.engine.get("engine"),
        "threads": measured.engine.get("threads"),
        "batch": measured.batch,
        "first_ms": round(measured.first_ms, 3),
        "p50_ms": round(measured.percentile_ms(50), 4),
        "p90_ms": round(measured.percentile_ms(90), 4),
        "p99_ms": round(measured.percentile_ms(99), 4),
        "throughput_per_s": round(measured.throughput_per_s, 2),
        "peak_rss_bytes": measured.peak_rss_bytes,
        "size_bytes": measured.candidate.size_bytes,
        "cpu": environment["cpu"],
        "isa": environment["cpu_class"],
        "recommended": recommended,
    }
    return fields if measured.profile is None else {**fields, "profile": measured.profile.to_json()}


def rows(measured: Iterable[Measured], recommended: int | None) -> list[tuple[str, ...]]:
    """Return the rows of the main table, in the order of `COLUMNS`."""
    return [
        (
            one.candidate.path.name,
            one.candidate.spec.precision,
            str(one.engine.get("engine")),
            _threads(one),
            f"{one.first_ms:.0f}",
            *(f"{one.percentile_ms(percent):.2f}" for percent in (50, 90, 99)),
            f"{one.throughput_per_s:.0f}",
            "" if one.peak_rss_bytes is None else f"{one.peak_rss_bytes / 1e6:.0f}",
            f"{one.candidate.size_bytes / 1e6:.2f}",
            "recommended" if place == recommended else _doubt(one),
        )
        for place, one in enumerate(measured)
    ]


def batch_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Return the rows of the table of faces per second, one column per batch."""
    return [
        (one.candidate.path.name, *(f"{value:.0f}" for value in one.throughput.values())) for one in measured
    ]


def profile_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Return the rows of a profile, in the order of `PROFILE_COLUMNS`, the kernel share last."""
    found = [
        (
            one.name + (" (kernel)" if one.name in KERNELS else ""),
            str(one.count),
            f"{one.ms:.3f}",
            f"{one.share:.1%}",
            ", ".join(f"{kind} {ms:.3f}" for kind, ms in list(one.operators.items())[:_SHOWN]),
        )
        for one in profile.classes
    ]
    kernels = [one for one in profile.classes if one.name in KERNELS]
    nodes, kernel_nodes = (str(sum(one.count for one in group)) for group in (profile.classes, kernels))
    kernel_ms = f"{sum(one.ms for one in kernels):.3f}"
    return [
        *found,
        ("all nodes", nodes, f"{profile.total_ms:.3f}", "", ""),
        ("kernel share", kernel_nodes, kernel_ms, f"{profile.kernel_share:.1%}", ""),
    ]


def machine(measured: Iterable[Measured], environment: Mapping[str, object]) -> str:
    """Return one line on the processor, its features and the versions of all that took part."""
    features, versions = environment["features"], environment["versions"]
    named = " ".join(map(str, features)) if isinstance(features, list) else ""
    tools = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    engines = sorted({f"{one.engine.get('engine')} {_number(one.engine.get('version'))}" for one in measured})
    cpu = environment["cpu"] or "unknown processor"
    place = f"{cpu}, {environment['cores']} cores, {environment['cpu_class']} ({named})"
    return f"{place}; {', '.join([*engines, *tools])}"


def _threads(one: Measured) -> str:
    threads = one.engine.get("threads")
    return "engine's own" if threads is None else str(threads)


def _number(version: object) -> str:
    """Return the number in an engine's version, which may hold its package's name or its build."""
    words = str(version).split()
    return words[-1].partition("-")[0] if words else ""


def _doubt(one: Measured) -> str:
    if one.candidate.verdict == "failed":
        return "failed"
    if one.candidate.spec.untrained:
        return "untrained"
    return "no certificate" if one.candidate.verdict == "none" else ""
