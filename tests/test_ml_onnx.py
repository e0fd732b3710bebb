"""The ONNX form of a model decides as the model does."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ml import onnx_export, onnx_model, trees, vocabulary
from ml.trainers import Fitted, Part, Task, lightgbm_trees, trainer

ROWS = 20_000
BINARY = Task("binary", ("false", "true"))
OPTIONS = vocabulary.defaults("BOOSTED_TREE_CLASSIFIER") | {
    "max_iterations": 60,
    "learn_rate": 0.1,
    "early_stop": False,
}
SEEDS_THAT_ORDER_SETS_BOTH_WAYS = (0, 20)


def features(generator: np.random.Generator, rows: int = ROWS) -> npt.NDArray[np.float32]:
    """Return a continuous, a rounded, a sparse, a gappy and an integer column."""
    columns = generator.normal(size=(rows, 5)).astype(np.float32)
    columns[:, 1] = np.round(columns[:, 1], 1)
    columns[generator.random(rows) < 0.5, 2] = 0
    columns[generator.random(rows) < 0.1, 3] = np.nan
    columns[:, 4] = generator.integers(0, 5, rows)
    return columns


def fit(matrix: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> Fitted:
    part = Part(matrix, labels.astype(np.float64))
    return lightgbm_trees.fit(BINARY, part, part, OPTIONS, 1)


def export(model: Fitted, columns: int) -> bytes:
    return onnx_export.export(model.body, BINARY, features=columns, labels="BOOLEAN")


@pytest.fixture(scope="module")
def trained() -> Fitted:
    generator = np.random.default_rng(1)
    matrix = features(generator)
    noise = generator.normal(size=ROWS)
    return fit(matrix, matrix[:, 0] + matrix[:, 1] / 2 + np.nan_to_num(matrix[:, 3]) + noise > 0)


def test_no_decision_differs_on_a_million_rows_of_data_thresholds_and_nan(
    trained: Fitted,
) -> None:
    session = onnx_model.session(export(trained, 5))
    edges = trees.edges(trained.body)
    tiny = np.array([0, -0.0, 1e-35, -1e-35, 1e-40, -1e-40, np.nan], dtype=np.float32)
    below = np.nextafter(edges, np.float32(-np.inf))
    edges = np.concatenate([edges, below, np.repeat(tiny, 20)])
    generator = np.random.default_rng(3)
    for _ in range(5):
        rows = np.concatenate([features(generator, 100_000), generator.choice(edges, (100_000, 5))])
        found, expected = onnx_model.outputs(session, rows), trained.predict(rows)
        assert np.abs(found - expected).max() <= 1e-6
        assert np.count_nonzero((found[:, 1] > 0.5) != (expected[:, 1] > 0.5)) == 0


@pytest.mark.parametrize("engine", ["xgboost", "catboost"])
def test_trees_of_other_libraries_decide_alike_at_thresholds_and_nan(engine: str) -> None:
    matrix = features(np.random.default_rng(1), 4_000)
    labels = (np.nan_to_num(matrix[:, 0] + matrix[:, 1] + matrix[:, 3]) > 0).astype(np.float64)
    part = Part(matrix, labels)
    model = trainer(engine).fit(BINARY, part, part, OPTIONS | {"max_iterations": 20}, 1)
    edges = trees.edges(model.body)
    edges = edges[np.isfinite(edges)]
    edges = np.concatenate([edges, np.nextafter(edges, np.float32(-np.inf)), [np.nan] * 50])
    rows = np.random.default_rng(3).choice(edges.astype(np.float32), (50_000, 5))
    found = onnx_model.outputs(onnx_model.session(export(model, 5)), rows)
    expected = model.predict(rows)
    assert np.abs(found - expected).max() <= 1e-6
    assert np.count_nonzero((found[:, 1] > 0.5) != (expected[:, 1] > 0.5)) == 0


def test_a_feature_without_missing_values_in_training_takes_nan_for_zero_as_lightgbm_does() -> None:
    generator = np.random.default_rng(4)
    matrix = generator.normal(loc=1, size=(2_000, 3)).astype(np.float32)
    model = fit(matrix, matrix[:, 0] > 1)
    rows = np.full((1, 3), np.nan, dtype=np.float32)
    found = onnx_model.outputs(onnx_model.session(export(model, 3)), rows)
    assert found == pytest.approx(model.predict(np.zeros((1, 3), dtype=np.float32)), abs=1e-6)


def test_a_model_without_a_single_split_is_exported_as_its_base_rate() -> None:
    matrix = np.ones((300, 2), dtype=np.float32)
    session = onnx_model.session(export(fit(matrix, np.arange(300) % 3 == 0), 2))
    assert onnx_model.probabilities(session, matrix[:2]) == pytest.approx([1 / 3, 1 / 3], abs=1e-6)


def test_no_rows_give_no_probabilities(trained: Fitted) -> None:
    session = onnx_model.session(export(trained, 5))
    nothing = np.empty((0, 5), dtype=np.float32)
    assert onnx_model.probabilities(session, nothing).shape == (0,)
    assert onnx_model.outputs(session, nothing).shape == (0, 2)


def test_leaf_values_add_up_to_the_same_bits_in_any_order(trained: Fitted) -> None:
    values = trained.body.value
    generator = np.random.default_rng(5)
    sums = set()
    for _ in range(50):
        total = 0.0
        for value in generator.permutation(values):
            total += value
        sums.add(total)
    assert len(sums) == 1


def test_the_graph_takes_one_float_tensor_and_stays_within_what_bigquery_imports(
    trained: Fitted,
) -> None:
    model = onnx.load_from_string(export(trained, 5))
    onnx.checker.check_model(model, full_check=True)
    inputs = [(entry.name, entry.type.tensor_type.elem_type) for entry in model.graph.input]
    assert inputs == [("features", onnx.TensorProto.FLOAT)]
    assert [entry.name for entry in model.graph.output] == ["label", "probabilities"]
    assert model.ir_version == 8
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    assert opsets == [("", 15), ("ai.onnx.ml", 3)]


@pytest.mark.parametrize(
    ("opset", "ir", "size"), [(18, 8, 1000), (15, 9, 1000), (15, 8, 450_000_001)]
)
def test_a_model_beyond_what_bigquery_imports_is_refused(
    trained: Fitted, opset: int, ir: int, size: int
) -> None:
    model = onnx.load_from_string(export(trained, 5))
    onnx_export.check_limits(model, 1000)
    model.opset_import[0].version = opset
    model.ir_version = ir
    with pytest.raises(onnx_export.ExportError, match="BigQuery ML imports at most"):
        onnx_export.check_limits(model, size)


def test_a_map_instead_of_a_tensor_or_a_newer_tree_is_refused(trained: Fitted) -> None:
    model = onnx.load_from_string(export(trained, 5))
    model.opset_import[1].version = 4
    with pytest.raises(onnx_export.ExportError, match=r"'ai\.onnx\.ml': 4"):
        onnx_export.check_limits(model, 1000)
    model.opset_import[1].version = 3
    mapped = model.graph.output[1].type.sequence_type.elem_type.map_type
    mapped.key_type = onnx.TensorProto.INT64
    mapped.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    with pytest.raises(onnx_export.ExportError, match="probabilities that is no tensor"):
        onnx_export.check_limits(model, 1000)


def test_an_operator_that_bigquerys_runtime_lacks_is_refused(trained: Fitted) -> None:
    model = onnx.load_from_string(export(trained, 5))
    widened = next(node for node in model.graph.node if node.op_type == "Cast").output[0]
    model.graph.node.append(onnx.helper.make_node("IsNaN", [widened], ["missing"]))
    with pytest.raises(onnx_export.ExportError, match=r"has \('IsNaN', 'DOUBLE'\), which ONNX"):
        onnx_export.check_limits(model, 1000)


def test_a_model_beyond_the_limits_is_not_exported(
    trained: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "SIZE_LIMIT", 1000)
    with pytest.raises(onnx_export.ExportError, match="BigQuery ML imports at most"):
        export(trained, 5)


def test_trees_that_decide_otherwise_are_seen(trained: Fitted) -> None:
    """The comparison above can fail: thresholds rounded up send a row the other way."""
    wrong = replace(
        trained.body, threshold=np.nextafter(trained.body.threshold, np.float32(np.inf))
    )
    rows = np.random.default_rng(3).choice(trees.edges(trained.body), (20_000, 5))
    session = onnx_model.session(export(replace(trained, body=wrong), 5))
    assert np.abs(onnx_model.outputs(session, rows) - trained.predict(rows)).max() > 1e-3


def test_the_same_rows_give_the_same_bytes_in_every_process() -> None:
    script = """
import hashlib, numpy
from test_ml_onnx import export, features, fit
matrix = features(numpy.random.default_rng(0), 2_000)
print(hashlib.sha256(export(fit(matrix, matrix[:, 0] > 0), 5)).hexdigest())
"""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | {"PYTHONHASHSEED": str(seed)}
            | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in SEEDS_THAT_ORDER_SETS_BOTH_WAYS
    }
    assert len(hashes) == 1
