"""The project's SQL over a bounded window of raw rows, in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from serving.manifest import Lineage

#: A bar that arrived so much later than it closed still finds the slower series as known then.
LATENESS = timedelta(days=1)


def raw_start(first_opened_at: datetime, *, minutes: int) -> datetime:
    """Return the start of the UTC day from which raw rows decide a bar's values.

    Days hold a whole number of bars of every interval, so no bar of the window is cut.

    Parameters
    ----------
    first_opened_at : datetime
        Opening of the first bar to compute, naive UTC.
    minutes : int
        Minutes before it that its values need.
    """
    start = first_opened_at - timedelta(minutes=minutes)
    return start.replace(hour=0, minute=0, second=0, microsecond=0)


def raw_rows(
    warehouse: duckdb.DuckDBPyConnection,
    lineage: Lineage,
    *,
    start: datetime,
    end: datetime,
    interval_minutes: int,
) -> dict[str, pa.Table]:
    """Copy the raw rows that decide some bars out of the warehouse, of each source its own.

    Of slower series, seen as of a bar's arrival, those of a day after the last bar come too.

    Parameters
    ----------
    warehouse : duckdb.DuckDBPyConnection
        Where the raw rows are.
    lineage : Lineage
        What is to be built of them.
    start, end : datetime
        Opening of the first bar and close of the last one, naive UTC.
    interval_minutes : int
        Length of a bar.

    Returns
    -------
    dict of str to pyarrow.Table
        By the source's relation; empty tables keep their types.
    """
    minutes = lineage.lookbacks(interval_minutes)
    return {
        source.relation: warehouse.sql(
            f"select * from {source.relation} "
            f"where {source.event_time} >= $start and {source.event_time} < $end",
            params={
                "start": raw_start(start, minutes=minutes[source.relation]).replace(tzinfo=UTC),
                "end": (end + (LATENESS if source.lookback_minutes else timedelta())).replace(
                    tzinfo=UTC
                ),
            },
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
