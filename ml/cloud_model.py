"""A version's ONNX file in Cloud Storage, for BigQuery to import."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb

from ml import gates, onnx_export
from ml.versions import Version

if TYPE_CHECKING:
    from google.cloud import storage

# What `ml_recorded` reads of an imported model on BigQuery: the columns of each table.
RECORDED = {
    "training_info": "training_run, iteration, loss, eval_loss, learning_rate, duration_ms",
    "trials": "trial_id, hyperparameters::varchar, hparam_tuning_evaluation_metrics::varchar, "
    "training_loss, eval_loss, status, error_message, is_optimal",
    "feature_info": "input, min, max, mean, median, stddev, category_count, null_count, dimension",
    "feature_importance": "feature, importance_weight, importance_gain, importance_cover",
    "global_explanations": "class_name, feature, attribution",
    "calibration": "method, x, y",
}
# As the macro `ml_trial_count` counts them.
TRIALS = """
    select count(*)
    from registry.trials
    semi join (from registry.models where role <> 'baseline') using (model_name, model_version)
"""


class ExportRefusedError(RuntimeError):
    """A version may not be exported, or its file could not be stored."""


def describe(connection: duckdb.DuckDBPyConnection, version: Version) -> dict[str, Any]:
    """Return what dbt needs to know of a version that BigQuery imports, as JSON.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    version : Version
        From `versions.find`.

    Returns
    -------
    dict
        ``version``, ``features`` in the order of the tensor, ``classes`` in the order of the
        probabilities (empty for a regression), ``train_end_at`` and ``validation_end_at`` (UTC),
        ``trial_count`` of all models but baselines, and of each table of `RECORDED` its rows.
    """
    facts = version.facts
    found: dict[str, Any] = {
        "version": version.version,
        "features": list(facts["features"]),
        "classes": list(facts["classes"] or ()),
        "train_end_at": _instant(facts["train_end_at"]),
        "validation_end_at": _instant(facts["validation_end_at"]),
        "trial_count": connection.execute(TRIALS).fetchall()[0][0],
    }
    for table, columns in RECORDED.items():
        rows = connection.execute(
            f"select distinct {columns} from registry.{table} "
            "where model_name = ? and model_version = ? order by all",
            [version.name, version.version],
        ).fetchall()
        found[table] = [list(row) for row in rows]
    return found


def check(connection: duckdb.DuckDBPyConnection, version: Version) -> bytes:
    """Return the ONNX file of a version that BigQuery can import and that is what was trained.

    Raises
    ------
    ExportRefusedError
        If the file is not whole, says something else of the parity sample than when it was
        trained, or is beyond what BigQuery ML imports.
    """
    import onnx

    gate = gates.whole(connection, version)
    if not gate.is_passed:
        raise ExportRefusedError(f"{version.name} {version.version}: {gate.name}: {gate.finding}")
    row = connection.execute(
        "select onnx from registry.models where model_name = ? and model_version = ? "
        "order by registered_at desc limit 1",
        [version.name, version.version],
    ).fetchall()[0]
    content = bytes(row[0])
    try:
        onnx_export.check_limits(onnx.load_from_string(content), len(content))
    except onnx_export.ExportError as error:
        raise ExportRefusedError(f"{version.name} {version.version}: {error}") from error
    return content


def client() -> "storage.Client":
    """Return the client of Cloud Storage, of the emulator where STORAGE_EMULATOR_HOST names one.

    Raises
    ------
    ExportRefusedError
        If the extra is not installed, or there are no credentials.
    """
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ModuleNotFoundError as error:
        raise ExportRefusedError(
            "google-cloud-storage is not installed: pip install tapehouse[bigquery]"
        ) from error
    try:
        return storage.Client()
    except (DefaultCredentialsError, OSError) as error:
        raise ExportRefusedError(
            "there are no Google credentials or no project: run `gcloud auth application-default "
            "login` or set GOOGLE_APPLICATION_CREDENTIALS (docs/guides/bigquery-ml.md)"
        ) from error


def upload(content: bytes, *, name: str, sha256: str, to: str, client: "storage.Client") -> str:
    """Store a model's file under the name of its hash, once, and return its address.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    name, sha256 : str
        The model's name, and the hash that names the file.
    to : str
        ``gs://<bucket>`` or ``gs://<bucket>/<folder>``.
    client : google.cloud.storage.Client
        Retries what is worth it; a checksum is compared by Cloud Storage.

    Raises
    ------
    ExportRefusedError
        If `to` names no bucket, or another file lies at the address.
    """
    from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed

    bucket, _, folder = to.removeprefix("gs://").strip("/").partition("/")
    if not to.startswith("gs://") or not bucket:
        raise ExportRefusedError(f"{to} is no address as gs://bucket/folder")
    path = "/".join(part for part in (folder, name, f"{sha256}.onnx") if part)
    blob = client.bucket(bucket).blob(path)
    try:
        blob.upload_from_string(
            content,
            content_type="application/octet-stream",
            checksum="crc32c",
            if_generation_match=0,
        )
    except PreconditionFailed:
        blob.reload()
        if blob.size != len(content):
            raise ExportRefusedError(
                f"gs://{bucket}/{path} is another file of {blob.size:,} bytes: remove it"
            ) from None
    except GoogleAPICallError as error:
        raise ExportRefusedError(f"gs://{bucket}/{path}: {error.message}") from error
    return f"gs://{bucket}/{path}"


def variable(models: dict[str, dict[str, Any]]) -> str:
    """Return dbt's variable ``imported_models`` for ``--vars``, as one line of JSON."""
    return json.dumps({"imported_models": models}, separators=(",", ":"))


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}+00"
