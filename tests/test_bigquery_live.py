"""Live landing in BigQuery by the Storage Write API, on a wire that fails and under kill -9."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
import requests
from bigquery_emulator import Emulator
from bigquery_status import IS_WHOLE
from cloud_faults import Wire, faulty
from cloud_fixtures import rows_of
from dbt_fixtures import run_dbt
from google.api_core.exceptions import NotFound, RetryError
from google.auth.exceptions import RefreshError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types

from ingest import storage_write
from ingest.bigquery import BigQuery, arrow_type, path, told
from ingest.drain import drain
from ingest.files import ingest_files
from ingest.landing import Progress, land_frames
from ingest.outbox import SCHEMAS, served
from ingest.raw_tables import raw_tables
from ingest.segment_writer import SegmentWriter
from ingest.segments import START, Cursor, Frame
from ingest.settings import PROJECT_ROOT, Settings
from ingest.storage_write import append, commit
from ingest.warehouse import CloudError

NOW_US = int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def trade(number: int) -> Frame:
    data = {
        "e": "aggTrade", "s": "BTCUSDT", "a": number, "p": "1.5", "q": "2", "f": number,
        "l": number, "T": 1_704_067_200_000 + number, "m": True,
    }  # fmt: skip
    stream = "btcusdt@aggTrade"
    return Frame(NOW_US, stream, json.dumps({"stream": stream, "data": data}).encode())


def record(settings: Settings, *numbers: int, garbled: bool = False) -> None:
    with SegmentWriter(settings.segments_directory / "um") as log:
        log.append_all([trade(number) for number in numbers])
        if garbled:
            log.append(Frame(NOW_US, "btcusdt@aggTrade", b"{"))


def landed(settings: Settings) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the trades that are there, and rows and rejects that the ledger counts."""
    trades = rows_of(settings, "select trade_id from trades order by trade_id")
    counts = "select row_count, reject_count from log_landings order by landed_at"
    return [number for (number,) in trades], rows_of(settings, counts)


def with_whole_quantities(cloud: BigQuery) -> bigquery.TableReference:
    """Make the table of trades anew, so that it refuses quantities that are not whole."""
    table = cloud.raw("trades")
    cloud.client.delete_table(table)
    types = {field.name: field.field_type for field in raw_tables()["trades"].schema}
    types["quantity"] = "INT64"
    fields = [bigquery.SchemaField(name, type_) for name, type_ in types.items()]
    cloud.client.create_table(bigquery.Table(table, schema=fields))
    return table


@pytest.fixture
def wire(
    cloud_settings: Settings, bigquery_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Wire]:
    """A wire between the client and the emulator; retries wait for next to nothing."""
    if os.environ["TAPEHOUSE_BIGQUERY_PROJECT"] != bigquery_emulator.project:
        pytest.skip("faults are made in front of the emulator")
    quick = storage_write.AGAIN.with_delay(initial=0.01, maximum=0.01)
    monkeypatch.setattr(storage_write, "AGAIN", quick)
    with faulty(bigquery_emulator) as wire:
        for name, value in wire.environment.items():
            monkeypatch.setenv(name, value)
        yield wire


def test_frames_land_once_also_while_the_log_grows(cloud_settings: Settings) -> None:
    record(cloud_settings, 1, 2, garbled=True)
    assert drain(cloud_settings).row_count == 2
    assert drain(cloud_settings).row_count == 0
    record(cloud_settings, 3)
    drain(cloud_settings)
    assert landed(cloud_settings) == ([1, 2, 3], [(2, 1), (1, 0)])
    ((kind, reason),) = rows_of(cloud_settings, "select kind, reason from raw_rejects")
    assert (kind, reason.split(":")[0]) == ("frames", "btcusdt@aggTrade")


def test_what_the_loop_said_lands_with_its_features(cloud_settings: Settings) -> None:
    at = datetime(2024, 1, 2, tzinfo=UTC)
    said = {
        "signals": [
            {
                "model_name": "ml",
                "symbol": "BTCUSDT",
                "probability": 0.1,
                "signal": 1,
                "closed_at": at,
            }
        ],
        "served_features": [
            {"dataset": "ds", "symbol": "BTCUSDT", "features": "[0.1]", "closed_at": at}
        ],
    }
    tables = {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in said.items()}
    with SegmentWriter(cloud_settings.outbox_directory) as log:
        log.append(served(tables, at=NOW_US))
    assert (drain(cloud_settings).row_count, drain(cloud_settings).row_count) == (2, 0)
    for name, (row,) in said.items():
        assert rows_of(cloud_settings, f"select {', '.join(row)} from {name}") == [
            tuple(row.values())
        ]


