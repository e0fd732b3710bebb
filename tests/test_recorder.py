"""Live recording: messages, segments, and the exchange's streams over real sockets."""

import asyncio
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest import messages, recorder, warehouse
from ingest.kinds import KINDS
from ingest.recorder import record
from ingest.recordings import SegmentWriter, land_segments, read_lines, recover
from ingest.settings import PROJECT_ROOT, Settings
from ingest.simulator import Market, simulator
from ingest.validation import Origin, check

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT", "XRPUSDT"], start=START, days=2, edge=1.0)
NOW = START + timedelta(days=1)
KLINE = {
    "e": "kline", "E": 1704067259000, "s": "BTCUSDT",
    "k": {
        "t": 1704067200000, "T": 1704067259999, "s": "BTCUSDT", "i": "1m", "o": "1", "c": "2",
        "h": "2", "l": "1", "v": "3", "n": 5, "x": True, "q": "6", "V": "1", "Q": "2",
    },
}  # fmt: skip


def clock() -> datetime:
    return NOW


def query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(settings.database) as connection:
        return connection.execute(sql).fetchall()


def test_recorded_messages_of_the_exchange_become_rows(shared_data: Path) -> None:
    names = {"kline": "klines", "aggTrade": "trades", "trade": "trades"} | {
        "forceOrder": "liquidations",
        "markPriceUpdate": "mark_prices",
    }
    expected: Counter[str] = Counter({"books": 3})
    lines = []
    for path in sorted((shared_data / "raw_messages").glob("[su]*/*.jsonl")):
        for line in path.read_text().splitlines():
            message = json.loads(line)
            if isinstance(message, list) or "data" not in message:
                message = {"stream": "", "data": message}
            if isinstance(message["data"], dict) and message["data"].get("e") in names:
                expected[names[message["data"]["e"]]] += 1
            lines.append(json.dumps(message | {"received_at": 1704067200000000}).encode())
    origin = Origin("binance", "um", "websocket:test", NOW)
    checked = {
        kind: check(KINDS[kind], table, origin) for kind, table in messages.rows(lines).items()
    }
    landed = {kind: part.rows.num_rows + part.rejects.num_rows for kind, part in checked.items()}
    assert landed == expected
    rejects = [row for part in checked.values() for row in part.rejects["reason"].to_pylist()]
    assert [reason[:22] for reason in rejects] == ["interval is not one of"]


def test_only_the_stream_tells_a_partial_book_from_a_change() -> None:
    data = {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": 1, "u": 2, "pu": 0,
            "b": [["1", "1"]], "a": [["2", "1"]]}  # fmt: skip
    assert messages.parse("btcusdt@depth@100ms", data) is None
    assert messages.parse("btcusdt@depth", data) is None
    parsed = messages.parse("btcusdt@depth20@100ms", data)
    assert parsed
    assert parsed[0] == "books"
    assert parsed[1]["last_update_id"] == 2
    spot = {"lastUpdateId": 7, "bids": [["1", "1"]], "asks": [["2", "1"]]}
    parsed = messages.parse("ethbtc@depth20@100ms", spot)
    assert parsed
    assert (parsed[1]["symbol"], parsed[1]["last_update_id"]) == ("ETHBTC", 7)


