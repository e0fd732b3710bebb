"""Scoring in SQL with the function of dbt's connection, beside ONNX Runtime alone.

`python benchmarks/bench_scoring.py [rows]`: a LightGBM model of 100 trees of depth 5 over 60
features; both sides read the same float32 rows and run the same ONNX file, on one thread a call.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb
import numpy as np

from ml import onnx_model, registry
from ml.plugin import create_functions

FEATURES = 60


def main() -> None:
    """Print both rates and their ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    names = [f"f{index}" for index in range(FEATURES)]
    columns = ", ".join(f"(random() - 0.5)::float as {name}" for name in names)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "tapehouse.duckdb"
        with duckdb.connect(str(database)) as connection:
            registry.create(connection)
            create_functions(connection, database=database)
            connection.execute("select setseed(0.5)")
            connection.execute(
                f"create table features as select i, {columns}, from range({rows}) as numbers(i)"
            )
            connection.execute(
                "create table dataset as select * exclude (i), random() < 0.5 + f0 + f1 as label,"
                " case when i % 5 = 0 then 'validation' else 'train' end as split,"
                " timestamp '2025-01-01' + to_minutes(i) as label_end_at from features"
            )
            version = train(connection)
            sha256 = connection.execute("select onnx_sha256 from registry.models").fetchone()
            session = onnx_model.load(registry.model_file(connection, database, sha256[0]))

            feature_list = f"[{', '.join(names)}]"
            started = perf_counter()
            in_sql = connection.execute(
                f"select sum(tapehouse_predict('{version}', {feature_list})) from dataset"
            ).fetchone()[0]
            sql = perf_counter() - started

            fetched = connection.execute(f"select {', '.join(names)} from dataset").fetchnumpy()
            matrix = np.column_stack([fetched[name] for name in names])
            started = perf_counter()
            alone = onnx_model.probabilities(session, matrix).sum()
            onnx = perf_counter() - started
    if not np.isclose(in_sql, alone, rtol=1e-12):
        sys.exit(f"the sums of the probabilities differ: {in_sql} in SQL, {alone} alone")
    print(f"{rows:,} rows of {FEATURES} features")
    print(f"in SQL              {rows / sql:12,.0f} rows/s")
    print(f"ONNX Runtime alone  {rows / onnx:12,.0f} rows/s")
    print(f"ratio               {onnx / sql:12.2f}")


def train(connection: duckdb.DuckDBPyConnection) -> str:
    """Train the model inside the database and return its version."""
    config = {
        "given": {
            "model_type": "BOOSTED_TREE_CLASSIFIER",
            "input_label_cols": ["label"],
            "data_split_method": "CUSTOM",
            "data_split_col": "split",
            "max_iterations": 100,
            "max_tree_depth": 5,
            "early_stop": False,
        },
        "label_end_column": "label_end_at",
        "seed": 1,
    }
    done = connection.execute(
        "select tapehouse_train('ml_bench', 'select * from dataset limit 50000', ?)",
        [json.dumps(config)],
    ).fetchone()
    return str(json.loads(done[0])["model_version"])


if __name__ == "__main__":
    main()
