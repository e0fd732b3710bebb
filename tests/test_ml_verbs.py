"""BigQuery ML's verbs on DuckDB for every kind of model, against scikit-learn and others."""

import json
from itertools import combinations, permutations
from typing import Any

import catboost
import duckdb
import lightgbm
import numpy as np
import pandas
import pytest
import xgboost
from dbt_fixtures import run_dbt
from ml_fixtures import warehouse_of
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    explained_variance_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    median_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from ml.plugin import create_functions

FEATURES = ["flow", "noise_0", "noise_1", "noise_2", "noise_3"]
CLASSES = ["down", "flat", "up"]
CLASS = "case when return_5 < -1e-3 then 'down' when return_5 > 1e-3 then 'up' else 'flat' end"
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ml_tree": ("is_up_5", {"model_type": "BOOSTED_TREE_CLASSIFIER", "max_iterations": 20}, {}),
    "ml_forest": (
        "is_up_5",
        {"model_type": "RANDOM_FOREST_CLASSIFIER", "num_parallel_tree": 10},
        {},
    ),
    "ml_linear": ("is_up_5", {"model_type": "LOGISTIC_REG"}, {}),
    "ml_network": (
        "is_up_5",
        {
            "model_type": "DNN_CLASSIFIER",
            "hidden_units": [8],
            "learn_rate": 0.01,
            "max_iterations": 20,
        },
        {},
    ),
    "ml_xgboost": (
        "is_up_5",
        {"model_type": "BOOSTED_TREE_CLASSIFIER", "max_iterations": 20},
        {"engine": "xgboost"},
    ),
    "ml_catboost": (
        "is_up_5",
        {"model_type": "BOOSTED_TREE_CLASSIFIER", "max_iterations": 20},
        {"engine": "catboost"},
    ),
    "ml_classes": ("class_5", {"model_type": "BOOSTED_TREE_CLASSIFIER", "max_iterations": 20}, {}),
    "ml_value": ("return_5", {"model_type": "BOOSTED_TREE_REGRESSOR", "max_iterations": 20}, {}),
    "ml_line": ("return_5", {"model_type": "LINEAR_REG"}, {}),
}
TEST = "select * from ds_order_flow where split = 'test'"
FEW = f"{TEST} limit 40"
SAMPLED = ("ml_tree", "ml_linear", "ml_classes", "ml_line")
# The columns that BigQuery's reference gives for each function, but for those of the query.
COLUMNS = {
    "predict": ["predicted_LABEL", "predicted_LABEL_probs"],
    "explain": [
        *("predicted_LABEL", "probability", "top_feature_attributions"),
        *("baseline_prediction_value", "prediction_value", "approximation_error"),
    ],
    "evaluate": ["precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc"],
    "roc": [
        *("threshold", "recall", "false_positive_rate"),
        *("true_positives", "false_positives", "true_negatives", "false_negatives"),
    ],
    "confusion": ["expected_label"],
    "training": ["training_run", "iteration", "loss", "eval_loss", "learning_rate", "duration_ms"],
    "trials": [
        *("trial_id", "hyperparameters", "hparam_tuning_evaluation_metrics"),
        *("training_loss", "eval_loss", "status", "error_message", "is_optimal"),
    ],
    "features": [
        *("input", "min", "max", "mean", "median", "stddev"),
        *("category_count", "null_count", "dimension"),
    ],
    "importance": ["feature", "importance_weight", "importance_gain", "importance_cover"],
    "global": ["feature", "attribution"],
    "class": ["class_name", "feature", "attribution"],
    "drift": ["input", "metric", "threshold", "value", "is_anomaly"],
}
VALUES = [
    *("mean_absolute_error", "mean_squared_error", "mean_squared_log_error"),
    *("median_absolute_error", "r2_score", "explained_variance"),
]
DRIFT = (
    "ml_validate_data_drift(\"select * from ds_order_flow where split = 'train'\", "
    "\"select flow + 1 as flow, noise_0, symbol from ds_order_flow where split = 'test' "
    "and symbol = 'BTCUSDT'\", numerical=['flow', 'noise_0'], categorical=['symbol'])"
)


