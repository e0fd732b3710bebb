"""Trees of any library in one form: what is exported, stored as rows and scored in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

LEAF = -1
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees, one after the other; each tree's root is its node 0.

    Parameters
    ----------
    tree, node : numpy.ndarray
        Number of the tree, and of the node within it.
    feature : numpy.ndarray
        Column of the matrix, counted from 0; `LEAF` of a leaf.
    threshold : numpy.ndarray
        float32; a row goes to `true_node` where its value is not above it.
    is_missing_true : numpy.ndarray
        Whether a row with a missing value goes to `true_node`.
    true_node, false_node : numpy.ndarray
        Numbers within the tree; 0 of a leaf.
    output : numpy.ndarray
        The score that the tree adds to.
    value : numpy.ndarray
        What a leaf adds; 0 of other nodes.
    gain, cover : numpy.ndarray
        What a split brought, and the rows (or their weight) that came to it; 0 of a leaf.
    base : numpy.ndarray
        Where each score starts.
    """

    tree: Integers
    node: Integers
    feature: Integers
    threshold: npt.NDArray[np.float32]
    is_missing_true: npt.NDArray[np.bool_]
    true_node: Integers
    false_node: Integers
    output: Integers
    value: Float64
    gain: Float64
    cover: Float64
    base: Float64

    @property
    def is_leaf(self) -> npt.NDArray[np.bool_]:
        """Whether a node is a leaf."""
        return np.asarray(self.feature == LEAF)


def concatenate(parts: Sequence[Trees], base: Float64) -> Trees:
    """Return the trees of all parts, which number their trees already."""
    names = [name for name in Trees.__dataclass_fields__ if name != "base"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Trees(**columns, base=base)


def with_exact_sums(trees: Trees) -> Trees:
    """Round leaf values to digits that a double keeps in every sum of them, in any order.

    The largest possible score fits 2**e; values become multiples of 2**(e - 52). ONNX Runtime on
    any number of threads and SQL in any order of rows then give the same score to the last bit;
    it differs from the library's by about 1e-16 of the largest possible score.
    """
    largest = np.zeros(trees.tree.max() + 1)
    np.maximum.at(largest, trees.tree, np.abs(trees.value))
    bound = largest.sum() + np.abs(trees.base).max()
    if bound == 0:
        return trees
    step = 2.0 ** (np.ceil(np.log2(bound)) - 52)
    return replace(
        trees,
        value=np.rint(trees.value / step) * step,
        base=np.rint(trees.base / step) * step,
    )


def importance(trees: Trees, columns: int) -> list[tuple[int, float, float]]:
    """Return XGBoost's weight (splits), mean gain and mean cover of each column."""
    inner = ~trees.is_leaf
    splits = np.bincount(trees.feature[inner], minlength=columns)
    gain = np.bincount(trees.feature[inner], trees.gain[inner], minlength=columns)
    cover = np.bincount(trees.feature[inner], trees.cover[inner], minlength=columns)
    counted = np.maximum(splits, 1)
    return list(
        zip(splits.tolist(), (gain / counted).tolist(), (cover / counted).tolist(), strict=True)
    )


def edges(trees: Trees) -> npt.NDArray[np.float32]:
    """Return the values at which decisions change: thresholds, their neighbours above, 0, NaN."""
    thresholds = np.unique(trees.threshold[~trees.is_leaf])
    above = np.nextafter(thresholds, np.float32(np.inf))
    return np.concatenate([thresholds, above, np.array([0, np.nan], dtype=np.float32)])
