"""Training in the warehouse: a query in, a registered model out."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ml import (
    composition,
    explanation,
    inspection,
    learning,
    lifecycle,
    onnx_export,
    onnx_model,
    options,
    records,
    registry,
    settings,
    transform,
    trees,
    walk_forward,
)
from ml.data import Data, describe, digests, hash_of
from ml.trainers import Fitted, Float32, Float64, trainer

PARITY_TOLERANCE = 1e-6
STORED_ROWS = 100


def train(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    sql: str,
    *,
    given: Mapping[str, Any],
    database: Path,
    git_revision: str | None,
    **others: Any,
) -> dict[str, Any]:
    """Train a model on a query and register it, unless nothing has changed since the last time.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        A cursor of its own; the registry row is committed after the model file is on disk.
    name : str
        The model's name.
    sql : str
        A SELECT whose columns are features, except for the label, the split and the columns that
        the settings name. Rows whose split is 'train' are learned from, 'validation' stops the
        training and judges trials, others are read by the folds of a walk-forward alone.
    given : Mapping
        Options in BigQuery ML's vocabulary.
    database : Path
        The warehouse file; the model file goes to ``models/`` beside it.
    git_revision : str or None
        The project's commit, recorded with the model.
    others : object
        The settings of `ml.settings.Settings`.

    Returns
    -------
    dict
        ``status`` ('trained' or 'unchanged'), ``model_version`` and what the log should say.

    Raises
    ------
    ml.options.OptionError
        If an option or a setting is unknown, missing or wrong.
    ml.trainers.TrainingError
        If the query does not give what the model needs, or a library is absent.
    ml.onnx_export.ExportError
        If the ONNX model does not agree with the trained one.
    """
    own = settings.parse(others)
    parsed = options.parse(given, engine=own.engine)
    connection.execute("begin")
    data = describe(connection, name, sql, parsed, own)
    inputs = {
        "role": own.role,
        "options": json.dumps({**given, **others}, sort_keys=True),
        "sql_hash": hashlib.sha256(sql.encode()).hexdigest(),
        "seed": own.seed,
        "train_end_at": data.end_at["train"],
        "validation_end_at": data.end_at["validation"],
        "train_rows": data.rows["train"],
        "validation_rows": data.rows["validation"],
    }
    version = _version_with(connection, name, inputs, data, parsed)
    if version is not None:
        connection.execute("rollback")
        return {"status": "unchanged", "model_version": version}

    learned = learning.learn(connection, data, parsed, own)
    chosen, fitted, transformed = learned.chosen, learned.fitted, learned.transform
    onnx = onnx_export.export(
        fitted.body,
        data.task,
        features=len(data.features),
        labels=data.label_type,
        transform=transformed,
    )
    sample = _parity_sample(fitted, transformed, onnx, learned.told.rows, own.seed)
    sha256 = registry.write_model_file(database, onnx).stem
    folds = walk_forward.run(connection, data, parsed, own, chosen)
    kept = fitted.rounds[fitted.best_round - 1]
    losses = {"train": kept.loss, "validation": kept.eval_loss}
    row = inputs | {
        "model_name": name,
        "model_version": sha256[:16],
        "model_type": parsed.model_type,
        "engine": chosen.engine,
        "task": data.task.kind,
        "features": list(data.features),
        "label": parsed.label,
        "classes": list(data.task.classes) or None,
        "data_hash": hash_of(digests(connection, data, learned.digests)),
        "data_watermark": max(filter(None, data.end_at.values()), default=None),
        "git_revision": git_revision,
        "trainer": trainer(chosen.engine).version(),
        "metrics": json.dumps(
            {"iterations": fitted.best_round, "loss": losses, "validation": learned.metrics}
        ),
        "onnx": onnx,
        "onnx_sha256": sha256,
        "native": fitted.native,
        "transform": transformed.onnx if transformed else None,
        "origins": [position + 1 for position in transformed.origins] if transformed else None,
        "parity_sample": sample,
    }
    is_new = records.write_model(connection, row)
    key = (name, sha256[:16])
    records.write_trials(connection, key, learned.trials, learned.best)
    if is_new:
        origins = transformed.origins if transformed else range(len(data.features))
        records.write_rounds(connection, key, fitted, chosen.options.get("learn_rate"))
        if isinstance(fitted.body, trees.Trees):
            records.write_importance(connection, key, fitted.body, data.features, origins)
            body = fitted.body
            if transformed is not None:
                body = composition.over_features(body, transformed.columns)
            records.write_trees(connection, key[1], body)
        walk_forward.register(connection, *key, data, folds)
        explain = explanation.explainer(
            chosen.engine,
            fitted.native,
            features=len(data.features),
            graph=transformed.onnx if transformed else None,
            origins=[position + 1 for position in origins] if transformed else None,
        )
        inspection.register(connection, key, data, learned.told, explain)
    lifecycle.enter(connection, name, sha256[:16], promotion=own.promotion)
    connection.execute("commit")
    return {
        "status": "trained",
        "model_version": sha256[:16],
        "model_type": chosen.model_type,
        "trials": len(learned.trials),
        "iterations": fitted.best_round,
        "loss": losses,
        "train_rows": data.rows["train"],
        "validation_rows": data.rows["validation"],
    }


def _version_with(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    inputs: Mapping[str, Any],
    data: Data,
    parsed: options.Options,
) -> str | None:
    """Return the version registered last, if it came from the same inputs and library.

    The rows are read for it only where all else is the same.
    """
    same = " and ".join(f"{column} is not distinct from ${column}" for column in inputs)
    found = connection.execute(
        f"""
        select model_version, engine, trainer, data_hash from (
            from registry.models where model_name = $name order by registered_at desc limit 1
        ) where {same}
        """,
        {**inputs, "name": name},
    ).fetchone()
    if found is None:
        return None
    version, engine, known, data_hash = found
    is_same = engine == (parsed.engine or engine) and known == trainer(engine).version()
    return str(version) if is_same and data_hash == hash_of(digests(connection, data)) else None


def _parity_sample(
    fitted: Fitted,
    transformed: transform.Transform | None,
    onnx: bytes,
    real: Float32,
    seed: int,
) -> list[dict[str, Any]]:
    """Hold the ONNX model against the trained one on real rows and on rows made of its edges."""
    generator = np.random.default_rng(seed)
    if isinstance(fitted.body, trees.Trees) and transformed is None:
        edges = generator.choice(trees.edges(fitted.body), real.shape)
    else:
        # Every column's values in another order, a tenth of them missing.
        edges = generator.permuted(real, axis=0)
        edges[generator.random(edges.shape) < 0.1] = np.nan
    rows = np.concatenate([real, edges.astype(np.float32)])
    exported = onnx_model.outputs(onnx_model.session(onnx), rows)
    graph = transformed.onnx if transformed else None
    trained = fitted.predict(transform.apply(graph, rows))
    _check_parity(exported, trained)
    stored = generator.choice(len(rows), min(STORED_ROWS, len(rows)), replace=False)
    return [
        {"features": rows[index].tolist(), "outputs": exported[index].tolist()}
        for index in sorted(stored)
    ]


def _check_parity(exported: Float64, trained: Float64) -> None:
    # Probabilities add to 1; the values of a regression are judged by the largest of them.
    largest = float(np.max(np.abs(trained))) if trained.shape[1] == 1 else 1.0
    difference = float(np.max(np.abs(exported - trained)))
    if not difference <= PARITY_TOLERANCE * (largest or 1.0):
        raise onnx_export.ExportError(
            f"the ONNX model differs from the trained one by {difference:.1e} on "
            f"{len(trained):,} rows; at most {PARITY_TOLERANCE * largest:.0e} is allowed"
        )
