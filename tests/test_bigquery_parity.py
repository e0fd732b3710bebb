"""The project on BigQuery has the values that it has on DuckDB, after a build and a refresh.

With `TAPEHOUSE_TEST_BIGQUERY=all` (`make test-bigquery`) every model but those of BigQuery ML,
over synthetic and recorded rows, with all tests of dbt, and every statement that dbt sent is
GoogleSQL to Google's analyser; else a few models and two unit tests.
"""

import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bigquery_differences import EXPECTED
from bigquery_emulator import Emulator
from bigquery_fixtures import (
    dbt,
    dbt_process,
    forget_results,
    land_in_bigquery,
    manifest_of,
    raw_parts,
    run_results,
    table_of_duckdb,
)
from bigquery_issued import issued, tables_there
from bigquery_parity import Difference, differences
from bigquery_predictions import TABLES, copy_predictions, imported_models, tell_the_future
from bigquery_project import analysed
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
    else ["+lbl_return", "+int_trade_minutes"]
)
AFTER_MODELS = (
    "pred_order_flow_votes",
    *(f"path:models/{layer}" for layer in ("signals", "trading", "quality")),
)
# What follows from an order that engines may differ in.
PLACES = ("series_key", "position", "place")
WHOLE = pytest.mark.skipif(not IS_WHOLE, reason="takes minutes: `make test-bigquery` runs it")
UNIT_TESTS = (
    ("--resource-type", "unit_test") if IS_WHOLE else ("--select", "int_bars,test_type:unit")
)
ONLY_TABLES = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")


@dataclass(frozen=True)
class Built:
    """Both warehouses: BigQuery after a build and a refresh, DuckDB built at once.

    The names of the tables in them, and the worst that dbt said of each node on BigQuery.
    """

    settings: Settings
    tables: list[str]
    results: dict[str, str]

    def analysis(self, name: str, target: str) -> str:
        """Return the SQL of an analysis as dbt compiled it."""
        compiled = self.settings.database.parent / f"dbt-{target}" / "compiled"
        return (compiled / "tapehouse" / "analyses" / f"{name}.sql").read_text()

    def expected(self, name: str) -> pa.Table:
        return sorted_rows(table_of_duckdb(self.settings, name))

    def found(self, name: str) -> pa.Table:
        cloud = BigQuery(self.settings)
        schema = table_of_duckdb(self.settings, name).schema
        # The emulator says of all decimals that they have nine places.
        columns = [
            f"cast({field.name} as float64) as {field.name}"
            if pa.types.is_decimal(field.type)
            else field.name
            for field in schema
        ]
        seen = cloud.model(f"seen_{name}")
        cloud.query(
            f"create or replace table `{seen}` as "
            f"select {', '.join(columns)} from `{cloud.model(name)}`"
        )
        return sorted_rows(cloud.rows(seen, columns=schema.names))


def sorted_rows(rows: pa.Table) -> pa.Table:
    """Sort by what is exact: numbers, which may differ in their last digits, come last."""
    kinds = dict(zip(rows.column_names, rows.schema.types, strict=True))
    keys = [name for name in kinds if not pa.types.is_nested(kinds[name]) and name not in PLACES]
    keys.sort(key=lambda name: pa.types.is_floating(kinds[name]))
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
    results: dict[str, str] = {}

    def run(*arguments: str, **variables: Any) -> None:
        forget_results(settings, "bigquery")
        dbt_process("bigquery", settings, *arguments, **variables)
        for result in run_results(settings, "bigquery"):
            # What failed once stays failed, whatever a later run said.
            if results.get(result["unique_id"], "success") in {"success", "pass"}:
                results[result["unique_id"]] = result["status"]

    for tables in (first, second):
        land(settings.database, tables)
        land_in_bigquery(settings, tables)
        run("build", *ONLY_TABLES, "--select", *SELECTED)
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", *SELECTED)
    if IS_WHOLE:
        imported = after_models(settings)
        for _ in range(2):
            run("build", *ONLY_TABLES, "--select", *AFTER_MODELS, imported_models=imported)
        run("test", "--exclude-resource-type", "unit_test", imported_models=imported)
        analyses = ("compile", "--select", "resource_type:analysis")
        dbt("duckdb", settings, *analyses)
        dbt("bigquery", settings, *analyses, imported_models=imported)
    run("test", *UNIT_TESTS, usual={})
    yield Built(settings, made(settings), results)
    client = BigQuery(settings).client
    for dataset in (settings.bigquery_dataset, settings.bigquery_raw_dataset):
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    shutil.rmtree(working)


def after_models(settings: Settings) -> dict[str, Any]:
    """Train on DuckDB, build there what follows, copy the predictions; return what was trained."""
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", "path:models/models")
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", "path:models/predictions")
    tell_the_future(settings)
    dbt("duckdb", settings, "build", *ONLY_TABLES, "--select", *AFTER_MODELS)
    copy_predictions(settings)
    return imported_models(settings)


