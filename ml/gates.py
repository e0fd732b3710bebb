"""The conditions under which a version may become champion."""

import hashlib
from dataclasses import dataclass

import duckdb
import numpy as np

from ml import onnx_model
from ml.versions import Version, rounded, versions


@dataclass(frozen=True)
class Gate:
    """One condition of a promotion.

    Parameters
    ----------
    name : str
        What is asked.
    is_passed : bool
        Whether it holds.
    finding : str
        What was found.
    """

    name: str
    is_passed: bool
    finding: str


def gates(connection: duckdb.DuckDBPyConnection, candidate: Version) -> list[Gate]:
    """Return the conditions under which a version may become champion.

    Its file must be whole and say of the parity sample what it said when it was trained; it must
    do better on the validation part than a guess without features; where the champion was judged
    on the same rows, no worse than that; and no verdict of the backtest may be against it.
    """
    found = [whole(connection, candidate), _better_than_nothing(candidate)]
    champion = next(
        (entry for entry in versions(connection, candidate.name) if entry.stage == "champion"), None
    )
    if champion is not None and champion.version != candidate.version:
        found.append(_no_worse(candidate, champion))
    return [*found, *_verdict(connection, candidate)]


def whole(connection: duckdb.DuckDBPyConnection, candidate: Version) -> Gate:
    """Return whether a version's file has its hash and says of the parity sample what it said."""
    onnx, sha256, sample = connection.execute(
        "select onnx, onnx_sha256, parity_sample from registry.models "
        "where model_name = ? and model_version = ? order by registered_at desc limit 1",
        [candidate.name, candidate.version],
    ).fetchall()[0]
    name = "file is whole"
    if hashlib.sha256(onnx).hexdigest() != sha256:
        return Gate(name, False, "the bytes do not have the sha256 that was registered")
    rows = np.array([row["features"] for row in sample], dtype=np.float32)
    said = np.array([row["outputs"] for row in sample], dtype=np.float64)
    difference = float(np.abs(onnx_model.outputs(onnx_model.session(onnx), rows) - said).max())
    return Gate(name, difference <= 1e-9, f"parity sample differs by {difference:.1e}")


def _better_than_nothing(candidate: Version) -> Gate:
    metrics = candidate.metrics
    if candidate.facts["task"] == "regression":
        value, bound = metrics.get("r2_score"), 0.0
        return Gate("R² above 0", value is not None and value > bound, rounded(value))
    value, bound = metrics.get("roc_auc"), 0.5
    return Gate("ROC AUC above 0.5", value is not None and value > bound, rounded(value))


def _no_worse(candidate: Version, champion: Version) -> Gate:
    metric = "mean_squared_error" if candidate.facts["task"] == "regression" else "log_loss"
    name = f"{metric} no worse than the champion's"
    part = ("task", "label", "validation_end_at", "validation_rows")
    if any(candidate.facts[key] != champion.facts[key] for key in part):
        return Gate(name, True, "not judged on the same rows: train both on the same dataset")
    own, other = candidate.metrics.get(metric), champion.metrics.get(metric)
    is_passed = own is not None and (other is None or own <= other)
    return Gate(name, is_passed, f"{rounded(own)} against {rounded(other)}")


def _verdict(connection: duckdb.DuckDBPyConnection, candidate: Version) -> list[Gate]:
    """Return the backtest's verdict of the version, where `dbt build` gave one."""
    columns = {
        column
        for (column,) in connection.execute(
            "select column_name from information_schema.columns where table_name = 'trd_verdict'"
        ).fetchall()
    }
    if not {"model_version", "verdict"} <= columns:
        return []
    # Ensembles are judged with the version too, and may be no better for it.
    own = "and strategy = 'model'" if "strategy" in columns else ""
    found = connection.execute(
        f"select distinct verdict from trd_verdict where model_version = ? {own}",
        [candidate.version],
    ).fetchall()
    return [Gate("verdict is GO", verdict == "GO", str(verdict)) for (verdict,) in found]
