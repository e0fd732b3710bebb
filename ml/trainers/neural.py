"""DNN_CLASSIFIER and DNN_REGRESSOR by scikit-learn's multi-layer perceptron."""

import json
import math
from collections.abc import Mapping
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from ml.metrics import loss
from ml.trainers import Dense, Fitted, Float32, Float64, Part, Round, Task

ACTIVATIONS = {
    "RELU": ("relu", "Relu"),
    "TANH": ("tanh", "Tanh"),
    "SIGMOID": ("logistic", "Sigmoid"),
}
# Training stops where this many passes in a row brought nothing on the validation part.
EARLY_STOP_ROUNDS = 5


def version() -> str:
    """Return the library's name and version."""
    return f"scikit-learn {sklearn.__version__}"


def fit(
    task: Task,
    training: Part,
    validation: Part,
    options: Mapping[str, Any],
    seed: int,
    deadline: float = math.inf,
) -> Fitted:
    """Learn in passes over the rows and keep the pass that judged the validation part best."""
    own, exported = ACTIVATIONS[options["activation_fn"]]
    is_regression = task.kind == "regression"
    model = (MLPRegressor if is_regression else MLPClassifier)(
        hidden_layer_sizes=tuple(options["hidden_units"]),
        activation=own,
        solver=options["optimizer"].lower(),
        alpha=options["l2_reg"],
        batch_size=min(options["batch_size"], len(training.labels)),
        learning_rate_init=options["learn_rate"],
        random_state=seed,
    )
    # Labels of a regression are learned in their own standard deviations.
    center = float(np.mean(training.labels)) if is_regression else 0.0
    scale = (float(np.std(training.labels)) or 1.0) if is_regression else 1.0
    matrix, learned = training.matrix.astype(np.float64), (training.labels - center) / scale
    known = {} if is_regression else {"classes": np.arange(len(task.classes), dtype=np.float64)}

    def predict(rows: Float32) -> Float64:
        wide = rows.astype(np.float64)
        if is_regression:
            return np.asarray(model.predict(wide)).reshape(-1, 1) * scale + center
        return np.asarray(model.predict_proba(wide))

    rounds: list[Round] = []
    kept: list[Float64] = []
    best = 0
    with threadpool_limits(1):
        for number in range(1, options["max_iterations"] + 1):
            started = perf_counter()
            model.partial_fit(matrix, learned, sample_weight=training.weights, **known)
            taken = round(1000 * (perf_counter() - started))
            losses = [
                loss(task, part.labels, predict(part.matrix)) for part in (training, validation)
            ]
            rounds.append(Round(losses[0], losses[1], taken))
            progress = options["min_rel_progress"] * rounds[0].eval_loss
            if not best or losses[1] < rounds[best - 1].eval_loss - progress:
                best, kept = number, [layer.copy() for layer in (*model.coefs_, *model.intercepts_)]
            is_cut = monotonic() >= deadline and number < options["max_iterations"]
            if is_cut:
                break
            if options["early_stop"] and number - best >= EARLY_STOP_ROUNDS:
                break
    if not options["early_stop"]:
        best = len(rounds)
    else:
        model.coefs_ = kept[: len(model.coefs_)]
        model.intercepts_ = kept[len(model.coefs_) :]
    weights = [*model.coefs_[:-1], model.coefs_[-1] * scale]
    biases = [*model.intercepts_[:-1], model.intercepts_[-1] * scale + center]
    native = {
        "activation": options["activation_fn"],
        "weights": [layer.tolist() for layer in weights],
        "biases": [layer.tolist() for layer in biases],
    }
    body = Dense(tuple(weights), tuple(biases), exported)
    return Fitted(body, predict, tuple(rounds), best, json.dumps(native).encode(), is_cut=is_cut)
