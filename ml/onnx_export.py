"""Fitted models exported as ONNX with the same decisions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ml.onnx_graph import Graph, assemble
from ml.onnx_model import INPUT
from ml.trainers import Dense, Task
from ml.transform import MATRIX, Transform
from ml.trees import Trees

# What BigQuery ML imports: ONNX Runtime 1.12, tensors only.
OPSET_LIMITS = {"": 17, "ai.onnx.ml": 3}
IR_LIMIT = 8
SIZE_LIMIT = 450_000_000
# ONNX Runtime 1.12 lacks some of what its opsets have, as IsNaN of doubles. These it has, by the
# types that they take: tests/test_ml_exactness.py runs models of every kind in it.
_TWO_DOUBLES = "Add Sub Div MatMul Max Min Equal Less GreaterOrEqual Concat"
_ONE_DOUBLE = "ArgMax Cast Relu Sigmoid Tanh Softmax TreeEnsembleRegressor"
KERNELS = {
    *((kind, "DOUBLE") for kind in f"{_TWO_DOUBLES} {_ONE_DOUBLE}".split()),
    *(("Gather", *kinds) for kinds in (("FLOAT", "INT64"), ("INT64",), ("INT64", "STRING"))),
    *((kind, "FLOAT") for kind in ("Cast", "Concat", "IsNaN")),
    *(("Cast", "BOOL"), ("And", "BOOL"), ("Where", "BOOL", "DOUBLE")),
    ("Reshape", "DOUBLE", "INT64"),
}


class ExportError(RuntimeError):
    """The ONNX form of a model would not decide as the model does, or could not be imported."""


def export(
    body: Trees | Dense,
    task: Task,
    *,
    features: int,
    labels: str = "",
    transform: Transform | None = None,
) -> bytes:
    """Return a model as ONNX with one float32 tensor in and named tensors out.

    The input ``features`` has shape (n, k), NaN where missing. A classifier gives ``label`` (n,)
    and ``probabilities`` (n, classes), a regression ``prediction`` (n,), in double precision:
    float32 values are compared exactly, and scores are summed as `trees.with_exact_sums` says.

    Parameters
    ----------
    body : Trees or Dense
        What turns the matrix into scores.
    task : Task
        What was learned.
    features : int
        Number of features.
    labels : str
        DuckDB's type of the label: text gives text, other classes whole numbers.
    transform : Transform or None
        What turns features into the matrix.

    Raises
    ------
    ExportError
        If the result is beyond what BigQuery ML imports.
    """
    graph = Graph()
    matrix = INPUT
    if transform is not None:
        before = onnx.load_from_string(transform.onnx).graph
        graph.nodes += before.node
        graph.constants += before.initializer
        matrix = MATRIX
    wide = graph.node("Cast", matrix, to=TensorProto.DOUBLE)
    scores = _trees(graph, wide, body) if isinstance(body, Trees) else _dense(graph, wide, body)
    outputs = _head(graph, scores, task, labels)
    model = assemble(graph.nodes, graph.constants, inputs=features, outputs=outputs)
    exported: bytes = model.SerializeToString(deterministic=True)
    check_limits(model, len(exported))
    return exported


def check_limits(model: Any, size: int) -> None:
    """Hold a model against what BigQuery ML imports.

    Raises
    ------
    ExportError
        If it is beyond.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    beyond = any(opset > OPSET_LIMITS.get(domain, 0) for domain, opset in opsets.items())
    others = [
        entry.name
        for entry in (*model.graph.input, *model.graph.output)
        if not entry.type.HasField("tensor_type")
    ]
    if beyond or model.ir_version > IR_LIMIT or size > SIZE_LIMIT or others:
        raise ExportError(
            f"the model has opsets {opsets}, IR {model.ir_version}, {size:,} bytes and "
            f"{', '.join(others) or 'nothing'} that is no tensor; BigQuery ML imports at most "
            f"{OPSET_LIMITS}, IR {IR_LIMIT}, {SIZE_LIMIT:,} bytes and tensors only"
        )
    unknown = sorted(_kernels(model) - KERNELS)
    if unknown:
        raise ExportError(
            f"the model has {', '.join(map(str, unknown))}, which ONNX Runtime 1.12, with which "
            "BigQuery ML imports, is not known to have"
        )


def _kernels(model: Any) -> set[tuple[str, ...]]:
    """Return each operator of a model with the types that it takes."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        entry.name: entry.type.tensor_type.elem_type
        for entry in (*inferred.input, *inferred.value_info, *inferred.output)
    } | {constant.name: constant.data_type for constant in inferred.initializer}
    name = TensorProto.DataType.Name
    return {
        (node.op_type, *sorted({name(types.get(given, 0)) for given in node.input}))
        for node in inferred.node
    }


def _trees(graph: Graph, matrix: str, trees: Trees) -> str:
    leaf = trees.is_leaf
    scores = graph.node(
        "TreeEnsembleRegressor",
        matrix,
        domain="ai.onnx.ml",
        n_targets=len(trees.base),
        nodes_treeids=trees.tree.tolist(),
        nodes_nodeids=trees.node.tolist(),
        nodes_featureids=np.maximum(trees.feature, 0).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values_as_tensor=numpy_helper.from_array(trees.threshold.astype(np.float64)),
        nodes_truenodeids=trees.true_node.tolist(),
        nodes_falsenodeids=trees.false_node.tolist(),
        nodes_missing_value_tracks_true=trees.is_missing_true.astype(np.int64).tolist(),
        target_treeids=trees.tree[leaf].tolist(),
        target_nodeids=trees.node[leaf].tolist(),
        target_ids=trees.output[leaf].tolist(),
        target_weights_as_tensor=numpy_helper.from_array(trees.value[leaf]),
        base_values_as_tensor=numpy_helper.from_array(trees.base),
    )
    return graph.node("Cast", scores, to=TensorProto.DOUBLE)


def _dense(graph: Graph, matrix: str, network: Dense) -> str:
    values = matrix
    last = len(network.weights) - 1
    for number, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        values = graph.node("MatMul", values, graph.constant(weights))
        values = graph.node("Add", values, graph.constant(np.asarray(biases)))
        if number < last and network.activation != "Identity":
            values = graph.node(network.activation, values)
    return values


def _head(
    graph: Graph, scores: str, task: Task, labels: str
) -> Mapping[str, tuple[int, int | None]]:
    if task.kind == "regression":
        flat = graph.constant(np.array([-1], dtype=np.int64))
        graph.node("Reshape", scores, flat, output="prediction")
        return {"prediction": (TensorProto.DOUBLE, None)}
    if task.kind == "binary":
        positive = graph.node("Sigmoid", scores)
        negative = graph.node("Sub", graph.constant(np.ones((1, 1))), positive)
        probabilities = graph.node("Concat", negative, positive, axis=1, output="probabilities")
    else:
        probabilities = graph.node("Softmax", scores, axis=1, output="probabilities")
    is_text = labels == "VARCHAR"
    numbers = range(2) if labels == "BOOLEAN" else task.classes
    names = np.array(task.classes, dtype=object) if is_text else np.array([*map(int, numbers)])
    # Of equal probabilities the first class is taken: exactly one half is false.
    chosen = graph.node("ArgMax", probabilities, axis=1, keepdims=0)
    graph.node("Gather", graph.constant(names), chosen, axis=0, output="label")
    return {
        "label": (TensorProto.STRING if is_text else TensorProto.INT64, None),
        "probabilities": (TensorProto.DOUBLE, len(task.classes)),
    }
