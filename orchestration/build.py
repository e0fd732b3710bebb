"""`dbt build` inside this process, so that nothing outlives it."""

import os
from typing import Any, cast

from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner

from ingest.settings import PROJECT_ROOT, Settings
from orchestration.stages import Say

WITHOUT_TESTS = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")


class BuildError(RuntimeError):
    """Dbt did not finish."""


def build(settings: Settings, *, tests: bool, say: Say) -> None:
    """Run `dbt build` over the whole project.

    Parameters
    ----------
    settings : Settings
        Names the warehouse; dbt's artifacts go to ``dbt/`` beside it.
    tests : bool
        Whether the project's tests run too.
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
            *("--log-level", "none", "--log-level-file", "none", "build"),
            *(() if tests else WITHOUT_TESTS),
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT), "--target", "duckdb"),
            *("--target-path", artifacts, "--log-path", artifacts),
        ]
    )
    # Dbt leaves its connection open until the process ends, and the warehouse shut with it. Its own
    # way to close all only forgets the connection, which stays open while a thread's wrapper lives.
    if environment := DuckDBConnectionManager._ENV:
        environment.close()
    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
    if result.exception:
        raise BuildError(f"dbt build stopped: {result.exception}")
    if not result.success:
        failed = [
            f"{node.node.name}: {(node.message or '').strip()}"
            for node in cast(RunExecutionResult, result.result).results
            if node.status in {"error", "fail"}
        ]
        raise BuildError(f"dbt build failed in {len(failed)} nodes\n" + "\n".join(failed))
    say(f"{done} nodes")
