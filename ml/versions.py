"""Versions of models: found in the registry, described and compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from ml.registry import ModelMissingError, require


@dataclass(frozen=True)
class Version:
    """A version of a model as it stands.

    Parameters
    ----------
    name, version : str
        The model's name, and the first 16 hexadecimal digits of its file's sha256.
    stage : str
        What it is now.
    reason : str
        Why it is that.
    changed_at, registered_at : datetime
        Naive UTC.
    facts : Mapping
        Its row in ``registry.models`` without the blobs.
    """

    name: str
    version: str
    stage: str
    reason: str
    changed_at: datetime
    registered_at: datetime
    facts: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metrics on the validation part."""
        found = json.loads(self.facts["metrics"])
        judged: Mapping[str, float | None] = found.get("validation", {})
        return judged

    @property
    def validation_loss(self) -> float | None:
        """Log loss in nats, or mean squared error, on the validation part."""
        found = json.loads(self.facts["metrics"])
        loss: float | None = found.get("loss", found.get("log_loss", {})).get("validation")
        return loss


def versions(connection: duckdb.DuckDBPyConnection, name: str | None = None) -> list[Version]:
    """Return every version of a model, or of all models, newest first within a name.

    Raises
    ------
    ModelMissingError
        If the warehouse has no registry yet.
    """
    require(connection)
    rows = connection.execute(
        """
        with
        latest as (
            select * exclude (onnx, native, transform, parity_sample)
            from registry.models
            qualify row_number() over (
                partition by model_name, model_version order by registered_at desc
            ) = 1
        ),
        stands as (
            select *
            from registry.stages
            qualify row_number() over (
                partition by model_name, model_version order by changed_at desc
            ) = 1
        )
        select stands.stage, stands.reason, stands.changed_at, latest.*
        from latest
        inner join stands using (model_name, model_version)
        where model_name = coalesce(?, model_name)
        order by model_name, registered_at desc, model_version
        """,
        [name],
    )
    columns = [column[0] for column in rows.description]
    found = [dict(zip(columns, row, strict=True)) for row in rows.fetchall()]
    return [
        Version(
            facts["model_name"],
            facts["model_version"],
            facts["stage"],
            facts["reason"],
            facts["changed_at"],
            facts["registered_at"],
            facts,
        )
        for facts in found
    ]


def find(connection: duckdb.DuckDBPyConnection, name: str, version: str | None = None) -> Version:
    """Return a version by the beginning of its digits, or the champion (else the newest).

    Raises
    ------
    ModelMissingError
        If there is none, or several begin so.
    """
    known = versions(connection, name)
    if not known:
        names = sorted({entry.name for entry in versions(connection)})
        raise ModelMissingError(
            f"no model is called {name}; the registry has {', '.join(names) or 'none'}"
        )
    if version is None:
        return next((entry for entry in known if entry.stage == "champion"), known[0])
    found = [entry for entry in known if entry.version.startswith(version)]
    if len(found) != 1:
        listed = ", ".join(entry.version for entry in (found or known))
        kind = "several versions begin" if found else "no version begins"
        raise ModelMissingError(f"{kind} with {version}; {name} has {listed}")
    return found[0]


def history(connection: duckdb.DuckDBPyConnection, entry: Version) -> list[list[str]]:
    """Return the stages of a version, when each began and why, oldest first."""
    rows = connection.execute(
        "select stage, changed_at, reason from registry.stages "
        "where model_name = ? and model_version = ? order by changed_at",
        [entry.name, entry.version],
    ).fetchall()
    return [[stage, minute(changed_at), reason] for stage, changed_at, reason in rows]


def folds(connection: duckdb.DuckDBPyConnection, entry: Version) -> list[list[str]]:
    """Return the walk-forward folds of a version: number, times, rows and metrics."""
    rows = connection.execute(
        "select fold, test_start_at, test_end_at, test_rows, metrics from registry.folds "
        "where model_name = ? and model_version = ? order by test_start_at",
        [entry.name, entry.version],
    ).fetchall()
    return [
        [
            *(str(fold), minute(start), minute(end), f"{count:,}"),
            ", ".join(f"{name} {rounded(value)}" for name, value in json.loads(metrics).items()),
        ]
        for fold, start, end, count, metrics in rows
    ]


def described(entry: Version) -> list[list[str]]:
    """Return what the registry knows of a version, as rows of a name and a value."""
    facts = {key: value for key, value in entry.facts.items() if key != "origins"}
    options = json.loads(facts.pop("options"))
    facts.pop("metrics")
    features: Sequence[str] = facts.pop("features")
    return [
        *([key, _text(value)] for key, value in facts.items()),
        ["features", f"{len(features)}: {', '.join(features)}"],
        *([f"option {key}", _text(value)] for key, value in options.items()),
        *([f"validation {key}", rounded(value)] for key, value in entry.metrics.items()),
    ]


def minute(time: datetime | None) -> str:
    """Return a time to the minute, '' where there is none."""
    return f"{time:%Y-%m-%d %H:%M}" if time else ""


def differences(one: Version, other: Version) -> list[tuple[str, str, str]]:
    """Return what two versions do not share: facts, options and metrics of validation."""
    rows: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [
        ("", _plain(one.facts), _plain(other.facts)),
        ("option ", json.loads(one.facts["options"]), json.loads(other.facts["options"])),
        ("validation ", one.metrics, other.metrics),
    ]
    return [
        (f"{kind}{key}", _text(left.get(key)), _text(right.get(key)))
        for kind, left, right in rows
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    ]


UNCOMPARED = {
    *("options", "metrics", "onnx_sha256", "origins", "features"),
    *("model_name", "model_version"),
}


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    features: Sequence[str] = facts["features"]
    plain = {key: value for key, value in facts.items() if key not in UNCOMPARED}
    return plain | {"features": len(features)}


def _text(value: object) -> str:
    return rounded(value) if isinstance(value, float) else "" if value is None else str(value)


def rounded(value: float | None) -> str:
    """Return a number to six digits as text."""
    return "not defined" if value is None else f"{value:.6g}"
