"""How much a row counts in training."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ml.options import Options
from ml.rows import Rows
from ml.settings import Settings
from ml.trainers import Float64, Task, TrainingError

Times = npt.NDArray[np.int64]


def uniqueness(start: Times, end: Times, series: npt.NDArray[np.int64]) -> Float64:
    """Return the average uniqueness of overlapping labels.

    At each moment a label counts one over the number of labels of its series that span the
    moment; its uniqueness is the mean of that over its own span.

    Parameters
    ----------
    start, end : numpy.ndarray
        Shape (n,), in any unit: a label looks at ``(start, end]``.
    series : numpy.ndarray
        Shape (n,): labels of one series overlap each other only.

    Returns
    -------
    numpy.ndarray
        Shape (n,), above 0, at most 1; 1 for a label without a span.

    References
    ----------
    M. López de Prado, Advances in Financial Machine Learning (2018), 4.3 and 4.4.
    """
    unique = np.ones(len(start))
    for number in np.unique(series):
        rows = np.flatnonzero(series == number)
        begins, ends = start[rows], end[rows]
        moments = np.unique(np.concatenate([begins, ends]))
        starting = np.bincount(np.searchsorted(moments, begins), minlength=len(moments))
        ending = np.bincount(np.searchsorted(moments, ends), minlength=len(moments))
        concurrent = np.cumsum(starting - ending)[:-1]
        lengths = np.diff(moments).astype(np.float64)
        shares = np.divide(lengths, concurrent, out=np.zeros_like(lengths), where=concurrent > 0)
        total = np.concatenate([[0.0], np.cumsum(shares)])
        spans = (ends - begins).astype(np.float64)
        own = total[np.searchsorted(moments, ends)] - total[np.searchsorted(moments, begins)]
        unique[rows] = np.divide(own, spans, out=np.ones_like(spans), where=spans > 0)
    return unique


def time_decay(end: Times, unique: Float64, oldest: float) -> Float64:
    """Return weights that fall linearly from 1 for the newest label to `oldest` for the oldest.

    Age is counted in uniqueness, so that crowded times do not age faster (same source, 4.7).
    """
    order = np.argsort(end, kind="stable")
    passed = np.empty(len(end))
    passed[order] = np.cumsum(unique[order])
    # Labels decided at the same time are as old as each other.
    last = np.searchsorted(end[order], end, side="right") - 1
    passed = passed[order][last]
    first = passed.min()
    span = passed.max() - first
    return oldest + (1 - oldest) * (passed - first) / span if span else np.ones(len(end))


def by_class(
    labels: Float64, task: Task, weights: Mapping[str, float] | str | None
) -> Float64 | None:
    """Return the weight of each row by its class.

    Parameters
    ----------
    labels : numpy.ndarray
        Shape (n,): numbers of the classes.
    task : Task
        Names them.
    weights : Mapping, "balanced" or None
        'balanced' is n / (number of classes · rows of the class); a class that a mapping does
        not name counts 1.

    Raises
    ------
    TrainingError
        If the mapping names a class that is not there.
    """
    if weights is None:
        return None
    numbers = labels.astype(np.int64)
    if isinstance(weights, str):
        counts = np.bincount(numbers, minlength=len(task.classes))
        return np.asarray((len(labels) / (len(task.classes) * np.maximum(counts, 1)))[numbers])
    unknown = sorted(set(weights) - set(task.classes))
    if unknown:
        raise TrainingError(
            f"class_weights names {', '.join(unknown)}; the classes are {', '.join(task.classes)}"
        )
    return np.array([weights.get(name, 1.0) for name in task.classes])[numbers]


def of_rows(rows: Rows, task: Task, parsed: Options, settings: Settings) -> Float64 | None:
    """Return the weight of each training row, mean 1; None where all count alike."""
    factors = [by_class(rows.labels, task, parsed.class_weights)]
    if settings.weighs_by_time:
        unique = uniqueness(rows.start, rows.end, rows.series)
        if settings.weight_by_uniqueness:
            factors.append(unique)
        if settings.time_decay != 1:
            factors.append(time_decay(rows.end, unique, settings.time_decay))
    known = [factor for factor in factors if factor is not None]
    if not known:
        return None
    product = np.prod(known, axis=0)
    return np.asarray(product / product.mean())
