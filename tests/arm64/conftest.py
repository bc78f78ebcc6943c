"""The emulated processors as fixtures. All that they are asked for runs side by side, a process per core."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.arm64.emulation import CPUS, Cpu, missing, named_folder, run

ROOT = Path(__file__).resolve().parents[2]

Done = subprocess.CompletedProcess[str]


class Jobs:
    """Runs of emulated interpreters, which are long: all are started before the first is waited for."""

    def __init__(self, folder: Path, place: Path, pool: ThreadPoolExecutor) -> None:
        """Start nothing yet.

        Args:
            folder: that `setup` filled.
            place: empty folder, where the interpreters run.
            pool: that runs them.
        """
        self.folder, self.place, self._pool = folder, place, pool
        self._futures: dict[tuple[str, str], Future[Done]] = {}

    def start(self, name: str, cpu: Cpu, *arguments: object) -> None:
        """Have Python run on a processor, under a name."""
        job = self._pool.submit(run, self.folder, cpu, *arguments, cwd=self.place)
        self._futures[name, cpu.name] = job

    def result(self, name: str, cpu: Cpu) -> Done:
        """Wait for a run."""
        return self._futures[name, cpu.name].result()


@pytest.fixture(scope="session")
def folder() -> Path:
    found = named_folder()
    reason = missing(found)
    if found is None or reason:
        pytest.skip(reason or "")
    return found


@pytest.fixture(scope="session")
def jobs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Start the commands of the device and the engine tests on every processor."""
    place = tmp_path_factory.mktemp("emulated")
    shutil.copy(ROOT / "examples" / "astronaut.jpg", place)
    copy_engine_tests(place)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = Jobs(folder, place, pool)
        for cpu in CPUS:
            jobs.start("features", cpu, "-c", FEATURES)
            jobs.start("self-test", cpu, "-m", "edge_fer", "self-test", "--json", *ONE_THREAD)
            jobs.start("infer", cpu, "-m", "edge_fer", "infer", "astronaut.jpg", "--json", *ONE_THREAD)
        for cpu in CPUS:
            jobs.start("engines", cpu, *ENGINE_TESTS)
        yield jobs
        pool.shutdown(cancel_futures=True)


# Others wait in loops, which an emulator is slow at.
ONE_THREAD = ("--threads", "1")
# What numpy finds by asking the processor itself, not the system.
FEATURES = (
    "import json; from numpy._core._multiarray_umath import __cpu_features__ as f; "
    "print(json.dumps([name for name, there in f.items() if there]))"
)
# Of tests that compare a committed graph with its script: those need the workstation's converters.
ENGINE_TESTS = ("-m", "pytest", "-p", "no:cacheprovider", "tests/edge_fer", "-k", "not script_makes")


def copy_engine_tests(place: Path) -> None:
    """Copy the tests of the engines and what they read, without `edge_fer`: the wheel is what is tested."""
    (place / "tests" / "edge_fer").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", place)
    shutil.copy(ROOT / "tests" / "conftest.py", place / "tests")
    shutil.copytree(ROOT / "tests" / "models", place / "tests" / "models")
    for file in (ROOT / "tests" / "edge_fer").glob("test_engine*.py"):
        shutil.copy(file, place / "tests" / "edge_fer")
