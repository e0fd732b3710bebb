"""Counts and checksums of raw rows that DuckDB and BigQuery compute alike, in SQL.

A row's text is made of its columns: integers, times as microseconds, and numbers as two integers,
the whole part and the fraction times 2**62. Truncation and multiplication by a power of two are
exact in IEEE arithmetic, so no engine's way of printing a number comes into it. What two numbers
differ by below 2**-62 does not show. Two halves of the first 64 bits of the text's MD5 are summed
up, as whole numbers: the order of rows does not matter, a repeated row does.
"""

from ingest.raw_tables import RawTable
from ingest.settings import Target

_FRACTION = "4611686018427387904e0"
_LARGE = "9e18"


def digest_sql(table: RawTable, relation: str, target: Target) -> str:
    """Return a query for day, subject, row_count and checksum, one row per UTC day and subject.

    Parameters
    ----------
    table : RawTable
        The table.
    relation : str
        Its name, quoted, as the engine knows it.
    target : {"duckdb", "bigquery"}
        The engine, in time zone UTC. Bounds of the days are its parameters ``start`` and ``end``,
        instants, the end excluded.
    """
    quote = '"' if target == "duckdb" else "`"
    time = f"{quote}{table.event_time}{quote}"
    subject = f"{quote}{table.subject}{quote}" if table.subject else "cast(null as {text})"
    parts = [_text(f"{quote}{name}{quote}", type_, target) for name, type_ in table.columns]
    row = " || '|' || ".join(parts)
    if target == "duckdb":
        digest, integer, sign, text = f"md5({row})", "bigint", "$", "varchar"
    else:
        digest, integer, sign, text = f"to_hex(md5({row}))", "int64", "@", "string"
    halves = [
        f"cast(sum(cast('0x' || substr(digest, {place}, 8) as {integer})) as {text})"
        for place in (1, 9)
    ]
    return f"""
        select day, subject, count(*) as row_count, {" || ':' || ".join(halves)} as checksum
        from (
            select
                cast({time} as date) as day,
                {subject.format(text=text)} as subject,
                {digest} as digest
            from {relation}
            where {time} >= {sign}start and {time} < {sign}end
        ) as digests
        group by 1, 2
    """


def _text(column: str, type_: str, target: Target) -> str:
    integer, text = ("bigint", "varchar") if target == "duckdb" else ("int64", "string")
    if type_.startswith("TIMESTAMP"):
        microseconds = "epoch_us" if target == "duckdb" else "unix_micros"
        value = f"cast({microseconds}({column}) as {text})"
    elif type_ == "BOOLEAN":
        value = f"cast(cast({column} as {integer}) as {text})"
    elif type_ == "DOUBLE":
        value = _number(column, integer, text)
    elif type_.endswith("[]"):
        element = _number("item", integer, text) if type_ == "DOUBLE[]" else "item"
        if target == "duckdb":
            value = f"array_to_string(list_transform({column}, lambda item: {element}), ',')"
        else:
            value = (
                f"(select string_agg({element}, ',' order by place) "
                f"from unnest({column}) as item with offset as place)"
            )
        # BigQuery keeps no difference between no list and an empty one.
        return f"coalesce({value}, '')"
    else:
        value = f"cast({column} as {text})"
    return f"coalesce('=' || {value}, '')"


def _number(value: str, integer: str, text: str) -> str:
    fraction = f"trunc(({value} - trunc({value})) * {_FRACTION})"
    return (
        f"case when abs({value}) < {_LARGE} then cast(cast(trunc({value}) as {integer}) as {text}) "
        f"|| '.' || cast(cast({fraction} as {integer}) as {text}) "
        f"else lower(cast({value} as {text})) end"
    )
