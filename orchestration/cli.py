"""The `tapehouse` command."""

import sys
from typing import Any

import typer

from orchestration.commands import check, derive, ingest, models
from orchestration.commands.demo import demo
from orchestration.commands.land import land
from orchestration.commands.record import record
from orchestration.commands.score import score
from orchestration.commands.serve import serve
from orchestration.commands.serve_model import serve_model
from orchestration.commands.simulate import simulate
from orchestration.commands.status import status
from orchestration.commands.sync import sync
from orchestration.commands.ui import ui

PACKAGES = {"ingest", "ml", "serving", "orchestration"}


class Application(typer.Typer):
    """Tells this project's own errors in a line; anything else is a defect and shows its trace."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().__call__(*args, **kwargs)
        except ValueError as error:
            if not type(error).__module__.startswith("pydantic"):
                raise
            typer.secho(f"Error: a TAPEHOUSE_ variable is wrong: {error}", err=True, fg="red")
            sys.exit(2)
        except RuntimeError as error:
            if type(error).__module__.partition(".")[0] not in PACKAGES:
                raise
            typer.secho(f"Error: {error}", err=True, fg="red")
            sys.exit(1)


app = Application(
    name="tapehouse",
    help="A SQL warehouse with in-database machine learning for crypto trading signals.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(check.app)
app.command()(demo)
app.add_typer(derive.app)
app.add_typer(ingest.app)
app.add_typer(models.app)
app.command()(land)
app.command()(record)
app.command()(score)
app.command()(serve)
app.command()(serve_model)
app.command()(simulate)
app.command()(sync)
app.command()(status)
app.command()(ui)

if __name__ == "__main__":
    app()
