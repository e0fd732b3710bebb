"""What the verbs say of a version beside its training: features, attributions, calibration."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np

from ml import calibration
from ml.data import Data
from ml.explanation import Explainer
from ml.rows import in_threads
from ml.trainers import Float32, Float64

Figures = list[float | int | None]

# Rows of the validation part whose attributions make the global ones.
EXPLAINED_ROWS = 2_000
SAMPLED_VALUES = 10_000


@dataclass(frozen=True)
class Told:
    """What training leaves behind of its rows, which are not kept.

    Parameters
    ----------
    statistics : list of list
        Of the features of the training part, from `statistics`.
    rows : numpy.ndarray
        Shape (m, k), float32: some rows of the validation part.
    labels : numpy.ndarray
        Shape (n,), float64: of the validation part.
    predicted : numpy.ndarray
        Shape (n, outputs): the probabilities of every class, or values, of the validation part.
    """

    statistics: list[Figures]
    rows: Float32
    labels: Float64
    predicted: Float64


def register(
    connection: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    data: Data,
    told: Told,
    explain: Explainer,
) -> None:
    """Write ``registry.feature_info``, ``global_explanations`` and ``calibration`` of a version.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    key : tuple of str
        Model name and version.
    data : Data
        What was learned from.
    told : Told
        Of both parts.
    explain : Explainer
        The model's, of `ml.explanation.explainer`.
    """
    connection.executemany(
        "insert into registry.feature_info values (?, ?, ?, ?, ?, ?, ?, ?, null, ?, null)",
        [
            [*key, feature, *figures]
            for feature, figures in zip(data.features, told.statistics, strict=True)
        ],
    )
    with ThreadPoolExecutor(1) as beside:
        explained = beside.submit(explain, told.rows[:EXPLAINED_ROWS])
        if data.task.kind == "binary":
            connection.executemany(
                "insert into registry.calibration values (?, ?, ?, ?, ?)",
                [[*key, *knot] for knot in calibration.fit(told.predicted[:, 1], told.labels)],
            )
        found = np.abs(explained.result()).mean(axis=0)
    # Of two classes one score tells them apart: a feature counts as much for both.
    names = data.task.classes or (None,)
    attributions = np.broadcast_to(found, (len(names), found.shape[1]))
    connection.executemany(
        "insert into registry.global_explanations values (?, ?, ?, ?, ?)",
        [
            [*key, name, feature, attribution]
            for name, row in zip(names, attributions.tolist(), strict=True)
            for feature, attribution in zip(data.features, row[:-2], strict=True)
        ],
    )


def statistics(features: Float32) -> list[Figures]:
    """Return minimum, maximum, mean, median, standard deviation and missing values of columns.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, k), float32, columns contiguous; what is not finite is missing.

    Returns
    -------
    list of list
        Per column, in order; None where a figure is not defined.
    """

    def of(position: int) -> Figures:
        column = features[:, position]
        known = column[np.isfinite(column)]
        missing = len(column) - len(known)
        if not len(known):
            return [*[None] * 5, missing]
        deviation = float(known.std(dtype=np.float64, ddof=1)) if len(known) > 1 else None
        mean = float(known.mean(dtype=np.float64))
        return [float(known.min()), float(known.max()), mean, _median(known), deviation, missing]

    def fill(columns: range) -> None:
        for position in columns:
            found[position] = of(position)

    found: list[Figures] = [[] for _ in range(features.shape[1])]
    in_threads(fill, len(found))
    return found


def _median(values: Float32) -> float:
    """Return the exact median; of many values those near that of a sample decide alone."""
    middle = [(len(values) - 1) // 2, len(values) // 2]
    sample = np.sort(values[:: len(values) // SAMPLED_VALUES + 1])
    low, high = sample[int(0.47 * len(sample))], sample[int(0.53 * len(sample))]
    near = values[(values >= low) & (values <= high)]
    below = int(np.count_nonzero(values < low))
    if not below <= middle[0] <= middle[1] < below + len(near):
        near, below = values.copy(), 0
    middle = [position - below for position in middle]
    near.partition(middle)
    return float(near[middle].mean(dtype=np.float64))
