"""CREATE MODEL and the verbs of every model type, as BigQuery gets them, to Google's analyser."""

import re
from typing import Any

import pytest
from bigquery_imported import KNOWN, exported
from bigquery_ml_fixtures import compiled, write_project
from bigquery_project import analysed

from ml import vocabulary
from ml.trainers import Task
from ml.transform import FUNCTIONS

ROWS = {
    "symbol": "STRING",
    "opened_at": "TIMESTAMP",
    "closed_at": "TIMESTAMP",
    "label_end_at": "TIMESTAMP",
    "split": "STRING",
    "flow": "FLOAT64",
    "noise": "FLOAT64",
    "side": "STRING",
    "is_up_5": "BOOL",
    "class_5": "STRING",
    "level_5": "INT64",
    "return_5": "FLOAT64",
}
# A copy of registry.tree_nodes, as Parquet brings it.
TREES = {
    "model_version": "STRING",
    **dict.fromkeys(("tree", "node", "feature", "true_node", "false_node", "output"), "INT64"),
    **dict.fromkeys(("threshold", "value"), "FLOAT64"),
    "is_missing_true": "BOOL",
}
TABLES = {"rows_": ROWS, "tree_nodes": TREES}
QUERY = "select symbol, opened_at, closed_at, label_end_at, split, flow, noise, {label} from rows_"
SETTINGS: dict[str, Any] = {
    "materialized": "ml_model",
    "data_split_method": "CUSTOM",
    "data_split_col": "split",
    "key_columns": ["symbol", "opened_at"],
    "label_start_column": "closed_at",
    "label_end_column": "label_end_at",
    "walk_forward": "expanding",
    "embargo_minutes": 60,
    "seed": 7,
}
SEARCH = {
    "num_trials": 20,
    "max_parallel_trials": 2,
    "hparam_tuning_algorithm": "RANDOM_SEARCH",
}
TRANSFORM = {
    "flow": "ML.ROBUST_SCALER",
    "noise": "ML.BUCKETIZE(-1.5, 0, 1.5)",
    "side": "ML.ONE_HOT_ENCODER()",
    "first": "ML.IMPUTER('median')",
    "second": "ML.QUANTILE_BUCKETIZE(4)",
    "third": "ML.STANDARD_SCALER()",
    "fourth": "ML.MIN_MAX_SCALER",
    "fifth": "ML.MAX_ABS_SCALER()",
}
WIDE = ", ".join(
    ["split", "flow", "noise", "side", "is_up_5"]
    + [f"flow as {name}" for name in ("first", "second", "third", "fourth", "fifth")]
)


def label_of(model_type: str) -> str:
    return "is_up_5" if vocabulary.is_classifier(model_type) else "return_5"


def configured(query: str, **settings: Any) -> str:
    """Return a model's file; a setting of None is left out."""
    given = {name: value for name, value in (SETTINGS | settings).items() if value is not None}
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"{{{{ config({arguments}) }}}}\n{query}"


def every_option(model_type: str) -> dict[str, Any]:
    """Return every option of a type that is trained here, with its default."""
    return {
        name: value for name, value in vocabulary.defaults(model_type).items() if value is not None
    }


