"""The publisher against a real mosquitto that is stopped, frozen, killed, started again, or refuses it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edge_fer.errors import BrokerError
from edge_fer.mqtt.address import Address, parse_address
from edge_fer.mqtt.spool import Spool
from edge_fer.stopping import Stop
from tests.edge_fer.mqtt.mosquitto import Listener, Mosquitto, free_port, once, wait_for

pytest.importorskip("paho.mqtt.client")

from edge_fer.mqtt import publisher as publishing
from edge_fer.mqtt.publisher import Publisher

TOPIC, AVAILABILITY = "home/porch", "home/porch/availability"
# What may come twice after a break: 20 from the publisher to the broker, 20 from the broker to the listener.
TWICE = 40


def address(port: int, login: str = "", scheme: str = "mqtt") -> Address:
    return parse_address(f"{scheme}://{login}localhost:{port}/{TOPIC}", {})


def numbers(count: int, start: int = 0) -> list[str]:
    return [f'{{"frame": {number}}}' for number in range(start, start + count)]


def feed(publisher: Publisher, texts: list[str], per_second: float) -> None:
    for text in texts:
        publisher.publish(text)
        time.sleep(1 / per_second)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts follow each other fast, and the end not wait for long."""
    monkeypatch.setattr(publishing, "_wait_s", lambda attempt: 0.1)
    monkeypatch.setattr(publishing, "_LAST_S", 3.0)


