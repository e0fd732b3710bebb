"""Training through the functions of dbt's connection, and the registry it fills."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import lightgbm
import numpy as np
import pytest
from ml_fixtures import warehouse_of

from ml import onnx_model, options, registry

OPTIONS: dict[str, Any] = {
    "model_type": "BOOSTED_TREE_CLASSIFIER",
    "input_label_cols": ["is_up_5"],
    "data_split_method": "CUSTOM",
    "data_split_col": "split",
    "max_iterations": 30,
    "learn_rate": 0.1,
    "min_rel_progress": 0,
}
FEATURES = ["flow", "noise_0", "noise_1", "noise_2", "noise_3"]
QUERY = f"select {', '.join(FEATURES)}, is_up_5, split, label_end_at from ds_order_flow"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


@pytest.fixture
def warehouse(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with a dataset, the registry and the functions."""
    with warehouse_of(database, days=5) as connection:
        yield connection


def train(
    connection: duckdb.DuckDBPyConnection, query: str = QUERY, name: str = "ml_test", **given: Any
) -> dict[str, Any]:
    seed = given.pop("seed", 0)
    config = {
        "given": OPTIONS | given,
        "label_end_column": "label_end_at",
        "seed": seed,
    }
    done = connection.execute(
        "select tapehouse_train(?, ?, ?)", [name, query, json.dumps(config)]
    ).fetchall()[0][0]
    return json.loads(done)


def matrix(connection: duckdb.DuckDBPyConnection, where: str) -> tuple[np.ndarray, np.ndarray]:
    columns = connection.execute(
        f"select {', '.join(FEATURES)}, is_up_5::float as label from ds_order_flow where {where} "
        "order by symbol, opened_at"
    ).fetchnumpy()
    features = np.column_stack([np.ma.filled(columns[name], np.nan) for name in FEATURES])
    return features.astype(np.float32), np.ma.filled(columns["label"], np.nan)


