"""Signals reach a webhook over real sockets, whatever it does, and nothing waits for it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from serving import announcements
from serving.announcements import Announcements

KEY = ("model_version", "symbol", "interval_minutes", "opened_at")
#: What the receiver does with a request: an answer, or "silent" or "torn".
Behaviour = int | str


class Receiver:
    """A webhook that answers as it is told, and remembers what it accepted."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.accepted: list[dict[str, object]] = []
        self.requests = 0
        self.heard = threading.Condition()
        self.released = threading.Event()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.heard:
            assert self.heard.wait_for(condition, timeout=20)


@contextmanager
def receiving(receiver: Receiver) -> Iterator[SecretStr]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.heard:
                receiver.requests += 1
                then = receiver.behaviours.pop(0) if receiver.behaviours else 200
                if then == 200:
                    receiver.accepted.append(json.loads(body))
                receiver.heard.notify_all()
            if then == "silent":
                receiver.released.wait(20)
                self.close_connection = True
            elif then == "torn":
                self.wfile.write(b"no HTTP at all\r\n\r\n")
                self.close_connection = True
            elif isinstance(then, int):
                self.send_response(then)
                self.send_header("Location", "/login")
                self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield SecretStr(f"http://127.0.0.1:{server.server_address[1]}/s3cret")
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def signal(number: int) -> dict[str, object]:
    return {
        "model_name": "ml_a",
        "model_version": "v1",
        "symbol": "BTCUSDT",
        "interval_minutes": 5,
        "opened_at": f"2025-01-01T00:{number:02}:00",
        "probability": 0.75,
        "signal": 1,
    }


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(announcements, "LONGEST_PAUSE_S", 0.02)


def test_each_signal_arrives_in_order_with_its_key_in_spite_of_failures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver = Receiver(503, "torn", 200, 429, 500, 200)
    signals = [signal(number) for number in range(4)]
    with receiving(receiver) as address, Announcements(address, stdout=True) as told:
        for each in signals:
            told.tell(each)
        receiver.wait_for(lambda: len(receiver.accepted) == 4)
    assert receiver.accepted == signals
    assert receiver.requests == 8
    assert len({tuple(each[name] for name in KEY) for each in receiver.accepted}) == 4
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == signals
    assert "s3cret" not in printed.out + printed.err


def test_a_webhook_that_does_not_answer_delays_nobody_and_loses_nothing() -> None:
    receiver = Receiver("silent", "silent")
    with receiving(receiver) as address, Announcements(address, timeout_s=0.5) as told:
        begun = time.perf_counter()
        told.tell(signal(0))
        receiver.wait_for(lambda: receiver.requests == 1)
        for number in range(1, 100):
            told.tell(signal(number))
        took = time.perf_counter() - begun
        assert not receiver.accepted
        receiver.wait_for(lambda: len(receiver.accepted) == 100)
    assert took < 0.5
    assert receiver.accepted == [signal(number) for number in range(100)]


def test_what_is_refused_for_good_or_for_too_long_is_dropped_and_the_next_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver = Receiver(302, 404, *[500] * 5)
    with receiving(receiver) as address, Announcements(address, tried_for_s=0.0) as told:
        told.tell(signal(9))
        told.tell(signal(0))
        told.tell(signal(1))
        receiver.wait_for(lambda: receiver.requests == 3)
        receiver.behaviours.clear()
        told.tell(signal(2))
        receiver.wait_for(lambda: len(receiver.accepted) == 1)
    assert receiver.accepted == [signal(2)]
    text = capsys.readouterr().err
    assert "it answered 302" in text
    assert "it answered 404" in text
    assert "it answered 500" in text


def test_who_stops_tries_what_still_waits_once() -> None:
    receiver = Receiver(*[500] * 1000)
    with receiving(receiver) as address:
        with Announcements(address) as told:
            told.tell(signal(0))
            receiver.wait_for(lambda: receiver.requests > 2)
            told.tell(signal(1))
            with receiver.heard:
                receiver.behaviours.clear()
        assert receiver.accepted[-1] == signal(1)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="TAPEHOUSE_WEBHOOK_URL"):
        Announcements(SecretStr("ftp://127.0.0.1/s3cret"))