def verbs(means: dict[str, float]) -> dict[str, str]:
    """A name for every call of a verb, and the call."""
    found = {"drift": DRIFT}
    for model in MODELS:
        relation = f"api.Relation.create(schema='main', identifier='{model}')"
        found |= {
            f"{model}_predict": f'ml_predict({relation}, "{TEST}")',
            f"{model}_evaluate": f'ml_evaluate({relation}, "{TEST}")',
            f"{model}_explain": f'ml_explain_predict({relation}, "{TEST}", 2)',
            f"{model}_global": f"ml_global_explain({relation})",
            f"{model}_features": f"ml_feature_info({relation})",
            f"{model}_trials": f"ml_trial_info({relation})",
            f"{model}_training": f"ml_training_info({relation})",
            f"{model}_importance": f"ml_feature_importance({relation})",
        }
        if MODELS[model][0] != "return_5":
            found[f"{model}_confusion"] = f'ml_confusion_matrix({relation}, "{TEST}")'
        if model in SAMPLED:
            known = f"{FEATURES}, {[means[name] for name in FEATURES]}"
            found[f"{model}_sampled"] = f'ml_explain_sampled({relation}, "{FEW}", 9, {known})'
            found[f"{model}_exact"] = f'ml_explain_predict({relation}, "{FEW}", 9)'
    tree = "api.Relation.create(schema='main', identifier='ml_tree')"
    return found | {
        "roc": f'ml_roc_curve({tree}, "{TEST}")',
        "by_class": f"ml_global_explain({tree}, class_level_explain=true)",
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pandas.DataFrame]:
    """What every verb gives, by the name of the call, with the native models as they are stored."""
    database = tmp_path_factory.mktemp("verbs") / "tapehouse.duckdb"
    with warehouse_of(database, days=5) as connection:
        connection.execute(
            f"alter table ds_order_flow add column class_5 varchar; "
            f"update ds_order_flow set class_5 = {CLASS} where return_5 is not null"
        )
        for name, (label, given, others) in MODELS.items():
            query = f"select {', '.join(FEATURES)}, {label}, split, label_end_at from ds_order_flow"
            config = {
                "given": {
                    "input_label_cols": [label],
                    "data_split_method": "CUSTOM",
                    "data_split_col": "split",
                    **given,
                },
                "label_end_column": "label_end_at",
                **others,
            }
            connection.execute("select tapehouse_train(?, ?, ?)", [name, query, json.dumps(config)])
            connection.execute(
                f"create view {name} as from registry.active_models where model_name = '{name}'"
            )
        known = connection.execute("select distinct input, mean from registry.feature_info")
        calls = verbs(dict(known.fetchall()))
    inline = ", ".join(f"{name} as ({{{{ {verb} }}}})" for name, verb in calls.items())
    printed = run_dbt(
        database, "compile", "--inline", f"with {inline} select 1", "--output", "json", "--quiet"
    )
    sql = json.loads(printed)["compiled"].removesuffix("select 1")
    with duckdb.connect(str(database)) as connection:
        create_functions(connection, database=database)
        connection.execute("set threads = 1")
        found = {name: connection.execute(f"{sql} from {name}").df() for name in calls}
        found["rows"] = connection.execute(TEST).df()
        for table in ("models", "calibration"):
            found[table] = connection.execute(f"from registry.{table}").df()
        found["validation"] = connection.execute(
            "select is_up_5, tapehouse_predict((select model_version from ml_tree), "
            f"[{', '.join(FEATURES)}]) as probability from ds_order_flow "
            "where split = 'validation'"
        ).df()
    return found


def native(results: dict[str, pandas.DataFrame], model: str) -> bytes:
    models = results["models"]
    return bytes(models[models["model_name"] == model]["native"].iloc[0])


def matrix(results: dict[str, pandas.DataFrame]) -> np.ndarray:
    return results["rows"][FEATURES].to_numpy(dtype=np.float32)


