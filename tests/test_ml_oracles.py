"""Models of the warehouse against their libraries called directly, on rows in the same order."""

import json
import time
from collections.abc import Iterator
from typing import Any

import catboost
import duckdb
import lightgbm
import numpy as np
import pytest
import xgboost
from ml_fixtures import warehouse_of
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_squared_error,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from test_ml_types import FEATURES, metrics, train

from ml.metrics import evaluate
from ml.trainers import Part, Task, lightgbm_trees, trainer
from ml.vocabulary import defaults

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


def test_what_is_out_of_time_ends_its_trial_and_starts_no_other(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    """The budget of AUTOML ends a trial with the iteration that is running; it is judged so."""
    started = time.perf_counter()
    done = train(edge, "ml_oracle", "AUTOML_CLASSIFIER", num_trials=1000, budget_hours=1 / 3600)
    assert time.perf_counter() - started < 10
    trials = edge.execute(
        "select hyperparameters, status, eval_loss, error_message from registry.trials "
        "where model_name = 'ml_oracle' and model_version = ? order by trial_id",
        [done["model_version"]],
    ).fetchall()
    assert 1 <= len(trials) < 1000
    assert all("model_type" in json.loads(trial) for trial, *_ in trials)
    assert all(loss > 0 for _, _, loss, error in trials if error is None), trials
    assert "STOPPED" not in {status for _, status, *_ in trials[:-1]}


@pytest.mark.parametrize("engine", ["lightgbm", "xgboost", "catboost", "neural"])
@pytest.mark.parametrize("early_stop", [True, False])
def test_a_deadline_ends_a_training_that_would_take_long(engine: str, *, early_stop: bool) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(2_000, 5)).astype(np.float32)
    part = Part(matrix, (matrix[:, 0] + generator.normal(size=2_000) > 0).astype(float))
    kind = "DNN_CLASSIFIER" if engine == "neural" else "BOOSTED_TREE_CLASSIFIER"
    endless = {"max_iterations": 20_000, "learn_rate": 1e-5, "min_rel_progress": 0}
    options = defaults(kind) | endless | {"early_stop": early_stop}
    task = Task("binary", ("false", "true"))
    fitted = trainer(engine).fit(task, part, part, options, 0, time.monotonic() + 0.3)
    assert fitted.is_cut
    assert 1 <= fitted.best_round <= len(fitted.rounds) < 20_000
    kept = fitted.rounds[fitted.best_round - 1].eval_loss
    assert log_loss(part.labels, fitted.predict(matrix)) == pytest.approx(kept, abs=1e-6)
    if early_stop:
        assert kept == min(round_.eval_loss for round_ in fitted.rounds)


def test_of_many_rows_the_loss_of_training_is_that_of_the_first(
    edge: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, labels, validation, judged_labels = parts(edge, "is_up_5")
    sets = [Part(np.asfortranarray(training), labels), Part(validation, judged_labels)]
    task = Task("binary", ("false", "true"))
    options = defaults("BOOSTED_TREE_CLASSIFIER") | TREES
    whole = trainer("lightgbm").fit(task, *sets, options, 0)
    monkeypatch.setattr(lightgbm_trees, "LOSS_ROWS", 700)
    found = trainer("lightgbm").fit(task, *sets, options, 0)
    assert found.native == whole.native
    assert [row.eval_loss for row in found.rounds] == [row.eval_loss for row in whole.rounds]
    assert found.judged == pytest.approx(found.predict(validation), abs=1e-15)
    for fitted, rows in ((whole, len(labels)), (found, 700)):
        expected = log_loss(labels[:rows], fitted.predict(training[:rows]))
        assert fitted.rounds[-1].loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_what_training_knows_of_the_validation_part_is_what_the_model_predicts(kind: str) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(3_000, 5)).astype(np.float32)
    value = matrix[:, 0] + generator.normal(size=len(matrix))
    labels = {"binary": value > 0, "multiclass": np.digitize(value, [-1, 1]), "regression": value}
    halves = [slice(0, 1_500), slice(1_500, 3_000)]
    rows = [Part(matrix[half], labels[kind][half].astype(float)) for half in halves]
    task = Task(kind, {"binary": ("0", "1"), "multiclass": ("0", "1", "2")}.get(kind, ()))
    ways = [({}, True), ({"booster_type": "DART"}, False), ({"early_stop": True}, False)]
    for given, is_known in ways:
        options = defaults("BOOSTED_TREE_CLASSIFIER") | TREES | {"max_iterations": 300} | given
        fitted = trainer("lightgbm").fit(task, *rows, options, 0)
        assert (fitted.judged is not None) == is_known
        if fitted.judged is not None:
            assert fitted.judged == pytest.approx(fitted.predict(rows[1].matrix), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_scikit_learns_with_ties_and_a_class_that_is_nowhere(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, max(classes - 1, 2), 5_000)
    shares = np.round(generator.dirichlet(np.ones(classes), len(labels)), 2)
    shares[np.arange(len(labels)), labels] += 0.3
    if classes > 2:
        shares[:, -1] = 0
    shares = np.round(shares / shares.sum(axis=1, keepdims=True), 3)
    binary = classes == 2
    guess = shares[:, 1] > 0.5 if binary else shares.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guess, average="binary" if binary else "macro", zero_division=0
    )
    areas = [roc_auc_score(labels == number, shares[:, number]) for number in np.unique(labels)]
    task = Task("binary" if binary else "multiclass", tuple("abcd"[:classes]))
    found = evaluate(task, labels.astype(float), shares)
    found.pop("log_loss")
    assert found == pytest.approx(
        {
            "precision": precision,
            "recall": recall,
            "accuracy": accuracy_score(labels, guess),
            "f1_score": f1,
            "roc_auc": np.mean(areas[-1:] if binary else areas),
        },
        rel=1e-12,
    )
