"""Closed candles that did not come are asked for, once, also after a restart."""

import json
from typing import Any

from ingest.live_candles import LiveCandles
from ingest.segments import Frame

MINUTE_MS = 60_000
Asked = list[tuple[str, str, int, int]]


def kline(minute: int, *, is_closed: bool, event_ms: int | None = None) -> dict[str, Any]:
    opened = minute * MINUTE_MS
    event = opened + MINUTE_MS if event_ms is None else event_ms
    candle = dict.fromkeys("ochlvnqVQ", "1") | {"t": opened, "T": opened + 59_999, "i": "1m"}
    return {"e": "kline", "E": event, "s": "BTCUSDT", "k": candle | {"x": is_closed}}


def frame(message: Any, stream: str = "btcusdt@kline_1m") -> Frame:
    return Frame(0, stream, json.dumps(message).encode())


def watching() -> tuple[LiveCandles, Asked]:
    asked: Asked = []
    return LiveCandles(lambda *span: asked.append(span)), asked


def test_candles_in_order_are_not_asked_for() -> None:
    candles, asked = watching()
    for minute in range(3):
        candles.take(kline(minute, is_closed=False, event_ms=minute * MINUTE_MS + 30_000))
        candles.take(kline(minute, is_closed=True))
        candles.take(kline(minute, is_closed=True))
    assert asked == []


def test_a_candle_is_missing_once_the_next_one_is_three_seconds_old() -> None:
    candles, asked = watching()
    candles.take(kline(0, is_closed=True))
    candles.take(kline(2, is_closed=False, event_ms=2 * MINUTE_MS + 3_000))
    assert asked == []
    candles.take(kline(2, is_closed=False, event_ms=2 * MINUTE_MS + 3_001))
    candles.take(kline(2, is_closed=False, event_ms=2 * MINUTE_MS + 3_500))
    assert asked == [("BTCUSDT", "1m", MINUTE_MS, 2 * MINUTE_MS)]
    candles.have("BTCUSDT", "1m", 2 * MINUTE_MS)
    candles.answered("BTCUSDT", "1m")
    candles.take(kline(2, is_closed=True))
    candles.take(kline(3, is_closed=True))
    assert len(asked) == 1


def test_what_could_not_be_had_is_asked_for_again() -> None:
    candles, asked = watching()
    candles.take(kline(0, is_closed=True))
    candles.take(kline(2, is_closed=True))
    candles.answered("BTCUSDT", "1m")
    candles.take(kline(3, is_closed=True))
    assert asked == [
        ("BTCUSDT", "1m", MINUTE_MS, 2 * MINUTE_MS),
        ("BTCUSDT", "1m", MINUTE_MS, 3 * MINUTE_MS),
    ]


def test_a_hole_that_an_earlier_recording_left_is_asked_for() -> None:
    candles, asked = watching()
    answer = [[0, *["1"] * 5, 59_999, *["1"] * 5]]
    heard = [kline(4, is_closed=True), kline(2, is_closed=True), kline(1, is_closed=True)]
    frames = [frame(message) for message in heard]
    frames += [frame(answer, "rest:klines:BTCUSDT:1m"), frame({"k": 1}), frame("x")]
    frames += [frame(kline(9, is_closed=True) | {"k": {"t": "x", "i": "7m", "x": True}})]
    candles.resume({}, frames)
    assert candles.expected == {"BTCUSDT:1m": 3 * MINUTE_MS}
    assert asked == []
    candles.take(kline(5, is_closed=True))
    assert asked == [("BTCUSDT", "1m", 3 * MINUTE_MS, 5 * MINUTE_MS)]
    candles.have("BTCUSDT", "1m", 5 * MINUTE_MS)
    candles.answered("BTCUSDT", "1m")
    candles.take(kline(6, is_closed=True))
    assert len(asked) == 1


def test_what_an_earlier_recording_missed_long_ago_is_asked_for() -> None:
    candles, asked = watching()
    frames = [frame(kline(minute, is_closed=True)) for minute in (4, 8, 9)]
    candles.resume({"BTCUSDT:1m": 4 * MINUTE_MS, "OLDUSDT:5m": 0}, frames)
    assert candles.expected == {"BTCUSDT:1m": 5 * MINUTE_MS, "OLDUSDT:5m": 0}
    candles.take(kline(10, is_closed=True))
    assert asked == [("BTCUSDT", "1m", 5 * MINUTE_MS, 10 * MINUTE_MS)]
