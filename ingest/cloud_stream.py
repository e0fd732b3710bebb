"""Live landing in BigQuery: pending streams of the Storage Write API, each row once.

The rows of every table and the row of the ledger are appended to streams of their own and
finalized; the streams' names are noted in a file; then they are committed one by one, the ledger's
last. Whoever finds the file commits again, which does nothing to a stream that was committed. So
what a process that is killed had not noted will be appended anew, and what it had noted becomes
visible, all of it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from ingest.bigquery import BigQuery, told
from ingest.cloud_landing import dead_letters, in_order_of
from ingest.landing import Progress
from ingest.segments import START, Cursor
from ingest.settings import Settings
from ingest.storage_write import append, commit
from ingest.warehouse import CloudError

_REJECTS = "raw_rejects"
_INSTANT = pa.timestamp("us", "UTC")


def land_stretch(settings: Settings, tables: Mapping[str, pa.Table], progress: Progress) -> bool:
    """Land a stretch as :func:`ingest.landing.land_frames` does; what BigQuery refuses is rejected.

    Raises
    ------
    CloudError
        If BigQuery did not take the rows; they land with the next try.
    """
    cloud = BigQuery(settings)
    note = _note(settings)
    with _alone(note), told(f"cannot land in {cloud.place}"):
        _settle(cloud, note)
        if _cursor(cloud, progress.log) != progress.start:
            return False
        streams: dict[str, str] = {}
        rejects = [tables[name] for name in tables.keys() & {_REJECTS}]
        row_count = 0
        for name in tables.keys() - {_REJECTS}:
            refused = _append(cloud, streams, name, tables[name])
            row_count += tables[name].num_rows - refused.num_rows
            rejects.append(refused)
        rejected = pa.concat_tables(rejects)
        _append(cloud, streams, _REJECTS, rejected)
        ledger = _ledger(progress, row_count, rejected.num_rows)
        _append(cloud, streams, "log_landings", ledger)
        _write(note, streams)
        _commit(cloud, streams)
        note.unlink()
    return True


def landed_cursor(settings: Settings, log: str) -> Cursor:
    """Return the place up to which a log has landed, after finishing what was interrupted."""
    cloud = BigQuery(settings)
    note = _note(settings)
    with _alone(note), told(f"cannot read {cloud.place}"):
        cloud.create_raw_tables()
        _settle(cloud, note)
        return _cursor(cloud, log)


def _cursor(cloud: BigQuery, log: str) -> Cursor:
    rows = cloud.query(
        "select segment, `offset` from log_landings where log = @log "
        "order by segment desc, `offset` desc limit 1",
        [bigquery.ScalarQueryParameter("log", "STRING", log)],
    ).to_pylist()
    return Cursor(**rows[0]) if rows else START


def _ledger(progress: Progress, row_count: int, reject_count: int) -> pa.Table:
    return pa.table(
        {
            "log": [progress.log],
            "segment": [progress.end.segment],
            "offset": [progress.end.offset],
            "frame_count": [progress.frame_count],
            "row_count": [row_count],
            "reject_count": [reject_count],
            "landed_at": pa.array([datetime.now(UTC)], _INSTANT),
        }
    )


def _settle(cloud: BigQuery, note: Path) -> None:
    """Finish what an interrupted landing was about to commit."""
    if not note.exists():
        return
    try:
        _commit(cloud, json.loads(note.read_text()))
    except NotFound as error:
        raise CloudError(
            f"BigQuery has forgotten a stream of the landing that {note} speaks of: delete the "
            "file and land again; staging keeps one of each row that had landed already"
        ) from error
    note.unlink()


def _note(settings: Settings) -> Path:
    return settings.database.parent / "bigquery_streams.json"


@contextmanager
def _alone(note: Path) -> Iterator[None]:
    """Wait until no other process of this machine lands from here."""
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _append(cloud: BigQuery, streams: dict[str, str], name: str, rows: pa.Table) -> pa.Table:
    """Append rows to a stream of their own, and return what was refused, as rejects."""
    refused: dict[int, str] = {}
    if rows.num_rows:
        schema = cloud.client.get_table(cloud.raw(name)).schema
        appended = append(cloud.writer, cloud.raw(name), in_order_of(cloud.raw(name), schema, rows))
        streams[name], refused = appended.stream, appended.refused
    return dead_letters(name, rows, refused)[1]


def _write(note: Path, streams: Mapping[str, str]) -> None:
    partial = note.with_suffix(".part")
    with partial.open("w") as file:
        json.dump(streams, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(note)


def _commit(cloud: BigQuery, streams: Mapping[str, str]) -> None:
    for name, appended in streams.items():
        commit(cloud.writer, cloud.raw(name), appended)
