"""Where the emulator is not BigQuery: why, and what is done about it.

Corrected in bigquery_emulator_server.py:

- NUMERIC and BIGNUMERIC without a precision become DECIMAL(18, 3) and DECIMAL(38, 5); BigQuery
  has 9 and 38 decimals. They are given 9 and 15, as many as the project needs.
- A statement that reads a view is written anew with the view's text in it, which loses what
  its writer does not know. Views are DuckDB's own there, so this is left out.

Written so that both understand it:

- An element of a list at a computed OFFSET is the one before; at a computed ORDINAL it is right.
- Integer literals have 32 bits: times are counted in seconds, not in microseconds.
- Strings with escaped quotes are not read: SQL in a table stands in three double quotes.

Columns that are allowed to differ, with the reason:
"""

SERIES_KEY = "a fingerprint of a series' names that only orders rows; each engine has its own"
EXPECTED = {
    f"int_alpha158_{part}.series_key": SERIES_KEY
    for part in ("bars", "changes", "extremes", "levels", "quantiles", "ranks", "volumes")
}
