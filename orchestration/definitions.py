"""What Dagster loads: one graph from the exchange to the signals."""

import dagster as dg

from ingest.settings import Settings
from orchestration import dbt, schedules
from orchestration.checks import leak_checks
from orchestration.ingestion import derived_tables, raw_tables, user_tables
from orchestration.scoring import scored_bars
from orchestration.skew import drift_check, skew_check


def definitions(settings: Settings) -> dg.Definitions:
    """Return the assets, checks, jobs and schedules over a warehouse.

    What reads and writes DuckDB alone, the derived raw tables and the proof that nothing leaks, is
    not part of it where the warehouse is BigQuery.
    """
    is_local = settings.target == "duckdb"
    project = dbt.prepared_project(settings)
    leaks = leak_checks(project)
    refresh = dg.define_asset_job(
        "refresh",
        selection=schedules.routine(leaks if is_local else None),
        description="Ingest, build everything but the models, score.",
    )
    return dg.Definitions(
        assets=[
            *raw_tables,
            *(derived_tables if is_local else ()),
            *user_tables(settings),
            dbt.models(project),
            scored_bars,
        ],
        asset_checks=[leaks, skew_check, drift_check] if is_local else [],
        jobs=[refresh, schedules.retrain],
        schedules=[schedules.hourly, schedules.daily],
        resources={"dbt": dbt.command_line(project), "settings": settings},
    )


defs = definitions(Settings())
