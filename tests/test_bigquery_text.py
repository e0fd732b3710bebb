"""The project rendered for BigQuery is GoogleSQL to Google's own analyser, types included.

With `TAPEHOUSE_TEST_BIGQUERY=all` (`make test-bigquery`) the refreshes of incremental models too.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bigquery_imported import MODELS, exported
from bigquery_project import (
    Manifest,
    Statement,
    analysed,
    analysis_statements,
    checksum_statements,
    compiled_for_bigquery,
    imported_statements,
    model_statements,
    nodes_of,
    raw_tables,
    refresh_statements,
    relation,
    seed_tables,
    strategies,
)
from bigquery_project import (
    test_statements as statements_of_tests,
)
from bigquery_status import IS_WHOLE, Status

from ml.trainers import Task

Results = dict[str, dict[str, Any]]

WHOLE = pytest.mark.skipif(not IS_WHOLE, reason="takes a minute: `make test-bigquery` runs it")
CHANGED_FROM = "timestamp '2025-06-01 00:00:00'"
# It is made of the present version's tables alone, and merged by its key.
SAME_WHEN_REFRESHED = {"trd_evaluation"}
CONTRACT_TYPES = {
    "string": "STRING",
    "timestamp": "TIMESTAMP",
    "double": "FLOAT64",
    "float": "FLOAT64",
    "bigint": "INT64",
    "integer": "INT64",
    "boolean": "BOOL",
}
# Statements that DuckDB runs and BigQuery does not.
DUCKDB_ONLY = {
    "an ASOF join": "select a.x from t as a asof join t as b on a.x >= b.x",
    "a semi join": "select x from t semi join t as u using (x)",
    "a lateral join": "select t.x, u.y from t, lateral (select t.x + 1 as y) as u",
    "positions of a join": "select * from t positional join t as u",
    "a framed quantile": "select quantile_cont(x, 0.5) over (order by x) as q from t",
    "exclude": "select * exclude (x), 1 as y from t",
    "a list function": "select list_sum([x]) as total from t",
    "a list comprehension": "select [e + 1 for e in [x]] as y from t",
    "an element of a list": "select [x][1] as y from t",
    "a list of lists": "select [[x]] as y from t",
    "a struct in braces": "select {'a': x} as y from t",
    "a cast with colons": "select x::double as y from t",
    "a cast with a precision": "select cast(x as numeric(38, 9)) as y from t",
    "a UUID": "select cast('6ec8b9b4-0a65-4d0c-b2f6-1c4a5b6d7e8f' as uuid) as y from t",
    "a regression": "select regr_slope(x, x) as slope from t",
    "the number pi": "select pi() as y from t",
    "a median": "select median(x) as y from t",
    "a test of a number": "select isfinite(x) as y from t",
    "a filter of an aggregate": "select sum(x) filter (where x > 0) as y from t",
    "an aggregate of several": "select max_by(x, x, 3) as y from t",
    "a double-quoted name": 'select "x" + 1 as y from t',
    "a call with a dot": "select x.abs() as y from t",
    "a name of the same select": "select x + 1 as y, y + 1 as z from t",
    "a limit that is computed": "select x from t limit 1 + 1",
    "rows that are distinct on one": "select distinct on (x) x from t",
    "no select": "from t",
    "a sample": "select x from t using sample 3",
    "parts by a float": "select row_number() over (partition by x order by x) as place from t",
    "a whole quotient": "select x // 1 as y from t",
    "a power": "select x ** 2 as y from t",
    "likeness without case": "select 'a' ilike 'A' as y from t",
}
# What the analyser knows and neither engine does, and what is in no table.
UNKNOWN = {
    "an unknown column": "select missing from t",
    "the sum of an array": "select array_sum([x]) as y from t",
    "a function without a name": "select array_transform([x], e -> e + 1) as y from t",
    "what an error becomes": "select iferror(x, 0) as y from t",
    "nothing for nought": "select nullifzero(x) as y from t",
}
# Resolves on DuckDB in any refresh; BigQuery has no such function.
PLANTED = "where isfinite(timestamp '2025-06-01')"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The project compiled for BigQuery without an account: its tables made anew."""
    return compiled_for_bigquery(tmp_path_factory.mktemp("rebuilt"))


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The same where incremental models refresh themselves."""
    working = tmp_path_factory.mktemp("refreshed")
    return compiled_for_bigquery(working, changed_from=CHANGED_FROM)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The project whose models are not trained by BigQuery but imported."""
    working = tmp_path_factory.mktemp("imported")
    return compiled_for_bigquery(working, imported_models=MODELS)


