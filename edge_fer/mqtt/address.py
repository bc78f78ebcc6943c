"""Where results are published: broker, login and topic of an MQTT URL. No line here ever shows the URL.

A password that was typed with a bare `/` or `@` ends up in the port, the host or the topic, so none of them
is repeated before the whole URL was taken apart without doubt. Causes are left out (`from None`) for the same
reason: `--debug` would print what Python says of the URL.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from edge_fer.errors import UsageError

PASSWORD_VARIABLE = "EDGE_FER_MQTT_PASSWORD"

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST = 65_535  # bytes: strings of MQTT 3.1.1 have a length of two bytes (section 1.5.3)
_LONGEST_TOPIC = _LONGEST - 200  # further levels are put behind it
_FORM = "expected mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A topic of a broker.

    Attributes:
        host: name, IPv4 or IPv6 address, the last one without brackets.
        port: 1 to 65535.
        tls: whether the connection is encrypted and the broker's certificate checked.
        topic: where results go.
        user: the login's name; None: none is given.
        password: None: none is given.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def availability(self) -> str:
        """The topic that tells whether somebody publishes: `online` or `offline`, retained."""
        return f"{self.topic}/availability"

    @property
    def broker(self) -> str:
        """Host and port, as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Return the address that a URL stands for; what is percent-encoded in it is decoded.

    Args:
        url: `mqtt[s]://[user[:password]@]host[:port]/topic`; IPv6 addresses in brackets.
        environment: its EDGE_FER_MQTT_PASSWORD is the password when the URL names a user without one.

    Raises:
        UsageError: it is no such URL, or no results can be published to the topic.
    """
    parts, port = _split(url)
    user, password = _login(parts, environment)
    if "@" in parts.path:
        raise UsageError("--mqtt: an @ behind the host: write / as %2F and @ as %40 in a password, topic too")
    topic = _decoded(parts.path[1:])
    check_topic(topic, "--mqtt")
    return Address(
        host=_host(parts),
        port=port,
        tls=parts.scheme == "mqtts",
        topic=topic,
        user=user,
        password=password,
    )


def check_topic(topic: str, option: str) -> None:
    """Check that one can publish to a topic, and to longer ones that begin with it.

    Args:
        topic: its levels, with / between them.
        option: which option gave it, for the error.

    Raises:
        UsageError: it is empty, has an empty level, a wildcard or a control character, is the broker's own,
            or is too long.
    """
    if not topic:
        raise UsageError(f"{option}: a topic is missing: {_FORM}")
    if not all(topic.split("/")):
        raise UsageError(
            f"{option}: the topic {topic} has an empty level: expected names with one / between them"
        )
    if "+" in topic or "#" in topic:
        raise UsageError(
            f"{option}: the topic {topic} has a wildcard: one can listen to + and #, not publish"
        )
    if topic.startswith("$"):
        raise UsageError(
            f"{option}: the topic {topic} is the broker's own: expected one that begins without $"
        )
    if not topic.isprintable():
        raise UsageError(f"{option}: the topic has a control character or one that nobody sees: leave it out")
    if len(topic.encode()) > _LONGEST_TOPIC:
        raise UsageError(f"{option}: the topic is too long: expected at most {_LONGEST_TOPIC:,} bytes")


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        if not url.isprintable() or " " in url:  # urlsplit would drop some of them
            raise ValueError
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(_complaint()) from None
    if parts.scheme not in _PORTS or not parts.hostname or "?" in url or "#" in url or port == 0:
        raise UsageError(_complaint())
    return parts, port or _PORTS[parts.scheme]


def _complaint() -> str:
    return f"--mqtt: {_FORM}, with / ? # @ : % and spaces in a user, a password or a topic as %2F %3F …"


def _login(parts: SplitResult, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    given = environment.get(PASSWORD_VARIABLE) or None
    user, password = (text and _decoded(text) for text in (parts.username, parts.password))
    password = password or given
    if not user and password is not None:
        raise UsageError(f"--mqtt: a password needs a user name: {_FORM}")
    if any(len(text.encode("utf-8", "surrogateescape")) > _LONGEST for text in (user, password) if text):
        raise UsageError(f"--mqtt: user or password is too long: MQTT takes {_LONGEST:,} bytes")
    return user or None, password


def _host(parts: SplitResult) -> str:
    host = _decoded(parts.hostname or "")
    try:
        if ":" in host:
            ipaddress.IPv6Address(host)  # with a zone, too: fe80::1%eth0
        else:
            host.encode("idna")
    except ValueError:
        raise UsageError(_complaint()) from None
    return host


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UsageError("--mqtt: what is percent-encoded has to be UTF-8") from None
