"""The project rendered for BigQuery is GoogleSQL to Google's own analyser, types included."""

import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

LAYERS = (
    *("staging", "intermediate", "features", "labels", "datasets"),
    *("models", "predictions", "signals", "trading", "quality"),
)
SEEDS = {
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
}
RAW_TYPES = {
    "varchar": "STRING",
    "timestamptz": "TIMESTAMP",
    "double": "FLOAT64",
    "bigint": "INT64",
    "integer": "INT64",
    "boolean": "BOOL",
    "double[]": "ARRAY<FLOAT64>",
}
CONTRACT_TYPES = {
    "string": "STRING",
    "varchar": "STRING",
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
    "a framed quantile": "select quantile_cont(x, 0.5) over (order by x) as q from t",
    "exclude": "select * exclude (x) from t",
    "a list function": "select list_sum([x]) as total from t",
    "a cast with colons": "select x::double as y from t",
    "a regression": "select regr_slope(x, x) as slope from t",
    "a double-quoted name": 'select "x" + 1 as y from t',
    "an unknown column": "select missing from t",
    "parts by a float": "select row_number() over (partition by x order by x) as place from t",
}


def project_relation(name: str) -> str:
    return name.replace("`", "")


@pytest.fixture(scope="module")
def manifest_for_bigquery(
    project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The manifest with the code that dbt compiles for BigQuery without an account.

    A model that is trained has the statement that its materialization sends.
    """
    working = tmp_path_factory.mktemp("bigquery")
    dbt_for_bigquery(project_root, working, "compile", "--no-populate-cache", "--no-introspect")
    manifest: dict[str, Any] = json.loads((working / "manifest.json").read_text())
    trained = json.loads(dbt_for_bigquery(project_root, working, "run-operation", "ml_statements"))
    for node in manifest["nodes"].values():
        if node["name"] in trained:
            node["compiled_code"] = trained[node["name"]]
    return manifest


def dbt_for_bigquery(project_root: Path, working: Path, *arguments: str) -> str:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "dbt"), "--quiet", *arguments),
            *("--target", "bigquery", "--project-dir", str(project_root / "dbt_project")),
            *("--profiles-dir", str(project_root)),
            *("--target-path", str(working), "--log-path", str(working)),
        ],
        env=os.environ
        | {"TAPEHOUSE_BIGQUERY_METHOD": "oauth-secrets", "TAPEHOUSE_BIGQUERY_TOKEN": "offline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def raw_tables(project_root: Path) -> dict[str, dict[str, str]]:
    """Columns and BigQuery's types of each raw table."""
    statements = re.findall(
        r"create table if not exists raw\.(\w+) \((.*?)\n\);",
        (project_root / "ingest" / "raw.sql").read_text(),
        re.DOTALL,
    )
    return {
        name: {
            column.strip('"'): RAW_TYPES[kind]
            for column, kind in (
                part.rsplit(" ", 1) for part in re.sub(r"\s+", " ", body).strip().split(", ")
            )
        }
        for name, body in statements
    }


def analysed(work: dict[str, Any]) -> dict[str, dict[str, Any]]:
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


@pytest.fixture(scope="module")
def analysis(
    manifest_for_bigquery: dict[str, Any], project_root: Path
) -> dict[str, dict[str, Any]]:
    """What the analyser says of each model's statement and of the planted ones, by name."""
    manifest = manifest_for_bigquery
    nodes = {
        key: node
        for key, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["fqn"][1] in LAYERS
    }
    columns = raw_tables(project_root)
    relations = {
        key: project_relation(node["relation_name"])
        for key, node in (manifest["sources"] | nodes).items()
    }
    tables = {
        relations[key]: columns[source["name"]] for key, source in manifest["sources"].items()
    }
    seeds = {
        key: SEEDS[node["name"]] for key, node in manifest["nodes"].items() if node["name"] in SEEDS
    }
    relations |= {key: project_relation(manifest["nodes"][key]["relation_name"]) for key in seeds}
    tables |= {relations[key]: types for key, types in seeds.items()}
    parents = {key: node["depends_on"]["nodes"] for key, node in nodes.items()}
    ordered = [key for key in TopologicalSorter(parents).static_order() if key in nodes]
    statements = [
        {
            "relation": relations[key],
            # The analyser's catalogue is flat: one name with dots in it.
            "sql": re.sub(
                r"`([^`]*)`\.`([^`]*)`\.`([^`]*)`", r"`\1.\2.\3`", nodes[key]["compiled_code"]
            ),
            "reads": [relations[parent] for parent in parents[key] if parent in relations],
        }
        for key in ordered
    ]
    statements += [
        {"relation": name, "sql": sql, "reads": ["t"]} for name, sql in DUCKDB_ONLY.items()
    ]
    results = analysed({"tables": tables | {"t": {"x": "FLOAT64"}}, "statements": statements})
    names = {relations[key]: nodes[key]["name"] for key in nodes}
    return {names.get(relation, relation): result for relation, result in results.items()}


def test_every_model_resolves(
    analysis: dict[str, dict[str, Any]], manifest: dict[str, Any]
) -> None:
    models = {
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] in LAYERS
    }
    assert models - analysis.keys() == set()
    assert {name: analysis[name] for name in models if "error" in analysis[name]} == {}


def test_the_columns_have_the_types_of_the_contracts(
    analysis: dict[str, dict[str, Any]], manifest: dict[str, Any]
) -> None:
    wrong = []
    for node in manifest["nodes"].values():
        if node["resource_type"] != "model" or not node["contract"]["enforced"]:
            continue
        # The SQL of this one describes tables; the materialization adds what is in them.
        if node["config"]["materialized"] == "datasets":
            continue
        found = analysis[node["name"]]["columns"]
        wanted = {
            name: CONTRACT_TYPES[column["data_type"].lower()]
            for name, column in node["columns"].items()
        }
        wrong += [
            f"{node['name']}.{name}: {found.get(name)} instead of {kind}"
            for name, kind in wanted.items()
            if found.get(name) != kind
        ]
        wrong += [
            f"{node['name']}.{name} is in no contract" for name in found.keys() - wanted.keys()
        ]
    assert wrong == []


@pytest.mark.parametrize("name", DUCKDB_ONLY)
def test_what_only_duckdb_understands_is_refused(
    analysis: dict[str, dict[str, Any]], name: str
) -> None:
    assert "error" in analysis[name]
