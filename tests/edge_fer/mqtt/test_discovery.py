"""Home Assistant's discovery: its topics and fields, and its templates rendered as it renders them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer import __version__
from edge_fer.labels import LABELS
from edge_fer.mqtt.address import parse_address

pytest.importorskip("paho.mqtt.client")

from edge_fer.mqtt.discovery import announce_sensors, node_id

# The fields of https://www.home-assistant.io/integrations/sensor.mqtt/ that are used here.
KNOWN = {
    *("availability_topic", "device", "device_class", "icon", "name", "options", "origin", "qos"),
    *("state_class", "state_topic", "suggested_display_precision", "unique_id", "value_template"),
}


def configs(topic: str = "home/porch", prefix: str = "homeassistant") -> dict[str, dict[str, Any]]:
    address = parse_address(f"mqtt://broker.example/{topic}", {})
    messages = announce_sensors(address, prefix, model="grefel-lite int8", labels=LABELS)
    return {message.topic: json.loads(message.payload) for message in messages}


def face(label: str | None, reliability: float, box: list[float] | None) -> dict[str, Any]:
    return {"label": label, "reliability": reliability, "box": box}


def render(name: str, faces: list[dict[str, Any]]) -> str:
    sandbox = pytest.importorskip("jinja2.sandbox")
    config = next(config for topic, config in configs().items() if f"/{name}/" in topic)
    template = sandbox.ImmutableSandboxedEnvironment().from_string(config["value_template"])
    return str(template.render(value_json={"faces": faces}))


def test_one_device_with_three_sensors() -> None:
    made = configs(prefix="ha/discovery")
    node = node_id("home/porch")
    names = ("expression", "reliability", "faces")
    assert list(made) == [f"ha/discovery/sensor/{node}/{name}/config" for name in names]
    for name, config in zip(names, made.values(), strict=True):
        assert set(config) <= KNOWN
        assert config["unique_id"] == f"{node}_{name}"
        assert config["state_topic"] == "home/porch"
        assert config["availability_topic"] == "home/porch/availability"
        assert config["device"]["identifiers"] == [node]
        assert config["device"]["sw_version"] == __version__
        assert config["device"]["model"] == "grefel-lite int8"
        # A list of options excludes a state class, and the other way round.
        assert ("options" in config) == (config.get("device_class") == "enum") != ("state_class" in config)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=2, unique=True))
def test_ids_are_stable_fit_and_differ(topics: list[str]) -> None:
    one, other = map(node_id, topics)
    assert one == node_id(topics[0]) != other
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", one)  # what Home Assistant takes


def test_the_id_of_a_topic_never_changes() -> None:
    assert node_id("home/porch") == "edge_fer_home_porch_306a412a"


def test_the_largest_face_speaks() -> None:
    faces = [
        face("anger", 0.2, [0, 0, 9, 10]),
        face("fear", 0.7, [50, 0, 10, 10]),
        face("sadness", 0.1, None),
    ]
    assert render("expression", faces) == "fear"
    assert render("reliability", faces) == "0.7"
    assert render("faces", faces) == "3"


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ([], ("none", "None", "0")),
        ([face(None, 0.05, [0, 0, 5, 5])], ("unsure", "0.05", "1")),
        ([face("surprise", 0.5, None)], ("surprise", "0.5", "1")),
    ],
)
def test_nobody_somebody_unsure_and_a_ready_crop(
    faces: list[dict[str, Any]], expected: tuple[str, str, str]
) -> None:
    assert tuple(render(name, faces) for name in ("expression", "reliability", "faces")) == expected


def test_every_expression_is_an_option() -> None:
    options = next(config["options"] for topic, config in configs().items() if "/expression/" in topic)
    assert options == [*LABELS, "none", "unsure"]
