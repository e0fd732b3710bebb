"""One added day beside two years, by dbt on DuckDB.

`python benchmarks/bench_refresh.py [days]`: all feature families of one-minute bars of 5 symbols,
730 days by default: built in full, then with one day more. SQL is the time of the statements of
all models together; models is what dbt reports for them, its own work and waiting included.
"""

import sys
import tempfile
from pathlib import Path

import market


def main() -> None:
    """Print the cost of the day and its share."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 730
    market.print_machine()
    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder)
        database = working / "tapehouse.duckdb"
        market.write_klines(database, bars=days * 1440)
        full = market.dbt_run(working, "+path:models/features")
        market.write_klines(database, bars=(days + 1) * 1440, first=days * 1440)
        day = market.dbt_run(working, "+path:models/features")
    for name, run in {f"{days} days": full, "one day more": day}.items():
        print(
            f"{name:<14}{run} {run.statement_seconds:8.1f} s of SQL"
            f" {run.model_seconds:8.1f} s of models"
        )
    print(
        f"share of SQL {day.statement_seconds / full.statement_seconds:.2%}, of models"
        f" {day.model_seconds / full.model_seconds:.2%}, of time {day.seconds / full.seconds:.2%}"
    )
    for model, seconds in sorted(day.models.items(), key=lambda item: -item[1])[:5]:
        print(f"    {model:<28} {seconds:6.2f} s of {full.models[model]:6.2f} s")


if __name__ == "__main__":
    main()
