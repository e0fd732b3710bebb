"""The project on BigQuery has the values that it has on DuckDB, after a build and a refresh.

With `TAPEHOUSE_TEST_BIGQUERY=all` (`make test-bigquery`) every model but those of BigQuery ML,
over synthetic and recorded rows, with all tests of dbt, and every statement that dbt sent is
GoogleSQL to Google's analyser; else a few models and two unit tests.
"""

import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc
import pytest
from bigquery_built import (
    AFTER_MODELS,
    FAST,
    HAS_RECORDED,
    ONLY_TABLES,
    SELECTED,
    SHARED,
    Built,
    after_models,
    made,
    round_datasets,
    said,
    sorted_rows,
)
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
from bigquery_nulls import ALL_NULL, SOMETIMES_NULL
from bigquery_parity import Difference, differences
from bigquery_predictions import TABLES
from bigquery_project import analysed
from bigquery_status import DATA, IS_WHOLE, Status, note
from cloud_fixtures import SERVICE_PROJECT
from features_fixtures import write_raw
from refreshes_fixtures import write_whole
from test_refreshes import land

from ingest.bigquery import BigQuery
from ingest.settings import Settings

WHOLE = pytest.mark.skipif(not IS_WHOLE, reason="takes minutes: `make test-bigquery` runs it")
UNIT_TESTS = (
    ("--resource-type", "unit_test") if IS_WHOLE else ("--select", "int_bars,test_type:unit")
)
# Models that BigQuery makes and the emulator cannot, and what is copied from DuckDB instead.
NOT_MADE = {f"pred_{table}" for table in TABLES}


