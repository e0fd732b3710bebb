"""Both warehouses as places that raw rows are copied from and to."""

from abc import ABC, abstractmethod
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import Conflict
from google.cloud import bigquery

from ingest import warehouse
from ingest.bigquery import BigQuery, arrow_type, told
from ingest.checksums import digest_sql
from ingest.cloud_landing import parquet_job
from ingest.raw_tables import RawTable
from ingest.settings import Settings

Key = tuple[date, str | None]
Digests = dict[Key, tuple[int, str]]


class Store(ABC):
    """Raw tables, wherever they are; times are UTC, ends of spans excluded."""

    @abstractmethod
    def prepare(self, *, is_source: bool) -> None:
        """Create the raw tables that are missing; a source must be there."""

    @abstractmethod
    def digests(self, table: RawTable, start: datetime, end: datetime) -> Digests:
        """Return row count and checksum of each day and subject."""

    @abstractmethod
    def export(self, table: RawTable, start: datetime, end: datetime, file: Path) -> None:
        """Write the rows of some days to a Parquet file, whatever their number."""

    @abstractmethod
    def append(self, table: RawTable, file: Path, name: str) -> None:
        """Insert the rows of a Parquet file, all or none; the name tells this insertion."""


class FileStore(Store):
    """The DuckDB warehouse."""

    def __init__(self, settings: Settings) -> None:
        self._database = settings.database
        self._timeout_s = settings.writer_timeout_s

    def prepare(self, *, is_source: bool) -> None:
        """Create the raw tables that are missing; a source must be there."""
        if is_source:
            with warehouse.reading(self._database, timeout_s=self._timeout_s):
                pass
        with warehouse.writing(self._database, timeout_s=self._timeout_s):
            pass

    def digests(self, table: RawTable, start: datetime, end: datetime) -> Digests:
        """Return row count and checksum of each day and subject."""
        query = digest_sql(table, f"raw.{table.name}", "duckdb")
        with warehouse.reading(self._database, timeout_s=self._timeout_s) as connection:
            rows = connection.execute(query, {"start": start, "end": end}).fetchall()
        return {(day, subject): (count, checksum) for day, subject, count, checksum in rows}

    def export(self, table: RawTable, start: datetime, end: datetime, file: Path) -> None:
        """Write the rows of some days to a Parquet file, whatever their number."""
        names = ", ".join(f'"{name}"' for name, _ in table.columns)
        with warehouse.reading(self._database, timeout_s=self._timeout_s) as connection:
            connection.execute(
                f"copy (select {names} from raw.{table.name} "
                f'where "{table.event_time}" >= $start and "{table.event_time}" < $end) '
                f"to '{file}' (format parquet, compression zstd)",
                {"start": start, "end": end},
            )

    def append(self, table: RawTable, file: Path, name: str) -> None:  # noqa: ARG002
        """Insert the rows of a Parquet file, all or none."""
        with warehouse.writing(self._database, timeout_s=self._timeout_s) as connection:
            connection.execute(f"insert into raw.{table.name} by name select * from '{file}'")


class CloudStore(Store):
    """The raw dataset in BigQuery."""

    def __init__(self, settings: Settings) -> None:
        self._cloud = BigQuery(settings)
        self._compared_at = datetime.min.replace(tzinfo=UTC)

    def prepare(self, *, is_source: bool) -> None:  # noqa: ARG002
        """Create the raw tables that are missing; a source must be there."""
        with told(f"cannot use {self._cloud.place}"):
            self._cloud.create_raw_tables()

    def digests(self, table: RawTable, start: datetime, end: datetime) -> Digests:
        """Return row count and checksum of each day and subject."""
        query = digest_sql(table, f"`{self._cloud.raw(table.name)}`", "bigquery")
        bounds = [
            bigquery.ScalarQueryParameter(name, "TIMESTAMP", value)
            for name, value in (("start", start), ("end", end))
        ]
        with told(f"cannot compare {self._cloud.place}.{table.name}"):
            job = self._cloud.job(query, bounds)
            rows = job.result().to_arrow(create_bqstorage_client=False).to_pylist()
        self._compared_at = job.created
        return {(row["day"], row["subject"]): (row["row_count"], row["checksum"]) for row in rows}

    def export(self, table: RawTable, start: datetime, end: datetime, file: Path) -> None:
        """Write the rows of some days to a Parquet file, whatever their number."""
        time = table.event_time
        where = f"{time} >= timestamp '{start:%F %T}+00' and {time} < timestamp '{end:%F %T}+00'"
        names = [name for name, _ in table.columns]
        schema = pa.schema([(field.name, arrow_type(field)) for field in table.schema])
        with (
            told(f"cannot read {self._cloud.place}.{table.name}"),
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for batch in self._cloud.batches(
                self._cloud.raw(table.name), columns=names, where=where
            ):
                rows = pa.Table.from_batches([batch]).select(names)
                writer.write_table(rows.cast(schema))

    def append(self, table: RawTable, file: Path, name: str) -> None:
        """Insert the rows of a Parquet file, all or none."""
        job_id = f"tapehouse-sync-{self._cloud.raw_dataset}-{table.name}-{name}"
        with told(f"cannot copy to {self._cloud.place}.{table.name}"), file.open("rb") as stream:
            self._append_once(self._cloud.raw(table.name), stream, job_id)

    def _append_once(self, table: bigquery.TableReference, file: IO[bytes], wanted: str) -> None:
        """Append a file by a job of its own, or wait for that of an interrupted run."""
        schema = self._cloud.client.get_table(table).schema
        job_id = wanted
        while True:
            try:
                parquet_job(self._cloud, table, schema, file, job_id=job_id).result()
                return
            except Conflict:
                before = self._cloud.client.get_job(job_id)
            has_ended = before.ended and before.ended < self._compared_at
            if not (before.error_result or has_ended):
                before.result()
                return
            # It failed, or what it brought is gone: the comparison, which came later, misses it.
            job_id = f"{wanted}-{before.ended:%Y%m%d%H%M%S%f}"
