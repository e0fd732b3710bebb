"""BigQuery ML itself: a few hundred rows are learned from, asked about, judged and exported.

Only the service can: the tests want `TAPEHOUSE_BIGQUERY_TEST_PROJECT` and, for files, a bucket of
the same location, `TAPEHOUSE_BIGQUERY_TEST_BUCKET` (`gs://name` or `gs://name/folder`). They read
some megabytes, in datasets and below a name of their own, which they remove. What of them can be
checked without an account is: every statement resolves, and what they would remove goes.
"""

import json
import os
import re
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import bigquery_trained_project as project
import numpy as np
import pytest
from bigquery_project import analysed
from bigquery_trained_project import KEY, dbt, land, rows_of
from cloud_fixtures import SERVICE_PROJECT
from dbt_fixtures import NO_ACCOUNT
from test_models_export import Bucket, cloud_storage

from ingest.bigquery import BigQuery
from ingest.raw_tables import raw_tables
from ingest.settings import Settings
from ml import cloud_model, onnx_export, onnx_model
from ml.trainers import Dense, Task

BUCKET = os.environ.get("TAPEHOUSE_BIGQUERY_TEST_BUCKET")
MAXIMUM_BYTES = "2000000000"
ONNX = onnx_export.export(
    Dense((np.array([[0.02], [-0.1]]),), (np.array([-1.5]),)),
    Task("binary", ("false", "true")),
    features=2,
    labels="BOOLEAN",
)
IMPORTED = {
    "version": "0123456789abcdef",
    "features": ["flow", "noise"],
    "classes": ["false", "true"],
    "train_end_at": "2025-01-04 00:00:00",
    "validation_end_at": "2025-01-05 00:00:00",
}
TRAINED: dict[str, dict[str, Any]] = {
    "boosted": {
        "model_type": "BOOSTED_TREE_CLASSIFIER",
        "max_iterations": 5,
        "max_tree_depth": 2,
        "subsample": 0.8,
        "min_rel_progress": 0,
    },
    "transformed": {
        "model_type": "LOGISTIC_REG",
        "max_iterations": 5,
        "transform": {"flow": "ML.STANDARD_SCALER()", "noise": "ML.QUANTILE_BUCKETIZE(4)"},
    },
    "searched": {
        "model_type": "LOGISTIC_REG",
        "max_iterations": 5,
        "num_trials": 2,
        "max_parallel_trials": 2,
        "l2_reg": "HPARAM_RANGE(0.0, 1.0)",
        "hparam_tuning_objectives": ["ROC_AUC"],
    },
}
ROWS = "select flow, noise, is_up from DATASET where split = 'test'"
VERBS = {
    "predict": f"ml_predict(ref('MODEL'), \"{ROWS}\")",
    "evaluate": f"ml_evaluate(ref('MODEL'), \"{ROWS}\")",
    "roc_curve": f"ml_roc_curve(ref('MODEL'), \"{ROWS}\")",
    "confusion_matrix": f"ml_confusion_matrix(ref('MODEL'), \"{ROWS}\")",
    "explain": f"ml_explain_predict(ref('MODEL'), \"{ROWS}\", 2)",
    "global_explain": "ml_global_explain(ref('MODEL'))",
    "feature_info": "ml_feature_info(ref('MODEL'))",
    "training_info": "ml_training_info(ref('MODEL'))",
    "importance": "ml_feature_importance(ref('MODEL'))",
}
OF_IMPORTED = ("predict", "evaluate", "roc_curve", "confusion_matrix")
ASKED = {
    f"{model}_{verb}": f"{{{{ {call.replace('MODEL', f'ml_{model}')} }}}}"
    for model in (*TRAINED, "imported")
    for verb, call in VERBS.items()
    if model != "imported" or verb in OF_IMPORTED
}
ASKED["searched_trials"] = "{{ ml_trial_info(ref('ml_searched')) }}"
# What the exported files are, by the guide.
FILES = {
    "boosted": ("model.bst", "main.py"),
    "transformed": ("saved_model.pb", "transform/saved_model.pb"),
}


def write(directory: Path, dataset: str, raw_dataset: str, path: str) -> None:
    """Write the project with the models that are trained, and one out of a file."""
    imported = {"model_type": "LOGISTIC_REG", "imported": {**IMPORTED, "path": path}}
    project.write(
        directory,
        raw_dataset,
        has_ml=True,
        trained=TRAINED | {"imported": imported},
        analyses={
            name: sql.replace("DATASET", f"{dataset}.ds_ticks") for name, sql in ASKED.items()
        },
    )


def compiled(directory: Path, name: str) -> str:
    (file,) = (directory / "target" / "compiled").rglob(f"{name}.sql")
    return file.read_text()


def export(model: str, to: str) -> str:
    return f"export model {model} options (uri = '{to}')"


