"""When the bars of an interval are to be computed: all symbols together, after a short wait."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

#: Klines that end so much later than it is are not believed before.
AHEAD = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Close:
    """Bars to compute now.

    Parameters
    ----------
    changed : datetime
        Opening of the earliest bar that is new or has changed, naive UTC.
    closed_at : datetime
        Close of the newest.
    missing : int
        Symbols that were there at the close before and have not come.
    is_again : bool
        Whether bars of that close were given out before.
    """

    changed: datetime
    closed_at: datetime
    missing: int
    is_again: bool = False


@dataclass
class Closes:
    """Gathers klines until the bars they complete can be computed.

    The bars that end at one moment are computed once those of all symbols have come that had come
    at the close before, or ``wait`` after the first of them. What comes later, or again, has them
    computed again, at once.

    Parameters
    ----------
    intervals : tuple of int
        Lengths of the bars that are asked for, in minutes.
    wait : timedelta
        How long the first symbol waits for the last.
    """

    intervals: tuple[int, ...]
    wait: timedelta
    _expected: set[str] = field(default_factory=set)
    _heard: dict[datetime, dict[str, datetime]] = field(default_factory=dict)
    _changed: dict[datetime, datetime] = field(default_factory=dict)
    _last_closed_at: datetime = _EPOCH

    def add(self, rows: Iterable[tuple[str, datetime, int, datetime]]) -> None:
        """Note closed klines: symbol, opening, length in minutes, arrival."""
        for symbol, opened_at, minutes, heard_at in rows:
            closed_at = opened_at + timedelta(minutes=minutes)
            for interval in self.intervals:
                width = timedelta(minutes=interval)
                bar_opened_at = _EPOCH + (opened_at - _EPOCH) // width * width
                end = bar_opened_at + width
                if closed_at != end and end > self._last_closed_at:
                    continue
                if closed_at == end and end > self._last_closed_at:
                    self._heard.setdefault(end, {}).setdefault(symbol, heard_at)
                else:
                    if closed_at == end == self._last_closed_at:
                        # Late this time: the next close waits for it again.
                        self._expected.add(symbol)
                    # The bar was computed without this kline, or with another one.
                    end = self._last_closed_at
                    self._heard.setdefault(end, {})[""] = heard_at
                known = self._changed.get(end, bar_opened_at)
                self._changed[end] = min(known, bar_opened_at)

    def is_waiting(self, now: datetime) -> bool:
        """Whether klines have come of bars that have ended and were not given out yet."""
        return any(end <= now + AHEAD for end in self._heard)

    @property
    def last_closed_at(self) -> datetime | None:
        """The close of the newest bars that were given out; None before the first."""
        return self._last_closed_at if self._last_closed_at > _EPOCH else None

    def due(self, now: datetime) -> Close | None:
        """Return the bars to compute now, if any; the arrival of their last kline is waited for."""
        for end in sorted(self._heard):
            heard = self._heard[end]
            missing = self._expected - heard.keys()
            is_again = end <= self._last_closed_at
            # A clock that was set back says of what was heard that it is to come.
            waited = abs(now - min(heard.values()))
            if end > now + AHEAD or (missing and not is_again and waited < self.wait):
                continue
            del self._heard[end]
            if not is_again:
                self._expected = set(heard)
                self._last_closed_at = end
            missed = 0 if is_again else len(missing)
            return Close(self._changed.pop(end), end, missed, is_again)
        return None

    def skip_to(self, ended: Mapping[datetime, set[str]]) -> None:
        """Take bars as computed already; their symbols by the moments at which they ended."""
        if ended and (newest := max(ended)) > self._last_closed_at:
            self._last_closed_at, self._expected = newest, set(ended[newest])


def newest_ends(
    bars: pa.Table, intervals: Iterable[int], *, until: datetime
) -> dict[datetime, set[str]]:
    """Return the symbols of the newest two bars of each length, by the moments of their ends.

    Parameters
    ----------
    bars : pyarrow.Table
        With symbol, interval_minutes and opened_at.
    intervals : iterable of int
        The lengths, in minutes.
    until : datetime
        Bars that end later are not believed; naive UTC.
    """
    ended: dict[datetime, set[str]] = {}
    for minutes in intervals:
        width = timedelta(minutes=minutes)
        last = pa.scalar(until - width, pa.timestamp("us"))
        is_past = pc.less_equal(bars["opened_at"], last)
        own = bars.filter(pc.and_(pc.equal(bars["interval_minutes"], minutes), is_past))
        if not len(own):
            continue
        first = pa.scalar(pc.max(own["opened_at"]).as_py() - width, pa.timestamp("us"))
        own = own.filter(pc.greater_equal(own["opened_at"], first))
        columns = (own[name].to_pylist() for name in ("symbol", "opened_at"))
        for symbol, opened_at in zip(*columns, strict=True):
            ended.setdefault(opened_at + width, set()).add(symbol)
    return ended
