"""`tapehouse ui`."""

from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 3000,
) -> None:
    """Open Dagster on 127.0.0.1 for the warehouse that TAPEHOUSE_DATABASE names."""
    from ingest.settings import Settings
    from orchestration.ui import serve

    raise typer.Exit(serve(Settings(), port=port))
