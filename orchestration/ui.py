"""Dagster's web interface over the project's definitions."""

import os
import shutil
import sys
from pathlib import Path

from ingest.settings import Settings

CONFIGURATION = Path(__file__).with_name("dagster.yaml")


def environment(settings: Settings) -> dict[str, str]:
    """Prepare Dagster's home beside the warehouse and return the environment that names it."""
    settings.dagster_directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIGURATION, settings.dagster_directory / CONFIGURATION.name)
    return os.environ | {
        "DAGSTER_HOME": str(settings.dagster_directory),
        "TAPEHOUSE_DATABASE": str(settings.database),
    }


def serve(settings: Settings, *, port: int) -> None:
    """Replace this process by Dagster's web server and daemon on 127.0.0.1."""
    command = [
        *(sys.executable, "-m", "dagster", "dev", "--module-name", "orchestration.definitions"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    os.execve(sys.executable, command, environment(settings))