def remove(to: str, client: Any) -> None:
    """Remove every file below an address."""
    bucket, _, folder = to.removeprefix("gs://").partition("/")
    for blob in client.bucket(bucket).list_blobs(prefix=f"{folder}/"):
        blob.delete()


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What Google's analyser says of every statement of these tests, by name."""
    directory = tmp_path_factory.mktemp("offline")
    write(directory, "tapehouse", "raw", "gs://bucket/1.onnx")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in NO_ACCOUNT.items():
            patch.setenv(variable, value)
        dbt(directory, "compile", "--no-populate-cache", "--no-introspect")
        printed = dbt(directory, "--quiet", "run-operation", "ml_statements")
    trained = json.loads(printed.strip().splitlines()[0])
    types = {field.name: field.field_type for field in raw_tables()["klines"].schema}
    names = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}
    klines = {name: names.get(kind, kind) for name, kind in types.items()}
    steps = {name: compiled(directory, name) for name in project.MODELS} | trained
    steps |= {f"pred_{name}": compiled(directory, f"pred_{name}") for name in trained_names()}
    steps |= {name: compiled(directory, name) for name in ASKED}
    again = trained["ml_boosted"].replace("create or replace model", "create model if not exists")
    steps["ml_again"] = again.replace("`ml_boosted`", "`ml_again`")
    files = {name: export(f"`ml_{name}`", "gs://bucket/x") for name in FILES}
    known = ["klines", *project.MODELS, *trained]
    return analysed(
        {
            "tables": {"klines": klines},
            "statements": [
                {
                    "relation": name,
                    "sql": short(sql),
                    "reads": known,
                    "classes": ["false", "true"],
                    "onnx": ONNX_COLUMNS,
                }
                for name, sql in (steps | {f"export_{n}": sql for n, sql in files.items()}).items()
            ],
        }
    )


def trained_names() -> list[str]:
    return [*TRAINED, "imported"]


def short(sql: str) -> str:
    """Return a statement with tables and models by their last name."""
    return re.sub(r"`[\w-]+`\.`\w+`\.`(\w+)`", r"`\1`", sql).replace(
        "tapehouse.ds_ticks", "ds_ticks"
    )


ONNX_COLUMNS = {
    "inputs": {"features": "ARRAY<FLOAT64>"},
    "outputs": {"label": "INT64", "probabilities": "ARRAY<FLOAT64>"},
}


@pytest.mark.long
def test_every_statement_for_the_service_resolves(columns: dict[str, dict[str, Any]]) -> None:
    assert {name: found["error"] for name, found in columns.items() if "error" in found} == {}
    assert columns["searched_predict"] == columns["transformed_predict"]
    assert list(columns["boosted_evaluate"]["columns"]) == [
        *("precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc")
    ]
    assert {
        "ml_boosted",
        "pred_imported",
        "searched_trials",
        "export_boosted",
        "ml_again",
    } <= columns.keys()


def test_files_of_the_tests_are_removed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Bucket()
    found.files = {"tests/a/1.onnx": b"1", "tests/a/b/2": b"2", "tests/ab": b"3", "else": b"4"}
    with cloud_storage(found) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        remove("gs://bucket/tests/a", cloud_model.client())
    assert sorted(found.files) == ["else", "tests/ab"]


@pytest.fixture
def place() -> Iterator[str]:
    """An address of the test's own in the bucket, emptied afterwards."""
    if not SERVICE_PROJECT or not BUCKET:
        pytest.skip(
            "BigQuery ML runs on Google's service alone: TAPEHOUSE_BIGQUERY_TEST_PROJECT and "
            "TAPEHOUSE_BIGQUERY_TEST_BUCKET name no project and no bucket"
        )
    client = cloud_model.client()
    to = f"{BUCKET.rstrip('/')}/test_{uuid.uuid4().hex[:12]}"
    yield to
    remove(to, client)


@pytest.mark.parametrize("cloud_settings", ["service"], indirect=True)
def test_bigquery_ml_learns_answers_is_judged_and_exported(
    place: str,
    cloud_settings: Settings,
    columns: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAPEHOUSE_BIGQUERY_MAXIMUM_BYTES", MAXIMUM_BYTES)
    client = cloud_model.client()
    path = cloud_model.upload(
        ONNX, name="imported", sha256=sha256(ONNX).hexdigest(), to=place, client=client
    )
    dataset = cloud_settings.bigquery_dataset
    write(tmp_path, dataset, cloud_settings.bigquery_raw_dataset, path)
    land(cloud_settings, range(10))
    dbt(tmp_path, "build")
    assert "training skipped" in dbt(tmp_path, "build")
    cloud = BigQuery(cloud_settings)
    for model in TRAINED:
        versions = rows_of(
            cloud_settings,
            "select train_end_at, model_version from {}trained_models "
            f"where model_name = 'ml_{model}' and model_version is not null",
        )
        ((train_end_at, version),) = versions
        predicted = f"select {KEY} from {{}}pred_{model} where model_version = '{version}'"
        wanted = f"select {KEY} from {{}}ds_ticks where closed_at >= timestamp '{train_end_at}'"
        order = " order by 1, 2, 3, 4, 5"
        assert rows_of(cloud_settings, predicted + order) == rows_of(cloud_settings, wanted + order)
    dbt(tmp_path, "compile", "--select", "resource_type:analysis")
    for name in ASKED:
        answer = cloud.query(compiled(tmp_path, name))
        assert (name, answer.column_names) == (name, list(columns[name]["columns"]))
        if name not in ("transformed_importance", "searched_importance"):
            assert (name, answer.num_rows > 0) == (name, True)
    said = cloud.query(
        f"select flow, noise, probability from {dataset}.pred_imported "
        f"inner join {dataset}.ds_ticks using ({KEY})"
    ).to_pydict()
    rows = np.array([said["flow"], said["noise"]], dtype=np.float32).T
    expected = onnx_model.outputs(onnx_model.session(ONNX), rows)[:, 1]
    assert np.abs(np.array(said["probability"]) - expected).max() <= 1e-6
    for model, files in FILES.items():
        to = f"{place}/{model}"
        cloud.client.query_and_wait(export(f"`{dataset}.ml_{model}`", to))
        bucket, _, folder = to.removeprefix("gs://").partition("/")
        names = [blob.name for blob in client.bucket(bucket).list_blobs(prefix=f"{folder}/")]
        assert {name.removeprefix(f"{folder}/") for name in names} >= set(files)
