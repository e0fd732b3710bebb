"""Order books: kept up to date from changes, or spelled out by a file level by level."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

LEVELS = 20
Levels = list[tuple[float, float]]
_LEVEL_COLUMNS = {"last_update_id", "side", "level", "price", "qty"}
_TIME_COLUMNS = ("event_time", "transaction_time", "local_time_ns")


@dataclass
class Book:
    """A book as of an update: price to quantity, of bids and of asks.

    ``is_continued`` tells whether a change has followed the snapshot it started from.
    """

    last_update_id: int
    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)
    is_continued: bool = False

    def follows(self, first_id: int, final_id: int, previous_id: int | None) -> bool:
        """Tell whether a change is the next one.

        Parameters
        ----------
        first_id, final_id : int
            The update ids that it covers: the exchange's ``U`` and ``u``.
        previous_id : int or None
            The last update id of the change before it: ``pu``, which futures give and spot does
            not.

        Returns
        -------
        bool
            A change of spot has to reach from the next id, or one before it, on; the first of
            futures after a snapshot as well, as the exchange's documentation says how to keep a
            local book. Ids of futures have holes; each change names the one before it.
        """
        if previous_id == self.last_update_id:
            return True
        if self.is_continued and previous_id is not None:
            return False
        return first_id <= self.last_update_id + 1 and final_id >= self.last_update_id

    def apply(
        self, final_id: int, bids: Iterable[Sequence[float]], asks: Iterable[Sequence[float]]
    ) -> None:
        """Set the quantities of prices; zero removes one."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, quantity in levels:
                if quantity == 0:
                    side.pop(price, None)
                else:
                    side[price] = quantity
        self.last_update_id = final_id
        self.is_continued = True

    def best(self) -> tuple[Levels, Levels]:
        """Return the best 20 bids and asks, best price first."""
        bids = heapq.nlargest(LEVELS, self.bids.items())
        return bids, heapq.nsmallest(LEVELS, self.asks.items())


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
