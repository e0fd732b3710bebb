"""`tapehouse ingest`: bring the exchange's history, or files, into the warehouse."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from orchestration.commands.target import Target

if TYPE_CHECKING:
    from ingest.history import SourceName
    from ingest.kind import ExchangeKind, KindName

app = typer.Typer(
    name="ingest",
    help="Land data in the raw schema. Running it again lands nothing twice.",
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
Files = Annotated[
    list[Path], typer.Argument(help="CSV, zip or Parquet files, or directories of such.")
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
Recheck = Annotated[
    bool,
    typer.Option("--recheck", help="Land archives again that were republished with corrections."),
]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="Only these; a single one names what the columns do not."),
]
KnownAfter = Annotated[
    int | None,
    typer.Option(
        "--known-after",
        metavar="MINUTES",
        min=0,
        help="How long after publication a row could be seen, where the file does not say when it "
        "arrived; without, a row counts as known from its landing.",
    ),
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
    recheck: Recheck = False,
    _target: Target = None,
) -> None:
    """Candles of one or several intervals."""
    _ingest(
        "klines", paths, symbol, market, start, end, source, recheck=recheck, intervals=interval
    )


def _history(kind: "ExchangeKind", help_text: str) -> None:
    """Add the command of a kind of which the exchange has archives and answers over REST."""

    @app.command(name=kind.replace("_", "-"), help=help_text)
    def command(
        paths: Paths = None,
        symbol: Symbols = None,
        market: MarketChoice = None,
        start: Start = None,
        end: End = None,
        source: From = None,
        recheck: Recheck = False,
        _target: Target = None,
    ) -> None:
        _ingest(kind, paths, symbol, market, start, end, source, recheck=recheck)


_history("trades", "Trades: the aggregate ones from the exchange, either kind from files.")
_history("funding", "Funding rates of USD-M futures.")
_history("open_interest", "Open interest of USD-M futures, every five minutes.")
_history(
    "liquidations",
    "Liquidations of USD-M futures: from archives or files; `tapehouse record` takes live ones.",
)


@app.command()
def books(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    source: From = None,
    _target: Target = None,
) -> None:
    """Order books: from files, or the present one over REST; the exchange keeps no history."""
    _ingest("books", paths, symbol, market, None, None, source)


@app.command(name="mark-prices")
def mark_prices(
    paths: Paths = None,
    symbol: Symbols = None,
    market: MarketChoice = None,
    start: Start = None,
    end: End = None,
    source: From = None,
    _target: Target = None,
) -> None:
    """Mark and index prices of USD-M futures: every minute over REST, or from files."""
    _ingest("mark_prices", paths, symbol, market, start, end, source)


@app.command(name="macro-bars")
def macro_bars(
    paths: Files,
    series: Annotated[
        list[str] | None, typer.Option("--series", help="spx, dxy, gold or vix.")
    ] = None,
    interval: Intervals = None,
    _target: Target = None,
) -> None:
    """Bars of indices and commodities, from files."""
    _ingest_files("macro_bars", paths, series, intervals=interval)


@app.command()
def news(
    paths: Files,
    provider: Providers = None,
    known_after: KnownAfter = None,
    _target: Target = None,
) -> None:
    """Headlines, from files. `tapehouse derive sentiment` scores them."""
    _ingest_files("news", paths, provider, known_after=known_after)


@app.command(name="news-scores")
def news_scores(
    paths: Files,
    provider: Providers = None,
    known_after: KnownAfter = None,
    _target: Target = None,
) -> None:
    """Sentiment that you have computed, -1 to 1, from files."""
    _ingest_files("news_scores", paths, provider, known_after=known_after)


@app.command(name="garch-parameters")
def garch_parameters(
    paths: Files,
    symbol: Symbols = None,
    market: MarketChoice = None,
    _target: Target = None,
) -> None:
    """GARCH(1,1) parameters that you fitted, from files. `tapehouse derive garch` fits, too."""
    _ingest_files("garch_parameters", paths, symbol, market=market)


def _ingest(
    kind: "ExchangeKind",
    paths: list[Path] | None,
    symbols: list[str] | None,
    market: MarketOption | None,
    start: datetime | None,
    end: datetime | None,
    source: SourceOption | None,
    *,
    intervals: list[str] | None = None,
    recheck: bool = False,
) -> None:
    from ingest.history import ingest_history
    from ingest.settings import Settings
    from orchestration.commands.tables import progress, show

    if paths and source not in (None, SourceOption.files):
        raise typer.BadParameter(f"paths are read with --from files, not {source}")
    if source == SourceOption.files and not paths:
        raise typer.BadParameter("name the files or directories to read after --from files")
    if paths and (start or end or recheck):
        raise typer.BadParameter("files land whole: leave out --start, --end and --recheck")
    if paths:
        _ingest_files(kind, paths, symbols, intervals=intervals, market=market)
        return
    settings = Settings()
    try:
        with progress(kind) as on_step:
            report = ingest_history(
                settings,
                kind,
                market=market.value if market else None,
                symbols=symbols or (),
                intervals=intervals or (),
                start=start and start.replace(tzinfo=UTC),
                end=end and end.replace(tzinfo=UTC),
                source=cast("SourceName", source.value if source else "auto"),
                recheck=recheck,
                on_step=on_step,
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    show(report, settings)
    if report.failures:
        raise typer.Exit(1)


def _ingest_files(
    kind: "KindName",
    paths: list[Path],
    symbols: list[str] | None,
    *,
    intervals: list[str] | None = None,
    market: MarketOption | None = None,
    known_after: int | None = None,
) -> None:
    from ingest.files import ingest_files
    from ingest.settings import Settings
    from orchestration.commands.tables import progress, show

    settings = Settings()
    try:
        with progress(kind) as on_step:
            report = ingest_files(
                settings,
                kind,
                paths,
                market=market.value if market else None,
                symbols=symbols or (),
                intervals=intervals or (),
                known_after=None if known_after is None else timedelta(minutes=known_after),
                on_step=on_step,
            )
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    show(report, settings)
    if report.failures:
        raise typer.Exit(1)
