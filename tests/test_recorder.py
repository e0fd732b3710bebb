"""Live recording: messages, their log, and the exchange's streams over real sockets."""

import gzip
import json
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
from recorder_fixtures import frames_of, query

from ingest import messages
from ingest.drain import drain
from ingest.kinds import KINDS
from ingest.landing import Progress, land_frames
from ingest.recorder import record
from ingest.segment_writer import SegmentWriter
from ingest.segments import Cursor, Frame, segments
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


NOW_US = int(NOW.timestamp()) * 1_000_000
# After everything that was recorded.
LATER_US = 2_000_000_000_000_000


def clock() -> int:
    return NOW_US


def kline(stream: str = "btcusdt@kline_1m") -> Frame:
    return Frame(NOW_US, stream, json.dumps({"stream": stream, "data": KLINE}).encode())


def checked(frames: list[Frame]) -> tuple[Counter[str], list[str]]:
    """Return rows by kind, and why others are none."""
    parsed = messages.rows(frames)
    origin = Origin("binance", "um", "websocket:test", NOW)
    parts = {kind: check(KINDS[kind], rows, origin) for kind, rows in parsed.tables.items()}
    rejects = [row for part in parts.values() for row in part.rejects["reason"].to_pylist()]
    landed: Counter[str] = Counter({kind: part.rows.num_rows for kind, part in parts.items()})
    return landed, rejects + [reason for _, reason in parsed.bad]


def test_recorded_messages_of_the_exchange_become_rows(shared_data: Path) -> None:
    names = {"kline": "klines", "aggTrade": "trades", "trade": "trades"} | {
        "forceOrder": "liquidations",
        "markPriceUpdate": "mark_prices",
    }
    expected: Counter[str] = Counter({"books": 6})
    frames = []
    for path in sorted((shared_data / "raw_messages").glob("[csu]*/*.jsonl")):
        for line in path.read_bytes().splitlines():
            message = json.loads(line)
            envelope = message if isinstance(message, dict) else {}
            frames.append(Frame(LATER_US, envelope.get("stream", ""), line))
            inner = envelope.get("data", message)
            for part in inner if isinstance(inner, list) else [inner]:
                if part.get("e") in names and part.get("k", {}).get("x", True):
                    expected[names[part["e"]]] += 1
    landed, rejects = checked(frames)
    assert rejects == []
    assert landed == expected


