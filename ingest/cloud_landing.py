"""Bulk landing in BigQuery: Parquet load jobs, and one transaction for rows and ledger.

Rows are loaded into tables of this landing alone; then one transaction inserts them into the raw
tables together with the ledger rows that speak of them. A run that is killed leaves either both
or nothing, and its own tables expire.
"""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery

from ingest.batches import Batch, Entry, ledger_rows
from ingest.bigquery import BigQuery, told
from ingest.clients import LABELS
from ingest.raw_tables import raw_tables
from ingest.settings import Settings
from ingest.storage_write import append, commit
from ingest.validation import REJECTS_SCHEMA, Checked
from ingest.warehouse import CloudError

_LEFTOVERS_EXPIRE_AFTER = timedelta(days=1)


class CloudLanding:
    """Writes batches to the raw tables of BigQuery, creating those that are missing.

    Parameters
    ----------
    settings : Settings
        Names project, datasets and location.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cloud = BigQuery(settings)
        self._refused: Counter[tuple[str, str]] = Counter()
        self._is_ready = False

    def write(self, batches: Sequence[Batch]) -> list[Batch]:
        """Land batches and return them as they landed: what BigQuery refused is among the rejects.

        Raises
        ------
        CloudError
            If BigQuery did not take them; then none of them has landed.
        """
        with told(f"cannot land in {self._cloud.place}"):
            if not self._is_ready:
                self._cloud.create_raw_tables()
                self._is_ready = True
            landed = list(batches)
            with Staged(self._cloud) as staged:
                for kind in dict.fromkeys(batch.series.kind for batch in landed):
                    tables = [b.checked.rows for b in landed if b.series.kind == kind]
                    refused = staged.add(kind, pa.concat_tables(tables))
                    landed = self._set_aside(landed, kind, refused)
                staged.add("raw_rejects", pa.concat_tables(b.checked.rejects for b in landed))
                staged.add("landings", self._ledger(landed))
                staged.insert()
            return landed

    def _ledger(self, batches: Sequence[Batch]) -> pa.Table:
        entries = []
        for batch in batches:
            if batch.entry:
                refused = self._refused.pop((batch.series.kind, batch.entry.source), 0)
                entries.append(_less(batch.entry, refused))
        return ledger_rows(self._settings, entries)

    def _set_aside(self, batches: list[Batch], kind: str, refused: dict[int, str]) -> list[Batch]:
        """Move the rows of a kind that BigQuery refused to the rejects of their batches."""
        moved = []
        start = 0
        for batch in batches:
            end = start + (batch.checked.rows.num_rows if batch.series.kind == kind else 0)
            here = {row - start: why for row, why in refused.items() if start <= row < end}
            start = end
            if here:
                sources = batch.checked.rows["source"].take(list(here)).to_pylist()
                self._refused.update((kind, source) for source in sources)
                rows, letters = dead_letters(kind, batch.checked.rows, here)
                rejects = pa.concat_tables([batch.checked.rejects, letters])
                batch = replace(batch, checked=Checked(rows, rejects))
            moved.append(batch)
        return moved


class Staged:
    """Rows on their way: each raw table's in a table of its own, until they are inserted."""

    def __init__(self, cloud: BigQuery) -> None:
        self._cloud = cloud
        self._tables: dict[str, bigquery.Table] = {}

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *exception: object) -> None:
        for table in self._tables.values():
            self._cloud.client.delete_table(table, not_found_ok=True)

    def add(self, name: str, rows: pa.Table) -> dict[int, str]:
        """Load rows for a raw table, and return the numbers of those refused, with the reasons."""
        if not rows.num_rows:
            return {}
        schema = self._cloud.client.get_table(self._cloud.raw(name)).schema
        rows = in_order_of(self._cloud.raw(name), schema, rows)
        address = self._cloud.raw(f"landing_{uuid.uuid4().hex}_{name}")
        table = bigquery.Table(address, schema=schema)
        table.expires = datetime.now(UTC) + _LEFTOVERS_EXPIRE_AFTER
        # It is there already where the answer to the first request was lost.
        self._tables[name] = self._cloud.client.create_table(table, exists_ok=True)
        try:
            load(self._cloud, table, rows)
        except BadRequest:
            # A load job takes all rows or none, and does not say which one is wrong.
            appended = append(self._cloud.writer, address, rows)
            commit(self._cloud.writer, address, appended.stream)
            return appended.refused
        return {}

    def insert(self) -> None:
        """Insert everything into the raw tables, in one transaction."""
        statements = ["begin transaction"]
        for name, table in self._tables.items():
            columns = ", ".join(f"`{field.name}`" for field in table.schema)
            target = self._cloud.raw(name)
            statements.append(
                f"insert into `{target}` ({columns}) select {columns} from `{table.reference}`"
            )
        statements.append("commit transaction")
        self._cloud.query(";\n".join(statements))


