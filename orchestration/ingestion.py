"""The raw tables as Dagster assets, each fed by the exchange's history."""

from datetime import datetime
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

BY_USERS = {
    "mark_prices": "Mark and index prices of futures, landed by you.",
    "macro_bars": "Bars of indices and commodities, landed by you.",
    "news": "Headlines, landed by you.",
    "news_scores": "Sentiment of headlines, landed by you.",
    "garch_parameters": "Fitted parameters of GARCH(1,1) models, landed by you.",
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
        report = ingest_history(settings, kind, start=_first_ingested(settings, kind))
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
user_tables = [
    dg.AssetSpec(dg.AssetKey(["raw", name]), group_name="raw", description=description)
    for name, description in BY_USERS.items()
]


def _first_ingested(settings: Settings, kind: KindName) -> datetime | None:
    """Return where the history that was taken from the exchange begins, None if there is none."""
    if not settings.database.exists():
        return None
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        rows: list[tuple[datetime | None]] = connection.execute(
            "select min(covered_from) from raw.landings where kind = ? and exchange = ?",
            [kind, settings.exchange],
        ).fetchall()
    return rows[0][0]
