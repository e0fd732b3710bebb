"""The scoring job as a Dagster asset."""

from datetime import UTC, datetime

import dagster as dg

from ingest.settings import Settings
from serving.scoring import score


@dg.asset(
    key="scored_bars",
    group_name="scoring",
    kinds={"onnx", "duckdb"},
    deps=[dg.AssetKey("sig_order_flow")],
    description="Predictions for bars that landed after the last build, as `tapehouse score`.",
)
def scored_bars(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Score the bars without a prediction."""
    now = datetime.now(UTC).replace(tzinfo=None)
    (scored,) = score(settings.database, now=now, timeout_s=settings.writer_timeout_s)
    return dg.MaterializeResult(
        metadata={
            "model": scored.model,
            "version": scored.version,
            "dagster/row_count": scored.bars,
            "up": scored.up,
            "down": scored.down,
            "flat": scored.flat,
            "last_opened_at": str(scored.last_opened_at),
        }
    )
