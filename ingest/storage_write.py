"""The Storage Write API: rows appended to a pending stream with offsets, committed in one step."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from google.api_core import exceptions
from google.api_core.retry import Retry, if_exception_type
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from ingest.bigquery import path
from ingest.warehouse import CloudError

# A request may have 10 MB.
REQUEST_BYTES = 6_000_000
_FEW = 100
AGAIN = Retry(
    predicate=if_exception_type(
        exceptions.TooManyRequests,
        exceptions.ServiceUnavailable,
        exceptions.InternalServerError,
        exceptions.Aborted,
        exceptions.Cancelled,
        exceptions.DeadlineExceeded,
    ),
    initial=0.1,
    maximum=60.0,
    timeout=600.0,
)


@dataclass(frozen=True)
class Appended:
    """A finalized stream, to be committed, and what was refused: row numbers and reasons."""

    stream: str
    refused: dict[int, str]


def append(client: BigQueryWriteClient, table: bigquery.TableReference, rows: pa.Table) -> Appended:
    """Append rows to a new pending stream of a table, without committing it.

    Each request says at which offset of the stream its rows belong. One that is sent again because
    its answer was lost is therefore recognized; a broken connection is taken up where it broke.
    Of a request that holds rows that BigQuery names as wrong the others are appended.

    Raises
    ------
    CloudError
        If most rows, and more than a few, are refused: then it is not the rows that are wrong.
    google.api_core.exceptions.GoogleAPIError
        If BigQuery fails for another reason, also if it refuses a row without naming it, or for
        longer than ten minutes.
    """
    appending = _Appending(client, table, rows)
    appending.run()
    client.finalize_write_stream(name=appending.stream)
    return Appended(appending.stream, appending.refused)


def commit(client: BigQueryWriteClient, table: bigquery.TableReference, stream: str) -> None:
    """Make the rows of a finalized stream visible, all at once; again is no harm.

    Raises
    ------
    CloudError
        If BigQuery does not commit it.
    google.api_core.exceptions.NotFound
        If there is no such stream any more, or it cannot be committed any more.
    """
    request = types.BatchCommitWriteStreamsRequest(parent=path(table), write_streams=[stream])
    code = types.StorageError.StorageErrorCode
    # Ours are finalized: in an invalid state is one that BigQuery has dropped, after some days.
    gone = (code.STREAM_NOT_FOUND, code.INVALID_STREAM_STATE)
    for error in client.batch_commit_write_streams(request=request).stream_errors:
        if error.code in gone:
            raise exceptions.NotFound(error.error_message)
        if error.code != code.STREAM_ALREADY_COMMITTED:
            raise CloudError(f"rows for {table} were not committed: {error.error_message}")


class _Appending:
    """What is left to append to a stream: row numbers, in pieces of a request each."""

    def __init__(
        self, client: BigQueryWriteClient, table: bigquery.TableReference, rows: pa.Table
    ) -> None:
        self.stream = ""
        self.refused: dict[int, str] = {}
        self._client = client
        self._table = table
        self._rows = rows
        self._is_careful = False
        self._begin()

    def _begin(self) -> None:
        """Take a new stream and everything."""
        pending = types.WriteStream(type_=types.WriteStream.Type.PENDING)
        stream = self._client.create_write_stream(parent=path(self._table), write_stream=pending)
        self.stream = stream.name
        self._offset = 0
        rows = self._rows
        count = max(1, int(REQUEST_BYTES / max(1.0, rows.nbytes / max(1, rows.num_rows))))
        starts = range(0, rows.num_rows, count)
        self._left = [list(range(start, min(start + count, rows.num_rows))) for start in starts]

    def run(self) -> None:
        """Append everything but the rows that BigQuery refuses."""
        while self._left:
            try:
                AGAIN(self._send)()
            except exceptions.InvalidArgument as error:
                if self._is_careful:
                    self._part(error)
                else:
                    # Without the refused rows the others get other offsets, at which a request
                    # that is still on its way would write: a new stream, a request at a time.
                    self._is_careful = True
                    self._begin()

    def _send(self) -> None:
        # The header leads the connection to the region where the table is.
        metadata = [("x-goog-request-params", f"write_stream={self.stream}")]
        left = self._left[:1] if self._is_careful else list(self._left)
        # The client's own retry would go on with the requests that it has not sent yet.
        answers = self._client.append_rows(self._requests(left), retry=None, metadata=metadata)
        for answer in answers:
            if answer.error.code:
                error = exceptions.from_grpc_status(
                    answer.error.code, answer.error.message, response=answer
                )
                # What is there already came with a request whose answer was lost.
                if not isinstance(error, exceptions.AlreadyExists):
                    raise error
            self._offset += len(self._left.pop(0))

    def _requests(self, pieces: list[list[int]]) -> Iterator[types.AppendRowsRequest]:
        offset = self._offset
        schema = self._rows.schema.remove_metadata()
        for piece in pieces:
            (batch,) = self._rows.take(piece).cast(schema).combine_chunks().to_batches()
            yield types.AppendRowsRequest(
                write_stream=self.stream,
                offset=offset,
                arrow_rows={
                    "writer_schema": {"serialized_schema": schema.serialize().to_pybytes()},
                    "rows": {"serialized_record_batch": batch.serialize().to_pybytes()},
                },
            )
            offset += len(piece)

    def _part(self, error: exceptions.InvalidArgument) -> None:
        """Take the rows that BigQuery names out of a piece; where it names none, halve it."""
        piece = self._left.pop(0)
        named = {row.index: row.message for row in getattr(error.response, "row_errors", ())}
        if not named:
            # The request may have been too large; a row alone says that something else is wrong.
            if len(piece) == 1:
                raise error
            middle = len(piece) // 2
            self._left[:0] = [piece[:middle], piece[middle:]]
            return
        self.refused |= {piece[index]: message for index, message in named.items()}
        count = len(self.refused)
        if count > max(_FEW, self._rows.num_rows // 2):
            reason = next(iter(named.values()))
            raise CloudError(
                f"BigQuery refused {count:,} of {self._rows.num_rows:,} rows: {reason}"
            )
        rest = [row for index, row in enumerate(piece) if index not in named]
        self._left[:0] = [rest] if rest else []
