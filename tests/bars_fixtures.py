"""Random and recorded bars, and models of the project built on them in memory."""

import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from dbt_fixtures import NOT_TESTS, run_dbt, shared

ROOT = Path(__file__).resolve().parents[1]
KEY = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
Models = dict[str, dict[str, Any]]


def compiled(factory: pytest.TempPathFactory) -> Models:
    """Features, labels and what they are made of, compiled; the manifest's nodes by their name."""
    select = ("--select", "+path:models/features", "+path:models/labels", *NOT_TESTS)
    directory = shared(
        factory,
        "compiled",
        lambda working: run_dbt(working / "tapehouse.duckdb", "compile", *select),
    )
    nodes = json.loads((directory / "target" / "manifest.json").read_text())["nodes"]
    return {node["name"]: node for node in nodes.values() if node["resource_type"] == "model"}


def built(models: Models, name: str, given: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Build a model and what it reads, down to the tables that are given, in key order."""
    return built_together(models, [name], given)[name]


def built_together(
    models: Models, names: Sequence[str], given: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Build several models and what they read, each table once."""
    parents: dict[str, set[str]] = {}
    waiting = list(names)
    while waiting:
        model = waiting.pop()
        if model not in parents:
            reads = [parent.split(".")[-1] for parent in models[model]["depends_on"]["nodes"]]
            parents[model] = set() if model in given else set(reads)
            waiting += parents[model]
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach ':memory:' as {models[names[0]]['database']}")
        for model in TopologicalSorter(parents).static_order():
            if model in given:
                connection.register("given", given[model])
                sql = "select * from given"
            else:
                sql = models[model]["compiled_code"]
            connection.execute(f"create table {models[model]['relation_name']} as {sql}")
        order = ", ".join(KEY)
        return {
            name: connection.execute(
                f"select * from {models[name]['relation_name']} order by {order}"
            ).df()
            for name in names
        }


def on_grid(reported: pd.DataFrame, *, symbol: str, interval_minutes: int) -> pd.DataFrame:
    """Rows of int_bars from reported bars, indexed by their opening: with gaps and runs."""
    step = pd.Timedelta(minutes=interval_minutes)
    grid = pd.date_range(reported.index.min(), reported.index.max(), freq=step, name="opened_at")
    bars = reported.reindex(grid)
    is_gap = bars.close_price.isna()
    run = is_gap.cumsum()
    bars["bars_in_run"] = (~is_gap).astype(int).groupby(run).cumsum().astype("int32")
    bars["is_gap"] = is_gap
    closed_at = grid + step
    return bars.reset_index().assign(
        exchange="binance",
        market="um",
        symbol=symbol,
        interval_minutes=np.int32(interval_minutes),
        closed_at=closed_at,
        available_at=closed_at,
    )


def random_bars(*, bars: int, interval_minutes: int = 1) -> pd.DataFrame:
    """Bars of two symbols from before midnight, with clustered volatility and one hole each."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(seed)
        volatility = 1e-3 * np.exp(generator.normal(0, 0.05, bars).cumsum().clip(-1, 1))
        close = np.round(1000 * np.exp((generator.standard_t(5, bars) * volatility).cumsum()), 2)
        opened = np.concatenate([[1000.0], close[:-1]])
        spread = np.round(generator.exponential(0.5, (2, bars)), 2)
        reported = pd.DataFrame(
            {
                "open_price": opened,
                "high_price": np.maximum(opened, close) + spread[0],
                "low_price": np.minimum(opened, close) - spread[1],
                "close_price": close,
                "volume": np.round(generator.exponential(10.0, bars), 3),
            },
            index=pd.date_range(
                "2025-01-31 22:10", periods=bars, freq=pd.Timedelta(minutes=interval_minutes)
            ),
        )
        hole = reported.index[bars // 4 : bars // 4 + 5 + seed]
        frames.append(
            on_grid(reported.drop(index=hole), symbol=symbol, interval_minutes=interval_minutes)
        )
    return pd.concat(frames, ignore_index=True)


def recorded_bars(path: Path, *, symbol: str, interval_minutes: int, rows: int) -> pd.DataFrame:
    """The last rows of a recorded file of klines as rows of int_bars."""
    klines = pd.read_parquet(path).tail(rows)
    names = ["open", "high", "low", "close"]
    prices = klines[names].astype(float).set_axis([f"{name}_price" for name in names], axis=1)
    reported = prices.assign(volume=klines.volume.astype(float))
    reported.index = pd.to_datetime(klines.open_time, unit="ms").astype("datetime64[us]")
    return on_grid(reported, symbol=symbol, interval_minutes=interval_minutes)


def runs(bars: pd.DataFrame) -> list[pd.DataFrame]:
    """The stretches of bars without a gap, of every symbol."""
    reported = bars[~bars.is_gap]
    stretch = bars.groupby("symbol").is_gap.cumsum()[~bars.is_gap]
    return [run for _, run in reported.groupby([reported.symbol, stretch])]


def cut(bars: pd.DataFrame, *, start: int = 0, end: int | None = None) -> pd.DataFrame:
    """The same bars as if the table started or ended elsewhere, by each symbol's row number."""
    number = bars.groupby("symbol").cumcount()
    part = bars[(number >= start) & (number < (end or len(bars)))]
    return pd.concat(
        on_grid(
            rows[~rows.is_gap].set_index("opened_at")[
                ["open_price", "high_price", "low_price", "close_price", "volume"]
            ],
            symbol=symbol,
            interval_minutes=rows.interval_minutes.iloc[0],
        )
        for symbol, rows in part.groupby("symbol")
    )
