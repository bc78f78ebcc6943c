"""evaluation.json: its content, and that of another run on the same faces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.parity.environment import environment
from edge_fer.parity.figures import plain
from training.evaluate.faces import LabelledFaces
from training.evaluate.history import History
from training.evaluate.results import Result

FORMAT = "edge-fer-evaluation-1"
FILE = "evaluation.json"
PACKAGES = ("torch", "scikit-learn", "matplotlib")
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Beside:
    """Another evaluation on the same faces: where it is and its checkpoints, as JSON objects."""

    path: Path
    checkpoints: tuple[Json, ...]

    def counterpart(self, name: str) -> Json | None:
        """Return the checkpoint to set beside the one of this name: the same of a run, or the only one."""
        if len(self.checkpoints) == 1:
            return self.checkpoints[0]
        wanted = "best" if name == "checkpoint" else name
        return next((one for one in self.checkpoints if one["name"] == wanted), None)

    def title(self, name: str) -> str:
        """Return how a picture calls the counterpart."""
        found = self.counterpart(name)
        return "" if found is None else f"{self.path.name}: {found['name']}"


def read_beside(folder: Path, faces: LabelledFaces) -> Beside:
    """Read the evaluation in another folder.

    Raises:
        InputError: there is none, or it is of other faces.
    """
    content = read_evaluation(folder)
    data = content["data"]
    assert isinstance(data, dict)
    if data["digest"] != faces.digest:
        raise InputError(
            f"--beside {folder}: expected an evaluation of the same {len(faces.names)} faces with the same "
            f"labels, got one of {data['faces']} others; evaluate both on the same --data"
        )
    checkpoints = content["checkpoints"]
    assert isinstance(checkpoints, list)
    return Beside(folder, tuple(checkpoints))


def read_evaluation(folder: Path) -> Json:
    """Return the evaluation.json of a folder.

    Raises:
        InputError: there is none, or it is no evaluation of this format.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; name the folder of an evaluation"
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected an evaluation in JSON: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise InputError(f"{path}: expected an evaluation of format {FORMAT}, got {found!r}")
    return dict(content)


def describe(
    results: Sequence[Result], data: str, history: History | None, beside: Beside | None, device: str
) -> Json:
    """Return the content of evaluation.json, but for the list of files."""
    faces = results[0].faces
    spec = results[0].network.spec
    where = environment()
    versions = where["versions"]
    assert isinstance(versions, dict)
    content = {
        "format": FORMAT,
        "data": {
            "data": data,
            "faces": len(faces.names),
            "labels": faces.labels,
            "note": faces.note or None,
            "votes": faces.tensors.votes is not None,
            "digest": faces.digest,
        },
        "network": spec.to_json(),
        "environment": where
        | {"device": device, "versions": versions | {name: version(name) for name in PACKAGES}},
        "checkpoints": [_checkpoint(result) for result in results],
        "beside": None if beside is None else _beside(beside),
        "curves": None
        if history is None
        else {"train": history.train.to_json(), "validation": history.validation.to_json()},
    }
    return {key: plain(value) for key, value in content.items()}


def _checkpoint(result: Result) -> Json:
    checkpoint = result.source.checkpoint
    return {
        "name": result.name,
        "file": result.source.path.name,
        "sha256": checkpoint.sha256,
        "epoch": checkpoint.info.get("epoch"),
        **result.figures,
    }


def _beside(beside: Beside) -> Json:
    keys = ("name", "sha256", "per_class", "probabilities")
    return {
        "evaluation": beside.path.name,
        "checkpoints": [{key: one.get(key) for key in keys} for one in beside.checkpoints],
    }
