"""The command doctor: what this machine can run. Knows options, tables and messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import complain, guarded, notice
from edge_fer.command_options import DebugOption, JsonOption

if TYPE_CHECKING:
    from edge_fer.board import Board, Camera, Clock
    from edge_fer.doctor import BundleFinding, Diagnosis, EngineFinding

app = typer.Typer()

_OWN_THREADS = {"onnxruntime": "one per core", "openvino": "one per core", "tflite": "1"}


@app.command()
@guarded
def doctor(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            readable=False,
            help="Bundles, folders or zips; the embedded one when left out.",
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what this machine can run, why not, and what to install; exit 1 when a bundle does not run."""
    from edge_fer.board import read_board
    from edge_fer.doctor import diagnose
    from edge_fer.output import print_json

    found = diagnose(bundles or [], read_board())
    if not found.able:
        complain(without_home(found.verdict))
    if as_json:
        record = {"able": found.able, "verdict": found.verdict, **dataclasses.asdict(found)}
        print_json({key: without_home(value) for key, value in record.items()})
    else:
        if found.able:
            notice(without_home(found.verdict))
        _print(found)
    if not found.able:
        raise SystemExit(1)


def without_home(value: object) -> object:
    """Return texts, lists and objects of JSON with `~` for the user's home folder, which names the user."""
    if isinstance(value, dict):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_home(item) for item in value]
    return value.replace(_home(), "~") if isinstance(value, str) else value


def _home() -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # a user that no list knows, as in a container
        home = "/"
    return home if home != "/" else "~"


def _print(found: Diagnosis) -> None:
    from edge_fer.tables import print_table

    def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        print_table(title, columns, [[str(without_home(cell)) for cell in row] for row in rows])

    show("Bundles", ("bundle", "engine", "runs here", "certified here"), map(_bundle_row, found.bundles))
    show("Engines", ("engine", "version", "offers", "threads unless told"), map(_engine_row, found.engines))
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    show("Machine", ("what", "found"), [*_machine_rows(found.board), ("versions", versions)])
    show("Pictures and video", ("what", "found"), _picture_rows(found))
    if found.advice:
        rows = [(one.what, one.command, "yes" if one.needed else "no") for one in found.advice]
        show("To install or to do", ("what", "how", "needed"), rows)


def _bundle_row(bundle: BundleFinding) -> tuple[str, ...]:
    name = (bundle.path or "embedded") + (f" ({bundle.name})" if bundle.name else "")
    runs = f"yes, {bundle.face_ms:.3g} ms per face" if bundle.face_ms is not None else f"no: {bundle.fault}"
    certified = "yes" if bundle.certified else "no"
    if bundle.certificate:
        certified += f": {bundle.certificate.partition(': ')[2]}"  # without the name, which stands in front
    return name, bundle.engine or "", runs, certified


def _engine_row(engine: EngineFinding) -> tuple[str, ...]:
    if engine.fault:
        return engine.engine, "", f"no: {engine.fault}", ""
    kind = "devices" if engine.engine == "openvino" else "providers"
    return (
        engine.engine,
        f"{engine.package} {engine.version}",
        f"{kind} {', '.join(engine.places) or 'none'}",
        _OWN_THREADS[engine.engine],
    )


def _machine_rows(board: Board) -> list[tuple[str, str]]:
    has = [name for name, there in board.int8_features.items() if there]
    lacks = [name for name, there in board.int8_features.items() if not there]
    rows = [
        ("board", board.model),
        ("system", " ".join(filter(None, (board.system, board.l4t and f"(L4T {board.l4t})")))),
        ("processor", board.cpu),
        ("class", board.cpu_class),
        (
            "for int8",
            f"has {', '.join(has) or 'nothing'}; lacks {', '.join(lacks) or 'nothing'}" if has else "",
        ),
        ("cores", _cores(board)),
        ("memory", _memory(board)),
        ("temperature", ", ".join(f"{one.zone} {one.celsius:.1f} °C" for one in board.temperatures)),
        ("slowed down", None if board.throttling is None else ", ".join(board.throttling) or "no"),
        ("clock", "; ".join(map(_clock, board.clocks))),
    ]
    told = [(what, said) for what, said in rows if said]
    untold = [what for what, said in rows if not said]
    return [*told, ("not told", ", ".join(untold))] if untold else told


def _cores(board: Board) -> str | None:
    if board.cores is None:
        return None
    said = [str(board.cores)]
    if board.usable_cores and board.usable_cores != board.cores:
        said.append(f"this process may use {board.usable_cores}")
    if board.cgroup_cpus is not None:
        said.append(f"its control group may use {board.cgroup_cpus:g}")
    return "; ".join(said)


def _memory(board: Board) -> str | None:
    if board.memory_bytes is None:
        return None
    said = [_gigabytes(board.memory_bytes)]
    if board.available_bytes is not None:
        said.append(f"{_gigabytes(board.available_bytes)} available")
    if board.cgroup_memory_bytes is not None:
        said.append(f"its control group may use {_gigabytes(board.cgroup_memory_bytes)}")
    return "; ".join(said)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _clock(clock: Clock) -> str:
    now = "?" if clock.current_mhz is None else f"{clock.current_mhz:,.0f}"
    most = "?" if clock.max_mhz is None else f"{clock.max_mhz:,.0f}"
    return f"cores {clock.cores}: {now} of {most} MHz, governor {clock.governor or '?'}"


def _picture_rows(found: Diagnosis) -> list[tuple[str, str]]:
    pictures = found.pictures
    fault = f"no: {pictures.fault}"
    return [
        ("OpenCV", pictures.opencv or fault),
        ("reads video with", ", ".join(pictures.video) or "nothing"),
        ("gst: pipelines", "yes" if "GSTREAMER" in pictures.video else "no: this OpenCV has no GStreamer"),
        ("detector", pictures.detector or fault),
        ("cameras", _cameras(found.board.cameras)),
        ("Picamera2", "yes" if pictures.picamera2 else "no"),
    ]


def _cameras(cameras: Sequence[Camera]) -> str:
    said = [
        f"{camera.path} ({camera.name or 'unnamed'}"
        + (")" if camera.readable else ", which this user may not open)")
        for camera in cameras
    ]
    return "; ".join(said) or "none"
