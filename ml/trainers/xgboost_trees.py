"""BOOSTED_TREE by XGBoost, from the extra `boosters`."""

import json
import math
from collections.abc import Mapping
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from ml import trees
from ml.trainers import Fitted, Float32, Float64, Part, Round, Task, class_probabilities

# BigQuery ML's options and what they are called in XGBoost.
NAMES = {
    "learn_rate": "learning_rate",
    "max_tree_depth": "max_depth",
    "min_tree_child_weight": "min_child_weight",
    "min_split_loss": "gamma",
    "subsample": "subsample",
    "colsample_bytree": "colsample_bytree",
    "colsample_bynode": "colsample_bynode",
    "l1_reg": "reg_alpha",
    "l2_reg": "reg_lambda",
}
OBJECTIVES = {
    "binary": ("binary:logistic", "logloss"),
    "multiclass": ("multi:softprob", "mlogloss"),
    "regression": ("reg:squarederror", "rmse"),
}
EARLY_STOP_ROUNDS = 30


def version() -> str:
    """Return the library's name and version."""
    return f"xgboost {xgboost.__version__}"


class _Clock(xgboost.callback.TrainingCallback):
    """Notes when each round ended."""

    def __init__(self) -> None:
        self.at = [perf_counter()]

    def after_iteration(self, *_: Any) -> bool:
        self.at.append(perf_counter())
        return False


class _Deadline(xgboost.callback.TrainingCallback):
    """Ends the training when time is over; the last to be called, for the first that ends it is."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.is_over = deadline, False

    def after_iteration(self, *_: Any) -> bool:
        self.is_over = monotonic() >= self.deadline
        return self.is_over


def fit(
    task: Task,
    training: Part,
    validation: Part,
    options: Mapping[str, Any],
    seed: int,
    deadline: float = math.inf,
) -> Fitted:
    """Learn boosted trees."""
    objective, metric = OBJECTIVES[task.kind]
    parameters = {name: options[option] for option, name in NAMES.items()} | {
        "booster": options["booster_type"].lower(),
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    if task.kind == "multiclass":
        parameters["num_class"] = task.outputs
    train_set = xgboost.DMatrix(training.matrix, training.labels, weight=training.weights)
    validation_set = xgboost.DMatrix(validation.matrix, validation.labels)
    losses: dict[str, dict[str, list[float]]] = {}
    clock, end = _Clock(), _Deadline(deadline)
    callbacks: list[Any] = [clock]
    if options["early_stop"]:
        nothing = np.log(len(task.classes)) if task.classes else np.std(training.labels)
        callbacks.append(
            xgboost.callback.EarlyStopping(
                rounds=EARLY_STOP_ROUNDS,
                data_name="validation",
                min_delta=float(options["min_rel_progress"] * nothing),
            )
        )
    booster = xgboost.train(
        parameters,
        train_set,
        num_boost_round=options["max_iterations"],
        evals=[(train_set, "train"), (validation_set, "validation")],
        evals_result=losses,
        callbacks=[*callbacks, end],
        verbose_eval=False,
    )
    power = 2 if task.kind == "regression" else 1
    rounds = tuple(
        Round(loss**power, eval_loss**power, round(1000 * seconds))
        for loss, eval_loss, seconds in zip(
            losses["train"][metric], losses["validation"][metric], np.diff(clock.at), strict=True
        )
    )
    best = booster.best_iteration + 1 if options["early_stop"] else len(rounds)
    kept = booster[:best]

    def predict(matrix: Float32) -> Float64:
        found = np.asarray(kept.predict(xgboost.DMatrix(matrix)), dtype=np.float64)
        if task.kind == "binary":
            return class_probabilities(found)
        return found.reshape(len(matrix), -1)

    native = bytes(kept.save_raw("json"))
    is_cut = end.is_over and len(rounds) < options["max_iterations"]
    return Fitted(read(native, task), predict, rounds, best, native, is_cut=is_cut)


def read(native: bytes, task: Task) -> trees.Trees:
    """Return the trees of XGBoost's JSON form."""
    learner = json.loads(native)["learner"]
    model = learner["gradient_booster"]
    weights = model.get("weight_drop")
    model = model.get("gbtree", model)["model"]
    base = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float64)
    base = np.broadcast_to(base.reshape(-1), task.outputs)
    if task.kind == "binary":
        base = np.log(base / (1 - base))
    parts = [
        _tree(tree, number, output, 1.0 if weights is None else weights[number], task.outputs)
        for number, (tree, output) in enumerate(
            zip(model["trees"], model["tree_info"], strict=True)
        )
    ]
    return trees.with_exact_sums(trees.concatenate(parts, base))


def _tree(
    tree: Mapping[str, Any], number: int, output: int, weight: float, outputs: int
) -> trees.Trees:
    left = np.array(tree["left_children"])
    is_leaf = left < 0
    conditions = np.array(tree["split_conditions"], dtype=np.float32)

    def inner(name: str, of_leaf: Any = 0) -> npt.NDArray[Any]:
        return np.where(is_leaf, of_leaf, np.array(tree[name]))

    return trees.Trees(
        tree=np.full(len(left), number),
        node=np.arange(len(left)),
        feature=inner("split_indices", trees.LEAF).astype(np.int64),
        # XGBoost goes left below the condition, which is up to the float32 before it.
        threshold=np.where(is_leaf, 0, np.nextafter(conditions, np.float32(-np.inf))).astype(
            np.float32
        ),
        is_missing_true=inner("default_left").astype(bool),
        true_node=inner("left_children").astype(np.int64),
        false_node=inner("right_children").astype(np.int64),
        output=np.full(len(left), output),
        value=np.where(is_leaf, conditions.astype(np.float64) * weight, 0.0),
        gain=inner("loss_changes").astype(np.float64),
        cover=inner("sum_hessian").astype(np.float64),
        base=np.zeros(outputs),
    )
