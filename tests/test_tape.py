"""Frames become the rows that landing makes of them, also where a message is unlike the others."""

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from ingest import messages
from ingest.kinds import KINDS
from ingest.segments import Frame
from ingest.validation import Origin, check
from serving.tape import Tape

MINUTE_MS = 60_000
OPENED_MS = 1_735_722_000_000


@pytest.fixture
def tape() -> Iterator[Tape]:
    tape = Tape("binance", "um", ["klines", "trades"])
    yield tape
    tape.close()


def frame(event: str, **data: object) -> Frame:
    message = {"e": event, "E": OPENED_MS, "s": "BTCUSDT", **data}
    return Frame(OPENED_MS * 1000, f"btcusdt@{event}", orjson.dumps(message))


def kline(number: int, **other: object) -> Frame:
    opened = OPENED_MS + number * MINUTE_MS
    numbers = dict.fromkeys("oclhvqVQ", "1.5")
    candle = {"t": opened, "T": opened + MINUTE_MS - 1, "i": "1m", "n": 3, "x": True, **numbers}
    return frame("kline", k=candle | other)._replace(received_at=(opened + MINUTE_MS) * 1000)


def trade(number: int, **other: object) -> Frame:
    said = {"a": number, "p": "1.5", "q": "2", "f": 1, "l": 1, "T": OPENED_MS, "m": True}
    return frame("aggTrade", **(said | other))


def taken(tape: Tape, kind: str, *frames: Frame) -> list[tuple[object, ...]]:
    tape.add(frames)
    rows = tape.take().get(kind)  # type: ignore[call-overload]
    names = {"klines": ("open_time", "volume"), "trades": ("trade_id", "price")}[kind]
    if rows is None:
        return []
    columns = [rows[name].to_pylist() for name in names]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_message_with_values_of_other_types_is_read_or_left_out(
    tape: Tape, one_by_one: bool
) -> None:
    candles = [kline(0), kline(1, v=1.5), kline(2, x="true"), kline(3, x=None), kline(4, x=False)]
    candles += [kline(5, x={}), kline(6, v=[1]), kline(7)]
    trades = [trade(1), trade(2, p=1.5), trade("3"), trade("x"), trade(5, p={}), trade(6)]
    for kind, frames, expected in (
        ("klines", candles, [0, 1, 2, 7]),
        ("trades", trades, [1, 2, 3, 6]),
    ):
        groups = [[each] for each in frames] if one_by_one else [frames]
        found = [row for group in groups for row in taken(tape, kind, *group)]
        if kind == "klines":
            places = [(row[0].timestamp() * 1000 - OPENED_MS) / MINUTE_MS for row in found]  # type: ignore[attr-defined]
        else:
            places = [row[0] for row in found]  # type: ignore[misc]
        assert (places, {row[1] for row in found}) == (expected, {1.5})


def test_a_candle_that_is_said_to_have_closed_in_the_future_is_left_out(tape: Tape) -> None:
    ahead = kline(59)._replace(received_at=OPENED_MS * 1000)
    wrong = kline(61)._replace(received_at=OPENED_MS * 1000)
    assert len(taken(tape, "klines", kline(0), ahead, wrong)) == 2


def test_recordings_of_the_exchange_are_read_as_landing_reads_them(
    shared_data: Path, tape: Tape
) -> None:
    frames = []
    for path in sorted((shared_data / "raw_captures").glob("*.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            start = line.find(b"{")
            if start >= 0 and b"wss://" not in line[:start]:
                stream = orjson.loads(line[start:]).get("stream", "")
                frames.append(Frame(OPENED_MS * 1000, stream, line[start:].strip()))
    tape.add(frames)
    found = tape.take()
    parsed = messages.rows(frames).tables
    origin = Origin("binance", "um", "websocket:serve", datetime.now(UTC))
    for kind in ("klines", "trades"):
        landed = check(KINDS[kind], parsed[kind], origin).rows  # type: ignore[index]
        if kind == "klines":
            landed = landed.filter(landed["is_closed"])
        assert found[kind].equals(landed)  # type: ignore[index]
        assert len(landed) > 0
