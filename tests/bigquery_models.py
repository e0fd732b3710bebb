"""Models of BigQuery ML for Google's analyser: options of CREATE MODEL, and the ML functions.

The analyser knows the grammar of CREATE MODEL and of ``model`` arguments, and nothing of BigQuery
ML. What its reference documents is written here: of each type the options and their types, of each
function its arguments, the columns that a model needs and the columns it gives.
"""

import re
from dataclasses import dataclass

from bigquery_types import argument, name_of, type_of
from zetasql.api import FunctionBuilder, TypeFactory
from zetasql.core.local_service import parse_proto
from zetasql.types import (
    AllowedHintsAndOptions,
    FunctionEnums,
    FunctionOptions,
    FunctionSignature,
    ParseResumeLocation,
    SimpleCatalog,
    SimpleModel,
    TableValuedFunction,
    TVFRelation,
    TVFRelationColumn,
)
from zetasql.types import SignatureArgumentKind as Kind

# https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-create
_ALWAYS = {
    "model_type": "STRING",
    "input_label_cols": "ARRAY<STRING>",
    "data_split_col": "STRING",
}
_TRAINED = _ALWAYS | {
    **dict.fromkeys(("data_split_method", "hparam_tuning_algorithm"), "STRING"),
    **dict.fromkeys(("early_stop", "enable_global_explain"), "BOOL"),
    **dict.fromkeys(("num_trials", "max_parallel_trials", "max_iterations"), "INT64"),
    **dict.fromkeys(("min_rel_progress", "l1_reg", "l2_reg"), "FLOAT64"),
    "hparam_tuning_objectives": "ARRAY<STRING>",
}
_WEIGHTS = {
    "auto_class_weights": "BOOL",
    "class_weights": "ARRAY<STRUCT<label STRING, weight FLOAT64>>",
}
_FOREST = _TRAINED | {
    **dict.fromkeys(("num_parallel_tree", "max_tree_depth", "min_tree_child_weight"), "INT64"),
    **dict.fromkeys(("min_split_loss", "subsample"), "FLOAT64"),
    **dict.fromkeys(("colsample_bytree", "colsample_bylevel", "colsample_bynode"), "FLOAT64"),
    **dict.fromkeys(("tree_method", "instance_weight_col", "xgboost_version"), "STRING"),
}
_BOOSTED = _FOREST | {
    **dict.fromkeys(("booster_type", "dart_normalize_type"), "STRING"),
    **dict.fromkeys(("learn_rate", "dropout"), "FLOAT64"),
}
_LINEAR = _TRAINED | {
    **dict.fromkeys(("optimize_strategy", "learn_rate_strategy"), "STRING"),
    **dict.fromkeys(("learn_rate", "ls_init_learn_rate"), "FLOAT64"),
    **dict.fromkeys(("fit_intercept", "calculate_p_values", "warm_start"), "BOOL"),
}
_NETWORK = _TRAINED | {
    **dict.fromkeys(("activation_fn", "optimizer", "tf_version"), "STRING"),
    **dict.fromkeys(("learn_rate", "dropout"), "FLOAT64"),
    **dict.fromkeys(("batch_size", "integrated_gradients_num_steps"), "INT64"),
    "hidden_units": "ARRAY<INT64>",
}
_AUTOML = _ALWAYS | {"budget_hours": "FLOAT64", "optimization_objective": "STRING"}
OPTIONS = {
    "LOGISTIC_REG": _LINEAR | _WEIGHTS,
    "LINEAR_REG": _LINEAR,
    "BOOSTED_TREE_CLASSIFIER": _BOOSTED | _WEIGHTS,
    "BOOSTED_TREE_REGRESSOR": _BOOSTED,
    "RANDOM_FOREST_CLASSIFIER": _FOREST | _WEIGHTS,
    "RANDOM_FOREST_REGRESSOR": _FOREST,
    "DNN_CLASSIFIER": _NETWORK | _WEIGHTS,
    "DNN_REGRESSOR": _NETWORK,
    "AUTOML_CLASSIFIER": _AUTOML,
    "AUTOML_REGRESSOR": _AUTOML,
    "ONNX": {"model_type": "STRING", "model_path": "STRING"},
}

