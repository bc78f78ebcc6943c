"""Brings a small file over http or https, going on where an earlier attempt broke off. Knows no hashes.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy), as urllib reads them.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from edge_fer.errors import DetectorError, UsageError

Show = Callable[[int, int | None], None]

_ATTEMPTS = 5  # connections, as long as each brings something
_CHUNK = 1 << 14
_TIMEOUT_S = 30.0  # without a byte
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What to fetch, and what to do meanwhile.

    Attributes:
        url: http or https.
        limit: more bytes than this are refused.
        show: called with the bytes that are there and those expected (None: not known).
        timeout_s: how long a server may be silent.
    """

    url: str
    limit: int
    show: Show | None = None
    timeout_s: float = _TIMEOUT_S


class _BrokenOff(Exception):
    """The connection ended too early."""


def fetch(download: Download, partial: Path) -> None:
    """Bring the file into `partial`; what is there already is taken as its beginning.

    The server is asked for the rest only (RFC 9110, sections 13.1.5 and 14.2). One that knows no ranges, or
    that has another file by now, sends all of it, which replaces the beginning. `partial` stays when the
    connection breaks off, so that the next call goes on.

    Raises:
        UsageError: the address is none of http or https.
        DetectorError: the server does not give the file, or it is too large.
        OSError: `partial` cannot be written.
    """
    check_address(download.url)
    for _ in range(_ATTEMPTS):
        before = _size(partial)
        try:
            return _fetch_rest(download, partial)
        except _BrokenOff as error:
            reason = error
            if _size(partial) <= before:
                break
    raise DetectorError(
        f"{shown(download.url)} broke off after {_size(partial):,} bytes ({reason}): "
        "run the command again, it goes on from there"
    )


def check_address(url: str) -> None:
    """Refuse what is no address of a web server.

    Raises:
        UsageError: with what is expected.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        good = secret = False
    if not good:
        raise UsageError(f"expected an http or https address or the path of a file, got {shown(url)}")
    if secret:
        raise UsageError(
            f"{shown(url)}: an address with a user or a password is not supported; leave them out"
        )


def shown(url: str) -> str:
    """Return an address without what may be secret: user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _fetch_rest(download: Download, partial: Path) -> None:
    start = _size(partial)
    response = _open(download, start, partial)
    if response is None:  # this server cannot go on from here
        partial.unlink()
        return _fetch_rest(download, partial)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
            _validator_file(partial).write_text(_validator(response.headers), encoding="utf-8")
        total = _length(response.headers, start)
        if (total or 0) > download.limit:
            raise _too_large(download, partial)
        with partial.open("ab" if start else "wb") as file:
            done = start
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                if done > download.limit:
                    raise _too_large(download, partial)
                if download.show:
                    download.show(done, total)
    if total is not None and done < total:
        raise _BrokenOff(f"{total:,} were announced")
    return None


def _open(download: Download, start: int, partial: Path) -> Any:
    """Ask for the file from byte `start` on; None when the server cannot give that part."""
    request = urllib.request.Request(download.url, headers={"User-Agent": "edge-fer"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        validator = _validator_file(partial)
        if validator.is_file() and (known := validator.read_text(encoding="utf-8")):
            request.add_header("If-Range", known)
    where = shown(download.url)
    try:
        response = _opener().open(request, timeout=download.timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise DetectorError(
            f"{where} answered {error.code} {error.reason}: expected the file; check --url"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DetectorError(
            f"{where} cannot be reached ({reason}): check the network, the proxy (https_proxy) or --url"
        ) from None
    if response.status == http.client.PARTIAL_CONTENT:
        part = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if part is None or int(part[1]) != start:
            response.close()
            if not start:
                raise DetectorError(f"{where} answered with a part of the file that nobody asked for")
            return None
    return response


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone: a redirection must not lead to ftp: or file:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _read(response: Any) -> bytes:
    try:
        return bytes(response.read(_CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(str(error) or type(error).__name__) from None


def _length(headers: Any, start: int) -> int | None:
    """Return the bytes of the whole file, where the server tells."""
    part = _RANGE.fullmatch(headers.get("Content-Range", "")) if start else None
    if part:
        return int(part[2])
    announced = headers.get("Content-Length", "")
    return start + int(announced) if announced.isdecimal() else None


def _validator(headers: Any) -> str:
    """Return what tells this version of the file from others: a strong ETag, else the date of its change."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _validator_file(partial: Path) -> Path:
    return partial.with_suffix(".version")


def _too_large(download: Download, partial: Path) -> DetectorError:
    partial.unlink(missing_ok=True)
    return DetectorError(
        f"{shown(download.url)} has more than {download.limit:,} bytes: expected a YuNet detector, of 0.2 MB"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
