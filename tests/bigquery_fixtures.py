"""Raw rows in both warehouses, and the dbt project built on them."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
from google.cloud import bigquery
from refreshes_fixtures import landings

from ingest.bigquery import BigQuery
from ingest.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
# Shorter windows than a user's: each row of a window is a row of a list to the emulator. Pairs of
# features are looked at in all rows: which are drawn is each engine's own.
VARIABLES = {
    "vol_regime_bars": 288,
    "adaptive_median_bars": 200,
    "typical_volume_days": 1,
    "feature_quality_pair_rows": 10_000,
}
# Of the tables with the most rows only these days are kept; of one series two days and a half of
# bars, as VPIN counts by the volume of the whole day before.
SINCE = "timestamptz '2025-06-08 18:00'"
LONGER = "exchange = 'binance' and symbol = 'BTCUSDT' and open_time >= timestamptz '2025-06-08'"
# Strategies ask for these, which the market has not: the last bars of another series stand in.
COPIES = ("SOLUSDT", "BNBUSDT")
COPIED = (
    "exchange = 'binance' and symbol = 'ETHUSDT' and open_time >= timestamptz '2025-06-09 18:00'"
)
LARGE = {
    "klines": "open_time",
    "trades": "transact_time",
    "books": "transact_time",
    "open_interest": "create_time",
    "liquidations": "trade_time",
    "mark_prices": "event_time",
}


def raw_parts(whole: Path, events: dict[str, str]) -> list[dict[str, pa.Table]]:
    """Part the last days of a market in two: what lands first, and what a refresh finds."""
    with duckdb.connect(whole) as connection:
        connection.execute("set timezone = 'UTC'")
        for table, event in LARGE.items():
            others = f" and not ({LONGER})" if table == "klines" else ""
            connection.execute(f"delete from raw.{table} where {event} < {SINCE}{others}")
        for symbol in COPIES:
            connection.execute(
                f"insert into raw.klines select * replace ('{symbol}' as symbol) "
                f"from raw.klines where {COPIED}"
            )
    first, second, third = landings(whole, events)
    return [{name: pa.concat_tables([first[name], second[name]]) for name in first}, third]


def land_in_bigquery(settings: Settings, tables: dict[str, pa.Table]) -> None:
    """Append raw rows by load jobs."""
    cloud = BigQuery(settings)
    cloud.create_raw_tables()
    for name, rows in tables.items():
        if rows.num_rows:
            load(cloud, cloud.raw(name), rows)


def load(cloud: BigQuery, table: str, rows: pa.Table) -> None:
    """Append rows to a table that is there; the emulator reads columns by their places."""
    schema = cloud.client.get_table(table).schema
    file = io.BytesIO()
    pyarrow.parquet.write_table(rows.select([field.name for field in schema]), file)
    file.seek(0)
    config = bigquery.LoadJobConfig(source_format="PARQUET", schema=schema)
    cloud.client.load_table_from_file(file, table, job_config=config).result()


def dbt(target: str, settings: Settings, *arguments: str, **variables: Any) -> str:
    """Run dbt on a warehouse, failing loudly."""
    done = dbt_process(target, settings, *arguments, **variables)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def dbt_process(
    target: str,
    settings: Settings,
    *arguments: str,
    usual: Mapping[str, Any] = VARIABLES,
    **variables: Any,
) -> subprocess.CompletedProcess[str]:
    """Run dbt on a warehouse, with some variables beside the usual ones of these tests."""
    working = settings.database.parent / f"dbt-{target}"
    environment = {"TAPEHOUSE_DATABASE": str(settings.database)}
    return subprocess.run(
        [
            *(str(Path(sys.executable).parent / "dbt"), "--quiet", *arguments),
            *("--target", target, "--vars", json.dumps({**usual, **variables})),
            *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT)),
            *("--target-path", str(working), "--log-path", str(working)),
        ],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def table_of_duckdb(settings: Settings, name: str) -> pa.Table:
    with duckdb.connect(settings.database, read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.sql(f"from {name}").to_arrow_table()


def manifest_of(settings: Settings, target: str) -> dict[str, Any]:
    path = settings.database.parent / f"dbt-{target}" / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def results_of(settings: Settings, target: str) -> Path:
    return settings.database.parent / f"dbt-{target}" / "run_results.json"


def forget_results(settings: Settings, target: str) -> None:
    """Remove what the run before wrote, lest it is taken for that of one that wrote nothing."""
    results_of(settings, target).unlink(missing_ok=True)


def run_results(settings: Settings, target: str) -> list[dict[str, Any]]:
    path = results_of(settings, target)
    results: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return results
