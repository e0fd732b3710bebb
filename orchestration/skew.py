"""Served against batch: as tables on the console, and as a Dagster asset check."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from rich.console import Console
from rich.table import Table

from ingest.settings import Settings
from ingest.warehouse import reading
from serving.skew import NothingServedError, Prediction, Skew, predictions, skew

_SHOWN = 20


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


@dg.asset_check(
    asset=dg.AssetKey("stg_served_features"),
    name="no_skew",
    description="What was served is what the batch computes for the same bars.",
)
def skew_check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare served features and answers with the batch; passes where nothing was served."""
    with reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        try:
            features = skew(connection)
        except NothingServedError as error:
            return dg.AssetCheckResult(passed=True, metadata={"note": str(error)})
        answers = predictions(connection)
    differing = [row.feature for row in features if row.mismatches or row.extra]
    differing += [row.model for row in answers if row.mismatches]
    last = max((row.last_closed_at for row in answers), default=None)
    stale = (datetime.now(UTC).replace(tzinfo=None) - last).total_seconds() if last else None
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={
            "differing": differing,
            "bars": max(row.rows for row in features),
            "missing": max(row.missing for row in features),
            "largest PSI": max((row.psi or 0.0 for row in features), default=0.0),
            "seconds since the last close": stale or 0.0,
        },
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
