"""`tapehouse ingest`: bring the exchange's history, or files, into the warehouse."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from ingest.history import SourceName
    from ingest.kinds import KindName

app = typer.Typer(
    name="ingest",
    help="Land market data in the raw schema. Running it again lands nothing twice.",
    no_args_is_help=True,
)


class MarketOption(StrEnum):
    """Markets of the exchange."""

    spot = "spot"
    um = "um"


class SourceOption(StrEnum):
    """Where data comes from."""

    auto = "auto"
    archives = "archives"
    rest = "rest"
    files = "files"


_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

Paths = Annotated[
    list[Path] | None,
    typer.Argument(help="CSV, zip or Parquet files, or directories; without, the exchange."),
]
Symbols = Annotated[
    list[str] | None, typer.Option("--symbol", help="Such as BTCUSDT; may be repeated.")
]
Intervals = Annotated[
    list[str] | None, typer.Option("--interval", help="Such as 1m; may be repeated.")
]
MarketChoice = Annotated[
    MarketOption | None, typer.Option("--market", help="Spot or USD-M futures (um).")
]
Start = Annotated[
    datetime | None, typer.Option(formats=_FORMATS, help="UTC, included; 30 days before the end.")
]
End = Annotated[datetime | None, typer.Option(formats=_FORMATS, help="UTC, excluded; now.")]
From = Annotated[
    SourceOption | None,
    typer.Option("--from", help="auto: archives of past days and months, REST for the rest."),
]


@app.command()
def klines(
    paths: Paths = None,
    symbol: Symbols = None,
    interval: Intervals = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
) -> None:
    """Candles of one or several intervals."""
    _ingest("klines", paths, symbol, market, start, end, source, intervals=interval)


@app.command()
def trades(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
) -> None:
    """Trades: the aggregate ones from the exchange, either kind from files."""
    _ingest("trades", paths, symbol, market, start, end, source)


@app.command()
def books(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    source: From = None,
) -> None:
    """Order books: from files, or the present one over REST; the exchange keeps no history."""
    _ingest("books", paths, symbol, market, None, None, source)


@app.command()
def funding(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
) -> None:
    """Funding rates of USD-M futures."""
    _ingest("funding", paths, symbol, market, start, end, source)


@app.command(name="open-interest")
def open_interest(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
) -> None:
    """Open interest of USD-M futures, every five minutes."""
    _ingest("open_interest", paths, symbol, market, start, end, source)


@app.command()
def liquidations(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
) -> None:
    """Liquidations of USD-M futures: from archives or files; `tapehouse record` takes live ones."""
    _ingest("liquidations", paths, symbol, market, start, end, source)


def _ingest(
    kind: "KindName",
    paths: list[Path] | None,
    symbols: list[str] | None,
    market: MarketOption | None,
    start: datetime | None,
    end: datetime | None,
    source: SourceOption | None,
    *,
    intervals: list[str] | None = None,
) -> None:
    from ingest.files import ingest_files
    from ingest.history import ingest_history
    from ingest.settings import Settings
    from orchestration.commands.tables import progress, show

    if paths and source not in (None, SourceOption.files):
        raise typer.BadParameter(f"paths are read with --from files, not {source}")
    if source == SourceOption.files and not paths:
        raise typer.BadParameter("name the files or directories to read after --from files")
    if paths and (start or end):
        raise typer.BadParameter("files land whole: leave out --start and --end")
    settings = Settings()
    series: dict[str, Any] = {
        "market": market.value if market else None,
        "symbols": symbols or (),
        "intervals": intervals or (),
    }
    try:
        with progress(kind) as on_step:
            if paths:
                report = ingest_files(settings, kind, paths, on_step=on_step, **series)
            else:
                report = ingest_history(
                    settings,
                    kind,
                    start=start and start.replace(tzinfo=UTC),
                    end=end and end.replace(tzinfo=UTC),
                    source=cast("SourceName", source.value if source else "auto"),
                    on_step=on_step,
                    **series,
                )
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    show(report, settings.database)
    if report.failures:
        raise typer.Exit(1)
