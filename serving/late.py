"""Klines that come too late for what a loop keeps: a new one makes up for them."""

import time
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

#: A new loop begins after so many seconds without another late kline, and only so long after this
#: one began.
QUIET_S = 5.0
RENEWED_S = 300.0


class LateKlines:
    """Leaves out the symbols of which klines came too late, so that none has half of its bars.

    Times are naive UTC.

    Parameters
    ----------
    width : timedelta
        Length of the longest bars.
    """

    def __init__(self, width: timedelta) -> None:
        self._width = width
        self._symbols: set[str] = set()
        self._last_at = self._begun_at = time.monotonic()
        #: Nothing that is left out opened before.
        self.opened_at: datetime | None = None

    def in_time(self, klines: pa.Table, first: datetime, *, oldest: datetime) -> pa.Table:
        """Return the klines of the other symbols.

        Parameters
        ----------
        klines : pyarrow.Table
            What came.
        first : datetime
            What opened before is late.
        oldest : datetime
            What opened before that nobody makes up for.
        """
        columns = (klines[name].to_pylist() for name in ("symbol", "open_time"))
        for symbol, at in zip(*columns, strict=True):
            opened_at = at.replace(tzinfo=None)
            if oldest < opened_at < first:
                self.opened_at = min(self.opened_at or opened_at, opened_at - self._width)
                self._last_at = time.monotonic()
                self._symbols.add(symbol)
        if not self._symbols:
            return klines
        is_late = pc.is_in(klines["symbol"], pa.array(sorted(self._symbols), pa.string()))
        return klines.filter(pc.invert(is_late))

    def is_over(self) -> bool:
        """Whether klines were left out, no more seem to come, and a new loop may begin."""
        now = time.monotonic()
        is_quiet = now - self._last_at >= QUIET_S and now - self._begun_at >= RENEWED_S
        return self.opened_at is not None and is_quiet
