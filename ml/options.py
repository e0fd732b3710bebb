"""BigQuery ML's training options and what they are called in LightGBM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-create-boosted-tree
BOOSTED_TREE = {
    "learn_rate": "learning_rate",
    "max_tree_depth": "max_depth",
    "min_tree_child_weight": "min_sum_hessian_in_leaf",
    "min_split_loss": "min_gain_to_split",
    "subsample": "bagging_fraction",
    "colsample_bytree": "feature_fraction",
    "colsample_bynode": "feature_fraction_bynode",
    "l1_reg": "lambda_l1",
    "l2_reg": "lambda_l2",
}
BOOSTED_TREE_DEFAULTS = {
    "learn_rate": 0.3,
    "max_tree_depth": 6,
    "min_tree_child_weight": 1,
    "min_split_loss": 0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "colsample_bynode": 1.0,
    "l1_reg": 0,
    "l2_reg": 1,
    "max_iterations": 20,
    "early_stop": True,
    "min_rel_progress": 0.01,
}
REQUIRED = ["model_type", "input_label_cols", "data_split_method", "data_split_col"]
MODEL_TYPES = ["BOOSTED_TREE_CLASSIFIER"]


class OptionError(ValueError):
    """A training option is unknown, missing or wrong."""


@dataclass(frozen=True)
class Options:
    """Options of one model, checked and complete.

    Parameters
    ----------
    model_type : str
        BigQuery ML's name of the type.
    label : str
        The column to learn.
    split_column : str
        The column that says 'train', 'validation' or something else.
    training : Mapping
        Every training option by BigQuery ML's name, defaults filled in.
    """

    model_type: str
    label: str
    split_column: str
    training: Mapping[str, Any]

    @property
    def lightgbm(self) -> dict[str, Any]:
        """The parameters that LightGBM takes."""
        parameters = {name: self.training[option] for option, name in BOOSTED_TREE.items()}
        depth = self.training["max_tree_depth"]
        # XGBoost's bagging draws before every tree; its trees are bounded by their depth alone.
        return parameters | {"bagging_freq": 1, "num_leaves": min(2**depth, 1024)}


def parse(given: Mapping[str, Any]) -> Options:
    """Check options written in BigQuery ML's vocabulary, names in either case.

    Raises
    ------
    OptionError
        If an option is unknown (the message lists the valid ones), missing or wrong.
    """
    options = {name.lower(): value for name, value in given.items()}
    valid = REQUIRED + list(BOOSTED_TREE_DEFAULTS)
    unknown = sorted(set(options) - set(valid))
    if unknown:
        raise OptionError(
            f"unknown option {', '.join(unknown)}; the options are {', '.join(sorted(valid))}"
        )
    missing = [name for name in REQUIRED if name not in options]
    if missing:
        raise OptionError(f"option {', '.join(missing)} is missing")
    model_type = str(options["model_type"]).upper()
    if model_type not in MODEL_TYPES:
        raise OptionError(f"model_type is {model_type}; the types are {', '.join(MODEL_TYPES)}")
    if str(options["data_split_method"]).upper() != "CUSTOM":
        raise OptionError(
            f"data_split_method is {options['data_split_method']}; only CUSTOM keeps overlapping "
            "labels apart: name the dataset's split column in data_split_col"
        )
    labels = options["input_label_cols"]
    if not isinstance(labels, list) or len(labels) != 1:
        raise OptionError(f"input_label_cols is {labels!r}; a list of one column is expected")
    training = BOOSTED_TREE_DEFAULTS | {
        name: options[name] for name in BOOSTED_TREE_DEFAULTS if name in options
    }
    for name, default in BOOSTED_TREE_DEFAULTS.items():
        _check_number(name, training[name], default)
    return Options(model_type, labels[0], str(options["data_split_col"]), training)


def _check_number(name: str, value: object, default: object) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise OptionError(f"{name} is {value!r}; true or false is expected")
    elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise OptionError(f"{name} is {value!r}; a number of at least 0 is expected")
