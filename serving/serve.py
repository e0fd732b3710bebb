"""`tapehouse serve`: the scoring loop as a process."""

import signal
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from ingest.service_settings import Services
from ingest.settings import Settings
from serving.loop import Loop, Signal
from serving.models import Local
from serving.prepare import prepare, raw_rows
from serving.remote import Remote


def serve(
    settings: Settings,
    *,
    services: Services,
    announce: Callable[[Signal], None] = lambda _: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(tzinfo=None),
    ready: Callable[[Loop], None] = lambda _: None,
) -> None:
    """Score every bar that closes until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : Settings
        Names the warehouse, which is read once, the market and the logs.
    services : Services
        Which models are remote; those of this process answer for the others, and for them.
    announce : callable
        Told each signal to trade by, after it is on disk.
    clock : callable
        Gives the time, naive UTC.
    ready : callable
        Told the loop when it begins to follow the log.

    Raises
    ------
    NotReadyError
        If no model has been trained yet.
    """
    timeout_s = settings.writer_timeout_s
    prepared = prepare(settings, now=clock(), timeout_s=timeout_s)
    local = Local(list(prepared.asked)).probabilities
    with (
        closing(prepared.decisions),
        Remote(services, local, budgets=settings.budgets_directory) as remote,
        Loop(
            settings,
            prepared,
            probabilities=remote.probabilities,
            announce=announce,
            clock=clock,
        ) as loop,
    ):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, loop.stop)
        loop.start(raw_rows(settings, prepared.plan, since=loop.since(), timeout_s=timeout_s))
        ready(loop)
        loop.run()
