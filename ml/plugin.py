"""The dbt-duckdb plugin: training and prediction as functions of dbt's connection."""

import json
import subprocess
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin
from duckdb.func import PythonUDFType

from ingest.settings import PROJECT_ROOT, Settings
from ingest.warehouse import RAW_SCHEMA, wait_for_writer
from ml import registry

if TYPE_CHECKING:
    import onnxruntime

    from ml.explanation import Explainer


class Plugin(BasePlugin):
    """Prepare the warehouse file, then lend dbt's connection a trainer and a predictor.

    ``tapehouse_train(model_name, sql, config)`` trains a model and says in JSON what it did.
    ``tapehouse_predict(model_version, features)`` gives the probability that the label is true,
    or the value of a regression; ``tapehouse_probabilities`` that of each class, in their order.
    ``tapehouse_explain`` gives per class the attributions of the features, baseline and score.
    """

    def update_connection_config(
        self,
        creds: DuckDBCredentials,
        config: dict[str, Any],  # noqa: ARG002
    ) -> None:
        """Create the directory of the database file and wait until no one else writes to it."""
        self.database = Path(creds.path)
        if creds.path != ":memory:":
            self.database.parent.mkdir(parents=True, exist_ok=True)
            wait_for_writer(self.database, timeout_s=Settings().writer_timeout_s)

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Create the raw tables where nothing was ingested yet, the registry and the functions."""
        conn.execute(RAW_SCHEMA.read_text())
        registry.create(conn)
        create_functions(conn, database=self.database)


def create_functions(connection: duckdb.DuckDBPyConnection, *, database: Path) -> None:
    """Give a connection, and every cursor of it, the functions of this module.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse, open to write.
    database : Path
        The warehouse file; models lie in ``models/`` beside it.
    """
    one_at_a_time = Lock()
    # The connection keeps its functions; were they to keep the connection, none would ever go.
    lender = ref(connection)

    def cursor() -> duckdb.DuckDBPyConnection:
        lending = lender()
        if lending is None:
            raise ReferenceError(f"the connection to {database} is gone")
        return lending.cursor()

    def train(model_name: str, sql: str, config: str) -> str:
        # LightGBM takes a second to import, and most of dbt's commands train nothing.
        from ml import training

        with one_at_a_time, cursor() as own:
            done = training.train(
                own,
                model_name,
                sql,
                database=database,
                git_revision=git_revision(),
                **json.loads(config),
            )
        return json.dumps(done)

    @cache
    def session(model_version: str) -> "onnxruntime.InferenceSession":
        from ml import onnx_model

        with cursor() as own:
            found = own.execute(
                "select any_value(onnx_sha256) from registry.models where model_version = ?",
                [model_version],
            ).fetchone()
            if found is None or found[0] is None:
                raise registry.ModelMissingError(
                    f"the registry of {database} has no model of version {model_version}"
                )
            return onnx_model.load(registry.model_file(own, database, found[0]))

    def predict(model_version: pyarrow.Array, features: pyarrow.Array) -> pyarrow.Array:
        from ml import onnx_model

        model = session(model_version[0].as_py())
        return pyarrow.array(onnx_model.probabilities(model, _matrix(features)))

    def probabilities(model_version: pyarrow.Array, features: pyarrow.Array) -> pyarrow.Array:
        from ml import onnx_model

        model = session(model_version[0].as_py())
        found = onnx_model.outputs(model, _matrix(features))
        starts = pyarrow.array(np.arange(len(found) + 1, dtype=np.int32) * found.shape[1])
        return pyarrow.ListArray.from_arrays(starts, pyarrow.array(found.reshape(-1)))

    @cache
    def explainer(model_version: str) -> "Explainer":
        from ml import explanation

        with cursor() as own:
            found = own.execute(
                "select engine, native, len(features), transform, origins from registry.models "
                "where model_version = ? order by registered_at desc limit 1",
                [model_version],
            ).fetchone()
        if found is None or found[1] is None:
            raise registry.ModelMissingError(
                f"the registry of {database} has no model of version {model_version} that was "
                "trained since models can be explained: train it anew"
            )
        engine, native, features, graph, origins = found
        return explanation.explainer(
            engine, native, features=features, graph=graph, origins=origins
        )

    def explain(model_version: pyarrow.Array, features: pyarrow.Array) -> pyarrow.Array:
        rows = _matrix(features)
        found = explainer(model_version[0].as_py())(rows)
        starts = np.arange(len(rows) + 1, dtype=np.int32) * (found.shape[1] * found.shape[2])
        return pyarrow.ListArray.from_arrays(
            pyarrow.array(starts), pyarrow.array(found.reshape(-1))
        )

    connection.create_function(
        "tapehouse_train", train, ["varchar"] * 3, "varchar", side_effects=True
    )
    connection.create_function(
        "tapehouse_predict", predict, ["varchar", "float[]"], "double", type=PythonUDFType.ARROW
    )
    connection.create_function(
        "tapehouse_probabilities",
        probabilities,
        ["varchar", "float[]"],
        "double[]",
        type=PythonUDFType.ARROW,
    )
    connection.create_function(
        "tapehouse_explain",
        explain,
        ["varchar", "float[]"],
        "double[]",
        type=PythonUDFType.ARROW,
    )


def git_revision() -> str | None:
    """Return the commit of the project's checkout, None where there is none."""
    try:
        found = subprocess.run(
            ["git", "-C", PROJECT_ROOT, "rev-parse", "HEAD"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _matrix(features: pyarrow.Array) -> npt.NDArray[np.float32]:
    lists = features.combine_chunks() if isinstance(features, pyarrow.ChunkedArray) else features
    values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return values.reshape(len(lists), -1)
