"""Where the emulator is not BigQuery: why, and what is done about it.

Corrected in bigquery_emulator_server.py:

- NUMERIC and BIGNUMERIC without a precision become DECIMAL(18, 3) and DECIMAL(38, 5); BigQuery
  has 9 and 38 decimals. They are given 9 and 15, as many as the project needs.
- A statement that reads a view is written anew with the view's text in it, which loses what
  its writer does not know. Views are DuckDB's own there, so this is left out.
- To find arrays that are named like tables (`from t, t.items`) it copies each query, with what is
  in it: half of its time. The project has none, so this is left out.
- MOD and DIV lose their brackets inside of a product: they are given brackets.
- An element at a computed ORDINAL is the one after it where the emulator knows the types: DuckDB's
  own function stands in. (At a computed OFFSET it is the one before where it does not.)
- Rows that a stream refuses are not named: they are, in `row_errors`, as Google documents it.
- A load job has another id than its client asked for, and may be asked for again: it has its own,
  and a second one of that id is refused.
- A commit again finds an INVALID_STREAM_STATE: it is given Google's STREAM_ALREADY_COMMITTED.

Written so that both understand it:

- Integer literals have 32 bits: what is multiplied to microseconds is cast to INT64.
- UNIX_SECONDS rounds, where BigQuery's goes down: UNIX_MICROS is exact.
- Strings with escaped quotes are not read: SQL in a table stands in three double quotes.

Rounded, so that it can be compared:

- BigQuery has no single precision, DuckDB's datasets have it. What BigQuery computed of them is
  compared after rounding, and rounded before what looks at their ranks and quantiles is built.

Columns that differ by design are below, each with what holds of it instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Allowed:
    """A column that differs: why, and what must hold of DuckDB's values beside BigQuery's."""

    reason: str
    holds: Callable[[pa.ChunkedArray, pa.ChunkedArray], bool]


def is_renamed(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Return whether rows of one value there have one value here, and of another another."""
    pairs = set(zip(expected.to_pylist(), found.to_pylist(), strict=True))
    names = (expected.unique(), found.unique())
    return expected.null_count == found.null_count == 0 and {len(each) for each in names} == {
        len(pairs)
    }


def is_reordered(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Return whether there are the same values, in whatever order."""
    return sorted(expected.to_pylist()) == sorted(found.to_pylist())


def is_told(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> bool:
    """Return whether every row says something, and each something else."""
    return all(len(set(side.drop_null().to_pylist())) == len(side) for side in (expected, found))


STATEMENT = Allowed("the SQL of a dataset, in the words of the engine", is_told)
SERIES_KEY = Allowed("a fingerprint of a series' names; each engine has its own", is_renamed)
ORDER = Allowed("the place of a bar in the order of its fingerprint", is_reordered)
EXPECTED = {
    "ds_strategies.dataset_sql": STATEMENT,
    "qlt_values.position": ORDER,
} | {
    f"int_alpha158_{part}.series_key": SERIES_KEY
    for part in ("bars", "changes", "extremes", "levels", "quantiles", "ranks", "volumes")
}
