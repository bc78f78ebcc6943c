"""Check what a board installs: wheels for aarch64 on every CPython, and a TFLite bundle without ONNX Runtime.

Usage: check_install.py WHEEL FOLDER TESTS_PYTHON PYTHON...
The first PYTHON gets the environment without ONNX Runtime, in FOLDER; TESTS_PYTHON has pytest and runs
tests/edge_fer/test_without_onnxruntime.py with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path

# What Debian 12 (Raspberry Pi OS) and Ubuntu 22.04 (JetPack 6) have is newer: glibc 2.36 and 2.35.
GLIBC = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 24, 26, 27, 28, 31, 34, 35)))
TFLITE_ONLY = ("numpy", "pillow", "typer", "rich", "opencv-python-headless>=4.10,<5", "ai-edge-litert")
CONSTRAINTS = ("-c", "constraints.txt")
TESTS = "tests/edge_fer/test_without_onnxruntime.py"


def resolve_for_aarch64(python: str, wheel: Path, folder: Path) -> str:
    """Have pip choose wheels only for a 64-bit ARM board, and install nothing; return what it chose."""
    report = folder / f"{python.strip('/').replace('/', '-')}.json"
    platforms = [argument for tag in GLIBC for argument in ("--platform", f"{tag}_aarch64")]
    command = [python, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += [
        "--target",
        str(folder / "nowhere"),
        *platforms,
        *CONSTRAINTS,
        "--report",
        str(report),
        str(wheel),
    ]
    subprocess.run(command, check=True)
    chosen = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    named = sorted(f"{item['name']} {item['version']}" for item in chosen)
    return f"{python}: {len(named)} wheels for aarch64: {', '.join(named)}"


def install_without_onnxruntime(python: str, wheel: Path, folder: Path) -> str:
    """Make an environment with TensorFlow Lite as its only engine; return its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder / "tflite")], check=True)
    inside = str(folder / "tflite/bin/python")
    install = [inside, "-m", "pip", "install", "-q", *CONSTRAINTS]
    subprocess.run([*install, "--only-binary=:all:", *TFLITE_ONLY], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    return inside


def print_sizes(packages: Path) -> None:
    """Print what each package takes on disk, without compiled bytecode."""
    sizes = {}
    for found in distributions(path=[str(packages)]):
        files = (Path(str(found.locate_file(file))) for file in found.files or () if file.suffix != ".pyc")
        size = sum(file.stat().st_size for file in files if file.is_file())
        sizes[f"{found.metadata['Name']} {found.version}"] = size / 1e6
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    print(
        f"installed: {sum(sizes.values()):.0f} MB; "
        + ", ".join(f"{name} {size:.0f}" for name, size in largest)
    )


def main() -> None:
    """Run all checks; a failed one ends the script."""
    wheel, folder, tests_python, *pythons = sys.argv[1:]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        resolved = [pool.submit(resolve_for_aarch64, each, Path(wheel), Path(folder)) for each in pythons]
        inside = install_without_onnxruntime(pythons[0], Path(wheel), Path(folder))
    print(*(future.result() for future in resolved), sep="\n")
    if (
        subprocess.run(
            [inside, "-c", "import onnxruntime"], stderr=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    ):
        sys.exit("the environment that should have no ONNX Runtime has it")
    print_sizes(next((Path(folder) / "tflite/lib").glob("python3*/site-packages")))
    environment = {**os.environ, "EDGE_FER_WITHOUT_ONNXRUNTIME": inside}
    subprocess.run([tests_python, "-m", "pytest", "-q", TESTS], env=environment, check=True)


if __name__ == "__main__":
    main()
