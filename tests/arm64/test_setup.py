"""The set-up of emulation: parts are made once and never half; the machine alone names the mirror."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.arm64.conftest import ROOT
from tests.arm64.debian import MIRROR, Unavailable, mirrors, run
from tests.arm64.emulation import CPUS, READY, missing
from tests.arm64.setup import UNAVAILABLE, main, part, write_script


def test_a_part_is_made_once_for_a_key_and_never_half(tmp_path: Path) -> None:
    calls: list[str] = []

    def fill(place: Path) -> None:
        calls.append("fill")
        (place / "file").write_text(str(len(calls)))

    def fail(place: Path) -> None:
        (place / "file").write_text("half")
        raise Unavailable("gone")

    for key in ("a", "a", "b"):
        part(tmp_path, "part", key, fill)
    assert calls == ["fill", "fill"] and (tmp_path / "part/file").read_text() == "2"
    with pytest.raises(Unavailable):
        part(tmp_path, "part", "c", fail)
    assert not list(tmp_path.iterdir())
    part(tmp_path, "part", "c", fill)
    assert (tmp_path / "part/file").read_text() == "3"


def test_the_mirror_is_the_users_and_else_the_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(MIRROR, "file:///mirror")
    assert list(mirrors(tmp_path)) == ["file:///mirror"]
    for file in (ROOT / "tests" / "arm64").glob("*.py"):
        assert not re.search(r"https?:/", file.read_text(encoding="utf-8")), "a mirror is named"


def test_what_cannot_be_had_is_one_line_and_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "none.whl"
    wheel.write_bytes(b"")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert main([str(tmp_path / "folder"), "--wheel", str(wheel)]) == UNAVAILABLE
    [line] = capsys.readouterr().err.splitlines()
    assert line == "nothing can be emulated here: apt-get does not start: No such file or directory"
    assert "not complete" in str(missing(tmp_path / "folder"))
    with pytest.raises(SystemExit):
        main([str(ROOT / "emulation")])


def test_a_folder_counts_when_it_is_complete(tmp_path: Path) -> None:
    assert "names no folder" in str(missing(None)) and "not complete" in str(missing(tmp_path))
    (tmp_path / READY).touch()
    assert missing(tmp_path) is None


def test_a_script_tells_what_is_emulated_and_starts_itself_again(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    for cpu in CPUS:
        emulator = folder / cpu.qemu
        emulator.parent.mkdir(parents=True, exist_ok=True)
        emulator.write_text('#!/bin/sh\nenv; printf "%s\\n" "$@"\n')
        emulator.chmod(0o755)
        write_script(folder, cpu, "qemu-user 1.0")
        lines = run(folder / cpu.python, "-c", "print('a b')").splitlines()
        assert f"EDGE_FER_EMULATED=qemu-user 1.0, {cpu.name}" in lines
        assert lines[-2:] == ["-c", "print('a b')"]
        assert lines[lines.index("-0") + 1] == str(folder / cpu.python)
        assert lines[lines.index("-cpu") + 1] == cpu.model
        wheel = next(line for line in lines if line.startswith("PYTHONPATH="))
        assert wheel.startswith(f"PYTHONPATH={folder / 'wheel'}:")
