"""Order books that a file spells out level by level."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

_LEVEL_COLUMNS = {"last_update_id", "side", "level", "price", "qty"}
_TIME_COLUMNS = ("event_time", "transaction_time", "local_time_ns")


def is_long(names: Sequence[str]) -> bool:
    """Return whether the columns are those of snapshots with one row per level."""
    return set(names) >= _LEVEL_COLUMNS


def from_levels(levels: pa.Table) -> pa.Table:
    """Turn rows per level into rows per snapshot, best prices first.

    Parameters
    ----------
    levels : pyarrow.Table
        ``last_update_id``, ``side`` ("b" or "a"), ``level`` (0 is the best), ``price``, ``qty``,
        and times.

    Returns
    -------
    pyarrow.Table
        One row per ``last_update_id``, with list columns.
    """
    times = [name for name in _TIME_COLUMNS if name in levels.column_names]
    chosen = "".join(f', any_value("{name}") as "{name}"' for name in times)
    with duckdb.connect() as connection:
        connection.register("levels", levels)
        return connection.sql(
            f"""
            select
                last_update_id,
                list(price order by level) filter (where side = 'b') as bid_prices,
                list(qty order by level) filter (where side = 'b') as bid_quantities,
                list(price order by level) filter (where side = 'a') as ask_prices,
                list(qty order by level) filter (where side = 'a') as ask_quantities
                {chosen}
            from levels
            group by last_update_id
            order by last_update_id
            """
        ).to_arrow_table()
