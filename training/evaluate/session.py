"""What the `evaluate` command does: answers, figures and pictures of checkpoints, then the files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from edge_fer.cli_errors import notice
from edge_fer.errors import InputError, UsageError
from edge_fer.output import check_place
from edge_fer.parity.documents import text_of
from edge_fer.parity.figures import plain
from edge_fer.tables import print_table, progress
from training.devices import choose_device
from training.evaluate.answers import answer
from training.evaluate.dmue import dmue_figures, load_dmue
from training.evaluate.document import FILE, Beside, describe, read_beside, read_evaluation
from training.evaluate.faces import LabelledFaces, read_faces
from training.evaluate.figures import (
    Values,
    anchor_figures,
    balancing_figures,
    class_rows,
    cluster_figures,
    scores,
    vote_figures,
)
from training.evaluate.history import read_history
from training.evaluate.pictures import draw
from training.evaluate.projection import project
from training.evaluate.results import Result, Source, open_sources
from training.evaluate.table import faces_csv, summary_rows
from training.models.balancing import ReliabilityBalancing
from training.models.checkpoint import replace_file
from training.run import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What `evaluate` is asked for."""

    source: Path
    data: str
    output: Path
    beside: Path | None = None
    device: str = "auto"
    batch: int = 256


def evaluate_run(options: EvaluateOptions) -> None:
    """Evaluate, write the files and print the path of their folder as the last line.

    Raises:
        InputError: the run, the data, the other evaluation or the place cannot be used.
        CheckpointError: a checkpoint is damaged.
        TrainingError: the device cannot be used, or a network answers with no numbers.
    """
    if options.batch < 1:
        raise UsageError(f"--batch {options.batch}: expected at least one face at once")
    check_output(options.output)
    device = choose_device(options.device)
    sources = open_sources(options.source)
    first = sources[0].checkpoint
    faces = read_faces(options.data, first.crop, first.network.spec.labels)
    notice(f"{len(faces.names)} faces" + (f"; {faces.note}" if faces.note else ""))
    beside = None if options.beside is None else read_beside(options.beside, faces)
    history = read_history(RunFolder(options.source).metrics) if options.source.is_dir() else None
    results = tuple(judge(source, faces, device, options.batch) for source in sources)
    dmue = judge_dmue(options.source, sources[-1], faces, device)
    content = {**describe(results, options.data, history, beside, device), "dmue": plain(dmue)}
    files = {"faces.csv": faces_csv(results).encode(errors="surrogateescape")} | draw(
        results, history, beside, dmue
    )
    write(options.output, files, content)
    print_summary(content, beside)
    typer.echo(os.fsencode(options.output))


def judge(source: Source, faces: LabelledFaces, device: str, batch: int) -> Result:
    """Let one checkpoint answer, and compute its figures."""
    network = source.checkpoint.network
    crops, labels, votes = faces.tensors.crops, faces.numbers, faces.tensors.votes
    with progress(f"{source.name} answers", len(crops)) as show:
        answers = answer(network, crops, torch.device(device), batch, show)
    notice(f"{source.name}: laying out {len(crops)} embeddings")
    projection = project(answers.embedding)
    head = network.head
    figures: Values = {
        "probabilities": scores(answers.probabilities, answers.reliability, labels),
        "primary": scores(answers.primary, answers.primary_reliability, labels),
        "per_class": class_rows(answers.probabilities, labels, faces.labels),
        "primary_per_class": class_rows(answers.primary, labels, faces.labels),
        "balancing": None,
        "anchors": None,
        "votes": None if votes is None else vote_figures(answers.probabilities, votes.numpy()),
        "clusters": {"embeddings": cluster_figures(answers.embedding, labels), "tsne": None},
    }
    if (answers.correction_weight > 0).any():
        figures["balancing"] = balancing_figures(answers, labels)
    anchoring = head.anchor_correction if isinstance(head, ReliabilityBalancing) else None
    if anchoring is not None and answers.nearest is not None:
        anchors = anchoring.anchors.detach().cpu().numpy()
        figures["anchors"] = anchor_figures(answers.nearest, anchors, answers.embedding, faces.labels)
    if projection is not None:
        plane = cluster_figures(projection.places, labels[projection.rows])
        figures["clusters"] = {
            "embeddings": cluster_figures(answers.embedding, labels),
            "tsne": {"perplexity": projection.perplexity, **plane},
        }
    return Result(source, faces, answers, figures, projection)


def judge_dmue(run: Path, last: Source, faces: LabelledFaces, device: str) -> Values | None:
    """Return what DMUE mined and ranked, for a run of this method."""
    if not run.is_dir():
        return None
    loaded = load_dmue(run, last.checkpoint.network.spec)
    if loaded is None:
        return None
    absent = [name for number, name in enumerate(faces.labels) if number not in faces.numbers]
    if absent:
        notice(f"what DMUE mined is left out: it needs faces of every class, there are none of {absent[0]}")
        return None
    return dmue_figures(*loaded, faces, device)


def check_output(output: Path) -> None:
    """Refuse a folder that holds anything but an evaluation, or that cannot be written to.

    Raises:
        InputError: a file, a folder with something else in it, or a read-only place.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: expected a folder, got a file; name another place")
    if (output / FILE).is_file():
        read_evaluation(output)
    elif output.is_dir() and any(output.iterdir()):
        raise InputError(
            f"--output {output}: expected a new or empty folder or one of an earlier evaluation, got other "
            "files; name another place"
        )
    check_place(output / FILE)


def write(output: Path, files: Mapping[str, bytes], content: Mapping[str, object]) -> None:
    """Write every file whole or not at all, evaluation.json last; an earlier evaluation's files go away.

    Raises:
        InputError: the place cannot be written to.
    """
    stale = set(_files_of(output)) - files.keys()
    named = {**content, "files": sorted(files)}
    try:
        for name, file in files.items():
            replace_file(output / name, file)
        for name in stale:
            (output / name).unlink(missing_ok=True)
        replace_file(output / FILE, text_of(named).encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; name another place") from error


def _files_of(output: Path) -> Iterable[str]:
    """Return what an earlier evaluation wrote here; names that lead out of the folder are not believed."""
    if not (output / FILE).is_file():
        return ()
    found = read_evaluation(output).get("files")
    return [str(name) for name in found if Path(str(name)).name == name] if isinstance(found, list) else ()


def print_summary(content: Mapping[str, object], beside: Beside | None) -> None:
    """Print the table of the most asked-for figures."""
    checkpoints = content["checkpoints"]
    assert isinstance(checkpoints, list)
    shown = [*checkpoints, *(beside.checkpoints if beside else ())]
    titles = [
        f"{one['name']}" + ("" if one["epoch"] is None else f", epoch {one['epoch']}") for one in checkpoints
    ]
    titles += [f"{beside.path.name}: {one['name']}" for one in beside.checkpoints] if beside else []
    print_table("Evaluation", ("figure", *titles), summary_rows(shown))
