"""The project on BigQuery has the values that it has on DuckDB, after a build and a refresh.

With `TAPEHOUSE_TEST_BIGQUERY=all` (`make test-bigquery`) every model, over synthetic and recorded
rows, with the data tests; else a few models.
"""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bigquery_differences import EXPECTED
from bigquery_emulator import Emulator
from bigquery_fixtures import dbt, land_in_bigquery, raw_parts, run_results, table_of_duckdb
from bigquery_parity import differences
from bigquery_status import IS_WHOLE, Status
from cloud_fixtures import SERVICE_PROJECT
from features_fixtures import write_raw
from refreshes_fixtures import write_whole
from test_refreshes import land

from ingest.bigquery import BigQuery
from ingest.settings import Settings

LAYERS = ("staging", "intermediate", "features", "labels", "datasets")
SELECTED = (
    ["path:seeds", *(f"path:models/{layer}" for layer in LAYERS)]
    if IS_WHOLE
    else ["+lbl_return", "+int_funding", "+int_bar_returns", "+int_trade_minutes"]
)
ONLY_TABLES = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")


@dataclass(frozen=True)
class Built:
    """Both warehouses after a build and a refresh, and the names of the tables in them."""

    settings: Settings
    tables: list[str]

    def expected(self, name: str) -> pa.Table:
        return sorted_rows(table_of_duckdb(self.settings, name))

    def found(self, name: str) -> pa.Table:
        cloud = BigQuery(self.settings)
        columns = table_of_duckdb(self.settings, name).column_names
        return sorted_rows(cloud.rows(cloud.model(name), columns=columns))


def sorted_rows(rows: pa.Table) -> pa.Table:
    """Sort by everything but numbers and lists, which may differ in their last digits."""
    keys = [
        name
        for name, kind in zip(rows.column_names, rows.schema.types, strict=True)
        if not (pa.types.is_floating(kind) or pa.types.is_nested(kind) or name == "series_key")
    ]
    return rows.sort_by([(name, "ascending") for name in keys])


@pytest.fixture(scope="module", params=["emulator", "service"])
def place(request: pytest.FixtureRequest) -> Iterator[None]:
    """The environment of a BigQuery with datasets of this module's own."""
    name = uuid.uuid4().hex[:12]
    environment = {
        "TAPEHOUSE_BIGQUERY_DATASET": f"test_{name}",
        "TAPEHOUSE_BIGQUERY_RAW_DATASET": f"test_raw_{name}",
    }
    if request.param == "service":
        if not SERVICE_PROJECT:
            pytest.skip("TAPEHOUSE_BIGQUERY_TEST_PROJECT names no project of Google's service")
        environment["TAPEHOUSE_BIGQUERY_PROJECT"] = SERVICE_PROJECT
    else:
        emulator: Emulator = request.getfixturevalue("bigquery_emulator")
        environment |= emulator.environment(environment["TAPEHOUSE_BIGQUERY_DATASET"])
        # Its only connection is not made for several threads.
        environment["TAPEHOUSE_BIGQUERY_THREADS"] = "1"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        yield


@pytest.fixture(scope="module")
def built(
    place: None, tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any]
) -> Iterator[Built]:
    working = tmp_path_factory.mktemp("parity")
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    events = {
        source["name"]: source["config"]["event_time"]
        for source in manifest["sources"].values()
        if source["config"]["event_time"]
    }
    whole = working / "whole.duckdb"
    write_whole(whole, shared if IS_WHOLE and shared.is_dir() else None, events)
    first, second = raw_parts(whole, events)
    settings = Settings(database=working / "tapehouse.duckdb")
    write_raw(settings.database, {})
    for tables in (first, second):
        land(settings.database, tables)
        land_in_bigquery(settings, tables)
        for target in ("duckdb", "bigquery"):
            dbt(target, settings, "build", *ONLY_TABLES, "--select", *SELECTED)
    yield Built(settings, made(settings))
    client = BigQuery(settings).client
    for dataset in (settings.bigquery_dataset, settings.bigquery_raw_dataset):
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    shutil.rmtree(working)


def made(settings: Settings) -> list[str]:
    """Return the tables of the project that DuckDB has, without the bookkeeping of refreshes."""
    rows = table_of_duckdb(settings, "duckdb_tables()").to_pylist()
    names = {row["table_name"] for row in rows if row["schema_name"] == "main"}
    return sorted(names - {"raw_days", "refreshes", "criteria", "ensembles", "strategies"})


def test_every_column_has_the_same_values(built: Built, bigquery_status: Status) -> None:
    assert len(built.tables) >= (60 if IS_WHOLE else 5)
    unequal = {
        f"{name}.{difference.column}": difference
        for name in built.tables
        for difference in differences(built.expected(name), built.found(name))
    }
    wrong = {name: found for name, found in unequal.items() if name not in EXPECTED}
    for result in run_results(built.settings, "bigquery"):
        kind, _, name = result["unique_id"].split(".")
        if kind == "model":
            found = bigquery_status.setdefault(name, {})
            found["emulator"] = "yes" if result["status"] == "success" else result["status"]
            if name in built.tables:
                is_wrong = any(column.startswith(f"{name}.") for column in wrong)
                found["parity"] = "differs" if is_wrong else "yes"
    assert wrong == {}
