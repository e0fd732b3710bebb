"""BOOSTED_TREE by CatBoost, from the extra `boosters`."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import catboost
import numpy as np

from ml import trees
from ml.trainers import Fitted, Float32, Float64, Part, Round, Task, TrainingError

# BigQuery ML's options and what they are called in CatBoost.
NAMES = {
    "learn_rate": "learning_rate",
    "max_tree_depth": "depth",
    "subsample": "subsample",
    "colsample_bytree": "rsm",
    "l2_reg": "l2_leaf_reg",
}
OBJECTIVES = {
    "binary": ("Logloss", "Logloss"),
    "multiclass": ("MultiClass", "MultiClass"),
    "regression": ("RMSE", "RMSE"),
}
EARLY_STOP_ROUNDS = 30
# CatBoost's trees are symmetric: the depth is that of every leaf.
DEEPEST = 16


def version() -> str:
    """Return the library's name and version."""
    return f"catboost {catboost.__version__}"


class _Clock:
    """Ends the training when time is over."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.is_over = deadline, False

    def after_iteration(self, _: Any) -> bool:
        self.is_over = monotonic() >= self.deadline
        return not self.is_over


def fit(
    task: Task,
    training: Part,
    validation: Part,
    options: Mapping[str, Any],
    seed: int,
    deadline: float = math.inf,
) -> Fitted:
    """Learn boosted symmetric trees."""
    if options["max_tree_depth"] > DEEPEST:
        raise TrainingError(f"max_tree_depth is at most {DEEPEST} with catboost")
    objective, metric = OBJECTIVES[task.kind]
    parameters: dict[str, Any] = {name: options[option] for option, name in NAMES.items()}
    model = catboost.CatBoost(
        parameters
        | {
            "loss_function": objective,
            "eval_metric": metric,
            "iterations": options["max_iterations"],
            "bootstrap_type": "Bernoulli",
            "boosting_type": "Plain",
            "random_seed": seed,
            "thread_count": 1,
            "use_best_model": options["early_stop"],
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
        | ({"early_stopping_rounds": EARLY_STOP_ROUNDS} if options["early_stop"] else {})
    )
    train_set = catboost.Pool(training.matrix, training.labels, weight=training.weights)
    clock = _Clock(deadline)
    model.fit(
        train_set,
        eval_set=catboost.Pool(validation.matrix, validation.labels),
        callbacks=None if math.isinf(deadline) else [clock],
    )
    found = model.get_evals_result()
    power = 2 if task.kind == "regression" else 1
    rounds = tuple(
        Round(loss**power, eval_loss**power, 0)
        for loss, eval_loss in zip(found["learn"][metric], found["validation"][metric], strict=True)
    )
    kept = "RawFormulaVal" if task.kind == "regression" else "Probability"

    def predict(matrix: Float32) -> Float64:
        values = model.predict(matrix, prediction_type=kept, thread_count=1)
        return np.asarray(values, dtype=np.float64).reshape(len(matrix), -1)

    with tempfile.TemporaryDirectory() as folder:
        json_path, native_path = Path(folder) / "model.json", Path(folder) / "model.cbm"
        model.save_model(str(json_path), format="json")
        model.save_model(str(native_path))
        body = read(json.loads(json_path.read_text()), task.outputs)
        native = native_path.read_bytes()
    is_cut = clock.is_over and len(rounds) < options["max_iterations"]
    return Fitted(body, predict, rounds, model.tree_count_, native, is_cut=is_cut)


def read(model: Mapping[str, Any], outputs: int) -> trees.Trees:
    """Return the trees of CatBoost's JSON form; a tree of several outputs becomes several."""
    scale, bias = model["scale_and_bias"]
    base = np.broadcast_to(np.array(bias, dtype=np.float64).reshape(-1), outputs)
    missing = {
        feature["flat_feature_index"]: feature["nan_value_treatment"] != "AsTrue"
        for feature in model["features_info"]["float_features"]
    }
    flat = {
        feature["feature_index"]: feature["flat_feature_index"]
        for feature in model["features_info"]["float_features"]
    }
    parts: list[trees.Trees] = []
    for tree in model["oblivious_trees"]:
        leaves = np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, outputs) * scale
        covers = np.array(tree["leaf_weights"], dtype=np.float64)
        splits = [
            (flat[split["float_feature_index"]], np.float32(split["border"]))
            for split in tree["splits"] or []
        ]
        parts += [
            _tree(splits, leaves[:, output], covers, missing, len(parts) + output, output, outputs)
            for output in range(outputs)
        ]
    return trees.with_exact_sums(trees.concatenate(parts, base))


def _tree(
    splits: list[tuple[int, np.float32]],
    leaves: Float64,
    covers: Float64,
    missing: Mapping[int, bool],
    number: int,
    output: int,
    outputs: int,
) -> trees.Trees:
    """Lay a symmetric tree out as a heap: below node i lie 2i + 1 and 2i + 2."""
    depth = len(splits)
    inner = 2**depth - 1
    nodes = inner + len(leaves)
    node = np.arange(nodes)
    level = np.floor(np.log2(node + 1)).astype(np.int64)[:inner]
    # The last split stands at the root; split i gives bit i of the leaf's number where it is above.
    split = depth - 1 - level
    feature = np.array([splits[index][0] for index in split], dtype=np.int64)
    border = np.array([splits[index][1] for index in split], dtype=np.float32)
    cover = np.concatenate([np.zeros(inner), covers])
    for parent in range(inner - 1, -1, -1):
        cover[parent] = cover[2 * parent + 1] + cover[2 * parent + 2]
    is_leaf = node >= inner
    return trees.Trees(
        tree=np.full(nodes, number),
        node=node,
        feature=np.concatenate([feature, np.full(len(leaves), trees.LEAF)]),
        threshold=np.concatenate([border, np.zeros(len(leaves), dtype=np.float32)]),
        is_missing_true=np.concatenate(
            [
                np.array([missing[index] for index in feature], dtype=bool),
                np.zeros(len(leaves), dtype=bool),
            ]
        ),
        true_node=np.where(is_leaf, 0, 2 * node + 1),
        false_node=np.where(is_leaf, 0, 2 * node + 2),
        output=np.full(nodes, output),
        value=np.concatenate([np.zeros(inner), leaves]),
        gain=np.zeros(nodes),
        cover=np.where(is_leaf, 0, cover),
        base=np.zeros(outputs),
    )
