"""`tapehouse demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Recorded files (DIR/spot, DIR/um) instead of a simulated exchange.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 1,
    edge: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Planted edge: 0 none, 1 strong.")
    ] = 0.75,
    days: Annotated[int, typer.Option(min=3, help="Days of simulated history.")] = 30,
    symbols: Annotated[
        str, typer.Option(help="Simulated USDT pairs, with commas.")
    ] = "BTCUSDT,ETHUSDT,SOLUSDT,BNBUSDT,XRPUSDT",
    tests: Annotated[bool, typer.Option(help="Run the dbt project's tests too.")] = True,
) -> None:
    """Go the whole way, offline: ingest, dbt build, training, scoring, an honest report.

    It works in a warehouse of its own, data/demo/tapehouse.duckdb, or data/recorded/… with
    --data, unless TAPEHOUSE_DATABASE is set. The simulated demo starts afresh every time.
    """
    import os

    from rich.console import Console

    from ingest.settings import PROJECT_ROOT, Settings
    from orchestration.demo import Synthetic, run_recorded, run_simulated

    settings = Settings()
    if "TAPEHOUSE_DATABASE" not in os.environ:
        place = PROJECT_ROOT / "data" / ("recorded" if data else "demo")
        settings = settings.model_copy(update={"database": place / "tapehouse.duckdb"})
    console = Console(highlight=False, soft_wrap=True)
    if data:
        run_recorded(settings, data, tests=tests, console=console)
    else:
        names = tuple(name.strip().upper() for name in symbols.split(","))
        if wrong := [name for name in names if not name.endswith("USDT") or name == "USDT"]:
            raise typer.BadParameter(f"expected USDT pairs such as BTCUSDT, found {wrong}")
        synthetic = Synthetic(seed, edge, days, names)
        run_simulated(settings, synthetic, tests=tests, console=console)
