"""Every statement of the project as BigQuery gets it, for Google's analyser."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dbt_fixtures import NO_ACCOUNT, NOT_TESTS, OFFLINE_BIGQUERY, ROOT, run_dbt

from ingest.checksums import digest_sql
from ingest.raw_tables import raw_tables as definitions

Manifest = dict[str, Any]
Statement = dict[str, Any]
Types = dict[str, str]

SEEDS: dict[str, Types] = {
    "criteria": {
        **dict.fromkeys(("criterion", "words"), "STRING"),
        **dict.fromkeys(("minimum", "target", "exceptional"), "FLOAT64"),
        "criterion_number": "INT64",
        "is_higher_better": "BOOL",
    },
    "ensembles": {
        **dict.fromkeys(("ensemble_name", "method", "model_name"), "STRING"),
        **dict.fromkeys(
            ("weight", "threshold", "minimum_confidence", "maximum_disagreement"), "FLOAT64"
        ),
        "vol_regime": "INT64",
    },
    "strategies": {},
}
# The model that describes the datasets of the strategies, and the SQL of one in its own.
DATASETS = "model.tapehouse.ds_strategies"
DATASET = re.compile(r"'''((?:(?!''').)*)''' as dataset_sql", re.DOTALL)
RAW_TYPES = {
    "varchar": "STRING",
    "timestamptz": "TIMESTAMP",
    "double": "FLOAT64",
    "bigint": "INT64",
    "integer": "INT64",
    "boolean": "BOOL",
    "double[]": "ARRAY<FLOAT64>",
}


def compiled_for_bigquery(
    working: Path,
    *,
    changed_from: str | None = None,
    imported_models: dict[str, dict[str, Any]] | None = None,
) -> Manifest:
    """Return the manifest with the statements that make tables anew, or refresh them.

    A model that is trained, or imported, has the statement that its materialization sends.
    """
    variables: dict[str, Any]
    variables = {"changed_from": changed_from} if changed_from else {"strategies": strategies()}
    if imported_models:
        variables |= {"imported_models": imported_models}
    database = working / "tapehouse.duckdb"
    options = ["--vars", json.dumps(variables), *(NOT_TESTS if changed_from else ())]
    run_dbt(database, "compile", *OFFLINE_BIGQUERY, *options, **NO_ACCOUNT)
    manifest: Manifest = json.loads((working / "target" / "manifest.json").read_text())
    if not changed_from:
        operation = ("--quiet", "run-operation", "ml_statements", *OFFLINE_BIGQUERY[:2], *options)
        trained = run_dbt(database, *operation, **NO_ACCOUNT)
        for name, statement in json.loads(trained).items():
            manifest["nodes"][f"model.tapehouse.{name}"]["compiled_code"] = statement
    return manifest


def strategies() -> list[dict[str, str]]:
    """Return the rows of the seed `strategies`."""
    with (ROOT / "dbt_project" / "seeds" / "strategies.csv").open() as file:
        return list(csv.DictReader(file))


def relation(node: dict[str, Any]) -> str:
    """Return a node's relation: the analyser's catalogue is flat, so one name with dots in it."""
    return str(node["relation_name"]).replace("`", "")


def flat(sql: str) -> str:
    return re.sub(r"`([^`]*)`\.`([^`]*)`\.`([^`]*)`", r"`\1.\2.\3`", sql)


def nodes_of(manifest: Manifest, kind: str) -> dict[str, dict[str, Any]]:
    return {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == kind}


def reads(manifest: Manifest, node: dict[str, Any]) -> list[str]:
    known = manifest["sources"] | manifest["nodes"]
    return [relation(known[key]) for key in node["depends_on"]["nodes"]]


def raw_tables(manifest: Manifest, project_root: Path) -> dict[str, Types]:
    """Columns and BigQuery's types of each raw table, by its relation."""
    created = dict(
        re.findall(
            r"create table if not exists raw\.(\w+) \((.*?)\n\);",
            (project_root / "ingest" / "raw.sql").read_text(),
            re.DOTALL,
        )
    )
    return {
        relation(source): {
            column.strip('"'): RAW_TYPES[kind]
            for column, kind in (
                part.rsplit(" ", 1)
                for part in re.sub(r"\s+", " ", created[source["name"]]).strip().split(", ")
            )
        }
        for source in manifest["sources"].values()
    }


