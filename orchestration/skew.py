"""Served against batch and training: as tables on the console, and as Dagster's asset checks."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from rich.console import Console
from rich.table import Table

from ingest.settings import Settings
from ingest.warehouse import reading
from serving.skew import NothingServedError, Prediction, Skew, champions, predictions, skew

_SHOWN = 20
#: A population stability index above it is drift, of at least so many rows.
DRIFT_PSI = 0.25
DRIFT_ROWS = 500
#: A champion has said nothing for so long, and the length of a bar.
STALE_S = 3600.0
#: So many of the batch's bars a champion must have been asked about.
LOWEST_RATE = 0.99


def print_skew(features: Sequence[Skew], answers: Sequence[Prediction]) -> None:
    """Print the features, worst first, and the models."""
    console = Console()
    table = Table("feature", "dataset", title="Served features against the batch")
    for name in ("bars", "differ", "rate", "missing", "extra", "worst", "PSI"):
        table.add_column(name, justify="right")
    for row in features[:_SHOWN]:
        table.add_row(
            row.feature,
            row.dataset,
            *(str(row.rows), str(row.mismatches), f"{row.mismatches / max(row.rows, 1):.2%}"),
            *(str(row.missing), str(row.extra), _number(row.worst), _number(row.psi)),
        )
    console.print(table)
    if len(features) > _SHOWN:
        console.print(f"… and {len(features) - _SHOWN} more features")
    table = Table("model", "version", "stage", title="Answers against the batch")
    for name in ("bars", "asked", "late", "differ", "PSI", "last close (UTC)"):
        table.add_column(name, justify="right")
    for answer in answers:
        table.add_row(
            *(answer.model, answer.version, answer.stage, str(answer.rows), f"{answer.rate:.1%}"),
            *(str(answer.late), str(answer.mismatches), _number(answer.psi)),
            f"{answer.last_closed_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def wrong(features: Sequence[Skew], answers: Sequence[Prediction]) -> list[str]:
    """Return the features and models that were served otherwise, too often or not always."""
    return [row.feature for row in features if row.mismatches or row.missing or row.extra] + [
        row.model for row in answers if row.mismatches
    ]


@dg.asset_check(
    asset=dg.AssetKey("stg_served_features"),
    name="no_skew",
    description="What was served is what the batch computes for the same bars.",
)
def skew_check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare served features and answers with the batch; passes where nothing was served."""
    try:
        features, answers = _compared(settings)
    except NothingServedError as error:
        return dg.AssetCheckResult(passed=True, metadata={"note": str(error)})
    differing = wrong(features, answers)
    values = sum(row.rows for row in features)
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={
            "differing": differing,
            "bars": max(row.rows for row in features),
            "mismatch rate": sum(row.mismatches for row in features) / max(values, 1),
            "missing": max(row.missing for row in features),
            "extra": max(row.extra for row in features),
            "worst difference": max((row.worst or 0.0 for row in features), default=0.0),
        },
    )


@dg.asset_check(
    asset=dg.AssetKey("stg_served_features"),
    name="no_drift",
    description="What is served is like what was trained on, recent, and there for every bar.",
)
def drift_check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Hold served features and answers against training; passes where nothing was served."""
    try:
        features, answers = _compared(settings)
    except NothingServedError as error:
        return dg.AssetCheckResult(passed=True, metadata={"note": str(error)})
    with reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        asked = {row.version: row for row in champions(connection)}
    drifted = [
        name
        for name, rows, psi in (
            *((row.feature, row.rows + row.extra, row.psi) for row in features),
            *((row.model, row.rows, row.psi) for row in answers),
        )
        if psi is not None and psi > DRIFT_PSI and rows >= DRIFT_ROWS
    ]
    now = datetime.now(UTC).replace(tzinfo=None)
    silent_s = {row.model: (now - row.last_at).total_seconds() for row in asked.values()}
    silent = [
        row.model
        for row in asked.values()
        if silent_s[row.model] > STALE_S + 60 * row.interval_minutes
    ]
    rate = min(
        (row.rate for row in answers if row.stage == "champion" and row.version in asked),
        default=1.0,
    )
    return dg.AssetCheckResult(
        passed=not drifted and not silent and rate >= LOWEST_RATE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "drifted": drifted,
            "largest PSI of a feature": max((row.psi or 0.0 for row in features), default=0.0),
            "largest PSI of predictions": max((row.psi or 0.0 for row in answers), default=0.0),
            "silent": silent,
            "seconds since the last close": max(silent_s.values(), default=0.0),
            "lowest prediction rate": rate,
        },
    )


def _compared(settings: Settings) -> tuple[Sequence[Skew], Sequence[Prediction]]:
    with reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        return skew(connection), predictions(connection)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
