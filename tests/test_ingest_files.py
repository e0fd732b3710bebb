"""Files through the public command: what lands, what is refused, what a second run does."""

import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from ingest import warehouse
from ingest.settings import PROJECT_ROOT, Settings
from orchestration.commands.ingest import app

LINE = "1704067200000,10,12,9,11,3,1704067259999,33,5,1,11,0"
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
# What a landed table and the recorded file must agree on, in the file's terms.
SAME = {
    "klines": (
        "count(*), min({open_time}), max({open_time}), min(low)::double, max(high)::double, "
        "sum(volume::decimal(18, 6)), count(quote_volume), count(count), count(close)",
        {"open_time": "open_time"},
    ),
    "trades": (
        "count(*), min({time}), max({time}), count(distinct {id}), min(price), max(price), "
        "sum({quantity}::decimal(18, 8)), count_if(is_buyer_maker)",
        {"time": "time", "id": "id", "quantity": "qty"},
    ),
    "books": (
        "count(*), min({time}), max({time}), min({bids}[1]), max({asks}[1]), "
        "min(len({bids})), max(len({asks})), min({id}), max({id})",
        {"time": "exch_ts_ms", "bids": "bids_px", "asks": "asks_px", "id": "seq"},
    ),
    "funding": (
        "count(*), min({time}), max({time}), min(funding_rate), max(funding_rate)",
        {"time": "funding_time"},
    ),
    "open_interest": (
        "count(*), min({time}), max({time}), min(sum_open_interest), max(sum_open_interest_value)",
        {"time": "create_time"},
    ),
    "liquidations": (
        "count(*), min({time}), max({time}), count(distinct symbol), count(average_price), "
        "sum(original_quantity::decimal(18, 3))",
        {"time": "order_trade_time"},
    ),
}
LANDED_NAMES = {
    "klines": {"open_time": "epoch_ms(open_time)"},
    "trades": {"time": "epoch_ms(transact_time)", "id": "trade_id", "quantity": "quantity"},
    "books": {
        "time": "epoch_ms(event_time)",
        "bids": "bid_prices",
        "asks": "ask_prices",
        "id": "last_update_id",
    },
    "funding": {"time": "epoch_ms(funding_time)"},
    "open_interest": {"time": "epoch_ms(create_time)"},
    "liquidations": {"time": "epoch_ms(trade_time)"},
}
AGGREGATE_NAMES = {"time": "transact_time", "id": "agg_trade_id", "quantity": "quantity"}
FILES = {
    "klines": "klines_*",
    "trades": "*trades_*",
    "books": "depth_book1000_*",
    "funding": "funding_*",
    "open_interest": "open_interest_*",
    "liquidations": "liquidations*",
}
# Books spelled out level by level or change by change: other rows land than the file has.
LEVELS = ("depth_snapshot", "depth_diff")


