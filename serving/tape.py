"""The recorder's log as typed raw rows, ready for the features."""

import queue
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ingest import health, messages
from ingest.kind import KindName
from ingest.kinds import KINDS
from ingest.segments import Frame
from ingest.settings import Market
from ingest.validation import Origin, checking, parted
from serving.ahead import PlannedQuery

SOURCE = "source"


class Tape:
    """Types the rows of frames by the rules of landing, with the queries planned ahead.

    Parameters
    ----------
    exchange, market : str
        Whose frames they are.
    kinds : collection of str
        The kinds that are needed.
    """

    def __init__(self, exchange: str, market: Market, kinds: Sequence[str]) -> None:
        self._origin = Origin(exchange, market, "websocket:serve", datetime.now(UTC))
        self._kinds = set(kinds)
        self._done: queue.SimpleQueue[tuple[str, pa.Table | Exception]] = queue.SimpleQueue()
        self._queries: dict[str, PlannedQuery] = {}
        self._schemas: dict[str, pa.Schema] = {}
        self._frames: list[Frame] = []

    def close(self) -> None:
        """Stop all queries."""
        for planned in self._queries.values():
            planned.stop()

    def take(self) -> dict[KindName, pa.Table]:
        """Return the rows of the frames that were added, by kind; what is bad is left out."""
        parsed = messages.rows(self._frames)
        self._frames = []
        for _, reason in parsed.bad:
            health.BAD_FRAMES.labels(reason.partition(":")[0]).inc()
        tables = {kind: rows for kind, rows in parsed.tables.items() if kind in self._kinds}
        if "klines" in tables:
            is_closed = pc.equal(pc.utf8_lower(_text(tables["klines"]["is_closed"])), "true")
            tables["klines"] = tables["klines"].filter(is_closed)
        tables = {kind: rows for kind, rows in tables.items() if len(rows)}
        for kind in list(tables):
            tables[kind] = self._planned(kind, tables[kind])
            self._queries[kind].run({SOURCE: tables[kind]})
        found: dict[KindName, pa.Table] = {}
        for _ in tables:
            name, checked = self._done.get()
            if isinstance(checked, Exception):
                raise checked
            self._queries[name].plan()
            known = KINDS[name]
            found[known.name] = parted(known, tables[known.name], checked, self._origin).rows
        return found

    def add(self, frames: Sequence[Frame]) -> None:
        """Remember frames until their rows are taken."""
        self._frames += frames

    def _planned(self, kind: KindName, rows: pa.Table) -> pa.Table:
        """See to it that the kind's query is planned for the columns of these rows."""
        schema = self._schemas.get(kind)
        if schema is not None and schema != rows.schema:
            unified = _unified(schema, rows.schema)
            rows = pa.table(
                [_cast(rows[field.name], field.type) for field in unified], schema=unified
            )
            if unified == schema:
                return rows
            schema = None
        if schema is None:
            if kind in self._queries:
                self._queries[kind].stop()
            self._schemas[kind] = rows.schema
            self._queries[kind] = PlannedQuery(
                kind,
                checking(KINDS[kind], rows.schema, self._origin),
                database="tape",
                schemas={SOURCE: rows.schema},
                views={},
                done=self._done,
            )
        return rows


def _unified(known: pa.Schema, new: pa.Schema) -> pa.Schema:
    """Return a schema for both; what one message has as text and another as a number is text."""
    fields = []
    for field in known:
        some = [pa.schema([field]), pa.schema([new.field(field.name)])]
        try:
            fields += pa.unify_schemas(some, promote_options="permissive")
        except pa.ArrowTypeError:
            fields.append(pa.field(field.name, pa.string()))
    return pa.schema(fields)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return _text(column) if pa.types.is_string(kind) else column.cast(kind)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as text, in small letters what is no text yet; landing reads them alike."""
    if pa.types.is_string(column.type):
        return column
    values = column.to_pylist()
    texts = [None if value is None else str(value).lower() for value in values]
    return pa.chunked_array([pa.array(texts, pa.string())])
