"""Downloads from a real server on 127.0.0.1: broken connections, bad servers, proxies, addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_fer.detectors.download import Download, fetch
from edge_fer.errors import DetectorError, UsageError
from tests.edge_fer.detectors.server import Site, serve

CONTENT = np.random.default_rng(0).bytes(100_000)
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(CONTENT)) as running:
        yield running


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "yunet.part"


def get(site: Site, partial: Path, timeout_s: float = 10.0) -> None:
    fetch(Download(url=site.url, limit=LIMIT, timeout_s=timeout_s), partial)


def test_a_whole_file_comes_in_one_request(site: Site, partial: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(Download(url=site.url, limit=LIMIT, show=lambda *at: seen.append(at)), partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges == [None]
    assert seen == sorted(seen) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_connection_is_taken_up_where_it_ended(site: Site, partial: Path) -> None:
    site.drops = [30_000, 20_000]
    get(site, partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges == [None, "bytes=30000-", "bytes=50000-"]
    assert [headers.get("If-Range") for headers in site.asked] == [None, '"1"', '"1"']


def test_the_next_call_goes_on_where_the_last_one_gave_up(site: Site, partial: Path) -> None:
    site.drops = [10_000, 0]
    with pytest.raises(DetectorError, match=r"broke off after 10,000 bytes .*goes on from there"):
        get(site, partial)
    seen: list[tuple[int, int | None]] = []
    fetch(Download(url=site.url, limit=LIMIT, show=lambda *at: seen.append(at)), partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges[-1] == "bytes=10000-"
    assert seen[0][0] > 10_000 and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_connection_that_keeps_breaking_ends(site: Site, partial: Path) -> None:
    site.drops = [1] * 100
    with pytest.raises(DetectorError, match="broke off after 5 bytes"):
        get(site, partial)


def test_a_server_without_ranges_sends_all_of_it_again(site: Site, partial: Path) -> None:
    site.ranges, site.drops = False, [30_000]
    get(site, partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges == [None, "bytes=30000-"]


def test_a_file_that_has_changed_meanwhile_starts_over(site: Site, partial: Path) -> None:
    site.drops = [30_000, 0]
    with pytest.raises(DetectorError, match="broke off"):
        get(site, partial)
    site.content, site.tag = CONTENT[::-1], '"2"'
    get(site, partial)
    assert partial.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_only_strong_validators_are_sent(site: Site, partial: Path, tag: str | None) -> None:
    site.tag, site.drops = tag, [30_000]
    get(site, partial)
    assert partial.read_bytes() == CONTENT
    assert [headers.get("If-Range") for headers in site.asked] == [None, None]


@pytest.mark.parametrize("answer", ["bytes 0-99999/100000", "nonsense"])
def test_a_part_that_was_not_asked_for_is_not_taken(site: Site, partial: Path, answer: str) -> None:
    site.drops, site.lying_range = [30_000], answer
    get(site, partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges == [None, "bytes=30000-", None]


def test_a_beginning_longer_than_the_file_starts_over(site: Site, partial: Path) -> None:
    partial.write_bytes(b"x" * 200_000)
    get(site, partial)
    assert partial.read_bytes() == CONTENT
    assert site.asked_ranges == ["bytes=200000-", None]


def test_an_announced_length_that_does_not_come_is_an_error(site: Site, partial: Path) -> None:
    site.announced = 120_000
    with pytest.raises(DetectorError, match=r"100,000 bytes \(120,000 were announced\)|answered 416"):
        get(site, partial)


def test_a_file_without_a_length_ends_with_the_connection(site: Site, partial: Path) -> None:
    site.announced = -1
    get(site, partial)
    assert partial.read_bytes() == CONTENT


def test_a_silent_server_is_left(site: Site, partial: Path) -> None:
    site.stall_s = 1.0
    with pytest.raises(DetectorError, match=r"broke off after .* bytes .*timed out"):
        get(site, partial, timeout_s=0.3)
    assert CONTENT.startswith(partial.read_bytes())


@pytest.mark.parametrize("announced", [None, -1])
def test_a_file_that_is_too_large_is_refused(partial: Path, announced: int | None) -> None:
    seen: list[tuple[int, int | None]] = []
    with (
        serve(Site(bytes(LIMIT + 1), announced=announced)) as site,
        pytest.raises(DetectorError, match="more than 1,048,576 bytes"),
    ):
        fetch(Download(url=site.url, limit=LIMIT, show=lambda *at: seen.append(at)), partial)
    assert not partial.exists()
    assert bool(seen) == (announced == -1)  # announced, it is refused before it comes


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_told_with_its_number(site: Site, partial: Path, status: int) -> None:
    site.status = status
    with pytest.raises(DetectorError, match=f"answered {status} .*--url"):
        get(site, partial)


def test_redirections_are_followed(site: Site, partial: Path) -> None:
    with serve(Site(b"", status=302, location=site.url)) as door:
        get(door, partial)
    assert partial.read_bytes() == CONTENT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/yunet.onnx"])
def test_redirections_leave_the_web_nowhere(site: Site, partial: Path, location: str) -> None:
    site.status, site.location = 302, location
    with pytest.raises(DetectorError, match=r"answered 302|cannot be reached"):
        get(site, partial)
    assert not partial.exists()


def test_nobody_at_the_address(partial: Path) -> None:
    with serve(Site(b"")) as site:
        pass
    with pytest.raises(DetectorError, match=r"cannot be reached \(.*refused.*https_proxy"):
        get(site, partial)


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/x", "file:///etc/passwd", "http://", "https:///x", "yunet.onnx", "http://[::1/x"],
)
def test_other_addresses_are_wrong_usage(partial: Path, url: str) -> None:
    with pytest.raises(UsageError, match="expected an http or https address"):
        fetch(Download(url=url, limit=LIMIT), partial)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:port/x", "http://127.0.0.1:1/a b", "http://a\u0131.invalid/\u0131"]
)
def test_addresses_that_cannot_be_asked_are_one_line(partial: Path, url: str) -> None:
    with pytest.raises((DetectorError, UsageError)) as caught:
        fetch(Download(url=url, limit=LIMIT, timeout_s=1.0), partial)
    assert "\n" not in str(caught.value)


def test_no_password_is_repeated(site: Site, partial: Path) -> None:
    with pytest.raises(UsageError, match="user or a password") as caught:
        fetch(Download(url="https://user:secret@example.org/x?token=hidden", limit=LIMIT), partial)
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)
    site.status = 404
    with pytest.raises(DetectorError) as refused:
        fetch(Download(url=f"{site.url}?token=hidden", limit=LIMIT), partial)
    assert "hidden" not in str(refused.value)
    assert site.paths == ["/yunet.onnx?token=hidden"]


def test_the_proxy_of_the_environment_is_asked(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url.removesuffix("/yunet.onnx"))
    fetch(Download(url="http://yunet.invalid/file.onnx", limit=LIMIT), partial)
    assert partial.read_bytes() == CONTENT
    assert site.paths == ["http://yunet.invalid/file.onnx"]


def test_no_proxy_where_the_environment_says_so(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    get(site, partial)
    assert partial.read_bytes() == CONTENT