def test_predictions_in_sql_are_those_of_lightgbm_called_directly(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    done = train(warehouse)
    training, learned = matrix(warehouse, "split = 'train'")
    validation, judged = matrix(warehouse, "split = 'validation'")
    parameters = {
        "objective": "binary",
        "verbosity": -1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "learning_rate": 0.1,
        "max_depth": 6,
        "num_leaves": 64,
        "lambda_l2": 1,
        "min_sum_hessian_in_leaf": 1,
    }
    train_set = lightgbm.Dataset(training, label=learned)
    oracle = lightgbm.train(
        parameters,
        train_set,
        num_boost_round=30,
        valid_sets=[train_set.create_valid(validation, label=judged)],
        callbacks=[lightgbm.early_stopping(30, verbose=False)],
    )
    rows, _ = matrix(warehouse, "true")
    found = warehouse.execute(
        f"select tapehouse_predict(?, [{', '.join(FEATURES)}]) from ds_order_flow "
        "order by symbol, opened_at",
        [done["model_version"]],
    ).fetchnumpy()
    assert done["iterations"] == oracle.best_iteration
    assert np.abs(next(iter(found.values())) - oracle.predict(rows)).max() <= 1e-6


def test_the_registry_says_what_was_learned_from_what(
    warehouse: duckdb.DuckDBPyConnection, database: Path
) -> None:
    done = train(warehouse)
    ends = warehouse.execute(
        "select max(label_end_at) filter (split = 'train'), "
        "max(label_end_at) filter (split = 'validation') from ds_order_flow"
    ).fetchall()[0]
    models = registry.active_models(warehouse)
    sha256 = models[0].sha256
    assert models == [
        registry.Model(
            *("ml_test", sha256[:16], "signal", "binary", tuple(FEATURES), "is_up_5", sha256),
            *ends,
            ("false", "true"),
        )
    ]
    assert done["model_version"] == sha256[:16]
    path = registry.model_file(warehouse, database, sha256)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    curve = warehouse.execute("select loss, eval_loss from registry.training_info").fetchall()
    assert curve[done["iterations"] - 1] == tuple(done["loss"].values())
    importance = warehouse.execute(
        "select feature, importance_gain from registry.feature_importance order by 2 desc"
    ).fetchall()
    assert sorted(feature for feature, _ in importance) == sorted(FEATURES)
    assert importance[0][0] == "flow"


def test_a_missing_model_file_is_written_again_from_the_registry(
    warehouse: duckdb.DuckDBPyConnection, database: Path
) -> None:
    train(warehouse)
    sha256 = registry.active_models(warehouse)[0].sha256
    path = registry.model_file(warehouse, database, sha256)
    before = path.read_bytes()
    path.unlink()
    assert registry.model_file(warehouse, database, sha256).read_bytes() == before
    with pytest.raises(registry.ModelMissingError, match="dbt build"):
        registry.model_file(warehouse, database, "0" * 64)


def test_the_stored_parity_sample_is_reproduced_by_the_model_file(
    warehouse: duckdb.DuckDBPyConnection, database: Path
) -> None:
    train(warehouse)
    sample = warehouse.execute(
        "select unnest(parity_sample, recursive := true) from registry.models"
    ).fetchall()
    path = registry.model_file(warehouse, database, registry.active_models(warehouse)[0].sha256)
    features = np.array([row[0] for row in sample], dtype=np.float32)
    found = onnx_model.outputs(onnx_model.load(path), features)
    assert len(sample) == 100
    assert np.isnan(features).any()
    assert found.tolist() == [row[1] for row in sample]


def test_unchanged_inputs_train_nothing_and_any_change_of_them_trains(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    first = train(warehouse)
    assert train(warehouse) == {"status": "unchanged", "model_version": first["model_version"]}
    warehouse.execute("update ds_order_flow set flow = 0 where split = 'test'")
    assert train(warehouse)["status"] == "unchanged"
    statuses = [
        train(warehouse, max_iterations=29)["status"],
        train(warehouse, max_iterations=29, seed=1)["status"],
        train(warehouse, QUERY + " where true", max_iterations=29, seed=1)["status"],
    ]
    warehouse.execute("update ds_order_flow set flow = 0 where split = 'validation'")
    statuses.append(train(warehouse, QUERY + " where true", max_iterations=29, seed=1)["status"])
    assert statuses == ["trained"] * 4
    assert warehouse.execute("select count(*) from registry.models").fetchall() == [(5,)]


def test_the_same_rows_and_seed_give_the_same_bytes_in_whatever_order_they_lie(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    sampled = {"subsample": 0.7, "colsample_bytree": 0.6}
    first = train(warehouse, **sampled)
    warehouse.execute("create table turned as from ds_order_flow order by noise_0")
    turned = train(warehouse, QUERY.replace("ds_order_flow", "turned"), name="ml_turned", **sampled)
    other = train(warehouse, seed=1, name="ml_other", **sampled)
    assert turned["model_version"] == first["model_version"]
    assert other["model_version"] != first["model_version"]


def test_the_latest_version_is_active_and_earlier_ones_stay(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    versions = [train(warehouse, max_iterations=count)["model_version"] for count in (5, 6, 5)]
    assert [model.version for model in registry.active_models(warehouse)] == [versions[2]]
    stored = warehouse.execute(
        "select model_version from registry.models order by registered_at"
    ).fetchall()
    assert stored == [(version,) for version in versions]
    rounds = "select count(*) from registry.training_info where model_version = ?"
    assert warehouse.execute(rounds, [versions[0]]).fetchall() == [(5,)]


def test_a_database_without_a_registry_has_no_active_models() -> None:
    with duckdb.connect() as connection:
        assert registry.active_models(connection) == []


@pytest.mark.parametrize(
    ("query", "given", "message"),
    [
        (
            QUERY,
            {"max_trees": 3},
            "unknown option max_trees; the options of .* are .*max_iter",
        ),
        (QUERY, {"model_type": "KMEANS"}, "the types are .*BOOSTED_TREE_CLASSIFIER"),
        (QUERY, {"data_split_method": "RANDOM"}, "only CUSTOM keeps overlapping labels apart"),
        (QUERY, {"input_label_cols": ["a", "b"]}, "a list of one column is expected"),
        (QUERY, {"learn_rate": "fast"}, "learn_rate is 'fast'; a number from 1e-06 to 1"),
        (QUERY, {"early_stop": 1}, "early_stop is 1; true or false"),
        (QUERY, {"input_label_cols": ["is_down"]}, "has no column is_down; it has flow"),
        (f"{QUERY} where split = 'validation'", {}, "no labelled row with split = 'train'"),
        (f"{QUERY} where split = 'train'", {}, "no labelled row with split = 'validation'"),
        (f"{QUERY} where is_up_5", {}, "label is_up_5 of ml_test has one class"),
        (QUERY.replace("flow,", "flow, symbol,"), {}, r"must be numbers, found symbol \(VARCHAR\)"),
        (
            QUERY.replace("is_up_5", "return_5 as is_up_5"),
            {},
            "values as .*, no whole number",
        ),
        ("select is_up_5, split, label_end_at from ds_order_flow", {}, "found none"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_reason(
    warehouse: duckdb.DuckDBPyConnection, query: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(duckdb.InvalidInputException, match=message):
        train(warehouse, query, **given)
    assert warehouse.execute("select count(*) from registry.models").fetchall() == [(0,)]


def test_options_are_read_in_either_case_and_default_to_those_of_bigquery() -> None:
    parsed = options.parse({name.upper(): value for name, value in OPTIONS.items()})
    assert (parsed.label, parsed.split_column) == ("is_up_5", "split")
    assert parsed.training["max_iterations"] == 30
    assert parsed.training["max_tree_depth"] == 6
    assert parsed.training["learn_rate"] == 0.1


def test_a_killed_training_leaves_whole_versions_only(database: Path) -> None:
    with warehouse_of(database, days=5):
        pass
    script = f"""
import itertools, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import duckdb
from pathlib import Path
from ml.plugin import create_functions
from test_ml_training import train
connection = duckdb.connect({str(database)!r})
create_functions(connection, database=Path({str(database)!r}))
for seed in itertools.count():
    train(connection, seed=seed, subsample=0.5)
    print(seed, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    time.sleep(0.35)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with duckdb.connect(str(database)) as connection:
        stored = connection.execute("select onnx_sha256, onnx from registry.models").fetchall()
        rounds = "select count(distinct model_version) from registry.training_info"
        assert connection.execute(rounds).fetchall() == [(len(stored),)]
    assert stored
    for sha256, onnx in stored:
        file = database.parent / "models" / f"{sha256}.onnx"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert file.read_bytes() == onnx
