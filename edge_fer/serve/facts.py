"""What `GET /v1/bundle` tells: the bundle, its certificate, and how it runs here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import edge_fer
from edge_fer.bundle import Bundle
from edge_fer.parity.certificate import is_certified, summary
from edge_fer.parity.environment import environment

if TYPE_CHECKING:
    from edge_fer.detectors import Detector
    from edge_fer.engines import EngineOptions
    from edge_fer.recognizer import Recognizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What does not change while the service runs.

    Attributes:
        bundle: bundle.json and the verdict, as `info --json` prints them.
        certificate: parity.json; None without one.
        runtime: version, engine, precision and what else `GET /v1/bundle` says, all but the largest batch.
    """

    bundle: dict[str, object]
    certificate: dict[str, object] | None
    runtime: dict[str, object]

    def body(self, batch: int) -> bytes:
        """Return the JSON that is answered.

        Args:
            batch: the largest that is in use.
        """
        record = {
            "bundle": self.bundle,
            "certificate": self.certificate,
            "runtime": {**self.runtime, "batch": batch},
        }
        return json.dumps(record, allow_nan=False).encode() + b"\n"


def read_facts(bundle: Bundle, recognizer: Recognizer, detector: Detector, options: EngineOptions) -> Facts:
    """Gather the facts of a bundle that is loaded, and of what runs it.

    Raises:
        BundleError: its certificate is damaged.
    """
    cpu_class = str(environment()["cpu_class"])
    engine = recognizer.engine.describe()
    runtime = {
        "version": edge_fer.__version__,
        "engine": f"{engine['engine']} {engine['version']}",
        "precision": bundle.spec.precision,
        "threads": engine.get("threads"),
        "device": engine.get("device") or options.device or "cpu",
        "detector": detector.name,
        "certified_here": is_certified(bundle, cpu_class),
        # Folders of this machine are nobody else's business.
        "summary": summary(bundle, cpu_class).replace(str(bundle.path), bundle.path.name),
        "min_reliability": recognizer.min_reliability,
    }
    return Facts(
        bundle={**bundle.to_json(), "verdict": bundle.verdict},
        certificate=bundle.certificate(),
        runtime=runtime,
    )
