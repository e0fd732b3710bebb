"""Options of CREATE MODEL in BigQuery ML's vocabulary: which exist, what they may be."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml import metrics


class OptionError(ValueError):
    """A training option is unknown, missing or wrong."""


@dataclass(frozen=True)
class Space:
    """Where a search looks for the value of an option.

    Parameters
    ----------
    low, high : float
        HPARAM_RANGE, both ends included.
    candidates : tuple
        HPARAM_CANDIDATES, instead of a range.
    is_log : bool
        Whether each order of magnitude is as likely as the next.
    is_whole : bool
        Whether the value is an integer.
    """

    low: float = 0
    high: float = 0
    candidates: tuple[Any, ...] = ()
    is_log: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Option:
    """What an option may be.

    Parameters
    ----------
    default : object
        The value where none is given; its type is the option's.
    low, high : float
        Least and largest number, both allowed.
    choices : tuple of str
        The words allowed, in upper case.
    space : Space or None
        Where a search without HPARAM_RANGE looks; None is not searched.
    """

    default: Any
    low: float = 0
    high: float = math.inf
    choices: tuple[str, ...] = ()
    space: Space | None = None


def _penalty(default: float) -> Option:
    return Option(default, space=Space(1e-3, 10, is_log=True))


# https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-create
_SHARE = Space(0.5, 1)
_STOPPING = {"early_stop": Option(True), "min_rel_progress": Option(0.01)}
_TREES = {
    "max_tree_depth": Option(6, low=1, high=20, space=Space(2, 10, is_whole=True)),
    "min_tree_child_weight": Option(1.0, space=Space(1, 100, is_log=True)),
    "min_split_loss": Option(0.0),
    "subsample": Option(1.0, low=1e-6, high=1, space=_SHARE),
    "colsample_bytree": Option(1.0, low=1e-6, high=1, space=_SHARE),
    "colsample_bynode": Option(1.0, low=1e-6, high=1),
    "l1_reg": Option(0.0),
    "l2_reg": _penalty(1.0),
}
_FOREST = _TREES | {
    "num_parallel_tree": Option(100, low=2, high=10_000, space=Space(50, 200, is_whole=True)),
    "max_tree_depth": Option(15, low=1, high=20, space=Space(4, 15, is_whole=True)),
    "subsample": Option(0.8, low=1e-6, high=1 - 1e-6, space=Space(0.5, 0.9)),
    "colsample_bynode": Option(0.8, low=1e-6, high=1, space=_SHARE),
}
_BOOSTED = (
    _TREES
    | _STOPPING
    | {
        "booster_type": Option("GBTREE", choices=("GBTREE", "DART")),
        "learn_rate": Option(0.3, low=1e-6, high=1, space=Space(0.02, 0.3, is_log=True)),
        "max_iterations": Option(20, low=1, high=100_000),
    }
)
_LINEAR = {
    "l1_reg": Option(0.0),
    "l2_reg": _penalty(0.0),
    "fit_intercept": Option(True),
    "max_iterations": Option(1000, low=1, high=1_000_000),
}
_NETWORK = _STOPPING | {
    "hidden_units": Option([64, 32], low=1, high=4096, space=Space(candidates=([32], [64, 32]))),
    "activation_fn": Option("RELU", choices=("RELU", "TANH", "SIGMOID")),
    "optimizer": Option("ADAM", choices=("ADAM", "SGD")),
    "learn_rate": Option(0.001, low=1e-8, high=10, space=Space(1e-4, 1e-2, is_log=True)),
    "l2_reg": _penalty(0.0),
    "batch_size": Option(1024, low=1, high=1_000_000),
    "max_iterations": Option(20, low=1, high=10_000),
}
_AUTOML: dict[str, Option] = {"budget_hours": Option(1.0, low=1e-6, high=72)}

TYPES = {
    "LOGISTIC_REG": _LINEAR,
    "LINEAR_REG": _LINEAR,
    "BOOSTED_TREE_CLASSIFIER": _BOOSTED,
    "BOOSTED_TREE_REGRESSOR": _BOOSTED,
    "RANDOM_FOREST_CLASSIFIER": _FOREST,
    "RANDOM_FOREST_REGRESSOR": _FOREST,
    "DNN_CLASSIFIER": _NETWORK,
    "DNN_REGRESSOR": _NETWORK,
    "AUTOML_CLASSIFIER": _AUTOML,
    "AUTOML_REGRESSOR": _AUTOML,
}
AUTOML_TYPES = {
    "AUTOML_CLASSIFIER": (
        *("LOGISTIC_REG", "BOOSTED_TREE_CLASSIFIER"),
        *("RANDOM_FOREST_CLASSIFIER", "DNN_CLASSIFIER"),
    ),
    "AUTOML_REGRESSOR": (
        *("LINEAR_REG", "BOOSTED_TREE_REGRESSOR", "RANDOM_FOREST_REGRESSOR", "DNN_REGRESSOR"),
    ),
}
ENGINES = {
    "LOGISTIC_REG": ("linear",),
    "LINEAR_REG": ("linear",),
    "BOOSTED_TREE_CLASSIFIER": ("lightgbm", "xgboost", "catboost"),
    "BOOSTED_TREE_REGRESSOR": ("lightgbm", "xgboost", "catboost"),
    "RANDOM_FOREST_CLASSIFIER": ("lightgbm",),
    "RANDOM_FOREST_REGRESSOR": ("lightgbm",),
    "DNN_CLASSIFIER": ("neural",),
    "DNN_REGRESSOR": ("neural",),
}
# Options for which CatBoost's symmetric trees have nothing, or another meaning.
UNKNOWN_TO_CATBOOST = (
    *("booster_type", "min_tree_child_weight", "min_split_loss", "l1_reg", "colsample_bynode"),
    "min_rel_progress",
)

REQUIRED = ("model_type", "input_label_cols", "data_split_method", "data_split_col")
_CLASS_WEIGHTS = ("auto_class_weights", "class_weights")
_ALGORITHMS = ("VIZIER_DEFAULT", "RANDOM_SEARCH", "GRID_SEARCH")
_SEARCH = {
    "num_trials": Option(0, low=1, high=1000),
    "max_parallel_trials": Option(1, low=1, high=5),
    "hparam_tuning_algorithm": Option("VIZIER_DEFAULT", choices=_ALGORITHMS),
    "hparam_tuning_objectives": Option([""]),
}
AUTOML_TRIALS = 20


@dataclass(frozen=True)
class Search:
    """A search for hyper-parameters.

    Parameters
    ----------
    trials : int
        Number of trials.
    algorithm : {"VIZIER_DEFAULT", "RANDOM_SEARCH", "GRID_SEARCH"}
        BigQuery ML's name; the first is Optuna's tree-structured Parzen estimator.
    objective : str
        The metric to go by, in upper case.
    spaces : Mapping
        Of each model type to try, the spaces of its options.
    budget_s : float
        No trial starts after so many seconds; infinite where only trials count.
    """

    trials: int
    algorithm: str
    objective: str
    spaces: Mapping[str, Mapping[str, Space]]
    budget_s: float


@dataclass(frozen=True)
class Options:
    """Options of one model, checked and complete.

    Parameters
    ----------
    model_type : str
        BigQuery ML's name of the type.
    engine : str
        The trainer of the type; '' of an AUTOML type, which has several.
    label : str
        The column to learn.
    split_column : str
        The column that says 'train', 'validation' or something else.
    training : Mapping
        Every training option by BigQuery ML's name, defaults filled in, searched ones left out.
    search : Search or None
        How the others are found.
    class_weights : Mapping, "balanced" or None
        Weight by class; 'balanced' is in inverse proportion to the rows of the class.
    """

    model_type: str
    engine: str
    label: str
    split_column: str
    training: Mapping[str, Any]
    search: Search | None = None
    class_weights: Mapping[str, float] | str | None = None

    @property
    def is_classifier(self) -> bool:
        """Whether the label is a class."""
        return is_classifier(self.model_type)


def is_classifier(model_type: str) -> bool:
    """Whether models of a type learn classes."""
    return model_type == "LOGISTIC_REG" or model_type.endswith("_CLASSIFIER")


def defaults(model_type: str) -> dict[str, Any]:
    """Return every training option of a type with its default."""
    return {name: option.default for name, option in TYPES[model_type].items()}


def parse(given: Mapping[str, Any], *, engine: str | None = None) -> Options:
    """Check options written in BigQuery ML's vocabulary, names in either case.

    A value may be ``HPARAM_RANGE(low, high)`` or ``HPARAM_CANDIDATES([a, b])``, as text.

    Parameters
    ----------
    given : Mapping
        The options.
    engine : str or None
        The library behind a type that has several; None is the first.

    Raises
    ------
    OptionError
        If an option is unknown (the message lists the valid ones), missing or wrong.
    """
    options = {name.lower(): value for name, value in given.items()}
    missing = [name for name in REQUIRED if name not in options]
    if missing:
        raise OptionError(f"option {', '.join(missing)} is missing")
    model_type = str(options["model_type"]).upper()
    if model_type not in TYPES:
        raise OptionError(f"model_type is {model_type}; the types are {', '.join(TYPES)}")
    table = TYPES[model_type]
    weights = _CLASS_WEIGHTS if is_classifier(model_type) else ()
    valid = {*REQUIRED, *table, *_SEARCH, *weights}
    unknown = sorted(set(options) - valid)
    if unknown:
        raise OptionError(
            f"unknown option {', '.join(unknown)}; the options of {model_type} are "
            f"{', '.join(sorted(valid))}"
        )
    if str(options["data_split_method"]).upper() != "CUSTOM":
        raise OptionError(
            f"data_split_method is {options['data_split_method']}; only CUSTOM keeps overlapping "
            "labels apart: name the dataset's split column in data_split_col"
        )
    labels = options["input_label_cols"]
    if not isinstance(labels, list) or len(labels) != 1:
        raise OptionError(f"input_label_cols is {labels!r}; a list of one column is expected")
    spaces = {
        name: _space(name, options[name], table[name])
        for name in table
        if isinstance(options.get(name), str) and options[name].lower().startswith("hparam_")
    }
    chosen_engine = _engine(model_type, engine, options)
    training = {
        name: _checked(name, options.get(name, option.default), option)
        for name, option in table.items()
        if name not in spaces
    }
    searchable = table
    if chosen_engine == "catboost":
        searchable = {name: table[name] for name in table if name not in UNKNOWN_TO_CATBOOST}
    search = _search(model_type, options, searchable, spaces)
    if search is not None and model_type in search.spaces:
        training = {
            name: value for name, value in training.items() if name not in search.spaces[model_type]
        }
    return Options(
        model_type,
        chosen_engine,
        labels[0],
        str(options["data_split_col"]),
        training,
        search,
        _class_weights(options),
    )


def _engine(model_type: str, engine: str | None, options: Mapping[str, Any]) -> str:
    engines = ENGINES.get(model_type, ())
    if engine is None:
        return engines[0] if engines else ""
    if engine not in engines:
        raise OptionError(
            f"engine is {engine}; the engines of {model_type} are {', '.join(engines) or 'none'}"
        )
    missing = [name for name in UNKNOWN_TO_CATBOOST if name in options]
    if engine == "catboost" and missing:
        known = sorted(set(TYPES[model_type]) - set(UNKNOWN_TO_CATBOOST))
        raise OptionError(
            f"engine catboost has no {', '.join(missing)}; of the options of {model_type} it has "
            f"{', '.join(known)}"
        )
    return engine


def _checked(name: str, value: object, option: Option) -> Any:
    default = option.default
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise OptionError(f"{name} is {value!r}; true or false is expected")
        return value
    if option.choices:
        if str(value).upper() not in option.choices:
            raise OptionError(
                f"{name} is {value!r}; one of {', '.join(option.choices)} is expected"
            )
        return str(value).upper()
    if isinstance(default, list):
        if not isinstance(value, list) or not value:
            raise OptionError(f"{name} is {value!r}; a list is expected")
        if isinstance(default[0], str):
            return value
        return [_number(name, item, option, is_whole=True) for item in value]
    return _number(name, value, option, is_whole=isinstance(default, int))


def _number(name: str, value: object, option: Option, *, is_whole: bool) -> float | int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if (
        not isinstance(value, int | float)
        or not is_number
        or not option.low <= value <= option.high
        or (is_whole and value != int(value))
    ):
        kind = "an integer" if is_whole else "a number"
        least = f"of at least {option.low:g}"
        bounds = least if option.high == math.inf else f"from {option.low:g} to {option.high:g}"
        raise OptionError(f"{name} is {value!r}; {kind} {bounds} is expected")
    return int(value) if is_whole else value


def _space(name: str, text: str, option: Option) -> Space:
    expected = "HPARAM_RANGE(low, high) or HPARAM_CANDIDATES([a, b]) is expected"
    found = re.fullmatch(r"hparam_(range|candidates)\s*\((.*)\)\s*", text, re.I | re.S)
    if found is None:
        raise OptionError(f"{name} is {text!r}; {expected}")
    # BigQuery ML writes a list of layers as STRUCT([64, 32]).
    values = re.sub(r"struct\s*\(([^()]*)\)", r"\1", found[2], flags=re.I).replace("'", '"')
    try:
        listed = json.loads(f"[{values}]")
    except json.JSONDecodeError as error:
        raise OptionError(f"{name} is {text!r}; {expected}") from error
    is_whole = isinstance(option.default, int) and not isinstance(option.default, bool)
    if found[1].lower() == "candidates":
        if len(listed) != 1 or not isinstance(listed[0], list) or not listed[0]:
            raise OptionError(f"{name} is {text!r}; HPARAM_CANDIDATES takes one list of values")
        return Space(candidates=tuple(_checked(name, value, option) for value in listed[0]))
    if isinstance(option.default, bool | list | str) or len(listed) != 2:
        raise OptionError(f"{name} is {text!r}; HPARAM_RANGE takes two numbers")
    low, high = (_number(name, value, option, is_whole=is_whole) for value in listed)
    if low >= high:
        raise OptionError(f"{name} is {text!r}; the second number must be the larger one")
    is_log = option.space is not None and option.space.is_log and low > 0
    return Space(low, high, is_log=is_log, is_whole=is_whole)


def _search(
    model_type: str,
    options: Mapping[str, Any],
    table: Mapping[str, Option],
    spaces: Mapping[str, Space],
) -> Search | None:
    is_automl = model_type in AUTOML_TYPES
    given = [name for name in _SEARCH if name in options]
    if "num_trials" not in options and not is_automl:
        if spaces or given:
            raise OptionError(
                f"{', '.join([*spaces, *given])} needs num_trials, the number of trials"
            )
        return None
    trials = _checked("num_trials", options.get("num_trials", AUTOML_TRIALS), _SEARCH["num_trials"])
    _checked(
        "max_parallel_trials", options.get("max_parallel_trials", 1), _SEARCH["max_parallel_trials"]
    )
    algorithm = _checked(
        "hparam_tuning_algorithm",
        options.get("hparam_tuning_algorithm", "VIZIER_DEFAULT"),
        _SEARCH["hparam_tuning_algorithm"],
    )
    searched = {model_type: dict(spaces) or _default_spaces(table, given=options)}
    if is_automl:
        searched = {
            kind: _default_spaces(TYPES[kind], given={}) for kind in AUTOML_TYPES[model_type]
        }
    if algorithm == "GRID_SEARCH" and any(
        not space.candidates for found in searched.values() for space in found.values()
    ):
        raise OptionError("GRID_SEARCH takes HPARAM_CANDIDATES only: a range has no steps")
    budget = (
        float(options.get("budget_hours", table["budget_hours"].default)) * 3600
        if is_automl
        else math.inf
    )
    objective = _objective(model_type, options.get("hparam_tuning_objectives"))
    return Search(trials, algorithm, objective, searched, budget)


def _default_spaces(table: Mapping[str, Option], *, given: Mapping[str, Any]) -> dict[str, Space]:
    return {
        name: option.space
        for name, option in table.items()
        if option.space is not None and name not in given
    }


def _objective(model_type: str, given: object) -> str:
    valid = metrics.CLASSIFICATION if is_classifier(model_type) else metrics.REGRESSION
    if given is None:
        return "LOG_LOSS" if is_classifier(model_type) else "MEAN_SQUARED_ERROR"
    listed: Sequence[Any] = given if isinstance(given, list) else [given]
    if len(listed) != 1 or str(listed[0]).upper() not in valid:
        raise OptionError(
            f"hparam_tuning_objectives is {given!r}; "
            f"a list of one of {', '.join(valid)} is expected"
        )
    return str(listed[0]).upper()


def _class_weights(options: Mapping[str, Any]) -> Mapping[str, float] | str | None:
    is_auto = _checked(
        "auto_class_weights", options.get("auto_class_weights", False), Option(False)
    )
    weights = options.get("class_weights")
    if weights is None:
        return "balanced" if is_auto else None
    if is_auto:
        raise OptionError("auto_class_weights and class_weights exclude each other")
    # BigQuery ML writes [('yes', 0.5), ('no', 1.5)].
    pairs = list(weights.items()) if isinstance(weights, Mapping) else weights
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise OptionError(
            f"class_weights is {weights!r}; pairs of a class and a weight are expected"
        )
    return {
        _class_name(name): _number("class_weights", weight, Option(1.0), is_whole=False)
        for name, weight in pairs
    }


def _class_name(label: object) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
