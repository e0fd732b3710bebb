"""What runs beside a warehouse and how it fares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest import health, warehouse
from ingest.drain import waiting, waiting_since
from ingest.health import Process
from ingest.settings import Settings

ROLES = ("recorder", "loop", "landing", "models")
#: For so long nothing is heard or done only where something is wrong; bars are of an hour at most.
SILENCE = {
    "recorder": ("last_frame", 60.0, "heard nothing"),
    "loop": ("last_bar", 3900.0, "computed no bar"),
}
#: What the loop said lands within minutes, but for a build of hours.
UNLANDED_S = 4 * 3600.0
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_BREAKER = {0: "closed", 1: "half-open", 2: "open"}


@dataclass(frozen=True)
class Line:
    """One process or thing: its state in a word, since when or which, and figures."""

    name: str
    state: str
    since: str
    figures: str


@dataclass(frozen=True)
class Status:
    """Everything that is known, and what is wrong; nothing wrong is an empty tuple."""

    lines: tuple[Line, ...]
    problems: tuple[str, ...]


def status(
    settings: Settings, *, required: Sequence[str] = (), now: datetime | None = None
) -> Status:
    """Ask the processes beside a warehouse how they are.

    Parameters
    ----------
    settings : Settings
        Names the warehouse.
    required : sequence of str
        Roles that must be running.
    now : datetime, optional
        UTC; the present by default.

    Returns
    -------
    Status
        A line for each role, the warehouse, the outbox and each service.
    """
    now = now or datetime.now(UTC)
    found = health.processes(settings)
    lines = []
    problems = []
    for role in ROLES:
        processes = [process for process in found if process.role == role]
        if not processes:
            lines.append(Line(role, "never started", "", ""))
        for process in processes:
            lines.append(_line(process))
            problems += _problems(process, now)
        if role in required and not any(process.is_running for process in processes):
            problems.append(f"{role} is not running")
    lines.append(_warehouse(settings))
    outbox = waiting(settings.outbox_directory)
    lines.append(Line("outbox", f"{outbox:,} wait" if outbox else "landed", "", ""))
    since = waiting_since(settings.outbox_directory)
    if since and (waited_s := (now - since).total_seconds()) > UNLANDED_S:
        problems.append(f"the outbox has waited for {waited_s:.0f} s: nothing lands")
    for process in (each for each in found if each.is_running):
        services, wrong = _services(process.metrics)
        lines += services
        problems += wrong
    return Status(tuple(lines), tuple(problems))


def _line(process: Process) -> Line:
    if process.is_running:
        state, since = "running", f"pid {process.pid} since {_time(process.started_at)}"
    elif process.stopped_at:
        state, since = "stopped", _time(process.stopped_at)
    else:
        state, since = "killed", f"pid {process.pid}, started {_time(process.started_at)}"
    return Line(process.role, state, since, ", ".join(_figures(process.role, process.metrics)))


def _problems(process: Process, now: datetime) -> list[str]:
    name = f"{process.role} (pid {process.pid})"
    if not process.is_running:
        return [] if process.stopped_at else [f"{name} was killed or crashed: start it again"]
    if not process.metrics:
        return [f"{name} runs but does not answer"]
    if process.role in SILENCE:
        metric, silence_s, what = SILENCE[process.role]
        last = process.metrics.get(f"tapehouse_{metric}_timestamp_seconds", 0.0)
        quiet = now.timestamp() - max(last, process.started_at.timestamp())
        if quiet > silence_s:
            return [f"{name} has {what} for {quiet:.0f} s"]
    return []


def _figures(role: str, metrics: Mapping[str, float]) -> list[str]:
    if not metrics:
        return []
    if role == "recorder":
        return [
            f"last frame {_moment(metrics, 'last_frame')}",
            f"{_total(metrics, 'frames_total'):,.0f} frames",
            f"lag {_quantiles(metrics, 'frame_lag_seconds')}",
            f"{_total(metrics, 'gaps_total'):,.0f} gaps",
            f"{_total(metrics, 'reconnects_total'):,.0f} reconnects",
            f"{_total(metrics, 'bad_frames_total'):,.0f} bad",
        ]
    if role == "loop":
        return [
            f"last bar {_moment(metrics, 'last_bar')}",
            f"last signal {_moment(metrics, 'last_signal')}",
            f"{_total(metrics, 'bars_total'):,.0f} bars",
            f"{_total(metrics, 'signals_total'):,.0f} signals",
            f"bar to signal {_quantiles(metrics, 'signal_seconds', phase='total')}",
        ]
    if role == "landing":
        return [
            f"last landing {_moment(metrics, 'last_landing')}",
            f"{_total(metrics, 'landed_rows_total'):,.0f} rows",
        ]
    return [f"{_total(metrics, 'remote_requests_total'):,.0f} requests"]


def _warehouse(settings: Settings) -> Line:
    name = str(settings.database)
    if not settings.database.exists():
        return Line("warehouse", "missing", name, "")
    holder = warehouse.holder(settings.database)
    return Line("warehouse", f"held by {holder}" if holder else "free", name, "")


def _services(metrics: Mapping[str, float]) -> tuple[list[Line], list[str]]:
    lines = []
    problems = []
    for labels, value in _each(metrics, "breaker_state"):
        service = labels["service"]
        breaker = _BREAKER[int(value)]
        spent = {
            labels["unit"]: amount
            for labels, amount in _each(metrics, "budget_spent")
            if labels["service"] == service
        }
        fallbacks = {
            labels["reason"]: count
            for labels, count in _each(metrics, "fallbacks_total")
            if labels["service"] == service
        }
        lines.append(
            Line(
                f"service {service}",
                f"breaker {breaker}",
                f"today {spent.get('requests', 0):,.0f} requests, cost {spent.get('cost', 0):g}",
                f"{sum(fallbacks.values()):,.0f} fallbacks",
            )
        )
        if breaker == "open":
            problems.append(f"service {service} does not answer: its breaker is open")
        if spent.get("requests_left", 1) <= 0:
            problems.append(f"service {service} has spent its budget of today")
    return lines, problems


def _each(metrics: Mapping[str, float], name: str) -> list[tuple[dict[str, str], float]]:
    found = []
    for sample, value in metrics.items():
        parts = _SAMPLE.fullmatch(sample)
        if parts and parts["name"] == f"tapehouse_{name}":
            found.append((dict(_LABEL.findall(parts["labels"] or "")), value))
    return found


def _total(metrics: Mapping[str, float], name: str) -> float:
    return sum(value for _, value in _each(metrics, name))


def _moment(metrics: Mapping[str, float], name: str) -> str:
    seconds = _total(metrics, f"{name}_timestamp_seconds")
    return _time(datetime.fromtimestamp(seconds, UTC)) if seconds else "none"


def _quantiles(metrics: Mapping[str, float], name: str, **chosen: str) -> str:
    """Upper bounds of the buckets in which the median and the 99th of 100 values lie."""
    counts: dict[float, float] = {}
    for labels, count in _each(metrics, f"{name}_bucket"):
        bound = float(labels.pop("le"))
        if chosen.items() <= labels.items():
            counts[bound] = counts.get(bound, 0.0) + count
    total = counts.get(float("inf"), 0.0)
    if not total:
        return "none"
    bounds = [
        min(bound for bound, count in counts.items() if count >= share * total)
        for share in (0.5, 0.99)
    ]
    longest = max(bound for bound in counts if bound != float("inf"))
    return " / ".join(
        f"≤ {1000 * bound:g} ms" if bound <= longest else f"> {1000 * longest:g} ms"
        for bound in bounds
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