def made(settings: Settings) -> list[str]:
    """Return the tables and views of the project that DuckDB has and dbt built on both.

    Without the bookkeeping of refreshes, seeds, models and the predictions that were copied.
    """
    names = {
        row[f"{kind}_name"]
        for kind in ("table", "view")
        for row in table_of_duckdb(settings, f"duckdb_{kind}s()").to_pylist()
        if row["schema_name"] == "main" and not row["internal"]
    }
    others = {"raw_days", "refreshes", "criteria", "ensembles", "strategies"}
    others |= {f"pred_{table}" for table in TABLES}
    return sorted(name for name in names - others if not name.startswith("ml_"))


def test_dbt_makes_and_refreshes_every_table(built: Built, bigquery_status: Status) -> None:
    found = {key: said for key, said in built.results.items() if key.startswith("model.")}
    for key, said in found.items():
        status = bigquery_status.setdefault(key.split(".")[-1], {})
        status["emulator"] = "yes" if said == "success" else said
    assert {key: said for key, said in found.items() if said != "success"} == {}
    assert len(found) >= (90 if IS_WHOLE else 5)


@WHOLE
def test_every_test_of_dbt_passes(built: Built, bigquery_status: Status) -> None:
    nodes = manifest_of(built.settings, "bigquery")["nodes"]
    tested = {
        key: node["attached_node"] or ""
        for key, node in nodes.items()
        if node["resource_type"] == "test"
    }
    said: dict[str, list[str]] = defaultdict(list)
    for key, node in tested.items():
        if node.startswith("model."):
            said[node.split(".")[2]].append(built.results[key])
    for model, results in said.items():
        passed = f"{results.count('pass')} of {len(results)}"
        bigquery_status.setdefault(model, {})["tests"] = passed
    assert {key for key in tested if built.results[key] != "pass"} == set()


def test_every_unit_test_of_dbt_passes(built: Built, bigquery_status: Status) -> None:
    nodes = {
        key: node
        for key, node in manifest_of(built.settings, "duckdb")["unit_tests"].items()
        if IS_WHOLE or node["model"] == "int_bars"
    }
    assert len(nodes) >= (110 if IS_WHOLE else 2)
    said: dict[str, list[str]] = defaultdict(list)
    for key, node in nodes.items():
        said[node["model"]].append(built.results.get(key, "not run"))
    for model, results in said.items():
        passed = f"{results.count('pass')} of {len(results)}"
        bigquery_status.setdefault(model, {})["unit tests"] = passed
    assert {key for key in nodes if built.results.get(key) != "pass"} == set()


@WHOLE
def test_every_analysis_says_what_it_says_on_duckdb(built: Built, bigquery_status: Status) -> None:
    nodes = manifest_of(built.settings, "bigquery")["nodes"].values()
    names = [node["name"] for node in nodes if node["resource_type"] == "analysis"]
    wrong: dict[str, Difference] = {}
    for name in names:
        found = sorted_rows(BigQuery(built.settings).query(built.analysis(name, "bigquery")))
        expected = sorted_rows(
            table_of_duckdb(built.settings, f"({built.analysis(name, 'duckdb')})")
        )
        assert expected.num_rows > 0
        unequal = differences(expected, found)
        wrong |= {f"{name}.{d.column}": d for d in unequal if f"{name}.{d.column}" not in EXPECTED}
        status = bigquery_status.setdefault(f"analysis {name}", {})
        is_wrong = any(column.startswith(f"{name}.") for column in wrong)
        status |= {"emulator": "yes", "parity": "differs" if is_wrong else "yes"}
    assert wrong == {}
    assert len(names) >= 10


@WHOLE
def test_every_statement_that_dbt_sent_is_googlesql(built: Built, bigquery_status: Status) -> None:
    sent = issued(built.settings)
    found = analysed({"tables": tables_there(built.settings, sent), "statements": sent})
    for statement in sent:
        name = statement["relation"].split(".")[-1]
        if "ds_strategies" in statement["name"] and statement["relation"] != statement["name"]:
            is_wrong = "error" in found[statement["name"]]
            bigquery_status.setdefault(name, {})["emulator"] = "refused" if is_wrong else "yes"
    assert {name: result["error"] for name, result in found.items() if "error" in result} == {}
    beginnings = [" ".join(statement["sql"].split()[:4]) for statement in sent]
    for beginning in ("create or replace table", "create or replace view", "merge into"):
        assert any(text.startswith(beginning) for text in beginnings)


def test_every_column_has_the_same_values(built: Built, bigquery_status: Status) -> None:
    assert len(built.tables) >= (60 if IS_WHOLE else 5)
    unequal = {
        f"{name}.{difference.column}": difference
        for name in built.tables
        for difference in differences(built.expected(name), built.found(name))
    }
    wrong = {name: found for name, found in unequal.items() if name not in EXPECTED}
    for name in built.tables:
        is_wrong = any(column.startswith(f"{name}.") for column in wrong)
        bigquery_status.setdefault(name, {})["parity"] = "differs" if is_wrong else "yes"
    assert wrong == {}