_TEMPLATED = FunctionEnums.TableValuedFunctionType.TEMPLATED_SQL_TVF
_FIXED = FunctionEnums.TableValuedFunctionType.FIXED_OUTPUT_SCHEMA_TVF
_OPTIONAL = FunctionEnums.ArgumentCardinality.OPTIONAL
_CLASSIFICATION = dict.fromkeys(
    ("precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc"), "FLOAT64"
)
_REGRESSION = dict.fromkeys(
    (
        *("mean_absolute_error", "mean_squared_error", "mean_squared_log_error"),
        *("median_absolute_error", "r2_score", "explained_variance"),
    ),
    "FLOAT64",
)
_CURVE = {
    **dict.fromkeys(("threshold", "recall", "false_positive_rate"), "FLOAT64"),
    **dict.fromkeys(
        ("true_positives", "false_positives", "true_negatives", "false_negatives"), "INT64"
    ),
}
_TRAINING = {
    **dict.fromkeys(("training_run", "iteration", "duration_ms"), "INT64"),
    **dict.fromkeys(("loss", "eval_loss", "learning_rate"), "FLOAT64"),
}
_FEATURES = {
    "input": "STRING",
    **dict.fromkeys(("min", "max", "mean", "median", "stddev"), "FLOAT64"),
    **dict.fromkeys(("category_count", "null_count", "dimension"), "INT64"),
}
_IMPORTANCE = {
    "feature": "STRING",
    **dict.fromkeys(("importance_weight", "importance_gain", "importance_cover"), "FLOAT64"),
}
_DRIFT = {
    **dict.fromkeys(("input", "metric"), "STRING"),
    **dict.fromkeys(("threshold", "value"), "FLOAT64"),
    "is_anomaly": "BOOL",
}
_EXPLANATION = {
    "top_feature_attributions": "ARRAY<STRUCT<feature STRING, attribution FLOAT64>>",
    **dict.fromkeys(
        ("baseline_prediction_value", "prediction_value", "approximation_error"), "FLOAT64"
    ),
}
_CALL = re.compile(r"\bml\.(\w+)\(\s*model `([^`]+)`(\s*,)?", re.IGNORECASE)


@dataclass(frozen=True)
class Model:
    """A model of BigQuery ML.

    Parameters
    ----------
    model_type : str
        Its MODEL_TYPE.
    label : str
        The label column; '' of an imported model.
    inputs, outputs : dict
        Columns that ML.PREDICT needs and adds, with their types.
    label_type : str
        The label's type.
    classes : tuple of str
        The columns of its confusion matrix.
    searched : dict
        The options that a search looked for, with their types.
    """

    model_type: str
    label: str
    inputs: dict
    outputs: dict
    label_type: str = ""
    classes: tuple = ()
    searched: dict | None = None

    @property
    def is_classifier(self):
        return self.model_type == "LOGISTIC_REG" or self.model_type.endswith("_CLASSIFIER")


def options_of(sql):
    """What OPTIONS may hold, by the statement's own MODEL_TYPE; None of another statement."""
    if not re.match(r"\s*create\s+or\s+replace\s+model\b", sql, re.IGNORECASE):
        return None
    found = re.search(r"\bmodel_type\s*=\s*[\"'](\w+)[\"']", sql, re.IGNORECASE)
    allowed = OPTIONS.get(found[1].upper() if found else "", {})
    return AllowedHintsAndOptions(
        disallow_unknown_options=True,
        disallow_duplicate_option_names=True,
        option=[
            AllowedHintsAndOptions.Option(name=name, type=type_of(kind))
            for name, kind in allowed.items()
        ],
    )


def created(statement, sql, *, classes=(), onnx=None):
    """The model that a resolved CREATE MODEL makes; ``onnx`` are an imported file's columns."""
    model_type = re.search(r"\bmodel_type\s*=\s*[\"'](\w+)[\"']", sql, re.IGNORECASE)[1].upper()
    if model_type == "ONNX":
        return Model(model_type, "", onnx["inputs"], onnx["outputs"])
    columns = {
        column.name: name_of(parse_proto(column.column.type))
        for column in statement.output_column_list
    }
    label = re.search(r"\binput_label_cols\s*=\s*\[\s*[\"'](\w+)[\"']\s*\]", sql, re.I)[1]
    split = re.search(r"\bdata_split_col\s*=\s*[\"'](\w+)[\"']", sql, re.I)[1]
    split_type = (
        "STRING" if model_type.startswith("AUTOML") or re.search(r"\bnum_trials\b", sql) else "BOOL"
    )
    for column, kind in ((label, columns.get(label)), (split, split_type)):
        if column not in columns or columns[column] != kind:
            raise ValueError(f"{column} is {columns.get(column)}, expected {kind}")
    kind = columns[label]
    model = Model(
        model_type,
        label,
        {name: kind for name, kind in columns.items() if name not in (label, split)},
        {},
        kind,
        classes,
        {
            name.lower(): OPTIONS[model_type][name.lower()]
            for name in re.findall(r"(\w+)\s*=\s*hparam_", sql, re.IGNORECASE)
        },
    )
    if model.is_classifier:
        if kind == "FLOAT64":
            raise ValueError(f"{label} is {kind}: a classifier's label is no fraction")
        model.outputs[f"predicted_{label}"] = kind
        model.outputs[f"predicted_{label}_probs"] = f"ARRAY<STRUCT<label {kind}, prob FLOAT64>>"
    else:
        if kind not in ("FLOAT64", "INT64", "NUMERIC"):
            raise ValueError(f"{label} is {kind}: a regression's label is a number")
        model.outputs[f"predicted_{label}"] = "FLOAT64"
    return model