def test_landing_that_lost_a_race_does_nothing(cloud_settings: Settings) -> None:
    record(cloud_settings, 1)
    drain(cloud_settings)
    assert not land_frames(cloud_settings, {}, Progress("um", START, Cursor(9, 9), 0))
    assert landed(cloud_settings) == ([1], [(1, 0)])


@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_requests_that_fail_are_repeated_and_write_nothing_twice(
    cloud_settings: Settings, wire: Wire, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(storage_write, "REQUEST_BYTES", 500)
    if fault == "refused":
        wire.refuse["AppendRows"] = [UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        wire.refuse["/tables"] = [429, 503]
    else:
        wire.lose |= {"AppendRows": 2, "BatchCommitWriteStreams": 2}
    record(cloud_settings, *range(50))
    drain(cloud_settings)
    assert landed(cloud_settings) == (list(range(50)), [(50, 0)])
    assert not any([*wire.refuse.values(), *wire.lose.values()])


@pytest.mark.parametrize("method", ["AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"])
@pytest.mark.parametrize("passing", [0, 1])
def test_a_killed_landing_is_finished_by_the_next(
    cloud_settings: Settings, wire: Wire, bigquery_emulator: Emulator, method: str, passing: int
) -> None:
    record(cloud_settings, 1, 2, garbled=True)
    has_come = threading.Event()
    wire.hold[method] = (passing, has_come)
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(cloud_settings.database)}
    with subprocess.Popen(
        [sys.executable, "-m", "ingest.drain"], cwd=PROJECT_ROOT, env=environment
    ) as process:
        assert has_come.wait(60)
        process.kill()
    wire.hold.clear()
    drain(cloud_settings)
    assert landed(cloud_settings) == ([1, 2], [(2, 1)])


def test_rows_that_bigquery_refuses_become_rejects(cloud_settings: Settings) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    with_whole_quantities(cloud)
    record(cloud_settings, *range(6))
    with SegmentWriter(cloud_settings.segments_directory / "um") as log:
        half = trade(6)
        log.append(half._replace(payload=half.payload.replace(b'"2"', b'"2.5"')))
    drain(cloud_settings)
    assert landed(cloud_settings) == (list(range(6)), [(6, 1)])
    ((kind, symbol, payload),) = rows_of(
        cloud_settings, "select kind, symbol, payload from raw_rejects"
    )
    assert (kind, symbol, json.loads(payload)["quantity"]) == ("trades", "BTCUSDT", 2.5)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNAVAILABLE"])
def test_rows_wait_while_bigquery_says_that_something_else_is_wrong(
    cloud_settings: Settings, wire: Wire, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(storage_write, "AGAIN", storage_write.AGAIN.with_timeout(0.1))
    wire.refuse["AppendRows"] = [grpc.StatusCode[code]] * 10_000
    record(cloud_settings, *range(300))
    with pytest.raises(CloudError, match="cannot land in"):
        drain(cloud_settings)
    # A request of half as many rows each time, and no rejects.
    assert len(wire.refuse["AppendRows"]) > 9_000
    assert landed(cloud_settings) == ([], [])
    assert rows_of(cloud_settings, "select * from raw_rejects") == []
    wire.refuse.clear()
    drain(cloud_settings)
    assert landed(cloud_settings) == (list(range(300)), [(300, 0)])


def test_rows_wait_while_most_of_them_are_refused(
    cloud_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_write, "_FEW", 2)
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    table = with_whole_quantities(cloud)
    values = [{"trade_id": number, "quantity": number / 2} for number in range(7)]
    schema = pa.schema([(field.name, arrow_type(field)) for field in raw_tables()["trades"].schema])
    with pytest.raises(CloudError, match="refused 3 of 5 rows"):
        append(cloud.writer, table, pa.Table.from_pylist(values[1:6], schema))
    assert sorted(append(cloud.writer, table, pa.Table.from_pylist(values, schema)).refused) == [
        1, 3, 5,
    ]  # fmt: skip


def test_a_stream_that_cannot_be_committed_is_not_taken_for_one_that_was(
    cloud_settings: Settings,
) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    table = cloud.raw("trades")
    pending = types.WriteStream(type_=types.WriteStream.Type.PENDING)
    stream = cloud.writer.create_write_stream(parent=path(table), write_stream=pending).name
    with pytest.raises(NotFound):
        commit(cloud.writer, table, stream)
    cloud.writer.finalize_write_stream(name=stream)
    commit(cloud.writer, table, stream)
    commit(cloud.writer, table, stream)


@pytest.mark.parametrize(
    "error",
    [
        RetryError("too long", None),
        RefreshError("the token was revoked"),
        requests.ConnectionError("no network"),
        ConnectionResetError("the other side ended it"),
    ],
)
def test_what_the_client_raises_is_told_in_a_line(error: Exception) -> None:
    with pytest.raises(CloudError, match=f"cannot land: .*{error.args[0]}"), told("cannot land"):
        raise error


def test_landing_goes_on_after_bigquery_failed(cloud_settings: Settings, wire: Wire) -> None:
    def trades() -> list[tuple[int, ...]]:
        return rows_of(cloud_settings, "select trade_id from trades")

    BigQuery(cloud_settings).create_raw_tables()
    record(cloud_settings, 1, 2)
    wire.refuse["BatchCommitWriteStreams"] = [grpc.StatusCode.PERMISSION_DENIED] * 2
    command = [sys.executable, "-m", "orchestration.cli", "land", "--every", "0.1s"]
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(cloud_settings.database)}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment) as process:
        while process.poll() is None and not trades():
            pass
        process.terminate()
    assert process.returncode == 0
    assert landed(cloud_settings) == ([1, 2], [(2, 0)])


