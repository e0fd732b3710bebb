"""Losses and metrics of a task, by BigQuery ML's names."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn import metrics

if TYPE_CHECKING:
    from ml.trainers import Float64, Task

# Whether more is better, of what a search may go by.
IS_BETTER_HIGHER = {
    "LOG_LOSS": False,
    "ROC_AUC": True,
    "ACCURACY": True,
    "PRECISION": True,
    "RECALL": True,
    "F1_SCORE": True,
    "MEAN_SQUARED_ERROR": False,
    "MEAN_ABSOLUTE_ERROR": False,
    "MEDIAN_ABSOLUTE_ERROR": False,
    "R2_SCORE": True,
    "EXPLAINED_VARIANCE": True,
}
CLASSIFICATION = ("LOG_LOSS", "ROC_AUC", "ACCURACY", "PRECISION", "RECALL", "F1_SCORE")
REGRESSION = tuple(name for name in IS_BETTER_HIGHER if name not in CLASSIFICATION)


def loss(task: "Task", labels: "Float64", predicted: "Float64") -> float:
    """Return the log loss in nats, or the mean squared error of a regression.

    Parameters
    ----------
    task : ml.trainers.Task
        What was learned.
    labels : numpy.ndarray
        Shape (n,): numbers of the classes, or values.
    predicted : numpy.ndarray
        Shape (n, classes): probabilities; or (n, 1): values.
    """
    if task.kind == "regression":
        return float(np.mean((labels - predicted[:, 0]) ** 2))
    chosen = predicted[np.arange(len(labels)), labels.astype(np.int64)]
    return float(-np.log(np.maximum(chosen, 1e-15)).mean())


def evaluate(task: "Task", labels: "Float64", predicted: "Float64") -> dict[str, float | None]:
    """Return the metrics of ML.EVALUATE; those of several classes are means over classes.

    Parameters are those of `loss`. A metric that the rows do not define, as the area under the
    curve of one class, is None.
    """
    if task.kind == "regression":
        return _regression(labels, predicted[:, 0])
    count = len(task.classes)
    found = predicted.argmax(axis=1) if task.kind == "multiclass" else predicted[:, 1] > 0.5
    pairs = np.bincount(labels.astype(np.int64) * count + found, minlength=count**2)
    confusion = pairs.reshape(count, count)
    true, said, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    # Of two classes the second is asked for, of more all that are there.
    judged = true + said > 0 if task.kind == "multiclass" else [1]
    precision = (right / np.maximum(said, 1))[judged]
    recall = (right / np.maximum(true, 1))[judged]
    return {
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "accuracy": float(right.sum() / len(labels)),
        "f1_score": float((2 * right / np.maximum(true + said, 1))[judged].mean()),
        "log_loss": loss(task, labels, predicted),
        "roc_auc": _roc_auc(labels, predicted),
    }


def _roc_auc(labels: "Float64", predicted: "Float64") -> float | None:
    """Return the mean over classes of each against the rest."""
    present = np.unique(labels.astype(np.int64))
    if len(present) < 2:
        return None
    judged = [1] if predicted.shape[1] == 2 else present.tolist()
    areas = [_area(predicted[:, number], labels == number) for number in judged]
    return float(np.mean(areas))


def _area(scores: "Float64", is_true: npt.NDArray[np.bool_]) -> float:
    """Return how often a true row has the higher score of it and another; half where equal."""
    true, others = np.sort(scores[is_true]), np.sort(scores[~is_true])
    below, not_above = np.searchsorted(others, true), np.searchsorted(others, true, "right")
    return float((below.sum() + not_above.sum()) / (2 * len(true) * len(others)))


def _regression(labels: "Float64", values: "Float64") -> dict[str, float | None]:
    is_defined = len(labels) > 1 and float(np.var(labels)) > 0
    return {
        "mean_absolute_error": float(np.mean(np.abs(labels - values))),
        "mean_squared_error": float(np.mean((labels - values) ** 2)),
        "median_absolute_error": float(np.median(np.abs(labels - values))),
        "r2_score": float(metrics.r2_score(labels, values)) if is_defined else None,
        "explained_variance": (
            float(metrics.explained_variance_score(labels, values)) if is_defined else None
        ),
    }
