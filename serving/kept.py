"""Rows that are kept of a table, with the moments at which they happened."""

import zlib
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Moments = npt.NDArray[np.int64]
_SERIES = ("exchange", "market", "symbol", "is_aggregate", "interval_minutes")
_EPOCH = datetime(1970, 1, 1)
#: Into how many shares symbols are dealt for those who read far back.
SHARES = 4


class Kept:
    """The rows of one table; the newest are found without looking at the others.

    Who reads far back is given the older rows series by series: models sort them so, and sorted
    rows are sorted in a fourth of the time. The series of a share of the symbols lie together.

    Parameters
    ----------
    rows : pyarrow.Table
        An empty table with its columns.
    is_ordered : bool
        Whether rows are put in the order in which they happened; else they stay as they came.
    is_read_far : bool
        Whether somebody reads far back.
    """

    def __init__(self, rows: pa.Table, *, is_ordered: bool, is_read_far: bool = False) -> None:
        self.rows = rows
        self.moments: Moments = np.empty(0, np.int64)
        self._is_ordered = is_ordered
        self._is_read_far = is_read_far
        self._series = [name for name in _SERIES if name in rows.column_names]
        self._known: set[str] = set()
        #: Rows that came since whose series may not be known.
        self._unnamed: list[pa.Table] = []
        #: The first rows of the table, series by series, and how many they are.
        self._by_series = rows
        self._count_by_series = 0
        self._share_ends: npt.NDArray[np.int64] = np.zeros(SHARES, np.int64)

    def add(self, rows: pa.Table, moments: Moments) -> None:
        """Append rows with the microseconds at which they happened."""
        if not len(rows):
            return
        if self._is_ordered:
            self._unnamed.append(rows)
            if (np.diff(moments) < 0).any():
                order = np.argsort(moments, kind="stable")
                rows, moments = rows.take(pa.array(order)), moments[order]
        self.rows = pa.concat_tables([self.rows, rows])
        self.moments = np.concatenate([self.moments, moments])

    def replace(self, rows: pa.Table, moments: Moments, *, since: datetime) -> None:
        """Put rows in the place of those that happened at or after a moment."""
        count = self._place(since)
        if count < self._count_by_series:
            self._count_by_series = 0
        self.rows, self.moments = self.rows.slice(0, count), self.moments[:count]
        self.add(rows, moments)

    def since(self, first: datetime, *, last: int = 0) -> pa.Table:
        """Return the rows that happened at or after a moment, and maybe some before it.

        Parameters
        ----------
        first : datetime
            The moment, naive UTC.
        last : int
            How many rows of each series come before them; gaps between bars are none. Only for
            ordered rows.
        """
        place = self._place(first)
        if self._is_far(place, last):
            return pa.concat_tables([self._by_series, self.rows.slice(self._count_by_series)])
        rows = self.rows.slice(place)
        return pa.concat_tables([self.rows.take(self._last(place, last)), rows]) if last else rows

    def shares_since(self, first: datetime, *, last: int = 0) -> list[pa.Table]:
        """Return the rows of `since` for each share of the symbols; all for each without any."""
        place = self._place(first)
        if not self._is_far(place, last):
            return dealt(self.since(first, last=last))
        newer = dealt(self.rows.slice(self._count_by_series))
        begins = [0, *self._share_ends[:-1]]
        return [
            pa.concat_tables([self._by_series.slice(begin, end - begin), rows])
            for begin, end, rows in zip(begins, self._share_ends, newer, strict=True)
        ]

    def forget(self, before: datetime, *, last: int = 0) -> None:
        """Drop rows that happened before a moment, but so many of the last of each series."""
        if not self._is_ordered:
            chosen = np.flatnonzero(self.moments >= microseconds(before))
            if len(chosen) < len(self.rows):
                self.rows, self.moments = self.rows.take(pa.array(chosen)), self.moments[chosen]
            return
        place = self._place(before)
        if place:
            chosen = np.concatenate([self._last(place, last), np.arange(place, len(self.rows))])
            self.rows, self.moments = self.rows.take(pa.array(chosen)), self.moments[chosen]
            self._count_by_series = 0
        self.rows = self.rows.combine_chunks()
        names = self._names(self.rows).combine_chunks().dictionary_encode()
        self._known, self._unnamed = set(names.dictionary.to_pylist()), []
        if self._is_read_far and not self._count_by_series and len(self.rows):
            places = np.argsort(np.argsort(names.dictionary.to_numpy(zero_copy_only=False)))
            series = np.append(places, -1)[names.indices.fill_null(-1).to_numpy()]
            shares = _shares(self.rows)
            order = np.lexsort((self.moments, series, shares))
            self._share_ends = np.cumsum(np.bincount(shares, minlength=SHARES))
            self._by_series = self.rows.take(pa.array(order)).combine_chunks()
            self._count_by_series = len(self.rows)

    def _is_far(self, place: int, last: int) -> bool:
        return bool(self._count_by_series) and not last and 2 * place < self._count_by_series

    def _place(self, first: datetime) -> int:
        at = microseconds(first)
        if self._is_ordered:
            return int(np.searchsorted(self.moments, at))
        is_recent = self.moments >= at
        return int(np.argmax(is_recent)) if is_recent.any() else len(is_recent)

    def _last(self, place: int, count: int) -> npt.NDArray[np.int64]:
        """Return the places of the last rows of each series before a place."""
        for rows in self._unnamed:
            self._known.update(self._names(rows).unique().drop_null().to_pylist())
        self._unnamed = []
        size = 4 * count * len(self._known)
        while size and place:
            first = max(place - size, 0)
            names = self._names(self.rows.slice(first, place - first)).combine_chunks()
            codes = names.dictionary_encode().indices.to_numpy(zero_copy_only=False)
            is_row = ~np.isnan(codes)
            places, codes = np.flatnonzero(is_row), codes[is_row].astype(np.int64)
            order = np.argsort(codes, kind="stable")
            ends = np.cumsum(np.bincount(codes))
            is_last = ends[codes[order]] - np.arange(len(order)) <= count
            if not first or int(is_last.sum()) == count * len(self._known):
                return np.sort(places[order[is_last]]) + first
            size *= 4
        return np.empty(0, np.int64)

    def _names(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return the name of each row's series, NULL for a gap."""
        if not self._series:
            return pa.chunked_array([pa.repeat(pa.scalar("all"), len(rows))])
        parts = [rows[name].cast(pa.string()) for name in self._series]
        names = pc.binary_join_element_wise(*parts, " ")
        return pc.if_else(rows["is_gap"], None, names) if "is_gap" in rows.column_names else names


def dealt(rows: pa.Table) -> list[pa.Table]:
    """Return the rows of each share of the symbols; all for each if they are of no symbol."""
    if "symbol" not in rows.column_names:
        return [rows] * SHARES
    shares = _shares(rows)
    return [rows.take(pa.array(np.flatnonzero(shares == share))) for share in range(SHARES)]


def _shares(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return of which share each row is."""
    if "symbol" not in rows.column_names or not len(rows):
        return np.zeros(len(rows), np.int64)
    symbols = rows["symbol"].combine_chunks().dictionary_encode()
    numbers = [zlib.crc32(name.encode()) % SHARES for name in symbols.dictionary.to_pylist()]
    found: npt.NDArray[np.int64] = np.array(numbers, np.int64)[symbols.indices.to_numpy()]
    return found


def microseconds(at: datetime) -> int:
    """Return epoch microseconds of a naive UTC moment."""
    return (at - _EPOCH) // timedelta(microseconds=1)
