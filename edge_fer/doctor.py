"""What this machine can run, and why not: bundles on their engines, OpenCV and the detector, and the advice.

Knows what to try and what the findings mean; `board` reads the machine, `probe` tries what may crash. Prints
nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_fer.board import Board
from edge_fer.bundle import Bundle, default_bundle
from edge_fer.engines import NAMES
from edge_fer.errors import EdgeFerError
from edge_fer.parity.certificate import is_certified, summary
from edge_fer.parity.environment import environment
from edge_fer.probe import Json, tried

OPENCV = "pip install 'opencv-python-headless>=4.10,<5'"
_PICAMERA = "usr/lib/python3/dist-packages/picamera2"


@dataclass(frozen=True, slots=True)
class EngineFinding:
    """An engine: its package, version and places when it imports, else the fault and what would mend it."""

    engine: str
    package: str | None
    version: str | None
    places: tuple[str, ...]
    fault: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class BundleFinding:
    """A bundle.

    Attributes:
        path: where it is; None for the embedded one.
        name: model, target and precision; None for a bundle that cannot be read.
        engine: that it needs; None for a bundle that cannot be read.
        face_ms: median milliseconds of one face; None when it does not run here.
        fault: why it does not run here.
        certified: a certificate of this class of processors says passed.
        certificate: what the certificate says, in one line.
    """

    path: str | None
    name: str | None
    engine: str | None
    face_ms: float | None
    fault: str | None
    certified: bool
    certificate: str | None

    @property
    def called(self) -> str:
        """How people call it."""
        return self.path or "the embedded bundle"


@dataclass(frozen=True, slots=True)
class Pictures:
    """OpenCV's version and what it reads video with, the default detector, Picamera2; or the faults."""

    opencv: str | None
    video: tuple[str, ...]
    detector: str | None
    fault: str | None
    picamera2: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """What to install or to do, the command where there is one, and whether it cannot be done without."""

    what: str
    command: str
    needed: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings; `versions` are those of Python, numpy and edge-fer."""

    versions: dict[str, str]
    board: Board
    engines: tuple[EngineFinding, ...]
    bundles: tuple[BundleFinding, ...]
    pictures: Pictures
    advice: tuple[Advice, ...]

    @property
    def able(self) -> bool:
        """True when every bundle runs here and there is a detector."""
        return not self.pictures.fault and not any(bundle.fault for bundle in self.bundles)

    @property
    def verdict(self) -> str:
        """What this machine can run and what it cannot, in one line."""
        said = [f"{bundle.called} does not run: {bundle.fault}" for bundle in self.bundles if bundle.fault]
        if self.pictures.fault:
            said.append(f"no face can be detected: {self.pictures.fault}")
        said += [_can_run(bundle, self.board.cpu_class) for bundle in self.bundles if not bundle.fault]
        return "; ".join(said)


def diagnose(paths: Sequence[Path], board: Board, root: Path = Path("/")) -> Diagnosis:
    """Try every engine, the bundles on theirs, OpenCV and the detector.

    Args:
        paths: bundles; none: the embedded one.
        board: the machine.
        root: the folder that stands for `/`.
    """
    loaded = _load(paths or [default_bundle()])
    tries = {
        name: tried("engine", name, *(path for path, bundle in loaded.items() if _runs_on(bundle, name)))
        for name in NAMES
    }
    engines = tuple(_engine(name, *tries[name]) for name in NAMES)
    bundles = _bundles(loaded, engines, tries, board.cpu_class)
    if not paths:
        bundles = tuple(dataclasses.replace(bundle, path=None) for bundle in bundles)
    pictures = _pictures(*tried("pictures"))
    advice = tuple(_advice(board, engines, bundles, pictures, root))
    return Diagnosis(_versions(), board, engines, bundles, pictures, advice)


def _versions() -> dict[str, str]:
    found = environment()["versions"]
    return (
        {key.replace("_", "-"): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
    )


def _load(paths: Sequence[Path]) -> dict[str, Bundle | str]:
    """Return each bundle by its path, or in its place why it cannot be read."""
    found: dict[str, Bundle | str] = {}
    for path in paths:
        try:
            found[str(path)] = Bundle.load(path)
        except EdgeFerError as error:
            found[str(path)] = str(error)
    return found


def _runs_on(bundle: Bundle | str, engine: str) -> bool:
    return isinstance(bundle, Bundle) and bundle.spec.engine == engine


def _engine(name: str, records: Sequence[Json], ending: str | None) -> EngineFinding:
    first: Mapping[str, object] = records[0] if records else {"fault": f"the engine {name}: {ending}"}
    if "fault" in first:
        remedy = first.get("remedy")
        return EngineFinding(
            name, None, None, (), str(first["fault"]), None if remedy is None else str(remedy)
        )
    places = first["places"]
    return EngineFinding(
        name,
        str(first["package"]),
        str(first["version"]),
        tuple(map(str, places)) if isinstance(places, list) else (),
        None,
        None,
    )


def _bundles(
    loaded: Mapping[str, Bundle | str],
    engines: Sequence[EngineFinding],
    tries: Mapping[str, tuple[list[Json], str | None]],
    cpu_class: str,
) -> tuple[BundleFinding, ...]:
    faults = {engine.engine: engine.fault for engine in engines}
    answers = {name: iter(records[1:]) for name, (records, _) in tries.items()}
    found = []
    for path, bundle in loaded.items():
        if isinstance(bundle, str):
            found.append(BundleFinding(path, None, None, None, bundle, False, None))
            continue
        spec = bundle.spec
        ending = f"it ran on {spec.engine} until {tries[spec.engine][1]}"
        answer: Mapping[str, object] = next(answers[spec.engine], {"fault": faults[spec.engine] or ending})
        found.append(_bundle(bundle, path, answer, cpu_class))
    return tuple(found)


def _bundle(bundle: Bundle, path: str, answer: Mapping[str, object], cpu_class: str) -> BundleFinding:
    spec = bundle.spec
    fault = str(answer["fault"]) if "fault" in answer else None
    if spec.untrained and fault is None:
        fault = "its weights are untrained, so that `infer` refuses it without --allow-untrained"
    return BundleFinding(
        path=path,
        name=f"{spec.model} {spec.target} {spec.precision}",
        engine=spec.engine,
        face_ms=None if fault else float(str(answer["face_ms"])),
        fault=fault,
        certified=is_certified(bundle, cpu_class),
        certificate=summary(bundle, cpu_class),
    )


def _can_run(bundle: BundleFinding, cpu_class: str) -> str:
    said = f"{bundle.called} ({bundle.name}) runs on {bundle.engine}"
    if bundle.certified:
        return f"{said}, certified on {cpu_class}"
    command = " ".join(filter(None, ("edge-fer self-test", bundle.path)))
    return f"{said}, not certified on {cpu_class}: run `{command}` before you rely on it"


def _pictures(records: Sequence[Json], ending: str | None) -> Pictures:
    fields: Json = {key: value for record in records for key, value in record.items()}
    fault = fields.get("fault") or (f"OpenCV: {ending}" if ending else None)
    opencv, video, detector = fields.get("opencv"), fields.get("video"), fields.get("detector")
    return Pictures(
        opencv=None if opencv is None else str(opencv),
        video=tuple(map(str, video)) if isinstance(video, list) else (),
        detector=None if detector is None else str(detector),
        fault=None if fault is None else str(fault),
        picamera2=importlib.util.find_spec("picamera2") is not None,
    )


def _advice(
    board: Board,
    engines: Sequence[EngineFinding],
    bundles: Sequence[BundleFinding],
    pictures: Pictures,
    root: Path,
) -> list[Advice]:
    needed = {bundle.engine for bundle in bundles}
    found = [
        Advice(f"the engine {engine.engine}", engine.remedy, engine.engine in needed)
        for engine in engines
        if engine.remedy
    ]
    if pictures.opencv is None:
        found.append(Advice("OpenCV, for the detector", OPENCV, True))
    elif pictures.detector is None:  # the distribution's OpenCV comes without the cascade's file
        found.append(Advice("a face detector", "edge-fer detector install", True))
    elif pictures.detector.startswith("cascade"):
        found.append(Advice("YuNet, which finds turned faces, too", "edge-fer detector install", False))
    found += [*_camera_advice(board, pictures, root), *_speed_advice(board, engines)]
    return sorted(found, key=lambda advice: not advice.needed)


def _camera_advice(board: Board, pictures: Pictures, root: Path) -> list[Advice]:
    found = []
    if any(not camera.readable for camera in board.cameras):
        found.append(
            Advice("the right to open cameras, after the next login", "sudo usermod -aG video $USER", False)
        )
    if "Raspberry Pi" in (board.model or "") and not pictures.picamera2:
        if (root / _PICAMERA).is_dir():
            command = "python3 -m venv --system-site-packages VENV, and install edge-fer into that"
            found.append(Advice("Picamera2: it is there, outside this environment", command, False))
        else:
            found.append(Advice("Picamera2, for camera modules", "sudo apt install python3-picamera2", False))
    return found


def _speed_advice(board: Board, engines: Sequence[EngineFinding]) -> list[Advice]:
    found = []
    if board.threads and board.cores and board.threads < board.cores:
        text = f"as many threads as may run here: engines start one for each of {board.cores} cores"
        found.append(Advice(text, f"--threads {board.threads} in every command", False))
    onnxruntime = next(engine for engine in engines if engine.engine == "onnxruntime")
    if board.nvidia and onnxruntime.version and "cuda" not in onnxruntime.places:
        # PyPI's wheels with the GPU's providers are for x86-64; a Jetson's come from elsewhere.
        command = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        command = "docs/jetson.md of the project says how" if board.l4t else command
        found.append(Advice("ONNX Runtime with the GPU's providers", command, False))
    return found
