"""The recorder when things go wrong: what is heard stays true, what is missed is known."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from recorder_fixtures import frames_of, query

from ingest import connections, warehouse
from ingest.connections import follow, stream_addresses
from ingest.disk import DiskFullError
from ingest.drain import drain
from ingest.recorder import record
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame, segments
from ingest.settings import PROJECT_ROOT, Settings
from ingest.simulator import Market, Simulator, serving, simulator

START = datetime(2024, 12, 30, tzinfo=UTC)
MARKET = Market(7, ["BTCUSDT", "XRPUSDT"], start=START, days=2, edge=1.0)
NOW = START + timedelta(days=1)
ALL = {
    "missing": 0.05,
    "duplicate": 0.05,
    "reorder": 0.05,
    "malformed": 0.01,
    "truncated": 0.01,
    "delay": 0.05,
    "delay_s": 2.0,
    "sequence_gap": 0.02,
}


def settings_of(directory: Path, exchange: Simulator, **changes: Any) -> Settings:
    return Settings(
        database=directory / "tapehouse.duckdb",
        exchange_url=exchange.url,
        symbols=["BTCUSDT"],
        **changes,
    )


@pytest.mark.parametrize("market", ["spot", "um"])
def test_every_book_is_the_exchange_s_and_every_gap_is_told(tmp_path: Path, market: Any) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        exchange.faults.replace(ALL)
        settings = settings_of(tmp_path, exchange)
        report = record(settings, seconds=6, market=market, clock=exchange.clock.now)
    books = query(
        settings,
        "select last_update_id, epoch_us(snapshot_at), bid_prices, bid_quantities, ask_prices, "
        "ask_quantities from (select *, event_time as snapshot_at from raw.books)",
    )
    assert len(books) > 10
    for number, at, *sides in books:
        book = MARKET.book(market, "BTCUSDT", at)
        assert book is not None
        assert book.update_id == number
        true = (book.bid_prices, book.bid_quantities, book.ask_prices, book.ask_quantities)
        assert sides == [side[:20].tolist() for side in true]
    gaps = query(
        settings,
        "select gap_from, min(cause), bool_or(gap_until is null), max(gap_until), "
        "(select count(*) from raw.books where event_time between gap_from + interval 1 "
        "millisecond and max(gap_until) - interval 1 millisecond) "
        "from raw.book_gaps group by gap_from order by gap_from",
    )
    assert len(gaps) > 2
    assert all(is_opened for _, _, is_opened, _, _ in gaps)
    assert all(until for _, _, _, until, _ in gaps[:-1])
    assert [inside for *_, inside in gaps[:-1]] == [0] * (len(gaps) - 1)
    assert report.reject_count > 0
    assert query(settings, "select distinct kind from raw.raw_rejects") == [("frames",)]


def test_many_symbols_share_out_among_addresses_that_are_not_too_long(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    symbols = [f"COIN{number:04d}USDT" for number in range(260)]
    for market, kinds in (("spot", 4), ("um", 6)):
        addresses = stream_addresses(settings, market, symbols, ["1m", "5m"])
        names = [name for each in addresses for name in each.partition("=")[2].split("/")]
        assert len(names) == len(set(names)) == kinds * len(symbols)
        assert max(map(len, addresses)) < 8190
        assert all("@kline_1m" in each or "@depth" in each for each in addresses)


def test_symbols_are_heard_over_several_connections_and_who_cannot_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STREAMS_AT_ONCE", 4)
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        symbols = ["BTCUSDT", "XRPUSDT", "NONEUSDT"]
        report = record(
            settings, seconds=2, symbols=symbols, silence_s=1.0, clock=exchange.clock.now
        )
    heard = query(settings, "select distinct symbol from raw.klines order by all")
    assert heard == [("BTCUSDT",), ("XRPUSDT",)]
    (failure,) = report.failures
    assert failure.unit.rpartition("=")[2] == (
        "noneusdt@kline_1m/noneusdt@aggTrade/noneusdt@markPrice@1s/noneusdt@forceOrder"
    )


def test_candles_that_did_not_come_are_asked_for(tmp_path: Path) -> None:
    with simulator(MARKET, speed=180.0, now=NOW) as exchange:
        exchange.faults.replace({"missing": 0.6})
        settings = settings_of(tmp_path, exchange)
        record(settings, seconds=5, clock=exchange.clock.now)
    opened = query(
        settings,
        "select distinct epoch_us(open_time) // 60000000 from raw.klines where is_closed "
        "order by 1",
    )
    minutes = [minute for (minute,) in opened]
    assert len(minutes) >= 10
    # The last ones may still have been on their way.
    missing = set(range(minutes[0], minutes[-1] - 4)) - set(minutes)
    assert missing == set()
    streams = {frame.stream for frame in frames_of(settings.segments_directory / "um")}
    assert "rest:klines:BTCUSDT:1m" in streams


def test_a_silent_connection_is_replaced(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        exchange.faults.replace({"silent_after": 60})
        settings = settings_of(tmp_path, exchange)
        record(settings, seconds=6, clock=exchange.clock.now, silence_s=0.5)
    heard = frames_of(settings.segments_directory / "um")
    said = [json.loads(frame.payload) for frame in heard if frame.stream == "!recorder"]
    lost = [event["remark"] for event in said if event["event"] == "disconnected"]
    assert len(lost) >= 3
    assert all("nothing was heard for 0.5 s" in remark for remark in lost)
    assert sum(frame.connection > 0 for frame in heard) >= 4 * 60


def test_a_refused_request_is_made_again(tmp_path: Path) -> None:
    with simulator(MARKET, speed=20.0, now=NOW) as exchange:
        exchange.faults.replace({"status": 429, "next_requests": 3, "retry_after": 1})
        settings = settings_of(tmp_path, exchange)
        record(settings, seconds=9, market="spot", clock=exchange.clock.now)
        assert exchange.faults.next_requests == 0
    assert query(settings, "select count(*) > 10 from raw.books") == [(True,)]


def test_an_old_connection_is_heard_until_its_successor_has_taken_over() -> None:
    heard: list[tuple[int, int]] = []
    events: list[tuple[str, int]] = []

    def on_text(text: str, connection: int) -> None:
        heard.append((json.loads(text)["data"]["u"], connection))

    async def listen() -> None:
        async with serving(MARKET, speed=20.0, now=NOW) as exchange:
            settings = Settings(exchange_url=exchange.url)
            address = stream_addresses(settings, "um", ["BTCUSDT"], [])[0]
            task = asyncio.create_task(
                follow(
                    "um",
                    address,
                    on_text=on_text,
                    on_event=lambda event, number, _: events.append((event, number)),
                    numbers=itertools.count(1),
                    renew_s=1.0,
                    overlap_s=0.7,
                )
            )
            await asyncio.sleep(4)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(listen())
    numbers = sorted({number for number, _ in heard})
    assert {later - earlier for earlier, later in itertools.pairwise(numbers)} == {100}
    assert len(heard) > len(numbers)
    assert {connection for _, connection in heard} >= {1, 2, 3}
    assert [event for event in events if event[1] == 1] == [("connected", 1), ("renewed", 1)]


def test_a_clock_that_is_off_is_measured(tmp_path: Path) -> None:
    with simulator(MARKET, speed=1.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        record(settings, seconds=1.5, clock=lambda: exchange.clock.now() + 5_000_000)
    heard = frames_of(settings.segments_directory / "um")
    said = [json.loads(frame.payload) for frame in heard if frame.stream == "!recorder"]
    (measured,) = [event for event in said if event["event"] == "clock"]
    assert abs(measured["skew_us"] - 5_000_000) < 200_000


def test_a_stopped_recording_seals_and_lands_what_it_heard(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        settings = settings_of(tmp_path, exchange)
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "record", "--land-every", "1s"],
            env=os.environ | settings.environment(),
            cwd=PROJECT_ROOT,
        )
        log = settings.segments_directory / "um"
        deadline = time.monotonic() + 60
        # Some has landed while it still listens.
        while not settings.database.exists() or not query_or_wait(settings):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert {path.suffix for path in segments(log).values()} == {".zst"}
    assert query(settings, "select sum(frame_count), count(*) > 1 from raw.log_landings") == [
        (len(frames_of(log)), True)
    ]


def query_or_wait(settings: Settings) -> bool:
    try:
        with warehouse.reading(settings.database, timeout_s=0.01) as connection:
            rows = connection.execute("select count(*) from raw.log_landings").fetchall()
    except (warehouse.WarehouseBusyError, warehouse.WarehouseMissingError):
        return False
    return bool(rows[0][0])


def test_recording_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    with simulator(MARKET, speed=60.0, now=NOW) as exchange:
        with pytest.raises(DiskFullError, match="less than TAPEHOUSE_DISK_RESERVE_GB = 1e"):
            record(settings_of(tmp_path, exchange, disk_reserve_gb=1e9), seconds=1)
        settings = settings_of(tmp_path, exchange, segments_max_gb=0.0002)
        started = time.monotonic()
        report = record(settings, seconds=30, clock=exchange.clock.now)
        assert time.monotonic() - started < 20
    (failure,) = report.failures
    assert "land them with `tapehouse land`" in failure.message
    frames = len(frames_of(settings.segments_directory / "um"))
    assert query(settings, "select sum(frame_count) from raw.log_landings") == [(frames,)]


def test_landed_segments_give_way_where_the_bound_is_near(tmp_path: Path) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb", segments_max_gb=1e-5)
    log = settings.segments_directory / "um"
    with SegmentWriter(log) as writer:
        for _ in range(8):
            writer.append(Frame(1, "noise", b"1" + os.urandom(2_000).hex().encode()))
            writer.seal()
    before = list(segments(log))
    drain(settings)
    after = list(segments(log))
    assert 0 < len(after) < len(before)
    assert after == before[-len(after) :]
    assert sum(path.stat().st_size for path in segments(log).values()) <= 10_000