@pytest.fixture(scope="module", params=["emulator", "service"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
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
        yield request.param


@pytest.fixture(scope="module")
def built(
    place: str, tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any]
) -> Iterator[Built]:
    working = tmp_path_factory.mktemp("parity")
    events = {
        source["name"]: source["config"]["event_time"]
        for source in manifest["sources"].values()
        if source["config"]["event_time"]
    }
    whole = working / "whole.duckdb"
    write_whole(whole, SHARED if HAS_RECORDED else None, events)
    first, second = raw_parts(whole, events)
    settings = Settings(database=working / "tapehouse.duckdb")
    write_raw(settings.database, {})
    first |= said(settings)
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
    datasets = {}
    if IS_WHOLE:
        datasets = round_datasets(settings)
        imported = after_models(settings)
        for _ in range(2):
            run("build", *ONLY_TABLES, "--select", *AFTER_MODELS, imported_models=imported)
        run("test", "--exclude-resource-type", "unit_test", imported_models=imported)
        analyses = ("compile", "--select", "resource_type:analysis")
        dbt("duckdb", settings, *analyses)
        dbt("bigquery", settings, *analyses, imported_models=imported)
    run("test", *UNIT_TESTS, usual={})
    yield Built(settings, place, made(settings), results, datasets)
    client = BigQuery(settings).client
    for dataset in (settings.bigquery_dataset, settings.bigquery_raw_dataset):
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
    shutil.rmtree(working)


def models_to_make(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models that dbt should have made, by their keys."""
    nodes = manifest["nodes"]
    wanted = {
        key: node
        for key, node in nodes.items()
        if node["resource_type"] == "model"
        and node["config"]["materialized"] != "ml_model"
        and node["name"] not in NOT_MADE
    }
    if IS_WHOLE:
        return wanted
    reached, left = set(), [f"model.tapehouse.{name}" for name in FAST]
    while left:
        reached.add(key := left.pop())
        left += [each for each in nodes[key]["depends_on"]["nodes"] if each in wanted]
    return {key: wanted[key] for key in reached}


def test_dbt_makes_and_refreshes_every_table(built: Built, bigquery_status: Status) -> None:
    found = {key: result for key, result in built.results.items() if key.startswith("model.")}
    for key, result in found.items():
        word = "yes" if result == "success" else result
        note(bigquery_status, built.place, key.split(".")[-1], "emulator", word)
    assert {key: result for key, result in found.items() if result != "success"} == {}
    wanted = models_to_make(manifest_of(built.settings, "bigquery"))
    assert found.keys() == wanted.keys()
    assert {node["name"] for node in wanted.values()} - set(built.tables) == set()


@WHOLE
def test_every_test_of_dbt_passes(built: Built, bigquery_status: Status) -> None:
    nodes = manifest_of(built.settings, "bigquery")["nodes"]
    tested = {
        key: node["attached_node"] or ""
        for key, node in nodes.items()
        if node["resource_type"] == "test"
    }
    results: dict[str, list[str]] = defaultdict(list)
    for key, node in tested.items():
        if node.startswith("model."):
            results[node.split(".")[2]].append(built.results[key])
    for model, each in results.items():
        passed = f"{each.count('pass')} of {len(each)}"
        note(bigquery_status, built.place, model, "tests", passed)
    assert {key for key in tested if built.results[key] != "pass"} == set()


def test_every_unit_test_of_dbt_passes(built: Built, bigquery_status: Status) -> None:
    nodes = {
        key: node
        for key, node in manifest_of(built.settings, "duckdb")["unit_tests"].items()
        if IS_WHOLE or node["model"] == "int_bars"
    }
    results: dict[str, list[str]] = defaultdict(list)
    for key, node in nodes.items():
        results[node["model"]].append(built.results.get(key, "not run"))
    for model, each in results.items():
        passed = f"{each.count('pass')} of {len(each)}"
        note(bigquery_status, built.place, model, "unit tests", passed)
    assert nodes
    assert {key for key in nodes if built.results.get(key) != "pass"} == set()


@WHOLE
def test_every_analysis_says_what_it_says_on_duckdb(built: Built, bigquery_status: Status) -> None:
    nodes = manifest_of(built.settings, "bigquery")["nodes"].values()
    names = [node["name"] for node in nodes if node["resource_type"] == "analysis"]
    wrong: dict[str, list[Difference]] = {}
    for name in names:
        found = sorted_rows(BigQuery(built.settings).query(built.analysis(name, "bigquery")))
        expected = sorted_rows(
            table_of_duckdb(built.settings, f"({built.analysis(name, 'duckdb')})")
        )
        assert expected.num_rows > 0
        if unequal := differences(expected, found):
            wrong[name] = unequal
        of_it = (bigquery_status, built.place, f"analysis {name}")
        note(*of_it, "emulator", "yes")
        note(*of_it, "parity", "differs" if unequal else "yes")
        note(*of_it, "rows", f"{expected.num_rows:,}")
    assert names
    assert wrong == {}


@WHOLE
def test_every_statement_that_dbt_sent_is_googlesql(built: Built, bigquery_status: Status) -> None:
    sent = issued(built.settings)
    found = analysed({"tables": tables_there(built.settings, sent), "statements": sent})
    errors = {name: result["error"] for name, result in found.items() if "error" in result}
    for statement in sent:
        name = statement["relation"].split(".")[-1]
        if "ds_strategies" in statement["name"] and statement["relation"] != statement["name"]:
            word = "refused" if statement["name"] in errors else "yes"
            note(bigquery_status, built.place, name, "emulator", word)
    assert errors == {}


@WHOLE
def test_every_node_sent_the_statements_of_its_kind(built: Built) -> None:
    sent = defaultdict(set)
    for statement in issued(built.settings):
        text = re.sub(r"^\s*--.*$", "", statement["sql"], flags=re.MULTILINE)
        sent[statement["node"]].add(" ".join(text.split()[:2]).lower())
    manifest = manifest_of(built.settings, "bigquery")
    models = models_to_make(manifest)
    kinds = {key: node["config"]["materialized"] for key, node in models.items()}
    assert {key for key in models if "create or" not in sent[key]} == set()
    refreshed = {key for key, kind in kinds.items() if kind == "incremental"}
    assert {key for key in refreshed if "merge into" not in sent[key]} == set()
    tests = {key for key, node in manifest["nodes"].items() if node["resource_type"] == "test"}
    unit_tests = manifest_of(built.settings, "duckdb")["unit_tests"].keys()
    assert (tests | unit_tests) - sent.keys() == set()


def test_every_column_has_the_same_values(built: Built, bigquery_status: Status) -> None:
    wrong: dict[str, Difference] = {}
    allowed = set()
    for name in built.tables:
        expected, found = built.expected(name), built.found(name)
        unequal = {each.column: each for each in differences(expected, found)}
        known = {column for column in unequal if f"{name}.{column}" in EXPECTED}
        allowed |= {f"{name}.{column}" for column in known}
        for column in known:
            if EXPECTED[f"{name}.{column}"].holds(expected[column], found[column]):
                del unequal[column]
        wrong |= {f"{name}.{column}": each for column, each in unequal.items()}
        note(bigquery_status, built.place, name, "parity", "differs" if unequal else "yes")
        note(bigquery_status, built.place, name, "rows", f"{expected.num_rows:,}")
    assert wrong == {}
    if IS_WHOLE:
        # A difference that is gone has no place in the list.
        assert allowed == EXPECTED.keys()


def test_there_is_something_to_compare(built: Built) -> None:
    empty, of_null = set(), set()
    for name in built.tables:
        for rows in (built.expected(name), built.found(name)):
            if rows.num_rows == 0:
                empty.add(name)
            of_null |= {
                f"{name}.{column}"
                for column in rows.column_names
                if 0 < rows.num_rows == rows[column].null_count
            }
    assert empty == set()
    if HAS_RECORDED:
        assert of_null | SOMETIMES_NULL == ALL_NULL.keys()
    elif not IS_WHOLE:
        assert of_null == set()


@WHOLE
def test_recorded_rows_are_among_them(built: Built, bigquery_status: Status) -> None:
    bigquery_status[DATA] = {"rows": "synthetic and recorded" if HAS_RECORDED else "synthetic only"}
    if not HAS_RECORDED:
        pytest.skip(f"only synthetic rows were compared: recorded market data is absent: {SHARED}")
    layers = [name for name in built.tables if name.startswith(("feat_", "lbl_"))]
    recorded = {
        name: pc.sum(pc.equal(built.found(name)["exchange"], "recorded")).as_py()
        for name in layers
        if "exchange" in built.found(name).column_names
    }
    assert recorded.keys() == set(layers)
    assert {name for name, rows in recorded.items() if not rows} == set()
