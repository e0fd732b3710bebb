"""Random markets in the raw schema, and the dbt project built on them."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from dbt_fixtures import run_dbt

ROOT = Path(__file__).resolve().parents[1]
START = pd.Timestamp("2025-01-31 22:00", tz="UTC")
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


def raw_klines(symbol: str, *, minutes: int, seed: int) -> pd.DataFrame:
    """One-minute klines of a random walk on a tick of 0.1, with one hole of seven minutes."""
    generator = np.random.default_rng(seed)
    close = np.round(1000 + generator.normal(0, 1, minutes).cumsum(), 1)
    opened = np.concatenate([[1000.0], close[:-1]])
    spread = np.round(generator.exponential(1.0, (2, minutes)), 1)
    volume = np.round(generator.exponential(10.0, minutes), 3) + 0.001
    frame = pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "interval": "1m",
            "open_time": pd.date_range(START, periods=minutes, freq="min"),
            "open": opened,
            "high": np.maximum(opened, close) + spread[0],
            "low": np.minimum(opened, close) - spread[1],
            "close": close,
            "volume": volume,
            "quote_volume": np.round(volume * close, 4),
            "count": generator.integers(1, 100, minutes),
            "taker_buy_volume": np.round(volume * generator.uniform(0, 1, minutes), 3),
            "is_closed": True,
            "source": "archive",
            "received_at": START + pd.Timedelta(days=30),
        }
    )
    hole = slice(minutes // 3, minutes // 3 + 7)
    return frame.drop(index=frame.index[hole])


def raw_trades(symbol: str, *, minutes: int, seed: int) -> pd.DataFrame:
    """Raw trades at random times, none in every tenth minute."""
    generator = np.random.default_rng(seed)
    seconds = np.sort(generator.uniform(0, minutes * 60, minutes * 8)).round(3)
    seconds = seconds[(seconds // 60) % 10 != 9]
    count = len(seconds)
    price = np.round(1000 + generator.normal(0, 0.5, count).cumsum(), 1)
    quantity = np.round(generator.exponential(1.0, count), 3) + 0.001
    return pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "is_aggregate": False,
            "trade_id": np.arange(count) + 1,
            "price": price,
            "quantity": quantity,
            "quote_quantity": np.round(price * quantity, 4),
            "transact_time": START + pd.to_timedelta(seconds, unit="s"),
            "is_buyer_maker": generator.uniform(size=count) < 0.5,
            "source": "archive",
            "received_at": START + pd.Timedelta(days=30),
        }
    )


def raw_books(symbol: str, *, minutes: int, seed: int) -> pd.DataFrame:
    """Books of 20 levels every 30 seconds, with ten minutes missing."""
    generator = np.random.default_rng(seed)
    count = minutes * 2
    best_bid = np.round(1000 + generator.choice([-0.1, 0.0, 0.1], count).cumsum(), 1)
    steps = np.round(generator.integers(1, 4, (2, count, 20)).cumsum(axis=2) * 0.1, 1)
    quantities = np.round(generator.exponential(5.0, (2, count, 20)), 3) + 0.001
    frame = pd.DataFrame(
        {
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "last_update_id": np.arange(count) + 1,
            "transact_time": START + pd.to_timedelta(np.arange(count) * 30, unit="s"),
            "bid_prices": list(np.round(best_bid[:, None] + 0.1 - steps[0], 1)),
            "bid_quantities": list(quantities[0]),
            "ask_prices": list(np.round(best_bid[:, None] + steps[1], 1)),
            "ask_quantities": list(quantities[1]),
            "source": "file",
            "received_at": START + pd.Timedelta(days=30),
        }
    )
    return frame[(frame.index < count // 2) | (frame.index >= count // 2 + 20)]


def random_market(*, minutes: int) -> dict[str, pd.DataFrame]:
    """Raw klines, trades and books of two symbols."""
    makers = {"klines": raw_klines, "trades": raw_trades, "books": raw_books}
    return {
        table: pd.concat(
            [make(symbol, minutes=minutes, seed=seed) for seed, symbol in enumerate(SYMBOLS)],
            ignore_index=True,
        )
        for table, make in makers.items()
    }


def write_raw(database: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Create the raw schema in a new database and fill it."""
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute((ROOT / "ingest" / "raw.sql").read_text())
        for table, frame in tables.items():
            connection.register("frame", frame)
            connection.execute(f"insert into raw.{table} by name select * from frame")


def built(name: str, tables: dict[str, pd.DataFrame], *, select: str, working: Path) -> Path:
    """Build the models ``select`` names on raw rows; the result is the database ``name``."""
    database = working / "tapehouse.duckdb"
    write_raw(database, tables)
    run_dbt(database, "run", "--select", *select.split())
    return database.rename(working / f"{name}.duckdb")


def table(database: Path, query: str) -> pd.DataFrame:
    """The rows of a query."""
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(query).df()