def test_whole_recordings_of_the_exchange_become_rows(shared_data: Path) -> None:
    expected: Counter[str] = Counter()
    names = {"kline": "klines", "aggTrade": "trades", "trade": "trades"}
    frames = []
    for path in sorted((shared_data / "raw_captures").glob("*.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            start = line.find(b"{")
            if start < 0 or b"wss://" in line[:start]:
                continue
            message = json.loads(line[start:])
            data = message.get("data", message)
            frames.append(Frame(LATER_US, message.get("stream", ""), line[start:].strip()))
            if data.get("e") in names and data.get("k", {}).get("x", True):
                expected[names[data["e"]]] += 1
    landed, rejects = checked(frames)
    assert len(frames) > 40_000
    assert rejects == []
    assert landed == expected


def test_recorded_answers_of_the_exchange_become_rows_and_books(shared_data: Path) -> None:
    rest = shared_data / "raw_messages" / "rest"
    candles = (rest / "klines_spot.jsonl").read_bytes().splitlines()
    answer = b"[" + b",".join(candles) + b"]"
    assert checked([Frame(LATER_US, "rest:klines:BTCUSDT:15m", answer)]) == (
        Counter({"klines": len(candles)}),
        [],
    )
    for path in sorted(rest.glob("depth_*.jsonl")):
        for line in path.read_bytes().splitlines():
            book = json.loads(line)
            frame = Frame(LATER_US, "btcusdt@depth20", line)
            assert (checked([frame])[0]["books"], len(book["bids"]) > 0) == (1, True)


def test_only_the_stream_tells_a_partial_book_from_a_change() -> None:
    data = {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": 1, "u": 2, "pu": 0,
            "b": [["1", "1"]], "a": [["2", "1"]]}  # fmt: skip
    assert list(messages.parse("btcusdt@depth@100ms", data)) == []
    assert list(messages.parse("btcusdt@depth", data)) == []
    ((kind, row),) = messages.parse("btcusdt@depth20@100ms", data)
    assert (kind, row["last_update_id"]) == ("books", 2)
    spot = {"lastUpdateId": 7, "bids": [["1", "1"]], "asks": [["2", "1"]]}
    ((kind, row),) = messages.parse("ethbtc@depth20@100ms", spot)
    assert (row["symbol"], row["last_update_id"]) == ("ETHBTC", 7)


def test_frames_land_once_also_while_the_log_grows(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    with SegmentWriter(settings.segments_directory / "um") as writer:
        writer.append(kline())
        assert drain(settings).row_count == 1
        assert drain(settings).row_count == 0
        writer.append(kline())
        writer.seal()
        writer.append(kline())
        assert drain(settings).row_count == 2
    assert drain(settings).row_count == 0
    assert query(
        settings, "select market, symbol, is_closed, source[:12], received_at from raw.klines"
    ) == 3 * [("um", "BTCUSDT", True, "websocket:um", NOW)]
    assert query(settings, "select log, frame_count, row_count from raw.log_landings") == [
        ("um", 1, 1),
        ("um", 2, 2),
    ]


def test_candles_that_have_not_closed_do_not_land() -> None:
    is_open = kline().payload.replace(b'"x": true', b'"x": false')
    assert is_open != kline().payload
    assert checked([Frame(NOW_US, "btcusdt@kline_1m", is_open)]) == (Counter(), [])


def test_what_cannot_be_read_is_kept_with_the_reason(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    text = kline().payload
    wrong = [text[:60], b"", b"[1]", b'{"e":"kline"}', b'{"e":"trade","s":1}', b"\xff\xfe"]
    wrong.append(text.replace(b'"1"', b'"x"').replace(b'"t": 1704067200000', b'"t": [1]'))
    with SegmentWriter(settings.segments_directory / "um") as writer:
        writer.append_all([Frame(NOW_US, "btcusdt@kline_1m", payload) for payload in wrong])
        writer.append(kline())
    report = drain(settings)
    assert (report.row_count, report.reject_count) == (1, len(wrong))
    assert query(
        settings, "select count(*), count(reason), count(received_at) from raw.raw_rejects"
    ) == [(len(wrong), len(wrong), len(wrong))]


def test_landing_that_lost_a_race_does_nothing(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    log = settings.segments_directory / "um"
    with SegmentWriter(log) as writer:
        writer.append(kline())
        drain(settings)
    (segment,) = segments(log)
    first = Progress("um", Cursor(0, 0), Cursor(segment, 20), 1)
    assert not land_frames(settings, {}, first)
    assert query(settings, "select count(*) from raw.log_landings") == [(1,)]


@pytest.mark.parametrize("market", ["spot", "um"])
def test_candles_and_books_are_recorded_from_the_streams(tmp_path: Path, market: Any) -> None:
    with simulator(MARKET, speed=120.0, now=NOW) as exchange:
        settings = Settings(
            database=tmp_path / "tapehouse.duckdb",
            exchange_url=exchange.url,
            symbols=["BTCUSDT", "XRPUSDT"],
        )
        report = record(settings, seconds=4, market=market, clock=clock)
    kinds = {"klines", "trades", "books", "book_gaps"}
    kinds |= {"mark_prices", "open_interest"} if market == "um" else set()
    assert {line.series.kind for line in report.lines} >= kinds
    assert report.reject_count == 0
    assert query(
        settings,
        "select distinct market, symbol, len(bid_prices), len(ask_prices), received_at "
        "from raw.books order by symbol",
    ) == [(market, symbol, 20, 20, NOW) for symbol in ("BTCUSDT", "XRPUSDT")]
    assert query(settings, "select symbol, cause, gap_until is null from raw.book_gaps") == [
        ("BTCUSDT", "start", True),
        ("XRPUSDT", "start", True),
        ("BTCUSDT", "start", False),
        ("XRPUSDT", "start", False),
    ]
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


def test_silence_is_a_failure_that_names_the_addresses(tmp_path: Path) -> None:
    with simulator(MARKET, speed=0, now=NOW) as exchange:
        url = exchange.url
    settings = Settings(database=tmp_path / "tapehouse.duckdb", exchange_url=url)
    report = record(settings, seconds=1, clock=clock, market="spot", symbols=["BTCUSDT"])
    assert [line.series.kind for line in report.lines] == ["book_gaps"]
    (failure,) = report.failures
    assert failure.unit.endswith(
        "/spot/stream?streams=btcusdt@kline_1m/btcusdt@aggTrade/btcusdt@depth"
    )
    assert "nothing was heard" in failure.message


def test_a_killed_recording_is_landed_by_the_next(tmp_path: Path) -> None:
    with simulator(MARKET, speed=120.0, now=NOW) as exchange:
        settings = Settings(database=tmp_path / "tapehouse.duckdb", exchange_url=exchange.url)
        log = settings.segments_directory / "um"
        command = [sys.executable, "-m", "orchestration.cli", "record", "--symbol", "BTCUSDT"]
        environment = os.environ | {
            "TAPEHOUSE_DATABASE": str(settings.database),
            "TAPEHOUSE_EXCHANGE_URL": exchange.url,
        }
        process = subprocess.Popen([*command, "--seconds", "60"], env=environment, cwd=PROJECT_ROOT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            parts = list(log.glob("*.part"))
            if parts and parts[0].stat().st_size > 100_000:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = frames_of(log)
        assert len(kept) > 100
        done = subprocess.run(
            [*command, "--seconds", "1"], env=environment, cwd=PROJECT_ROOT, check=False
        )
    assert done.returncode == 0
    both = frames_of(log)
    assert both[: len(kept)] == kept
    assert len(both) > len(kept)
    expected, _ = checked(both)
    for kind, count in expected.items():
        assert query(settings, f"select count(*) from raw.{kind}") == [(count,)]
    assert query(settings, "select sum(frame_count) from raw.log_landings") == [(len(both),)]
