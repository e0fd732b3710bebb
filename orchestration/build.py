"""`dbt build` inside this process, so that nothing outlives it."""

import os
from typing import Any, cast

from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner

from ingest.settings import PROJECT_ROOT, Settings
from orchestration.stages import Say


class BuildError(RuntimeError):
    """Dbt did not finish."""


def run_dbt(settings: Settings, command: str, *, say: Say) -> None:
    """Run a dbt command over the whole project.

    Parameters
    ----------
    settings : Settings
        Names the warehouse; dbt's artifacts go to ``dbt/`` beside it.
    command : str
        ``build``, or ``run`` to leave out the tests.
    say : callable
        Told of each node that is done.

    Raises
    ------
    BuildError
        If a node fails; the message names it and says why.
    """
    done = 0

    def on_event(event: Any) -> None:
        nonlocal done
        if event.info.name == "NodeFinished":
            done += 1
            say(f"{done} nodes, {event.data.node_info.node_name}")

    os.environ["TAPEHOUSE_DATABASE"] = str(settings.database)
    artifacts = str(settings.database.parent / "dbt")
    result = dbtRunner(callbacks=[on_event]).invoke(
        [
            *("--log-level", "none", "--log-level-file", "none", command),
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT), "--target", "duckdb"),
            *("--target-path", artifacts, "--log-path", artifacts),
        ]
    )
    # Dbt leaves its connection open until the process ends, and the warehouse shut with it.
    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
    if result.exception:
        raise BuildError(f"dbt {command} stopped: {result.exception}")
    if not result.success:
        failed = [
            f"{node.node.name}: {(node.message or '').strip()}"
            for node in cast(RunExecutionResult, result.result).results
            if node.status in {"error", "fail"}
        ]
        raise BuildError(f"dbt {command} failed in {len(failed)} nodes\n" + "\n".join(failed))
    say(f"{done} nodes")
