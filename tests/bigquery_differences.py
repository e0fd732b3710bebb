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

Columns of tables and analyses that are allowed to differ, with the reason:
"""

STATEMENT = "the SQL of a dataset, in the words of the engine"
SERIES_KEY = "a fingerprint of a series' names that only orders rows; each engine has its own"
SINGLE = "features of datasets have single precision on DuckDB, BigQuery has no such type"
ORDER = "the order of a hash of a bar's names, by which rows are drawn; each engine has its own"
EXPECTED = {
    "ds_strategies.dataset_sql": STATEMENT,
    "qlt_values.position": ORDER,
    **dict.fromkeys(
        (
            f"feature_quality.{name}"
            for name in (
                *("place", "flags", "information_above_chance", "mutual_information"),
                *("mutual_information_of_chance", "correlation", "rank_correlation"),
                *("psi", "collinear_feature", "collinearity"),
            )
        ),
        SINGLE,
    ),
    **dict.fromkeys(
        (
            *(f"qlt_collinearity.{name}" for name in ("collinear_feature", "collinearity")),
            *(f"qlt_features.{name}" for name in ("collinear_feature", "collinearity")),
            *(f"qlt_{table}.psi" for table in ("drift", "features")),
            *(
                f"qlt_{table}.{name}"
                for table in ("relations", "features")
                for name in (
                    *("correlation", "rank_correlation"),
                    *("mutual_information", "mutual_information_of_chance"),
                )
            ),
            *(f"qlt_relations.edge_{place}" for place in range(1, 10)),
        ),
        SINGLE,
    ),
} | {
    f"int_alpha158_{part}.series_key": SERIES_KEY
    for part in ("bars", "changes", "extremes", "levels", "quantiles", "ranks", "volumes")
}
