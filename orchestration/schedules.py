"""When the warehouse is brought up to date."""

import dagster as dg

TRAINING = dg.AssetSelection.groups("models")

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all() - TRAINING,
    description="Ingest, build everything but the models, score.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="Ingest, build and train, score.",
)
hourly = dg.ScheduleDefinition(
    name="hourly", job=refresh, cron_schedule="5 1-23 * * *", execution_timezone="UTC"
)
daily = dg.ScheduleDefinition(
    name="daily", job=retrain, cron_schedule="5 0 * * *", execution_timezone="UTC"
)
