"""What makes sensors appear in Home Assistant by themselves: its MQTT discovery.

Fields as of https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and
https://www.home-assistant.io/integrations/sensor.mqtt/.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import edge_fer
from edge_fer.mqtt.address import Address
from edge_fer.mqtt.publisher import Announcement

# The largest face speaks: the person who stands in front.
_LARGEST = (
    "{% set ns = namespace(face=none, area=-1) %}"
    "{% for face in value_json.faces %}"
    "{% set area = face.box[2] * face.box[3] if face.box else 0 %}"
    "{% if area > ns.area %}{% set ns.face = face %}{% set ns.area = area %}{% endif %}"
    "{% endfor %}"
)
_NOBODY, _UNSURE = "none", "unsure"
_SLUG = 40  # letters of the topic in the id; the digest tells topics apart


def announce_sensors(
    address: Address, prefix: str, *, model: str, labels: Sequence[str]
) -> list[Announcement]:
    """Return the retained messages that make one device with three sensors.

    Args:
        address: the topic that the sensors listen to.
        prefix: first level, or levels, of Home Assistant's discovery topics.
        model: what the device is shown to be.
        labels: names of the classes.
    """
    node = node_id(address.topic)
    shared = {
        "state_topic": address.topic,
        "availability_topic": address.availability,
        "qos": 1,
        "device": {
            "identifiers": [node],
            "name": f"edge-fer {address.topic}",
            "manufacturer": "edge-fer",
            "model": model,
            "sw_version": edge_fer.__version__,
        },
        "origin": {"name": "edge-fer", "sw_version": edge_fer.__version__},
    }
    return [
        Announcement(
            f"{prefix}/sensor/{node}/{name}/config",
            json.dumps({"unique_id": f"{node}_{name}", **own, **shared}).encode(),
        )
        for name, own in _sensors(labels).items()
    ]


def node_id(topic: str) -> str:
    """Return an id that is always the same for a topic and never for two: letters, digits and _."""
    slug = re.sub(r"[^a-z0-9]+", "_", topic.lower()).strip("_")[:_SLUG]
    return f"edge_fer_{slug}_{hashlib.sha256(topic.encode()).hexdigest()[:8]}"


def _sensors(labels: Sequence[str]) -> dict[str, dict[str, object]]:
    return {
        "expression": {
            "name": "Expression",
            "icon": "mdi:emoticon-outline",
            "device_class": "enum",
            "options": [*labels, _NOBODY, _UNSURE],
            "value_template": _LARGEST
            + f"{{{{ (ns.face.label or '{_UNSURE}') if ns.face else '{_NOBODY}' }}}}",
        },
        "reliability": {
            "name": "Reliability",
            "icon": "mdi:gauge",
            "state_class": "measurement",
            "suggested_display_precision": 2,
            # `None` is Home Assistant's word for a value that is not known.
            "value_template": f"{_LARGEST}{{{{ ns.face.reliability if ns.face else none }}}}",
        },
        "faces": {
            "name": "Faces",
            "icon": "mdi:account-multiple",
            "state_class": "measurement",
            "value_template": "{{ value_json.faces | length }}",
        },
    }