def ingest(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def query(sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(Settings().database) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "um"
    directory.mkdir()
    return directory / "BTCUSDT-1m-2024-01-01.csv"


@pytest.mark.parametrize("kind", SAME)
def test_every_recorded_file_lands_as_it_is_and_only_once(kind: str, shared_data: Path) -> None:
    command = kind.replace("_", "-")
    result = ingest(command, shared_data)
    assert result.exit_code == 0, result.output
    sums, names = SAME[kind]
    files = sorted(shared_data.glob(f"*/{FILES[kind]}.parquet"))
    expected = []
    for path in files:
        is_aggregate = path.name.startswith("agg_trades")
        sql = sums.format(**(AGGREGATE_NAMES if is_aggregate else names))
        with duckdb.connect() as connection:
            row = connection.execute(f"select {sql} from '{path}'").fetchall()[0]
        expected.append((path.name, path.parent.name, *row))
    found = query(
        f"""
        select source[6:], market, {sums.format(**LANDED_NAMES[kind])}
        from raw.{kind}
        where not regexp_matches(source, '^file:depth_(snapshot|diff)')
        group by all
        """
    )
    assert sorted(found) == sorted(expected)
    ledger = query("select source[6:], market, row_count from raw.landings")
    landed = [row for row in ledger if not row[0].startswith(LEVELS)]
    assert sorted(landed) == [row[:3] for row in sorted(expected)]

    again = ingest(command, shared_data)
    assert again.exit_code == 0, again.output
    assert query(f"select count(*) from raw.{kind}") == [(sum(row[2] for row in ledger),)]


def test_recorded_candles_are_sound_and_absent_numbers_stay_absent(shared_data: Path) -> None:
    assert ingest("klines", shared_data / "um" / "klines_BTCUSDT_5m.parquet").exit_code == 0
    assert query(
        """
        select
            count_if(low > least(open, close) or high < greatest(open, close)),
            count_if(epoch_ms(close_time) - epoch_ms(open_time) <> 299999),
            count_if(quote_volume = 0 and volume > 0),
            count_if(quote_volume is null),
            count(distinct open_time),
            min(symbol), max(market), min("interval")
        from raw.klines
        """
    ) == [(0, 0, 0, 210_240, 315_360, "BTCUSDT", "um", "5m")]


def test_books_of_one_row_per_level_become_snapshots(shared_data: Path) -> None:
    result = ingest(
        "books",
        shared_data / "um" / "depth_snapshot_BTCUSDT.parquet",
        shared_data / "spot" / "depth_snapshot_ETHBTC_20201101.parquet",
    )
    assert result.exit_code == 0, result.output
    assert query(
        "select symbol, len(bid_prices), len(ask_prices), bid_prices[1], epoch_ms(event_time) "
        "from raw.books"
    ) == [("BTCUSDT", 1000, 1000, 61800.2, 1723161256501)]
    assert query("select symbol, count(*), min(reason) from raw.raw_rejects group by all") == [
        ("ETHBTC", 2, "neither the exchange's time nor the arrival is known")
    ]


def test_replayed_changes_agree_with_the_recorded_best_prices(shared_data: Path) -> None:
    changes = shared_data / "um" / "depth_diff_BTCUSDT.parquet"
    result = ingest("books", changes)
    assert result.exit_code == 0, result.output
    ticker = shared_data / "um" / "book_ticker_BTCUSDT.parquet"
    assert query(
        f"""
        select
            count(*),
            count(distinct epoch_ms(event_time) // 1000),
            count_if(len(bid_prices) = 20 and len(ask_prices) = 20),
            count_if(bid_prices[1] = best_bid_price and ask_prices[1] = best_ask_price),
            count_if(bid_quantities[1] = best_bid_qty and ask_quantities[1] = best_ask_qty)
        from raw.books as book
        asof join (select * rename (event_time as ticker_at) from '{ticker}') as ticker
            on book.last_update_id >= ticker.update_id
        """
    ) == [(346, 346, 346, 346, 346)]


def test_changes_without_their_snapshot_are_refused(shared_data: Path, tmp_path: Path) -> None:
    changes = tmp_path / "depth_diff_BTCUSDT.parquet"
    changes.symlink_to(shared_data / "um" / "depth_diff_BTCUSDT.parquet")
    result = ingest("books", changes)
    assert result.exit_code == 1
    assert "put it beside them as depth_snapshot_BTCUSDT.parquet" in result.output


@pytest.mark.parametrize("text", [f"{LINE}\n", f"{HEADER}\n{LINE}\n", f"\ufeff{HEADER}\r\n{LINE}"])
def test_a_csv_lands_with_and_without_header_and_zipped(file: Path, text: str) -> None:
    file.write_text(text)
    packed = file.with_name("ETHUSDT-1m-2024-01-01.zip")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(file, file.name)
    result = ingest("klines", file.parent)
    assert result.exit_code == 0, result.output
    assert query(
        'select market, symbol, "interval", open, volume, count, taker_buy_quote_volume '
        "from raw.klines order by symbol"
    ) == [("um", name, "1m", 10.0, 3.0, 5, 11.0) for name in ("BTCUSDT", "ETHUSDT")]


def test_milliseconds_and_microseconds_land_as_the_same_instants(file: Path) -> None:
    file.write_text(f"{LINE}\n{LINE.replace('00000,', '00000000,').replace('9999,', '9999999,')}\n")
    assert ingest("klines", file).exit_code == 0
    assert query("select epoch_us(open_time), count(*) from raw.klines group by all") == [
        (1704067200000000, 2)
    ]


def test_bad_lines_go_to_the_rejects_beside_good_ones(file: Path) -> None:
    file.write_text(f"{LINE}\n{LINE.replace('12', '1')}\ngarbage,1\n{LINE.replace('10', 'ten')}\n")
    result = ingest("klines", file)
    assert result.exit_code == 0, result.output
    assert query("select count(*) from raw.klines") == [(1,)]
    assert query("select reason, source, symbol from raw.raw_rejects order by reason") == [
        ("high is below low", f"file:{file.name}", "BTCUSDT"),
        ("open cannot be read: expected double", f"file:{file.name}", "BTCUSDT"),
        ("the line has other columns", f"file:{file.name}", "BTCUSDT"),
    ]
    assert query("select row_count, reject_count from raw.landings") == [(1, 3)]


@pytest.mark.parametrize(
    ("line", "is_aggregate"),
    [
        ("7,1.5,2,7,9,1704067200000,true", True),
        ("7,1.5,2,7,9,1704067200000,true,true", True),
        ("7,1.5,2,3.0,1704067200000,true,true", False),
        ("7,1.5,2,3.0,1704067200000,true", False),
    ],
)
def test_trades_without_a_header_are_told_apart(file: Path, line: str, is_aggregate: bool) -> None:
    path = file.with_name("BTCUSDT-trades.csv")
    path.write_text(line)
    assert ingest("trades", path).exit_code == 0
    assert query(
        "select is_aggregate, trade_id, price, quantity, epoch_ms(transact_time), is_buyer_maker "
        "from raw.trades"
    ) == [(is_aggregate, 7, 1.5, 2.0, 1704067200000, True)]


def test_a_file_that_cannot_be_read_is_a_failure_and_the_others_land(file: Path) -> None:
    file.write_text(LINE)
    strange = file.with_name("strange.csv")
    strange.write_text("colour,shape\nred,round\n")
    broken = file.with_name("ETHUSDT-1m-2024-01-02.zip")
    broken.write_bytes(b"not a zip")
    result = ingest("klines", strange, broken, file)
    assert result.exit_code == 1
    assert "found the columns colour, shape; missing open_time or opentime" in result.output
    assert f"{broken}: File is not a zip file" in result.output
    assert query("select symbol from raw.klines") == [("BTCUSDT",)]


def test_damaged_files_of_a_directory_are_failures_and_the_others_land(file: Path) -> None:
    file.write_text(LINE)
    packed = file.with_name("ETHUSDT-1m-2024-01-02.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ETHUSDT-1m-2024-01-02.csv", f"{LINE}\n" * 99)
    whole = packed.read_bytes()
    cut = packed.with_name("SOLUSDT-1m-2024-01-02.zip")
    cut.write_bytes(whole[:99])
    packed.write_bytes(whole[:56] + bytes(40) + whole[96:])
    table = packed.with_name("klines_BNBUSDT_1m.parquet")
    table.write_bytes(b"PAR1")
    with zipfile.ZipFile(packed.with_name("pictures.zip"), "w") as archive:
        archive.writestr("picture.png", b"")
    result = ingest("klines", file.parent)
    assert result.exit_code == 1
    failed = [line for line in result.output.splitlines() if line.startswith("not landed")]
    assert [line.split(": ")[1] for line in failed] == [str(packed), str(cut), str(table)]
    assert query("select symbol from raw.klines") == [("BTCUSDT",)]


def test_a_file_that_does_not_tell_its_symbol_takes_the_named_one(file: Path) -> None:
    path = file.with_name("candles.csv")
    path.write_text(f"{HEADER}\n{LINE}\n")
    result = ingest("klines", path, "--interval", "1m")
    assert result.exit_code == 1
    assert "name it with one --symbol" in result.output
    result = ingest("klines", path, "--interval", "1m", "--symbol", "BTCUSDT", "--market", "spot")
    assert result.exit_code == 0, result.output
    assert query('select market, symbol, "interval" from raw.klines') == [("spot", "BTCUSDT", "1m")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["klines", "--from", "files"],
        ["klines", "nowhere.csv"],
        ["klines", "docs"],
        ["klines", ".", "--from", "rest"],
        ["klines", ".", "--start", "2024-01-01"],
        ["funding", "--market", "spot"],
        ["klines", "--interval", "7m"],
    ],
)
def test_misuse_exits_with_2_and_touches_nothing(arguments: list[str]) -> None:
    assert ingest(*arguments).exit_code == 2
    assert not Settings().database.exists()


def test_landing_leaves_the_telemetry_of_dlt_off(file: Path) -> None:
    from dlt.common.runtime import anon_tracker

    file.write_text(LINE)
    assert ingest("klines", file).exit_code == 0
    assert anon_tracker._ANON_TRACKER_ENDPOINT is None


def test_a_run_killed_at_any_moment_is_made_whole_by_the_next(tmp_path: Path) -> None:
    directory = tmp_path / "um"
    directory.mkdir()
    rows = 200_000
    for symbol in ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT"):
        one = pa.array(np.ones(rows))
        times = pa.array(1_500_000_000_000 // 60_000 * 60_000 + np.arange(rows) * 60_000)
        table = pa.table(
            {"open_time": times} | dict.fromkeys(("open", "high", "low", "close"), one)
        )
        table = table.append_column("volume", pa.array(np.arange(rows, dtype=float)))
        pq.write_table(table, directory / f"klines_{symbol}_1m.parquet")
    command = [sys.executable, "-m", "orchestration.cli", "ingest", "klines", str(directory)]
    packages = Settings().dlt_directory
    for delay_s in (0.0, 0.15, 0.4):
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(packages.glob("*/tapehouse/*")):
            time.sleep(0.01)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        claimed = query("select coalesce(sum(row_count), 0)::bigint from raw.landings")[0][0]
        there = query("select count(distinct (symbol, open_time)) from raw.klines")[0][0]
        assert claimed <= there
    assert subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode == 0
    assert query(
        "select symbol, count(distinct open_time), sum(distinct volume) "
        "from raw.klines group by all order by all"
    ) == [
        (symbol, rows, rows * (rows - 1) / 2)
        for symbol in ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")
    ]
    assert query("select symbol, row_count from raw.landings order by all") == [
        (symbol, rows) for symbol in ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")
    ]
    assert list(packages.iterdir()) == []
