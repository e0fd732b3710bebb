"""Longer histories under a memory limit, by dbt on DuckDB.

`python benchmarks/bench_history.py [days] [limit]`: `feat_ta` and `feat_stats` of one-minute bars
of 5 symbols, of 73 days by default, then of 2, 5 and 10 times as many, with at most 1 GB of memory
for DuckDB. All must end, and a row must cost as much in the longest as in the shortest. The
longest, 5.3 million rows, needs about 12 GB of disk below `$TMPDIR`, removed at the end.
"""

import sys
import tempfile
from pathlib import Path

import market


def main() -> None:
    """Print what each length costs, in all and for a million rows."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 73
    limit = sys.argv[2] if len(sys.argv) > 2 else "1GB"
    market.print_machine()
    for times in (1, 2, 5, 10):
        with tempfile.TemporaryDirectory() as folder:
            working = Path(folder)
            database = working / "tapehouse.duckdb"
            market.write_klines(database, bars=times * days * 1440)
            run = market.dbt_run(working, "+feat_ta +feat_stats", memory_limit=limit)
            rows = times * days * 1440 * len(market.SYMBOLS)
            print(
                f"{rows:>12,} rows, {limit} {run}"
                f" {run.statement_seconds / rows * 1e6:7.1f} s of SQL for a million rows"
                f" {database.stat().st_size / 1e9:6.1f} GB of tables",
                flush=True,
            )


if __name__ == "__main__":
    main()
