"""The technical and statistical families by dbt on DuckDB, beside polars, pandas and TA-Lib.

`python benchmarks/bench_features.py [days]`: one-minute bars of 5 symbols, 730 days by default.
Dbt writes its tables to disk, from `int_bars` on. Polars (lazy, all cores) and pandas (one core,
one symbol, times 5) keep theirs in memory; polars' are then written to Parquet, too. TA-Lib
computes the indicators it has on four threads. Values of dbt and polars are compared.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import duckdb
import market
import numpy as np
import peers
import polars as pl

FAMILIES = {"feat_ta": peers.technical, "feat_stats": peers.statistics}


def main() -> None:
    """Print the time of each and the ratios to dbt's."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 730
    market.print_machine("polars", "pandas", "ta-lib")
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        market.write_klines(working / "tapehouse.duckdb", bars=days * 1440)
        print(f"bars from klines {market.dbt_run(working, '+int_bars stg_garch_parameters')}")
        sql = market.dbt_run(
            working, " ".join(f"+{name},int_bars+" for name in FAMILIES), exclude="int_bars" + ""
        )
        print(f"dbt on DuckDB    {sql}", flush=True)
        with duckdb.connect(working / "tapehouse.duckdb", read_only=True) as connection:
            bars = [
                frame(
                    connection,
                    f"from int_bars where symbol = '{symbol}' and interval_minutes = 1"
                    " order by opened_at",
                )
                for symbol in market.SYMBOLS
            ]
            seconds = {"dbt": sql.seconds}
            started = perf_counter()
            frames = peers.by_polars(bars, list(FAMILIES.values()))
            seconds["polars"] = perf_counter() - started
            started = perf_counter()
            with ThreadPoolExecutor(4) as threads:
                list(
                    threads.map(
                        lambda part: part[1].write_parquet(working / f"{part[0]}.parquet"),
                        enumerate(frames),
                    )
                )
            seconds["polars to Parquet"] = seconds["polars"] + perf_counter() - started
            for place, name in enumerate(FAMILIES):
                compare(connection, name, frames[place])
        del frames
        arrays = [
            {
                name: symbol[name].to_numpy()
                for name in ("close_price", "high_price", "low_price", "volume")
            }
            for symbol in bars
        ]
        started = perf_counter()
        with ThreadPoolExecutor(4) as threads:
            indicators = next(map(len, list(threads.map(peers.by_talib, arrays))))
        seconds[f"TA-Lib, {indicators} columns"] = perf_counter() - started
        first = bars[0].to_pandas()
        del bars, arrays
        started = perf_counter()
        for family in FAMILIES.values():
            peers.by_pandas(first, family)
        seconds["pandas"] = (perf_counter() - started) * len(market.SYMBOLS)
    rows = days * 1440 * len(market.SYMBOLS)
    print(f"{rows:,} rows; last column: times dbt's")
    for name, value in seconds.items():
        print(f"{name:<20} {value:7.1f} s {rows / value:12,.0f} rows/s {value / sql.seconds:6.2f}")


def frame(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """Return the rows of a query."""
    return pl.DataFrame(connection.sql(query).to_arrow_table())


def compare(connection: duckdb.DuckDBPyConnection, table: str, expected: pl.DataFrame) -> None:
    """End with a message where the last thousand values of the first symbol differ."""
    actual = frame(
        connection,
        f"from {table} where symbol = '{market.SYMBOLS[0]}' and interval_minutes = 1"
        " order by opened_at desc limit 1000",
    ).reverse()
    missing = set(expected.columns) - set(actual.columns)
    if missing:
        sys.exit(f"{table} has no {sorted(missing)}")
    for name in expected.columns:
        if name == "close_volume_obv":
            continue
        values = expected[name].tail(1000).cast(pl.Float64).to_numpy()
        scale = 1e-3 * np.nanmean(np.abs(values))
        equal = np.isclose(
            actual[name].cast(pl.Float64).to_numpy(), values, rtol=1e-3, atol=scale, equal_nan=True
        )
        # Libraries carry rounding from bar to bar: what is to be equal here is the meaning.
        if equal.mean() < 0.99:
            sys.exit(f"{table}: {name} differs")
    others = set(actual.columns) - set(expected.columns)
    print(
        f"{table}: {len(expected.columns)} columns agree; not computed by peers: {sorted(others)}"
    )


if __name__ == "__main__":
    main()
