"""`tapehouse status`."""

from typing import Annotated

import typer


def status(
    require: Annotated[
        list[str] | None,
        typer.Option(help="recorder, loop, landing or models: must be running; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what runs beside the warehouse: recorder, loop, landing, models, and how they fare.

    Latencies are the median and the 99th of 100, rounded up to a bucket. Times are UTC.

    Exit code 0: nothing is wrong. 1: something is: a process was killed or does not answer, the
    recorder hears nothing, a breaker is open, a budget is spent, or what --require names does not
    run. 2: the command was not understood.
    """
    import json
    from dataclasses import asdict

    from ingest.settings import Settings
    from orchestration.commands.tables import print_rows
    from serving.status import ROLES
    from serving.status import status as found_status

    unknown = sorted(set(require or ()) - set(ROLES))
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: one of {', '.join(ROLES)} is expected", param_hint="--require"
        )
    found = found_status(Settings(), required=require or ())
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False, indent=2))
    else:
        print_rows(
            ["", "state", "", "figures"],
            [[line.name, line.state, line.since, line.figures] for line in found.lines],
        )
        for problem in found.problems:
            typer.secho(f"! {problem}", fg="red")
    if found.problems:
        raise typer.Exit(1)
