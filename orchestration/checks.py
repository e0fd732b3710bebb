"""The proof that no feature or label leaks, as Dagster asset checks."""

import json
from collections.abc import Iterator

import dagster as dg
from dagster_dbt import DbtProject

from ingest.settings import Settings
from serving.leaks import check, checkable

NAME = "no_leak"


def leak_checks(project: DbtProject) -> dg.AssetChecksDefinition:
    """Return a check of each feature and label table, all made at once: `tapehouse check leaks`."""
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
        for key in keys:
            name = key.asset_key.to_user_string()
            columns = sorted({leak.column for leak in proof.leaks if leak.model == name})
            yield dg.AssetCheckResult(
                passed=not columns,
                asset_key=key.asset_key,
                check_name=NAME,
                metadata={
                    "leaking_columns": columns,
                    "rows_compared": proof.rows[name],
                    "cut_offs": [str(cut_off) for cut_off in proof.cut_offs],
                },
            )

    return check_leaks
