"""A registry with small models of known weights, without training."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ingest import warehouse
from ml import onnx_graph, onnx_model, registry

WHEN = datetime(2024, 1, 1)


def logistic(weights: Sequence[float]) -> bytes:
    """A model whose probability is that of a logistic regression; NaN counts as 0."""
    column = np.asarray(weights, dtype=np.float64).reshape(-1, 1)
    constants = [
        numpy_helper.from_array(column, "weights"),
        numpy_helper.from_array(np.float32(0), "nothing"),
        numpy_helper.from_array(np.float64(1), "one"),
    ]
    nodes = [
        helper.make_node("IsNaN", [onnx_model.INPUT], ["missing"]),
        helper.make_node("Where", ["missing", "nothing", onnx_model.INPUT], ["filled"]),
        helper.make_node("Cast", ["filled"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "weights"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["true"]),
        helper.make_node("Sub", ["one", "true"], ["false"]),
        helper.make_node("Concat", ["false", "true"], ["probabilities"], axis=1),
    ]
    outputs = {"probabilities": (TensorProto.DOUBLE, 2)}
    model = onnx_graph.assemble(nodes, constants, inputs=len(weights), outputs=outputs)
    return bytes(model.SerializeToString(deterministic=True))


def softmax(weights: Sequence[Sequence[float]]) -> bytes:
    """A model of several classes: scores are sums by weights, a row a feature; NaN counts as 0."""
    constants = [
        numpy_helper.from_array(np.asarray(weights, dtype=np.float64), "weights"),
        numpy_helper.from_array(np.float32(0), "nothing"),
    ]
    nodes = [
        helper.make_node("IsNaN", [onnx_model.INPUT], ["missing"]),
        helper.make_node("Where", ["missing", "nothing", onnx_model.INPUT], ["filled"]),
        helper.make_node("Cast", ["filled"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "weights"], ["score"]),
        helper.make_node("Softmax", ["score"], ["probabilities"], axis=1),
    ]
    outputs = {"probabilities": (TensorProto.DOUBLE, len(weights[0]))}
    model = onnx_graph.assemble(nodes, constants, inputs=len(weights), outputs=outputs)
    return bytes(model.SerializeToString(deterministic=True))


def add_version(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    onnx: bytes,
    *,
    features: Sequence[str],
    stage: str = "champion",
    classes: Sequence[str] = ("false", "true"),
) -> str:
    """Register a version of a model in some stage, and return it."""
    sha256 = hashlib.sha256(onnx).hexdigest()
    connection.execute(
        "insert into registry.models by name select ? as model_name, ? as model_version, "
        "'signal' as role, ? as task, ? as features, 'is_up' as label, ? as classes, "
        "? as train_end_at, ? as validation_end_at, ? as onnx, ? as onnx_sha256, "
        "? as registered_at",
        [
            *(name, sha256[:16], "binary" if len(classes) == 2 else "multiclass"),
            *(list(features), list(classes), WHEN, WHEN, onnx, sha256, WHEN),
        ],
    )
    connection.execute(
        "insert into registry.stages values (?, ?, ?, 'test', ?)",
        [name, sha256[:16], stage, WHEN],
    )
    return sha256[:16]


def promote(connection: duckdb.DuckDBPyConnection, name: str, version: str) -> None:
    """Make a version the champion, and the champion before it retired."""
    connection.execute(
        "insert into registry.stages select model_name, model_version, 'retired', 'test', now()"
        "::timestamp from registry.active_models where model_name = ?",
        [name],
    )
    connection.execute(
        "insert into registry.stages values (?, ?, 'champion', 'test', now()::timestamp)",
        [name, version],
    )


def register(database: Path, models: Mapping[str, Sequence[float]]) -> list[registry.Model]:
    """Register a champion for each name, by its weights, and return them."""
    with warehouse.writing(database) as connection:
        registry.create(connection)
        for name, weights in models.items():
            features = [f"feature_{n}" for n in range(len(weights))]
            add_version(connection, name, logistic(weights), features=features)
        return registry.active_models(connection)
