"""Kill the live chain at random moments under a faulty exchange, and see that nothing is lost.

`python benchmarks/chaos.py --kills 200 --seed 1`: recorder, scoring loop and landing run against
the simulator with its faults on and a fast clock. Again and again one of them is killed (SIGKILL)
and started anew, at once or after a while, or stands still for a random time; sometimes another
process holds the warehouse. Then everything is landed, and compared with what the exchange had to
say and with what the batch computes. Exit code 1: something was lost, doubled or different.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Annotated

import typer
from chaos_crew import SYMBOLS, Crew, prepared
from chaos_judge import judge
from rich.console import Console
from rich.table import Table

from ingest.simulator import Market, Simulator, simulator

FAULTS: tuple[dict[str, float], ...] = (
    {},
    {"duplicate": 0.05, "reorder": 0.05},
    {"missing": 0.02, "malformed": 0.01, "truncated": 0.01},
    {"delay": 0.05, "delay_s": 1.0, "duplicate": 0.02},
    {"disconnect_after": 150},
    {"silent_after": 300, "sequence_gap": 0.02},
    {"status": 429, "rate": 0.5, "retry_after": 1, "missing": 0.02},
    {"clock_jump_s": 30.0, "reorder": 0.02},
    {"clock_jump_s": -30.0, "sequence_gap": 0.02},
)
FAULTS_EVERY_S = 4.0


def main(
    kills: Annotated[int, typer.Option(min=0, help="How many processes are killed.")] = 200,
    seed: Annotated[int, typer.Option(help="Of market, faults and moments.")] = 1,
    speed: Annotated[float, typer.Option(help="Simulated seconds per second.")] = 30.0,
    pause: Annotated[float, typer.Option(help="Seconds between kills, on average.")] = 1.2,
    days: Annotated[int, typer.Option(min=2, help="Days of history to train on.")] = 4,
    keep: Annotated[bool, typer.Option(help="Leave the directory behind.")] = False,
) -> None:
    """Run, judge, print."""
    console = Console(highlight=False, soft_wrap=True)
    directory = Path(tempfile.mkdtemp(prefix="tapehouse-chaos-"))
    # Who is killed leaves temporary files behind: here, where they go with the rest.
    os.environ["TMPDIR"] = str(directory)
    random = Random(seed)
    begun = time.monotonic()
    try:
        market = Market(seed, list(SYMBOLS), days=days + 2, edge=1.0)
        stage = prepared(market, directory, _dbt, history=timedelta(days=days))
        console.print(f"{_since(begun)} prepared in {directory}")
        with simulator(market, now=stage.start, speed=speed) as exchange:
            stage = stage.on(exchange)
            with Crew(stage) as crew:
                _torment(crew, exchange, random, kills, pause, console, begun)
                exchange.faults.replace({})
                end = crew.settle()
            console.print(f"{_since(begun)} settled; {crew.told()}")
            checks = judge(stage, market, end)
    finally:
        if keep:
            console.print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    table = Table("check", "expected", "found", "", box=None, pad_edge=False)
    for check in [*crew.checks(), *checks]:
        verdict = "ok" if check.is_good else "WRONG"
        table.add_row(check.name, check.expected, check.found, verdict)
        for example in check.examples:
            console.print(f"  {check.name}: {example}", style="red", markup=False)
    console.print(table)
    console.print(f"{_since(begun)} seed {seed}, speed {speed:g}")
    if not all(check.is_good for check in [*crew.checks(), *checks]):
        raise typer.Exit(1)


def _torment(
    crew: Crew,
    exchange: Simulator,
    random: Random,
    kills: int,
    pause: float,
    console: Console,
    begun: float,
) -> None:
    crew.start()
    changed_at = 0.0
    for number in range(1, kills + 1):
        if time.monotonic() - changed_at > FAULTS_EVERY_S:
            exchange.faults.replace(random.choice(FAULTS))
            changed_at = time.monotonic()
        time.sleep(random.uniform(0.0, 2.0 * pause))
        crew.kill(random)
        if random.random() < 0.1:
            crew.pause(random)
        if number % 20 == 0:
            console.print(f"{_since(begun)} {number} kills; {crew.told()}")
    time.sleep(pause)


def _dbt(database: Path, *arguments: str) -> str:
    root = Path(__file__).resolve().parents[1]
    artifacts = str(database.parent / "dbt")
    command = [
        *(str(Path(sys.executable).with_name("dbt")), "--quiet", *arguments),
        *("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"),
        *("--project-dir", str(root / "dbt_project"), "--profiles-dir", str(root)),
        *("--target-path", artifacts, "--log-path", artifacts),
    ]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(database)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"dbt failed: {done.stdout}{done.stderr}")
    return done.stdout


def _since(begun: float) -> str:
    return f"{time.monotonic() - begun:6.1f} s"


if __name__ == "__main__":
    typer.run(main)
