"""Shapley values of a model's scores: which feature moved a prediction, and by how much."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ml import transform

Explainer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
# Steps of the integral along the way from the mean row to the row that is explained.
STEPS = 64


def explainer(
    engine: str,
    native: bytes,
    *,
    features: int,
    graph: bytes | None,
    origins: Sequence[int] | None,
) -> Explainer:
    """Return a function that explains rows of a model.

    Trees are explained by the exact Shapley values of their own library (Lundberg et al. 2020),
    a linear model by its closed form, a network by integrated gradients (Sundararajan et al.
    2017), which are Shapley values of an infinitesimal game. The standardized mean row is the
    baseline of the last two.

    Parameters
    ----------
    engine : {"lightgbm", "xgboost", "catboost", "linear", "neural"}
        The library that trained it.
    native : bytes
        The model in that library's own form, as in ``registry.models``.
    features : int
        Number of features, k.
    graph : bytes or None
        The ONNX graph of the model's TRANSFORM.
    origins : sequence of int or None
        Of each transformed column its feature, from 1; None where there is no transform.

    Returns
    -------
    Callable
        From float32 (n, k) to float64 (n, outputs, k + 2): per output the attribution of each
        feature, the baseline and the score, in the unit of the score: log-odds, or a value.
    """
    explain = ENGINES[engine](native)

    def explained(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = explain(transform.apply(graph, rows))
        if origins is None:
            return found
        summed = np.zeros((*found.shape[:2], features + 2))
        for column, feature in enumerate(origins):
            summed[:, :, feature - 1] += found[:, :, column]
        summed[:, :, -2:] = found[:, :, -2:]
        return summed

    return explained


def _lightgbm(native: bytes) -> Explainer:
    import lightgbm

    text = native.decode()
    booster = lightgbm.Booster(model_str=text)
    # The scores of a random forest are means over its trees, its attributions sums.
    share = 1 / booster.current_iteration() if "\naverage_output\n" in text else 1

    def explain(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = share * np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))
        return _with_scores(found.reshape(len(rows), -1, rows.shape[1] + 1))

    return explain


def _xgboost(native: bytes) -> Explainer:
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(native))

    def explain(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        matrix = xgboost.DMatrix(rows, nthread=1)
        found = booster.predict(matrix, pred_contribs=True, strict_shape=True)
        return _with_scores(np.asarray(found, dtype=np.float64))

    return explain


def _catboost(native: bytes) -> Explainer:
    import catboost

    model = catboost.CatBoost()
    model.load_model(blob=native)

    def explain(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        pool = catboost.Pool(rows)
        found = model.get_feature_importance(pool, type="ShapValues", thread_count=1)
        return _with_scores(np.asarray(found).reshape(len(rows), -1, rows.shape[1] + 1))

    return explain


def _linear(native: bytes) -> Explainer:
    model = json.loads(native)
    coefficients = np.array(model["coefficients"], dtype=np.float64)
    intercepts = np.array(model["intercepts"], dtype=np.float64)

    def explain(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        parts = rows[:, None, :] * coefficients
        baselines = np.broadcast_to(intercepts, (len(rows), len(intercepts)))[:, :, None]
        return _with_scores(np.concatenate([parts, baselines], axis=2))

    return explain


def _neural(native: bytes) -> Explainer:
    model = json.loads(native)
    weights = [np.array(layer, dtype=np.float64) for layer in model["weights"]]
    biases = [np.array(layer, dtype=np.float64) for layer in model["biases"]]
    activation, slope = ACTIVATIONS[model["activation"]]

    def score(
        rows: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the scores (n, outputs) and their gradients (n, outputs, columns)."""
        slopes, values = [], rows
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            sums = values @ weight + bias
            values = activation(sums)
            slopes.append(slope(sums))
        gradients = np.broadcast_to(weights[-1].T, (len(rows), *weights[-1].T.shape))
        for weight, steep in zip(reversed(weights[:-1]), reversed(slopes), strict=True):
            gradients = (gradients * steep[:, None, :]) @ weight.T
        return values @ weights[-1] + biases[-1], gradients

    def explain(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        targets = rows.astype(np.float64)
        # Gauss-Legendre: exact for smooth ways, and better than equal steps over kinks.
        points, shares = np.polynomial.legendre.leggauss(STEPS)
        total = sum(
            share / 2 * score(targets * (1 + point) / 2)[1]
            for point, share in zip(points, shares, strict=True)
        )
        baselines, _ = score(np.zeros_like(targets[:1]))
        scores, _ = score(targets)
        ends = np.stack([np.broadcast_to(baselines, scores.shape), scores], axis=2)
        return np.concatenate([total * targets[:, None, :], ends], axis=2)

    return explain


def _with_scores(found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Append the score, which attributions and baseline add up to."""
    return np.concatenate([found, found.sum(axis=2, keepdims=True)], axis=2)


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


ENGINES: dict[str, Callable[[bytes], Explainer]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "linear": _linear,
    "neural": _neural,
}
ACTIVATIONS: dict[str, tuple[Callable[..., npt.NDArray[np.float64]], ...]] = {
    "IDENTITY": (lambda values: values, np.ones_like),
    "RELU": (lambda values: np.maximum(values, 0), lambda values: (values > 0).astype(float)),
    "SIGMOID": (_sigmoid, lambda values: _sigmoid(values) * (1 - _sigmoid(values))),
    "TANH": (np.tanh, lambda values: 1 - np.tanh(values) ** 2),
}
