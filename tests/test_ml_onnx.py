"""The ONNX form of a model decides as the model does."""

import os
import subprocess
import sys

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ml import onnx_export, onnx_model

ROWS = 20_000
SEEDS_THAT_ORDER_SETS_BOTH_WAYS = (0, 20)


def features(generator: np.random.Generator, rows: int = ROWS) -> npt.NDArray[np.float32]:
    """Return a continuous, a rounded, a sparse, a gappy and an integer column."""
    columns = generator.normal(size=(rows, 5)).astype(np.float32)
    columns[:, 1] = np.round(columns[:, 1], 1)
    columns[generator.random(rows) < 0.5, 2] = 0
    columns[generator.random(rows) < 0.1, 3] = np.nan
    columns[:, 4] = generator.integers(0, 5, rows)
    return columns


def booster(matrix: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> lightgbm.Booster:
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1}
    return lightgbm.train(
        parameters, lightgbm.Dataset(matrix, label=labels.astype(np.float32)), num_boost_round=60
    )


@pytest.fixture(scope="module")
def trained() -> tuple[lightgbm.Booster, npt.NDArray[np.float32]]:
    generator = np.random.default_rng(1)
    matrix = features(generator)
    noise = generator.normal(size=ROWS)
    labels = matrix[:, 0] + matrix[:, 1] / 2 + np.nan_to_num(matrix[:, 3]) + noise > 0
    return booster(matrix, labels), matrix


def test_probabilities_agree_on_fresh_rows(
    trained: tuple[lightgbm.Booster, npt.NDArray[np.float32]],
) -> None:
    model, _ = trained
    rows = features(np.random.default_rng(2))
    session = onnx_model.session(onnx_export.export(model))
    assert np.abs(onnx_model.probabilities(session, rows) - model.predict(rows)).max() <= 1e-6


def test_probabilities_agree_at_thresholds_their_neighbours_zero_and_nan(
    trained: tuple[lightgbm.Booster, npt.NDArray[np.float32]],
) -> None:
    model, _ = trained
    down = onnx_export.thresholds(model)
    up = np.nextafter(down, np.float32(np.inf))
    tiny = np.array([0, -0.0, 1e-35, -1e-35, 1e-40, -1e-40, np.nan], dtype=np.float32)
    edges = np.concatenate([down, up, np.nextafter(down, np.float32(-np.inf)), np.repeat(tiny, 20)])
    rows = np.random.default_rng(3).choice(edges, (200_000, 5))
    session = onnx_model.session(onnx_export.export(model))
    assert np.abs(onnx_model.probabilities(session, rows) - model.predict(rows)).max() <= 1e-6


def test_a_feature_without_missing_values_in_training_takes_nan_for_zero_as_lightgbm_does() -> None:
    generator = np.random.default_rng(4)
    matrix = generator.normal(loc=1, size=(2_000, 3)).astype(np.float32)
    model = booster(matrix, matrix[:, 0] > 1)
    rows = np.full((1, 3), np.nan, dtype=np.float32)
    session = onnx_model.session(onnx_export.export(model))
    assert onnx_model.probabilities(session, rows) == pytest.approx(
        model.predict(np.zeros((1, 3))), abs=1e-6
    )


def test_a_model_without_a_single_split_is_exported_as_its_base_rate() -> None:
    matrix = np.ones((300, 2), dtype=np.float32)
    session = onnx_model.session(onnx_export.export(booster(matrix, np.arange(300) % 3 == 0)))
    assert onnx_model.probabilities(session, matrix[:2]) == pytest.approx([1 / 3, 1 / 3], abs=1e-6)


def test_no_rows_give_no_probabilities(
    trained: tuple[lightgbm.Booster, npt.NDArray[np.float32]],
) -> None:
    session = onnx_model.session(onnx_export.export(trained[0]))
    assert onnx_model.probabilities(session, np.empty((0, 5), dtype=np.float32)).shape == (0,)


def test_the_graph_takes_one_float_tensor_and_stays_within_what_bigquery_imports(
    trained: tuple[lightgbm.Booster, npt.NDArray[np.float32]],
) -> None:
    model = onnx.load_from_string(onnx_export.export(trained[0]))
    inputs = [(entry.name, entry.type.tensor_type.elem_type) for entry in model.graph.input]
    assert inputs == [("features", onnx.TensorProto.FLOAT)]
    assert [entry.name for entry in model.graph.output] == ["label", "probabilities"]
    assert {node.op_type for node in model.graph.node}.isdisjoint({"ZipMap"})
    assert model.ir_version <= 8
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    assert opsets == [("", 9), ("ai.onnx.ml", 1)]


def test_the_same_rows_give_the_same_bytes_in_every_process() -> None:
    script = """
import hashlib, lightgbm, numpy
from ml import onnx_export
matrix = numpy.random.default_rng(0).normal(size=(2_000, 3))
data = lightgbm.Dataset(matrix, label=(matrix[:, 0] > 0).astype(float))
parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
print(hashlib.sha256(onnx_export.export(lightgbm.train(parameters, data, 5))).hexdigest())
"""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in SEEDS_THAT_ORDER_SETS_BOTH_WAYS
    }
    assert len(hashes) == 1
