"""Files of every kind of model: their decisions are the libraries', also in BigQuery's runtime."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_ml_onnx import features

from ml import onnx_export, onnx_model, transform, trees, vocabulary
from ml.trainers import Fitted, Part, Task, trainer

COLUMNS = 5
TYPES = {
    "lightgbm": "BOOSTED_TREE",
    "forest": "RANDOM_FOREST",
    "xgboost": "BOOSTED_TREE",
    "catboost": "BOOSTED_TREE",
    "transformed": "BOOSTED_TREE",
    "linear": "",
    "neural": "DNN",
}
# Every function of TRANSFORM; f0 and f1 are continuous, f2 is often 0, f3 has gaps, f4 is 0 to 4.
CALLS = {
    "f0": "ML.MIN_MAX_SCALER",
    "f1": "ML.BUCKETIZE(-0.5, 0.3)",
    "f2": "ML.QUANTILE_BUCKETIZE(4)",
    "f3": "ML.IMPUTER('median')",
    "f4": "ML.ONE_HOT_ENCODER",
}
TASKS = {
    "two": Task("binary", ("false", "true")),
    "three": Task("multiclass", ("down", "flat", "up")),
    "value": Task("regression"),
}
KINDS = [f"{engine}-{task}" for engine in TYPES for task in TASKS]
# What BigQuery ML imports models with; a python of an environment that has it (and NumPy below 2).
BIGQUERYS_RUNTIME = os.environ.get("TAPEHOUSE_ONNXRUNTIME_1_12", "")
RUN = """
import sys
import numpy
import onnxruntime
assert onnxruntime.__version__.startswith("1.12."), onnxruntime.__version__
rows = numpy.load("rows.npy")
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
for kind in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f"{kind}.onnx", options)
    outputs = session.run(None, {"features": rows})
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, outputs))
    numpy.save(f"{kind}.npy", found["probabilities" if "probabilities" in found else "prediction"])
"""


@dataclass(frozen=True)
class Exported:
    """A model, what turns features into what it takes, and its file."""

    fitted: Fitted
    graph: bytes | None
    onnx: bytes

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return self.fitted.predict(transform.apply(self.graph, rows))


def exported(kind: str) -> Exported:
    engine, name = kind.split("-")
    task = TASKS[name]
    generator = np.random.default_rng(1)
    matrix = features(generator, 4_000)
    value = np.nan_to_num(matrix).sum(axis=1) + generator.normal(size=len(matrix))
    labels = {"two": value > 1, "three": np.digitize(value, [0, 2]), "value": value}[name]
    model_type = TYPES[engine] + ("_REGRESSOR" if name == "value" else "_CLASSIFIER")
    if engine == "linear":
        model_type = "LINEAR_REG" if name == "value" else "LOGISTIC_REG"
    few = {"activation_fn": "TANH" if name == "three" else "RELU"} if engine == "neural" else {}
    few |= {"max_iterations": 20, "max_tree_depth": 5, "num_parallel_tree": 20, "l2_reg": 1.0}
    known = vocabulary.defaults(model_type)
    options = known | {option: few[option] for option in few if option in known}
    library = "lightgbm" if engine in ("forest", "transformed") else engine
    names = [f"f{position}" for position in range(COLUMNS)]
    calls = CALLS if engine in ("transformed", "neural") else {}
    before = transform.fit(matrix, names, calls, standardize=library in transform.STANDARDIZED)
    graph = before.onnx if before else None
    part = Part(transform.apply(graph, matrix), labels.astype(np.float64))
    fitted = trainer(library).fit(task, part, part, options, 1)
    kinds = {"two": "BOOLEAN", "three": "VARCHAR", "value": "DOUBLE"}
    onnx = onnx_export.export(
        fitted.body, task, features=COLUMNS, labels=kinds[name], transform=before
    )
    return Exported(fitted, graph, onnx)


def asked(model: Exported, count: int, seed: int) -> npt.NDArray[np.float32]:
    """Rows as the data has them and, of trees, as many at and just below thresholds, or missing."""
    generator = np.random.default_rng(seed)
    rows = features(generator, count)
    body = model.fitted.body
    if isinstance(body, trees.Trees):
        edges = trees.edges(body).astype(np.float32)
        edges = edges[np.abs(edges) < 1e38]
        below = np.nextafter(edges, np.float32(-np.inf))
        edges = np.concatenate([edges, below, np.full(len(edges) // 10 + 1, np.nan, np.float32)])
        rows[: count // 2] = generator.choice(edges, (count // 2, COLUMNS))
    else:
        wide = rows[: count // 2] * 10
        rows[: count // 2] = np.where(generator.random(wide.shape) < 0.1, np.nan, wide)
    return rows


def decided(found: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The class of each row; of equal probabilities the first."""
    return found.argmax(axis=1)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_no_decision_of_a_file_differs_on_a_million_rows(kind: str) -> None:
    model = exported(kind)
    session = onnx_model.session(model.onnx)
    largest, difference, others = 0.0, 0.0, 0
    for seed in range(10):
        rows = asked(model, 100_000, seed)
        found, expected = onnx_model.outputs(session, rows), model.predict(rows)
        largest = max(largest, float(np.abs(expected).max()))
        difference = max(difference, float(np.abs(found - expected).max()))
        others += int(np.count_nonzero(decided(found) != decided(expected)))
    assert others == 0
    assert difference <= 1e-6 * (largest if kind.endswith("value") else 1)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Exported]]:
    """What ONNX Runtime 1.12 said of rows, kind by kind."""
    if not BIGQUERYS_RUNTIME:
        pytest.skip("TAPEHOUSE_ONNXRUNTIME_1_12 names no python with onnxruntime 1.12")
    folder = tmp_path_factory.mktemp("runtime")
    models = {kind: exported(kind) for kind in KINDS}
    rows = [asked(model, 2_000, seed) for seed, model in enumerate(models.values())]
    np.save(folder / "rows.npy", np.concatenate(rows))
    for kind, model in models.items():
        (folder / f"{kind}.onnx").write_bytes(model.onnx)
    subprocess.run(
        [BIGQUERYS_RUNTIME, "-c", RUN, *models],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        check=True,
    )
    return folder, models


@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_of_bigquery_takes_the_file_and_says_the_same(
    runtime: tuple[Path, dict[str, Exported]], kind: str
) -> None:
    folder, models = runtime
    rows = np.load(folder / "rows.npy")
    found = np.load(folder / f"{kind}.npy").reshape(len(rows), -1)
    expected = onnx_model.outputs(onnx_model.session(models[kind].onnx), rows)
    assert np.array_equal(decided(found), decided(expected))
    assert np.abs(found - expected).max() <= 1e-9 * max(1, np.abs(expected).max())
