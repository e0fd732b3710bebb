"""Dagster's web interface over the project's definitions."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ingest.settings import Settings
from ingest.simulator import simulator
from orchestration.demo import FRESH, simulated

CONFIGURATION = Path(__file__).with_name("dagster.yaml")


def environment(settings: Settings) -> dict[str, str]:
    """Prepare Dagster's home beside the warehouse and return the environment that names it."""
    settings.dagster_directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIGURATION, settings.dagster_directory / CONFIGURATION.name)
    return os.environ | {
        "DAGSTER_HOME": str(settings.dagster_directory),
        "TAPEHOUSE_DATABASE": str(settings.database),
    }


def serve(settings: Settings, *, port: int) -> int:
    """Run Dagster's web server and daemon on 127.0.0.1 until they are stopped.

    The warehouse of the demo is fed by its own simulated exchange, whose time goes on from where
    the demo left it.

    Returns
    -------
    int
        Dagster's exit code.
    """
    command = [
        *(sys.executable, "-m", "dagster", "dev", "--module-name", "orchestration.definitions"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    variables = environment(settings)
    with ExitStack() as stack:
        synthetic = simulated(settings)
        if synthetic and settings.exchange_url is None:
            market = synthetic.market()
            exchange = stack.enter_context(simulator(market, speed=1.0, now=market.end + FRESH))
            variables |= {
                "TAPEHOUSE_EXCHANGE_URL": exchange.url,
                "TAPEHOUSE_SYMBOLS": ",".join(synthetic.symbols),
            }
        # Ctrl-C reaches Dagster by itself; a handler, unlike "ignore", is not inherited.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: process.terminate())
        process = stack.enter_context(subprocess.Popen(command, env=variables))
        return process.wait()
