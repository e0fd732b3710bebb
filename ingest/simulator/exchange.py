"""What every handler needs, and how handlers read windows of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakSet

from aiohttp import web

from ingest.simulator.clock import Clock
from ingest.simulator.faults import Faults
from ingest.simulator.source import DAY, Columns, Source, concatenate, length, microseconds

Fetch = Callable[[int, int], Columns]


@dataclass(frozen=True)
class Exchange:
    """A market source, the time it is, and the trouble it makes."""

    source: Source
    clock: Clock
    faults: Faults
    numbers: Iterator[int] = field(default_factory=count)
    connections: WeakSet[web.WebSocketResponse] = field(default_factory=WeakSet)


EXCHANGE = web.AppKey("exchange", Exchange)


def first_rows(fetch: Fetch, start: int, end: int, limit: int) -> Columns:
    """Return the oldest rows of ``[start, end)``, read a day at a time."""
    parts = [fetch(start, min(end, start + DAY))]
    while (start := start + DAY) < end and sum(map(length, parts)) < limit:
        parts.append(fetch(start, min(end, start + DAY)))
    return {name: values[:limit] for name, values in concatenate(parts).items()}


def last_rows(source: Source, fetch: Fetch, end: int, limit: int) -> Columns:
    """Return the newest rows before ``end``, oldest first."""
    start = microseconds(source.start)
    parts = [fetch(max(start, end - DAY), end)]
    while (end := end - DAY) > start and sum(map(length, parts)) < limit:
        parts.insert(0, fetch(max(start, end - DAY), end))
    return {name: values[-limit:] for name, values in concatenate(parts).items()}
