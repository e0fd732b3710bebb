"""`tapehouse serve`: signals as bars close."""

from typing import Annotated

import typer

from orchestration.commands.land import MetricsPort


def serve(
    stdout: Annotated[
        bool, typer.Option("--stdout", help="Print each signal as a line of JSON.")
    ] = False,
    metrics_port: MetricsPort = 0,
) -> None:
    """Score every bar as it closes, until Ctrl-C or SIGTERM.

    Follows what `tapehouse record` writes. Features are computed by the dbt project's own SQL in
    memory, for all symbols at once; champions and shadows are asked, thresholds and ensembles
    applied. Signals are on disk before they are announced: in the log, to TAPEHOUSE_WEBHOOK_URL
    if it is set, and on the standard output if asked. `tapehouse land` brings them into
    raw.signals. A promotion, a new threshold or rule takes effect within a minute, from the next
    close on; what else changes in the project is read when the loop starts again.

    Exit code 0: stopped. 1: there is no warehouse, no trained model or one that cannot be asked
    live, or another loop is running.
    """
    import os

    from pydantic import SecretStr

    from ingest import health
    from ingest.drain import waiting
    from ingest.service_settings import load
    from ingest.settings import Settings
    from serving.announcements import Announcements
    from serving.serve import serve as run

    settings = Settings()
    health.OUTBOX_DEPTH.set_function(lambda: waiting(settings.outbox_directory))
    address = os.environ.get("TAPEHOUSE_WEBHOOK_URL")
    with (
        health.running(settings, "loop", port=metrics_port),
        Announcements(SecretStr(address) if address else None, stdout=stdout) as announcements,
    ):
        run(settings, services=load(settings), announce=announcements.tell)
