"""`tapehouse derive`: raw rows that are computed from rows that have landed."""

from typing import Annotated

import typer

from orchestration.commands.ingest import Symbols

app = typer.Typer(
    name="derive",
    help="Compute raw rows that SQL does not: sentiment of headlines, GARCH fits. Running it "
    "again computes only what is missing.",
    no_args_is_help=True,
)


@app.command()
def sentiment() -> None:
    """Score the headlines of raw.news that have no score yet, by VADER, into raw.news_scores."""
    from ingest.sentiment import score_headlines
    from ingest.settings import Settings
    from orchestration.commands.tables import progress, show

    settings = Settings(target="duckdb")
    with progress("headlines") as on_step:
        report = score_headlines(settings, on_step=on_step)
    show(report, settings)


@app.command()
def garch(
    symbol: Symbols = None,
    interval: Annotated[
        list[str] | None, typer.Option("--interval", help="Such as 5m; all by default.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="DAYS", help="Days between two fits.")] = 30,
    window: Annotated[int, typer.Option(min=1, metavar="DAYS", help="Days a fit looks back.")] = 90,
    delay: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help="How long after the last bar of a fit its parameters count as known.",
        ),
    ] = 1440,
) -> None:
    """Fit GARCH(1,1) to the bars of the last build, walking forward, into raw.garch_parameters."""
    from datetime import timedelta

    from ingest.settings import Settings
    from ml.garch import fit_garch
    from orchestration.commands.tables import progress, show

    settings = Settings(target="duckdb")
    try:
        with progress("fits") as on_step:
            report = fit_garch(
                settings,
                symbols=symbol or (),
                intervals=interval or (),
                every=timedelta(days=every),
                window=timedelta(days=window),
                delay=timedelta(minutes=delay),
                on_step=on_step,
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    show(report, settings)
    if report.failures:
        raise typer.Exit(1)
