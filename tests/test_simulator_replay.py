"""Recorded files served as an exchange."""

import csv
import io
import json
import urllib.request
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ingest.simulator import Market, Replay, simulator, write_books


def answer(url: str) -> Any:
    with urllib.request.urlopen(url) as response:
        return json.loads(response.read())


def archive(url: str) -> list[list[str]]:
    with urllib.request.urlopen(url) as response:
        content = response.read()
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return list(csv.reader(io.StringIO(file.read(file.namelist()[0]).decode())))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two minutes of one symbol, some values not recorded; trades as CSV in microseconds."""
    (tmp_path / "um").mkdir()
    candles = {
        "open_time": [1733788800000, 1733788860000],
        "open": [10.5, 10.25],
        "high": [10.75, 10.5],
        "low": [10.0, 10.25],
        "close": [10.25, 10.5],
        "volume": [1.5, 2.0],
        "quote_volume": pa.array([15.5, None]),
        "count": pa.array([3, None]),
    }
    pq.write_table(pa.table(candles), tmp_path / "um" / "klines_DOGEUSDT_1m.parquet")
    trades = {
        "id": [7, 9],
        "price": [10.5, 10.25],
        "qty": [1.0, 0.5],
        "quote_qty": [10.5, 5.125],
        "time": [1733788800100000, 1733788801200000],
        "is_buyer_maker": [True, False],
    }
    pyarrow.csv.write_csv(pa.table(trades), str(tmp_path / "um" / "trades_DOGEUSDT.csv"))
    return tmp_path


def test_recorded_candles_and_trades_are_answered(recordings: Path) -> None:
    source = Replay(recordings)
    with simulator(source, now=datetime(2024, 12, 11, tzinfo=UTC)) as exchange:
        base = f"{exchange.url}/fapi/v1"
        candles = answer(f"{base}/klines?symbol=DOGEUSDT&interval=1m")
        trades = answer(f"{base}/historicalTrades?symbol=DOGEUSDT&fromId=8")
        day = f"{exchange.url}/data/futures/um/daily/klines/DOGEUSDT/1m/DOGEUSDT-1m-2024-12-10.zip"
        rows = archive(day)[1:]
    first = [1733788800000, "10.50", "10.75", "10.00", "10.25", "1.5", 1733788859999]
    second = [1733788860000, "10.25", "10.50", "10.25", "10.50", "2.0", 1733788919999]
    assert candles == [
        [*first, "15.500", 3, None, None, "0"],
        [*second, None, None, None, None, "0"],
    ]
    assert rows == [
        [*map(str, first), "15.500", "3", "", "", "0"],
        [*map(str, second), "", "", "", "", "0"],
    ]
    assert [(trade["id"], trade["time"], trade["isBuyerMaker"]) for trade in trades] == [
        (9, 1733788801200, False)
    ]


def test_a_candle_is_answered_once_it_has_closed(recordings: Path) -> None:
    now = datetime(2024, 12, 10, 0, 1, 30, tzinfo=UTC)
    with simulator(Replay(recordings), now=now) as exchange:
        url = f"{exchange.url}/fapi/v1/klines?symbol=DOGEUSDT&interval=1m"
        assert [row[0] for row in answer(url)] == [1733788800000]


def test_books_written_by_the_synthetic_market_can_be_replayed(tmp_path: Path) -> None:
    market = Market(1, ["BTCUSDT"], days=1)
    write_books(market, "um", "BTCUSDT", date(2024, 12, 10), tmp_path)
    source = Replay(tmp_path)
    (time,) = source.book_times("um", "BTCUSDT", 1733788859_000_000, 1733788859_000_001)
    replayed, original = (place.book("um", "BTCUSDT", time) for place in (source, market))
    assert replayed.update_id == original.update_id
    assert replayed.bid_prices.tolist() == original.bid_prices[:20].tolist()
    assert replayed.ask_quantities.tolist() == original.ask_quantities[:20].tolist()


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recordings in"):
        Replay(tmp_path)


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Replay:
    return Replay(shared_data)


def test_archives_of_a_replay_count_as_many_rows_as_the_files(
    shared_data: Path, recorded: Replay
) -> None:
    paths = {
        "spot/aggTrades/BTCUSDT": ("spot/agg_trades_BTCUSDT", "2020-11-01"),
        "spot/aggTrades/ETHBTC": ("spot/agg_trades_ETHBTC", "2020-11-01"),
        "futures/um/trades/BTCUSDT": ("um/trades_BTCUSDT_20260216", "2026-02-16"),
    }
    found, expected = {}, {}
    with simulator(recorded) as exchange:
        for path, (file, day) in paths.items():
            market, table, symbol = path.rsplit("/", 2)
            name = f"{symbol}-{table}-{day}.zip"
            rows = archive(f"{exchange.url}/data/{market}/daily/{table}/{symbol}/{name}")
            found[path] = len(rows) - (market != "spot")
            expected[path] = pq.read_metadata(shared_data / f"{file}.parquet").num_rows
    assert found == expected


def test_replayed_candles_equal_the_files(shared_data: Path, recorded: Replay) -> None:
    table = pq.read_table(shared_data / "spot" / "klines_BTCUSDT_1h.parquet")
    rows = [
        [row["open_time"], *(row[name] for name in ("open", "high", "low", "close", "volume"))]
        for row in table.slice(1000, 1000).to_pylist()
    ]
    with simulator(recorded) as exchange:
        query = f"symbol=BTCUSDT&interval=1h&limit=1000&startTime={rows[0][0]}"
        found = answer(f"{exchange.url}/api/v3/klines?{query}")
    assert [[row[0], *map(float, row[1:6])] for row in found] == [
        [row[0], *map(float, row[1:])] for row in rows
    ]


def test_replayed_funding_interest_and_forced_orders_count_as_the_files(
    shared_data: Path, recorded: Replay
) -> None:
    folder, end = shared_data / "um", 2**60
    counts = {
        "funding_BTCUSDT": len(recorded.funding("BTCUSDT", 0, end)["calc_time"]),
        "open_interest_SOLUSDT_5m": len(recorded.open_interest("SOLUSDT", 0, end)["create_time"]),
        "liquidations": sum(
            len(recorded.liquidations(symbol, 0, end)["time"])
            for symbol in recorded.instruments("um")
        ),
    }
    assert counts == {
        name: pq.read_metadata(folder / f"{name}.parquet").num_rows for name in counts
    }


def test_a_replayed_book_is_the_recorded_one(shared_data: Path, recorded: Replay) -> None:
    table = pq.read_table(shared_data / "um" / "depth_book1000_BTCUSDT.parquet")
    row = table.sort_by("exch_ts_ms").slice(1234, 1).to_pylist()[0]
    now = datetime.fromtimestamp(row["exch_ts_ms"] / 1000, UTC)
    with simulator(recorded, now=now) as exchange:
        found = answer(f"{exchange.url}/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert [float(price) for price, _ in found["bids"]] == row["bids_px"]
    assert [float(quantity) for _, quantity in found["asks"]] == row["asks_qty"]
    assert found["lastUpdateId"] == row["seq"]
