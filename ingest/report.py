"""What an ingest run did, series by series."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from ingest.batches import Batch, Series, event_bounds
from ingest.kinds import KINDS


@dataclass(frozen=True)
class Step:
    """Progress: ``done`` of ``total`` units are finished, and ``label`` is being worked on."""

    done: int
    total: int
    label: str


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Line:
    """Counts of one series: rows landed, rows rejected, units that had landed before.

    ``first_event_at`` and ``last_event_at`` (UTC) bound the rows landed now; None if none were.
    """

    series: Series
    row_count: int = 0
    reject_count: int = 0
    skipped_units: int = 0
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None


@dataclass(frozen=True)
class Failure:
    """A unit that could not be had, and why."""

    unit: str
    message: str


@dataclass(frozen=True)
class Report:
    """A run's lines and failures."""

    lines: tuple[Line, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def row_count(self) -> int:
        """Rows landed."""
        return sum(line.row_count for line in self.lines)

    @property
    def reject_count(self) -> int:
        """Rows that went to raw.raw_rejects."""
        return sum(line.reject_count for line in self.lines)

    @property
    def skipped_units(self) -> int:
        """Units that had landed before."""
        return sum(line.skipped_units for line in self.lines)


class Tally:
    """Counts while a run goes on."""

    def __init__(self) -> None:
        self._lines: dict[Series, Line] = {}
        self._failures: list[Failure] = []

    def expect(self, series: Series) -> None:
        """Give a series its line, whatever lands."""
        self._line(series)

    def skip(self, series: Series) -> None:
        """Count a unit that had landed before."""
        line = self._line(series)
        self._lines[series] = replace(line, skipped_units=line.skipped_units + 1)

    def fail(self, unit: str, message: str) -> None:
        """Note a unit that could not be had."""
        self._failures.append(Failure(unit, message))

    def report(self, landed: Iterable[Batch]) -> Report:
        """Count the batches as they land, and return the whole."""
        for batch in landed:
            line = self._line(batch.series)
            rows = batch.checked.rows
            kind = KINDS.get(batch.series.kind)
            first, last = event_bounds(kind, rows) if kind else (None, None)
            firsts = [time for time in (line.first_event_at, first) if time]
            lasts = [time for time in (line.last_event_at, last) if time]
            self._lines[batch.series] = replace(
                line,
                row_count=line.row_count + rows.num_rows,
                reject_count=line.reject_count + batch.checked.rejects.num_rows,
                first_event_at=min(firsts, default=None),
                last_event_at=max(lasts, default=None),
            )
        return Report(tuple(self._lines.values()), tuple(self._failures))

    def _line(self, series: Series) -> Line:
        return self._lines.setdefault(series, Line(series))


def ignore(step: Step) -> None:
    """Take no notice of progress."""
