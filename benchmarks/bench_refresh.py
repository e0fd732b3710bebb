"""One added day beside two years, and longer histories under a memory limit, by dbt on DuckDB.

`python benchmarks/bench_refresh.py [days]`: all feature families of one-minute bars of 5 symbols,
730 days by default: built in full, then with one day more. Then `feat_ta` and `feat_stats` of 1, 2
and 4 times a tenth of the days with a memory limit of 1 GB: time is to grow with the rows.
"""

import sys
import tempfile
from pathlib import Path

import market


def main() -> None:
    """Print the cost of the day and of each length."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 730
    market.print_machine()
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        database = working / "tapehouse.duckdb"
        market.write_klines(database, bars=days * 1440)
        full = market.dbt_run(working, "+path:models/features")
        print(f"{days} days        {full} {full.sql_seconds:8.1f} s of SQL", flush=True)
        market.write_klines(database, bars=(days + 1) * 1440, first=days * 1440)
        day = market.dbt_run(working, "+path:models/features")
        print(f"one day more    {day} {day.sql_seconds:8.1f} s of SQL")
        print(f"share of SQL time {day.sql_seconds / full.sql_seconds:.2%}", flush=True)
        for model, seconds in sorted(day.models.items(), key=lambda item: -item[1])[:5]:
            print(f"    {model:<28} {seconds:6.2f} s of {full.models[model]:6.2f} s")
    for times in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            working = Path(folder)
            market.write_klines(working / "tapehouse.duckdb", bars=times * days * 144)
            run = market.dbt_run(working, "+feat_ta +feat_stats", memory_limit="1GB")
            print(f"{times * days * 720:>12,} rows, 1 GB {run}", flush=True)


if __name__ == "__main__":
    main()