MODELS = {
    **{
        f"ml_{model_type.lower()}": configured(
            QUERY.format(label=label_of(model_type)),
            model_type=model_type,
            input_label_cols=[label_of(model_type)],
            **every_option(model_type),
        )
        for model_type in vocabulary.TYPES
    },
    "ml_searched": configured(
        QUERY.format(label="is_up_5"),
        model_type="BOOSTED_TREE_CLASSIFIER",
        input_label_cols=["is_up_5"],
        learn_rate="HPARAM_RANGE(0.01, 0.3)",
        max_tree_depth="HPARAM_CANDIDATES([2, 3, 4])",
        booster_type="HPARAM_CANDIDATES(['GBTREE', 'DART'])",
        hparam_tuning_objectives=["ROC_AUC"],
        auto_class_weights=True,
        **SEARCH,
    ),
    "ml_layers": configured(
        QUERY.format(label="return_5"),
        model_type="DNN_REGRESSOR",
        input_label_cols=["return_5"],
        hidden_units="HPARAM_CANDIDATES([STRUCT([8]), STRUCT([16, 8])])",
        hparam_tuning_objectives=["MEAN_SQUARED_ERROR"],
        **SEARCH,
    ),
    "ml_weighted": configured(
        QUERY.format(label="class_5"),
        model_type="BOOSTED_TREE_CLASSIFIER",
        input_label_cols=["class_5"],
        classes=["down", "flat", "up"],
        class_weights={"down": 1, "flat": 0.25, "up": 1},
        min_tree_child_weight=50.0,
    ),
    "ml_weighted_pairs": configured(
        QUERY.format(label="is_up_5"),
        model_type="LOGISTIC_REG",
        input_label_cols=["is_up_5"],
        class_weights=[[True, 2], [False, 1]],
    ),
    "ml_levels": configured(
        QUERY.format(label="level_5"),
        model_type="RANDOM_FOREST_CLASSIFIER",
        input_label_cols=["level_5"],
        classes=[-1, 0, 1],
    ),
    "ml_transformed": configured(
        f"select {WIDE} from rows_",
        model_type="LOGISTIC_REG",
        input_label_cols=["is_up_5"],
        key_columns=None,
        label_start_column=None,
        label_end_column=None,
        walk_forward=None,
        transform=TRANSFORM,
    ),
    "ml_imported": configured(
        QUERY.format(label="is_up_5"),
        model_type="BOOSTED_TREE_CLASSIFIER",
        input_label_cols=["is_up_5"],
        engine="catboost",
        imported={
            "path": "gs://bucket/models/1.onnx",
            "version": "1",
            "features": ["flow", "noise"],
            "classes": ["false", "true"],
            "feature_importance": [["flow", 12, 3.5, 1e-7], ["noise", 1, 0.25, 2.0]],
            "global_explanations": [["true", "flow", 0.5], ["true", "noise", 0.01]],
            "calibration": [["isotonic", 0.2, 0.1], ["isotonic", 0.8, 0.9], ["platt", 1.1, 0.0]],
            **KNOWN,
        },
    ),
    "ml_imported_classes": configured(
        QUERY.format(label="class_5"),
        model_type="RANDOM_FOREST_CLASSIFIER",
        input_label_cols=["class_5"],
        imported={
            "path": "gs://bucket/3.onnx",
            "version": "3",
            "features": ["flow", "noise"],
            "classes": ["down", "flat", "up"],
            "global_explanations": [["up", "flow", 0.5]],
            **KNOWN,
        },
    ),
    "ml_imported_value": configured(
        QUERY.format(label="return_5"),
        model_type="LINEAR_REG",
        input_label_cols=["return_5"],
        imported={
            "path": "gs://bucket/2.onnx",
            "version": "2",
            "features": ["flow", "noise"],
            "global_explanations": [[None, "flow", 0.5], [None, "noise", 0.01]],
            **KNOWN,
        },
    ),
}
VERBS = {
    "predict": "{{ ml_predict(ref('MODEL'), 'select * from rows_') }}",
    "evaluate": "{{ ml_evaluate(ref('MODEL'), 'select * from rows_') }}",
    "feature_info": "{{ ml_feature_info(ref('MODEL')) }}",
    "training_info": "{{ ml_training_info(ref('MODEL')) }}",
    "explain": "{{ ml_explain_predict(ref('MODEL'), 'select * from rows_', 3) }}",
    "global_explain": "{{ ml_global_explain(ref('MODEL')) }}",
}
CLASSIFIERS = {
    "roc_curve": "{{ ml_roc_curve(ref('MODEL'), 'select * from rows_') }}",
    "confusion_matrix": "{{ ml_confusion_matrix(ref('MODEL'), 'select * from rows_') }}",
    "by_class": "{{ ml_global_explain(ref('MODEL'), class_level_explain=true) }}",
}
# What BigQuery gives for an imported model is prediction alone; the rest is this project's SQL.
IMPORTED = ("evaluate", "roc_curve", "confusion_matrix", "explain", "global_explain", "by_class")
IMPORTED += ("feature_info", "training_info")
OTHERS = {
    "imported_importance": "{{ ml_feature_importance(ref('ml_imported')) }}",
    **{
        f"portable{kind}": f"{{{{ ml_predict_portable(ref('ml_imported{kind}'), "
        "'select * from rows_') }}"
        for kind in ("", "_value", "_classes")
    },
    "imported_trials": "{{ ml_trial_info(ref('ml_imported')) }}",
    "imported_calibrated": "{{ ml_calibrate(ref('ml_imported'), 'select 5e-1 as probability') }}",
    "calibrated": "{{ ml_calibrate(ref('ml_logistic_reg'), 'select 5e-1 as probability', "
    "fitted_on='select is_up_5 as is_true, flow as probability from rows_') }}",
    "trials": "{{ ml_trial_info(ref('ml_searched')) }}",
    "importance": "{{ ml_feature_importance(ref('ml_boosted_tree_classifier')) }}",
    "drift": "{{ ml_validate_data_drift('select * from rows_', "
    "'select * from rows_', numerical=['flow'], categorical=['symbol']) }}",
}
PREDICTED = {
    "is_up_5": {
        "predicted_is_up_5": "BOOL",
        "predicted_is_up_5_probs": "ARRAY<STRUCT<label BOOL, prob FLOAT64>>",
    },
    "return_5": {"predicted_return_5": "FLOAT64"},
}
REFUSED = {
    "no_type": (
        {"model_type": "EXTRA_TREES_CLASSIFIER"},
        "trains no EXTRA_TREES_CLASSIFIER; the types are LOGISTIC_REG",
    ),
    "other_engine": (
        {"model_type": "BOOSTED_TREE_CLASSIFIER", "engine": "catboost"},
        "has no engine catboost, only xgboost; train it on DuckDB and import its ONNX file",
    ),
    "row_weights": (
        {"model_type": "LOGISTIC_REG", "weight_by_uniqueness": True},
        "has no weight_by_uniqueness; train it on DuckDB",
    ),
    "decay": ({"model_type": "LOGISTIC_REG", "time_decay": 0.5}, "has no time_decay"),
    "random_split": (
        {"model_type": "LOGISTIC_REG", "data_split_method": "RANDOM"},
        "other splits let overlapping labels leak",
    ),
    "automl_options": (
        {"model_type": "AUTOML_CLASSIFIER", "hparam_tuning_objectives": ["ROC_AUC"]},
        "BigQuery's AUTOML has no hparam_tuning_objectives",
    ),
    "fraction": (
        {"model_type": "BOOSTED_TREE_CLASSIFIER", "min_tree_child_weight": 0.5},
        "min_tree_child_weight is whole, not 0.5",
    ),
    "pattern": (
        {"model_type": "LOGISTIC_REG", "transform": {"noise_*": "ML.ROBUST_SCALER"}},
        "TRANSFORM names columns, not patterns",
    ),
    "nowhere": (
        {"model_type": "LOGISTIC_REG", "imported": {"features": ["flow"]}},
        "imported needs path",
    ),
}
CREATE = "create or replace model `m` options ({}) as select {} from `rows_`"
LINE = (
    "model_type = 'LOGISTIC_REG', input_label_cols = ['is_up_5'], "
    "data_split_method = 'CUSTOM', data_split_col = 'split'"
)
COLUMNS = "flow, is_up_5, split = 'validation' as split"
# Statements with one mistake, and what the analyser must say of it.
PLANTED = {
    "a function of DuckDB's": (
        CREATE.format(LINE, f"epoch(opened_at) as epoch_, {COLUMNS}"),
        "Function not found: epoch",
    ),
    "a cast with colons": (CREATE.format(LINE, f"flow::double as x, {COLUMNS}"), "Syntax error"),
    "a column that is not there": (CREATE.format(LINE, f"flows, {COLUMNS}"), "flows"),
    "a split of text": (CREATE.format(LINE, "flow, is_up_5, split"), "split is STRING"),
    "no split": (CREATE.format(LINE, "flow, is_up_5"), "split is None"),
    "no label": (CREATE.format(LINE, "flow, split = 'train' as split"), "is_up_5 is None"),
    "a label that is no class": (
        CREATE.format(LINE.replace("is_up_5", "return_5"), COLUMNS.replace("is_up_5", "return_5")),
        "return_5 is FLOAT64",
    ),
    "an option of another type": (
        CREATE.format(LINE + ", hidden_units = [8]", COLUMNS),
        "Unknown option: hidden_units",
    ),
    "an option of the wrong type": (
        CREATE.format(LINE + ", max_iterations = 2.5", COLUMNS),
        "max_iterations value has type FLOAT64",
    ),
    "a space of the wrong type": (
        CREATE.format(LINE + ", l2_reg = hparam_candidates(['a'])", COLUMNS),
        "l2_reg value has type STRING",
    ),
    "weights that are no structs": (
        CREATE.format(LINE + ", class_weights = [['true', 2]]", COLUMNS),
        "common supertype",
    ),
    "a scaler without a window": (
        CREATE.format(LINE, COLUMNS).replace(
            "options", "transform (* except (flow), ml.standard_scaler(flow) as flow) options"
        ),
        "without an OVER clause",
    ),
    "a transform of a column of text": (
        CREATE.format(LINE, "symbol, " + COLUMNS).replace(
            "options",
            "transform (* except (symbol), ml.robust_scaler(symbol) over () as symbol) options",
        ),
        "No matching signature",
    ),
    "a prediction without a feature": (
        "select * from ml.predict(model `LINEAR`, (select flow from `rows_`))",
        "Invalid table-valued function",
    ),
    "a prediction from a feature of text": (
        "select * from ml.predict(model `LINEAR`, (select symbol as flow, noise from `rows_`))",
        "Invalid table-valued function",
    ),
    "a prediction of another label": (
        "select predicted_is_up_10 from ml.predict(model `LINEAR`, (select * from `rows_`))",
        "predicted_is_up_10",
    ),
    "a prediction compared with text": (
        "select predicted_is_up_5 = 'up' as x from ml.predict(model `LINEAR`, table `rows_`)",
        "No matching signature for operator =",
    ),
    "a prediction of a table": (
        "select * from ml.predict(model `rows_`, (select * from `rows_`))",
        "not found",
    ),
    "an evaluation without the label": (
        "select * from ml.evaluate(model `LINEAR`, (select flow, noise from `rows_`))",
        'Required column "is_up_5" not found',
    ),
    "a curve of a regression": (
        "select * from ml.roc_curve(model `VALUE`, (select * from `rows_`))",
        "not found",
    ),
    "the importance of a linear model": (
        "select * from ml.feature_importance(model `LINEAR`)",
        "not found",
    ),
    "the trials of a model without a search": (
        "select * from ml.trial_info(model `LINEAR`)",
        "not found",
    ),
    "an evaluation of an imported model": (
        "select * from ml.evaluate(model `IMPORTED`, (select * from `rows_`))",
        "not found",
    ),
    "an imported model without its tensor": (
        "select * from ml.predict(model `IMPORTED`, (select * from `rows_`))",
        "Invalid table-valued function",
    ),
}


