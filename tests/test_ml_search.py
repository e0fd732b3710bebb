"""Transforms, weights, searches and walk-forward folds."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pytest
from ml_fixtures import warehouse_of
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
from test_ml_types import FEATURES, KEYS, metrics, train

from ml import onnx_model, transform, weights
from ml.trainers import Task

FOLDS = {
    "key_columns": KEYS,
    "label_start_column": "closed_at",
    "label_end_column": "label_end_at",
    "fold_column": "fold",
    "embargo_minutes": 60,
}
FOLD_COLUMNS = f", closed_at, label_end_at, fold, {', '.join(KEYS)}"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    database = tmp_path_factory.mktemp("search") / "tapehouse.duckdb"
    with warehouse_of(database, days=10) as connection:
        yield connection


# TRANSFORM


@pytest.fixture
def columns() -> np.ndarray:
    generator = np.random.default_rng(3)
    found = generator.normal(loc=5, scale=3, size=(500, 4)).astype(np.float32)
    found[:, 3] = generator.integers(0, 4, 500)
    found[generator.random(found.shape) < 0.1] = np.nan
    return found


def applied(columns: np.ndarray, call: str, position: int = 0, **others: bool) -> np.ndarray:
    names = ["a", "b", "c", "d"]
    others = {"standardize": False} | others
    made = transform.fit(columns, names, transform.parse({names[position]: call}, names), **others)
    assert made is not None
    fresh = transform.apply(made.onnx, columns)
    kept = [index for index, origin in enumerate(made.origins) if origin == position]
    return fresh[:, kept]


@pytest.mark.parametrize(
    ("call", "oracle"),
    [
        ("ML.STANDARD_SCALER", StandardScaler()),
        ("ML.MIN_MAX_SCALER", MinMaxScaler()),
        ("ML.ROBUST_SCALER", RobustScaler()),
    ],
)
def test_scalers_are_scikit_learns_and_leave_missing_values(
    columns: np.ndarray, call: str, oracle: Any
) -> None:
    expected = oracle.fit_transform(columns[:, :1].astype(np.float64))
    assert applied(columns, call) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert np.isnan(expected).any()


def test_a_min_max_scaler_cuts_what_lies_beyond_training(columns: np.ndarray) -> None:
    names = ["a", "b", "c", "d"]
    made = transform.fit(columns, names, {"a": "ML.MIN_MAX_SCALER"}, standardize=False)
    assert made is not None
    rows = np.array([[1e6, 0, 0, 0], [-1e6, 0, 0, 0], [np.nan, 0, 0, 0]], dtype=np.float32)
    assert np.array_equal(transform.apply(made.onnx, rows)[:, 0], [1, 0, np.nan], equal_nan=True)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_missing_values_become_what_training_says(columns: np.ndarray, strategy: str) -> None:
    known = columns[~np.isnan(columns[:, 3]), 3].astype(np.float64)
    values, counts = np.unique(known, return_counts=True)
    expected = {
        "mean": np.mean(known),
        "median": np.median(known),
        "most_frequent": values[counts.argmax()],
    }
    found = applied(columns, f"ML.IMPUTER('{strategy}')", 3)[:, 0]
    assert found[np.isnan(columns[:, 3])] == pytest.approx(expected[strategy])
    assert found[~np.isnan(columns[:, 3])].tolist() == known.tolist()


def test_one_hot_flags_are_scikit_learns_and_none_for_missing_and_new_values(
    columns: np.ndarray,
) -> None:
    known = ~np.isnan(columns[:, 3])
    oracle = OneHotEncoder(sparse_output=False).fit(columns[known, 3:])
    found = applied(columns, "ML.ONE_HOT_ENCODER", 3)
    assert np.array_equal(found[known], oracle.transform(columns[known, 3:]))
    assert not found[~known].any()


def test_buckets_hold_their_lower_point(columns: np.ndarray) -> None:
    columns[:5, 0] = [2.9, 3, 6.9, 7, np.nan]
    found = applied(columns, "ML.BUCKETIZE(3, 7)")[:5]
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    shares = np.nansum(applied(columns, "ML.QUANTILE_BUCKETIZE(4)"), axis=0)
    assert shares == pytest.approx(np.count_nonzero(~np.isnan(columns[:, 0])) / 4, abs=1)


def test_what_a_network_takes_has_neither_scale_nor_gaps(columns: np.ndarray) -> None:
    found = transform.apply(
        transform.fit(columns, ["a", "b", "c", "d"], {}, standardize=True).onnx, columns
    )
    assert not np.isnan(found).any()
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert np.array_equal(found == 0, np.isnan(columns)) or (found[np.isnan(columns)] == 0).all()


@pytest.mark.parametrize("model_type", ["BOOSTED_TREE_CLASSIFIER", "DNN_CLASSIFIER"])
def test_a_transform_is_fitted_on_training_alone_and_part_of_the_file(
    edge: duckdb.DuckDBPyConnection, model_type: str
) -> None:
    calls = {"flow": "ML.QUANTILE_BUCKETIZE(8)", "noise_*": "ML.ROBUST_SCALER"}
    done = train(edge, "ml_transformed", model_type, settings={"transform": calls})
    assert metrics(edge, "ml_transformed")["roc_auc"] > 0.6
    onnx, graph, origins = edge.execute(
        "select onnx, transform, origins from registry.models where model_version = ?",
        [done["model_version"]],
    ).fetchall()[0]
    assert origins == [2, 3, 4, 5] + 8 * [1]
    rows = np.zeros((2, 5), dtype=np.float32)
    rows[:, 0] = [1e9, 1e8]
    assert len(np.unique(transform.apply(graph, rows), axis=0)) == 1
    assert len(np.unique(onnx_model.outputs(onnx_model.session(onnx), rows), axis=0)) == 1
    edge.execute("create or replace temp table whole as from ds_order_flow")
    edge.execute("update ds_order_flow set noise_0 = noise_0 * 1000 where split = 'validation'")
    again = train(edge, "ml_transformed", model_type, settings={"transform": calls})
    fitted = edge.execute(
        "select transform from registry.models where model_version = ?", [again["model_version"]]
    ).fetchall()
    edge.execute("create or replace table ds_order_flow as from whole")
    assert fitted[0][0] == graph


# Weights


def test_uniqueness_is_that_of_a_loop_over_bars() -> None:
    generator = np.random.default_rng(1)
    start = generator.integers(0, 60, 40)
    end = start + generator.integers(1, 12, 40)
    series = generator.integers(0, 2, 40)
    expected = []
    for row in range(40):
        shares = []
        for bar in range(start[row], end[row]):
            spanning = (start <= bar) & (bar < end) & (series == series[row])
            shares.append(1 / np.count_nonzero(spanning))
        expected.append(np.mean(shares))
    assert weights.uniqueness(start, end, series) == pytest.approx(expected, abs=1e-12)


def test_time_decay_falls_from_the_newest_to_the_oldest() -> None:
    end = np.array([30, 10, 20, 40, 40])
    found = weights.time_decay(end, np.array([1.0, 1, 1, 0.5, 0.5]), 0.4)
    assert found == pytest.approx([0.8, 0.4, 0.6, 1, 1])


def test_balanced_classes_weigh_the_same_in_sum() -> None:
    labels = np.array([0.0, 0, 0, 1, 2, 2])
    found = weights.by_class(labels, Task("multiclass", ("a", "b", "c")), "balanced")
    assert [found[labels == number].sum() for number in range(3)] == pytest.approx([2, 2, 2])


def test_sample_weights_change_what_is_learned(edge: duckdb.DuckDBPyConnection) -> None:
    times = {"label_start_column": "closed_at", "label_end_column": "label_end_at"}
    versions = {
        train(
            edge,
            "ml_weighted",
            "LOGISTIC_REG",
            columns=", closed_at, label_end_at, symbol",
            settings=times | {"key_columns": ["symbol"]} | settings,
        )["model_version"]
        for settings in (
            {},
            {"time_decay": 0.2},
            {"time_decay": 0},
            {"weight_by_uniqueness": True, "time_decay": 0.2},
        )
    }
    assert len(versions) == 4


# Search


def test_a_search_records_every_trial_and_keeps_the_best_of_validation(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    given = {
        "num_trials": 6,
        "learn_rate": "HPARAM_RANGE(0.01, 0.3)",
        "max_tree_depth": "HPARAM_CANDIDATES([2, 3, 4])",
        "hparam_tuning_objectives": ["ROC_AUC"],
    }
    done = train(edge, "ml_searched", "BOOSTED_TREE_CLASSIFIER", **given)
    trials = edge.execute(
        "select trial_id, hyperparameters, hparam_tuning_evaluation_metrics, status, is_optimal "
        "from registry.trials where model_name = 'ml_searched' order by trial_id"
    ).fetchall()
    assert done["trials"] == 6
    assert [trial[0] for trial in trials] == [1, 2, 3, 4, 5, 6]
    tried = [json.loads(trial[1]) for trial in trials]
    assert all(set(values) == {"learn_rate", "max_tree_depth"} for values in tried)
    assert all(0.01 <= values["learn_rate"] <= 0.3 for values in tried)
    assert {values["max_tree_depth"] for values in tried} <= {2, 3, 4}
    areas = [json.loads(trial[2])["roc_auc"] for trial in trials]
    assert [trial[4] for trial in trials] == [area == max(areas) for area in areas]
    assert metrics(edge, "ml_searched")["roc_auc"] == max(areas)


def test_trials_of_another_search_that_ends_at_the_same_model_count_too(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    """A trial that was made once counts once, whatever is trained again."""
    counted = []
    for candidates, columns in (([1, 50], ""), ([1, 2, 50], ""), ([1, 2, 50], ", 1 as one")):
        train(
            edge,
            "ml_twice",
            "LOGISTIC_REG",
            columns=columns,
            settings={"key_columns": ["one"]} if columns else {},
            num_trials=9,
            l2_reg=f"HPARAM_CANDIDATES({candidates})",
            hparam_tuning_algorithm="GRID_SEARCH",
            hparam_tuning_objectives=["LOG_LOSS"],
        )
        counted += edge.execute(
            "select count(distinct model_version), count(*), count(distinct trial_id), "
            "bool_and(status = 'SUCCEEDED') from registry.trials where model_name = 'ml_twice'"
        ).fetchall()
    assert counted == [(1, 2, 2, True), (1, 3, 3, True), (1, 3, 3, True)]


def test_a_grid_tries_every_combination_once(edge: duckdb.DuckDBPyConnection) -> None:
    train(
        edge,
        "ml_grid",
        "DNN_CLASSIFIER",
        num_trials=10,
        hparam_tuning_algorithm="GRID_SEARCH",
        hidden_units="HPARAM_CANDIDATES([STRUCT([4]), STRUCT([8, 4])])",
        activation_fn="HPARAM_CANDIDATES(['RELU', 'TANH'])",
        max_iterations=2,
    )
    tried = edge.execute(
        "select hyperparameters->>'hidden_units', hyperparameters->>'activation_fn' "
        "from registry.trials where model_name = 'ml_grid' order by all"
    ).fetchall()
    layers, words = ("[4]", "[8,4]"), ("RELU", "TANH")
    found = [(units.replace(" ", ""), word) for units, word in tried]
    assert found == [(units, word) for units in layers for word in words]


def test_the_same_seed_searches_the_same_way_and_the_test_part_is_never_read(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    given = {"num_trials": 4, "l2_reg": "HPARAM_RANGE(0.01, 100)"}
    first = train(edge, "ml_first", "LOGISTIC_REG", **given)
    edge.execute("create or replace temp table whole as from ds_order_flow")
    edge.execute("update ds_order_flow set flow = 0, is_up_5 = not is_up_5 where split = 'test'")
    second = train(edge, "ml_second", "LOGISTIC_REG", **given)
    edge.execute("create or replace table ds_order_flow as from whole")
    assert second == first
    tried = "select hyperparameters from registry.trials where model_name = ? order by trial_id"
    assert (
        edge.execute(tried, ["ml_first"]).fetchall()
        == edge.execute(tried, ["ml_second"]).fetchall()
    )


def test_automl_tries_several_types_and_says_which_it_kept(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    done = train(edge, "ml_auto", "AUTOML_CLASSIFIER", num_trials=8)
    tried = edge.execute(
        "select distinct hyperparameters->>'model_type' from registry.trials "
        "where model_name = 'ml_auto'"
    ).fetchall()
    kept = edge.execute(
        "select hyperparameters->>'model_type' from registry.trials "
        "where model_name = 'ml_auto' and is_optimal"
    ).fetchall()
    assert len(tried) >= 2
    assert kept == [(done["model_type"],)]


# Walk-forward


@pytest.mark.parametrize("kind", ["expanding", "sliding"])
def test_a_fold_is_predicted_by_a_model_that_knew_nothing_of_it(
    edge: duckdb.DuckDBPyConnection, kind: str
) -> None:
    name = f"ml_{kind}"
    settings = FOLDS | {"walk_forward": kind}
    train(edge, name, "LOGISTIC_REG", columns=FOLD_COLUMNS, settings=settings)
    folds = edge.execute(
        "select fold, train_end_at, test_start_at, train_rows, test_rows, metrics->>'roc_auc' "
        "from registry.folds where model_name = ? order by fold",
        [name],
    ).fetchall()
    assert [fold[0] for fold in folds] == [1, 2, 3, 4, 5]
    assert all(end <= start - timedelta(hours=1) for _, end, start, *_ in folds)
    growth = [fold[3] for fold in folds]
    assert (growth == sorted(growth) and growth[-1] > 1.5 * growth[0]) == (kind == "expanding")
    assert all(float(fold[5]) > 0.55 for fold in folds)
    keys = f"{', '.join(KEYS)}, fold"
    stored = edge.execute(
        f"select {keys} from registry.out_of_fold where model_name = ? order by all", [name]
    ).fetchall()
    expected = edge.execute(
        f"select {keys} from ds_order_flow where fold is not null and is_up_5 is not null "
        "order by all"
    ).fetchall()
    assert stored == expected


def test_rows_that_only_the_folds_test_are_inputs_too(edge: duckdb.DuckDBPyConnection) -> None:
    edge.execute("create or replace temp table whole as from ds_order_flow")
    settings = FOLDS | {"walk_forward": "expanding"}
    statuses = []
    for change in ("flow = flow", "flow = flow + 1 where split = 'test'", "noise_0 = noise_0"):
        edge.execute(f"update ds_order_flow set {change}")
        for _ in range(2):
            done = train(edge, "ml_in", "LOGISTIC_REG", columns=FOLD_COLUMNS, settings=settings)
            statuses.append(done["status"])
    edge.execute("create or replace table ds_order_flow as from whole")
    assert statuses == ["trained", "unchanged"] * 2 + ["unchanged"] * 2


def test_what_comes_after_a_fold_began_does_not_reach_its_predictions(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    settings = FOLDS | {"walk_forward": "expanding"}
    found = []
    edge.execute("create or replace temp table whole as from ds_order_flow")
    start: datetime = edge.execute(
        "select min(closed_at) from ds_order_flow where fold = 3"
    ).fetchall()[0][0]
    for name in ("ml_before", "ml_after"):
        train(edge, name, "BOOSTED_TREE_CLASSIFIER", columns=FOLD_COLUMNS, settings=settings)
        found.append(
            edge.execute(
                f"select {', '.join(KEYS)}, prediction from registry.out_of_fold "
                "where model_name = ? and fold = 3 order by all",
                [name],
            ).fetchall()
        )
        edge.execute(
            "update ds_order_flow set is_up_5 = not is_up_5 "
            "where label_end_at > ?::timestamp - interval 1 hour",
            [start],
        )
    edge.execute("create or replace table ds_order_flow as from whole")
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_out_of_fold_predictions_are_those_of_the_model_trained_by_hand(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    """A fold is what the same options give on the rows before it, cut by hand."""
    settings = FOLDS | {"walk_forward": "expanding"}
    train(edge, "ml_folds", "BOOSTED_TREE_CLASSIFIER", columns=FOLD_COLUMNS, settings=settings)
    cut = """
        create or replace temp table parts as
        with times as (
            select min(closed_at) as first_at,
                (select min(closed_at) from ds_order_flow where fold = 2) as start_at
            from ds_order_flow where split is not null or fold is not null
        )
        select rows_.* replace (case
            when label_end_at <= first_at + (start_at - first_at) * 0.8 - interval 1 hour
                then 'train'
            when closed_at >= first_at + (start_at - first_at) * 0.8
                and label_end_at <= start_at - interval 1 hour then 'validation'
        end as split)
        from ds_order_flow as rows_, times where split is not null or fold is not null
    """
    edge.execute("create or replace temp table whole as from ds_order_flow")
    edge.execute(cut)
    edge.execute("create or replace table ds_order_flow as from parts")
    done = train(edge, "ml_hand", "BOOSTED_TREE_CLASSIFIER", columns=", label_end_at",
        settings={"label_end_column": "label_end_at"})  # fmt: skip
    edge.execute("create or replace table ds_order_flow as from whole")
    difference = edge.execute(
        f"select max(abs(prediction - tapehouse_predict(?, [{', '.join(FEATURES)}]))), count(*) "
        f"from registry.out_of_fold inner join ds_order_flow using ({', '.join(KEYS)}) "
        "where model_name = 'ml_folds' and out_of_fold.fold = 2",
        [done["model_version"]],
    ).fetchall()[0]
    assert difference[0] <= 1e-6
    assert difference[1] > 100


def test_trials_of_a_model_that_walks_forward_never_see_a_fold(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    """Labels turned round from the first fold on, validation included, choose the same options."""
    settings = FOLDS | {"walk_forward": "expanding"}
    given = {"num_trials": 4, "l2_reg": "HPARAM_RANGE(0.01, 1000)"}
    edge.execute("create or replace temp table whole as from ds_order_flow")
    for name in ("ml_tried", "ml_tried_again"):
        train(edge, name, "LOGISTIC_REG", columns=FOLD_COLUMNS, settings=settings, **given)
        edge.execute("update ds_order_flow set is_up_5 = not is_up_5 where fold is not null")
    edge.execute("create or replace table ds_order_flow as from whole")
    trials = [
        edge.execute(
            "select hyperparameters, hparam_tuning_evaluation_metrics, is_optimal "
            "from registry.trials where model_name = ? order by trial_id",
            [name],
        ).fetchall()
        for name in ("ml_tried", "ml_tried_again")
    ]
    assert len(trials[0]) == 4
    assert trials[0] == trials[1]
    areas = [metrics(edge, name)["roc_auc"] for name in ("ml_tried", "ml_tried_again")]
    assert areas[0] > 0.6
    assert areas[1] < 0.4