def test_a_segment_lands_exactly_once(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    with SegmentWriter(settings.segments_directory, "um", clock=clock) as writer:
        writer.write("btcusdt@kline_1m", KLINE)
        assert [path.suffix for path in settings.segments_directory.iterdir()] == [".part"]
    (segment,) = settings.segments_directory.iterdir()
    assert segment.name == f"um_20241231T000000_000000_{os.getpid()}.jsonl.gz"
    assert [json.loads(line)["data"] for line in read_lines(segment)] == [KLINE]
    assert land_segments(settings).row_count == 1
    assert land_segments(settings).row_count == 0
    assert query(
        settings, "select market, symbol, is_closed, source, received_at from raw.klines"
    ) == [("um", "BTCUSDT", True, f"websocket:{segment.name}", NOW)]


def test_a_torn_segment_gives_its_complete_lines_and_a_live_one_is_left_alone(
    tmp_path: Path,
) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    directory = settings.segments_directory
    with SegmentWriter(directory, "um", clock=clock) as writer:
        writer.write("btcusdt@kline_1m", KLINE)
        line = {"received_at": 1704067259000000, "stream": "btcusdt@kline_1m", "data": KLINE}
        torn = directory / "um_20240101T000000_000000_1.jsonl.part"
        torn.write_text(json.dumps(line) + "\n" + json.dumps(line)[:50])
        assert recover(directory) == [directory / "um_20240101T000000_000000_1.jsonl.gz"]
        assert land_segments(settings).row_count == 1
    assert land_segments(settings).row_count == 1


@pytest.mark.parametrize("market", ["spot", "um"])
def test_candles_and_books_are_recorded_from_the_streams(tmp_path: Path, market: Any) -> None:
    with simulator(MARKET, speed=120.0, now=NOW) as exchange:
        settings = Settings(
            database=tmp_path / "tapehouse.duckdb",
            exchange_url=exchange.url,
            symbols=["BTCUSDT", "XRPUSDT"],
        )
        report = record(settings, seconds=3, market=market, clock=clock)
    assert {line.series.kind for line in report.lines} >= {"klines", "books"}
    assert report.reject_count == 0
    assert query(
        settings,
        "select distinct market, symbol, len(bid_prices), len(ask_prices), received_at "
        "from raw.books order by symbol",
    ) == [(market, symbol, 20, 20, NOW) for symbol in ("BTCUSDT", "XRPUSDT")]
    closed = query(
        settings, "select distinct symbol from raw.klines where is_closed order by symbol"
    )
    assert closed == [("BTCUSDT",), ("XRPUSDT",)]
    assert query(
        settings, "select count_if(is_closed and epoch_ms(close_time) % 60000 <> 59999) "
        "from raw.klines"
    ) == [(0,)]  # fmt: skip


def test_a_lost_connection_is_taken_up_again(tmp_path: Path) -> None:
    with simulator(MARKET, speed=120.0, now=NOW) as exchange:
        exchange.faults.disconnect_after = 40
        settings = Settings(
            database=tmp_path / "tapehouse.duckdb", exchange_url=exchange.url, symbols=["BTCUSDT"]
        )
        heard: list[int] = []
        record(settings, seconds=4, clock=clock, on_message=heard.append)
    assert heard[-1] > 120


class Busy:
    """A connection on which a message arrives at every turn of the loop."""

    async def watch(self, *_arguments: str) -> None:
        await asyncio.sleep(0)


def test_following_a_busy_stream_ends_when_it_is_told_to() -> None:
    async def ended() -> bool:
        task = asyncio.create_task(recorder._follow(Busy(), "address"))
        await asyncio.sleep(0.001)
        task.cancel()
        _, waiting = await asyncio.wait([task], timeout=0.2)
        task.cancel()
        return not waiting

    assert all(asyncio.run(ended()) for _ in range(100))


def test_silence_is_a_failure_that_names_the_addresses(tmp_path: Path) -> None:
    with simulator(MARKET, speed=0, now=NOW) as exchange:
        url = exchange.url
    settings = Settings(database=tmp_path / "tapehouse.duckdb", exchange_url=url)
    report = record(settings, seconds=1, clock=clock, market="spot", symbols=["BTCUSDT"])
    assert report.lines == ()
    (failure,) = report.failures
    assert failure.unit.endswith(
        "/spot/stream?streams=btcusdt@kline_1m/btcusdt@aggTrade/btcusdt@depth20@100ms"
    )
    assert "nothing was heard" in failure.message


def test_a_killed_recording_is_landed_by_the_next(tmp_path: Path) -> None:
    with simulator(MARKET, speed=120.0, now=NOW) as exchange:
        settings = Settings(database=tmp_path / "tapehouse.duckdb", exchange_url=exchange.url)
        command = [sys.executable, "-m", "orchestration.cli", "record", "--symbol", "BTCUSDT"]
        environment = os.environ | {
            "TAPEHOUSE_DATABASE": str(settings.database),
            "TAPEHOUSE_EXCHANGE_URL": exchange.url,
        }
        process = subprocess.Popen([*command, "--seconds", "60"], env=environment, cwd=PROJECT_ROOT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            parts = list(settings.segments_directory.glob("*.part"))
            if parts and parts[0].stat().st_size > 100_000:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = parts[0].read_bytes().count(b"\n")
        assert kept > 0
        done = subprocess.run(
            [*command, "--seconds", "1"], env=environment, cwd=PROJECT_ROOT, check=False
        )
    assert done.returncode == 0
    first, second = sorted(settings.segments_directory.iterdir())
    assert sum(1 for _ in read_lines(first)) == kept
    with gzip.open(first) as stream:
        expected = sum(len(table) for table in messages.rows(stream).values())
    landed = query(
        settings, f"select sum(row_count) from raw.landings where source[11:] = '{first.name}'"
    )
    assert landed == [(expected,)]
    assert second.name > first.name
    assert math.isfinite(expected)
