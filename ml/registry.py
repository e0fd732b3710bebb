"""The registry of models in the warehouse, and their files beside it."""

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

SCHEMA = Path(__file__).with_name("registry.sql")
_COLUMNS = (
    "model_name, model_version, role, task, features, label, onnx_sha256, train_end_at, "
    "validation_end_at, classes"
)
MIGRATION = Path(__file__).with_name("registry_before_stages.sql")


@dataclass(frozen=True)
class Model:
    """The champion of a model.

    Parameters
    ----------
    name : str
        The model's name, that of its dbt node.
    version : str
        First 16 hexadecimal digits of `sha256`.
    role : {"signal", "member", "baseline"}
        A signal's model is scored and traded; a member is predicted with, for ensembles; a
        baseline is only compared with.
    task : {"binary", "multiclass", "regression"}
        Kind of label.
    features : tuple of str
        The columns of the input tensor, in order.
    label : str
        The column that was learned.
    sha256 : str
        Address of the ONNX file.
    train_end_at, validation_end_at : datetime
        Naive UTC; when the last label of the training and of the validation part was decided.
    classes : tuple of str
        The labels in the order of the probabilities; empty for a regression.
    """

    name: str
    version: str
    role: str
    task: str
    features: tuple[str, ...]
    label: str
    sha256: str
    train_end_at: datetime
    validation_end_at: datetime
    classes: tuple[str, ...] = ()


class ModelMissingError(RuntimeError):
    """The registry does not hold the model that was asked for."""


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the registry's tables where they are missing, and bring an older registry up."""
    if _exists(connection, "stages"):
        return
    if _exists(connection, "models"):
        connection.execute(MIGRATION.read_text())
    connection.execute(SCHEMA.read_text())


def require(connection: duckdb.DuckDBPyConnection) -> None:
    """See to it that there is a registry of the present form.

    Raises
    ------
    ModelMissingError
        If there is none.
    """
    if not _exists(connection, "stages"):
        raise ModelMissingError(
            "the warehouse has no registry of models, or one from before versions had stages: "
            "run `dbt build --project-dir dbt_project` first"
        )


def active_models(
    connection: duckdb.DuckDBPyConnection, *, role: str | None = "signal"
) -> list[Model]:
    """Return the champion of each model, by name.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    role : str or None
        Only models of this role; None is all.

    Returns
    -------
    list of Model
        Empty where nothing has been trained yet.
    """
    if not _exists(connection, "stages"):
        return []
    rows = connection.execute(
        f"select {_COLUMNS} from registry.active_models where role = coalesce(?, role) "
        "order by model_name",
        [role],
    ).fetchall()
    return [_model(*row) for row in rows]


def shadow_models(connection: duckdb.DuckDBPyConnection) -> list[Model]:
    """Return the versions that run beside the champions without being traded, by name."""
    if not _exists(connection, "stages"):
        return []
    rows = connection.execute(
        f"""
        with
        latest as (
            select model_name, model_version, arg_max(stage, changed_at) as stage
            from registry.stages
            group by model_name, model_version
        )
        select {_COLUMNS}
        from registry.models inner join latest using (model_name, model_version)
        where latest.stage = 'shadow'
        qualify row_number() over (
            partition by model_name, model_version order by registered_at desc
        ) = 1
        order by model_name, model_version
        """
    ).fetchall()
    return [_model(*row) for row in rows]


def _model(
    name: str,
    version: str,
    role: str,
    task: str,
    features: list[str],
    label: str,
    sha256: str,
    train_end_at: datetime,
    validation_end_at: datetime,
    classes: list[str] | None,
) -> Model:
    return Model(
        *(name, version, role, task, tuple(features), label, sha256),
        *(train_end_at, validation_end_at, tuple(classes or ())),
    )


def model_file(connection: duckdb.DuckDBPyConnection, database: Path, sha256: str) -> Path:
    """Return the ONNX file of a model, written from the registry where it is missing.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    database : Path
        The warehouse file; models lie in ``models/`` beside it.
    sha256 : str
        Address of the file.

    Raises
    ------
    ModelMissingError
        If the registry has no such model.
    """
    path = database.parent / "models" / f"{sha256}.onnx"
    if path.is_file():
        return path
    ((onnx,),) = connection.execute(
        "select any_value(onnx) from registry.models where onnx_sha256 = ?", [sha256]
    ).fetchall()
    if onnx is None:
        raise ModelMissingError(
            f"the registry of {database} has no model with sha256 {sha256}: "
            "run `dbt build --select +ml_order_flow` to train one"
        )
    return write_model_file(database, onnx)


def write_model_file(database: Path, onnx: bytes) -> Path:
    """Write a model to the file named by its sha256, whole or not at all."""
    path = database.parent / "models" / f"{hashlib.sha256(onnx).hexdigest()}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        with partial.open("wb") as file:
            file.write(onnx)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    return path


def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    return bool(
        connection.execute(
            "select 1 from duckdb_tables() where database_name = current_database() "
            "and schema_name = 'registry' and table_name = ?",
            [table],
        ).fetchall()
    )
