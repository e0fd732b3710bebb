"""Training and scoring in the warehouse, beside the libraries alone.

`python benchmarks/bench_ml.py [rows] [iterations]`: 60 float32 features, 5 % of them missing.
Each side runs in a process of its own, so that its peak memory can be told.

- training: `dbt run` of a model over a table on disk, from the query to the registered champion
  (the node's own time; the peak is that of the whole process), against LightGBM on the same
  matrix in memory with the same parameters and validation part; as a NumPy matrix of contiguous
  columns, and once more as the same columns handed over as Arrow's, as the warehouse does;
- scoring: `tapehouse_predict` over a table against ONNX Runtime on the same rows, 100 trees of
  at most 31 leaves, on all cores;
- one row: loading the model's file and scoring a row, then scoring a row again.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
FEATURES = [f"f{index}" for index in range(60)]
OPTIONS = {
    "model_type": "BOOSTED_TREE_CLASSIFIER",
    "input_label_cols": ["label"],
    "data_split_method": "CUSTOM",
    "data_split_col": "split",
    "learn_rate": 0.1,
    "max_tree_depth": 5,
    "early_stop": False,
}


def main() -> None:
    """Print every measurement as a line, and beside a goal whether it is met."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 5_300_000
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "tapehouse.duckdb"
        # A child's peak is never below what its parent held: this process holds next to nothing.
        measured("fill", database, rows)
        warehouse = measured("train_in_warehouse", database, iterations)
        alone = measured("train_alone", database, iterations)
        arrow = measured("train_alone_on_arrow", database, iterations)
        matrix = rows * len(FEATURES) * 4
        print(f"{rows:,} rows of {len(FEATURES)} features, {iterations} iterations")
        print(f"training in `dbt run`      {warehouse['seconds']:12.1f} s")
        print(f"LightGBM alone             {alone['seconds']:12.1f} s")
        ratio = warehouse["seconds"] / alone["seconds"]
        tell("ratio", ratio, "at most 1.15", is_met=ratio <= 1.15)
        print(f"LightGBM alone on Arrow    {arrow['seconds']:12.1f} s")
        print(f"ratio to that              {warehouse['seconds'] / arrow['seconds']:12.2f}")
        peaks = warehouse["peak"] / matrix
        tell("peak memory / matrix", peaks, "at most 2.5", is_met=peaks <= 2.5)
        print(f"of it before training      {warehouse['before'] / matrix:12.2f}")
        print(f"peak, LightGBM alone       {alone['peak'] / matrix:12.2f}")
        scored = measured("score_in_sql", database, 0)
        onnx = measured("score_alone", database, 0)
        rate = rows / scored["seconds"]
        print(f"scoring in SQL             {rate:12,.0f} rows/s")
        print(f"ONNX Runtime alone         {rows / onnx['seconds']:12,.0f} rows/s")
        ratio = onnx["seconds"] / scored["seconds"]
        tell(
            "ratio",
            ratio,
            "at least 0.5, or 1,000,000 rows/s in SQL",
            is_met=ratio >= 0.5 or rate >= 1e6,
        )
        if not np.isclose(scored["sum"], onnx["sum"], rtol=1e-12):
            sys.exit(f"the sums of the probabilities differ: {scored['sum']} and {onnx['sum']}")
        one = measured("one_row", database, 0)
        cold, warm = 1e3 * one["seconds"], 1e3 * one["again"]
        tell("load and score a row, ms", cold, "at most 50", is_met=cold <= 50)
        tell("score a row again, ms", warm, "at most 1", is_met=warm <= 1)


def tell(name: str, value: float, goal: str, *, is_met: bool) -> None:
    """Print a figure beside its goal."""
    print(f"{name:26} {value:12.2f}   goal: {goal}: {'met' if is_met else 'missed'}")


def fill(database: Path, rows: int) -> dict[str, float]:
    """Write the table: labels lean on two features, every fifth row validates."""
    columns = ", ".join(
        f"case when random() < 0.05 then null else (random() - 0.5)::float end as {name}"
        for name in FEATURES
    )
    with duckdb.connect(str(database)) as connection:
        connection.execute("select setseed(0.5)")
        connection.execute(
            f"create table features as select i, {columns} from range({rows}) as numbers(i)"
        )
        connection.execute(
            "create table dataset as select * exclude (i), "
            "random() < 0.5 + coalesce(f0, 0) + coalesce(f1, 0) * coalesce(f2, 0) as label, "
            "case when i % 5 = 0 then 'validation' else 'train' end as split, "
            "timestamp '2025-01-01' + to_minutes(i) as label_end_at from features"
        )
        connection.execute("drop table features")
    return {}


