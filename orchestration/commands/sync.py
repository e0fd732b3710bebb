"""`tapehouse sync`: copy raw history between DuckDB and BigQuery."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestration.commands.target import Warehouse

_DAYS = ["%Y-%m-%d"]


def sync(
    to: Annotated[Warehouse, typer.Option("--to", help="The warehouse that receives.")],
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="A raw table, such as klines; may be repeated. All."),
    ] = None,
    start: Annotated[
        datetime | None, typer.Option(formats=_DAYS, help="First UTC day to look at.")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(formats=_DAYS, help="UTC day to stop before.")
    ] = None,
) -> None:
    """Copy raw rows from one warehouse to the other, through Parquet, and compare both.

    Counts and checksums of each UTC day and symbol say what is missing; only that is copied, so
    an interrupted run is taken up by running it again. Nothing is changed or deleted. What the
    ledgers say is copied last, when all tables and days are.

    Exit code 0: the target has every row of the source. 1: it has not, or a warehouse could not
    be used; the message says why.
    """
    from rich.console import Console
    from rich.status import Status

    from ingest.settings import Settings
    from ingest.sync import LEDGERS
    from ingest.sync import sync as copy
    from orchestration.commands.tables import print_rows

    with Status("connecting", console=Console(stderr=True)) as status:
        try:
            done = copy(
                Settings(),
                to.value,
                tables=table or (),
                on_step=status.update,
                **({"start": start.replace(tzinfo=UTC)} if start else {}),
                **({"end": end.replace(tzinfo=UTC)} if end else {}),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    columns = ("table", "days and symbols", "rows", "copied", "missing", "only in the target")
    rows = [
        (
            compared.table,
            *(f"{count:,}" for count in (compared.groups, compared.rows, compared.copied)),
            _days(compared.missing),
            _days(compared.extra),
        )
        for compared in done
        if compared.groups or compared.extra
    ]
    print_rows(columns, rows)
    if not {compared.table for compared in done} & set(LEDGERS):
        typer.echo(
            "The ledgers stay as they are: ingest there would bring these rows once more. Only a "
            "run over all tables and days that leaves nothing missing copies them."
        )
    if any(compared.missing for compared in done):
        raise typer.Exit(1)


def _days(keys: tuple[tuple[object, str | None], ...]) -> str:
    if not keys:
        return ""
    first = " ".join(str(part) for part in keys[0] if part)
    return f"{len(keys):,}, from {first}"
