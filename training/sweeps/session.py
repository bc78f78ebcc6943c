"""What the `sweep` command does: trains the runs of a grid one after the other, and writes the table."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from edge_fer.cli_errors import complain, one_line
from edge_fer.errors import EdgeFerError, TrainingError
from edge_fer.output import check_place, write_text
from edge_fer.tables import console
from training.data.labelled import split_data
from training.devices import choose_device
from training.run import RunFolder, held
from training.session import TrainOptions, train_run
from training.sweeps.grid import Grid, load_grid
from training.sweeps.outcome import Outcome, collect
from training.sweeps.plan import Cell, Choice, chosen, plan_cells
from training.sweeps.table import Page, Trained, render
from training.sweeps.toml_text import toml_text


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What `sweep` is asked for; `data` are the DATA of the grid's data sets, by their names there."""

    grid: str
    output: Path
    data: Mapping[str, str]
    choice: Choice
    device: str = "auto"


def sweep_run(options: SweepOptions) -> None:
    """Train what the grid lacks, write the table after every run, print its path as the last line.

    Raises:
        RecipeError: the grid, or a recipe of it.
        TrainingError: what was asked for does not fit the grid or what --output holds; runs failed.
    """
    grid = load_grid(options.grid)
    sweep = Sweep(grid, options)
    with held(options.output):
        failed = sweep.run()
    if failed:
        raise TrainingError(f"{failed} of {len(sweep.runs)} runs failed, see {sweep.table}")
    typer.echo(sweep.table)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run of a cell."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        """How its files are called."""
        return self.cell.run_name(self.seed)


class Sweep:
    """A grid being trained into a folder: recipes/, runs/ and outcomes/ hold a file or folder per run."""

    def __init__(self, grid: Grid, options: SweepOptions) -> None:
        self.grid, self.options, self.folder = grid, options, options.output
        self.table = self.folder / "TABLE.md"
        choose_device(options.device)
        names = dict.fromkeys(condition.data for condition in grid.conditions)
        for name, data in options.data.items():
            if name not in names:
                raise TrainingError(f"--data {one_line(name)}=…: {grid.name} knows {', '.join(names)}")
            split_data(data)
        check_place(self.table)
        self.before = self.read_settings()
        self.data = {**self.before.get("data", {}), **options.data}
        self.cells = plan_cells(grid, options.choice)
        self.runs = [
            Run(cell, seed)
            for cell in chosen(grid, self.cells, options.choice)
            if cell.condition.data in self.data
            for seed in range(options.choice.seeds)
        ]
        self.texts = {run.name: toml_text(run.cell.recipe(run.seed)[0]) for run in self.runs}
        self.check_folder()

    def run(self) -> int:
        """Train every run that is not finished; return how many failed."""
        write_text(self.folder / "sweep.json", json.dumps(self.settings(), indent=1) + "\n")
        self.write_table()
        failed = 0
        for number, run in enumerate(self.runs, start=1):
            done = Outcome.read(self.outcome_path(run.name))
            if done is None or done.failed:
                console().print(f"[{number}/{len(self.runs)}] {run.name}")
                outcome = self.train(run)
                outcome.write(self.outcome_path(run.name))
                self.write_table()
                failed += bool(outcome.failed)
        return failed

    def train(self, run: Run) -> Outcome:
        """Train or resume one run; whatever a user could have caused ends this run alone."""
        recipe = self.recipe_path(run.name)
        folder = RunFolder(self.folder / "runs" / run.name)
        data = self.data[run.cell.condition.data]
        write_text(recipe, self.texts[run.name])
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the path of a checkpoint, for `train` alone
                train_run(
                    TrainOptions(
                        recipe_path=recipe,
                        data=data,
                        output=folder.path,
                        device=self.options.device,
                        resume=folder.recipe.is_file(),
                    )
                )
            recalls = any(figure.figure.startswith("recall.") for figure in self.grid.figures)
            return collect(folder, data, recalls=recalls)
        except EdgeFerError as error:
            complain(f"{run.name}: {error}")
            return Outcome(failed=one_line(error))

    def read_settings(self) -> dict[str, Any]:
        """Return what the folder's sweep was begun with, nothing for a new one.

        Raises:
            TrainingError: the folder holds something else.
        """
        path = self.folder / "sweep.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise TrainingError(f"{self.folder}: expected a new folder or that of a sweep") from None
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(f"{path}: expected that of a sweep, could not read it ({error})") from error
        if not isinstance(settings, dict) or not isinstance(settings.get("data"), dict):
            raise TrainingError(f"{path}: expected that of a sweep, got something else")
        return settings

    def check_folder(self) -> None:
        """Refuse a folder that holds other runs under the same names: their figures would be mixed.

        Raises:
            TrainingError: another grid, data set, budget or recipe.
        """
        if not self.before:
            return
        now = self.settings()
        others = [key for key in ("grid", "epochs", "minutes") if self.before.get(key) != now[key]]
        others += [f"data {name}" for name, data in self.before["data"].items() if self.data[name] != data]
        others += [run.name for run in self.runs if self.differs(run)]
        if others:
            raise TrainingError(
                f"{self.folder}: was begun with another {one_line(others[0])}; use another --output"
            )

    def differs(self, run: Run) -> bool:
        """Return whether a run of this name was begun with another recipe."""
        path = self.recipe_path(run.name)
        begun = (self.folder / "runs" / run.name).exists()
        return begun and path.is_file() and path.read_bytes() != self.texts[run.name].encode()

    def settings(self) -> dict[str, object]:
        """Return what all runs of the folder have in common."""
        choice = self.options.choice
        return {
            "grid": self.grid.name,
            "epochs": choice.epochs,
            "minutes": choice.minutes,
            "data": self.data,
        }

    def write_table(self) -> None:
        """Write what is known so far, of this and of earlier calls."""
        absent = dict.fromkeys(c.data for c in self.grid.conditions if c.data not in self.data)
        write_text(self.table, render(Page(grid=self.grid, trained=self.trained(), absent=tuple(absent))))

    def trained(self) -> Sequence[Trained]:
        """Return the outcomes of every cell of the grid."""
        return [
            Trained(row=cell.row, condition=cell.condition, name=cell.name, outcomes=self.outcomes(cell))
            for cell in self.cells
        ]

    def outcomes(self, cell: Cell) -> tuple[Outcome, ...]:
        """Return the outcomes of a cell's runs, whatever their seeds."""
        paths = sorted((self.folder / "outcomes").glob(f"{cell.name}.seed-*.json"))
        read = [Outcome.read(path) for path in paths]
        return tuple(outcome for outcome in read if outcome is not None)

    def recipe_path(self, name: str) -> Path:
        """Return where the recipe of a run lies: `train --recipe` takes it, too."""
        return self.folder / "recipes" / f"{name}.toml"

    def outcome_path(self, name: str) -> Path:
        """Return where the figures of a run lie."""
        return self.folder / "outcomes" / f"{name}.json"
