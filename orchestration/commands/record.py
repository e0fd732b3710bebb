"""`tapehouse record`: listen to the exchange and land what it says."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestration.commands.ingest import Intervals, MarketChoice, Symbols


def record(
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long to listen.")] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="UTC end, instead."),
    ] = None,
    symbol: Symbols = None,
    interval: Intervals = None,
    market: MarketChoice = None,
) -> None:
    """Record live candles, trades, books of 20 levels, mark prices and liquidations.

    Ctrl-C ends it earlier.

    Messages are written to segment files first and landed at the end. What an interrupted
    recording left is landed by the next one.
    """
    from rich.console import Console
    from rich.status import Status

    from ingest.recorder import record as record_streams
    from ingest.settings import Settings
    from orchestration.commands.tables import show

    if (seconds is None) == (until is None):
        raise typer.BadParameter("say how long to listen: either --seconds or --until")
    if until:
        seconds = (until.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    if seconds is None or seconds <= 0:
        raise typer.BadParameter(f"--until {until} is over")
    settings = Settings()
    with Status("listening", console=Console(stderr=True)) as status:
        report = record_streams(
            settings,
            seconds=seconds,
            market=market.value if market else None,
            symbols=symbol or (),
            intervals=interval or (),
            on_message=lambda count: status.update(f"listening: {count:,} messages"),
        )
    show(report, settings.database)
    if not report.row_count:
        raise typer.Exit(1)
