"""Trees over transformed columns as trees over the features themselves, with equal decisions.

A TRANSFORM turns one feature into each of its columns: it scales it, which keeps the order of
values, or it says whether the feature lies in an interval. A split of a scaled column is a split
of the feature at another value; one of a flag is two splits, at the ends of the interval.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ml.trees import Trees, concatenate

Float32 = npt.NDArray[np.float32]
INFINITY = np.float32(np.inf)


@dataclass(frozen=True)
class Scaled:
    """A column cut((x - center) / scale), or `fill` where that is missing; all float64.

    Parameters
    ----------
    position : int
        The feature, counted from 0.
    center, scale, low, high, fill : float
        The scale is above 0; `fill` may be NaN.
    """

    position: int
    center: float = 0
    scale: float = 1
    low: float = -np.inf
    high: float = np.inf
    fill: float = np.nan

    def of(self, values: Float32) -> Float32:
        """Return the column, as the ONNX graph computes it."""
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (values.astype(np.float64) - self.center) / self.scale
            cut = np.minimum(np.maximum(scaled, self.low), self.high)
            return np.where(np.isnan(scaled), self.fill, cut).astype(np.float32)


@dataclass(frozen=True)
class Flag:
    """A column that is 1 where at_least <= x < below, else 0, where x is missing too."""

    position: int
    at_least: float
    below: float


Column = Scaled | Flag


def over_features(trees: Trees, columns: tuple[Column, ...]) -> Trees:
    """Return trees over features that decide as `trees` do over the columns made of them.

    Parameters
    ----------
    trees : Trees
        Over the columns of a transform.
    columns : tuple of Column
        What each column is.
    """
    thresholds = trees.threshold.copy()
    missing = trees.is_missing_true.copy()
    true_node, false_node = trees.true_node.copy(), trees.false_node.copy()
    feature = trees.feature.copy()
    added: list[Trees] = []
    following = np.bincount(trees.tree)
    for number in np.unique(trees.feature[~trees.is_leaf]):
        column, rows = columns[number], np.flatnonzero(trees.feature == number)
        feature[rows] = column.position
        if isinstance(column, Scaled):
            thresholds[rows], is_above = _last_below(column, trees.threshold[rows])
            filled = column.of(np.array([np.nan], dtype=np.float32))[0]
            if not np.isnan(filled):
                missing[rows] = filled <= trees.threshold[rows]
            # No value goes to the true node: all known values go to what was the false one.
            turned = rows[is_above]
            true_node[turned], false_node[turned] = false_node[turned], true_node[turned]
            missing[turned] = ~missing[turned]
            thresholds[turned] = INFINITY
            continue
        for row in rows:
            zero, one = (
                int(true_node[row] if value <= trees.threshold[row] else false_node[row])
                for value in (0, 1)
            )
            # Above the interval, or missing: 0. Else the added node tells below it from within.
            thresholds[row] = _before(column.below)
            false_node[row], missing[row] = zero, False
            if column.at_least == -np.inf:
                true_node[row] = one
                continue
            true_node[row] = following[trees.tree[row]]
            following[trees.tree[row]] += 1
            added.append(_split(trees, int(row), int(true_node[row]), column, zero, one))
    whole = replace(
        trees,
        feature=feature,
        threshold=thresholds,
        is_missing_true=missing,
        true_node=true_node,
        false_node=false_node,
    )
    return concatenate([whole, *added], trees.base)


def _split(trees: Trees, row: int, node: int, column: Flag, zero: int, one: int) -> Trees:
    """Return a node that sends values before an interval to `zero`, others to `one`."""
    same = {
        name: getattr(trees, name)[[row]] for name in Trees.__dataclass_fields__ if name != "base"
    }
    return Trees(
        **same
        | {
            "node": np.array([node]),
            "feature": np.array([column.position]),
            "threshold": np.array([_before(column.at_least)]),
            "is_missing_true": np.array([True]),
            "true_node": np.array([zero]),
            "false_node": np.array([one]),
        },
        base=trees.base,
    )


def _before(value: float) -> np.float32:
    """Return the largest float32 below a number."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    return np.nextafter(nearest, -INFINITY) if float(nearest) >= value else nearest


def _last_below(column: Scaled, thresholds: Float32) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Return the largest feature whose column is at most each threshold, and where there is none.

    Bisection over the 2**32 float32 in their order: the column never falls as the feature rises.
    """
    low = np.full(len(thresholds), _order(-INFINITY))
    high = np.full(len(thresholds), _order(INFINITY))
    is_above = ~(column.of(_float(low)) <= thresholds)
    while (low < high).any():
        middle = low + (high - low + 1) // 2
        is_below = column.of(_float(middle)) <= thresholds
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle - 1)
    return _float(low), is_above


def _order(value: np.float32) -> int:
    """Return the place of a float32 among all, 0 of zero."""
    bits = int(np.array(value, dtype=np.float32).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float(order: npt.NDArray[np.int64]) -> Float32:
    magnitude = np.abs(order).astype(np.int32).view(np.float32)
    return np.where(order < 0, -magnitude, magnitude)
