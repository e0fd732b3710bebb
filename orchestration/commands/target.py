"""The option `--target` of the commands that work in either warehouse."""

import os
from enum import StrEnum
from typing import Annotated

import typer


class Warehouse(StrEnum):
    """The warehouses there are."""

    duckdb = "duckdb"
    bigquery = "bigquery"


def _choose(value: Warehouse | None) -> None:
    if value:
        os.environ["TAPEHOUSE_TARGET"] = value.value


Target = Annotated[
    Warehouse | None,
    typer.Option(
        "--target", callback=_choose, help="The warehouse, as dbt's; else TAPEHOUSE_TARGET."
    ),
]
