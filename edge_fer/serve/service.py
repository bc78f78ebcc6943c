"""What the routes share: the worker, the monitor, the facts, the rules for clients, and how it all is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_fer.serve.access import Access
from edge_fer.serve.bodies import Bodies
from edge_fer.serve.facts import Facts
from edge_fer.serve.settings import ServeSettings

if TYPE_CHECKING:
    from edge_fer.serve.monitor import Monitor
    from edge_fer.serve.worker import Status, Worker


@dataclass(slots=True, kw_only=True, eq=False)
class Service:
    """A service that answers.

    Attributes:
        worker: what recognises.
        monitor: what counts.
        facts: what is known of the bundle and of this run.
        settings: what the user asked for.
        access: who may ask.
        bodies: what receives requests' bodies.
        draining: whether the service is being stopped.
    """

    worker: Worker
    monitor: Monitor
    facts: Facts
    settings: ServeSettings
    access: Access = field(init=False)
    bodies: Bodies = field(init=False)
    draining: bool = False

    def __post_init__(self) -> None:
        self.access = Access(self.settings.token)
        limits = self.settings.limits
        # More files than may wait would be refused as often as they are sent.
        files = min(limits.files, self.settings.queue)
        self.bodies = Bodies(self.settings.max_bytes, replace(limits, files=files))

    @property
    def status(self) -> Status:
        """Whether a picture that comes now would be answered, or why not."""
        return "draining" if self.draining else self.worker.status
