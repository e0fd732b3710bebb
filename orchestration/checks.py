"""The proof that no feature, label or dataset leaks, as Dagster asset checks."""

import json
from collections.abc import Iterator

import dagster as dg
from dagster_dbt import DbtProject

from ingest.settings import Settings
from serving.leaks import check, checkable

NAME = "no_leak"


def leak_checks(project: DbtProject) -> dg.AssetChecksDefinition:
    """Return a check of each table that `tapehouse check leaks` checks, all made at once.

    To Dagster the datasets of strategies are one asset, `ds_strategies`.
    """
    keys = [
        dg.AssetCheckKey(dg.AssetKey(name), NAME)
        for name in checkable(json.loads(project.manifest_path.read_text()))
    ]

    @dg.multi_asset_check(
        name="check_leaks",
        specs=[
            dg.AssetCheckSpec(
                NAME,
                asset=key.asset_key,
                description="Built from the raw rows that had arrived, past values are the same.",
            )
            for key in keys
        ],
    )
    def check_leaks(settings: dg.ResourceParam[Settings]) -> Iterator[dg.AssetCheckResult]:
        proof = check(settings.database, timeout_s=settings.writer_timeout_s)
        names = {key.asset_key.to_user_string() for key in keys}
        for key in keys:
            name = key.asset_key.to_user_string()
            tables = {name} if name in proof.rows else proof.rows.keys() - names
            columns = sorted({leak.column for leak in proof.leaks if leak.model in tables})
            yield dg.AssetCheckResult(
                passed=not columns,
                asset_key=key.asset_key,
                check_name=NAME,
                metadata={
                    "leaking_columns": columns,
                    "rows_compared": sum(proof.rows[table] for table in tables),
                    "cut_offs": [str(cut_off) for cut_off in proof.cut_offs],
                },
            )

    return check_leaks
