"""Trees over features decide as the trees over the columns that a transform makes of them."""

import numpy as np
import numpy.typing as npt
import pytest

from ml import composition, transform
from ml.trees import LEAF, Trees

Float32 = npt.NDArray[np.float32]
FEATURES = ["a", "b", "c"]
CALLS = [
    *("ML.STANDARD_SCALER", "ML.MIN_MAX_SCALER", "ML.MAX_ABS_SCALER", "ML.ROBUST_SCALER"),
    *("ML.IMPUTER('mean')", "ML.IMPUTER('median')", "ML.ONE_HOT_ENCODER"),
    *("ML.BUCKETIZE(-0.5, 0.25, 1)", "ML.QUANTILE_BUCKETIZE(5)"),
]
DEPTH, TREES = 4, 60


def random_trees(generator: np.random.Generator, matrix: Float32) -> Trees:
    """Return trees whose thresholds are values of their columns, or beyond all of them."""
    inner, nodes = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    node = np.tile(np.arange(nodes), TREES)
    is_leaf = node >= inner
    feature = np.where(is_leaf, LEAF, generator.integers(0, matrix.shape[1], len(node)))
    drawn = matrix[generator.integers(0, len(matrix), len(node)), feature]
    beyond = generator.choice(np.array([-9, -0.5, 0.5, 9], dtype=np.float32), len(node))
    is_beyond = np.isnan(drawn) | (generator.random(len(node)) < 0.2)
    return Trees(
        tree=np.repeat(np.arange(TREES), nodes),
        node=node,
        feature=feature,
        threshold=np.where(is_beyond, beyond, drawn),
        is_missing_true=generator.random(len(node)) < 0.5,
        true_node=np.where(is_leaf, 0, 2 * node + 1),
        false_node=np.where(is_leaf, 0, 2 * node + 2),
        output=np.zeros(len(node), dtype=np.int64),
        value=np.where(is_leaf, generator.normal(size=len(node)), 0.0),
        gain=np.zeros(len(node)),
        cover=np.zeros(len(node)),
        base=np.zeros(1),
    )


def leaves(trees: Trees, matrix: Float32) -> npt.NDArray[np.float64]:
    """Walk row by row: the value of the leaf that each row reaches in each tree."""
    place = {key: row for row, key in enumerate(zip(trees.tree, trees.node, strict=True))}
    found = np.empty((len(matrix), TREES))
    for number in range(len(matrix)):
        for tree in range(TREES):
            row = place[tree, 0]
            while trees.feature[row] != LEAF:
                value = matrix[number, trees.feature[row]]
                is_true = value <= trees.threshold[row]
                if np.isnan(value):
                    is_true = trees.is_missing_true[row]
                row = place[tree, (trees.true_node if is_true else trees.false_node)[row]]
            found[number, tree] = trees.value[row]
    return found


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_every_row_reaches_the_leaf_that_it_reached_after_the_transform(
    call: str, standardize: bool
) -> None:
    generator = np.random.default_rng(CALLS.index(call))
    features = generator.normal(size=(2_000, 3)).astype(np.float32)
    features[:, 0] = np.round(2 * features[:, 0])
    features[generator.random(features.shape) < 0.1] = np.nan
    calls = {"a": call, "b": call if "ONE_HOT" not in call else "ML.MIN_MAX_SCALER"}
    made = transform.fit(features, FEATURES, calls, standardize=standardize)
    assert made is not None
    trees = random_trees(generator, transform.apply(made.onnx, features))
    composed = composition.over_features(trees, made.columns)
    rows = np.empty((200, 3), dtype=np.float32)
    for position in range(3):
        own = composed.threshold[(composed.feature == position) & (abs(composed.threshold) < 1e38)]
        beside = [np.nextafter(own, np.float32(end)) for end in (-np.inf, np.inf)]
        edges = np.concatenate([own, *beside, features[:50, position], [np.inf, -np.inf, -0.0]])
        rows[:, position] = np.where(
            generator.random(200) < 0.2, np.nan, generator.choice(edges, 200)
        )
    expected = leaves(trees, transform.apply(made.onnx, rows))
    assert np.array_equal(leaves(composed, rows), expected)
