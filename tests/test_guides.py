"""Guides and examples do not lie: the commands and options that they name exist, and so do their files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
import typer
from rich.text import Text

import cli
from edge_fer.commands import app

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
UNIT = EXAMPLES / "edge-fer.service"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPEAKING = [*DOCUMENTS, UNIT, EXAMPLES / "Dockerfile", EXAMPLES / "parity.yml"]
ENDS = {"|", "||", "&&", ";", ">", ">>", "2>", "&"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def spoken_lines(path: Path) -> Iterator[str]:
    """Yield what a document would have typed: its blocks, what a unit or a job runs, and quoted calls."""
    text = path.read_text(encoding="utf-8")
    fences = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)
    if path.suffix == ".md":
        typed = [block for language, block in fences.findall(text) if language == "sh"]
    else:  # in comments a typed line is indented
        typed = re.findall(r"(?m)^(?:#   |ExecStart=|\s*- run: |\s*run: )(.*(?:\\\n.*)*)$", text)
    quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", fences.sub("", text))]
    yield from re.sub(r"\\\n\s*(?:#\s*)?", " ", "\n".join(typed)).splitlines()
    yield from (code for code in quoted if code.startswith("edge-fer "))


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield program and arguments of every call of edge-fer or cli.py."""
    for line in spoken_lines(path):
        words = [*shlex.split(line.replace("…", " "), comments=True), ";"]
        while words:
            end = next(place for place, word in enumerate(words) if word in ENDS)
            call, words = words[:end], words[end + 1 :]
            for place, word in enumerate(call):
                program, after = Path(word).name, call[place + 1 : place + 2]
                if program in {"edge-fer", "cli.py"} and after and re.fullmatch("[a-z][a-z-]*", after[0]):
                    yield program, call[place + 1 :]
                    break


def known(program: str) -> dict[str, click.Command]:
    group = typer.main.get_command(app if program == "edge-fer" else cli.app)
    return dict(getattr(group, "commands", {}))


def unknown_words(program: str, words: list[str]) -> list[str]:
    """Return what the command line would refuse: the command, or its options."""
    command = known(program).get(words[0])
    if command is None:
        return words[:1]
    rest = words[1:]
    if rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest[0]]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("path", SPEAKING, ids=name)
def test_commands_and_options_exist(path: Path) -> None:
    wrong = [
        f"{words[0]}: {word}" for program, words in commands(path) for word in unknown_words(program, words)
    ]
    assert not wrong


def test_the_search_finds_what_is_not_there(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nsudo /opt/x/bin/edge-fer infer a.jpg \\\n  --nosuch 1 | edge-fer dance # --x\n```\n"
        "See `edge-fer bench\n--fast`.\n"
    )
    assert list(commands(page)) == [
        ("edge-fer", ["infer", "a.jpg", "--nosuch", "1"]),
        ("edge-fer", ["dance"]),
        ("edge-fer", ["bench", "--fast"]),
    ]
    assert unknown_words("edge-fer", ["infer", "a.jpg", "--nosuch"]) == ["--nosuch"]
    assert unknown_words("edge-fer", ["dance"]) == ["dance"]
    assert unknown_words("cli.py", ["infer", "a.jpg", "--json"]) == []
    assert unknown_words("edge-fer", ["train"]) == ["train"] and unknown_words("cli.py", ["train"]) == []


def help_texts(commands: Iterable[click.Command]) -> Iterator[str]:
    """Yield what --help says of commands, of theirs, and of all arguments and options."""
    for command in commands:
        yield from (part.help for part in (command, *command.params) if getattr(part, "help", None))
        yield from help_texts(getattr(command, "commands", {}).values())


def test_help_shows_every_bracket() -> None:
    texts = list(help_texts(known("cli.py").values()))
    assert len(texts) > 100
    assert not [text for text in texts if Text.from_markup(text).plain != text.replace(r"\[", "[")]


def test_the_guides_speak() -> None:
    for document in ("raspberry-pi.md", "jetson.md"):
        assert len(list(commands(ROOT / "docs" / document))) >= 8
    assert [words[0] for _, words in commands(UNIT)] == ["infer", "detector"]
    assert [words[0] for _, words in commands(EXAMPLES / "Dockerfile")] == ["infer", "infer"]
    assert [words[0] for _, words in commands(EXAMPLES / "parity.yml")] == ["parity", "parity"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (path.parent / target).exists()]


def instructions() -> list[tuple[str, str]]:
    text = (EXAMPLES / "Dockerfile").read_text()
    text = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def test_the_image_copies_files_that_exist_and_are_sent() -> None:
    ignored = (EXAMPLES / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = [argument for word, argument in instructions() if word == "COPY" and "--from" not in argument]
    sources = {source for argument in copied for source in argument.split()[:-1]}
    assert sources == sent
    assert all((ROOT / source).exists() for source in sources)
    assert not any(fnmatch(source, "**/__pycache__") for source in sources)


def test_the_image_is_of_two_stages_and_not_root_s() -> None:
    words = [word for word, _ in instructions()]
    assert words.count("FROM") == 2 and words[-2:] == ["ENTRYPOINT", "CMD"]
    last = dict(instructions())
    assert last["USER"] == "10001:10001" and last["ENTRYPOINT"] == '["edge-fer"]'
    assert unknown_words("edge-fer", re.findall(r'"([^"]+)"', last["CMD"])) == []


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = UNIT.read_text()
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", text))
    assert settings["DynamicUser"] == "yes" and settings["Restart"] == "always"
    assert "WatchdogSec" not in settings  # nothing would feed it
    assert "MemoryDenyWriteExecute" not in settings and "ProcSubset" not in settings
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("no systemd-analyze on this machine")
    # The program is not installed where the unit expects it; everything else has to hold.
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/edge-fer/bin/edge-fer", shutil.which("true") or "/bin/true"))
    done = subprocess.run([systemd, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nNoSuchKey=1"))
    done = subprocess.run([systemd, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "NoSuchKey" in done.stderr
