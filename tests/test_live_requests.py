"""What the recorder asks for, over real sockets, of an exchange that answers as it is told."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ingest import live_requests
from ingest.live_books import Change, LiveBook
from ingest.live_candles import LiveCandles
from ingest.live_requests import LiveRequests
from ingest.settings import Settings

MINUTE_MS = 60_000
DEPTH = {"lastUpdateId": 9, "bids": [["1", "1"]], "asks": [["2", "1"]]}


def candle(minute: int) -> list[Any]:
    opened = minute * MINUTE_MS
    return [opened, *["1"] * 5, opened + MINUTE_MS - 1, "1", 1, "1", "1", "0"]


class Told(ThreadingHTTPServer):
    """Gives the next of the bodies that it was told to give, then nothing but empty lists."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.bodies: list[str] = []
        self.headers: dict[str, str] = {}
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Told

    def do_GET(self) -> None:
        body = self.server.bodies.pop(0) if self.server.bodies else "[]"
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(live_requests, "_RETRY_S", 0.01)
    with Told() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def requests(exchange: Told, tmp_path: Path) -> Iterator[LiveRequests]:
    settings = Settings(database=tmp_path / "none.duckdb", exchange_url=exchange.url)
    found = LiveRequests(settings, "um", lambda *_: None, lambda: 0)
    found._exchange.client.enableRateLimit = False
    yield found
    found.close()


def stream(minute: int, *, is_closed: bool) -> dict[str, Any]:
    opened = minute * MINUTE_MS
    return {
        "E": opened + (MINUTE_MS if is_closed else 4_000),
        "s": "BTCUSDT",
        "k": {"t": opened, "i": "1m", "x": is_closed},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"code": -1000, "msg": "unknown"},
        [[1, 2]] * 1000,
        [candle(5)],
        json.dumps([candle(1), candle(2)])[:-20],
    ],
)
def test_a_candle_is_asked_for_until_it_comes(
    exchange: Told, requests: LiveRequests, wrong: Any
) -> None:
    asked: list[tuple[str, str, int, int]] = []
    candles = LiveCandles(lambda *span: asked.append(span))
    candles.take(stream(0, is_closed=True))
    candles.take(stream(3, is_closed=False))
    assert asked == [("BTCUSDT", "1m", MINUTE_MS, 3 * MINUTE_MS)]
    exchange.bodies = [wrong if isinstance(wrong, str) else json.dumps(wrong)]
    asyncio.run(requests.candles(candles, *asked[-1]))
    candles.take(stream(3, is_closed=False))
    assert asked[1:] == asked[:1]
    exchange.bodies = [json.dumps([candle(1)])]
    asyncio.run(requests.candles(candles, *asked[-1]))
    candles.take(stream(3, is_closed=False))
    assert asked[2:] == [("BTCUSDT", "1m", 2 * MINUTE_MS, 3 * MINUTE_MS)]
    exchange.bodies = [json.dumps([candle(2)])]
    asyncio.run(requests.candles(candles, *asked[-1]))
    candles.take(stream(3, is_closed=True))
    assert len(asked) == 3


def test_a_candle_that_the_exchange_passes_over_is_not_asked_for_again(
    exchange: Told, requests: LiveRequests
) -> None:
    asked: list[tuple[str, str, int, int]] = []
    candles = LiveCandles(lambda *span: asked.append(span))
    candles.take(stream(0, is_closed=True))
    candles.take(stream(4, is_closed=False))
    exchange.bodies = [json.dumps([candle(1), candle(3)])]
    asyncio.run(requests.candles(candles, *asked[-1]))
    candles.take(stream(4, is_closed=True))
    assert len(asked) == 1


@pytest.mark.parametrize("wrong", ["[]", '{"code":-1000}', json.dumps(DEPTH)[:30]])
def test_a_book_is_asked_for_until_it_comes(
    exchange: Told, requests: LiveRequests, wrong: str
) -> None:
    asked: list[LiveBook] = []
    book = LiveBook("BTCUSDT", lambda *_: None, asked.append, 0)
    for number in (10, 11):
        data = {"U": number, "u": number, "pu": number - 1, "E": number, "b": [], "a": []}
        book.take(Change.of(data))
        exchange.bodies = [wrong if number == 10 else json.dumps(DEPTH)]
        asyncio.run(requests.book(asked[-1]))
    assert (len(asked), book.is_whole) == (2, True)


def test_a_pause_that_is_a_date_keeps_nobody_from_asking_again(
    exchange: Told, requests: LiveRequests
) -> None:
    exchange.status, exchange.headers = 429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    asked: list[LiveBook] = []
    book = LiveBook("BTCUSDT", lambda *_: None, asked.append, 0)
    for number in (10, 11):
        data = {"U": number, "u": number, "pu": number - 1, "E": number, "b": [], "a": []}
        book.take(Change.of(data))
        asyncio.run(requests.book(book))
    assert len(asked) == 2