def measured(step: str, database: Path, count: int) -> dict[str, Any]:
    """Run a step in a process of its own and return what it measured."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, str(database), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def train_in_warehouse(database: Path, iterations: int) -> dict[str, float]:
    """Train by `dbt run`, from the file to the registry."""
    from dbt.cli.main import dbtRunner

    project = database.parent / "project"
    (project / "models").mkdir(parents=True)
    options = {
        **OPTIONS,
        "max_iterations": iterations,
        "materialized": "ml_model",
        "label_end_column": "label_end_at",
    }
    (project / "models" / "ml_bench.sql").write_text(
        f"{{{{ config(**{options!r}) }}}} select * from dataset"
    )
    settings = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())
    kept = {key: settings[key] for key in ("name", "version", "profile", "flags", "vars")}
    macros = {"macro-paths": [str(ROOT / "dbt_project" / "macros")]}
    (project / "dbt_project.yml").write_text(yaml.safe_dump(kept | macros))
    os.environ["TAPEHOUSE_DATABASE"] = str(database)
    arguments = ("--quiet", "run", "--project-dir", str(project), "--profiles-dir", str(ROOT))
    logs = ("--log-path", str(database.parent / "logs"))
    # LightGBM, scikit-learn and the rest are there when the training begins.
    importlib.import_module("ml.training")
    importlib.import_module("ml.trainers.lightgbm_trees")
    before = peak()
    done = dbtRunner().invoke([*arguments, *logs])
    if not done.success:
        sys.exit(str(done.exception or [entry.message for entry in done.result]))
    return {"seconds": done.result[0].execution_time, "before": before}


def train_alone(database: Path, iterations: int, *, on_arrow: bool = False) -> dict[str, float]:
    """Train LightGBM on matrices that are in memory already."""
    import lightgbm

    from ml import options
    from ml.trainers import Part, Task, lightgbm_trees

    task = Task("binary", ("false", "true"))
    training, validation = (
        Part(*matrix(database, f"split = '{part}'")) for part in ("train", "validation")
    )
    parsed = options.parse(OPTIONS | {"max_iterations": iterations})
    parameters = lightgbm_trees.parameters(task, training, parsed.training, 0)

    def dataset(part: Part, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
        if on_arrow:
            return lightgbm_trees.dataset(part, parameters, reference)
        return lightgbm.Dataset(part.matrix, part.labels, reference=reference, params=parameters)

    started = perf_counter()
    train_set = dataset(training)
    validation_set = dataset(validation, train_set)
    lightgbm.train(parameters, train_set, num_boost_round=iterations, valid_sets=[validation_set])
    return {"seconds": perf_counter() - started}


def train_alone_on_arrow(database: Path, iterations: int) -> dict[str, float]:
    """Train LightGBM on the same columns as Arrow's, which are not copied."""
    return train_alone(database, iterations, on_arrow=True)


def score_in_sql(database: Path, _: int) -> dict[str, float]:
    """Score the table by the function of dbt's connection."""
    from ml import onnx_model  # noqa: F401
    from ml.plugin import create_functions

    with duckdb.connect(str(database)) as connection:
        create_functions(connection, database=database)
        version = champion(connection)[0]
        started = perf_counter()
        ((total,),) = connection.execute(
            f"select sum(tapehouse_predict('{version}', [{', '.join(FEATURES)}])) from dataset"
        ).fetchall()
        return {"seconds": perf_counter() - started, "sum": total}


def score_alone(database: Path, _: int) -> dict[str, float]:
    """Score the same rows in memory by ONNX Runtime on all cores."""
    import onnxruntime

    features = np.ascontiguousarray(matrix(database, "true")[0])
    session = onnxruntime.InferenceSession(
        model_file(database).read_bytes(), providers=["CPUExecutionProvider"]
    )
    started = perf_counter()
    found = session.run(["probabilities"], {"features": features})[0][:, 1]
    return {"seconds": perf_counter() - started, "sum": float(found.sum())}


def one_row(database: Path, _: int) -> dict[str, float]:
    """Load the model's file and score a row; then score a row a thousand times."""
    from ml import onnx_model

    path = model_file(database)
    row = np.zeros((1, len(FEATURES)), dtype=np.float32)
    started = perf_counter()
    session = onnx_model.load(path)
    onnx_model.probabilities(session, row)
    seconds = perf_counter() - started
    started = perf_counter()
    for _ in range(1_000):
        onnx_model.probabilities(session, row)
    return {"seconds": seconds, "again": (perf_counter() - started) / 1_000}


def matrix(database: Path, where: str) -> tuple[Any, Any]:
    """Return features, each contiguous, and labels."""
    with duckdb.connect(str(database), read_only=True) as connection:
        source = f"from dataset where {where}"
        ((rows,),) = connection.execute(f"select count(*) {source}").fetchall()
        features = np.empty((rows, len(FEATURES)), dtype=np.float32, order="F")
        labels, filled = np.empty(rows), 0
        columns = ", ".join(f"coalesce({name}, 'nan'::float)" for name in FEATURES)
        reader = connection.sql(f"select {columns}, label::double {source}").to_arrow_reader(50_000)
        for batch in reader:
            part = slice(filled, filled + batch.num_rows)
            for position in range(len(FEATURES)):
                features[part, position] = batch.column(position).to_numpy()
            labels[part] = batch.column(len(FEATURES)).to_numpy()
            filled += batch.num_rows
    return features, labels


def peak() -> int:
    """Return the most bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def champion(connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """Return version and sha256 of the model."""
    found: tuple[str, str] = connection.execute(
        "select model_version, onnx_sha256 from registry.active_models"
    ).fetchall()[0]
    return found


def model_file(database: Path) -> Path:
    """Return the model's file."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return database.parent / "models" / f"{champion(connection)[1]}.onnx"


STEPS = {
    step.__name__: step
    for step in (
        *(fill, train_in_warehouse, train_alone, train_alone_on_arrow),
        *(score_in_sql, score_alone, one_row),
    )
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        result = STEPS[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))
        print(json.dumps({**result, "peak": peak()}))
    else:
        main()
