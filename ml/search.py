"""Search for hyper-parameters: no trial is judged on what it learned from, nor on a test."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import optuna

from ml import metrics
from ml.options import Options
from ml.search_options import Search
from ml.trainers import UNSTOPPABLE, Fitted, Float64, Part, Task, TrainingError, trainer
from ml.vocabulary import ENGINES, Space, defaults

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "VIZIER_DEFAULT": lambda seed: optuna.samplers.TPESampler(seed=seed),
    # A grid is laid out beforehand and leaves nothing to draw.
    "GRID_SEARCH": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "RANDOM_SEARCH": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


@dataclass(frozen=True)
class Chosen:
    """What a model is trained with.

    Parameters
    ----------
    model_type, engine : str
        BigQuery ML's name of the type, and its trainer.
    options : Mapping
        Every training option.
    """

    model_type: str
    engine: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One trial of a search, as ML.TRIAL_INFO tells it.

    Parameters
    ----------
    hyperparameters : Mapping
        What was tried.
    metrics : Mapping
        On the validation part.
    training_loss, eval_loss : float or None
        Of the iteration kept; None of a failed trial.
    error : str or None
        Why it failed.
    is_cut : bool
        Whether the budget ended it before its last iteration.
    """

    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    training_loss: float | None = None
    eval_loss: float | None = None
    error: str | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Found:
    """The best of all trials.

    Parameters
    ----------
    chosen : Chosen
        What it was trained with.
    fitted : Fitted
        The model.
    predicted : numpy.ndarray
        What it says of the validation part.
    metrics : Mapping
        On that part.
    trials : list of Trial
        All, in order.
    best : int
        Its index among them.
    """

    chosen: Chosen
    fitted: Fitted
    predicted: Float64
    metrics: Mapping[str, float | None]
    trials: list[Trial]
    best: int


# Part of training and of validation as an engine takes them.
PartsOf = Callable[[str], tuple[Part, Part]]


def fit(task: Task, chosen: Chosen, parts_of: PartsOf, seed: int) -> Found:
    """Return the only trial there is, of options that are known."""
    fitted, predicted, trial = _try(task, chosen, parts_of, seed, {})
    return Found(chosen, fitted, predicted, trial.metrics, [trial], 0)


def find(task: Task, parsed: Options, parts_of: PartsOf, seed: int) -> Found:
    """Return the best of all trials; without a search, the only one.

    Parameters
    ----------
    task : Task
        What is learned.
    parsed : Options
        With the search, or without.
    parts_of : Callable
        From the engine to the parts of training and validation.
    seed : int
        Of the sampler and of every trainer.

    Raises
    ------
    TrainingError
        If no trial gave a model.
    """
    if parsed.search is None:
        chosen = Chosen(parsed.model_type, parsed.engine, parsed.training)
        return fit(task, chosen, parts_of, seed)

    search = parsed.search
    higher = metrics.IS_BETTER_HIGHER[search.objective]
    # Whatever Optuna has to say, the registry says: it would print a line per trial.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = SAMPLERS[search.algorithm](seed)
    study = optuna.create_study(direction="maximize" if higher else "minimize", sampler=sampler)
    grid = _grid(search) if search.algorithm == "GRID_SEARCH" else []
    for combination in grid:
        study.enqueue_trial(combination)
    trials: list[Trial] = []
    best: tuple[float, int, Chosen, Fitted, Float64] | None = None
    deadline = time.monotonic() + search.budget_s
    took: dict[str, float] = {}
    wanted = min(search.trials, len(grid) or search.trials)
    while len(trials) < wanted and time.monotonic() < deadline:
        asked = study.ask()
        chosen, tried = _suggest(parsed, search, asked)
        started = time.monotonic()
        if chosen.engine in UNSTOPPABLE and took.get(chosen.engine, 0) > deadline - started:
            break
        try:
            fitted, predicted, trial = _try(task, chosen, parts_of, seed, tried, deadline)
        except (ValueError, ArithmeticError) as error:
            trials.append(Trial(tried, error=str(error)))
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        took[chosen.engine] = time.monotonic() - started
        value = trial.metrics[search.objective.lower()]
        trials.append(trial)
        if value is None or not np.isfinite(value):
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(asked, value)
        if best is None or (value > best[0] if higher else value < best[0]):
            best = value, len(trials) - 1, chosen, fitted, predicted
    if best is None:
        reasons = sorted({trial.error or "no finite metric" for trial in trials})
        raise TrainingError(
            f"none of {len(trials)} trials gave a model: {'; '.join(reasons) or 'no time'}"
        )
    _, number, chosen, fitted, predicted = best
    return Found(chosen, fitted, predicted, trials[number].metrics, trials, number)


def _grid(search: Search) -> list[dict[str, int]]:
    """Return every combination of candidates, by their positions."""
    return [
        dict(zip((_name(kind, name) for name in spaces), positions, strict=True))
        for kind, spaces in search.spaces.items()
        for positions in product(*(range(len(space.candidates)) for space in spaces.values()))
    ]


def _suggest(parsed: Options, search: Search, trial: optuna.Trial) -> tuple[Chosen, dict[str, Any]]:
    kinds = list(search.spaces)
    kind = kinds[0] if len(kinds) == 1 else trial.suggest_categorical("model_type", kinds)
    tried = {
        name: _value(trial, _name(kind, name), space) for name, space in search.spaces[kind].items()
    }
    if kind == parsed.model_type:
        return Chosen(kind, parsed.engine, {**parsed.training, **tried}), tried
    options = defaults(kind) | dict(AUTOML_OPTIONS.get(kind, {})) | tried
    return Chosen(kind, ENGINES[kind][0], options), {"model_type": kind, **tried}


# AUTOML's trials stop by the validation part, so they may go on for longer than the defaults.
AUTOML_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "BOOSTED_TREE_CLASSIFIER": {"max_iterations": 300, "min_rel_progress": 0},
    "BOOSTED_TREE_REGRESSOR": {"max_iterations": 300, "min_rel_progress": 0},
    "DNN_CLASSIFIER": {"min_rel_progress": 0},
    "DNN_REGRESSOR": {"min_rel_progress": 0},
}


def _name(kind: str, name: str) -> str:
    return f"{kind}.{name}"


def _value(trial: optuna.Trial, name: str, space: Space) -> Any:
    if space.candidates:
        # By position: Optuna stores candidates as text and lists are none of its kinds.
        return space.candidates[trial.suggest_categorical(name, list(range(len(space.candidates))))]
    if space.is_whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.is_log)
    return trial.suggest_float(name, space.low, space.high, log=space.is_log)


def _try(
    task: Task,
    chosen: Chosen,
    parts_of: PartsOf,
    seed: int,
    tried: Mapping[str, Any],
    deadline: float = math.inf,
) -> tuple[Fitted, Float64, Trial]:
    training, validation = parts_of(chosen.engine)
    fitted = trainer(chosen.engine).fit(task, training, validation, chosen.options, seed, deadline)
    predicted = fitted.predict(validation.matrix) if fitted.judged is None else fitted.judged
    found = metrics.evaluate(task, validation.labels, predicted)
    kept = fitted.rounds[fitted.best_round - 1]
    trial = Trial(tried, found, kept.loss, kept.eval_loss, is_cut=fitted.is_cut)
    return fitted, predicted, trial