def in_order_of(
    table: bigquery.TableReference, schema: Sequence[bigquery.SchemaField], rows: pa.Table
) -> pa.Table:
    """Return rows with the columns of a table as it is there; those it has beyond ours are null.

    Raises
    ------
    CloudError
        If the table, made by an older version, has no column for some of the values.
    """
    present = {field.name for field in schema}
    if lacking := [name for name in rows.column_names if name not in present]:
        added = [f for f in raw_tables()[table.table_id].schema if f.name in lacking]
        clauses = ", ".join(f"add column `{f.name}` {_type_name(f)}" for f in added)
        raise CloudError(f"{table} is of an older version: alter table `{table}` {clauses}")
    absent = pa.nulls(rows.num_rows, pa.string())
    names = rows.column_names
    return pa.table({f.name: rows[f.name] if f.name in names else absent for f in schema})


def _type_name(field: bigquery.SchemaField) -> str:
    return f"array<{field.field_type}>" if field.mode == "REPEATED" else field.field_type


def dead_letters(
    name: str, rows: pa.Table, refused: Mapping[int, str]
) -> tuple[pa.Table, pa.Table]:
    """Part the rows of a raw table from those that BigQuery refused, as rows of raw_rejects."""
    if not refused:
        return rows, REJECTS_SCHEMA.empty_table()
    is_refused = pc.is_in(pa.array(range(rows.num_rows)), pa.array(refused, pa.int64()))
    bad = rows.filter(is_refused)
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("bad", bad)
        payloads = connection.sql("select to_json(bad)::varchar as payload from bad")
        payload = payloads.to_arrow_table()["payload"]
    nothing = pa.nulls(bad.num_rows, pa.string())
    subject = raw_tables()[name].subject
    values = {
        **dict.fromkeys(REJECTS_SCHEMA.names, nothing),
        **{column: bad[column] for column in bad.column_names if column in REJECTS_SCHEMA.names},
        "kind": pa.repeat(pa.scalar(name), bad.num_rows),
        "symbol": bad[subject] if subject else nothing,
        "payload": payload,
        "reason": pa.array([f"BigQuery: {refused[row]}" for row in sorted(refused)]),
    }
    letters = pa.table(values).select(REJECTS_SCHEMA.names).cast(REJECTS_SCHEMA)
    return rows.filter(pc.invert(is_refused)), letters


def _less(entry: Entry, refused: int) -> Entry:
    row_count, reject_count = entry.row_count - refused, entry.reject_count + refused
    return replace(entry, row_count=row_count, reject_count=reject_count)


def parquet_job(
    cloud: BigQuery,
    table: bigquery.TableReference,
    schema: Sequence[bigquery.SchemaField],
    file: IO[bytes],
    *,
    job_id: str | None = None,
) -> bigquery.LoadJob:
    """Start a job that appends a Parquet file to a table, all of it or nothing."""
    lists = bigquery.ParquetOptions()
    lists.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        schema=schema,
        parquet_options=lists,
        labels=LABELS,
    )
    # Without a size the client uploads in parts, which it can repeat.
    return cloud.client.load_table_from_file(
        file, table, rewind=True, job_id=job_id, job_config=config
    )


def load(cloud: BigQuery, table: bigquery.Table, rows: pa.Table) -> None:
    """Append rows to a table by a load job of Parquet; all of them or, if it raises, none."""
    with BytesIO() as file:
        pq.write_table(rows, file, compression="zstd")
        parquet_job(cloud, table.reference, table.schema, file).result()
