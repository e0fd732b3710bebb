"""LOGISTIC_REG and LINEAR_REG by scikit-learn."""

import json
import math
import warnings
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from ml.metrics import loss
from ml.trainers import Dense, Fitted, Float32, Float64, Part, Round, Task


def version() -> str:
    """Return the library's name and version."""
    return f"scikit-learn {sklearn.__version__}"


def fit(
    task: Task,
    training: Part,
    validation: Part,
    options: Mapping[str, Any],
    seed: int,
    deadline: float = math.inf,  # noqa: ARG001
) -> Fitted:
    """Minimize the sum of losses + l1_reg·Σ|w| + l2_reg·Σw²/2; the intercept is not shrunk.

    Its only round is the solver's, which looks at no clock.
    """
    started = perf_counter()
    make = _regression if task.kind == "regression" else _classifier
    model = make(len(training.labels), options, seed)
    # Sums in BLAS depend on the number of threads.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(
            training.matrix.astype(np.float64), training.labels, sample_weight=training.weights
        )

    def predict(matrix: Float32) -> Float64:
        wide = matrix.astype(np.float64)
        if task.kind == "regression":
            return np.asarray(model.predict(wide)).reshape(-1, 1)
        return np.asarray(model.predict_proba(wide))

    coefficients = np.atleast_2d(model.coef_).astype(np.float64)
    intercepts = np.broadcast_to(np.float64(model.intercept_), task.outputs)
    only = Round(
        loss(task, training.labels, predict(training.matrix)),
        loss(task, validation.labels, predict(validation.matrix)),
        round(1000 * (perf_counter() - started)),
    )
    native = {"coefficients": coefficients.tolist(), "intercepts": intercepts.tolist()}
    body = Dense(weights=(coefficients.T,), biases=(intercepts,))
    return Fitted(body, predict, (only,), 1, json.dumps(native).encode())


def _classifier(rows: int, options: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
    l1, l2 = options["l1_reg"], options["l2_reg"]
    return LogisticRegression(
        C=1 / (l1 + l2) if l1 + l2 else np.inf,
        l1_ratio=l1 / (l1 + l2) if l1 + l2 else 0,
        solver="saga" if l1 else "lbfgs",
        fit_intercept=options["fit_intercept"],
        max_iter=options["max_iterations"],
        tol=1e-6,
        random_state=seed,
    )


def _regression(rows: int, options: Mapping[str, Any], seed: int) -> Any:
    l1, l2 = options["l1_reg"], options["l2_reg"]
    if not l1:
        return Ridge(alpha=l2, solver="cholesky", fit_intercept=options["fit_intercept"])
    return ElasticNet(
        alpha=(l1 + l2) / rows,
        l1_ratio=l1 / (l1 + l2),
        fit_intercept=options["fit_intercept"],
        max_iter=options["max_iterations"],
        random_state=seed,
    )
