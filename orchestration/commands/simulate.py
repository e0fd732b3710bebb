"""`tapehouse simulate`."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

_DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def _speed(text: str) -> float:
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected a number or 'max', found {text!r}") from error
    if not speed >= 0.0:
        raise typer.BadParameter(f"expected 0 or more, found {text}")
    return speed


def simulate(
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 1,
    edge: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Planted edge: 0 none, 1 strong.")
    ] = 0.0,
    symbols: Annotated[
        list[str] | None,
        typer.Option(help="USDT pairs; repeat the option. Default: the five large ones."),
    ] = None,
    start: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of the history, UTC.")
    ] = datetime(2024, 12, 10),
    days: Annotated[int, typer.Option(min=1, help="Days of history.")] = 30,
    replay: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Serve recorded Parquet or CSV files (DIR/spot, DIR/um) instead.",
        ),
    ] = None,
    now: Annotated[
        datetime | None,
        typer.Option(formats=_DATES, help="Where the clock starts, UTC. Default: end of history."),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            parser=_speed,
            metavar="N|max",
            help="Simulated seconds per second; 0 freezes the clock, "
            "'max' runs it as fast as streams are read.",
        ),
    ] = 1.0,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8321,
) -> None:
    """Run an exchange on this machine that speaks Binance's spot and USD-M formats.

    It serves REST, WebSocket streams and the public archives over a synthetic market, or over
    recorded files. Stop it with Ctrl-C. Faults are made by POST to /simulator/faults, for example
    {"status": 429, "next_requests": 3, "retry_after": 1}, {"disconnect_after": 100} or
    {"duplicate": 0.01, "missing": 0.01, "reorder": 0.01, "delay": 0.05, "delay_s": 2,
    "malformed": 0.01, "truncated": 0.01, "sequence_gap": 0.01, "silent_after": 500,
    "clock_jump_s": 3}; {} ends them.
    """
    from rich.console import Console

    from ingest.simulator import Market, Replay, Simulator
    from ingest.simulator.instruments import DEFAULT_SYMBOLS
    from ingest.simulator.server import run

    console = Console(highlight=False, soft_wrap=True)

    def announce(running: Simulator) -> None:
        console.print(f"Exchange simulator: {running.url}  (now {running.clock})")
        console.print(f"Use it:             export TAPEHOUSE_EXCHANGE_URL={running.url}")

    try:
        source = (
            Replay(replay)
            if replay
            else Market(seed, symbols or DEFAULT_SYMBOLS, start.replace(tzinfo=UTC), days, edge)
        )
        run(
            source,
            speed=speed,
            now=now and now.replace(tzinfo=UTC),
            port=port,
            announce=announce,
        )
    except (ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    console.print("Exchange simulator stopped.")
