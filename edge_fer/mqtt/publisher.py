"""Publishes results in a thread of its own: connects, sends what waits, starts over when it was cut off."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from edge_fer.cli_errors import complain, notice
from edge_fer.errors import BrokerError
from edge_fer.mqtt.address import Address
from edge_fer.mqtt.connection import OFFLINE, ONLINE, Connection, Rejected
from edge_fer.mqtt.spool import Spool
from edge_fer.stopping import Stop

_FIRST_S = 3.0  # the start waits so long for a broker that may refuse the login
_LAST_S = 10.0  # the end waits so long until everything is delivered,
_STOPPED_S = 3.0  # and so long after a signal or an error
_STEADY_S = 30.0  # a connection that held so long was a good one
_IN_FLIGHT = 20  # messages sent and not acknowledged: what may come twice after a break
_TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message that the broker keeps for those who come later.

    Attributes:
        topic: where it is published whenever a connection begins.
        payload: its bytes.
    """

    topic: str
    payload: bytes


class Publisher:
    """Takes results at once and delivers them in order, each at least once, until the block has ended.

    On the way in it waits at most 3 s for the broker's first answer, on the way out at most 10 s for the
    deliveries, 3 s after a signal or an error. What could not be delivered is told there in one line.

    Args:
        address: where to.
        stop: tells of signals.
        announcements: retained messages for every connection.
        spool: what keeps the results until they are delivered.

    Raises:
        BrokerError: on the way in: the broker does not accept the login. One that is away is waited for.
    """

    def __init__(
        self,
        address: Address,
        stop: Stop,
        *,
        announcements: Sequence[Announcement] = (),
        spool: Spool | None = None,
    ) -> None:
        self._address = address
        self._stop = stop
        self._announcements = (Announcement(address.availability, ONLINE), *announcements)
        self._spool = Spool() if spool is None else spool
        # One for the process, so that the broker ends a connection that it did not see break when the next
        # one comes. 23 letters and digits are what every broker takes (MQTT 3.1.1, section 3.1.3.1).
        self._client_id = "edgefer" + secrets.token_hex(8)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._lock = threading.Lock()
        self._starting = True
        self._answered = threading.Event()  # the first attempt has ended, in whatever way
        self._rejection: Rejected | None = None
        self._ending = threading.Event()  # nothing more will come
        self._quitting = threading.Event()  # nothing more is waited for
        self._connected = False
        self._delivered = 0
        self._away: str | None = None  # why, if the broker is away
        self._told = False  # that it is
        self._full = False
        self._dropped_before = 0

    @property
    def undelivered(self) -> int:
        """Results that the broker has not acknowledged, or that were dropped while it was away."""
        return len(self._spool) + self._spool.dropped

    def __enter__(self) -> Publisher:
        """Begin to connect."""
        self._thread.start()
        deadline = time.monotonic() + _FIRST_S
        while not self._answered.wait(_TICK_S) and time.monotonic() < deadline and self._stop.signal is None:
            pass
        with self._lock:
            self._starting = False
        if self._rejection is not None:
            self._close()
            raise BrokerError(
                f"the broker {self._address.broker}: {self._rejection}; check user and password of --mqtt"
            )
        return self

    def publish(self, text: str) -> None:
        """Take a result; never waits for the broker."""
        kept = self._spool.put(text.encode())
        if not kept and not self._full:
            self._full = True
            notice(
                f"{len(self._spool):,} results wait for the broker {self._address.broker}, and more are not"
                " kept: the oldest are dropped"
            )
        if self._spool.waiting <= 1:  # with more, the thread is not done with what came before
            self._wake()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what is left, within bounds, and part from the broker."""
        self._ending.set()
        self._wake()
        if kind is None or issubclass(kind, Exception):  # a second Ctrl-C does not want to wait
            self._await_delivery(_LAST_S if kind is None else _STOPPED_S)
        self._close()
        if self.undelivered:
            given, dropped = self._spool.given, self._spool.dropped
            reason = f" ({self._away})" if self._away else ""
            complain(
                f"{self.undelivered:,} of {given:,} results did not reach the broker"
                f" {self._address.broker}{reason}"
                + (f"; {dropped:,} of them were dropped" if dropped else "")
            )

    def _await_delivery(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        stopped = False
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_TICK_S)  # short waits, so that a signal's handler is run in between
            if self._stop.signal is not None and not stopped:
                stopped = True
                deadline = min(deadline, time.monotonic() + _STOPPED_S)
            if not self._connected and not len(self._spool):
                return  # whatever it tries, nobody waits for it

    def _close(self) -> None:
        self._quitting.set()
        self._ending.set()
        self._wake()
        self._thread.join(_TICK_S * 5)
        if not self._thread.is_alive():  # else it looks up a name or connects; it keeps no process alive
            self._woken.close()
            self._waker.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes without this byte, too
            self._waker.send(b"\0")

    def _run(self) -> None:
        attempt = -1
        while not self._quitting.is_set():
            connection = Connection(self._address, self._client_id, self._woken)
            began, delivered = time.monotonic(), self._delivered
            try:
                connection.open()
                self._serve(connection)
                return
            except BrokerError as error:
                if self._refused_at_the_start(error):
                    return
                self._tell_away(str(error))
            finally:
                connection.close()
                self._connected = False
                self._spool.rewind()
                self._answered.set()
            good = self._delivered > delivered or time.monotonic() - began > _STEADY_S
            attempt = 0 if good else attempt + 1
            self._pause(_wait_s(attempt))
            if self._ending.is_set() and not len(self._spool):
                return

    def _serve(self, connection: Connection) -> None:
        """Send what waits and what comes, until nothing more will come and all of it was acknowledged.

        Raises:
            BrokerError: the connection is lost.
        """
        self._announce(connection)
        self._connected = True
        self._answered.set()
        self._tell_back()
        sent: dict[int, int] = {}  # Paho's number of a message: the spool's
        again = time.monotonic() + _STEADY_S
        while not self._quitting.is_set():
            while len(sent) < _IN_FLIGHT and (entry := self._spool.take()) is not None:
                sent[connection.send(self._address.topic, entry.payload)] = entry.number
            if self._ending.is_set() and not sent:
                self._part(connection)
                return
            for number in connection.step(1.0):
                if number in sent:
                    self._spool.settle(sent.pop(number))
                    self._delivered += 1
            if time.monotonic() > again:
                # The last will of a process before this one may have come only now that the broker gave up
                # its connection, and would say `offline` for ever.
                again = float("inf")
                self._announce(connection)

    def _announce(self, connection: Connection) -> None:
        for message in self._announcements:
            connection.send(message.topic, message.payload, retain=True)

    def _part(self, connection: Connection) -> None:
        farewell = connection.send(self._address.availability, OFFLINE, retain=True)
        while not self._quitting.is_set():
            if farewell in connection.step(_TICK_S):
                connection.leave()
                return

    def _refused_at_the_start(self, error: BrokerError) -> bool:
        with self._lock:
            if not self._starting or self._answered.is_set() or not isinstance(error, Rejected):
                return False
            self._rejection = error
            return True

    def _tell_away(self, reason: str) -> None:
        if not self._told and not self._ending.is_set():  # at the end one line says what is not delivered
            self._told = True
            notice(f"the broker {self._address.broker} is away, {reason}: results wait for it")
        self._away = reason

    def _tell_back(self) -> None:
        self._away = None
        if not self._told:
            return
        self._told = self._full = False
        dropped = self._spool.dropped - self._dropped_before
        lost = f", {dropped:,} older ones were dropped" if dropped else ""
        notice(f"the broker {self._address.broker} is back: {len(self._spool):,} results waited{lost}")
        self._dropped_before = self._spool.dropped

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            self._quitting.wait(_TICK_S * 5)  # at the end there is no time for long pauses


def _wait_s(attempt: int) -> float:
    """Return the pause before the next attempt: 1 to 2 s, 2 to 4, ... 15 to 30, so that a fleet spreads."""
    longest = min(30.0, 2.0 ** (min(attempt, 8) + 1))
    return random.uniform(longest / 2, longest)
