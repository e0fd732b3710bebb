"""The life of a model's versions: candidate, shadow, champion, retired.

Every change is a row of ``registry.stages`` with its reason; nothing is overwritten.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np

from ml import onnx_model
from ml.registry import ModelMissingError, require

STAGES = ("candidate", "shadow", "champion", "retired")
# What a version may become; a champion is retired by its successor only.
MOVES = {
    None: ("candidate", "champion"),
    "candidate": ("shadow", "champion", "retired"),
    "shadow": ("candidate", "champion", "retired"),
    "champion": (),
    "retired": ("candidate", "shadow", "champion"),
}


class PromotionError(RuntimeError):
    """A version may not become what was asked."""


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


def enter(
    connection: duckdb.DuckDBPyConnection, name: str, version: str, *, promotion: str
) -> None:
    """Give a version that was just trained its stage: champion at once, or candidate.

    A champion that was trained again from other inputs, with the same bytes, stays champion.
    """
    stands = {entry.version: entry.stage for entry in versions(connection, name)}
    if stands.get(version) == "champion":
        return
    if promotion == "automatic":
        _crown(connection, name, version, "trained, promoted automatically")
    else:
        _note(connection, name, version, "candidate", "trained")


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
        return Gate("R² above 0", value is not None and value > bound, _number(value))
    value, bound = metrics.get("roc_auc"), 0.5
    return Gate("ROC AUC above 0.5", value is not None and value > bound, _number(value))


def _no_worse(candidate: Version, champion: Version) -> Gate:
    metric = "mean_squared_error" if candidate.facts["task"] == "regression" else "log_loss"
    name = f"{metric} no worse than the champion's"
    part = ("task", "label", "validation_end_at", "validation_rows")
    if any(candidate.facts[key] != champion.facts[key] for key in part):
        return Gate(name, True, "not judged on the same rows: train both on the same dataset")
    own, other = candidate.metrics.get(metric), champion.metrics.get(metric)
    is_passed = own is not None and (other is None or own <= other)
    return Gate(name, is_passed, f"{_number(own)} against {_number(other)}")


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


def move(
    connection: duckdb.DuckDBPyConnection,
    candidate: Version,
    stage: str,
    *,
    reason: str,
    is_forced: bool = False,
) -> list[Gate]:
    """Give a version another stage; a new champion retires the old one.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse, open to write.
    candidate : Version
        From `find`.
    stage : {"candidate", "shadow", "champion", "retired"}
        What it shall be.
    reason : str
        Recorded with the change.
    is_forced : bool
        Whether a champion is made in spite of gates that do not pass; those are recorded.

    Returns
    -------
    list of Gate
        The conditions of a champion; none of another stage.

    Raises
    ------
    PromotionError
        If a version cannot become that, or a gate does not pass.
    """
    if stage not in MOVES[candidate.stage]:
        raise PromotionError(
            f"{candidate.name} {candidate.version} is {candidate.stage}; it can become "
            f"{', '.join(MOVES[candidate.stage]) or 'nothing else before another is champion'}"
        )
    if stage != "champion":
        _note(connection, candidate.name, candidate.version, stage, reason)
        return []
    judged = gates(connection, candidate)
    failed = [f"{gate.name}: {gate.finding}" for gate in judged if not gate.is_passed]
    if failed and not is_forced:
        raise PromotionError(
            f"{candidate.name} {candidate.version} stays {candidate.stage}; "
            f"not passed: {'; '.join(failed)}. `--force` with a reason overrides"
        )
    if failed:
        reason = f"{reason} (forced in spite of: {'; '.join(failed)})"
    _crown(connection, candidate.name, candidate.version, reason)
    return judged


def rollback(connection: duckdb.DuckDBPyConnection, name: str, *, reason: str) -> Version:
    """Make the champion before the present one champion again and return it.

    Going back once more goes back further. The next training with unchanged inputs keeps this.

    Raises
    ------
    PromotionError
        If there was no champion before.
    """
    present = find(connection, name)
    since = connection.execute(
        "select min(changed_at) from registry.stages "
        "where model_name = ? and model_version = ? and stage = 'champion'",
        [name, present.version],
    ).fetchall()[0][0]
    earlier = connection.execute(
        "select model_version from registry.stages where model_name = ? and stage = 'champion' "
        "and model_version <> ? and changed_at < ? order by changed_at desc limit 1",
        [name, present.version, since],
    ).fetchall()
    if present.stage != "champion" or not earlier:
        raise PromotionError(f"{name} had no champion before {present.version}")
    _crown(connection, name, earlier[0][0], reason)
    return find(connection, name, earlier[0][0])


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
            ", ".join(f"{name} {_number(value)}" for name, value in json.loads(metrics).items()),
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
        *([f"validation {key}", _number(value)] for key, value in entry.metrics.items()),
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
    return _number(value) if isinstance(value, float) else "" if value is None else str(value)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6g}"


def _crown(connection: duckdb.DuckDBPyConnection, name: str, version: str, reason: str) -> None:
    for entry in versions(connection, name):
        if entry.stage == "champion" and entry.version != version:
            _note(connection, name, entry.version, "retired", f"replaced by {version}")
    _note(connection, name, version, "champion", reason)


def _note(
    connection: duckdb.DuckDBPyConnection, name: str, version: str, stage: str, reason: str
) -> None:
    connection.execute(
        "insert into registry.stages "
        "values (?, ?, ?, ?, get_current_timestamp() at time zone 'UTC')",
        [name, version, stage, reason],
    )
