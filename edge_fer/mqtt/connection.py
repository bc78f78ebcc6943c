"""One connection to a broker, from its CONNECT to its end. Never opened again, so that nothing outlives it.

Paho keeps messages of its own over a reconnect, sends newer ones before them, and writes before it has read
what a closing broker acknowledged. So each connection has a client of its own, and its socket is waited for
here, which is what paho calls an external event loop.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge_fer.errors import BrokerError
from edge_fer.mqtt.address import Address

if TYPE_CHECKING:
    from paho.mqtt.client import ConnectFlags, DisconnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

ONLINE, OFFLINE = b"online", b"offline"
KEEPALIVE_S = 15  # the broker gives a silent client up after one and a half of it

_OPEN_S = 5.0
"""Seconds for each of: the TCP connection, TLS, the broker's answer to the login."""

_QOS = 1
_UNAVAILABLE = 136  # the one refusal that passes by itself


class Rejected(BrokerError):
    """The broker is there and does not want this client: a wrong password, say."""


class Connection:
    """Publishes with QoS 1, and flips the availability topic to `offline` when it ends without `leave`.

    Not thread-safe. `step` has to be called again and again; it alone reads and writes.

    Args:
        address: the broker and the login.
        client_id: of the process, so that the broker ends an older connection of it at once.
        wake: a socket; a byte on it ends the wait of `step`.
    """

    def __init__(self, address: Address, client_id: str, wake: socket.socket) -> None:
        self._address = address
        self._wake = wake
        self._accepted = False
        self._reason = "it closed the connection"
        self._settled: list[int] = []
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=True,
            protocol=MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _OPEN_S
        client.max_inflight_messages_set(0)  # who sends bounds them
        client.will_set(address.availability, OFFLINE, _QOS, retain=True)
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_socket_register_write = lambda *_: None  # set, it keeps paho from writing wherever it is
        self._client = client

    def open(self) -> None:
        """Connect and log in.

        Raises:
            Rejected: the login is not accepted.
            BrokerError: the broker cannot be reached, or does not answer.
        """
        try:
            self._client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:  # ValueError: a certificate, a name that cannot be one
            raise BrokerError(_explain(error, self._address.tls)) from error
        deadline = time.monotonic() + _OPEN_S
        while not self._accepted:
            self.step(0.1)
            if time.monotonic() > deadline:
                raise BrokerError(f"no answer to the login within {_OPEN_S:.0f} s")

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand over a message; return the number by which `step` tells that the broker has it."""
        return self._client.publish(topic, payload, _QOS, retain).mid

    def step(self, timeout_s: float) -> list[int]:
        """Read or write what there is, waiting for it; return the messages that were acknowledged.

        Raises:
            Rejected: the login is not accepted.
            BrokerError: the connection is lost.
        """
        sock = self._client.socket()
        if sock is None:
            raise BrokerError(self._reason)
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        writers = [sock] if self._client.want_write() else []
        readable, writable, _ = select.select([sock, self._wake], writers, [], 0.0 if buffered else timeout_s)
        if self._wake in readable:
            self._wake.recv(4096)
        if sock in readable or buffered:
            self._client.loop_read()
        elif sock in writable:  # only now: a write that fails would throw away what is unread
            self._client.loop_write()
        self._client.loop_misc()
        settled, self._settled = self._settled, []
        return settled

    def leave(self) -> None:
        """Part from the broker, which keeps its last will to itself then."""
        self._client.disconnect()
        deadline = time.monotonic() + 1.0
        while self._client.socket() is not None and time.monotonic() < deadline:
            self.step(0.1)

    def close(self) -> None:
        """Drop the connection, if there still is one."""
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _on_connect(
        self,
        client: Client,
        data: object,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._accepted = not code.is_failure
        if code.is_failure:
            text = f"it refuses the login: {str(code).lower()}"
            raise BrokerError(text) if code.value == _UNAVAILABLE else Rejected(text)

    def _on_disconnect(
        self,
        client: Client,
        data: object,
        flags: DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if str(code) == "Keep alive timeout":
            self._reason = "it does not answer any more"

    def _on_publish(
        self, client: Client, data: object, number: int, code: ReasonCode, properties: Properties
    ) -> None:
        self._settled.append(number)


def _explain(error: OSError | ValueError, tls: bool) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted, {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS on this port, expected one that does: mqtts:// has 8883"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "no such host is known here"
    if isinstance(error, TimeoutError):
        return f"no answer within {_OPEN_S:.0f} s"
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return reason[:1].lower() + reason[1:]