def verbs() -> dict[str, str]:
    """Return every call of a verb, by model and verb."""
    found = {f"verb_{name}": sql for name, sql in OTHERS.items()}
    for model in MODELS:
        is_value = "return_5" in MODELS[model]
        for verb, sql in (VERBS | ({} if is_value else CLASSIFIERS)).items():
            if "automl" in model and verb in ("training_info", "explain", "global_explain"):
                continue
            if "automl" in model and verb == "by_class":
                continue
            if model in ("ml_weighted", "ml_levels", "ml_imported_classes") and verb == "roc_curve":
                continue
            wide = f"select {WIDE} from rows_"
            text = sql.replace("select * from rows_", wide) if "transformed" in model else sql
            found[f"verb_{model}_{verb}"] = text.replace("MODEL", model)
    return found


def flat(sql: str) -> str:
    """Return a statement for a catalogue without projects and datasets."""
    return re.sub(r"`[^`]*`\.`[^`]*`\.`([^`]*)`", r"`\1`", sql)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("models")
    refused = {
        f"ml_refused_{name}": configured(
            QUERY.format(label="is_up_5"), input_label_cols=["is_up_5"], **settings
        )
        for name, (settings, _) in REFUSED.items()
    }
    write_project(directory, MODELS | refused | verbs())
    return compiled(directory, list(refused))


