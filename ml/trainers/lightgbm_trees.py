"""BOOSTED_TREE and RANDOM_FOREST by LightGBM."""

import math
import os
from collections.abc import Callable, Mapping
from time import monotonic, perf_counter
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow

from ml import trees
from ml.trainers import Fitted, Float32, Float64, Part, Round, Task, class_probabilities

# BigQuery ML's options and what they are called in LightGBM.
NAMES = {
    "learn_rate": "learning_rate",
    "max_tree_depth": "max_depth",
    "min_tree_child_weight": "min_sum_hessian_in_leaf",
    "min_split_loss": "min_gain_to_split",
    "subsample": "bagging_fraction",
    "colsample_bytree": "feature_fraction",
    "colsample_bynode": "feature_fraction_bynode",
    "l1_reg": "lambda_l1",
    "l2_reg": "lambda_l2",
}
BOOSTERS = {"GBTREE": "gbdt", "DART": "dart"}
OBJECTIVES = {
    "binary": ("binary", "binary_logloss"),
    "multiclass": ("multiclass", "multi_logloss"),
    "regression": ("regression", "l2"),
}
# A model stops where this many rounds in a row brought nothing on the validation part.
EARLY_STOP_ROUNDS = 30
# The loss of training is told after every round, which takes a twentieth of the time of 4 million
# rows. Of more rows than these it is the loss of the first, which lie in no order.
LOSS_ROWS = 500_000
# Threads wait for each other after every split, spinning: 26,000 rows of 80 features, 100 rounds,
# take 1.1 s on one thread and 40 s on four of a machine that is busy. The model is the same.
VALUES_PER_THREAD = 4_000_000
# LightGBM takes values this near to zero for zero.
ZERO_THRESHOLD = np.float32(1e-35)
DEFAULT_LEFT = 2
MISSING_TYPES = 12


class _Clock:
    """Notes when each round ended, and ends the training when time is over."""

    def __init__(self, deadline: float) -> None:
        # Its place among LightGBM's own: the losses are noted (20), nothing has stopped yet (30).
        self.order = 25
        self.at = [perf_counter()]
        self.deadline, self.is_over = deadline, False

    def __call__(self, state: lightgbm.callback.CallbackEnv) -> None:
        self.at.append(perf_counter())
        self.is_over = monotonic() >= self.deadline
        if self.is_over:
            raise lightgbm.callback.EarlyStopException(state.iteration, [])


def version() -> str:
    """Return the library's name and version."""
    return f"lightgbm {lightgbm.__version__}"


def fit(
    task: Task,
    training: Part,
    validation: Part,
    options: Mapping[str, Any],
    seed: int,
    deadline: float = math.inf,
) -> Fitted:
    """Learn boosted trees, or a random forest where the options name its number of trees."""
    is_forest = "num_parallel_tree" in options
    stops_early = not is_forest and options["early_stop"] and options["booster_type"] != "DART"
    metric = OBJECTIVES[task.kind][1]
    settings = parameters(task, training, options, seed)
    train_set = dataset(training, settings)
    validation_set = dataset(validation, settings, train_set)
    told = train_set
    if len(training.labels) > LOSS_ROWS:
        told = train_set.construct().subset(list(range(LOSS_ROWS)))
    losses: dict[str, dict[str, list[float]]] = {}
    clock = _Clock(deadline)
    callbacks: list[Callable[..., Any]] = [lightgbm.record_evaluation(losses), clock]
    if stops_early:
        minimum = options["min_rel_progress"] * _loss_of_nothing(task, training.labels)
        callbacks.append(
            lightgbm.early_stopping(EARLY_STOP_ROUNDS, min_delta=minimum, verbose=False)
        )
    wanted = options["num_parallel_tree" if is_forest else "max_iterations"]
    booster = lightgbm.train(
        settings,
        train_set,
        num_boost_round=wanted,
        valid_sets=[told, validation_set],
        valid_names=["train", "validation"],
        callbacks=callbacks,
        keep_training_booster=True,
    )
    rounds = tuple(
        Round(loss, eval_loss, round(1000 * seconds))
        for loss, eval_loss, seconds in zip(
            losses["train"][metric],
            losses["validation"][metric],
            np.diff(clock.at),
            strict=True,
        )
    )
    is_cut = clock.is_over and len(rounds) < wanted
    best = booster.best_iteration if booster.best_iteration > 0 else len(rounds)
    if is_cut and stops_early:
        best = 1 + int(np.argmin(losses["validation"][metric]))
    judged = None
    if best == len(rounds) and settings["boosting"] == "gbdt":
        judged = _probabilities(task, _scores_of_validation(booster))
    text = booster.model_to_string(num_iteration=best)
    # What was learned from is given back; the model is a copy.
    booster = lightgbm.Booster(model_str=text)

    def predict(matrix: Float32) -> Float64:
        return _probabilities(task, booster.predict(matrix, num_threads=_threads(matrix)))

    return Fitted(read(text), predict, rounds, best, text.encode(), judged, is_cut)


