"""BigQuery as a warehouse: the datasets of the settings, the raw tables, rows as Arrow."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import requests
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient, types

from ingest.clients import LABELS, Clients, clients
from ingest.raw_tables import raw_tables
from ingest.settings import Settings
from ingest.warehouse import CloudError

_ARROW_TYPES = {
    "STRING": pa.string(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "DATETIME": pa.timestamp("us"),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "NUMERIC": pa.decimal128(38, 9),
    "DATE": pa.date32(),
}
_RAISED = (GoogleAPIError, GoogleAuthError, requests.RequestException, ConnectionError)
Parameter = bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter


class BigQuery:
    """The datasets that the settings name, and clients for them, each made when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.raw_dataset = settings.bigquery_raw_dataset
        self.dataset = settings.bigquery_dataset

    @property
    def client(self) -> bigquery.Client:
        """The client of jobs, tables and queries."""
        return self._clients.rest

    @property
    def reader(self) -> BigQueryReadClient:
        """The client of the Storage Read API."""
        return self._clients.reader

    @property
    def writer(self) -> BigQueryWriteClient:
        """The client of the Storage Write API."""
        return self._clients.writer

    @property
    def analyst(self) -> bigquery.Client:
        """A client whose queries mean tables of the dbt project where they name no dataset."""
        return self._clients.client_of(self.dataset)

    @property
    def _clients(self) -> Clients:
        return clients(self._settings)

    @property
    def place(self) -> str:
        """Project and dataset of the raw tables, for messages."""
        return f"{self.client.project}.{self.raw_dataset}"

    def raw(self, name: str) -> bigquery.TableReference:
        """Return the address of a raw table."""
        dataset = bigquery.DatasetReference(self.client.project, self.raw_dataset)
        return dataset.table(name)

    def model(self, name: str) -> bigquery.TableReference:
        """Return the address of a table of the dbt project."""
        return bigquery.DatasetReference(self.client.project, self.dataset).table(name)

    def create_raw_tables(self) -> None:
        """Create the raw dataset and the raw tables that are missing.

        Raises
        ------
        CloudError
            If the dataset is missing and the credentials may not create it, or lies elsewhere.
        """
        dataset = bigquery.Dataset(f"{self.client.project}.{self.raw_dataset}")
        dataset.location = self._settings.bigquery_location
        try:
            place = self.client.get_dataset(dataset.reference).location
        except NotFound:
            try:
                place = self.client.create_dataset(dataset, exists_ok=True).location
            except Forbidden as error:
                raise CloudError(
                    f"there is no dataset {self.place} and the credentials may not create it: "
                    "docs/guides/bigquery.md says how"
                ) from error
        if place.casefold() != dataset.location.casefold():
            raise CloudError(
                f"{self.place} lies in {place}: set TAPEHOUSE_BIGQUERY_LOCATION to that, "
                f"it is {dataset.location}"
            )
        present = {table.table_id for table in self.client.list_tables(dataset)}
        for raw in raw_tables().values():
            if raw.name not in present:
                table = bigquery.Table(self.raw(raw.name), schema=raw.schema)
                table.time_partitioning = bigquery.TimePartitioning(field=raw.event_time)
                table.clustering_fields = [raw.subject] if raw.subject else None
                table.labels = LABELS
                self.client.create_table(table, exists_ok=True)

    def query(self, sql: str, parameters: Sequence[Parameter] = ()) -> pa.Table:
        """Run GoogleSQL and return its rows, which must be few."""
        return self.job(sql, parameters).result().to_arrow(create_bqstorage_client=False)

    def job(self, sql: str, parameters: Sequence[Parameter] = ()) -> bigquery.QueryJob:
        """Start a job for GoogleSQL whose tables are those of the raw dataset."""
        config = bigquery.QueryJobConfig(
            query_parameters=parameters,
            default_dataset=f"{self.client.project}.{self.raw_dataset}",
        )
        return self.client.query(sql, job_config=config)

    def batches(
        self,
        table: bigquery.TableReference,
        *,
        columns: Sequence[str] = (),
        where: str = "",
    ) -> Iterator[pa.RecordBatch]:
        """Read a table through the Storage Read API, batch by batch.

        Parameters
        ----------
        table : google.cloud.bigquery.TableReference
            The table.
        columns : sequence of str
            Those to read; all by default.
        where : str
            A condition in GoogleSQL over columns and constants; all rows by default.
        """
        session = self.reader.create_read_session(
            parent=f"projects/{self.client.project}",
            read_session=types.ReadSession(
                table=path(table),
                data_format=types.DataFormat.ARROW,
                read_options=types.ReadSession.TableReadOptions(
                    selected_fields=columns, row_restriction=where
                ),
            ),
            max_stream_count=1,
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        for stream in session.streams:
            for answer in self.reader.read_rows(stream.name):
                batch = answer.arrow_record_batch.serialized_record_batch
                yield pa.ipc.read_record_batch(pa.py_buffer(batch), schema)

    def rows(
        self,
        table: bigquery.TableReference,
        *,
        columns: Sequence[str] = (),
        where: str = "",
    ) -> pa.Table:
        """Read a table's rows as :meth:`batches` does; an empty one keeps its types."""
        found = {field.name: field for field in self.client.get_table(table).schema}
        names = columns or tuple(found)
        schema = pa.schema([(name, arrow_type(found[name])) for name in names])
        batches = self.batches(table, columns=columns, where=where)
        tables = [pa.Table.from_batches([batch]).select(names) for batch in batches]
        return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in tables)])

    def row_counts(self, dataset: str) -> dict[str, int]:
        """Return the number of rows of each table of a dataset, by name; views are left out."""
        with told(f"cannot read {self.client.project}.{dataset}"):
            names = [table.reference for table in self.client.list_tables(dataset)]
            tables = [self.client.get_table(name) for name in names]
            return {t.table_id: t.num_rows for t in tables if t.table_type == "TABLE"}

    def ledger(self, name: str, **values: str | None) -> pa.Table:
        """Read the rows of a ledger that have the given values; none while it is not there."""
        where = " and ".join(_equal(column, value) for column, value in values.items())
        with told(f"cannot read {self.place}.{name}"):
            try:
                return self.rows(self.raw(name), where=where)
            except NotFound:
                self.create_raw_tables()
                return self.rows(self.raw(name), where=where)


def _equal(name: str, value: str | None) -> str:
    return f"{name} is null" if value is None else f"{name} = {literal(value)}"


def arrow_type(field: bigquery.SchemaField) -> pa.DataType:
    """Return the Arrow type of a column."""
    type_ = _ARROW_TYPES[field.field_type]
    return pa.list_(type_) if field.mode == "REPEATED" else type_


def path(table: bigquery.TableReference) -> str:
    """Return a table's name as the Storage API writes it."""
    return f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}"


def literal(text: str) -> str:
    """Return a text as a literal of GoogleSQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what Google's client raises, when its retries have ended, into one line."""
    try:
        yield
    except _RAISED as error:
        raise CloudError(f"{doing}: {getattr(error, 'message', error)}") from error


@contextmanager
def copied(tables: Mapping[str, pa.Table]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database in memory that holds the given rows under ``schema.table`` names."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, rows in tables.items():
            connection.execute(f"create schema if not exists {name.partition('.')[0]}")
            connection.register("copied", rows)
            connection.execute(f"create table {name} as select * from copied")
            connection.unregister("copied")
        yield connection
