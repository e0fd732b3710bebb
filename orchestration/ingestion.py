"""The raw tables as Dagster assets, each fed by the exchange's history."""

from typing import get_args

import dagster as dg

from ingest.history import ingest_history
from ingest.kind import ExchangeKind
from ingest.ledger import first_covered
from ingest.report import Report
from ingest.sentiment import score_headlines
from ingest.settings import Settings
from ml.garch import NoBarsError, fit_garch
from orchestration.metrics import raw_row_count

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
    "book_gaps": "Spans in which the recorder could not trust its order book.",
    "served_features": "Features of bars that closed live, from `tapehouse serve`.",
    "signals": "What models said of bars that closed live, from `tapehouse serve`.",
    "macro_bars": "Bars of indices and commodities, landed by `tapehouse ingest macro-bars`.",
    "news": "Headlines, landed by `tapehouse ingest news`.",
}

SYNCED = "Derived in DuckDB by `tapehouse derive`, brought by `tapehouse sync --to bigquery`."


def raw_table(kind: ExchangeKind) -> dg.AssetsDefinition:
    """Return the asset of a raw table."""

    @dg.asset(
        key=dg.AssetKey(["raw", kind]),
        group_name="raw",
        kinds={"dlt", "duckdb"},
        description=DESCRIPTIONS[kind],
    )
    def ingested(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        report = ingest_history(settings, kind, start=first_covered(settings, kind))
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


raw_tables = [raw_table(kind) for kind in get_args(ExchangeKind)]
derived_tables = [news_scores, garch_parameters]


def user_tables(settings: Settings) -> list[dg.AssetSpec]:
    """Return the raw tables that something outside of Dagster fills."""
    tables = dict(BY_USERS)
    if settings.target == "bigquery":
        tables |= {asset.key.path[-1]: SYNCED for asset in derived_tables}
    return [
        dg.AssetSpec(dg.AssetKey(["raw", name]), group_name="raw", description=description)
        for name, description in tables.items()
    ]


def _landed(settings: Settings, table: str, report: Report) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": raw_row_count(settings, table),
            "landed": report.row_count,
            "rejected": report.reject_count,
            "not to be had": [failure.unit for failure in report.failures],
        }
    )
