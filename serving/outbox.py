"""What the loop has said: each signal once, on disk before anybody hears of it."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from ingest import outbox
from ingest.segment_writer import SegmentWriter
from ingest.segments import SegmentReader

KEY = ("model_version", "exchange", "market", "symbol", "interval_minutes", "opened_at")
#: A loop that starts announces again what was said in so much time before it ended.
REPEATED_US = 60_000_000
Key = tuple[str, str, str, str, int, datetime]


class Outbox:
    """The log of signals and of the features behind them, and what is in it or has landed.

    Parameters
    ----------
    directory : Path
        The log.
    landed : pyarrow.Table
        The keys of the signals that the warehouse holds already, and when they were served.
    """

    def __init__(self, directory: Path, landed: pa.Table) -> None:
        self._writer = SegmentWriter(directory)
        self._said: dict[Key, datetime] = {}
        self._since: dict[str, datetime] = {}
        recent: deque[tuple[int, pa.Table]] = deque()
        self._remember(landed)
        with SegmentReader(directory) as reader:
            while frames := reader.read():
                for frame in frames:
                    for name, rows in outbox.rows([frame]).items():
                        if name == "signals":
                            self._remember(rows)
                            recent.append((frame.received_at, rows))
                            while recent[0][0] < frame.received_at - REPEATED_US:
                                recent.popleft()
                    for said in outbox.saying([frame], outbox.STARTED):
                        at = datetime(1970, 1, 1) + timedelta(microseconds=frame.received_at)
                        for version in said["versions"]:
                            self._since.setdefault(version, at)
        self.unannounced: list[dict[str, object]] = [
            signal for _, rows in recent for signal in rows.to_pylist()
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def start(self, versions: Sequence[str], *, at: datetime) -> None:
        """Say that versions are asked from now on, if they were not before."""
        new = [version for version in versions if version not in self._since]
        if new:
            self._writer.append(outbox.started(new, at=_microseconds(at)))
            self._writer.sync()
            self._since.update(dict.fromkeys(new, at))

    def since(self, version: str) -> datetime:
        """Return from which moment on a version has been asked, naive UTC."""
        return self._since[version]

    def new(self, signals: pa.Table) -> pa.Table:
        """Return the signals that were not said yet."""
        is_new = [key not in self._said for key in _keys(signals)]
        return signals.filter(pa.array(is_new, pa.bool_()))

    def say(self, signals: pa.Table, features: pa.Table, *, at: datetime) -> None:
        """Keep signals and features durably; both are there when this returns, or neither."""
        tables: Mapping[str, pa.Table] = {"signals": signals, "served_features": features}
        self._writer.append(outbox.served(tables, at=_microseconds(at)))
        self._writer.sync()
        self._remember(signals)

    def forget(self, before: datetime) -> None:
        """Drop keys of bars that opened before a moment, naive UTC: none of them comes again."""
        moment = before.replace(tzinfo=UTC)
        self._said = {key: at for key, at in self._said.items() if key[-1] >= moment}

    def last_opened_at(self) -> datetime | None:
        """Return the opening of the newest bar of which something was said, naive UTC."""
        newest = max((key[-1] for key in self._said), default=None)
        return None if newest is None else newest.replace(tzinfo=None)

    def _remember(self, signals: pa.Table) -> None:
        for key, at in zip(_keys(signals), signals["served_at"].to_pylist(), strict=True):
            self._said[key] = at
            since = at.replace(tzinfo=None)
            self._since[key[0]] = min(self._since.get(key[0], since), since)


def landed_signals(connection: duckdb.DuckDBPyConnection, since: datetime) -> pa.Table:
    """Return the keys of the signals in the warehouse from a moment on."""
    found = connection.sql(
        "select 1 from duckdb_tables() where schema_name = 'raw' and table_name = 'signals'"
    ).fetchall()
    if not found:
        return outbox.SCHEMAS["signals"].empty_table()
    return connection.sql(
        f"select {', '.join(KEY)}, served_at from raw.signals where opened_at >= $since",
        params={"since": since.replace(tzinfo=UTC)},
    ).to_arrow_table()


def _keys(signals: pa.Table) -> list[Key]:
    return list(zip(*(signals[name].to_pylist() for name in KEY), strict=True))


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)
