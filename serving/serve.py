"""`tapehouse serve`: the scoring loop as a process."""

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from ingest.service_settings import Services
from ingest.settings import Settings
from serving.loop import Loop, Signal
from serving.models import Local
from serving.prepare import Prepared, prepare, raw_rows
from serving.promotions import EVERY_S, Promotions
from serving.remote import Remote


def serve(
    settings: Settings,
    *,
    services: Services,
    announce: Callable[[Signal], None] = lambda _: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(tzinfo=None),
    ready: Callable[[Loop], None] = lambda _: None,
    promotions_s: float = EVERY_S,
) -> None:
    """Score every bar that closes until SIGINT or SIGTERM.

    Who is asked, thresholds and rules follow the warehouse: what is promoted is asked from the
    bars on that close next. Where it needs features that were not computed before, the loop
    begins anew with them, and makes up for the bars that close meanwhile. So it does after klines
    came too late to be computed with what is kept.

    Parameters
    ----------
    settings : Settings
        Names the warehouse, the market and the logs.
    services : Services
        Which models are remote; those of this process answer for the others, and for them.
    announce : callable
        Told each signal to trade by, after it is on disk.
    clock : callable
        Gives the time, naive UTC.
    ready : callable
        Told the loop when it begins to follow the log.
    promotions_s : float
        Seconds between two looks at the registry.

    Raises
    ------
    NotReadyError
        If no model has been trained yet.
    """
    timeout_s = settings.writer_timeout_s
    stopped = threading.Event()
    running: list[Loop] = []

    def stop(*_: object) -> None:
        stopped.set()
        for loop in running:
            loop.stop()

    first = prepare(settings, now=clock(), timeout_s=timeout_s)
    local = Local(first.asked)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    prepared: Prepared | None = first
    after = late_from = None
    with Remote(services, local.probabilities, budgets=settings.budgets_directory) as remote:
        while prepared and not stopped.is_set():
            with Loop(
                settings,
                prepared,
                probabilities=remote.probabilities,
                announce=announce,
                clock=clock,
                after=after,
                late_from=late_from,
            ) as loop:
                running[:] = [loop]
                rows = raw_rows(settings, prepared.plan, since=loop.since(), timeout_s=timeout_s)
                loop.start(rows)
                ready(loop)
                with Promotions(
                    settings,
                    local,
                    prepared.state,
                    adopt=loop.adopt,
                    clock=clock,
                    every_s=promotions_s,
                ):
                    prepared = None if stopped.is_set() else loop.run()
                after, late_from = loop.last_closed_at, loop.late_from
                if prepared is not loop.prepared:
                    loop.prepared.decisions.close()
