"""The option `--target` of the commands that work in either warehouse."""

import os
from enum import StrEnum
from typing import Any

import click
from typer.core import TyperCommand, TyperOption


class Warehouse(StrEnum):
    """The warehouses there are."""

    duckdb = "duckdb"
    bigquery = "bigquery"


class Targeted(TyperCommand):
    """A command that says, like dbt, which warehouse it works in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            TyperOption(
                param_decls=["--target"],
                type=click.Choice([warehouse.value for warehouse in Warehouse]),
                help="The warehouse to work in; TAPEHOUSE_TARGET by default.",
                callback=_choose,
                expose_value=False,
            )
        )


def _choose(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value:
        os.environ["TAPEHOUSE_TARGET"] = value
