"""The raw tables as `raw.sql` defines them, for warehouses that speak another language."""

from dataclasses import dataclass

import duckdb
from google.cloud import bigquery

from ingest.kinds import KINDS
from ingest.warehouse import RAW_SCHEMA

_TYPES = {
    "VARCHAR": "STRING",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "TIMESTAMP": "DATETIME",
    "DOUBLE": "FLOAT64",
    "INTEGER": "INT64",
    "BIGINT": "INT64",
    "BOOLEAN": "BOOL",
    "VARCHAR[]": "STRING",
    "DOUBLE[]": "FLOAT64",
}


@dataclass(frozen=True)
class RawTable:
    """A raw table as ``raw.sql`` defines it.

    Rows are partitioned by the day of ``event_time``, which is never null, and clustered by
    ``subject``: the symbol, series or provider that they are about, None if nothing.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    event_time: str
    subject: str | None

    @property
    def schema(self) -> list[bigquery.SchemaField]:
        """The table's columns in BigQuery's types."""
        return [
            bigquery.SchemaField(
                name, _TYPES[type_], mode="REPEATED" if type_.endswith("[]") else "NULLABLE"
            )
            for name, type_ in self.columns
        ]


def raw_tables() -> dict[str, RawTable]:
    """Return the raw tables by name, read off ``raw.sql`` by the engine that runs it."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(RAW_SCHEMA.read_text())
        rows = connection.execute(
            """
            select table_name, list((column_name, data_type) order by column_index)
            from duckdb_columns()
            where schema_name = 'raw'
            group by table_name
            order by table_name
            """
        ).fetchall()
    return {name: _raw_table(name, tuple(columns)) for name, columns in rows}


def _raw_table(name: str, columns: tuple[tuple[str, str], ...]) -> RawTable:
    names = [column for column, _ in columns]
    kind = KINDS.get(name)
    # Of several event times the last one is there when no other is.
    times = [kind.event_times[-1]] if kind else ["landed_at", "received_at"]
    times += [column for column, type_ in columns if type_.startswith("TIMESTAMP")]
    subject = kind.subject if kind else "symbol"
    return RawTable(
        name,
        columns,
        next(time for time in times if time in names),
        subject if subject in names else None,
    )
