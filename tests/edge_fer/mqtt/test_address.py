"""URLs of brokers: what is meant comes out, anything else is one line that never shows the password."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import UsageError
from edge_fer.mqtt.address import Address, check_topic, parse_address

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,5})?", fullmatch=True)
HOSTS = NAMES | st.ip_addresses().map(str)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
VISIBLE = st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="+#/$")
TOPICS = st.lists(st.text(VISIBLE, min_size=1, max_size=9), min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(
    HOSTS,
    st.none() | st.integers(1, 65_535),
    st.booleans(),
    TOPICS,
    st.none() | st.tuples(TEXTS, st.none() | TEXTS),
)
def test_what_is_written_down_is_read(
    host: str, port: int | None, tls: bool, topic: str, login: tuple[str, str | None] | None
) -> None:
    user, password = login or (None, None)
    name = "" if user is None else quote(user, safe="")
    name += "" if password is None else ":" + quote(password, safe="")
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    url = f"mqtt{'s' if tls else ''}://{name}{'@' if name else ''}{place}/{quote(topic, safe='/')}"
    expected = port or (8883 if tls else 1883)
    address = Address(host=host, port=expected, tls=tls, topic=topic, user=user, password=password)
    assert parse_address(url, {}) == address
    assert address.broker == place if port else address.broker.startswith(place)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(max_size=40).map("mqtt://".__add__))
def test_any_text_is_an_address_or_wrong_usage(url: str) -> None:
    try:
        address = parse_address(url, {})
    except UsageError as error:
        assert str(error).startswith("--mqtt: ") and "\n" not in str(error)
    else:
        assert 0 < address.port < 65_536 and address.host
        check_topic(address.topic, "--mqtt")


@settings(deadline=None)
@given(st.text(st.sampled_from("Zq7/@:#?[]% +$"), min_size=1, max_size=12), st.booleans())
def test_a_password_that_is_not_escaped_is_in_no_line(text: str, port: bool) -> None:
    secret = f"hunter2{text}swordfish"
    with_port = ":1884" if port else ""
    try:
        address = parse_address(f"mqtt://me:{secret}@broker.example{with_port}/porch", {})
    except UsageError as error:
        assert "hunter2" not in str(error) and "swordfish" not in str(error)
    else:
        assert address.host == "broker.example" and address.topic == "porch"
        assert "hunter2" not in repr(address) and "hunter2" not in address.broker


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected mqtt[s]://"),
        ("broker.example/porch", "expected mqtt[s]://"),
        ("http://broker.example/porch", "expected mqtt[s]://"),
        ("mqtt:///porch", "expected mqtt[s]://"),
        ("mqtt://broker.example", "a topic is missing"),
        ("mqtt://broker.example/", "a topic is missing"),
        ("mqtt://broker.example:0/porch", "expected mqtt[s]://"),
        ("mqtt://broker.example:65536/porch", "expected mqtt[s]://"),
        ("mqtt://broker.example:http/porch", "expected mqtt[s]://"),
        ("mqtt://[::1/porch", "expected mqtt[s]://"),
        ("mqtt://[::g]/porch", "expected mqtt[s]://"),
        ("mqtt://a..b/porch", "expected mqtt[s]://"),
        ("mqtt://broker.example/porch?x=1", "expected mqtt[s]://"),
        ("mqtt://broker.example/porch/#", "expected mqtt[s]://"),
        ("mqtt://broker.example/por ch", "expected mqtt[s]://"),
        ("mqtt://broker.example/por\nch", "expected mqtt[s]://"),
        ("mqtt://broker.example/+/porch", "wildcard"),
        ("mqtt://broker.example/porch/%23", "wildcard"),
        ("mqtt://broker.example//porch", "an empty level"),
        ("mqtt://broker.example/porch/", "an empty level"),
        ("mqtt://broker.example/$SYS/porch", "the broker's own"),
        ("mqtt://broker.example/por%00ch", "control character"),
        ("mqtt://broker.example/%FF", "UTF-8"),
        ("mqtt://broker.example/" + "x" * 65_336, "too long"),
        ("mqtt://me:" + "x" * 65_536 + "@broker.example/porch", "too long"),
        ("mqtt://:secret@broker.example/porch", "needs a user name"),
        ("mqtt://me:se/cret@broker.example/porch", "expected mqtt[s]://"),
        ("mqtt://me:12/cret@broker.example/porch", "an @ behind the host"),
        ("mqtt://me:se\N{CARE OF}cret@broker.example/porch", "expected mqtt[s]://"),
    ],
)
def test_what_is_refused_and_why(url: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(url, {})
    assert said in str(error.value) and "cret" not in str(error.value)
    shown = "".join(traceback.format_exception(error.value))  # as --debug shows it
    assert "cret" not in shown.replace("test_what_is_refused_and_why", "")


def test_who_prints_an_address_prints_no_password() -> None:
    address = parse_address("mqtts://me:hunter2@broker.example/porch", {})
    assert address.password == "hunter2" and "hunter2" not in f"{address!r} {address} {address.broker}"


def test_the_longest_topic_leaves_room_for_what_is_put_behind_it() -> None:
    address = parse_address("mqtt://broker.example/" + "x" * 65_335, {})
    assert len(address.availability) <= 65_535


def test_the_password_of_the_environment() -> None:
    def password(url: str, **environment: str) -> str | None:
        return parse_address(url, environment).password

    given = {"EDGE_FER_MQTT_PASSWORD": "p/w"}
    assert password("mqtt://me@broker.example/porch", **given) == "p/w"
    assert password("mqtt://me:other@broker.example/porch", **given) == "other"
    assert password("mqtt://me@broker.example/porch") is None
    assert password("mqtt://broker.example/porch", EDGE_FER_MQTT_PASSWORD="") is None
    with pytest.raises(UsageError, match="needs a user name"):
        password("mqtt://broker.example/porch", **given)
