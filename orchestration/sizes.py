"""Sizes of the warehouse's tables as BigQuery reckons them: rows by day, bytes by column."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import duckdb
from google.api_core.exceptions import NotFound

from ingest import warehouse
from ingest.bigquery import BigQuery, told
from ingest.settings import Settings

# What a value takes that has no fixed width, where nothing was measured.
TEXT_BYTES = 12
LIST_BYTES = 8 * 20


@dataclass(frozen=True)
class Table:
    """A table's size: rows by the day of its partition column, and bytes a row by column."""

    widths: Mapping[str, float]
    rows: Mapping[date | None, int]
    partition_column: str | None = None

    def size(self, columns: Iterable[str], first_day: date | None = None) -> int:
        """Return the bytes of some columns from a day on."""
        count = sum(
            rows for day, rows in self.rows.items() if not (first_day and day and day < first_day)
        )
        return round(count * sum(self.widths.get(column, 0) for column in columns))


def duckdb_tables(settings: Settings, partition_columns: Mapping[str, str]) -> dict[str, Table]:
    """Return the sizes that the tables of the DuckDB warehouse would have on BigQuery.

    Raises
    ------
    WarehouseMissingError, WarehouseBusyError
        If there is no warehouse file, or it was not released in time.
    """
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        connection.execute("set TimeZone = 'UTC'")
        columns = connection.execute(
            """
            select schema_name, table_name, list((column_name, data_type))
            from duckdb_columns()
            semi join duckdb_tables() using (schema_name, table_name)
            where schema_name in ('raw', 'main')
            group by all
            """
        ).fetchall()
        return {
            name: Table(
                _measured(connection, f'{schema}."{name}"', dict(listed)),
                _days(connection, f'{schema}."{name}"', partition_columns.get(name)),
                partition_columns.get(name),
            )
            for schema, name, listed in columns
        }


def _measured(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Mapping[str, str]
) -> dict[str, float]:
    loose = {
        name: f'avg(strlen("{name}")) + 2' if type_ == "VARCHAR" else f'avg(len("{name}")) * 8'
        for name, type_ in columns.items()
        if type_ == "VARCHAR" or type_.endswith("[]")
    }
    widths: dict[str, float] = {
        name: 1 if type_ == "BOOLEAN" else 8 for name, type_ in columns.items()
    }
    if loose:
        query = f"select {', '.join(loose.values())} from (from {relation} limit 10000)"
        found = connection.execute(query).fetchall()[0]
        widths |= {name: width or 0 for name, width in zip(loose, found, strict=True)}
    return widths


def _days(
    connection: duckdb.DuckDBPyConnection, relation: str, column: str | None
) -> dict[date | None, int]:
    day = f'cast("{column}" as date)' if column else "null"
    return dict(
        connection.execute(f"select {day} as day, count(*) from {relation} group by 1").fetchall()
    )


def cloud_tables(settings: Settings, partition_columns: Mapping[str, str]) -> dict[str, Table]:
    """Return the sizes of the tables on BigQuery, by its own account of their partitions.

    Raises
    ------
    CloudError
        If BigQuery does not tell.
    """
    cloud = BigQuery(settings)
    tables: dict[str, Table] = {}
    for dataset in (cloud.raw_dataset, cloud.dataset):
        with told(f"cannot read the sizes of {cloud.client.project}.{dataset}"):
            tables |= _tables_of(cloud, dataset, partition_columns)
    return tables


def _tables_of(
    cloud: BigQuery, dataset: str, partition_columns: Mapping[str, str]
) -> dict[str, Table]:
    """Return the tables of a dataset that have rows; none where it has not been made."""
    place = f"`{cloud.client.project}`.`{dataset}`.INFORMATION_SCHEMA"
    try:
        if not any(cloud.client.list_tables(dataset)):
            return {}
    except NotFound:
        return {}
    kinds: dict[str, dict[str, str]] = {}
    for row in cloud.client.query(
        f"select table_name, column_name, data_type from {place}.COLUMNS"
    ).result():
        kinds.setdefault(row["table_name"], {})[row["column_name"]] = row["data_type"]
    rows: dict[str, dict[date | None, int]] = {}
    sizes: dict[str, int] = {}
    for row in cloud.client.query(
        "select table_name, partition_id, total_rows, total_logical_bytes "
        f"from {place}.PARTITIONS where total_rows > 0"
    ).result():
        name, partition = row["table_name"], row["partition_id"] or ""
        is_day = len(partition) == 8 and partition.isdigit()
        day = datetime.strptime(partition, "%Y%m%d").replace(tzinfo=UTC).date() if is_day else None
        counted = rows.setdefault(name, {})
        counted[day] = counted.get(day, 0) + row["total_rows"]
        sizes[name] = sizes.get(name, 0) + (row["total_logical_bytes"] or 0)
    tables = {}
    for name, counts in rows.items():
        widths = {column: type_bytes(kind) for column, kind in kinds[name].items()}
        # What the rows really take, shared out by the types.
        factor = sizes[name] / sum(counts.values()) / sum(widths.values()) or 1.0
        scaled = {column: width * factor for column, width in widths.items()}
        tables[name] = Table(scaled, counts, partition_columns.get(name))
    return tables


def type_bytes(kind: str) -> float:
    """Return what a value of a type of GoogleSQL takes, or may."""
    if kind.startswith("ARRAY"):
        return LIST_BYTES
    return {"BOOL": 1, "STRING": TEXT_BYTES, "NUMERIC": 16, "BIGNUMERIC": 32}.get(kind, 8)