def test_results_arrive_in_order_between_online_and_offline(
    broker: Mosquitto, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = numbers(800)  # for a listener that is slow mosquitto keeps 1,000
    with Publisher(address(broker.port), Stop()) as publisher:
        for text in texts:
            publisher.publish(text)
    assert publisher.undelivered == 0
    wait_for(lambda: len(listener.heard) == 802)
    assert [text for _, text, _ in listener.heard] == ["online", *texts, "offline"]
    assert listener.qos == {1}
    with Listener(broker.port, name="late") as late:
        wait_for(lambda: late.heard == [(AVAILABILITY, "offline", True)])
    assert capsys.readouterr().err == ""


def test_a_result_leaves_at_once_and_the_end_is_a_clean_one(broker: Mosquitto) -> None:
    with Publisher(address(broker.port), Stop()) as publisher:
        started = time.monotonic()
        for text in numbers(5):
            publisher.publish(text)
            wait_for(lambda: publisher.undelivered == 0)
        assert time.monotonic() - started < 2
        broker.send(signal.SIGSTOP)
        threading.Timer(0.7, broker.send, (signal.SIGCONT,)).start()
    # It parted from the broker, slow as that was, which had no need to tell of its last will.
    wait_for(lambda: re.search(r"Client edgefer\w{16} disconnected", broker.log))


def test_a_broker_is_stopped_and_started_while_results_flow(
    broker: Mosquitto, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = numbers(600)
    with Publisher(address(broker.port), Stop()) as publisher:
        feed(publisher, texts[:150], 300)
        broker.stop()
        feed(publisher, texts[150:300], 300)
        broker.start()
        feed(publisher, texts[300:], 300)
    wait_for(lambda: listener.texts(AVAILABILITY)[-1] == "offline")
    heard = listener.texts(TOPIC)
    assert once(heard) == texts
    assert len(heard) - len(texts) <= TWICE
    away, back = capsys.readouterr().err.splitlines()
    assert away.startswith(f"note: the broker localhost:{broker.port} is away, ")
    assert re.fullmatch(rf"note: the broker localhost:{broker.port} is back: [\d,]+ results waited", back)


@pytest.mark.usefixtures("hurried")
def test_what_was_in_flight_when_the_broker_died_is_sent_again(broker: Mosquitto, listener: Listener) -> None:
    texts, spool = numbers(100), Spool()
    with Publisher(address(broker.port), Stop(), spool=spool) as publisher:
        feed(publisher, texts[:10], 100)
        wait_for(lambda: len(listener.texts(TOPIC)) == 10)
        broker.send(signal.SIGUSR1)  # it writes the listener's session down, which would die with it
        time.sleep(0.2)
        broker.send(signal.SIGSTOP)
        feed(publisher, texts[10:50], 100)
        wait_for(lambda: spool.waiting == 20)  # the other 20 are in the sockets of a frozen broker
        broker.stop(signal.SIGKILL)
        broker.start()
        feed(publisher, texts[50:], 100)
    wait_for(lambda: listener.texts(AVAILABILITY)[-1] == "offline")
    assert once(listener.texts(TOPIC)) == texts


def test_nobody_waits_for_a_frozen_broker(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_STOPPED_S", 1.0)
    stop = Stop()
    with Publisher(address(broker.port), stop) as publisher:
        broker.send(signal.SIGSTOP)
        started = time.monotonic()
        for text in numbers(9000):
            publisher.publish(text)
        assert time.monotonic() - started < 1
        stop.signal = signal.SIGTERM
        started = time.monotonic()
    assert 0.9 < time.monotonic() - started < 3
    assert publisher.undelivered == 9000


@pytest.mark.usefixtures("hurried")
def test_above_the_bound_the_oldest_are_dropped_and_that_is_told(
    broker: Mosquitto, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = numbers(100)
    with Publisher(address(broker.port), Stop(), spool=Spool(messages=40)) as publisher:
        feed(publisher, texts[:5], 100)
        wait_for(lambda: len(listener.texts(TOPIC)) == 5)
        broker.stop()
        feed(publisher, texts[5:95], 1000)
        broker.start()
        wait_for(lambda: texts[94] in listener.texts(TOPIC))
        feed(publisher, texts[95:], 100)
    wait_for(lambda: listener.texts(AVAILABILITY)[-1] == "offline")
    assert once(listener.texts(TOPIC)) == texts[:5] + texts[55:]
    assert publisher.undelivered == 50
    name = f"the broker localhost:{broker.port}"
    *first, back, error = capsys.readouterr().err.splitlines()
    full, away = sorted(first)
    assert full == f"note: 40 results wait for {name}, and more are not kept: the oldest are dropped"
    assert away.startswith(f"note: {name} is away, ")
    assert back == f"note: {name} is back: 40 results waited, 50 older ones were dropped"
    assert error == f"error: 50 of 100 results did not reach {name}; 50 of them were dropped"


@pytest.mark.usefixtures("hurried")
def test_a_broker_that_is_away_at_the_start_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = Mosquitto(tmp_path / "later")
    started = time.monotonic()
    with Publisher(address(later.port), Stop()) as publisher:
        assert time.monotonic() - started < 2  # it was refused at once
        feed(publisher, numbers(3), 100)
        later.start()
        wait_for(lambda: publisher.undelivered == 0)
    later.stop()
    away, back = capsys.readouterr().err.splitlines()
    assert "is away, connection refused: results wait for it" in away and "is back: 3 results waited" in back


@pytest.mark.parametrize("results", [0, 3])
def test_the_end_waits_for_a_broker_only_if_something_waits_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: int
) -> None:
    monkeypatch.setattr(publishing, "_LAST_S", 1.0)
    port = free_port()
    with Publisher(address(port), Stop()) as publisher:
        feed(publisher, numbers(results), 1000)
        started = time.monotonic()
    assert (time.monotonic() - started > 0.9) == (results > 0) and time.monotonic() - started < 3
    lines = capsys.readouterr().err.splitlines()[1:]
    text = f"error: 3 of 3 results did not reach the broker localhost:{port} (connection refused)"
    assert lines == ([text] if results else [])


def test_a_host_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with Publisher(parse_address("mqtt://no-such-host.invalid/porch", {}), Stop()):
        wait_for(lambda: "no such host" in capsys.readouterr().err)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that wants a login: user `me too`, password `p/w@1:2 %`."""
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("no mosquitto_passwd on this machine")
    passwords = tmp_path / "passwords"
    subprocess.run([program, "-b", "-c", passwords, "me too", "p/w@1:2 %"], check=True)
    passwords.chmod(0o644)
    with Mosquitto(tmp_path / "broker", f"password_file {passwords}", anonymous=False) as started:
        yield started


def test_a_login(guarded: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    login = f"{quote('me too')}:{quote('p/w@1:2 %', safe='')}@"
    with Listener(guarded.port, user="me too", password="p/w@1:2 %") as listener:
        with Publisher(address(guarded.port, login), Stop()) as publisher:
            publisher.publish("{}")
        wait_for(lambda: listener.texts(TOPIC) == ["{}"])
    for wrong in ("", "me%20too:hunter2@", "somebody:hunter2@", "me%20too@"):
        with (
            pytest.raises(BrokerError, match="it refuses the login: not authorized; check user") as error,
            Publisher(address(guarded.port, wrong), Stop()),
        ):
            pass
        assert "hunter2" not in str(error.value)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hurried")
def test_a_login_that_is_refused_later_ends_nothing(
    guarded: Mosquitto, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publishing, "_LAST_S", 0.5)
    guarded.stop()
    with Publisher(address(guarded.port, "me:hunter2@"), Stop()) as publisher:
        guarded.start()
        publisher.publish("{}")
        time.sleep(0.5)
    assert publisher.undelivered == 1
    err = capsys.readouterr().err
    assert "(it refuses the login: not authorized)" in err and "hunter2" not in err


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and key.pem and cert.pem of localhost, that it signed."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")

    def run(text: str) -> None:
        subprocess.run([openssl, *text.split()], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    signed = "-in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    run(f"req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority")
    run(f"req {key} -keyout key.pem -out request.pem -subj /CN=localhost")
    run(f"x509 -req {signed} -out cert.pem")
    return folder


@pytest.fixture
def secured(tmp_path: Path, certificates: Path) -> Iterator[Mosquitto]:
    files = (f"certfile {certificates}/cert.pem", f"keyfile {certificates}/key.pem")
    with Mosquitto(tmp_path / "broker", *files, "listener 0 127.0.0.1") as started:
        yield started


def test_tls(secured: Mosquitto, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    texts = numbers(500)
    with Publisher(address(secured.port, scheme="mqtts"), Stop()) as publisher:
        for text in texts:
            publisher.publish(text)
    assert publisher.undelivered == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("host", "trusted", "said"),
    [
        ("localhost", False, "certificate is not accepted, unable to get local issuer certificate"),
        ("127.0.0.1", True, "certificate is not accepted, IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_accepted(
    secured: Mosquitto,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    host: str,
    trusted: bool,
    said: str,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with Publisher(parse_address(f"mqtts://{host}:{secured.port}/{TOPIC}", {}), Stop()):
        pass
    assert said in capsys.readouterr().err


def test_tls_where_there_is_none(broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    with Publisher(address(broker.port, scheme="mqtts"), Stop()):
        pass
    assert f"the broker localhost:{broker.port} is away, " in capsys.readouterr().err


@pytest.mark.usefixtures("hurried")
def test_online_is_said_again_when_an_older_will_may_have_come(
    broker: Mosquitto, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_STEADY_S", 0.5)
    with Publisher(address(broker.port), Stop()):
        wait_for(lambda: listener.texts(AVAILABILITY) == ["online", "online"])


def test_pauses_grow_from_1_to_30_seconds_and_differ() -> None:
    for attempt in range(2000):
        longest = min(30.0, 2.0 ** (attempt + 1)) if attempt < 10 else 30.0
        assert longest / 2 <= publishing._wait_s(attempt) <= longest
    assert len({publishing._wait_s(0) for _ in range(50)}) > 40
