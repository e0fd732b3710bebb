"""One trainer per file: a task and two parts of rows in, a fitted model out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ml.trees import Trees

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class TrainingError(ValueError):
    """A query does not give what a model needs, or a library is not there."""


@dataclass(frozen=True)
class Task:
    """What is learned.

    Parameters
    ----------
    kind : {"binary", "multiclass", "regression"}
        Kind of label.
    classes : tuple of str
        The labels' text in the order of the probabilities; empty for a regression.
    """

    kind: str
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of scores that a model gives: one per class where there are more than two."""
        return len(self.classes) if self.kind == "multiclass" else 1


@dataclass(frozen=True)
class Part:
    """Rows to learn from or to judge by.

    Parameters
    ----------
    matrix : numpy.ndarray
        Shape (n, k), float32, NaN where missing.
    labels : numpy.ndarray
        Shape (n,), float64: the number of the class, or the value.
    weights : numpy.ndarray or None
        Shape (n,), float64, mean 1; None where all rows count alike.
    """

    matrix: Float32
    labels: Float64
    weights: Float64 | None = None


@dataclass(frozen=True)
class Round:
    """One iteration: losses on both parts, and how long it took.

    The loss is the log loss in nats, or the mean squared error of a regression.
    """

    loss: float
    eval_loss: float
    milliseconds: int


@dataclass(frozen=True)
class Dense:
    """A network of dense layers; a linear model is one layer.

    Parameters
    ----------
    weights : tuple of numpy.ndarray
        Of each layer, shape (inputs, outputs), float64.
    biases : tuple of numpy.ndarray
        Of each layer, shape (outputs,), float64.
    activation : {"Identity", "Relu", "Sigmoid", "Tanh"}
        Between layers, by ONNX's name.
    """

    weights: tuple[Float64, ...]
    biases: tuple[Float64, ...]
    activation: str = "Identity"


@dataclass(frozen=True)
class Fitted:
    """A trained model, apart from the library that trained it.

    Parameters
    ----------
    body : Trees or Dense
        What turns a row into scores: log-odds, softmax logits or the value.
    predict : Callable
        The library's own prediction of a float32 matrix: probabilities of every class, shape
        (n, classes), or values, shape (n, 1).
    rounds : tuple of Round
        Every iteration, in order.
    best_round : int
        The iteration kept, counted from 1.
    native : bytes
        The model in the library's own form.
    judged : numpy.ndarray or None
        What it says of the validation part, as `predict` gives it, where training knows it.
    is_cut : bool
        Whether it would have learned for longer.
    """

    body: Trees | Dense
    predict: Callable[[Float32], Float64]
    rounds: tuple[Round, ...]
    best_round: int
    native: bytes
    judged: Float64 | None = None
    is_cut: bool = False


class Trainer(Protocol):
    """What every module of this package has."""

    def fit(
        self,
        task: Task,
        training: Part,
        validation: Part,
        options: Mapping[str, Any],
        seed: int,
        deadline: float = math.inf,
    ) -> Fitted:
        """Learn from `training`; stop by `validation`, which nothing is learned from.

        The iteration that passes the deadline, of the monotonic clock, is the last.
        """

    def version(self) -> str:
        """Return the library's name and version."""


MODULES = {
    "lightgbm": "ml.trainers.lightgbm_trees",
    "xgboost": "ml.trainers.xgboost_trees",
    "catboost": "ml.trainers.catboost_trees",
    "linear": "ml.trainers.linear",
    "neural": "ml.trainers.neural",
}
# Engines whose training is one step, which no deadline breaks off.
UNSTOPPABLE = ("linear",)
EXTRA = {"xgboost": "boosters", "catboost": "boosters"}


def trainer(engine: str) -> Trainer:
    """Return the trainer of an engine.

    Raises
    ------
    TrainingError
        If the engine's library is in an extra that is not installed.
    """
    try:
        module: Any = import_module(MODULES[engine])
    except ModuleNotFoundError as error:
        if engine not in EXTRA:
            raise
        raise TrainingError(
            f"engine {engine} is not installed: it comes with the extra {EXTRA[engine]}, "
            f"`pip install 'tapehouse[{EXTRA[engine]}]'`"
        ) from error
    found: Trainer = module
    return found


def class_probabilities(positive: Float64) -> Float64:
    """Return the probabilities of both classes, shape (n, 2), from that of the second."""
    return np.column_stack([1 - positive, positive])
