"""The same tables of two warehouses, compared column by column."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

TOLERANCE = 1e-9
# What rounding leaves of a difference of equal numbers, as a share of a column's largest value. The
# page docs/reference/bigquery.md tells both.
NOISE = 1e-12


@dataclass(frozen=True)
class Difference:
    """A column that differs: in how many rows, and the first pair of values."""

    column: str
    rows: int
    expected: object
    found: object


def comparable(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Return a column's values, times as microseconds, and where they are NULL."""
    is_null = np.asarray(column.is_null())
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(column.fill_null(""), dtype=object), is_null
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return np.asarray([str(value) for value in column.to_pylist()], dtype=object), is_null
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type):
        return np.asarray(column.fill_null(0)), is_null
    return np.asarray(column.cast(pa.float64()).fill_null(0.0)), is_null


def differences(expected: pa.Table, found: pa.Table) -> list[Difference]:
    """Return the columns of two tables, sorted alike, that are not the same to nine digits."""
    assert expected.column_names == found.column_names
    if expected.num_rows != found.num_rows:
        return [Difference("rows", 0, expected.num_rows, found.num_rows)]
    unequal = []
    for name in expected.column_names:
        wanted, wanted_null = comparable(expected[name])
        given, given_null = comparable(found[name])
        if pa.types.is_float32(expected[name].type):
            given = given.astype(np.float32).astype(np.float64)
        if wanted.dtype.kind == "f":
            noise = NOISE * np.abs(wanted).max(initial=0.0)
            is_same = np.isclose(given, wanted, rtol=TOLERANCE, atol=noise)
        else:
            is_same = wanted == given
        is_wrong = (wanted_null != given_null) | ~(is_same | wanted_null)
        if is_wrong.any():
            first = int(np.argmax(is_wrong))
            unequal.append(
                Difference(
                    name,
                    int(is_wrong.sum()),
                    expected[name][first].as_py(),
                    found[name][first].as_py(),
                )
            )
    return unequal
