"""Live landing in BigQuery: pending streams of the Storage Write API, each row once.

The rows of every table and the row of the ledger are appended to streams of their own and
finalized; their names are noted in a file; then the streams are committed one by one, the ledger's
last. Whoever finds the file commits again, which does nothing to a stream that was committed. So a
process that is killed has either noted nothing, and its rows will be appended anew, or they all
become visible.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from google.api_core.exceptions import NotFound

from ingest.bigquery import BigQuery, CloudError, told
from ingest.cloud_landing import dead_letters, in_order_of
from ingest.settings import Settings
from ingest.storage_write import append, commit

REJECTS = "raw_rejects"


def stream(
    settings: Settings,
    tables: dict[str, pa.Table],
    ledger: Callable[[int], tuple[str, pa.Table]],
) -> dict[str, pa.Table]:
    """Land rows together with the row of a ledger.

    Parameters
    ----------
    settings : Settings
        Names project, datasets and location; the note lies beside its database.
    tables : dict of str to pyarrow.Table
        Rows by the name of their raw table, in its layout.
    ledger : callable
        Given how many rows BigQuery refused, returns name and rows of the ledger.

    Returns
    -------
    dict of str to pyarrow.Table
        What landed; rows that BigQuery refused are among raw_rejects.

    Raises
    ------
    CloudError
        If BigQuery did not take them; they land with the next try.
    """
    cloud = BigQuery(settings)
    settle(settings)
    note = _note(settings)
    with told(f"cannot land in {cloud.place}"):
        cloud.create_raw_tables()
        streams: dict[str, str] = {}
        landed: dict[str, pa.Table] = {}
        refused: list[pa.Table] = []
        for name in tables.keys() - {REJECTS}:
            landed[name], letters = _append(cloud, streams, name, tables[name])
            refused.extend(letters)
        rejects = [*refused, *(tables[name] for name in tables.keys() & {REJECTS})]
        if rejects:
            landed[REJECTS], _ = _append(cloud, streams, REJECTS, pa.concat_tables(rejects))
        _append(cloud, streams, *ledger(sum(letters.num_rows for letters in refused)))
        _write(note, streams)
        _commit(cloud, streams)
        note.unlink()
    return landed


def settle(settings: Settings) -> None:
    """Finish what an interrupted landing was about to commit, before the ledger is read.

    Raises
    ------
    CloudError
        If BigQuery cannot be reached, or does not know the streams any more.
    """
    note = _note(settings)
    if not note.exists():
        return
    cloud = BigQuery(settings)
    with told(f"cannot finish the last landing in {cloud.place}"):
        try:
            _commit(cloud, json.loads(note.read_text()))
        except NotFound as error:
            raise CloudError(
                f"BigQuery has forgotten a stream of the landing that {note} speaks of: delete the "
                "file and land again; rows that landed already are told apart by staging"
            ) from error
    note.unlink()


def _note(settings: Settings) -> Path:
    return settings.database.parent / "bigquery_streams.json"


def _append(
    cloud: BigQuery, streams: dict[str, str], name: str, rows: pa.Table
) -> tuple[pa.Table, list[pa.Table]]:
    if not rows.num_rows:
        return rows, []
    schema = cloud.client.get_table(cloud.raw(name)).schema
    appended = append(cloud.writer, cloud.raw(name), in_order_of(schema, rows))
    streams[name] = appended.stream
    if not appended.refused:
        return rows, []
    good, letters = dead_letters(name, rows, appended.refused)
    return good, [letters]


def _write(note: Path, streams: dict[str, str]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    partial = note.with_suffix(".part")
    with partial.open("w") as file:
        json.dump(streams, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(note)


def _commit(cloud: BigQuery, streams: dict[str, str]) -> None:
    for name, appended in streams.items():
        commit(cloud.writer, cloud.raw(name), appended)