def test_a_killed_load_leaves_all_of_it_or_nothing(
    cloud_settings: Settings, wire: Wire, tmp_path: Path
) -> None:
    """The transaction's request is held: its rows were loaded, and nothing of them shows."""
    file = tmp_path / "BTCUSDT-fundingRate-2024-01.csv"
    file.write_text("funding_time,funding_rate\n1704067200000,0.0001\n")
    has_come = threading.Event()
    command = [sys.executable, "-m", "orchestration.cli", "ingest", "funding", str(file)]
    wire.hold["/jobs"] = (0, has_come)
    environment = os.environ | {"TAPEHOUSE_DATABASE": str(cloud_settings.database)}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment) as process:
        assert has_come.wait(60)
        process.kill()
    wire.hold.clear()
    assert rows_of(cloud_settings, "select count(*) from funding") == [(0,)]
    assert ingest_files(cloud_settings, "funding", [file]).row_count == 1
    counts = "select (select count(*) from funding), (select count(*) from landings)"
    assert rows_of(cloud_settings, counts) == [(1, 1)]


@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_a_load_is_repeated_where_requests_fail_and_lands_once(
    cloud_settings: Settings, wire: Wire, tmp_path: Path, fault: str
) -> None:
    if fault == "refused":
        wire.refuse |= {"/tables": [429], "POST /upload": [503], "PUT /upload": [503]}
        wire.refuse |= {"/jobs": [429, 503], "/queries": [429]}
    else:
        # The emulator forgets an upload that is complete, so the answer to its PUT is not lost.
        wire.lose |= {"/tables": 2, "POST /upload": 1, "/jobs": 2, "/queries": 1}
    file = tmp_path / "BTCUSDT-fundingRate-2024-01.csv"
    file.write_text("funding_time,funding_rate\n1704067200000,0.0001\n1704096000000,0.0002\n")
    assert ingest_files(cloud_settings, "funding", [file]).row_count == 2
    assert not any([*wire.refuse.values(), *wire.lose.values()])
    counts = "select (select count(*) from funding), (select sum(row_count) from landings)"
    assert rows_of(cloud_settings, counts) == [(2, 2)]


def test_a_read_goes_on_where_it_broke(cloud_settings: Settings, wire: Wire) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    cloud.query(
        "insert into trades (symbol, trade_id) "
        "select 'BTCUSDT', number from unnest(generate_array(1, 200000)) as number"
    )
    wire.refuse["ReadRows"] = [UNAVAILABLE]
    wire.refuse["CreateReadSession"] = [UNAVAILABLE]
    wire.lose["ReadRows"] = 2
    found = cloud.rows(cloud.raw("trades"), columns=["trade_id"])["trade_id"].to_pylist()
    assert sorted(found) == list(range(1, 200001))
    assert not any([*wire.refuse.values(), *wire.lose.values()])


@pytest.mark.skipif(not IS_WHOLE, reason="starts dbt: `make test-bigquery` runs it")
def test_a_job_of_dbt_has_labels_a_limit_of_bytes_and_a_place(
    cloud_settings: Settings, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPEHOUSE_BIGQUERY_MAXIMUM_BYTES", "5000000000")
    monkeypatch.setenv("TAPEHOUSE_BIGQUERY_LOCATION", "europe-west3")
    monkeypatch.setenv("TAPEHOUSE_BIGQUERY_THREADS", "1")
    BigQuery(cloud_settings).create_raw_tables()
    wire.jobs.clear()
    run_dbt(cloud_settings.database, "run", "--select", "stg_klines", "--target", "bigquery")
    ours = [job for job in wire.jobs if "stg_klines" in job["configuration"]["query"]["query"]]
    assert ours
    for job in ours:
        configuration = job["configuration"]
        assert configuration["query"]["maximumBytesBilled"] == "5000000000"
        assert {"app", "node_id", "dbt_invocation_id"} <= configuration["labels"].keys()
        assert job["jobReference"]["location"] == "europe-west3"
