"""Fourteen factors of 800 stocks, the size of Qlib's task, in SQL beside polars and pandas.

`python benchmarks/bench_qlib.py [stocks]`: 3,400 days each, 2.7 million rows by default, read from
a DuckDB file (SQL) or Parquet (the others). Qlib's README states the task (14 features of open,
high, low, close and volume) and its seconds, but not the expressions: here are 14 of its Alpha158.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb
import market
import numpy as np
import pandas as pd
import polars as pl

SHAPES = {
    "kmid": "(close - open) / open",
    "klen": "(high - low) / open",
    "kmid2": "(close - open) / (high - low + 1e-12)",
    "ksft": "(2 * close - high - low) / open",
    "ksft2": "(2 * close - high - low) / (high - low + 1e-12)",
    "open0": "open / close",
    "high0": "high / close",
    "low0": "low / close",
}
WINDOWS = {
    "ma20": "avg(close) over last_20 / close",
    "std20": "stddev(close) over last_20 / close",
    "max20": "max(high) over last_20 / close",
    "min20": "min(low) over last_20 / close",
    "vma20": "avg(volume) over last_20 / volume",
    "roc20": "lag(close, 20) over by_stock / close",
}
QUERY = f"""
create table factors as
select stock, day, {", ".join(f"{text} as {name}" for name, text in (SHAPES | WINDOWS).items())}
from bars
window
    by_stock as (partition by stock order by day),
    last_20 as (by_stock rows between 19 preceding and current row)
"""
# Seconds of Qlib's README for 800 stocks, 2007 to 2020, on one core of another machine.
PUBLISHED = {"HDF5": 184.4, "MySQL": 365.3, "Qlib": 147.0, "Qlib with caches": 7.4}


def main() -> None:
    """Print seconds and ratios."""
    stocks = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    market.print_machine("polars", "pandas")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with duckdb.connect(path / "bars.duckdb") as connection:
            connection.execute(
                "create table bars as with closes as (select stock, day,"
                " exp(sum((random() - 0.5) / 50) over (partition by stock order by day)) as close"
                f" from range({stocks}) as stocks(stock) cross join range(3400) as days(day))"
                " select stock, day, close, close * (1 + (random() - 0.5) / 90) as open,"
                " close * (1.01 + random() / 90) as high, close * (0.99 - random() / 90) as low,"
                " 1 + random() as volume from closes order by stock, day"
            )
            connection.execute(f"copy bars to '{path / 'bars.parquet'}'")
        seconds = {}
        started = perf_counter()
        with duckdb.connect(path / "bars.duckdb", config={"threads": 4}) as connection:
            connection.execute(QUERY)
            seconds["SQL"] = perf_counter() - started
            factors = connection.sql("from factors order by stock, day").to_arrow_table()
        for name, peer in {"polars": by_polars, "pandas": by_pandas}.items():
            started = perf_counter()
            found = peer(path / "bars.parquet")
            seconds[name] = perf_counter() - started
            for column in SHAPES | WINDOWS:
                expected = factors[column].to_numpy()
                # DuckDB's first windows are shorter, as Qlib's are.
                full = ~np.isnan(found[column].to_numpy())
                if not np.allclose(found[column].to_numpy()[full], expected[full], rtol=1e-6):
                    sys.exit(f"{column} of {name} differs")
    print(f"{stocks * 3400:,} rows")
    for name, value in seconds.items():
        print(f"{name:<20} {value:7.2f} s {value / seconds['SQL']:6.1f} of SQL's")
    for name, value in PUBLISHED.items():
        print(f"{name:<20} {value:7.1f} s, published")


def by_polars(path: Path) -> pl.DataFrame:
    """Read and compute all at once."""
    windows = {
        "ma20": pl.col("close").rolling_mean(20),
        "std20": pl.col("close").rolling_std(20),
        "max20": pl.col("high").rolling_max(20),
        "min20": pl.col("low").rolling_min(20),
        "roc20": pl.col("close").shift(20),
    }
    return (
        pl.scan_parquet(path)
        .with_columns(
            **{name: pl.sql_expr(text) for name, text in SHAPES.items()},
            **{name: value.over("stock") / pl.col("close") for name, value in windows.items()},
            vma20=pl.col("volume").rolling_mean(20).over("stock") / pl.col("volume"),
        )
        .collect()
    )


def by_pandas(path: Path) -> pd.DataFrame:
    """Read and compute column by column."""
    bars = pd.read_parquet(path)
    for name, text in SHAPES.items():
        bars[name] = bars.eval(text)
    close, rolling = bars["close"], bars.groupby("stock", sort=False).rolling(20)
    bars["ma20"] = rolling["close"].mean().to_numpy() / close
    bars["std20"] = rolling["close"].std().to_numpy() / close
    bars["max20"] = rolling["high"].max().to_numpy() / close
    bars["min20"] = rolling["low"].min().to_numpy() / close
    bars["vma20"] = rolling["volume"].mean().to_numpy() / bars["volume"]
    bars["roc20"] = bars.groupby("stock", sort=False)["close"].shift(20) / close
    return bars


if __name__ == "__main__":
    main()
