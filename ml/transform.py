"""TRANSFORM: preprocessing as an ONNX graph, run in training and part of the model.

Each function is BigQuery ML's, fitted on the training part. Training applies the graph that is
exported, so the model sees the same numbers to the last bit wherever it runs.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from ml import onnx_model
from ml.composition import Column, Flag, Scaled
from ml.onnx_graph import Graph, assemble
from ml.vocabulary import OptionError

MATRIX = "matrix"
# More categories than this in one column are a mistake rather than a category.
MOST_CATEGORIES = 1000
FUNCTIONS = {
    "ML.STANDARD_SCALER": "(x - mean) / standard deviation",
    "ML.MIN_MAX_SCALER": "(x - min) / (max - min), cut to 0 … 1",
    "ML.MAX_ABS_SCALER": "x / max |x|",
    "ML.ROBUST_SCALER": "(x - median) / (75 % quantile - 25 % quantile)",
    "ML.IMPUTER": "x, or where missing the 'mean', 'median' or 'most_frequent' of training",
    "ML.ONE_HOT_ENCODER": "one column of 0 and 1 per value of training; all 0 for others and NULL",
    "ML.BUCKETIZE": "one column of 0 and 1 per bucket between the given points",
    "ML.QUANTILE_BUCKETIZE": "the same, between that many equal shares of training",
}

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Transform:
    """A fitted TRANSFORM.

    Parameters
    ----------
    onnx : bytes
        Graph from ``features`` to ``matrix``, both float32.
    columns : tuple of ml.composition.Column
        What each column of the matrix is.
    """

    onnx: bytes
    columns: tuple[Column, ...]

    @property
    def origins(self) -> tuple[int, ...]:
        """Of each column of the matrix the feature it comes from, counted from 0."""
        return tuple(column.position for column in self.columns)


@dataclass(frozen=True)
class _Call:
    function: str
    arguments: tuple[str, ...]


def parse(given: Mapping[str, Any], features: Sequence[str]) -> dict[str, str]:
    """Return the function of each feature that has one.

    Parameters
    ----------
    given : Mapping
        From a feature, or a pattern as ``close_*``, to a function as ``ML.STANDARD_SCALER`` or
        ``ML.IMPUTER('median')``. A name goes before a pattern, an earlier pattern before a later.

    Raises
    ------
    OptionError
        If a function is unknown or a pattern names no feature.
    """
    if not isinstance(given, Mapping):
        raise OptionError(
            f"transform is {given!r}; a mapping from features to functions is expected"
        )
    found: dict[str, str] = {}
    for pattern, text in sorted(given.items(), key=lambda item: item[0] not in features):
        matching = [name for name in features if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise OptionError(f"transform names {pattern}; the features are {', '.join(features)}")
        _call(pattern, text)
        found = dict.fromkeys(matching, str(text)) | found
    return found


def _call(feature: str, text: object) -> _Call:
    match = re.fullmatch(r"\s*(ml\.\w+)\s*(?:\((.*)\))?\s*", str(text), re.I | re.S)
    function = match[1].upper() if match else ""
    if match is None or function not in FUNCTIONS:
        raise OptionError(
            f"transform of {feature} is {text!r}; the functions are {', '.join(FUNCTIONS)}"
        )
    arguments = re.findall(r"[^\s,'\"\[\]()]+", match[2] or "")
    if function == "ML.IMPUTER" and arguments not in (["mean"], ["median"], ["most_frequent"]):
        raise OptionError(
            f"transform of {feature} is {text!r}; "
            "ML.IMPUTER takes 'mean', 'median' or 'most_frequent'"
        )
    if "BUCKETIZE" in function:
        numbers = [argument for argument in arguments if re.fullmatch(r"[-+]?[\d.eE+-]+", argument)]
        if not arguments or len(numbers) != len(arguments):
            raise OptionError(
                f"transform of {feature} is {text!r}; {function} takes "
                + ("a number of buckets" if "QUANTILE" in function else "points, as (30, 70)")
            )
    elif function != "ML.IMPUTER" and arguments:
        raise OptionError(f"transform of {feature} is {text!r}; {function} takes nothing")
    return _Call(function, tuple(arguments))


def fit(
    matrix: Float32, features: Sequence[str], calls: Mapping[str, str], *, standardize: bool
) -> Transform | None:
    """Fit the functions on the rows of training.

    Parameters
    ----------
    matrix : numpy.ndarray
        Shape (n, k), float32, NaN where missing.
    features : sequence of str
        Names of the columns.
    calls : Mapping
        From `parse`.
    standardize : bool
        Whether the model takes neither missing nor unscaled values: what no function treats is
        standardized, and what then is missing becomes the mean, as BigQuery ML does by itself.

    Returns
    -------
    Transform or None
        None where there is nothing to do.
    """
    if not calls and not standardize:
        return None
    graph = Graph()
    scaled: list[Scaled] = []
    flagged: list[str] = []
    flags: list[Flag] = []
    for position, name in enumerate(features):
        known = matrix[:, position][np.isfinite(matrix[:, position])].astype(np.float64)
        known = known if len(known) else np.zeros(1)
        call = _call(name, calls[name]) if name in calls else None
        if call is None and standardize:
            call = _Call("ML.STANDARD_SCALER", ())
        if call is not None and call.function in FLAGS:
            column = graph.node("Cast", _gathered(graph, [position]), to=TensorProto.DOUBLE)
            is_in, own = _is_in(graph, column, position, known, call, name)
            flagged.append(graph.node("Cast", is_in, to=TensorProto.FLOAT))
            flags += own
        else:
            scaled.append(_scaled(position, known, call, standardize=standardize))
    parts = [_scale_all(graph, scaled)] if scaled else []
    graph.node("Concat", *parts, *flagged, axis=1, output=MATRIX)
    columns: tuple[Column, ...] = (*scaled, *flags)
    model = assemble(
        graph.nodes,
        graph.constants,
        inputs=len(features),
        outputs={MATRIX: (TensorProto.FLOAT, len(columns))},
    )
    return Transform(model.SerializeToString(deterministic=True), columns)


def apply(transform: bytes | None, features: Float32) -> Float32:
    """Return the matrix that a model's trees or layers take.

    Parameters
    ----------
    transform : bytes or None
        The graph; None leaves the features as they are.
    features : numpy.ndarray
        Shape (n, k), float32.
    """
    if transform is None or not len(features):
        return features
    session = onnx_model.session(transform)
    step = 100_000
    parts = [
        session.run(
            [MATRIX], {onnx_model.INPUT: np.ascontiguousarray(features[start : start + step])}
        )[0]
        for start in range(0, len(features), step)
    ]
    return np.concatenate(parts)


def _scaled(
    position: int, known: npt.NDArray[np.float64], call: _Call | None, *, standardize: bool
) -> Scaled:
    if call is None:
        return Scaled(position)
    if call.function == "ML.IMPUTER":
        return Scaled(position, fill=_statistic(known, call.arguments[0]))
    center, scale = _scale(known, call.function)
    is_cut = call.function == "ML.MIN_MAX_SCALER"
    return Scaled(
        position,
        center,
        scale or 1.0,
        low=0 if is_cut else -np.inf,
        high=1 if is_cut else np.inf,
        fill=(float(np.mean(known)) - center) / (scale or 1.0) if standardize else np.nan,
    )


def _gathered(graph: Graph, positions: list[int]) -> str:
    indices = graph.constant(np.array(positions, dtype=np.int64))
    return graph.node("Gather", onnx_model.INPUT, indices, axis=1)


def _scale_all(graph: Graph, columns: Sequence[Scaled]) -> str:
    def vector(name: str) -> npt.NDArray[np.float64]:
        return np.array([[getattr(column, name) for column in columns]], dtype=np.float64)

    given = _gathered(graph, [column.position for column in columns])
    # ONNX Runtime 1.12, BigQuery's, asks float32 alone whether it is NaN.
    is_missing = graph.node("IsNaN", given)
    values = graph.node("Cast", given, to=TensorProto.DOUBLE)
    values = graph.node("Sub", values, graph.constant(vector("center")))
    values = graph.node("Div", values, graph.constant(vector("scale")))
    if np.isfinite(vector("low")).any():
        cut = graph.node("Max", values, graph.constant(vector("low")))
        cut = graph.node("Min", cut, graph.constant(vector("high")))
        # Max and Min do not agree everywhere on what becomes of a missing value.
        values = graph.node("Where", is_missing, values, cut)
    values = graph.node("Where", is_missing, graph.constant(vector("fill")), values)
    return graph.node("Cast", values, to=TensorProto.FLOAT)


# Engines that take neither missing nor unscaled values.
STANDARDIZED = ("linear", "neural")
FLAGS = {"ML.ONE_HOT_ENCODER", "ML.BUCKETIZE", "ML.QUANTILE_BUCKETIZE"}


def _is_in(
    graph: Graph,
    column: str,
    position: int,
    known: npt.NDArray[np.float64],
    call: _Call,
    name: str,
) -> tuple[str, list[Flag]]:
    """Add one flag per value or bucket; a missing value is in none."""
    if call.function == "ML.ONE_HOT_ENCODER":
        values = np.unique(known)
        if len(values) > MOST_CATEGORIES:
            raise OptionError(f"{name} has {len(values):,} values; at most {MOST_CATEGORIES:,} fit")
        above = np.nextafter(values.astype(np.float32), np.float32(np.inf))
        flags = [Flag(position, *map(float, ends)) for ends in zip(values, above, strict=True)]
        return graph.node("Equal", column, graph.constant(values[None])), flags
    points = _points(known, call)
    # Bucket i holds point i - 1 ≤ x < point i.
    lower, upper = np.concatenate([[-np.inf], points]), np.concatenate([points, [np.inf]])
    is_in = graph.node(
        "And",
        graph.node("GreaterOrEqual", column, graph.constant(lower[None])),
        graph.node("Less", column, graph.constant(upper[None])),
    )
    return is_in, [Flag(position, *map(float, ends)) for ends in zip(lower, upper, strict=True)]


def _scale(known: npt.NDArray[np.float64], function: str) -> tuple[float, float]:
    if function == "ML.STANDARD_SCALER":
        return float(np.mean(known)), float(np.std(known))
    if function == "ML.MIN_MAX_SCALER":
        return float(np.min(known)), float(np.ptp(known))
    if function == "ML.MAX_ABS_SCALER":
        return 0.0, float(np.max(np.abs(known)))
    lower, median, upper = np.quantile(known, [0.25, 0.5, 0.75])
    return float(median), float(upper - lower)


def _statistic(known: npt.NDArray[np.float64], strategy: str) -> float:
    if strategy == "most_frequent":
        values, counts = np.unique(known, return_counts=True)
        return float(values[counts.argmax()])
    return float(np.mean(known) if strategy == "mean" else np.median(known))


def _points(known: npt.NDArray[np.float64], call: _Call) -> npt.NDArray[np.float64]:
    numbers = np.array([float(argument) for argument in call.arguments])
    if call.function == "ML.BUCKETIZE":
        return np.unique(numbers)
    shares = np.arange(1, int(numbers[0])) / int(numbers[0])
    return np.unique(np.quantile(known, shares))
