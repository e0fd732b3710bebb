"""A synthetic dataset beside its bars, and dbt on top of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow
from dbt_fixtures import run_dbt

from ml import registry
from ml.plugin import create_functions

ROOT = Path(__file__).resolve().parents[1]
START = datetime(2024, 12, 10)
HORIZON = 5
VOLATILITY = 8e-4
# Small enough to be quick, large enough to find the edge.
SMALL_MODELS: dict[str, dict[str, Any]] = {
    "LOGISTIC_REG": {"l2_reg": 1},
    "LINEAR_REG": {"l2_reg": 1},
    "BOOSTED_TREE_CLASSIFIER": {"max_tree_depth": 3, "learn_rate": 0.1},
    "BOOSTED_TREE_REGRESSOR": {"max_tree_depth": 3, "learn_rate": 0.1},
    "RANDOM_FOREST_CLASSIFIER": {"num_parallel_tree": 20, "max_tree_depth": 4},
    "RANDOM_FOREST_REGRESSOR": {"num_parallel_tree": 20, "max_tree_depth": 4},
    "DNN_CLASSIFIER": {"hidden_units": [8], "batch_size": 64, "learn_rate": 0.01},
    "DNN_REGRESSOR": {"hidden_units": [8], "batch_size": 64, "learn_rate": 0.01},
    "AUTOML_CLASSIFIER": {"num_trials": 5},
    "AUTOML_REGRESSOR": {"num_trials": 5},
}


@contextmanager
def warehouse_of(
    database: Path, *, edge: float = 0.5, days: int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a warehouse with a dataset of two symbols, the registry and the functions."""
    with duckdb.connect(str(database)) as connection:
        write_dataset(connection, seed=5, edge=edge, days=days, symbols=["BTCUSDT", "ETHUSDT"])
        registry.create(connection)
        create_functions(connection, database=database)
        yield connection


def write_dataset(
    connection: duckdb.DuckDBPyConnection, *, seed: int, edge: float, days: int, symbols: list[str]
) -> None:
    """Create ds_order_flow, whose flow moves five bars by `edge`, and int_ tables beside it.

    The second symbol lacks three bars in the test part.
    """
    generator = np.random.default_rng(seed)
    count = days * 288
    common = generator.normal(size=count)
    opened = np.array([START + timedelta(minutes=5 * index) for index in range(count)])
    gap = np.zeros(count, bool)
    tables = []
    for position, symbol in enumerate(symbols):
        driver = generator.normal(size=count)
        push = sum(np.concatenate([np.zeros(lag), driver[:-lag]]) for lag in range(1, HORIZON + 1))
        own = generator.normal(size=count)
        close = 100 * np.exp(np.cumsum(VOLATILITY * (0.7 * common + 0.7 * own + edge * push)))
        gap[int(count * 0.9) : int(count * 0.9) + 3] = position == 1
        flow = driver + generator.normal(size=count) / 2
        flow[generator.random(count) < 0.02] = np.nan
        tables.append(
            pyarrow.table(
                {
                    "symbol": [symbol] * count,
                    "opened_at": opened,
                    "close_price": pyarrow.array(close, mask=gap.copy()),
                    "is_gap": gap.copy(),
                    "flow": pyarrow.array(flow.astype(np.float32), from_pandas=True),
                    **{
                        f"noise_{index}": generator.normal(size=count).astype(np.float32)
                        for index in range(4)
                    },
                }
            )
        )
    rows = pyarrow.concat_tables(tables)
    connection.register("synthetic", rows)
    connection.execute(
        """
        create table int_bars as
        select 'binance' as exchange, 'um' as market, symbol, 5 as interval_minutes,
            opened_at, opened_at + interval 5 minute as closed_at,
            opened_at + interval 5 minute as available_at, close_price, is_gap
        from synthetic;

        create table ds_order_flow as
        with labelled as (
            select bars.*, rows_.* exclude (symbol, opened_at, close_price, is_gap),
                lead(bars.close_price, 5) over series / bars.close_price - 1 as return_5,
                lead(bars.closed_at, 5) over series as ends_at
            from int_bars as bars
            inner join synthetic as rows_ using (symbol, opened_at)
            window series as (partition by symbol order by opened_at)
        ),
        span as (select min(closed_at) as start_at, max(closed_at) - min(closed_at) as length
            from int_bars)
        select exchange, market, symbol, interval_minutes, opened_at, closed_at, available_at,
            flow, noise_0, noise_1, noise_2, noise_3, return_5 > 0 as is_up_5, return_5,
            case when return_5 is not null then ends_at end as label_end_at,
            case
                when return_5 is null then null
                when closed_at >= start_at + length * 0.8 then 'test'
                when closed_at >= start_at + length * 0.6 then
                    case when ends_at <= start_at + length * 0.8 - interval 1 hour
                        then 'validation' end
                when ends_at <= start_at + length * 0.6 - interval 1 hour then 'train'
            end as split,
            case
                when return_5 is not null and closed_at >= start_at + length * 0.6
                    then 1 + floor(
                        5 * epoch(closed_at - start_at - length * 0.6) / (1 + epoch(length * 0.4))
                    )::integer
            end as fold
        from labelled, span
        where not is_gap
        """
    )
    connection.unregister("synthetic")
    connection.execute(
        """
        create table int_funding as
        select exchange, market, symbol, opened_at as funded_at,
            1e-4 * (row_number() over (order by symbol, opened_at) % 7 - 3) as funding_rate
        from int_bars
        where extract(hour from opened_at) % 8 = 0 and extract(minute from opened_at) = 0;

        create table int_volatility_regimes as
        select exchange, market, symbol, interval_minutes, opened_at,
            (extract(hour from opened_at) // 8)::integer as vol_regime
        from int_bars
        """
    )


def build_market(directory: Path, *, seed: int, edge: float, days: int = 20) -> Path:
    """Write a synthetic dataset into a new warehouse and build everything after it."""
    database = directory / "tapehouse.duckdb"
    with duckdb.connect(str(database)) as connection:
        write_dataset(
            connection, seed=seed, edge=edge, days=days, symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        )
    build(database)
    return database


def build(database: Path, *arguments: str) -> str:
    """Build everything after the dataset, without the unit tests of the models."""
    return run_dbt(
        database,
        *("build", *arguments, "--exclude-resource-type", "unit_test"),
        *("--select", "path:seeds", "path:models/models", "path:models/predictions"),
        *("path:models/signals", "path:models/trading"),
    )
