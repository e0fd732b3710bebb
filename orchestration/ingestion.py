"""The raw tables as Dagster assets, each fed by the exchange's history."""

from typing import get_args

import dagster as dg

from ingest import warehouse
from ingest.history import ingest_history
from ingest.kinds import KindName
from ingest.settings import Settings

DESCRIPTIONS: dict[KindName, str] = {
    "klines": "Candlesticks from archives and REST.",
    "trades": "Aggregate trades from archives and REST.",
    "books": "The present order books over REST; their history comes from files and the recorder.",
    "funding": "Funding rates of USD-M futures from archives and REST.",
    "open_interest": "Open interest of USD-M futures from archives and REST.",
    "liquidations": "Forced orders of USD-M futures from archives.",
}


def raw_table(kind: KindName) -> dg.AssetsDefinition:
    """Return the asset of a raw table."""

    @dg.asset(
        key=dg.AssetKey(["raw", kind]),
        group_name="raw",
        kinds={"dlt", "duckdb"},
        description=DESCRIPTIONS[kind],
    )
    def ingested(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        report = ingest_history(settings, kind)
        timeout_s = settings.writer_timeout_s
        with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
            ((row_count,),) = connection.execute(f"select count(*) from raw.{kind}").fetchall()
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": row_count,
                "landed": report.row_count,
                "rejected": report.reject_count,
                "not to be had": [failure.unit for failure in report.failures],
            }
        )

    return ingested


raw_tables = [raw_table(kind) for kind in get_args(KindName)]
