"""`tapehouse check`: what must hold of the tables."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestration.commands.target import Target

app = typer.Typer(name="check", help="Prove what must hold of the tables.", no_args_is_help=True)

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]

CutOffs = Annotated[
    list[datetime] | None,
    typer.Option(
        "--cut-off",
        formats=_FORMATS,
        help="UTC; may be repeated. Without, a handful that lie where leaks show.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Such as feat_ta; may be repeated. Without, all of them."),
]


@app.command()
def leaks(cut_off: CutOffs = None, model: Models = None) -> None:
    """Prove that no feature or label table depends on rows that had not arrived.

    Every table is rebuilt from the raw rows that had arrived by several cut-offs and compared,
    column by column, with the table built from all rows. The warehouse is only read, and held
    only while its raw rows are copied.

    Exit code 0: no leak. 1: leaks were found, or the check could not be made; the output says
    which or why. 2: the command was not understood.
    """
    from rich.console import Console

    from ingest.settings import Settings
    from orchestration.report import print_proof
    from orchestration.stages import stage
    from serving.leaks import UnknownModelError, check

    settings = Settings()
    try:
        with stage(Console(stderr=True), "check leaks") as say:
            proof = check(
                settings.database,
                model or (),
                cut_off or (),
                timeout_s=settings.writer_timeout_s,
                say=say,
            )
    except UnknownModelError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    print_proof(proof)
    if proof.leaks:
        raise typer.Exit(1)


@app.command()
def skew(
    days: Annotated[
        int, typer.Option(min=1, help="How many days before the last bar served are compared.")
    ] = 7,
) -> None:
    """Compare what `tapehouse serve` said with what the batch computes for the same bars.

    Per feature: how many values differ, are missing or too many, the worst difference, and how
    far the served values have drifted from the training part (PSI). Per model: the same of its
    answers, how many bars it was asked about, and when the last one closed. Run
    `tapehouse land` and `dbt build` first, so that both have the same bars.

    Exit code 0: no difference. 1: values differ, bars are missing or too many, or nothing was
    served yet.
    """
    from ingest.settings import Settings
    from ingest.warehouse import reading
    from orchestration.skew import print_skew, wrong
    from serving.skew import predictions
    from serving.skew import skew as compare

    settings = Settings()
    with reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        features = compare(connection, days=days)
        answers = predictions(connection, days=days)
    print_skew(features, answers)
    if wrong(features, answers):
        raise typer.Exit(1)


@app.command()
def costs(
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="UTC day that changed first. Yesterday."),
    ] = None,
    price: Annotated[
        float, typer.Option(help="Dollars a TiB that queries read: your contract's.")
    ] = 6.25,
    target: Target = None,  # noqa: ARG001
) -> None:
    """Estimate what one refresh of the models on BigQuery reads, and bills.

    Rows of the partitions that each statement touches times the width of the columns it reads.
    The sizes are those of the warehouse of `--target`: of the DuckDB file, as if it were on
    BigQuery, or what BigQuery says of its partitions. Nothing is run.

    Exit code 0: every model is refreshed from a bounded part of the history, or says in its
    `meta.reads_whole` why not. 1: some would read a whole history; they are named.
    """
    from ingest.settings import Settings
    from orchestration.costs import compiled_refresh
    from orchestration.costs import costs as estimated
    from orchestration.report import print_costs
    from orchestration.sizes import cloud_tables, duckdb_tables

    settings = Settings()
    day = since or datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
    refresh = compiled_refresh(day.replace(hour=0, minute=0, second=0, microsecond=0))
    sizes = cloud_tables if settings.target == "bigquery" else duckdb_tables
    found = list(estimated(refresh, sizes(settings, refresh.partition_columns)))
    print_costs(found, price)
    if any(cost.is_too_much for cost in found):
        raise typer.Exit(1)
