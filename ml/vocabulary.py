"""BigQuery ML's model types and their options: which exist, what each may be."""

import math
from dataclasses import dataclass
from typing import Any


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


def is_classifier(model_type: str) -> bool:
    """Whether models of a type learn classes."""
    return model_type == "LOGISTIC_REG" or model_type.endswith("_CLASSIFIER")


def defaults(model_type: str) -> dict[str, Any]:
    """Return every training option of a type with its default."""
    return {name: option.default for name, option in TYPES[model_type].items()}


def checked(name: str, value: object, option: Option) -> Any:
    """Return the value of an option, checked."""
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
        return [number(name, item, option, is_whole=True) for item in value]
    return number(name, value, option, is_whole=isinstance(default, int))


def number(name: str, value: object, option: Option, *, is_whole: bool) -> float | int:
    """Return a number within the bounds of an option."""
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
