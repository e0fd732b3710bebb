"""The raw tables as Dagster assets, each fed by the exchange's history."""

from datetime import datetime
from typing import get_args

import dagster as dg

from ingest import warehouse
from ingest.history import ingest_history
from ingest.kinds import ExchangeKind
from ingest.report import Report
from ingest.sentiment import score_headlines
from ingest.settings import Settings
from ml.garch import NoBarsError, fit_garch

DESCRIPTIONS: dict[ExchangeKind, str] = {
    "klines": "Candlesticks from archives and REST.",
    "trades": "Aggregate trades from archives and REST.",
    "books": "The present order books over REST; their history comes from files and the recorder.",
    "funding": "Funding rates of USD-M futures from archives and REST.",
    "open_interest": "Open interest of USD-M futures from archives and REST.",
    "liquidations": "Forced orders of USD-M futures from archives.",
    "mark_prices": "Mark and index prices of USD-M futures over REST, every minute.",
}

BY_USERS = {
    "macro_bars": "Bars of indices and commodities, landed by `tapehouse ingest macro-bars`.",
    "news": "Headlines, landed by `tapehouse ingest news`.",
}


def raw_table(kind: ExchangeKind) -> dg.AssetsDefinition:
    """Return the asset of a raw table."""

    @dg.asset(
        key=dg.AssetKey(["raw", kind]),
        group_name="raw",
        kinds={"dlt", "duckdb"},
        description=DESCRIPTIONS[kind],
    )
    def ingested(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        report = ingest_history(settings, kind, start=_first_ingested(settings, kind))
        return _landed(settings, kind, report)

    return ingested


@dg.asset(
    key=dg.AssetKey(["raw", "news_scores"]),
    group_name="raw",
    kinds={"dlt", "duckdb"},
    deps=[dg.AssetKey(["raw", "news"])],
    description="Sentiment of headlines by VADER, as `tapehouse derive sentiment`.",
)
def news_scores(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Score the headlines that have no score yet."""
    return _landed(settings, "news_scores", score_headlines(settings))


@dg.asset(
    key=dg.AssetKey(["raw", "garch_parameters"]),
    group_name="raw",
    kinds={"dlt", "duckdb"},
    description="GARCH(1,1) fits to the bars of the last build, as `tapehouse derive garch`.",
)
def garch_parameters(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Fit at the cut-offs that the bars of the last build have reached; none before a build."""
    try:
        report = fit_garch(settings)
    except NoBarsError:
        report = Report(())
    return _landed(settings, "garch_parameters", report)


raw_tables = [
    *(raw_table(kind) for kind in get_args(ExchangeKind)),
    *(news_scores, garch_parameters),
]
user_tables = [
    dg.AssetSpec(dg.AssetKey(["raw", name]), group_name="raw", description=description)
    for name, description in BY_USERS.items()
]


def _landed(settings: Settings, table: str, report: Report) -> dg.MaterializeResult[None]:
    timeout_s = settings.writer_timeout_s
    with warehouse.reading(settings.database, timeout_s=timeout_s) as connection:
        ((row_count,),) = connection.execute(f"select count(*) from raw.{table}").fetchall()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": row_count,
            "landed": report.row_count,
            "rejected": report.reject_count,
            "not to be had": [failure.unit for failure in report.failures],
        }
    )


def _first_ingested(settings: Settings, kind: ExchangeKind) -> datetime | None:
    """Return where the history that was taken from the exchange begins, None if there is none."""
    if not settings.database.exists():
        return None
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        rows: list[tuple[datetime | None]] = connection.execute(
            "select min(covered_from) from raw.landings where kind = ? and exchange = ?",
            [kind, settings.exchange],
        ).fetchall()
    return rows[0][0]
