"""Run `infer` over a long video with two faces and watch it: memory, open files, and every line it wrote.

    python -m tests.benchmarks.soak --frames 20000
    python -m tests.benchmarks.soak --stops 50      # SIGTERM at random moments instead

Prints a Markdown table for docs/benchmarks.md; exit 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2

from tests.clips import moving_faces, write_clip

CODE = "import sys; sys.argv[0] = 'edge-fer'; from edge_fer.commands import main; main()"
ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 0.15  # share of the frames before which memory may still grow
GROWTH_BYTES = 5_000_000
STOP_S = 1.0
EXITS = (0, 143, -signal.SIGTERM)  # done, ended early, ended before it began


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one moment."""

    lines: int
    rss_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What `infer` is asked to do: with which video and options, and whether it writes an annotated one."""

    video: Path
    options: tuple[str, ...]
    annotate: bool


def start(asked: Asked, folder: Path) -> subprocess.Popen[bytes]:
    """Start `infer --json --csv` on a video, its lines going to a file."""
    command = [sys.executable, "-c", CODE, "infer", str(asked.video), "--json", *asked.options]
    command += ["--csv", str(folder / "faces.csv")]
    command += ["--output", str(folder / "out")] if asked.annotate else []
    with (folder / "lines.jsonl").open("wb") as out, (folder / "errors.txt").open("wb") as errors:
        return subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT)


def sample(process: subprocess.Popen[bytes], lines: int) -> Sample | None:
    """Read what the system knows of a process; None when it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/statm").read_text().split()
        files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    except OSError:
        return None
    return Sample(lines, int(status[1]) * os.sysconf("SC_PAGE_SIZE"), files)


def watch(process: subprocess.Popen[bytes], lines_file: Path) -> list[Sample]:
    """Sample a process until it ends, with the number of lines that it has written."""
    samples: list[Sample] = []
    lines, position = 0, 0
    while process.poll() is None:
        time.sleep(0.2)
        with lines_file.open("rb") as stream:
            stream.seek(position)
            new = stream.read()
        lines, position = lines + new.count(b"\n"), position + len(new)
        found = sample(process, lines)
        if found is not None and lines:
            samples.append(found)
    return samples


def check_outputs(folder: Path) -> list[dict[str, object]]:
    """Parse every line of both outputs; the CSV is there unless the process ended before it began."""
    records = [json.loads(line) for line in (folder / "lines.jsonl").read_bytes().splitlines()]
    table = folder / "faces.csv"
    if table.exists():
        rows = list(csv.reader(table.open()))
        assert {len(row) for row in rows} == {len(rows[0])}, "rows of several lengths"
        assert {int(row[1]) for row in rows[1:]} == {record["frame"] for record in records}
    else:
        assert not records, "lines, but no CSV"
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")], "a temporary file is left"
    return records


def soak(asked: Asked, frames: int) -> bool:
    """Run once to the end; print the table and say whether the bounds hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        process = start(asked, folder)
        samples = watch(process, folder / "lines.jsonl")
        seconds = time.monotonic() - started
        records = check_outputs(folder)
        errors = (folder / "errors.txt").read_text()
    assert process.returncode == 0, errors
    warm = [one for one in samples if one.lines >= WARM_UP * frames]
    assert len(warm) >= 2, "too few samples: give more frames"
    growth = max(one.rss_bytes for one in warm) - warm[0].rss_bytes
    descriptors = max(one.files for one in warm) - warm[0].files
    two = sum(len(record["faces"]) == 2 for record in records) / len(records)  # type: ignore[arg-type]
    complete = [record["frame"] for record in records] == list(range(frames))
    print("| figure | measured | at least |\n|---|---|---|")
    print(f"| frames, in order, every line parsed | {len(records):,} | {frames:,} |")
    print(f"| frames with two faces | {two:.1%} | |")
    megabytes = f"{warm[0].rss_bytes / 1e6:.1f} MB, {growth / 1e6:+.1f} MB"
    print(f"| memory after warm-up, and growth | {megabytes} | 5 MB |")
    print(f"| growth of open files | {descriptors:+d} | 0 |")
    print(f"| time, rate | {seconds:.0f} s, {len(records) / seconds:.0f} frames/s | |")
    return complete and growth <= GROWTH_BYTES and descriptors <= 0


def stops(asked: Asked, times: int, seed: int, within_s: float = STOP_S) -> bool:
    """Send SIGTERM at random moments; print how long the process took to end and whether its output holds."""
    chance = random.Random(seed)
    took: list[float] = []
    done: list[int] = []
    codes: set[int] = set()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            process = start(asked, folder)
            time.sleep(chance.uniform(0.0, 4.0))
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            took.append(time.monotonic() - told)
            codes.add(process.returncode)
            done.append(len(check_outputs(folder)))
            check_video(folder)
    print("| figure | measured | at least |\n|---|---|---|")
    print(f"| stops with valid output | {times} of {times} | {times} |")
    print(
        f"| exit after SIGTERM, median and worst | {statistics.median(took):.2f}, {max(took):.2f} s | 1 s |"
    )
    print(f"| exit codes | {', '.join(map(str, sorted(codes)))} | |")
    print(f"| frames that were done | {min(done)} to {max(done)} | |")
    return max(took) < within_s and codes <= set(EXITS)


def check_video(folder: Path) -> None:
    """Read every annotated video to its end; what is there opens."""
    for path in (folder / "out").glob("*.mp4") if (folder / "out").is_dir() else ():
        capture = cv2.VideoCapture(str(path))
        assert capture.isOpened() and capture.read()[0], f"{path.name} cannot be read"
        capture.release()


def main() -> None:
    """Make the video, then soak or stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--stops", type=int, default=0, help="send SIGTERM so many times instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--annotate", action="store_true", help="write an annotated video, too")
    parser.add_argument("options", nargs="*", help="further options of infer, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        frames = 3000 if given.stops else given.frames
        video = write_clip(Path(name) / "two.mp4", moving_faces(frames, faces=2))
        asked = Asked(video, tuple(given.options), given.annotate)
        kept = stops(asked, given.stops, given.seed) if given.stops else soak(asked, frames)
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
