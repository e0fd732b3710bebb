"""Options of a search for hyper-parameters, and the spaces it looks in."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml import metrics
from ml.vocabulary import (
    AUTOML_TYPES,
    TYPES,
    Option,
    OptionError,
    Space,
    checked,
    is_classifier,
    number,
)


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
        After so many seconds no trial starts, and one that runs ends with its iteration;
        infinite where only trials count.
    """

    trials: int
    algorithm: str
    objective: str
    spaces: Mapping[str, Mapping[str, Space]]
    budget_s: float


_ALGORITHMS = ("VIZIER_DEFAULT", "RANDOM_SEARCH", "GRID_SEARCH")
SEARCH = {
    "num_trials": Option(0, low=1, high=1000),
    "max_parallel_trials": Option(1, low=1, high=5),
    "hparam_tuning_algorithm": Option("VIZIER_DEFAULT", choices=_ALGORITHMS),
    "hparam_tuning_objectives": Option([""]),
}
AUTOML_TRIALS = 20


def space_of(name: str, text: str, option: Option) -> Space:
    """Return the space of an option out of HPARAM_RANGE or HPARAM_CANDIDATES."""
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
        return Space(candidates=tuple(checked(name, value, option) for value in listed[0]))
    if isinstance(option.default, bool | list | str) or len(listed) != 2:
        raise OptionError(f"{name} is {text!r}; HPARAM_RANGE takes two numbers")
    low, high = (number(name, value, option, is_whole=is_whole) for value in listed)
    if low >= high:
        raise OptionError(f"{name} is {text!r}; the second number must be the larger one")
    is_log = option.space is not None and option.space.is_log and low > 0
    return Space(low, high, is_log=is_log, is_whole=is_whole)


def search_of(
    model_type: str,
    options: Mapping[str, Any],
    table: Mapping[str, Option],
    spaces: Mapping[str, Space],
) -> Search | None:
    """Return the search that options ask for; spaces that they do not give are the defaults."""
    is_automl = model_type in AUTOML_TYPES
    given = [name for name in SEARCH if name in options]
    if "num_trials" not in options and not is_automl:
        if spaces or given:
            raise OptionError(
                f"{', '.join([*spaces, *given])} needs num_trials, the number of trials"
            )
        return None
    trials = checked("num_trials", options.get("num_trials", AUTOML_TRIALS), SEARCH["num_trials"])
    checked(
        "max_parallel_trials", options.get("max_parallel_trials", 1), SEARCH["max_parallel_trials"]
    )
    algorithm = checked(
        "hparam_tuning_algorithm",
        options.get("hparam_tuning_algorithm", "VIZIER_DEFAULT"),
        SEARCH["hparam_tuning_algorithm"],
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
