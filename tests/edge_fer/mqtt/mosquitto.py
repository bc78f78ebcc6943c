"""A real broker on 127.0.0.1 with a temporary configuration, and somebody who listens to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Mosquitto:
    """A broker with the persistence of Debian's configuration, that is stopped and started again at will.

    Args:
        folder: for its files.
        settings: further lines of its configuration.
        anonymous: whether it takes clients without a login.
    """

    def __init__(self, folder: Path, *settings: str, anonymous: bool = True) -> None:
        if PROGRAM is None:
            pytest.skip("no mosquitto on this machine: apt-get install mosquitto")
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        lines = [
            *(["user root"] if os.geteuid() == 0 else []),  # another user could not write to the folder
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(anonymous).lower()}",
            "persistence true",
            f"persistence_location {folder}/",
            *settings,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> Mosquitto:
        assert PROGRAM is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", self._config], stdout=log, stderr=log)
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    __enter__ = start

    def __exit__(self, *exc: object) -> None:
        self.stop(signal.SIGKILL)


class Listener:
    """Hears every message of a broker, with a session that outlives its own and the broker's absence.

    Attributes:
        heard: topic, text and whether it was a retained one, in the order of their coming.
        qos: all qualities of service that messages came with; no better than what they were published with.
    """

    def __init__(
        self, port: int, *, name: str = "listener", user: str | None = None, password: str | None = None
    ) -> None:
        client = pytest.importorskip("paho.mqtt.client")
        self.heard: list[tuple[str, str, bool]] = []
        self.qos: set[int] = set()
        self._port = port
        self._subscribed = threading.Event()
        self._off = threading.Event()
        self._client = client.Client(client.CallbackAPIVersion.VERSION2, name, clean_session=False)
        self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._hear
        self._thread = threading.Thread(target=self._listen)

    def _hear(self, client: Client, data: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload.decode(), message.retain))
        self.qos.add(message.qos)

    def _listen(self) -> None:
        while not self._off.is_set():
            try:
                self._client.connect("127.0.0.1", self._port, 60)
                while self._client.loop(0.05) == 0 and not self._off.is_set():
                    pass
            except OSError:
                pass
            self._off.wait(0.05)

    def texts(self, topic: str) -> list[str]:
        """Return what was published to a topic, in order; messages that came twice are in it twice."""
        return [text for name, text, _ in list(self.heard) if name == topic]

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._off.set()
        self._thread.join()
        self._client.disconnect()


def once(texts: list[str]) -> list[str]:
    """Return texts without those that came before."""
    return list(dict.fromkeys(texts))
