"""What `tapehouse serve` cannot do it says in a line, and ends with exit code 1."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest import warehouse
from ingest.settings import PROJECT_ROOT, Settings
from ingest.simulator import Market
from ml import registry
from serving.prepare import _given, prepare
from serving.scoring import NotReadyError
from tests.registry_fixtures import add_version, logistic, promote
from tests.serving_fixtures import built, copy, ingested, market
from tests.serving_tape import MODEL

__all__ = ["built", "ingested", "market"]

BUILD = "run `dbt build --project-dir dbt_project` first"


def refusal(database: Path) -> str:
    """What the command says of itself, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "serve"],
        env=os.environ | {"TAPEHOUSE_DATABASE": str(database)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    (line,) = (line for line in lines if line.startswith("Error: "))
    assert not any("Traceback" in line for line in lines)
    return line.removeprefix("Error: ")


def test_without_a_warehouse_or_a_model_it_says_what_to_do(tmp_path: Path) -> None:
    database = tmp_path / "tapehouse.duckdb"
    assert refusal(database).startswith(f"there is no warehouse at {database}: run `tapehouse ")
    with warehouse.writing(database):
        pass
    assert refusal(database) == f"{database} has no active model: {BUILD}"


def without_table(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("drop table ds_order_flow")


def without_rows(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("delete from ds_order_flow")


def with_a_lost_column(connection: duckdb.DuckDBPyConnection) -> None:
    (model,) = (each for each in registry.active_models(connection) if each.name == MODEL)
    features = [*model.features[:2], "lost"]
    version = add_version(connection, MODEL, logistic([0.0] * 3), features=features, stage="x")
    promote(connection, MODEL, version)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_table, f"{{database}} has no ds_order_flow: {BUILD}"),
        (without_rows, f"ds_order_flow is empty: ingest what it is made of, and {BUILD}"),
        (
            with_a_lost_column,
            "ds_order_flow has no column lost, which a model was trained on: train it anew",
        ),
    ],
)
def test_a_model_whose_dataset_is_not_there_is_refused(
    built: Path,
    tmp_path: Path,
    spoil: Callable[[duckdb.DuckDBPyConnection], None],
    reason: str,
) -> None:
    copy(built, tmp_path / "warehouse")
    database = tmp_path / "warehouse" / "tapehouse.duckdb"
    with warehouse.writing(database) as connection:
        spoil(connection)
    assert refusal(database) == reason.format(database=database)


def test_a_feature_that_depends_on_all_of_the_past_is_refused(
    built: Path, market: Market, tmp_path: Path
) -> None:
    database = tmp_path / "warehouse" / "tapehouse.duckdb"
    copy(built, database.parent)
    prepare(Settings(database=database), now=market.end, timeout_s=10).decisions.close()
    compiled = database.parent / "compiled"
    known = {path.name: json.loads(path.read_text()) for path in compiled.glob("*.json")}
    compiled.unlink()
    compiled.mkdir()
    for name, told in known.items():
        for node in told["nodes"].values():
            if node["name"] == "feat_ta":
                node["columns"]["close_roc_5"]["config"]["meta"]["is_unbounded"] = True
        (compiled / name).write_text(json.dumps(told))
    assert refusal(database) == (
        "feat_ta.close_roc_5 depends on all of the past and cannot be served: leave it out of the "
        "models that are asked live"
    )


def test_a_model_that_the_project_does_not_know_or_that_has_no_dataset_is_refused(
    manifest: dict[str, Any],
) -> None:
    assert _given(manifest, MODEL) == "ds_order_flow"
    assert _given(manifest, f"{MODEL}_stacked") == "pred_order_flow_votes"
    with pytest.raises(NotReadyError, match="ml_lost is registered and the project has no such"):
        _given(manifest, "ml_lost")
    nodes = manifest["nodes"]
    (key,) = (key for key, node in nodes.items() if node["name"] == MODEL)
    parents = [parent for parent, node in nodes.items() if node["name"].startswith("feat_")][:2]
    node = nodes[key] | {"depends_on": {"nodes": parents}}
    with pytest.raises(NotReadyError, match=r"selects from no dataset alone.*make its role base"):
        _given({"nodes": nodes | {key: node}}, MODEL)
