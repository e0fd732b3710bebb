"""Where a table built from all rows differs from the one that was known at a moment."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import duckdb

from serving.cut_offs import columns_of

SERIES = "exchange, market, symbol, interval_minutes"
KEY = f"{SERIES}, opened_at"
WHOLE_ROW = "(row)"
DATASET_TIMES = ("closed_at", "available_at")


def create_differences(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> None:
    """Keep the tables as built from all rows, and create the table `differences`.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where the tables were built from all rows.
    tables : mapping of str to str
        Their relations, by name.
    """
    connection.execute("create schema whole")
    for name, relation in tables.items():
        connection.execute(f"create table whole.{name} as from {relation}")
    connection.execute(
        "create table differences (model varchar, column_name varchar, exchange varchar, "
        "market varchar, symbol varchar, interval_minutes bigint, cut_off timestamp, rows bigint, "
        "first_opened_at timestamp, last_opened_at timestamp, whole varchar, known varchar)"
    )


def compare(
    connection: duckdb.DuckDBPyConnection, name: str, relation: str, cut_off: datetime
) -> int:
    """Add the differences of a table at a cut-off to `differences`, by column and series.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Where `create_differences` kept the table, and where it is built for the cut-off.
    name, relation : str
        The table.
    cut_off : datetime
        Naive UTC.

    Returns
    -------
    int
        The rows compared: those available by the cut-off.
    """
    rules = _rules(name, columns_of(connection, f"whole.{name}"))
    values = [
        f'whole."{name}" as "whole_{name}", known."{name}" as "known_{name}"' for name in rules
    ]
    at = {"cut_off": cut_off}
    connection.execute(
        f"""
        create or replace temp table differing as
        with whole as (
            select
                *,
                opened_at + to_minutes(interval_minutes) as closed,
                min(closed) filter (where available_at > $cut_off) over (partition by {SERIES})
                    as first_unknown_at
            from whole.{name}
        ),
        compared as (
            select
                {", ".join(f"whole.{column}" for column in KEY.split(", "))},
                known.opened_at is null as is_missing, $cut_off as cut_off, first_unknown_at,
                {", ".join(values)}
            from whole left join {relation} as known using ({KEY})
            where whole.available_at <= $cut_off
        )
        from compared where is_missing or {" or ".join(rules.values())}
        union all by name
        select {KEY}, true as is_missing
        from {relation} anti join whole.{name} using ({KEY})
        where available_at <= $cut_off
        """,
        at,
    )
    ((count, differing),) = connection.execute(
        "select count(*), (select count(*) from differing) "
        f"from whole.{name} where available_at <= $cut_off",
        at,
    ).fetchall()
    if differing:
        _name(connection, at | {"model": name, "column": WHOLE_ROW}, "is_missing", "null", "null")
        for column, rule in rules.items():
            _name(
                connection,
                at | {"model": name, "column": column},
                f"not is_missing and {rule}",
                f'"whole_{column}"',
                f'"known_{column}"',
            )
    return int(count)


def _name(
    connection: duckdb.DuckDBPyConnection,
    labels: Mapping[str, object],
    rule: str,
    whole: str,
    known: str,
) -> None:
    connection.execute(
        f"""
        insert into differences
        select
            $model, $column, {SERIES}, $cut_off, count(*), min(opened_at), max(opened_at),
            arg_min_null(cast({whole} as varchar), opened_at),
            arg_min_null(cast({known} as varchar), opened_at)
        from differing
        where {rule}
        group by {SERIES}
        """,
        dict(labels),
    )


def _rules(name: str, types: Mapping[str, str]) -> dict[str, str]:
    """Return of each column to compare the condition under which its two values show a leak.

    A label is decided at the end of its table that ends in the same number. The features of a
    dataset are its 32-bit numbers; its label comes later, from a table of labels, and must not
    change once it is there; its parts follow all the labels there are, and are left out.
    """
    columns = [column for column in types if column not in KEY.split(", ")]
    if name.startswith("ds_"):
        known = {*(column for column in columns if types[column] == "FLOAT"), *DATASET_TIMES}
        return {
            column: _differs(column) if column in known else _changes(column)
            for column in columns
            if column not in {"split", "fold"}
        }
    ends = [column for column in columns if column.endswith("_end_at") and name.startswith("lbl_")]
    return {
        column: _differs(column, [end for end in ends if _horizon(end) == _horizon(column)])
        for column in columns
    }


def _differs(column: str, ends: Sequence[str] = ()) -> str:
    whole, known = f'"whole_{column}"', f'"known_{column}"'
    if not ends:
        return f"{known} is distinct from {whole}"
    end = "least({})".format(", ".join(f'"whole_{end}"' for end in ends))
    return (
        f"case when coalesce({end} > cut_off, true) then {known} is not null "
        f"when coalesce({end} < first_unknown_at, true) then {known} is distinct from {whole} "
        f"else {_changes(column)} end"
    )


def _changes(column: str) -> str:
    whole, known = f'"whole_{column}"', f'"known_{column}"'
    return f"({known} is not null and {known} is distinct from {whole})"


def _horizon(column: str) -> str | None:
    numbers = re.findall(r"(?<=_)\d+(?=_|$)", column)
    return numbers[-1] if numbers else None