def seed_tables(manifest: Manifest) -> dict[str, Types]:
    return {relation(seed): SEEDS[seed["name"]] for seed in nodes_of(manifest, "seed").values()}


def model_statements(manifest: Manifest) -> list[Statement]:
    """Return the models, each after those it reads; the relation is the name of what it makes.

    The datasets of the strategies stand before what reads the model that describes them.
    """
    models = nodes_of(manifest, "model")
    parents = {key: node["depends_on"]["nodes"] for key, node in models.items()}
    datasets = list(dataset_statements(models[DATASETS], manifest))
    made = [statement["relation"] for statement in datasets]
    statements = []
    for key in (key for key in TopologicalSorter(parents).static_order() if key in models):
        statements.append(
            {
                "relation": relation(models[key]),
                "sql": flat(models[key]["compiled_code"]),
                "reads": reads(manifest, models[key]) + (made if DATASETS in parents[key] else []),
            }
        )
        if key == DATASETS:
            statements += datasets
    return statements


def dataset_statements(model: dict[str, Any], manifest: Manifest) -> Iterator[Statement]:
    """Yield what makes the dataset of each strategy."""
    found = DATASET.findall(model["compiled_code"])
    for strategy, sql in zip(strategies(), found, strict=True):
        yield {
            "relation": relation(model).replace("ds_strategies", f"ds_{strategy['name']}"),
            "sql": flat(sql),
            "reads": reads(manifest, model),
        }


def refresh_statements(manifest: Manifest) -> Iterator[Statement]:
    """Yield what an incremental model runs to refresh itself, named `<model> refreshed`."""
    for node in nodes_of(manifest, "model").values():
        if node["config"]["materialized"] == "incremental":
            yield {
                "relation": f"{node['name']} refreshed",
                "sql": flat(node["compiled_code"]),
                "reads": [*reads(manifest, node), relation(node)],
            }


def test_statements(manifest: Manifest) -> Iterator[Statement]:
    """Yield the data tests of each node as one statement, named `tests of <node>`.

    Each test is a column of it, under its own name.
    """
    tests: dict[str, list[dict[str, Any]]] = {}
    for node in nodes_of(manifest, "test").values():
        tests.setdefault(node["attached_node"] or node["name"], []).append(node)
    for key, nodes in tests.items():
        counts = (
            f"(select count(*) from (\n{flat(node['compiled_code'])}\n)) as `{node['unique_id']}`"
            for node in nodes
        )
        yield {
            "relation": f"tests of {key.split('.')[-1]}",
            "sql": "select " + ",\n".join(counts),
            "reads": sorted({name for node in nodes for name in reads(manifest, node)}),
        }


def analysis_statements(manifest: Manifest) -> Iterator[Statement]:
    """Yield the analyses, named `analysis <name>`."""
    for node in nodes_of(manifest, "analysis").values():
        yield {
            "relation": f"analysis {node['name']}",
            "sql": flat(node["compiled_code"]),
            "reads": reads(manifest, node),
        }


def imported_statements(trained: Manifest, imported: Manifest) -> Iterator[Statement]:
    """Yield what is sent otherwise where models are imported, each named `<name> imported`.

    Models, in order, then tests and analyses; a model's relation is its own.
    """
    names = {relation(node): node["name"] for node in nodes_of(imported, "model").values()}
    others = (test_statements, analysis_statements)
    before = {
        statement["relation"]: statement["sql"]
        for statements in (model_statements, *others)
        for statement in statements(trained)
    }
    for statements in (model_statements, *others):
        for statement in statements(imported):
            made = statement["relation"]
            if statement["sql"] != before[made]:
                yield statement | {"name": f"{names.get(made, made)} imported"}


def checksum_statements(manifest: Manifest) -> Iterator[Statement]:
    """Yield what a sync asks of each raw table, named `checksums of <table>`."""
    for source in manifest["sources"].values():
        name = relation(source)
        sql = digest_sql(definitions()[source["name"]], f"`{name}`", "bigquery")
        moment = "timestamp '2025-06-01'"
        yield {
            "relation": f"checksums of {source['name']}",
            "sql": sql.replace("@start", moment).replace("@end", moment),
            "reads": [name],
        }


def analysed(work: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the analyser says of each statement, by the name of its relation."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("bigquery_analyser.py"))],
        input=json.dumps(work),
        env=os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result
