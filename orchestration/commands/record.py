"""`tapehouse record`: listen to the exchange and land what it says."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestration.commands.ingest import Intervals, MarketChoice, Symbols
from orchestration.commands.land import MetricsPort, duration


def record(
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long to listen.")] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="UTC end, instead."),
    ] = None,
    symbol: Symbols = None,
    interval: Intervals = None,
    market: MarketChoice = None,
    land_every: Annotated[
        float,
        typer.Option(parser=duration, metavar="TIME", help="Land so often meanwhile."),
    ] = 60.0,
    metrics_port: MetricsPort = 0,
) -> None:
    """Record live candles, trades, books, mark prices, open interest and liquidations.

    It runs until it is stopped with Ctrl-C or SIGTERM, or until the time given.

    Messages are written to segment files first and landed every so often and at the end. What an
    interrupted recording left is landed by the next one. A book is kept for each symbol and
    written once a second; holes in its changes are in raw.book_gaps. It stops before
    TAPEHOUSE_SEGMENTS_MAX_GB are used or less than TAPEHOUSE_DISK_RESERVE_GB are free.
    """
    from ingest import health
    from ingest.recorder import record as record_streams
    from ingest.settings import Settings
    from orchestration.commands.tables import show

    if seconds is not None and until is not None:
        raise typer.BadParameter("say how long to listen by --seconds or by --until, not both")
    if until:
        seconds = (until.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        if seconds <= 0:
            raise typer.BadParameter(f"--until {until} is over")
    settings = Settings()
    market_name = market.value if market else settings.market
    with health.running(settings, "recorder", part=market_name, port=metrics_port):
        report = record_streams(
            settings,
            seconds=seconds,
            market=market_name,
            symbols=symbol or (),
            intervals=interval or (),
            land_s=land_every,
        )
        show(report, settings)
        if report.failures:
            # Within, so that `tapehouse status` tells of it.
            raise typer.Exit(1)