def dataset(
    part: Part, settings: Mapping[str, Any], reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    """Return rows as LightGBM takes them.

    Contiguous columns go in as Arrow's, without a copy: LightGBM fills its bins a fifth faster
    than from NumPy's matrix of columns, and they are the same bins.
    """
    matrix: Any = part.matrix
    if matrix.flags.f_contiguous and matrix.shape[1] > 1:
        columns = [pyarrow.array(matrix[:, position]) for position in range(matrix.shape[1])]
        names = [f"Column_{position}" for position in range(len(columns))]
        matrix = pyarrow.Table.from_arrays(columns, names)
    return lightgbm.Dataset(
        matrix, part.labels, weight=part.weights, reference=reference, params=dict(settings)
    )


def _scores_of_validation(booster: lightgbm.Booster) -> Float64:
    """Return what the last iteration left of the validation part, which is not predicted anew."""
    found: list[Float64] = []

    def keep(scores: Float64, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        found.append(np.array(scores))
        return "kept", 0.0, True

    booster.eval_valid(keep)
    return found[-1]


def _probabilities(task: Task, found: Any) -> Float64:
    values = np.asarray(found)
    return class_probabilities(values) if task.kind == "binary" else values.reshape(len(values), -1)


def parameters(task: Task, training: Part, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return what LightGBM is told."""
    is_forest = "num_parallel_tree" in options
    depth = options["max_tree_depth"]
    objective, metric = OBJECTIVES[task.kind]
    named = {name: options[option] for option, name in NAMES.items() if option in options}
    return (
        named
        | {
            "boosting": "rf" if is_forest else BOOSTERS[options["booster_type"]],
            # XGBoost's bagging draws before every tree; its trees are bounded by their depth alone.
            "bagging_freq": 1,
            "num_leaves": min(2**depth, 1024),
            "num_threads": _threads(training.matrix),
            "objective": objective,
            "metric": metric,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        | ({"num_class": task.outputs} if task.kind == "multiclass" else {})
    )


def _threads(matrix: Float32) -> int:
    return min(matrix.size // VALUES_PER_THREAD + 1, os.cpu_count() or 1)


def _loss_of_nothing(task: Task, labels: Float64) -> float:
    """Return the loss to which progress is relative: of a fair draw, or of the mean."""
    return float(np.log(len(task.classes)) if task.classes else np.var(labels))


def read(text: str) -> trees.Trees:
    """Return the trees of LightGBM's text form; on float32 every decision is LightGBM's own."""
    head, *blocks = text.split("end of trees")[0].split("\nTree=")
    fields = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    outputs = int(fields["num_tree_per_iteration"])
    share = len(blocks) / outputs if "\naverage_output\n" in head + "\n" else 1
    parts = [_tree(block, number, outputs, share) for number, block in enumerate(blocks)]
    return trees.with_exact_sums(trees.concatenate(parts, np.zeros(outputs)))


def _tree(block: str, number: int, outputs: int, share: float) -> trees.Trees:
    fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array(fields.get(name, "").split(), dtype=np.float64)

    leaves = int(fields["num_leaves"])
    values = column("leaf_value")[:leaves] / share
    inner = leaves - 1
    nodes = inner + leaves
    thresholds = _round_down(column("threshold"))[:inner]
    decisions = column("decision_type").astype(np.int64)[:inner]
    # Where training had no missing value, LightGBM takes NaN for zero.
    missing_left = np.where(
        decisions & MISSING_TYPES, (decisions & DEFAULT_LEFT) > 0, thresholds >= 0
    )

    def inner_only(column: npt.NDArray[Any], of_leaf: Any) -> npt.NDArray[Any]:
        return np.concatenate([column[:inner], np.full(leaves, of_leaf, dtype=column.dtype)])

    def child(name: str) -> npt.NDArray[np.int64]:
        found = column(name).astype(np.int64)
        return inner_only(np.where(found >= 0, found, inner + ~found), 0)

    return trees.Trees(
        tree=np.full(nodes, number),
        node=np.arange(nodes),
        feature=inner_only(column("split_feature").astype(np.int64), trees.LEAF),
        threshold=inner_only(thresholds, 0),
        is_missing_true=inner_only(missing_left, False),
        true_node=child("left_child"),
        false_node=child("right_child"),
        output=np.full(nodes, number % outputs),
        value=np.concatenate([np.zeros(inner), values]),
        gain=inner_only(column("split_gain"), 0),
        cover=inner_only(column("internal_count"), 0),
        base=np.zeros(outputs),
    )


def _round_down(values: npt.NDArray[np.float64]) -> Float32:
    """Return the largest float32 not above each value, so that no float32 changes its side."""
    nearest = values.astype(np.float32)
    return np.where(
        (nearest > values) | (nearest == -ZERO_THRESHOLD),
        np.nextafter(nearest, np.float32(-np.inf)),
        nearest,
    )
