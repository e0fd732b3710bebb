"""What the commands show: a progress bar, tables of counts and of rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingest.report import OnStep, Report, Step
from ingest.settings import Settings

LONGEST_LINE = 100_000


@contextmanager
def progress(kind: str) -> Iterator[OnStep]:
    """Show a bar on standard error while the block runs."""
    columns = (
        TextColumn(kind),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=None)

        def on_step(step: Step) -> None:
            bar.update(task, completed=step.done, total=step.total, description=step.label)

        yield on_step


def show(report: Report, settings: Settings) -> None:
    """Print what landed, series by series, and what could not be had."""
    table = Table(
        title=f"Landed in {settings.place}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("series", no_wrap=True)
    for name in ("rows", "rejected", "skipped"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first (UTC)", no_wrap=True)
    table.add_column("last (UTC)", no_wrap=True)
    for line in report.lines:
        series = line.series
        parts = (series.market, series.symbol or "several", series.interval or series.kind)
        table.add_row(
            " ".join(filter(None, parts)),
            f"{line.row_count:,}",
            f"{line.reject_count:,}",
            f"{line.skipped_units:,}",
            _time(line.first_event_at),
            _time(line.last_event_at),
        )
    console = Console(highlight=False)
    console.print(table)
    for failure in report.failures:
        console.print(
            f"not landed: {failure.unit}: {failure.message}", markup=False, soft_wrap=True
        )
    if report.reject_count:
        console.print("rejected rows and the reasons: select * from raw.raw_rejects")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose values fold rather than lose their ends; in a file each row is a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in ("model", "version"))
    for row in rows:
        table.add_row(*(escape(value) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = LONGEST_LINE
    console.print(table)


def _time(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""
