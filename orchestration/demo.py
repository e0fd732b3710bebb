"""The demo: the whole way from an exchange to signals and a verdict, in a warehouse of its own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from rich.console import Console

from ingest import warehouse
from ingest.files import ingest_files
from ingest.history import ingest_history
from ingest.kind import ExchangeKind, KindName
from ingest.recorder import record
from ingest.report import Report, Step
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator, write_books
from ingest.simulator.source import instant
from orchestration.build import build
from orchestration.report import print_report, print_scored
from orchestration.stages import Say, stage
from serving.scoring import score

BOOK_SYMBOLS = 2
FRESH_KINDS: tuple[ExchangeKind, ...] = ("klines", "trades", "funding", "open_interest")
HISTORY: tuple[ExchangeKind, ...] = (*FRESH_KINDS, "liquidations")
FRESH = timedelta(hours=1)
RECORDING_S = 3.0
RECORDING_SPEED = 60.0


class DemoError(RuntimeError):
    """The demo will not touch what is not its own."""


@dataclass(frozen=True)
class Synthetic:
    """The simulated market of the demo; see `ingest.simulator.Market`."""

    seed: int
    edge: float
    days: int
    symbols: tuple[str, ...]

    def market(self) -> Market:
        """Return the market."""
        return Market(self.seed, self.symbols, days=self.days, edge=self.edge)


def run_simulated(
    settings: Settings, synthetic: Synthetic, *, tests: bool, console: Console
) -> None:
    """Simulate an exchange, ingest its history, build, score the hour after it, and report.

    It starts from an empty warehouse every time, so it ends in the same state however often it
    runs and wherever a run before it was killed.

    Parameters
    ----------
    settings : Settings
        Names the warehouse, which must be new or made by the demo.
    synthetic : Synthetic
        The market.
    tests : bool
        Whether the dbt project's tests run too.
    console : rich.console.Console
        Where progress and the report go.

    Raises
    ------
    DemoError
        If the warehouse was not made by the demo.
    """
    start_afresh(settings, synthetic)
    market = synthetic.market()
    with simulator(market) as exchange:
        settings = settings.model_copy(
            update={"exchange_url": exchange.url, "symbols": list(synthetic.symbols)}
        )
        for kind in HISTORY:
            with stage(console, f"Ingest {_words(kind)} from archives and REST") as say:
                _ingest_history(settings, kind, exchange, market.start, say)
        with stage(console, "Ingest books from files") as say:
            _ingest_books(settings, market, say)
        with stage(console, f"Record {settings.symbols[0]} spot streams") as say:
            _record_spot(settings, market, say)
        _build(settings, console, tests=tests)
        exchange.clock.advance(FRESH)
        for kind in FRESH_KINDS:
            with stage(console, f"Ingest {_words(kind)} of the next hour over REST") as say:
                _ingest_history(settings, kind, exchange, market.start, say)
    _score_and_report(
        settings,
        console,
        note=f"The market is simulated; an edge of {synthetic.edge:g} is planted in it."
        if synthetic.edge
        else "The market is simulated, without an edge.",
    )


def run_recorded(settings: Settings, directory: Path, *, tests: bool, console: Console) -> None:
    """Ingest the recorded files of a directory, build, score and report.

    Files that landed before are skipped.
    """
    for kind in get_args(KindName):
        with stage(console, f"Ingest {_words(kind)} from files") as say:
            try:
                _say_rows(ingest_files(settings, kind, [directory], on_step=_steps(say)), say)
            except FileNotFoundError:
                say("no file")
    _build(settings, console, tests=tests)
    _score_and_report(settings, console, note=f"The data is what {directory} holds.")


def simulated(settings: Settings) -> Synthetic | None:
    """Return the market that a demo's warehouse was filled from, None for any other warehouse."""
    marker = _marker(settings.database)
    return Synthetic(**json.loads(marker.read_text())) if marker.exists() else None


def start_afresh(settings: Settings, synthetic: Synthetic) -> None:
    """Remove what an earlier demo left beside its warehouse, and mark the place as the demo's.

    Raises
    ------
    DemoError
        If the warehouse, or another in its folder, exists and no demo made it.
    """
    folder = settings.database.parent
    there = {settings.database, *folder.glob("*.duckdb")}
    for database in sorted(there):
        if database.exists() and not _marker(database).exists():
            raise DemoError(
                f"{database} was not made by the demo, which would delete what lies there: "
                "unset TAPEHOUSE_DATABASE or point it into a new folder"
            )
    if settings.database.exists():
        warehouse.wait_for_writer(settings.database, timeout_s=settings.writer_timeout_s)
    for path in (
        settings.database,
        settings.database.with_name(f"{settings.database.name}.wal"),
        settings.snapshot,
    ):
        path.unlink(missing_ok=True)
    for directory in (
        settings.models_directory,
        settings.segments_directory,
        settings.dlt_directory,
        folder / "books",
    ):
        shutil.rmtree(directory, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _marker(settings.database).write_text(json.dumps(asdict(synthetic)))


def _marker(database: Path) -> Path:
    name = database.name.removesuffix(".duckdb").removesuffix(".snapshot")
    return database.with_name(f"{name}.demo.json")


def _ingest_history(
    settings: Settings, kind: ExchangeKind, exchange: Simulator, start: datetime, say: Say
) -> None:
    report = ingest_history(
        settings,
        kind,
        start=start,
        on_step=_steps(say),
        clock=lambda: instant(exchange.clock.now()),
    )
    _say_rows(report, say)


def _ingest_books(settings: Settings, market: Market, say: Say) -> None:
    directory = settings.database.parent / "books"
    day = market.start
    while day < market.end:
        for symbol in settings.symbols[:BOOK_SYMBOLS]:
            say(f"writing {symbol} of {day:%Y-%m-%d}")
            write_books(market, settings.market, symbol, day.date(), directory)
        day += timedelta(days=1)
    _say_rows(ingest_files(settings, "books", [directory], on_step=_steps(say)), say)


def _record_spot(settings: Settings, market: Market, say: Say) -> None:
    with simulator(market, speed=RECORDING_SPEED) as exchange:
        report = record(
            settings.model_copy(update={"exchange_url": exchange.url}),
            seconds=RECORDING_S,
            market="spot",
            symbols=settings.symbols[:1],
            clock=exchange.clock.now,
        )
    _say_rows(report, say)


def _words(kind: KindName) -> str:
    return kind.replace("_", " ")


def _build(settings: Settings, console: Console, *, tests: bool) -> None:
    with stage(console, "dbt build: features, labels, training, evaluation") as say:
        build(settings, tests=tests, say=say)


def _score_and_report(settings: Settings, console: Console, *, note: str) -> None:
    with stage(console, "Score the bars that the build did not see") as say:
        now = datetime.now(UTC).replace(tzinfo=None)
        scored = score(settings.database, now=now, timeout_s=settings.writer_timeout_s)
        say(f"{sum(run.bars for run in scored):,} bars")
    with stage(console, "Publish the read-only snapshot"):
        warehouse.publish_snapshot(settings.database, timeout_s=settings.writer_timeout_s)
    print_scored(scored, console=console)
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        print_report(connection, settings.database, console, note=note)


def _steps(say: Say) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        say(f"{step.done} of {step.total}, {step.label}")

    return on_step


def _say_rows(report: Report, say: Say) -> None:
    counts = [f"{report.row_count:,} rows"]
    if report.reject_count:
        counts.append(f"{report.reject_count:,} rejected")
    if report.failures:
        counts.append(f"{len(report.failures)} not to be had ({report.failures[0].unit}, …)")
    say(", ".join(counts))
