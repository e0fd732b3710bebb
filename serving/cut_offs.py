"""Moments at which a table that depends on later rows gives itself away."""

from collections.abc import Sequence
from datetime import datetime

import duckdb

from serving.manifest import Model


def default_cut_offs(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[Model]
) -> list[datetime]:
    """Return moments, spread over the history, at which leaks show.

    They are: the middle of a one-minute bar, just before the close of an hour, a day boundary,
    the middle of an hour, half a second after the close of one, when live rows still arrive, the
    middle of the longest hole in the klines and, of each staging table, just before that row
    arrived that came the longest after the end of its minute.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where the models were built from all rows.
    parts : sequence of Model
        The models.
    """
    klines = next(part.relation for part in parts if part.name == "stg_klines")
    found = connection.execute(
        f"""
        with bars as (
            select
                opened_at, closed_at,
                lead(opened_at) over (
                    partition by exchange, market, symbol, interval_minutes order by opened_at
                ) as next_opened_at
            from {klines} where is_closed
        ),
        chosen as (
            select
                quantile_disc(closed_at, [0.15, 0.3, 0.5, 0.7, 0.85]) as marks,
                arg_max(closed_at + (next_opened_at - closed_at) / 2, next_opened_at - closed_at)
                    filter (where next_opened_at > closed_at) as hole_at
            from bars
        )
        select unnest([
            marks[1] + interval 30 seconds,
            date_trunc('hour', marks[2]) - interval 1 microsecond,
            date_trunc('day', marks[3]),
            date_trunc('hour', marks[4]) + interval 30 minutes,
            date_trunc('hour', marks[5]) + interval 500 milliseconds,
            hole_at
        ])
        from chosen
        """
    ).fetchall()
    for part in parts:
        if part.name.startswith("stg_"):
            events = [
                name
                for name, kind in columns_of(connection, part.relation).items()
                if kind == "TIMESTAMP" and name not in {"available_at", "received_at"}
            ]
            delays = [
                f"case when {event} <= available_at then greatest("
                f"available_at - date_trunc('minute', {event} - interval 1 microsecond) "
                "- interval 1 minute, interval 0 seconds) end"
                for event in events
            ]
            found += connection.execute(
                "select arg_max(available_at, delay) - interval 1 microsecond "
                f"from (select available_at, least({', '.join(delays)}) as delay "
                f"from {part.relation}) where delay > interval 0 seconds"
            ).fetchall()
    return sorted({at for (at,) in found if at is not None})


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return the columns of a relation in order, with their types."""
    described = connection.sql(f"from {relation} limit 0")
    return dict(zip(described.columns, map(str, described.types), strict=True))
