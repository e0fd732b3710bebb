"""The outbox: what the scoring loop said, as rows of the raw tables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa

from ingest.segments import Frame

#: One frame is all that was said of the bars that closed together: all of it is kept, or none.
SERVED = "served"
#: From which moment on a version is asked.
STARTED = "started"
_INSTANT = pa.timestamp("us", "UTC")
_BAR = [
    *((name, pa.string()) for name in ("exchange", "market", "symbol")),
    ("interval_minutes", pa.int32()),
    *((name, _INSTANT) for name in ("opened_at", "closed_at", "available_at")),
]
SCHEMAS = {
    "signals": pa.schema(
        [
            *((name, pa.string()) for name in ("model_name", "model_version", "stage")),
            *_BAR,
            ("probability", pa.float64()),
            ("threshold", pa.float64()),
            ("signal", pa.int32()),
            *((name, pa.string()) for name in ("reason", "answered_by", "features_sha256")),
            ("is_late", pa.bool_()),
            ("heard_at", _INSTANT),
            ("served_at", _INSTANT),
            ("probabilities", pa.string()),
        ]
    ),
    "served_features": pa.schema(
        [
            ("dataset", pa.string()),
            *_BAR,
            ("features", pa.string()),
            ("served_at", _INSTANT),
        ]
    ),
}


def served(tables: Mapping[str, pa.Table], *, at: int) -> Frame:
    """Return the frame that says rows of the raw tables; ``at`` is epoch microseconds."""
    said = {name: rows.cast(_counted(SCHEMAS[name])).to_pydict() for name, rows in tables.items()}
    return Frame(at, SERVED, orjson.dumps(said))


def started(since: Mapping[str, int], *, at: int) -> Frame:
    """Return the frame that says which versions are asked, and since when each of them is."""
    return Frame(at, STARTED, orjson.dumps({"versions": list(since), "since": dict(since)}))


def rows(frames: Iterable[Frame]) -> dict[str, pa.Table]:
    """Return the rows of an outbox's frames by raw table."""
    found: dict[str, list[pa.Table]] = {name: [] for name in SCHEMAS}
    for said in saying(frames, SERVED):
        for name, columns in said.items():
            # A frame written by an older version lacks the columns that were added since.
            missing = [None] * len(columns["served_at"])
            whole = {column: columns.get(column, missing) for column in SCHEMAS[name].names}
            counted = pa.table(whole, schema=_counted(SCHEMAS[name]))
            found[name].append(counted.cast(SCHEMAS[name]))
    return {name: pa.concat_tables(parts) for name, parts in found.items() if parts}


def saying(frames: Iterable[Frame], stream: str) -> Iterator[dict[str, Any]]:
    """Yield what the frames of a stream hold."""
    for frame in frames:
        if frame.stream == stream:
            yield orjson.loads(frame.payload)


def _counted(schema: pa.Schema) -> pa.Schema:
    """Return the schema with instants as epoch microseconds, which JSON can hold."""
    return pa.schema(
        [(field.name, pa.int64() if field.type == _INSTANT else field.type) for field in schema]
    )
