"""History from archives and REST, against the simulated exchange over real sockets."""

import hashlib
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest

from ingest import warehouse
from ingest.archives import plan
from ingest.batches import Series
from ingest.history import ExchangeUnreachableError, ingest_history
from ingest.kinds import KINDS
from ingest.report import Report
from ingest.settings import PROJECT_ROOT, Settings
from ingest.settings import Market as MarketName
from ingest.simulator import Market, Simulator, simulator
from ingest.simulator.source import microseconds

START = datetime(2024, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SYMBOLS = ["BTCUSDT", "XRPUSDT"]
MARKET = Market(7, SYMBOLS, start=START, days=3, edge=1.0)


@pytest.fixture
def exchange() -> Iterator[Simulator]:
    with simulator(MARKET) as running:
        yield running


def settings(exchange: Simulator, tmp_path: Path, name: str = "tapehouse") -> Settings:
    return Settings(
        database=tmp_path / name / "tapehouse.duckdb", exchange_url=exchange.url, symbols=SYMBOLS
    )


def query(where: Settings, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(where.database) as connection:
        return connection.execute(sql).fetchall()


def counts(report: Report) -> list[tuple[str | None, int, int, int]]:
    return [
        (line.series.symbol, line.row_count, line.reject_count, line.skipped_units)
        for line in report.lines
    ]


def test_a_span_is_split_into_months_days_and_a_rest() -> None:
    series = Series("klines", "um", "BTCUSDT", "1m")
    archives, rest = plan(
        series,
        datetime(2024, 10, 30, 12, tzinfo=UTC),
        datetime(2025, 1, 4, tzinfo=UTC),
        datetime(2025, 1, 2, 9, tzinfo=UTC),
    )
    directory = "data/futures/um"
    assert [archive.path for archive in archives] == [
        f"{directory}/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-10-31.zip",
        f"{directory}/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-11.zip",
        f"{directory}/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-12.zip",
        f"{directory}/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01-01.zip",
    ]
    assert rest == [
        (datetime(2024, 10, 30, 12, tzinfo=UTC), datetime(2024, 10, 31, tzinfo=UTC)),
        (datetime(2025, 1, 2, tzinfo=UTC), datetime(2025, 1, 4, tzinfo=UTC)),
    ]


@pytest.mark.parametrize("market", ["spot", "um"])
def test_archives_land_across_the_change_of_unit_and_rest_continues_them(
    exchange: Simulator, tmp_path: Path, market: Any
) -> None:
    where = settings(exchange, tmp_path)
    first = ingest_history(where, "klines", market=market, intervals=["1m", "1h"], start=START)
    assert first.failures == ()
    assert counts(first) == [
        (symbol, rows, 0, 0) for symbol in SYMBOLS for rows in (3 * 1440, 3 * 24)
    ]
    exchange.clock.advance(timedelta(hours=2, seconds=30))
    second = ingest_history(where, "klines", market=market, intervals=["1m", "1h"], start=START)
    assert counts(second) == [(symbol, rows, 0, 0) for symbol in SYMBOLS for rows in (120, 2)]
    third = ingest_history(where, "klines", market=market, intervals=["1m"], start=START)
    assert counts(third) == [(symbol, 0, 0, 1) for symbol in SYMBOLS]
    end = START + 3 * DAY + timedelta(hours=2)
    grid = """
        select symbol, "interval", min(open_time), max(close_time), count(distinct open_time),
            count(*), count_if(is_closed), string_agg(distinct split_part(source, ':', 1), ' '
            order by split_part(source, ':', 1))
        from raw.klines group by all order by all
    """
    last = end - timedelta(milliseconds=1)
    if market == "spot":
        grid = grid.replace("max(close_time)", "max(date_trunc('milliseconds', close_time))")
    assert query(where, grid) == [
        (symbol, interval, START, last, rows, rows, rows, "archive rest")
        for symbol in SYMBOLS
        for interval, rows in (("1h", 74), ("1m", 4440))
    ]


@pytest.mark.parametrize(("kind", "hours"), [("klines", 24), ("trades", 4)])
def test_rest_gives_what_the_archives_give(
    exchange: Simulator, tmp_path: Path, kind: Any, hours: int
) -> None:
    tables = []
    end = {"archives": START + DAY, "rest": START + hours * timedelta(hours=1)}
    for source in ("archives", "rest"):
        where = settings(exchange, tmp_path, source)
        report = ingest_history(
            where, kind, symbols=["BTCUSDT"], start=START, end=end[source], source=source
        )
        assert report.failures == ()
        assert report.row_count > 1000
        time = KINDS[kind].event_times[0]
        sql = f"select * exclude (source, received_at) from raw.{kind} where {time} < $end"
        with warehouse.reading(where.database) as connection:
            rows = connection.execute(f"{sql} order by all", {"end": end["rest"]}).fetchall()
        tables.append(rows)
    assert tables[0] == tables[1]


def test_funding_interest_and_liquidations_land_once(exchange: Simulator, tmp_path: Path) -> None:
    where = settings(exchange, tmp_path)
    for kind, rows in (("funding", 9), ("open_interest", 864)):
        first = ingest_history(where, kind, start=START)  # type: ignore[arg-type]
        assert first.failures == ()
        assert counts(first) == [(symbol, rows, 0, 0) for symbol in SYMBOLS]
        again = ingest_history(where, kind, start=START)  # type: ignore[arg-type]
        assert again.row_count == 0
    first = ingest_history(where, "liquidations", start=START)
    assert first.failures == ()
    assert first.row_count > 0
    assert ingest_history(where, "liquidations", start=START).row_count == 0
    assert query(where, "select distinct side from raw.liquidations order by side") == [
        ("BUY",),
        ("SELL",),
    ]


def test_the_present_book_lands_with_twenty_levels(exchange: Simulator, tmp_path: Path) -> None:
    where = settings(exchange, tmp_path)
    for market in get_args(MarketName):
        assert ingest_history(where, "books", market=market).row_count == 2
    assert query(
        where,
        "select distinct len(bid_prices), len(ask_quantities), "
        "coalesce(event_time, received_at) from raw.books",
    ) == [(20, 20, START + 3 * DAY)]


def test_an_open_candle_is_left_for_later(exchange: Simulator, tmp_path: Path) -> None:
    where = settings(exchange, tmp_path)
    exchange.clock.advance(timedelta(minutes=3, seconds=59))
    start = START + 3 * DAY
    report = ingest_history(where, "klines", symbols=["BTCUSDT"], start=start)
    assert report.lines[0].last_event_at == start + timedelta(minutes=2)
    exchange.clock.advance(timedelta(seconds=1))
    report = ingest_history(where, "klines", symbols=["BTCUSDT"], start=start)
    assert counts(report) == [("BTCUSDT", 1, 0, 0)]


@pytest.mark.parametrize("status", [429, 418, 503])
def test_refused_requests_are_repeated_when_the_exchange_says(
    exchange: Simulator, tmp_path: Path, status: int
) -> None:
    where = settings(exchange, tmp_path)
    exchange.faults.status, exchange.faults.next_requests = status, 2
    began = time.monotonic()
    report = ingest_history(
        where, "klines", symbols=["BTCUSDT"], start=START, end=START + DAY, source="rest"
    )
    assert report.failures == ()
    assert report.row_count == 1440
    if status != 503:
        assert time.monotonic() - began >= 2.0


def test_a_symbol_that_does_not_exist_fails_and_the_others_land(
    exchange: Simulator, tmp_path: Path
) -> None:
    where = settings(exchange, tmp_path)
    report = ingest_history(
        where, "klines", symbols=["NOSUCHUSDT", "BTCUSDT"], start=START, end=START + DAY
    )
    assert [failure.unit for failure in report.failures] == [
        "NOSUCHUSDT klines 1m 2024-12-30 00:00 to 2024-12-31 00:00"
    ]
    assert "Invalid symbol" in report.failures[0].message
    assert counts(report) == [("NOSUCHUSDT", 0, 0, 0), ("BTCUSDT", 1440, 0, 0)]


def test_archives_alone_say_what_is_not_published(exchange: Simulator, tmp_path: Path) -> None:
    where = settings(exchange, tmp_path)
    report = ingest_history(
        where, "open_interest", symbols=["BTCUSDT"], start=START, source="archives"
    )
    assert report.row_count == 0
    assert [failure.message for failure in report.failures] == ["no archive is published"]


def test_an_exchange_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.exchange.ATTEMPTS", 1)
    where = Settings(database=tmp_path / "none.duckdb", exchange_url="http://127.0.0.1:9")
    with pytest.raises(ExchangeUnreachableError, match=r"http://127\.0\.0\.1:9 does not answer"):
        ingest_history(where, "klines")
    assert not where.database.exists()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served as an exchange: its time, and whatever archives are put there."""
    root = tmp_path / "exchange"
    (root / "fapi" / "v1").mkdir(parents=True)
    now = (START + 3 * DAY).timestamp() * 1000
    (root / "fapi" / "v1" / "time").write_text(json.dumps({"serverTime": int(now)}))
    handler = partial(_Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def put_archive(root: Path, symbol: str, *, checksum: str | None = None, volume: int = 3) -> None:
    directory = root / f"data/futures/um/daily/klines/{symbol}/1h"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{symbol}-1h-2024-12-30.zip"
    with zipfile.ZipFile(path, "w") as archive:
        time_ms = int(START.timestamp() * 1000)
        archive.writestr(
            path.with_suffix(".csv").name,
            f"{time_ms},1,2,1,2,{volume},{time_ms + 3599999},6,5,1,2,0\n",
        )
    checksum = checksum or hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{checksum}  {path.name}\n")


def test_an_archive_that_differs_from_its_checksum_does_not_land(
    folder: tuple[Path, str], tmp_path: Path
) -> None:
    root, url = folder
    put_archive(root, "BTCUSDT", checksum="0" * 64)
    put_archive(root, "ETHUSDT")
    where = Settings(
        database=tmp_path / "tapehouse.duckdb", exchange_url=url, symbols=["BTCUSDT", "ETHUSDT"]
    )
    report = ingest_history(where, "klines", intervals=["1h"], start=START, end=START + DAY)
    assert [failure.message.split(" has SHA-256 ")[0] for failure in report.failures] == [
        f"{url}/data/futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2024-12-30.zip"
    ]
    assert query(where, "select symbol, count(*) from raw.klines group by all") == [("ETHUSDT", 1)]
    assert query(where, "select symbol, source[:8], len(sha256) from raw.landings") == [
        ("ETHUSDT", "archive:", 64)
    ]


def test_a_republished_archive_lands_again_when_asked_and_only_then(
    folder: tuple[Path, str], tmp_path: Path
) -> None:
    root, url = folder
    put_archive(root, "BTCUSDT")
    put_archive(root, "ETHUSDT")
    where = Settings(
        database=tmp_path / "tapehouse.duckdb", exchange_url=url, symbols=["BTCUSDT", "ETHUSDT"]
    )

    def volumes(*, recheck: bool) -> list[tuple[Any, ...]]:
        report = ingest_history(
            where, "klines", intervals=["1h"], start=START, end=START + DAY, recheck=recheck
        )
        assert report.failures == ()
        return query(where, "select symbol, volume from raw.klines order by received_at, symbol")

    first = [("BTCUSDT", 3.0), ("ETHUSDT", 3.0)]
    assert volumes(recheck=True) == first
    assert volumes(recheck=True) == first
    put_archive(root, "ETHUSDT", volume=4)
    assert volumes(recheck=False) == first
    assert volumes(recheck=True) == [*first, ("ETHUSDT", 4.0)]
    assert volumes(recheck=True) == [*first, ("ETHUSDT", 4.0)]


def test_a_day_without_forced_orders_is_an_empty_archive_that_counts_as_landed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.simulator.market._LIQUIDATING_MOVE", 1e9)
    with simulator(Market(7, SYMBOLS, start=START, days=3)) as exchange:
        where = settings(exchange, tmp_path)
        for skipped in (0, 1):
            report = ingest_history(where, "liquidations", start=START)
            assert report.failures == ()
            assert [line.skipped_units for line in report.lines] == [skipped] * 2
    assert query(
        where, "select symbol, covered_from, row_count from raw.landings order by all"
    ) == [(symbol, START + day * DAY, 0) for symbol in SYMBOLS for day in range(3)]


def test_mark_and_index_prices_land_by_the_minute_and_only_once(
    exchange: Simulator, tmp_path: Path
) -> None:
    where = settings(exchange, tmp_path)
    exchange.clock.advance(timedelta(minutes=2, seconds=30))
    start = START + 3 * DAY - timedelta(hours=9)
    for rows in (542, 0):
        report = ingest_history(where, "mark_prices", start=start)
        assert report.failures == ()
        assert counts(report) == [(symbol, rows, 0, 0 if rows else 1) for symbol in SYMBOLS]
    landed = query(
        where,
        "select symbol, epoch_us(event_time), mark_price, index_price from raw.mark_prices "
        "order by all",
    )
    assert len({row[:2] for row in landed}) == 2 * 542
    assert landed[0][1] == microseconds(start + timedelta(minutes=1)) - 1000
    assert landed == [
        (symbol, time, *(round(price, 8) for price in MARKET.premium(symbol, time)))
        for symbol, time, *_ in landed
    ]
    with pytest.raises(ValueError, match="archives no mark_prices"):
        ingest_history(where, "mark_prices", start=START, end=start, source="archives")


def test_the_command_lands_several_symbols_and_intervals_at_once(
    exchange: Simulator, tmp_path: Path
) -> None:
    where = settings(exchange, tmp_path)
    command = [sys.executable, "-m", "orchestration.cli", "ingest", "klines"]
    options = "--symbol BTCUSDT --symbol XRPUSDT --interval 5m --interval 1h --start 2024-12-31"
    environment = {
        "TAPEHOUSE_DATABASE": str(where.database),
        "TAPEHOUSE_EXCHANGE_URL": exchange.url,
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [*command, *options.split()],
        env=environment,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:6] for line in done.stdout.splitlines() if line.strip().startswith("um")]
    assert rows == [
        ["um", symbol, interval, count, "0", "0"]
        for symbol in SYMBOLS
        for interval, count in (("5m", "576"), ("1h", "48"))
    ]
