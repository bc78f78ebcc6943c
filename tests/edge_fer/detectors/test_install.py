"""`edge-fer detector install` against a real server and a real cache folder, with a stand-in for YuNet."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_fer.detectors import load_detector
from edge_fer.detectors.cache import cache_folder, find_installed
from edge_fer.detectors.install import YUNET_SHA256, YUNET_URL, install
from edge_fer.errors import DetectorError, UsageError
from tests.conftest import error_lines, run_command
from tests.edge_fer.detectors.server import Site, serve
from tests.edge_fer.detectors.stand_in import stand_in

onnx = pytest.importorskip("onnx", reason="needs the package onnx to make a stand-in for YuNet")
ROOT = Path(__file__).parents[3]
MODEL = stand_in(onnx)
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-fer"


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(MODEL)) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(MODEL)
    return tmp_path / "model.onnx"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_the_installed_file_is_the_default(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_detector().name == "cascade"
    path = install(site.url, SHA256.upper())
    assert path.parent == cache and path.read_bytes() == MODEL
    assert names(cache) == {path.name, "yunet.sha256"}
    assert load_detector().name == load_detector("yunet").name == "yunet"
    assert load_detector("cascade").name == "cascade"
    monkeypatch.setenv("EDGE_FER_YUNET", "/nowhere/else.onnx")
    with pytest.raises(DetectorError, match=r"/nowhere/else\.onnx: no such file"):
        load_detector()


def test_the_record_is_what_sha256sum_reads(file: Path, cache: Path) -> None:
    path = install(str(file), SHA256)
    assert (cache / "yunet.sha256").read_text() == f"{SHA256}  {path.name}\n"
    assert find_installed() == (path, SHA256)


def test_another_file_is_refused_and_nothing_changes(site: Site, file: Path, cache: Path) -> None:
    install(str(file), SHA256)
    before = names(cache)
    site.content = MODEL[:-1] + b"x"
    for source in (site.url, str(file.with_name("other.onnx"))):
        file.with_name("other.onnx").write_bytes(site.content)
        with pytest.raises(DetectorError, match=f"expected SHA-256 {SHA256}, got .*nothing was installed"):
            install(source, SHA256)
    site.content = MODEL
    with pytest.raises(DetectorError, match=f"expected SHA-256 {YUNET_SHA256}, got {SHA256}"):
        install(site.url)  # without --sha256 it has to be OpenCV's release
    assert names(cache) == before
    assert load_detector().name == "yunet"


def test_a_file_that_is_not_yunet_is_refused_in_spite_of_its_hash(file: Path, cache: Path) -> None:
    file.write_bytes(b"hello")
    with pytest.raises(DetectorError, match=r"model\.onnx: expected a YuNet"):
        install(str(file), hashlib.sha256(b"hello").hexdigest())
    assert names(cache) == set()


def test_a_broken_download_goes_on_in_the_next_run(site: Site, cache: Path) -> None:
    site.drops = [5_000, 0]
    with pytest.raises(DetectorError, match="broke off after 5,000 bytes"):
        install(site.url, SHA256)
    assert find_installed() is None
    install(site.url, SHA256)
    assert site.asked_ranges[-1] == "bytes=5000-"
    assert load_detector().name == "yunet"
    assert len(names(cache)) == 2


def test_a_beginning_of_another_file_is_thrown_away(site: Site, cache: Path) -> None:
    site.tag, site.drops = None, [5_000, 0]  # without a validator the server cannot tell
    site.content = MODEL[::-1]
    with pytest.raises(DetectorError, match="broke off"):
        install(site.url, SHA256)
    site.content = MODEL
    install(site.url, SHA256)
    assert site.asked_ranges[-2:] == ["bytes=5000-", None]
    assert load_detector().name == "yunet"


def test_a_download_that_was_complete_is_not_repeated(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"yunet-{SHA256[:16]}.part").write_bytes(MODEL)
    install(site.url, SHA256)
    assert site.asked == []
    assert len(names(cache)) == 2


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_changed_file_is_refused_at_load(file: Path, damage: str) -> None:
    path = install(str(file), SHA256)
    if damage == "change":
        path.write_bytes(MODEL[:-1] + b"x")
    elif damage == "cut":
        path.write_bytes(MODEL[:100])
    else:
        path.unlink()
    for choice in (None, "yunet"):
        with pytest.raises(DetectorError, match=r"edge-fer detector install` again.*cascade") as caught:
            load_detector(choice)
        assert "\n" not in str(caught.value)
    assert load_detector("cascade").name == "cascade"
    install(str(file), SHA256)
    assert load_detector().name == "yunet"


@pytest.mark.parametrize(
    "record", ["", "hello", f"{SHA256}  ../model.onnx\n", f"{'0' * 64}  yunet-{SHA256[:16]}.onnx", "\xff"]
)
def test_a_damaged_record_is_refused(file: Path, cache: Path, record: str) -> None:
    install(str(file), SHA256)
    (cache / "yunet.sha256").write_text(record, encoding="latin-1")
    with pytest.raises(DetectorError, match=r"yunet\.sha256 is damaged: run"):
        load_detector()


def test_the_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / ".cache" / "edge-fer"


def test_a_cache_that_cannot_be_written_to_is_one_line(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # a file, where a folder has to be
    assert load_detector().name == "cascade"
    with pytest.raises(DetectorError, match=r"cannot be written: .*XDG_CACHE_HOME"):
        install(str(file), SHA256)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for the superuser")
def test_a_read_only_cache_is_one_line(file: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    with pytest.raises(DetectorError, match=r"cannot be written: Permission denied; .*XDG_CACHE_HOME"):
        install(str(file), SHA256)


def test_a_full_cache_is_one_line(site: Site, cache: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the middle."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_fer", "detector", "install", "--url", site.url, "--sha256", SHA256],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ") and "cannot be written: File too large; free some space" in last
    assert find_installed() is None


def test_a_hash_that_is_none_is_wrong_usage(site: Site, file: Path) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        install(site.url, "12ab")
    result = run_command("detector", "install", "--url", file, "--sha256", "12ab")
    assert result.exit_code == 2 and len(error_lines(result)) == 1


@pytest.mark.parametrize("url", ["ftp://example.org/yunet.onnx", "file:///tmp/yunet.onnx"])
def test_other_addresses_are_wrong_usage(url: str, cache: Path) -> None:
    result = run_command("detector", "install", "--url", url)
    assert result.exit_code == 2
    assert "expected an http or https address or the path of a file" in error_lines(result)[0]


def test_the_command_prints_the_path_and_tells_people_the_rest(site: Site) -> None:
    result = run_command("detector", "install", "--url", f"{site.url}?token=hidden", "--sha256", SHA256)
    assert result.exit_code == 0
    path, _ = find_installed() or (None, None)
    assert result.stdout == f"{path}\n"
    assert "YuNet is the default detector now" in result.stderr and "hidden" not in result.stderr


@pytest.mark.parametrize("program", [["cli.py"], ["-m", "edge_fer"]])
def test_both_programs_have_the_command(program: list[str], file: Path) -> None:
    done = subprocess.run(
        [sys.executable, *program, "detector", "install", "--url", str(file), "--sha256", SHA256],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == MODEL


def test_the_release_is_bound_to_one_version() -> None:
    assert YUNET_URL.startswith("https://") and "/main/" not in YUNET_URL
    assert len(YUNET_SHA256) == 64
