"""What the loop has said: each signal once, on disk before anybody hears of it."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest import outbox
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame, SegmentReader

KEY = ("model_version", "exchange", "market", "symbol", "interval_minutes", "opened_at")
#: A loop that starts announces again what was said in so much time before.
REPEATED = timedelta(minutes=1)
#: Who is asked is said again so often: older segments go two days after they landed.
STARTED_AGAIN = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
#: An hour instead of five minutes: signals do not wait until a new segment is on the disk.
SEGMENT_S = 3600.0
Series = tuple[str, str, str]
#: When a bar opened and how long it is, and which version was asked about it.
Bar = tuple[datetime, int, str]


class Outbox:
    """The log of signals and of the features behind them, and what is in it or has landed.

    Times are naive UTC.

    Parameters
    ----------
    directory : Path
        The log.
    landed : pyarrow.Table
        The keys of the signals that the warehouse holds already.
    """

    def __init__(self, directory: Path, landed: pa.Table) -> None:
        self._writer = SegmentWriter(directory, segment_s=SEGMENT_S)
        self._said: dict[Bar, set[Series]] = {}
        self._series: dict[Series, Series] = {}
        self._since: dict[str, datetime] = {}
        self._forgotten = self._asked_at = _EPOCH
        #: The close of the newest bar of which something was said.
        self.last_closed_at: datetime | None = None
        recent: deque[tuple[int, pa.Table]] = deque()
        self._remember(landed)
        with SegmentReader(directory) as reader:
            while frames := reader.read():
                for frame in frames:
                    for name, rows in outbox.rows([frame]).items():
                        if name == "signals":
                            self._remember(rows)
                            recent.append((frame.received_at, rows))
                            while recent[0][0] < frame.received_at - REPEATED // _MICROSECOND:
                                recent.popleft()
                    for said in outbox.saying([frame], outbox.STARTED):
                        self._ask(said["versions"], _moment(frame.received_at), said.get("since"))
        self.unannounced: list[dict[str, Any]] = [
            signal for _, rows in recent for signal in rows.to_pylist()
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def start(self, versions: Sequence[str], *, at: datetime) -> None:
        """Say who is asked from now on; those who were not before begin at a moment."""
        if self._since.keys() != set(versions):
            self._ask(versions, at)
            self._writer.append(self._started(at))
            self._writer.sync()

    def since(self, version: str) -> datetime:
        """Return the moment after which the bars closed that a version is asked about."""
        return max(self._since[version], self._forgotten)

    def new(self, signals: pa.Table) -> pa.Table:
        """Return the signals that were not said yet."""
        is_new = [series not in self._said.get(bar, ()) for bar, series in _keys(signals)]
        return signals.filter(pa.array(is_new, pa.bool_()))

    def say(self, signals: pa.Table, features: pa.Table, *, at: datetime) -> None:
        """Keep signals and features durably; those of a close are there together, or neither is."""
        tables: Mapping[str, pa.Table] = {"signals": signals, "served_features": features}
        frames = [self._started(at)] if at - self._asked_at >= STARTED_AGAIN else []
        # Of a day that is made up for: a frame holds 16 MB at most.
        for closed_at in sorted(signals["closed_at"].unique().to_pylist()):
            of_close = pc.field("closed_at") == pa.scalar(closed_at, pa.timestamp("us", "UTC"))
            close = {name: rows.filter(of_close) for name, rows in tables.items()}
            frames.append(outbox.served(close, at=_microseconds(at)))
        self._writer.append_all(frames)
        self._writer.sync()
        self._remember(signals)

    def forget(self, before: datetime) -> None:
        """Have nobody asked any more about bars that closed until a moment."""
        self._forgotten = max(self._forgotten, before)
        for bar in [bar for bar in self._said if _closed_at(bar) <= before]:
            del self._said[bar]

    def _ask(
        self, versions: Sequence[str], at: datetime, since: Mapping[str, int] | None = None
    ) -> None:
        begun = {version: _moment(us) for version, us in (since or {}).items()} | self._since
        self._since = {version: begun.get(version, at) for version in versions}
        self._asked_at = at

    def _started(self, at: datetime) -> Frame:
        """Return the frame that says who is asked, and since when."""
        self._asked_at = at
        since = {version: _microseconds(begun) for version, begun in self._since.items()}
        return outbox.started(since, at=_microseconds(at))

    def _remember(self, signals: pa.Table) -> None:
        bars = set()
        for bar, series in _keys(signals):
            self._said.setdefault(bar, set()).add(self._series.setdefault(series, series))
            bars.add(bar)
        if bars:
            self.last_closed_at = max(self.last_closed_at or _EPOCH, *map(_closed_at, bars))


def landed_signals(connection: duckdb.DuckDBPyConnection, since: datetime) -> pa.Table:
    """Return the keys of the signals in the warehouse of bars that closed since a moment."""
    found = connection.sql(
        "select 1 from duckdb_tables() where schema_name = 'raw' and table_name = 'signals'"
    ).fetchall()
    if not found:
        return outbox.SCHEMAS["signals"].empty_table()
    return connection.sql(
        f"select {', '.join(KEY)} from raw.signals where closed_at >= $since order by closed_at",
        params={"since": since.replace(tzinfo=UTC)},
    ).to_arrow_table()


def _keys(signals: pa.Table) -> Iterator[tuple[Bar, Series]]:
    columns = {name: signals[name] for name in KEY}
    columns["opened_at"] = columns["opened_at"].cast(pa.timestamp("us"))
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    for version, exchange, market, symbol, minutes, opened_at in rows:
        yield (opened_at, minutes, version), (exchange, market, symbol)


def _closed_at(bar: Bar) -> datetime:
    return bar[0] + timedelta(minutes=bar[1])


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _moment(at: int) -> datetime:
    return _EPOCH + at * _MICROSECOND
