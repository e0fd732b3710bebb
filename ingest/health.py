"""What a process that is left running tells of itself: metrics on the loopback interface."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.parser import text_string_to_metric_families

from ingest import logs
from ingest.settings import Settings

HOST = "127.0.0.1"
SCRAPE_TIMEOUT_S = 2.0
# No proxy knows this machine's loopback interface.
_OPENER = build_opener(ProxyHandler({}))
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_LATENCIES_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"tapehouse_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"tapehouse_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(f"tapehouse_{name}", text, labels, registry=REGISTRY, buckets=_LATENCIES_S)


# The recorder.
FRAMES = _counter("frames", "Frames received and written to a segment.", "kind")
BAD_FRAMES = _counter("bad_frames", "Frames that could not be read.", "reason")
FRAME_LAG = _histogram("frame_lag_seconds", "Receipt of a frame less its event's time.", "kind")
GAPS = _counter("gaps", "Gaps written to the ledger.", "kind")
RECONNECTS = _counter("reconnects", "Connections opened anew.", "reason")
CLOCK_SKEW = _gauge("clock_skew_seconds", "This machine's clock less the exchange's.")
SEGMENT_BYTES = _gauge("segment_bytes", "Segment files on disk.")
LAST_FRAME = _gauge("last_frame_timestamp_seconds", "When the last frame was received.")

# The scoring loop.
BARS = _counter("bars", "Closed bars that the loop computed.")
LATE_BARS = _counter("late_bars", "Bars that came late, again with other values, or never.", "kind")
SIGNALS = _counter("signals", "Signals written durably.", "model")
SIGNAL_SECONDS = _histogram(
    "signal_seconds", "From a bar's message to its signals on disk, by phase.", "phase"
)
LAST_BAR = _gauge("last_bar_timestamp_seconds", "Close of the last bar that was computed.")
LAST_SIGNAL = _gauge("last_signal_timestamp_seconds", "When the last signal was written.")
WEBHOOK = _counter(
    "webhook_posts", "Signals posted to the webhook: delivered, failed, dropped.", "outcome"
)
OUTBOX_DEPTH = _gauge("outbox_depth", "Frames of the outbox that have not landed.")

# Landing.
LANDED = _counter("landed_rows", "Rows that landed in the warehouse.", "kind")
LAST_LANDING = _gauge("last_landing_timestamp_seconds", "When something landed last.")

# Services behind a breaker.
BREAKER = _gauge("breaker_state", "0 closed, 1 half-open, 2 open.", "service")
REQUESTS = _counter(
    "remote_requests", "Requests to a service, by how they ended.", "service", "outcome"
)
REQUEST_SECONDS = _histogram("remote_request_seconds", "Time of a request.", "service")
FALLBACKS = _counter("fallbacks", "Answers given by the local fallback.", "service", "reason")
SPENT = _gauge("budget_spent", "Spent of a day's budget (UTC).", "service", "unit")


@dataclass(frozen=True)
class Process:
    """A process that said where its metrics are.

    Parameters
    ----------
    role : str
        What it does: recorder, loop, landing or models.
    pid : int
        Its process id.
    started_at : datetime
        UTC.
    stopped_at : datetime or None
        When it ended by itself; None while it runs, and of one that was killed.
    is_running : bool
        Whether it holds the lock on its file.
    metrics : Mapping
        From a sample, ``name{label="value"}``, to its value: as they are now, or as they were
        when it ended; empty if it does not answer.
    """

    role: str
    pid: int
    started_at: datetime
    stopped_at: datetime | None
    is_running: bool
    metrics: Mapping[str, float]


@contextmanager
def running(settings: Settings, role: str, *, part: str = "", port: int = 0) -> Iterator[str]:
    """Set up logs, serve metrics on the loopback interface, and note where.

    The note, ``health/<role>[-<part>].<pid>.json`` beside the warehouse, is locked while the
    process lives, so that a killed one is told from a living one. The next process of the role and
    part removes it.

    Parameters
    ----------
    settings : Settings
        Names the warehouse and how to log.
    role : str
        What the process does: recorder, loop, landing or models.
    part : str
        Of the role's work, where several processes share it: the recorder's market.
    port : int
        Of the metrics; 0 takes a free one.

    Yields
    ------
    str
        Address of the metrics.

    Raises
    ------
    OSError
        If the port is taken.
    """
    logs.configure(settings.log_format, settings.log_level)
    server, _ = start_http_server(port, addr=HOST, registry=REGISTRY)
    address = f"http://{HOST}:{server.server_port}/metrics"
    note: dict[str, object] = {
        "role": role,
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(),
        "address": address,
    }
    name = f"{role}-{part}" if part else role
    path = settings.health_directory / f"{name}.{os.getpid()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f"{name}.*.json"):
        if not _is_locked(other):
            other.unlink(missing_ok=True)
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump(note, file)
            file.flush()
            yield address
            note |= {
                "stopped_at": datetime.now(UTC).isoformat(),
                "metrics": samples(generate_latest(REGISTRY).decode()),
            }
            file.seek(0)
            file.truncate()
            json.dump(note, file)
    finally:
        server.shutdown()
        server.server_close()


def processes(settings: Settings) -> list[Process]:
    """Return the processes that run, or ran last, beside a warehouse, by role."""
    found = []
    for path in sorted(settings.health_directory.glob("*.json")):
        is_running = _is_locked(path)
        try:
            note = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # Begun or ended this very moment.
        stopped = note.get("stopped_at")
        found.append(
            Process(
                role=note["role"],
                pid=note["pid"],
                started_at=datetime.fromisoformat(note["started_at"]),
                stopped_at=datetime.fromisoformat(stopped) if stopped else None,
                is_running=is_running,
                metrics=scrape(note["address"]) if is_running else note.get("metrics", {}),
            )
        )
    return found


def scrape(address: str) -> dict[str, float]:
    """Return the samples at an address; none if nobody answers there."""
    try:
        with _OPENER.open(address, timeout=SCRAPE_TIMEOUT_S) as answer:
            return samples(answer.read().decode())
    except (OSError, ValueError):
        return {}


def samples(text: str) -> dict[str, float]:
    """Return the samples of Prometheus's text format, by ``name{label="value"}``."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
