"""When the warehouse is brought up to date."""

import dagster as dg

TRAINING = dg.AssetSelection.groups("models")

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    description="Ingest, build and train, score, check for leaks.",
)
hourly = dg.ScheduleDefinition(
    name="hourly", job_name="refresh", cron_schedule="5 1-23 * * *", execution_timezone="UTC"
)
daily = dg.ScheduleDefinition(
    name="daily", job=retrain, cron_schedule="5 0 * * *", execution_timezone="UTC"
)


def routine(slow: dg.AssetChecksDefinition | None) -> dg.AssetSelection:
    """Return what runs every hour: all but the training and the slow checks."""
    selection = dg.AssetSelection.all() - TRAINING
    return selection - dg.AssetSelection.checks(slow) if slow else selection