def declare(catalog, sql, models):
    """Add to a catalogue the models that a statement asks, and ML's functions for them.

    Returns the statement with each ``ml.<function>(model `name`, …)`` as a call of a function of
    that model alone, since what a call needs and gives is the model's. The two functions that hand
    on the columns of their query lose the argument ``model``: the analyser's templates take none.
    """
    functions = {}
    catalog.model = [SimpleModel(id=number, name=name) for number, name in enumerate(models, 1)]

    def renamed(call):
        function, name, comma = call[1].lower(), call[2], call[3] or ""
        if name not in models:
            return call[0]
        own = f"{function} of {name}"
        found = _functions(own, models[name], sql).get(function)
        if found is None:
            return call[0]
        functions[own] = found
        if found.type == _TEMPLATED:
            return f"ml.`{own}`("
        return f"ml.`{own}`(model `{name}`{comma}"

    text = _CALL.sub(renamed, sql)
    any_struct = (
        "STRUCT<numerical_default_threshold FLOAT64, categorical_default_threshold FLOAT64>"
    )
    drift = [_rows(), _rows(), argument(any_struct, cardinality=_OPTIONAL)]
    ml = SimpleCatalog(name="ml", custom_function=_transforms())
    ml.custom_tvf = [*functions.values(), _table("validate_data_drift", drift, _DRIFT)]
    catalog.catalog = [ml]
    catalog.custom_function = [*catalog.custom_function, *_hyper_parameters()]
    return text


def _functions(own, model, sql):
    model_argument = argument(Kind.ARG_TYPE_MODEL)
    if model.model_type == "ONNX":
        return {"predict": _handing_on(own, model.outputs, model.inputs)}
    # Google's pages that could be read do not say which functions name the trial of a model with a
    # search: here those of a classifier do and those of a regression do not.
    trial = {"trial_id": "INT64"} if model.searched and model.is_classifier else {}
    found = {"predict": _handing_on(own, trial | model.outputs, model.inputs)}
    labelled = [model_argument, _rows(model.inputs | {model.label: model.label_type})]
    threshold = argument("STRUCT<threshold FLOAT64>", cardinality=_OPTIONAL)
    if model.is_classifier:
        found["evaluate"] = _table(own, [*labelled, threshold], trial | _CLASSIFICATION)
        thresholds = argument("ARRAY<FLOAT64>", cardinality=_OPTIONAL)
        found["roc_curve"] = _table(own, [*labelled, thresholds], trial | _CURVE)
        matrix = (
            trial | {"expected_label": model.label_type} | dict.fromkeys(model.classes, "INT64")
        )
        found["confusion_matrix"] = _table(own, [*labelled, threshold], matrix)
    else:
        found["evaluate"] = _table(own, [*labelled, threshold], _REGRESSION)
    found["feature_info"] = _table(own, [model_argument], _FEATURES)
    if model.model_type.startswith("AUTOML"):
        return found
    explained = {f"predicted_{model.label}": model.outputs[f"predicted_{model.label}"]}
    explained |= {"probability": "FLOAT64"} if model.is_classifier else {}
    # Optional to BigQuery; templates have no optional arguments, and the macro gives it always.
    top = argument("STRUCT<top_k_features INT64>", argument_name="top_k_features")
    found["explain_predict"] = _handing_on(own, trial | explained | _EXPLANATION, model.inputs, top)
    found["training_info"] = _table(own, [model_argument], trial | _TRAINING)
    is_by_class = re.search(r"\btrue as class_level_explain\b", sql, re.IGNORECASE)
    effects = {"class_name": "STRING"} if is_by_class else {}
    found["global_explain"] = _table(
        own,
        [model_argument, argument("STRUCT<class_level_explain BOOL>", cardinality=_OPTIONAL)],
        effects | {"feature": "STRING", "attribution": "FLOAT64"},
    )
    if "TREE" in model.model_type or "FOREST" in model.model_type:
        found["feature_importance"] = _table(own, [model_argument], _IMPORTANCE)
    if model.searched:
        spaces = ", ".join(f"{name} {kind}" for name, kind in model.searched.items())
        judged = ", ".join(
            f"{name} FLOAT64" for name in (_CLASSIFICATION if model.is_classifier else _REGRESSION)
        )
        trials = {
            "trial_id": "INT64",
            "hyperparameters": f"STRUCT<{spaces}>",
            "hparam_tuning_evaluation_metrics": f"STRUCT<{judged}>",
            **dict.fromkeys(("training_loss", "eval_loss"), "FLOAT64"),
            **dict.fromkeys(("status", "error_message"), "STRING"),
            "is_optimal": "BOOL",
        }
        found["trial_info"] = _table(own, [model_argument], trials)
    return found


