"""Every model type: what it learns, what its file says, and what the libraries say directly."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import duckdb
import lightgbm
import numpy as np
import pytest
from ml_fixtures import SMALL_MODELS, warehouse_of
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score

from ml import options, vocabulary

FEATURES = ["flow", "noise_0", "noise_1", "noise_2", "noise_3"]
KEYS = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]
CLASSES = "case when abs(return_5) < 1e-3 then 'flat' when return_5 > 0 then 'up' else 'down' end"
KINDS = [
    (model_type, engine, label)
    for model_type in vocabulary.TYPES
    for engine in vocabulary.ENGINES.get(model_type, (None,))
    for label in (
        ["is_up_5", CLASSES] if vocabulary.is_classifier(model_type) else ["1e4 * return_5"]
    )
]


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A market with a planted edge and one without."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                warehouse_of(tmp_path_factory.mktemp(name) / "tapehouse.duckdb", edge=edge, days=10)
            )
            for name, edge in (("edge", 0.5), ("null", 0.0))
        }


@pytest.fixture
def edge(markets: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    return markets["edge"]


def train(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    model_type: str,
    label: str = "is_up_5",
    *,
    columns: str = "",
    settings: dict[str, Any] | None = None,
    **given: Any,
) -> dict[str, Any]:
    base = {
        "model_type": model_type,
        "input_label_cols": ["y"],
        "data_split_method": "CUSTOM",
        "data_split_col": "split",
    }
    config = {"given": base | given, **(settings or {})}
    query = f"select {', '.join(FEATURES)}, {label} as y, split {columns} from ds_order_flow"
    done = connection.execute(
        "select tapehouse_train(?, ?, ?)", [name, query, json.dumps(config)]
    ).fetchall()
    return json.loads(done[0][0])


def refused(connection: duckdb.DuckDBPyConnection, message: str, *args: Any, **given: Any) -> None:
    with pytest.raises(duckdb.InvalidInputException, match=message):
        train(connection, "ml_refused", *args, **given)


def metrics(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, float]:
    found = connection.execute(
        "select metrics from registry.active_models where model_name = ?", [name]
    ).fetchall()
    return json.loads(found[0][0])["validation"]


def rows(
    connection: duckdb.DuckDBPyConnection, part: str, label: str = "is_up_5"
) -> tuple[np.ndarray, np.ndarray]:
    found = connection.execute(
        f"select {', '.join(FEATURES)}, {label} as y from ds_order_flow where split = ?", [part]
    ).fetchnumpy()
    matrix = np.column_stack([np.ma.filled(found[name], np.nan) for name in FEATURES])
    return matrix.astype(np.float32), np.asarray(found["y"])


def name_of(model_type: str, engine: str | None, label: str) -> str:
    kind = {"is_up_5": "binary", CLASSES: "classes"}.get(label, "value")
    return f"ml_{model_type}_{engine}_{kind}".lower()


@pytest.mark.parametrize(("model_type", "engine", "label"), KINDS)
def test_a_planted_edge_is_found_where_there_is_one(
    markets: dict[str, Any], model_type: str, engine: str | None, label: str
) -> None:
    name = name_of(model_type, engine, label)
    found, tested = {}, {}
    for market, connection in markets.items():
        settings = {"engine": engine} if engine else {}
        done = train(
            connection, name, model_type, label, settings=settings, **SMALL_MODELS[model_type]
        )
        found[market] = metrics(connection, name)
        tested[market] = skill(connection, done["model_version"], label)
    if vocabulary.is_classifier(model_type):
        floor, ceiling = (0.65, 0.55) if label == "is_up_5" else (0.6, 0.55)
        assert found["edge"]["roc_auc"] > floor
        assert found["null"]["roc_auc"] < ceiling
    else:
        assert found["edge"]["r2_score"] > 0.08
        assert found["null"]["r2_score"] < 0.02
    # Nothing was chosen on the test part; labels overlap, so 1,100 rows tell what 230 would.
    assert tested["edge"] > 0.3
    assert abs(tested["null"]) < 0.12


def skill(connection: duckdb.DuckDBPyConnection, version: str, label: str) -> float:
    """Rank correlation on the test part of what a model says of up, or of the value, and return."""
    said = f"tapehouse_predict('{version}', [{', '.join(FEATURES)}])"
    if label == CLASSES:
        # Classes in their order: down, flat, up.
        odds = f"tapehouse_probabilities('{version}', [{', '.join(FEATURES)}])"
        said = f"list_extract({odds}, 3) - list_extract({odds}, 1)"
    ((found,),) = connection.execute(
        "select corr(place, rank) from (select rank() over (order by said) as place, "
        f"rank() over (order by return_5) as rank from (select {said} as said, return_5 "
        "from ds_order_flow where split = 'test'))"
    ).fetchall()
    return float(found)


@pytest.mark.parametrize(("model_type", "engine", "label"), KINDS)
def test_the_same_rows_and_seed_give_the_same_bytes(
    markets: dict[str, Any], model_type: str, engine: str | None, label: str
) -> None:
    connection = markets["edge"]
    settings = {"engine": engine} if engine else {}
    names = [name_of(model_type, engine, label), "ml_again"]
    done = [
        train(connection, name, model_type, label, settings=settings, **SMALL_MODELS[model_type])
        for name in names
    ]
    assert done[0]["model_version"] == done[1]["model_version"]


def test_a_logistic_regression_is_scikit_learns_on_standardized_features(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    train(edge, "ml_oracle", "LOGISTIC_REG", l2_reg=3)
    (training, learned), (validation, judged) = rows(edge, "train"), rows(edge, "validation")
    mean, scale = (
        np.nanmean(training, axis=0, dtype=float),
        np.nanstd(training, axis=0, dtype=float),
    )
    oracle = LogisticRegression(C=1 / 3, tol=1e-8, max_iter=1000)
    oracle.fit(np.nan_to_num((training - mean) / scale), learned)
    expected = oracle.predict_proba(np.nan_to_num((validation - mean) / scale))[:, 1]
    found = metrics(edge, "ml_oracle")
    assert found["log_loss"] == pytest.approx(log_loss(judged, expected), abs=1e-6)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(judged, expected), abs=1e-4)


def test_a_linear_regression_is_scikit_learns_ridge(edge: duckdb.DuckDBPyConnection) -> None:
    label = "1e4 * return_5"
    train(edge, "ml_oracle", "LINEAR_REG", label, l2_reg=3)
    (training, learned), (validation, judged) = (
        rows(edge, part, label) for part in ("train", "validation")
    )
    mean, scale = (
        np.nanmean(training, axis=0, dtype=float),
        np.nanstd(training, axis=0, dtype=float),
    )
    oracle = Ridge(alpha=3).fit(np.nan_to_num((training - mean) / scale), learned)
    expected = oracle.predict(np.nan_to_num((validation - mean) / scale))
    found = metrics(edge, "ml_oracle")["mean_squared_error"]
    assert found == pytest.approx(mean_squared_error(judged, expected), rel=1e-6)


def test_a_forest_is_lightgbms_with_the_classes_in_the_registrys_order(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    given = {"num_parallel_tree": 10, "subsample": 0.999999, "colsample_bynode": 1}
    train(edge, "ml_oracle", "RANDOM_FOREST_CLASSIFIER", CLASSES, **given)
    (training, learned), (validation, judged) = (
        rows(edge, part, CLASSES) for part in ("train", "validation")
    )
    classes = np.unique(learned)
    parameters = {
        "boosting": "rf",
        "objective": "multiclass",
        "num_class": 3,
        "bagging_fraction": 0.999999,
        "bagging_freq": 1,
        "max_depth": 15,
        "num_leaves": 1024,
        "lambda_l2": 1,
        "min_sum_hessian_in_leaf": 1,
        "num_threads": 1,
        "verbosity": -1,
    }
    oracle = lightgbm.train(
        parameters,
        lightgbm.Dataset(training, np.searchsorted(classes, learned)),
        num_boost_round=10,
    )
    expected = log_loss(judged, oracle.predict(validation), labels=classes)
    stored = edge.execute(
        "select classes from registry.active_models where model_name = 'ml_oracle'"
    ).fetchall()[0][0]
    assert stored == classes.tolist() == ["down", "flat", "up"]
    assert metrics(edge, "ml_oracle")["log_loss"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("case when return_5 > 0 then 1 else -1 end", ["-1", "1"]),
        ("case when return_5 > 0 then 10.0 else 9.0 end::double", ["9", "10"]),
        ("case when return_5 > 0 then 'up' else 'down' end", ["down", "up"]),
        ("return_5 > 0", ["false", "true"]),
    ],
)
def test_labels_of_any_kind_are_classes_in_their_own_order(
    edge: duckdb.DuckDBPyConnection, label: str, classes: list[str]
) -> None:
    done = train(edge, "ml_labels", "LOGISTIC_REG", label)
    found = edge.execute(
        "select classes from registry.active_models where model_name = 'ml_labels'"
    ).fetchall()
    assert found == [(classes,)]
    up = edge.execute(
        f"select corr(tapehouse_predict(?, [{', '.join(FEATURES)}]), (return_5 > 0)::integer) "
        "from ds_order_flow",
        [done["model_version"]],
    ).fetchall()
    assert up[0][0] > 0.2


def test_probabilities_of_all_classes_add_up_in_sql(edge: duckdb.DuckDBPyConnection) -> None:
    done = train(edge, "ml_classes", "BOOSTED_TREE_CLASSIFIER", CLASSES)
    found = edge.execute(
        f"select min(len(p)), max(abs(list_sum(p) - 1)), max(abs(p[3] - single)) from ("
        f"select tapehouse_probabilities($version, [{', '.join(FEATURES)}]) as p, "
        f"tapehouse_predict($version, [{', '.join(FEATURES)}]) as single from ds_order_flow)",
        {"version": done["model_version"]},
    ).fetchall()
    assert found[0][0] == 3
    assert found[0][1] < 1e-12
    assert found[0][2] == 0


@pytest.mark.parametrize(
    ("model_type", "given", "message"),
    [
        ("LOGISTIC_REG", {"learn_rate": 1}, "options of LOGISTIC_REG are .*fit_intercept.*l1_reg"),
        ("LINEAR_REG", {"class_weights": []}, "unknown option class_weights"),
        ("BOOSTED_TREE_CLASSIFIER", {"booster_type": "tree"}, "one of GBTREE, DART"),
        ("BOOSTED_TREE_CLASSIFIER", {"max_tree_depth": 2.5}, "an integer from 1 to 20"),
        ("BOOSTED_TREE_CLASSIFIER", {"subsample": 1.5}, "from 1e-06 to 1"),
        ("BOOSTED_TREE_CLASSIFIER", {"max_iterations": True}, "an integer from 1"),
        ("RANDOM_FOREST_CLASSIFIER", {"num_parallel_tree": 1}, "an integer from 2"),
        ("DNN_CLASSIFIER", {"hidden_units": 64}, "hidden_units is 64; a list"),
        ("DNN_CLASSIFIER", {"hidden_units": [0]}, "an integer from 1 to 4096"),
        ("DNN_CLASSIFIER", {"activation_fn": "SWISH"}, "one of RELU, TANH, SIGMOID"),
        ("AUTOML_CLASSIFIER", {"budget_hours": 0}, "budget_hours is 0"),
        ("LOGISTIC_REG", {"l2_reg": "HPARAM_RANGE(0, 1)"}, "l2_reg needs num_trials"),
        ("LOGISTIC_REG", {"num_trials": 2, "l2_reg": "HPARAM_RANGE(2, 1)"}, "the larger one"),
        ("LOGISTIC_REG", {"num_trials": 2, "l2_reg": "HPARAM_RANGE(1)"}, "takes two numbers"),
        ("LOGISTIC_REG", {"num_trials": 2, "l2_reg": "HPARAM_LIST(1)"}, "HPARAM_CANDIDATES"),
        ("LOGISTIC_REG", {"num_trials": 2, "hparam_tuning_algorithm": "GRID_SEARCH"}, "range has"),
        ("LOGISTIC_REG", {"num_trials": 2, "hparam_tuning_objectives": ["R2_SCORE"]}, "LOG_LOSS"),
        ("LOGISTIC_REG", {"class_weights": [["maybe", 2]]}, "the classes are false, true"),
        ("LOGISTIC_REG", {"class_weights": 3}, "pairs of a class and a weight"),
        ("LOGISTIC_REG", {"auto_class_weights": True, "class_weights": []}, "exclude each other"),
    ],
)
def test_a_wrong_option_fails_with_what_would_be_right(
    edge: duckdb.DuckDBPyConnection, model_type: str, given: dict[str, Any], message: str
) -> None:
    refused(edge, message, model_type, **given)


@pytest.mark.parametrize("model_type", vocabulary.TYPES)
def test_an_unknown_option_fails_with_all_that_the_type_has(model_type: str) -> None:
    given = {name: ["y"] for name in options.REQUIRED} | {
        "model_type": model_type,
        "data_split_method": "custom",
        "num_tries": 3,
    }
    with pytest.raises(vocabulary.OptionError, match="unknown option num_tries") as refusal:
        options.parse(given)
    known = str(refusal.value).split(f"options of {model_type} are ")[1].split(", ")
    weights = {"class_weights", "auto_class_weights"}
    assert {*vocabulary.TYPES[model_type], *options.REQUIRED, "num_trials"} <= set(known)
    assert (weights <= set(known)) == vocabulary.is_classifier(model_type)


def test_what_catboost_has_no_word_for_is_refused_and_not_searched() -> None:
    base = {name: ["y"] for name in options.REQUIRED} | {
        "model_type": "BOOSTED_TREE_CLASSIFIER",
        "data_split_method": "CUSTOM",
    }
    for name, value in (("min_rel_progress", 0.01), ("l1_reg", 1)):
        message = f"engine catboost has no {name}; .* it has colsample_bytree, .*learn_rate"
        with pytest.raises(vocabulary.OptionError, match=message):
            options.parse(base | {name: value}, engine="catboost")
    search = options.parse(base | {"num_trials": 3}, engine="catboost").search
    assert search is not None
    assert "min_tree_child_weight" not in search.spaces["BOOSTED_TREE_CLASSIFIER"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rolle": "signal"}, "unknown setting rolle; the settings are role, seed"),
        ({"role": "active"}, "one of signal, member, baseline"),
        ({"engine": "sparkml"}, "the engines of BOOSTED_TREE_CLASSIFIER are lightgbm, xgboost"),
        ({"walk_forward": "rolling"}, "one of expanding, sliding"),
        ({"walk_forward": "sliding"}, "needs fold_column, label_start_column, label_end_column"),
        ({"weight_by_uniqueness": True}, "needs label_start_column, label_end_column"),
        ({"time_decay": 2, "label_start_column": "a", "label_end_column": "b"}, "from 0 to 1"),
        ({"key_columns": ["nonsense"]}, "has no column nonsense"),
        ({"transform": {"flows": "ML.STANDARD_SCALER"}}, "transform names flows; the features"),
        ({"transform": {"flow": "ML.SCALER"}}, "the functions are ML.STANDARD_SCALER"),
        ({"transform": {"flow": "ML.IMPUTER"}}, "takes 'mean', 'median' or 'most_frequent'"),
        ({"transform": {"flow": "ML.BUCKETIZE"}}, "takes points"),
    ],
)
def test_a_wrong_setting_fails_with_what_would_be_right(
    edge: duckdb.DuckDBPyConnection, settings: dict[str, Any], message: str
) -> None:
    refused(edge, message, "BOOSTED_TREE_CLASSIFIER", settings=settings)


def test_a_regressor_refuses_classes_and_a_classifier_unseen_ones(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    refused(edge, "LINEAR_REG learns numbers", "LINEAR_REG", "is_up_5")
    refused(
        edge,
        "have a y that the training part lacks; its classes are false, true",
        *("LOGISTIC_REG", "case when split = 'validation' then 'new' else is_up_5::varchar end"),
    )


def test_an_absent_library_names_the_extra_that_brings_it(
    edge: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ml.trainers.catboost_trees", raising=False)
    monkeypatch.setitem(sys.modules, "catboost", None)
    refused(
        edge,
        r"engine catboost is not installed: .*`pip install 'tapehouse\[boosters\]'`",
        "BOOSTED_TREE_CLASSIFIER",
        settings={"engine": "catboost"},
    )


def test_class_weights_move_the_base_rate(edge: duckdb.DuckDBPyConnection) -> None:
    label = "return_5 > 2e-3"
    means = []
    for given in (
        {},
        {"auto_class_weights": True},
        {"class_weights": [["false", 1], [True, 0.0001]]},
    ):
        done = train(edge, "ml_weighted", "LOGISTIC_REG", label, **given)
        means += edge.execute(
            f"select avg(tapehouse_predict(?, [{', '.join(FEATURES)}])) from ds_order_flow "
            "where split = 'train'",
            [done["model_version"]],
        ).fetchall()
    rate = edge.execute(
        f"select avg(({label})::integer) from ds_order_flow where split = 'train'"
    ).fetchall()[0][0]
    assert math.isclose(means[0][0], rate, abs_tol=1e-3)
    assert math.isclose(means[1][0], 0.5, abs_tol=0.02)
    assert means[2][0] < 0.001