@pytest.fixture(scope="module")
def analysis(
    rebuilt: Manifest, imported: Manifest, project_root: Path, request: pytest.FixtureRequest
) -> Results:
    """What the analyser says of each statement of the project and of the planted ones, by name."""
    tables = raw_tables(rebuilt, project_root) | seed_tables(rebuilt) | {"t": {"x": "FLOAT64"}}
    statements = [
        *model_statements(rebuilt),
        *(refresh_statements(request.getfixturevalue("refreshed")) if IS_WHOLE else ()),
        *statements_of_tests(rebuilt),
        *analysis_statements(rebuilt),
        *checksum_statements(rebuilt),
    ]
    file = exported(Task("binary", ("false", "true")), "BOOLEAN")
    statements += [each | {"onnx": file} for each in imported_statements(rebuilt, imported)]
    refused = DUCKDB_ONLY | UNKNOWN
    planted = [{"relation": name, "sql": sql, "reads": ["t"]} for name, sql in refused.items()]
    if IS_WHOLE:
        planted += planted_refreshes(statements)
    return analysed({"tables": tables, "statements": statements + planted})


def planted_refreshes(statements: Iterable[Statement]) -> Iterator[Statement]:
    """Yield the refreshes that read their own table with a function that DuckDB alone has."""
    for statement in statements:
        own = f"from `{statement['reads'][-1]}`"
        if statement["relation"].endswith(" refreshed") and own in statement["sql"]:
            sql = statement["sql"].replace(own, f"from (select * {own} {PLANTED})")
            yield statement | {"relation": f"planted in {statement['relation']}", "sql": sql}


def is_planted(name: str) -> bool:
    return name in DUCKDB_ONLY | UNKNOWN or name.startswith("planted in ")


def test_every_statement_resolves(
    analysis: Results, rebuilt: Manifest, bigquery_status: Status
) -> None:
    errors = {name: found["error"] for name, found in analysis.items() if "error" in found}
    for statement in model_statements(rebuilt):
        name = statement["relation"].split(".")[-1]
        is_wrong = {statement["relation"], f"{name} refreshed"} & errors.keys()
        bigquery_status.setdefault(name, {})["analyser"] = "refused" if is_wrong else "yes"
    for node in nodes_of(rebuilt, "analysis").values():
        name = f"analysis {node['name']}"
        bigquery_status.setdefault(name, {})["analyser"] = "refused" if name in errors else "yes"
    assert {name: error for name, error in errors.items() if not is_planted(name)} == {}


def test_every_kind_of_statement_was_looked_at(analysis: Results, rebuilt: Manifest) -> None:
    models = nodes_of(rebuilt, "model").values()
    wanted = {statement["relation"] for statement in model_statements(rebuilt)}
    assert len(wanted) == len(models) + len(strategies())
    wanted |= {
        f"{node['name']} refreshed"
        for node in models
        if IS_WHOLE and node["config"]["materialized"] == "incremental"
    }
    wanted |= {f"analysis {node['name']}" for node in nodes_of(rebuilt, "analysis").values()}
    wanted |= {f"checksums of {source['name']}" for source in rebuilt["sources"].values()}
    assert wanted - analysis.keys() == set()
    tests = {
        column
        for name, found in analysis.items()
        if name.startswith("tests of ") and not name.endswith(" imported")
        for column in found["columns"]
    }
    assert tests == nodes_of(rebuilt, "test").keys()


@WHOLE
def test_a_refresh_writes_the_columns_that_the_table_has(
    analysis: Results, rebuilt: Manifest
) -> None:
    whole = {node["name"]: analysis[relation(node)] for node in nodes_of(rebuilt, "model").values()}
    refreshed = {
        name.removesuffix(" refreshed"): found
        for name, found in analysis.items()
        if name.endswith(" refreshed") and not is_planted(name)
    }
    assert {name: found for name, found in refreshed.items() if found != whole[name]} == {}


@WHOLE
def test_a_refresh_is_another_statement(rebuilt: Manifest, refreshed: Manifest) -> None:
    same = {
        node["name"]
        for key, node in nodes_of(refreshed, "model").items()
        if node["config"]["materialized"] == "incremental"
        and node["compiled_code"] == rebuilt["nodes"][key]["compiled_code"]
    }
    assert same == SAME_WHEN_REFRESHED


