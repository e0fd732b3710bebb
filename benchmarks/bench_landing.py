"""Landing klines from a Parquet file, beside DuckDB reading the same file bare.

`python benchmarks/bench_landing.py [rows]`: the ingest command checks every row, lands through dlt
and keeps a ledger; the bare insert does none of it. The ratio is the price of that.
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb

from ingest.files import ingest_files
from ingest.settings import Settings

MAKE = """
copy (
    select
        1577836800000 + 60000 * i as open_time,
        100 + i % 7 as open, 110 + i % 7 as high, 90 + i % 7 as low, 105 + i % 7 as close,
        1.5 as volume, 1577836800000 + 60000 * i + 59999 as close_time, 150.0 as quote_volume,
        3::bigint as count, 0.5 as taker_buy_volume, 50.0 as taker_buy_quote_volume
    from range({rows}) as numbers(i)
) to '{path}' (format parquet)
"""


def main() -> None:
    """Print both times and their ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "um" / "klines_BTCUSDT_1m.parquet"
        path.parent.mkdir()
        duckdb.execute(MAKE.format(rows=rows, path=path))

        started = perf_counter()
        settings = Settings(database=Path(folder) / "tapehouse.duckdb")
        report = ingest_files(settings, "klines", [path])
        ingest = perf_counter() - started
        if report.row_count != rows:
            sys.exit(f"expected {rows} rows to land, found {report.row_count}")

        started = perf_counter()
        with duckdb.connect(str(Path(folder) / "bare.duckdb")) as connection:
            connection.execute(f"create table klines as from '{path}'")
        bare = perf_counter() - started

    print(f"{rows:,} klines")
    print(f"tapehouse ingest  {ingest:7.2f} s  {rows / ingest:12,.0f} rows/s")
    print(f"bare DuckDB       {bare:7.2f} s  {rows / bare:12,.0f} rows/s")
    print(f"ratio             {ingest / bare:7.1f}")


if __name__ == "__main__":
    main()