def _relation(columns):
    listed = [TVFRelationColumn(name=name, type=type_of(kind)) for name, kind in columns.items()]
    return TVFRelation(column=listed, is_value_table=False)


def _rows(columns=None):
    if columns is None:
        return argument(Kind.ARG_TYPE_RELATION)
    return argument(
        Kind.ARG_TYPE_RELATION,
        relation_input_schema=_relation(columns),
        extra_relation_input_columns_allowed=True,
    )


def _table(name, arguments, output):
    given = argument(Kind.ARG_TYPE_RELATION, relation_input_schema=_relation(output))
    return TableValuedFunction(
        name_path=[name],
        signature=FunctionSignature(argument=arguments, return_type=given),
        type=_FIXED,
    )


def _handing_on(name, added, needed, *others):
    """A function that gives `added` and the columns of its query, which must have `needed`."""
    columns = ", ".join(f"cast(null as {kind}) as {column}" for column, kind in added.items())
    types = ", ".join(needed.values())
    values = ", ".join(f"rows_.`{column}`" for column in needed)
    body = f"select {columns}, rows_.* from rows_ where struct<{types}>({values}) is not null"
    return TableValuedFunction(
        name_path=[name],
        signature=FunctionSignature(
            argument=[argument(Kind.ARG_TYPE_RELATION, argument_name="rows_"), *others],
            return_type=argument(Kind.ARG_TYPE_RELATION),
        ),
        type=_TEMPLATED,
        argument_name=["rows_", *(other.options.argument_name for other in others)],
        parse_resume_location=ParseResumeLocation(input=body, byte_position=0, allow_resume=False),
    )


def _function(name, arguments, output, *, is_over=False):
    mode = FunctionEnums.Mode.ANALYTIC if is_over else FunctionEnums.Mode.SCALAR
    signature = FunctionSignature(argument=arguments, return_type=output)
    built = FunctionBuilder(name, mode=mode).add_signature(signature).build()
    if is_over:
        built.options = FunctionOptions(
            supports_over_clause=True,
            window_ordering_support=FunctionEnums.WindowOrderSupport.ORDER_UNSUPPORTED,
            supports_window_framing=False,
        )
    return built


def _transforms():
    number, text = argument("FLOAT64"), argument("STRING")
    scalers = ("standard_scaler", "min_max_scaler", "max_abs_scaler", "robust_scaler")
    return [
        *(_function(name, [number], number, is_over=True) for name in scalers),
        _function("imputer", [number, text], number, is_over=True),
        _function(
            "one_hot_encoder", [text], argument("ARRAY<STRUCT<index INT64, value FLOAT64>>"),
            is_over=True,
        ),
        _function("quantile_bucketize", [number, argument("INT64")], text, is_over=True),
        _function("bucketize", [number, argument("ARRAY<FLOAT64>")], text),
    ]  # fmt: skip


def _hyper_parameters():
    value, values = argument(Kind.ARG_TYPE_ANY_1), argument(Kind.ARG_ARRAY_TYPE_ANY_1)
    # Layers are written [struct([64, 32]), struct([16])]: arrays hold no arrays.
    layer = TypeFactory.create_struct_type([("", type_of("ARRAY<INT64>"))])
    layers = argument("INT64")
    layers.type = TypeFactory.create_array_type(layer)
    candidates = _function("hparam_candidates", [layers], argument("ARRAY<INT64>"))
    candidates.signature.append(FunctionSignature(argument=[values], return_type=value))
    return [_function("hparam_range", [value, value], value), candidates]