def attributions(explained: pandas.DataFrame, features: list[str]) -> pandas.DataFrame:
    return pandas.DataFrame(
        [
            {part["feature"]: part["attribution"] for part in parts}
            for parts in explained["top_feature_attributions"]
        ],
        columns=features,
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_verb_has_the_columns_of_bigquerys_function(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    label = MODELS[model][0]
    handed_on = list(results["rows"])
    of_classes = ("predicted_return_5_probs", "probability") if label == "return_5" else ()
    own = {name.removeprefix(f"{model}_") for name in results if name.startswith(f"{model}_")}
    for verb in (own - {"sampled", "exact"}) | {"drift", "roc", "by_class"}:
        found = list(results[verb if verb in results else f"{model}_{verb}"])
        expected = COLUMNS[verb.removeprefix("by_")]
        if verb == "evaluate" and label == "return_5":
            expected = VALUES
        if verb == "confusion":
            expected = [*expected, *(CLASSES if label == "class_5" else ["false", "true"])]
        named = [name.replace("LABEL", label) for name in expected]
        named = [name for name in named if name not in of_classes]
        if verb in ("predict", "explain"):
            named += handed_on
        assert found == named, verb


BINARY = [name for name, (label, _, _) in MODELS.items() if label == "is_up_5"]


@pytest.mark.parametrize("model", BINARY)
def test_a_classifier_of_two_is_evaluated_as_scikit_learn_does(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    predicted = results[f"{model}_predict"]
    labels = predicted["is_up_5"].astype(bool)
    probability = predicted["predicted_is_up_5_probs"].map(
        lambda probs: next(each["prob"] for each in probs if each["label"])
    )
    guess = predicted["predicted_is_up_5"].astype(bool)
    assert predicted.columns[:2].tolist() == ["predicted_is_up_5", "predicted_is_up_5_probs"]
    assert (guess == (probability > 0.5)).all()
    assert (
        predicted["predicted_is_up_5_probs"].map(lambda probs: probs[0]["label"]) == guess
    ).all()
    assert results[f"{model}_evaluate"].to_dict("records") == [
        pytest.approx(
            {
                "precision": precision_score(labels, guess),
                "recall": recall_score(labels, guess),
                "accuracy": accuracy_score(labels, guess),
                "f1_score": f1_score(labels, guess),
                "log_loss": log_loss(labels, probability),
                "roc_auc": roc_auc_score(labels, probability),
            }
        )
    ]
    found = results[f"{model}_confusion"].sort_values("expected_label")
    assert found[["false", "true"]].to_numpy().tolist() == confusion_matrix(labels, guess).tolist()


def test_the_roc_curve_is_that_of_scikit_learn(results: dict[str, pandas.DataFrame]) -> None:
    predicted = results["ml_tree_predict"]
    probability = predicted["predicted_is_up_5_probs"].map(
        lambda probs: next(each["prob"] for each in probs if each["label"])
    )
    rates, recalls, thresholds = roc_curve(
        predicted["is_up_5"].astype(bool), probability, drop_intermediate=False
    )
    found = results["roc"].sort_values("threshold", ascending=False)
    assert found["false_positive_rate"].to_numpy() == pytest.approx(rates[1:])
    assert found["recall"].to_numpy() == pytest.approx(recalls[1:])
    assert found["threshold"].to_numpy() == pytest.approx(thresholds[1:])


def test_a_classifier_of_three_is_evaluated_as_scikit_learn_does(
    results: dict[str, pandas.DataFrame],
) -> None:
    predicted = results["ml_classes_predict"]
    labels, guess = predicted["class_5"], predicted["predicted_class_5"]
    probabilities = np.array(
        [
            [next(each["prob"] for each in probs if each["label"] == name) for name in CLASSES]
            for probs in predicted["predicted_class_5_probs"]
        ]
    )
    assert (guess == np.array(CLASSES)[probabilities.argmax(axis=1)]).all()
    assert results["ml_classes_evaluate"].to_dict("records") == [
        pytest.approx(
            {
                "precision": precision_score(labels, guess, average="macro", zero_division=0),
                "recall": recall_score(labels, guess, average="macro"),
                "accuracy": accuracy_score(labels, guess),
                "f1_score": f1_score(labels, guess, average="macro"),
                "log_loss": log_loss(labels, probabilities, labels=CLASSES),
                "roc_auc": roc_auc_score(labels, probabilities, multi_class="ovr", labels=CLASSES),
            }
        )
    ]
    found = results["ml_classes_confusion"].sort_values("expected_label")
    assert found[CLASSES].to_numpy().tolist() == confusion_matrix(labels, guess).tolist()


@pytest.mark.parametrize("model", ["ml_value", "ml_line"])
def test_a_regression_is_evaluated_as_scikit_learn_does(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    predicted = results[f"{model}_predict"].dropna(subset="return_5")
    pair = predicted["return_5"], predicted["predicted_return_5"]
    logs = np.log1p(pair[0]), np.log1p(pair[1])
    assert results[f"{model}_evaluate"].to_dict("records") == [
        pytest.approx(
            {
                "mean_absolute_error": mean_absolute_error(*pair),
                "mean_squared_error": mean_squared_error(*pair),
                "mean_squared_log_error": mean_squared_error(*logs),
                "median_absolute_error": median_absolute_error(*pair),
                "r2_score": r2_score(*pair),
                "explained_variance": explained_variance_score(*pair),
            }
        )
    ]


@pytest.mark.parametrize("model", MODELS)
def test_attributions_and_baseline_add_up_to_the_score_of_the_prediction(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    label = MODELS[model][0]
    explained = results[f"{model}_explain"]
    predicted = results[f"{model}_predict"]
    assert (explained[f"predicted_{label}"] == predicted[f"predicted_{label}"]).all()
    moved = (explained["prediction_value"] - explained["baseline_prediction_value"]).abs()
    assert (explained["approximation_error"].fillna(0) * moved).max() < 0.05
    sizes = explained["top_feature_attributions"].map(
        lambda parts: [abs(p["attribution"]) for p in parts]
    )
    assert sizes.map(len).eq(2).all()
    assert sizes.map(lambda pair: pair[0] >= pair[1]).all()
    score = explained["prediction_value"]
    if label == "return_5":
        assert score.to_numpy() == pytest.approx(predicted["predicted_return_5"], abs=1e-6)
    elif label == "is_up_5":
        best = predicted["predicted_is_up_5_probs"].map(lambda probs: probs[0]["prob"])
        assert explained["probability"].tolist() == best.tolist()
        odds = np.log(best / (1 - best))
        assert score.to_numpy() == pytest.approx(odds.to_numpy(), abs=2e-5)


@pytest.mark.parametrize("model", ["ml_tree", "ml_xgboost", "ml_catboost"])
def test_attributions_of_trees_are_those_of_their_library(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    rows = matrix(results)
    if model == "ml_tree":
        booster = lightgbm.Booster(model_str=native(results, model).decode())
        expected = booster.predict(rows, pred_contrib=True)
    elif model == "ml_xgboost":
        trees = xgboost.Booster(model_file=bytearray(native(results, model)))
        expected = trees.predict(xgboost.DMatrix(rows), pred_contribs=True)
    else:
        oblivious = catboost.CatBoost().load_model(blob=native(results, model))
        expected = oblivious.get_feature_importance(catboost.Pool(rows), type="ShapValues")
    side = np.where(results[f"{model}_predict"]["predicted_is_up_5"].astype(bool), 1, -1)
    found = attributions(results[f"{model}_explain"], FEATURES).to_numpy()
    shown = ~np.isnan(found)
    assert shown.sum(axis=1).tolist() == [2] * len(rows)
    assert found[shown] == pytest.approx((expected[:, :-1] * side[:, None])[shown], abs=1e-9)
    assert results[f"{model}_explain"]["baseline_prediction_value"].to_numpy() == pytest.approx(
        expected[:, -1] * side, abs=1e-9
    )


def shapley_values(results: dict[str, pandas.DataFrame], explained: pandas.DataFrame) -> np.ndarray:
    """Attributions of ml_tree from the mean row, averaged over all orders of the features."""
    booster = lightgbm.Booster(model_str=native(results, "ml_tree").decode())
    means = results["ml_tree_features"].set_index("input").loc[FEATURES, "mean"].to_numpy()
    rows = explained[FEATURES].to_numpy(dtype=np.float32)
    side = np.where(explained["predicted_is_up_5"].astype(bool), 1, -1)
    scores = {
        turned: side
        * booster.predict(np.where(np.isin(range(5), turned), rows, means), raw_score=True)
        for count in range(6)
        for turned in combinations(range(5), count)
    }
    total = np.zeros(rows.shape)
    for order in permutations(range(5)):
        for place, feature in enumerate(order):
            before, after = (tuple(sorted(order[:end])) for end in (place, place + 1))
            total[:, feature] += scores[after] - scores[before]
    return total / 120


@pytest.mark.parametrize("model", SAMPLED)
def test_sampled_attributions_have_the_same_columns_and_are_exact_for_a_linear_model(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    sampled, exact = (
        results[f"{model}_{kind}"].sort_values(["symbol", "opened_at"], ignore_index=True)
        for kind in ("sampled", "exact")
    )
    assert list(sampled) == list(exact)
    assert len(sampled) == 40
    ends = ["prediction_value", "baseline_prediction_value"]
    found, expected = (attributions(told, FEATURES).to_numpy() for told in (sampled, exact))
    if model in ("ml_linear", "ml_line"):
        assert found == pytest.approx(expected, abs=1e-6)
        assert sampled[ends].to_numpy() == pytest.approx(exact[ends].to_numpy(), abs=1e-6)
    elif model == "ml_tree":
        expected = shapley_values(results, sampled)
        # Ten orders of 120.
        assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()
    moved = sampled["prediction_value"] - sampled["baseline_prediction_value"]
    assert found.sum(axis=1) == pytest.approx(moved.to_numpy(), abs=1e-9)
    others = [name for name in sampled if name not in (*ends, "approximation_error")]
    others.remove("top_feature_attributions")
    pandas.testing.assert_frame_equal(sampled[others], exact[others])


@pytest.mark.parametrize("model", MODELS)
def test_what_is_recorded_of_every_model_names_the_feature_that_matters(
    results: dict[str, pandas.DataFrame], model: str
) -> None:
    attribution = results[f"{model}_global"].set_index("feature")["attribution"]
    assert sorted(attribution.index) == sorted(FEATURES)
    assert attribution.idxmax() == "flow"
    assert len(results[f"{model}_trials"]) == 1
    assert results[f"{model}_trials"]["is_optimal"].all()
    assert len(results[f"{model}_training"]) >= 1
    is_tree = model not in ("ml_linear", "ml_line", "ml_network")
    assert len(results[f"{model}_importance"]) == (len(FEATURES) if is_tree else 0)


def test_of_two_classes_a_feature_counts_alike_for_both(
    results: dict[str, pandas.DataFrame],
) -> None:
    found = results["by_class"].pivot(index="feature", columns="class_name", values="attribution")
    assert found.columns.tolist() == ["false", "true"]
    assert found["false"].tolist() == found["true"].tolist()


def test_feature_info_describes_the_training_rows(results: dict[str, pandas.DataFrame]) -> None:
    found = results["ml_tree_features"].set_index("input")
    assert found.columns.tolist() == [
        *("min", "max", "mean", "median", "stddev", "category_count", "null_count", "dimension")
    ]
    assert found.loc["flow", "null_count"] > 0
    assert found.loc["noise_0", "null_count"] == 0
    assert found.loc["noise_0", "mean"] == pytest.approx(0, abs=0.1)
    assert found.loc["noise_0", "stddev"] == pytest.approx(1, abs=0.1)
    assert (
        found.loc["noise_0", "min"] < found.loc["noise_0", "median"] < found.loc["noise_0", "max"]
    )


def test_drift_is_the_divergence_of_the_buckets(results: dict[str, pandas.DataFrame]) -> None:
    found = results["drift"].set_index("input")
    assert found["metric"].to_dict() == {
        "flow": "JENSEN_SHANNON_DIVERGENCE",
        "noise_0": "JENSEN_SHANNON_DIVERGENCE",
        "symbol": "L_INFTY",
    }
    assert found["is_anomaly"].to_dict() == {"flow": False, "noise_0": False, "symbol": True}
    assert found.loc["symbol", "value"] == pytest.approx(0.5, abs=0.01)
    assert 0.05 < found.loc["flow", "value"] < 0.3
    assert found.loc["noise_0", "value"] < 0.02


def test_calibration_is_that_of_scikit_learn(results: dict[str, pandas.DataFrame]) -> None:
    models = results["models"]
    version = models[models["model_name"] == "ml_tree"]["model_version"].iloc[0]
    own = results["calibration"]
    own = own[own["model_version"] == version]
    knots = own[own["method"] == "isotonic"].sort_values(["x", "y"])
    validation = results["validation"]
    oracle = IsotonicRegression(out_of_bounds="clip").fit(
        validation["probability"], validation["is_up_5"]
    )
    probability = np.linspace(0, 1, 1001)
    assert np.interp(probability, knots["x"], knots["y"]) == pytest.approx(
        oracle.predict(probability), abs=1e-4
    )
    assert (own["method"] == "platt").sum() == 1
