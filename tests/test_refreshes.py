"""A warehouse refreshed after each of several landings equals one that was built at once."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from features_fixtures import ROOT, random_market, write_raw

LAYERS = ("intermediate", "features", "labels")


def run(database: Path, *arguments: str) -> None:
    """Run the feature library on a warehouse."""
    layers = [f"+path:models/{layer}" for layer in LAYERS]
    command = [
        *(str(Path(sys.executable).parent / "dbt"), "run", *(arguments or ("--select", *layers))),
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT)),
        *("--target-path", str(database.parent / "target")),
        *("--log-path", str(database.parent / "logs")),
    ]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(database)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def land(database: Path, tables: dict[str, pd.DataFrame]) -> None:
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'")
        for name, frame in tables.items():
            connection.register("frame", frame)
            connection.execute(f"insert into raw.{name} by name select * from frame")
            connection.unregister("frame")


def landings(market: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """Three landings: rows of the second day come late, some twice, some with other prices."""
    klines, trades, books = market["klines"], market["trades"], market["books"]
    days = [pd.Timestamp("2025-02-02", tz="UTC"), pd.Timestamp("2025-02-03", tz="UTC")]
    late = (klines.index % 17 == 3) & (klines.symbol == "ETHUSDT")
    first = klines[(klines.open_time < days[0]) & ~late]
    second = klines[(klines.open_time >= days[0]) & (klines.open_time < days[1]) & ~late]
    corrected = second.iloc[100:140].assign(
        close=lambda rows: rows.high, received_at=lambda rows: rows.received_at + pd.Timedelta("1h")
    )
    third = pd.concat([klines[late | (klines.open_time >= days[1])], corrected, first.tail(50)])
    return [
        {"klines": first, "trades": trades[trades.transact_time < days[0]], "books": books},
        {"klines": second, "trades": trades[trades.transact_time >= days[0]]},
        {"klines": third},
    ]


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A warehouse refreshed after each landing, once without feat_ta, and one built at once."""
    working = tmp_path_factory.mktemp("refreshes")
    refreshed, rebuilt = working / "refreshed" / "t.duckdb", working / "rebuilt" / "t.duckdb"
    for database in (refreshed, rebuilt):
        database.parent.mkdir()
        write_raw(database, {})
    for number, tables in enumerate(landings(random_market(minutes=4000))):
        land(refreshed, tables)
        land(rebuilt, tables)
        run(refreshed, *(["--exclude", "int_bar_windows+", "ds_*+"] if number == 1 else []))
    run(rebuilt)
    return refreshed, rebuilt


def incremental_models(manifest: dict[str, Any]) -> list[str]:
    return sorted(
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
        and node["fqn"][1] in LAYERS
        and node["config"]["materialized"] != "view"
    )


def test_refreshed_tables_equal_rebuilt_ones(
    warehouses: tuple[Path, Path], manifest: dict[str, Any]
) -> None:
    differing = {}
    with duckdb.connect() as connection:
        for name, database in zip(("refreshed", "rebuilt"), warehouses, strict=True):
            connection.execute(f"attach '{database}' as {name} (read_only)")
        for model in incremental_models(manifest):
            one, other = f"refreshed.main.{model}", f"rebuilt.main.{model}"
            (rows,) = connection.execute(
                f"select (select count(*) from (from {one} except all from {other})) "
                f"+ (select count(*) from (from {other} except all from {one}))"
            ).fetchone() or (0,)
            if rows:
                differing[model] = rows
    assert differing == {}
