"""`tapehouse land`: bring what the recorder and the scoring loop wrote into the warehouse."""

import re
import signal
import threading
from typing import Annotated

import typer

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Return the seconds that a number with s, m or h means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(text))
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"expected a time such as 60s, 5m or 1h, found {text!r}")
    return float(match[1]) * _UNITS[match[2]]


MetricsPort = Annotated[
    int, typer.Option(help="Port of the metrics on 127.0.0.1; 0 takes a free one.")
]


def land(
    every: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Again and again, such as 60s."),
    ] = None,
    metrics_port: MetricsPort = 0,
) -> None:
    """Land what the logs of the recorder and of the scoring loop hold, each frame once.

    The warehouse is held for moments only. With --every it goes on until Ctrl-C or SIGTERM: while
    a build holds the warehouse, or BigQuery fails, it says so and tries again.
    """
    from ingest import health, logs
    from ingest.drain import drain
    from ingest.settings import Settings
    from ingest.warehouse import CloudError, WarehouseBusyError
    from orchestration.commands.tables import show

    settings = Settings()
    if every is None:
        show(drain(settings), settings)
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    log = logs.logger("landing")
    with health.running(settings, "landing", port=metrics_port):
        while not stop.is_set():
            try:
                report = drain(settings)
            except (WarehouseBusyError, CloudError) as error:
                log.warning("not landed", error=str(error))
            else:
                log.info("landed", rows=report.row_count, rejects=report.reject_count)
            stop.wait(every)
