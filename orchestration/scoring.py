"""The scoring job as a Dagster asset."""

from datetime import UTC, datetime

import dagster as dg

from ingest import warehouse
from ingest.settings import Settings
from orchestration.metrics import metrics
from serving.scoring import NoModelError, score_bars


@dg.asset(
    key="scored_bars",
    group_name="scoring",
    kinds={"onnx", "duckdb"},
    deps=[dg.AssetKey("sig_order_flow")],
    description="Predictions for bars that landed after the last build, as `tapehouse score`.",
)
def scored_bars(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Score the bars without a prediction, then renew the snapshot that readers use.

    BigQuery's own models have predicted in dbt's build; no model need be here besides.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    try:
        scored = score_bars(settings, now=now)
    except NoModelError as error:
        if settings.target == "duckdb":
            raise
        return dg.MaterializeResult(metadata={"bars": 0, "no model here": str(error)})
    if settings.target == "duckdb":
        warehouse.publish_snapshot(settings.database, timeout_s=settings.writer_timeout_s)
    metadata: dict[str, str | float] = {"bars": sum(run.bars for run in scored)}
    for run in scored:
        metadata |= {
            f"{run.model} version": run.version,
            f"{run.model} signals": f"{run.up} up, {run.down} down, {run.flat} flat",
            f"{run.model} last bar": str(run.last_opened_at),
        }
    return dg.MaterializeResult(metadata=metadata | metrics(settings))
