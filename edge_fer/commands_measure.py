"""The device commands that measure this machine: bench and self-test. Knows options and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import complain, guarded, notice
from edge_fer.command_options import (
    BundleArgument,
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ProviderOption,
    ThreadsOption,
)
from edge_fer.errors import EdgeFerError, GateFailed

if TYPE_CHECKING:
    from edge_fer.bench.choice import Choice
    from edge_fer.bench.measure import Candidate, Measured
    from edge_fer.selftest import SelfTest

MAX_BATCH = 1024
BUSY = 1.5

app = typer.Typer()


@app.command()
@guarded
def bench(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            readable=False,
            help="Bundles, folders or zips; the embedded one when left out.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=MAX_BATCH, help="Faces per run.")] = 1,
    profile: Annotated[bool, typer.Option("--profile", help="Time by class of operators, too.")] = False,
    as_json: JsonOption = False,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    debug: DebugOption = False,
) -> None:
    """Measure bundles side by side on this machine: speed, memory, size, and which one to take."""
    from edge_fer.bench.choice import choose
    from edge_fer.bench.measure import BenchOptions, measure
    from edge_fer.bench.report import record
    from edge_fer.bundle import default_bundle
    from edge_fer.engines import EngineOptions
    from edge_fer.output import print_json
    from edge_fer.parity.environment import environment
    from edge_fer.tables import progress

    candidates = _candidates(bundles or [default_bundle()])
    chosen = EngineOptions(engine=engine, threads=threads, device=device, provider=provider)
    options = BenchOptions(engine=chosen, batch=batch, batches=not as_json, profile=profile)
    faults: list[EdgeFerError] = []

    def broken(error: EdgeFerError) -> None:
        complain(error)
        faults.append(error)

    with progress("measuring", 100) as show:
        measured = measure(candidates, options, broken, show) if candidates else []
    if measured:
        choice, where = choose(measured), environment()
        if as_json:
            for index, one in enumerate(measured):
                print_json(record(one, where, index == choice.place))
        else:
            _print_bench(measured, choice, where)
    if faults or len(measured) < len(bundles or [1]):
        raise SystemExit(1)


@app.command("self-test")
@guarded
def self_test(
    bundle: BundleArgument = None,
    as_json: JsonOption = False,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    debug: DebugOption = False,
) -> None:
    """Replay a bundle's golden samples here and compare with its certificate; exit 3 when they differ."""
    from edge_fer.bundle import Bundle, default_bundle
    from edge_fer.engines import EngineOptions
    from edge_fer.output import print_json
    from edge_fer.selftest import run_self_test

    loaded = Bundle.load(bundle or default_bundle())
    options = EngineOptions(engine=engine, threads=threads, device=device, provider=provider)
    found = run_self_test(loaded, options)
    _print_self_test(found)
    if as_json:
        print_json(found.to_json())
    if found.verdict == "failed":
        raise SystemExit(GateFailed.exit_code)


def _candidates(paths: Sequence[Path]) -> list[Candidate]:
    """Load every bundle; a broken one gets its line and the others go on."""
    from edge_fer.bench.measure import Candidate

    found = []
    for path in paths:
        try:
            found.append(Candidate.load(path))
        except EdgeFerError as error:
            complain(error)
    return found


def _print_bench(measured: Sequence[Measured], choice: Choice, where: Mapping[str, object]) -> None:
    from edge_fer.bench.report import COLUMNS, PROFILE_COLUMNS, batch_rows, machine, profile_rows, rows
    from edge_fer.tables import print_table

    print_table(f"Bench, batch {measured[0].batch}", COLUMNS, rows(measured, choice.place))
    batches = [f"batch {batch}" for batch in measured[0].throughput]
    print_table("Faces per second", ("bundle", *batches), batch_rows(measured))
    for one in measured:
        if one.profile is not None:
            print_table(f"Profile of {one.candidate.path.name}", PROFILE_COLUMNS, profile_rows(one.profile))
    notice(machine(measured, where))
    if len({one.engine.get("engine") for one in measured}) > 1 and measured[0].engine.get("threads") is None:
        notice("the engines choose differently many threads: give --threads to compare them alike")
    if max(one.percentile_ms(90) / one.percentile_ms(50) for one in measured) > BUSY:
        notice(
            f"this machine was busy: some p90 is above {BUSY} times the median; measure again when it is not"
        )
    if choice.place is None:
        notice(f"recommended: none, {choice.reason}")
    else:
        notice(f"recommended: {measured[choice.place].candidate.path}, {choice.reason}")


def _print_self_test(found: SelfTest) -> None:
    from edge_fer.selftest import COLUMNS
    from edge_fer.tables import print_table

    print_table(f"Self-test of {found.bundle}", COLUMNS, found.rows())
    notice(f"verdict: {found.verdict}")
