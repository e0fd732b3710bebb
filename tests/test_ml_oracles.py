"""Models of the warehouse against their libraries called directly, on rows in the same order."""

import json
from collections.abc import Iterator
from typing import Any

import catboost
import duckdb
import lightgbm
import numpy as np
import pytest
import xgboost
from ml_fixtures import warehouse_of
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from test_ml_types import FEATURES, metrics, train

VALUE = "1e4 * return_5"
PASSES = 4
ROUNDS = 15
NETWORK = {
    "hidden_units": [8],
    "batch_size": 64,
    "learn_rate": 0.01,
    "l2_reg": 0.1,
    "max_iterations": PASSES,
    "early_stop": False,
}
PERCEPTRON: dict[str, Any] = {
    "hidden_layer_sizes": (8,),
    "alpha": 0.1,
    "batch_size": 64,
    "learning_rate_init": 0.01,
    "random_state": 0,
}
TREES = {"max_tree_depth": 3, "learn_rate": 0.1, "max_iterations": ROUNDS, "early_stop": False}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    database = tmp_path_factory.mktemp("oracles") / "tapehouse.duckdb"
    with warehouse_of(database, days=10) as connection:
        yield connection


def part(
    connection: duckdb.DuckDBPyConnection, name: str, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels in the order in which training reads them, by a hash."""
    columns = [*(f"{feature}::float" for feature in FEATURES), f"({label})"]
    found = connection.execute(
        f"select {', '.join(FEATURES)}, ({label})::double as y from ds_order_flow where split = ? "
        f"order by hash(row({', '.join(columns)}, split, null::timestamp))",
        [name],
    ).fetchnumpy()
    matrix = np.column_stack([np.ma.filled(found[feature], np.nan) for feature in FEATURES])
    return matrix.astype(np.float32), np.asarray(found["y"])


def parts(connection: duckdb.DuckDBPyConnection, label: str) -> tuple[np.ndarray, ...]:
    return *part(connection, "train", label), *part(connection, "validation", label)


def standardized(rows: np.ndarray, training: np.ndarray) -> np.ndarray:
    mean, scale = (of(training, axis=0, dtype=np.float64) for of in (np.nanmean, np.nanstd))
    return np.nan_to_num((rows - mean) / scale).astype(np.float32).astype(np.float64)


def judged(labels: np.ndarray, probabilities: np.ndarray) -> Any:
    return pytest.approx(
        {
            "log_loss": log_loss(labels, probabilities),
            "roc_auc": roc_auc_score(labels, probabilities),
        },
        abs=1e-6,
    )


def found(connection: duckdb.DuckDBPyConnection, *names: str) -> dict[str, float]:
    told = metrics(connection, "ml_oracle")
    return {name: told[name] for name in names}


def test_a_network_is_scikit_learns_perceptron(edge: duckdb.DuckDBPyConnection) -> None:
    train(edge, "ml_oracle", "DNN_CLASSIFIER", **NETWORK)
    training, learned, validation, labels = parts(edge, "is_up_5")
    oracle = MLPClassifier(**PERCEPTRON)
    for _ in range(PASSES):
        oracle.partial_fit(standardized(training, training), learned, classes=[0, 1])
    expected = oracle.predict_proba(standardized(validation, training))[:, 1]
    assert found(edge, "log_loss", "roc_auc") == judged(labels, expected)


def test_a_network_of_values_is_scikit_learns_perceptron_of_standardized_labels(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    train(edge, "ml_oracle", "DNN_REGRESSOR", VALUE, **NETWORK)
    training, learned, validation, labels = parts(edge, VALUE)
    oracle = MLPRegressor(**PERCEPTRON)
    for _ in range(PASSES):
        oracle.partial_fit(
            standardized(training, training), (learned - learned.mean()) / learned.std()
        )
    expected = oracle.predict(standardized(validation, training)) * learned.std() + learned.mean()
    assert found(edge, "mean_squared_error") == {
        "mean_squared_error": pytest.approx(mean_squared_error(labels, expected), rel=1e-6)
    }


def test_boosted_values_are_lightgbms(edge: duckdb.DuckDBPyConnection) -> None:
    train(edge, "ml_oracle", "BOOSTED_TREE_REGRESSOR", VALUE, **TREES)
    training, learned, validation, labels = parts(edge, VALUE)
    oracle = lightgbm.train(
        {
            "objective": "regression",
            "learning_rate": 0.1,
            "max_depth": 3,
            "num_leaves": 8,
            "lambda_l2": 1,
            "min_sum_hessian_in_leaf": 1,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        },
        lightgbm.Dataset(training, learned),
        num_boost_round=ROUNDS,
    )
    assert found(edge, "mean_squared_error") == {
        "mean_squared_error": pytest.approx(
            mean_squared_error(labels, oracle.predict(validation)), rel=1e-9
        )
    }


def test_boosted_trees_of_xgboost_are_xgboosts(edge: duckdb.DuckDBPyConnection) -> None:
    settings = {"engine": "xgboost"}
    train(edge, "ml_oracle", "BOOSTED_TREE_CLASSIFIER", settings=settings, **TREES)
    training, learned, validation, labels = parts(edge, "is_up_5")
    oracle = xgboost.train(
        {
            "objective": "binary:logistic",
            "eta": 0.1,
            "max_depth": 3,
            "lambda": 1,
            "min_child_weight": 1,
            "tree_method": "hist",
            "nthread": 1,
        },
        xgboost.DMatrix(training, learned),
        num_boost_round=ROUNDS,
    )
    expected = oracle.predict(xgboost.DMatrix(validation)).astype(np.float64)
    assert found(edge, "log_loss", "roc_auc") == judged(labels, expected)


def test_boosted_trees_of_catboost_are_catboosts(edge: duckdb.DuckDBPyConnection) -> None:
    settings = {"engine": "catboost"}
    train(edge, "ml_oracle", "BOOSTED_TREE_CLASSIFIER", settings=settings, **TREES)
    training, learned, validation, labels = parts(edge, "is_up_5")
    oracle = catboost.CatBoostClassifier(
        iterations=ROUNDS,
        learning_rate=0.1,
        depth=3,
        l2_leaf_reg=1,
        bootstrap_type="Bernoulli",
        subsample=1,
        boosting_type="Plain",
        random_seed=0,
        thread_count=1,
        allow_writing_files=False,
        logging_level="Silent",
    ).fit(training, learned)
    expected = oracle.predict_proba(validation)[:, 1]
    assert found(edge, "log_loss", "roc_auc") == judged(labels, expected)


def test_what_is_out_of_time_starts_no_further_trial(edge: duckdb.DuckDBPyConnection) -> None:
    """The budget of AUTOML is a time: a trial that runs is not broken off."""
    done = train(edge, "ml_oracle", "AUTOML_CLASSIFIER", num_trials=20, budget_hours=0.1 / 3600)
    trials = edge.execute(
        "select hyperparameters from registry.trials where model_name = 'ml_oracle' "
        "and model_version = ?",
        [done["model_version"]],
    ).fetchall()
    assert 1 <= len(trials) < 20
    assert all("model_type" in json.loads(trial[0]) for trial in trials)
