"""The example job: its own commands, run on a bundle that fails and on one that cannot tell."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from edge_fer.bundle import ModelSpec, Reference, write_bundle
from edge_fer.images import write_image
from edge_fer.labels import LABELS

JOB = Path(__file__).parents[1] / "examples" / "parity.yml"


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(JOB.read_text())["jobs"]["parity"]
    return parsed


def run(job: dict[str, Any], folder: Path, step: str) -> int:
    """Run one step of the job as its runner would, in a folder that is the checkout."""
    script = next(one["run"] for one in job["steps"] if one.get("name") == step)
    environment = {
        **os.environ,
        **job["env"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=False).returncode


@pytest.mark.parametrize(("rolled", "verdict"), [(1, "failed"), (0, "undecided")])
def test_the_job_blocks_a_merge_and_shows_the_report(
    job: dict[str, Any],
    tmp_path: Path,
    tiny_spec: ModelSpec,
    tiny_members: dict[str, bytes],
    tiny_reference: Reference,
    tiny_faces: NDArray[np.uint8],
    rolled: int,
    verdict: str,
) -> None:
    moved = np.roll(tiny_reference.probabilities, rolled, axis=1)
    reference = dataclasses.replace(tiny_reference, probabilities=moved)
    members = {**tiny_members, "reference.npz": reference.to_bytes()}
    write_bundle(tmp_path / job["env"]["BUNDLE"], tiny_spec, members)
    table = tmp_path / job["env"]["FACES"]
    table.parent.mkdir(parents=True)
    rows = ["file,label"]
    for number, (crop, label) in enumerate(zip(tiny_faces, tiny_reference.labels.tolist(), strict=True)):
        write_image(table.parent / f"{number}.png", crop)
        rows.append(f"{number}.png,{LABELS[label] if label >= 0 else ''}")
    table.write_text("\n".join(rows) + "\n")
    assert run(job, tmp_path, "Compare with the float checkpoint") == 3
    assert run(job, tmp_path, "Show the report, passed or not") == 0
    assert verdict in (tmp_path / "summary.md").read_text().lower()
    uploaded = job["steps"][-1]["with"]["path"].split()
    assert all((tmp_path / path).is_file() for path in uploaded)
