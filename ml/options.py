"""Options of CREATE MODEL in BigQuery ML's vocabulary, checked and complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml.search_options import SEARCH, Search, search_of, space_of
from ml.vocabulary import (
    ENGINES,
    TYPES,
    UNKNOWN_TO_CATBOOST,
    Option,
    OptionError,
    checked,
    is_classifier,
    number,
)

REQUIRED = ("model_type", "input_label_cols", "data_split_method", "data_split_col")
_CLASS_WEIGHTS = ("auto_class_weights", "class_weights")


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
    valid = {*REQUIRED, *table, *SEARCH, *weights}
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
        name: space_of(name, options[name], table[name])
        for name in table
        if isinstance(options.get(name), str) and options[name].lower().startswith("hparam_")
    }
    chosen_engine = _engine(model_type, engine, options)
    training = {
        name: checked(name, options.get(name, option.default), option)
        for name, option in table.items()
        if name not in spaces
    }
    searchable = table
    if chosen_engine == "catboost":
        searchable = {name: table[name] for name in table if name not in UNKNOWN_TO_CATBOOST}
    search = search_of(model_type, options, searchable, spaces)
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


def _class_weights(options: Mapping[str, Any]) -> Mapping[str, float] | str | None:
    is_auto = checked("auto_class_weights", options.get("auto_class_weights", False), Option(False))
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
        _class_name(name): number("class_weights", weight, Option(1.0), is_whole=False)
        for name, weight in pairs
    }


def _class_name(label: object) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