@WHOLE
def test_what_only_duckdb_understands_is_refused_in_a_refresh(
    analysis: Results, rebuilt: Manifest
) -> None:
    planted = {name for name in analysis if name.startswith("planted in ")}
    said = {name: analysis[name].get("error", "nothing") for name in planted}
    wrong = {name: error for name, error in said.items() if "not found: isfinite" not in error}
    assert wrong == {}
    duckdb.sql(f"from (values (1)) {PLANTED}").fetchall()
    added = {
        f"planted in {node['name']} refreshed"
        for node in nodes_of(rebuilt, "model").values()
        if node["config"]["materialized"] == "incremental"
        and node["config"]["incremental_strategy"] != "insert_overwrite"
    }
    assert added - planted == {f"planted in {name} refreshed" for name in SAME_WHEN_REFRESHED}
    assert len(added & planted) >= 5


def test_what_imported_models_change_resolves(
    analysis: Results, rebuilt: Manifest, imported: Manifest
) -> None:
    found = {each["name"] for each in imported_statements(rebuilt, imported)}
    models = {node["name"]: node for node in nodes_of(rebuilt, "model").values()}
    trained = {
        name for name, node in models.items() if node["config"]["materialized"] == "ml_model"
    }
    assert trained == MODELS.keys()
    predictions = {name for name in models if name.startswith("pred_")}
    assert {f"{name} imported" for name in trained | predictions} <= found
    for name in predictions:
        own = analysis[relation(models[name])]["columns"]
        assert analysis[f"{name} imported"] == {"columns": own}


def test_tables_of_bars_lie_by_day_and_symbol(analysis: Results, rebuilt: Manifest) -> None:
    elsewhere = {
        node["name"]
        for node in nodes_of(rebuilt, "model").values()
        if node["config"]["materialized"] in ("table", "incremental")
        and {"symbol", "opened_at"} <= analysis[relation(node)]["columns"].keys()
        and (
            (node["config"].get("partition_by") or {}).get("field") != "opened_at"
            or node["config"].get("cluster_by") != ["symbol"]
        )
    }
    assert elsewhere == set()


def test_dbt_has_the_strategies_of_the_incremental_models(rebuilt: Manifest) -> None:
    strategies = {
        node["config"]["incremental_strategy"]
        for node in nodes_of(rebuilt, "model").values()
        if node["config"]["materialized"] == "incremental"
    }
    # None is a merge. dbt-bigquery knows microbatch too, which filters parents: docs/decisions.md.
    assert strategies <= {None, "merge", "insert_overwrite"}


def test_tables_are_cut_by_columns_that_they_have(analysis: Results, rebuilt: Manifest) -> None:
    missing = {
        node["name"]: column
        for node in nodes_of(rebuilt, "model").values()
        if node["config"]["materialized"] != "view"
        for column in [
            *(node["config"].get("cluster_by") or ()),
            *filter(None, [(node["config"].get("partition_by") or {}).get("field")]),
        ]
        if column not in analysis[relation(node)]["columns"]
    }
    assert missing == {}


def test_the_columns_have_the_types_of_the_contracts(analysis: Results, rebuilt: Manifest) -> None:
    wrong = []
    for node in nodes_of(rebuilt, "model").values():
        # The SQL of datasets describes tables; the materialization adds what is in them.
        if not node["contract"]["enforced"] or node["config"]["materialized"] == "datasets":
            continue
        found = analysis[relation(node)]["columns"]
        wanted = {
            name: CONTRACT_TYPES[column["data_type"].lower()]
            for name, column in node["columns"].items()
        }
        wrong += [
            f"{node['name']}.{name}: {found.get(name)} instead of {wanted.get(name)}"
            for name in found.keys() | wanted.keys()
            if found.get(name) != wanted.get(name)
        ]
    assert wrong == []


@pytest.mark.parametrize("name", DUCKDB_ONLY)
def test_what_only_duckdb_understands_is_refused(analysis: Results, name: str) -> None:
    with duckdb.connect() as connection:
        connection.execute("create table t as select 1::double as x")
        connection.execute(DUCKDB_ONLY[name])
    assert "error" in analysis[name]


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_bigquery_has_not_is_refused(analysis: Results, name: str) -> None:
    assert "error" in analysis[name]