@pytest.fixture(scope="module")
def analysis(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    files = {
        "ml_imported_value": exported(Task("regression"), ""),
        "ml_imported_classes": exported(Task("multiclass", ("down", "flat", "up")), "VARCHAR"),
    }
    binary = exported(Task("binary", ("false", "true")), "BOOLEAN")
    statements: list[dict[str, Any]] = [
        {
            "relation": name,
            "sql": flat(sql),
            "reads": ["rows_"],
            "classes": {
                "ml_weighted": ["down", "flat", "up"],
                "ml_levels": ["_1", "_0", "__1"],
            }.get(name, ["false", "true"]),
            "onnx": files.get(name, binary),
        }
        for name, sql in rendered["statements"].items()
    ]
    statements += [
        {"relation": name, "sql": flat(rendered["compiled"][name]), "reads": [*TABLES, *MODELS]}
        for name in verbs()
    ]
    names = {"LINEAR": "ml_logistic_reg", "VALUE": "ml_linear_reg", "IMPORTED": "ml_imported"}
    for name, (sql, _) in PLANTED.items():
        for short, model in names.items():
            sql = sql.replace(f"model `{short}`", f"model `{model}`")
        statements.append({"relation": name, "sql": sql, "reads": ["rows_", *MODELS]})
    return analysed({"tables": TABLES, "statements": statements})


def test_every_model_type_with_every_option_makes_a_statement_that_resolves(
    rendered: dict[str, Any], analysis: dict[str, dict[str, Any]]
) -> None:
    assert rendered["statements"].keys() == MODELS.keys()
    assert {name: analysis[name] for name in MODELS if "error" in analysis[name]} == {}
    used = " ".join(TRANSFORM.values())
    assert [function for function in FUNCTIONS if function not in used] == []


def test_every_verb_of_every_model_resolves(analysis: dict[str, dict[str, Any]]) -> None:
    assert {name: analysis[name] for name in verbs() if "error" in analysis[name]} == {}


@pytest.mark.parametrize("model", MODELS)
def test_predictions_have_the_same_columns_trained_there_and_imported(
    analysis: dict[str, dict[str, Any]], model: str
) -> None:
    found = analysis[f"verb_{model}_predict"]["columns"]
    label = next(name for name in ("is_up_5", "class_5", "level_5", "return_5")
                 if f"predicted_{name}" in found)  # fmt: skip
    own = {name: kind for name, kind in found.items() if name.startswith("predicted_")}
    kind = ROWS[label]
    assert own == PREDICTED.get(
        label,
        {
            f"predicted_{label}": kind,
            f"predicted_{label}_probs": f"ARRAY<STRUCT<label {kind}, prob FLOAT64>>",
        },
    )
    if "transformed" not in model:
        assert {name: kind for name, kind in found.items() if name not in own} == ROWS


@pytest.mark.parametrize("verb", [*VERBS, *CLASSIFIERS])
def test_a_model_with_a_search_answers_with_the_columns_of_one_without(
    analysis: dict[str, dict[str, Any]], verb: str
) -> None:
    trees, values = (
        [analysis.get(f"verb_ml_{name}_{verb}") for name in names]
        for names in (("searched", "boosted_tree_classifier"), ("layers", "dnn_regressor"))
    )
    assert trees[0] == trees[1] is not None
    assert values[0] == values[1]


@pytest.mark.parametrize("verb", IMPORTED)
def test_an_imported_model_is_judged_by_the_columns_that_bigquery_gives(
    analysis: dict[str, dict[str, Any]], verb: str
) -> None:
    own = analysis[f"verb_ml_imported_{verb}"]["columns"]
    assert own == analysis[f"verb_ml_boosted_tree_classifier_{verb}"]["columns"]


def test_what_is_recorded_of_an_imported_model_has_the_columns_that_bigquery_gives(
    analysis: dict[str, dict[str, Any]],
) -> None:
    assert analysis["verb_imported_importance"] == analysis["verb_importance"]
    assert analysis["verb_imported_calibrated"] == analysis["verb_calibrated"]
    own, given = (analysis[f"verb_{name}"]["columns"] for name in ("imported_trials", "trials"))
    assert list(own) == list(given)
    # A struct's fields are those of the search; of an imported model they are JSON.
    differs = {name: kind for name, kind in own.items() if given[name] != kind}
    assert differs == {"hyperparameters": "JSON", "hparam_tuning_evaluation_metrics": "JSON"}


def test_walked_trees_give_a_prediction_and_probabilities_beside_the_rows(
    analysis: dict[str, dict[str, Any]],
) -> None:
    for name in ("portable", "portable_classes"):
        found = analysis[f"verb_{name}"]["columns"]
        assert found == ROWS | {"prediction": "FLOAT64", "probabilities": "ARRAY<FLOAT64>"}
    assert analysis["verb_portable_value"]["columns"]["prediction"] == "FLOAT64"


@pytest.mark.parametrize("name", REFUSED)
def test_what_bigquery_ml_has_not_is_refused_with_the_reason(
    rendered: dict[str, Any], name: str
) -> None:
    assert REFUSED[name][1] in rendered["refused"][f"ml_refused_{name}"]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(analysis: dict[str, dict[str, Any]], name: str) -> None:
    assert PLANTED[name][1] in analysis[name]["error"]
