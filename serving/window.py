"""The project's SQL over a bounded window of raw rows, in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from serving.manifest import Lineage


def raw_start(first_opened_at: datetime, *, bars: int, minutes: int) -> datetime:
    """Return the start of the UTC day from which raw rows decide a bar's values.

    Days hold a whole number of bars of every interval, so no bar of the window is cut.

    Parameters
    ----------
    first_opened_at : datetime
        Opening of the first bar to compute, naive UTC.
    bars : int
        Bars before it that its values need.
    minutes : int
        Length of a bar.
    """
    start = first_opened_at - timedelta(minutes=bars * minutes)
    return start.replace(hour=0, minute=0, second=0, microsecond=0)


def raw_rows(
    warehouse: duckdb.DuckDBPyConnection, lineage: Lineage, *, start: datetime, end: datetime
) -> dict[str, pa.Table]:
    """Copy the raw rows of ``[start, end)`` (naive UTC) out of the warehouse.

    Returns
    -------
    dict of str to pyarrow.Table
        By the source's relation; empty tables keep their types.
    """
    interval = {"start": start.replace(tzinfo=UTC), "end": end.replace(tzinfo=UTC)}
    return {
        source.relation: warehouse.sql(
            f"select * from {source.relation} "
            f"where {source.event_time} >= $start and {source.event_time} < $end",
            params=interval,
        ).to_arrow_table()
        for source in lineage.sources
    }


@contextmanager
def evaluated(lineage: Lineage, raw: Mapping[str, pa.Table]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Build the lineage's models, unchanged, over the given raw rows.

    Parameters
    ----------
    lineage : Lineage
        The models; each is built in a database in memory under its warehouse name.
    raw : mapping of str to pyarrow.Table
        Rows of each source, by its relation.

    Yields
    ------
    duckdb.DuckDBPyConnection
        A connection in time zone UTC that answers for every model of the lineage.
    """
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach ':memory:' as \"{lineage.database}\"")
        for schema in lineage.schemas:
            connection.execute(f'create schema if not exists "{lineage.database}"."{schema}"')
        for relation, rows in raw.items():
            connection.register("landed", rows)
            connection.execute(f"create table {relation} as select * from landed")
            connection.unregister("landed")
        for model in lineage.models:
            kind = "view" if model.is_view else "table"
            connection.execute(f"create {kind} {model.relation} as {model.sql}")
        yield connection
