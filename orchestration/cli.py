"""The `tapehouse` command."""

import typer

app = typer.Typer(
    name="tapehouse",
    help="A SQL warehouse with in-database machine learning for crypto trading signals.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

if __name__ == "__main__":
    app()
