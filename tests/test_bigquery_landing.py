"""Landing in BigQuery with Google's client: the emulator over its wire, the service if given."""

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from cloud_fixtures import rows_of
from google.cloud import bigquery

from ingest.bigquery import BigQuery, arrow_type
from ingest.cloud_landing import Staged
from ingest.files import ingest_files
from ingest.history import ingest_history
from ingest.outbox import SCHEMAS
from ingest.raw_tables import raw_tables
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator
from ingest.storage_write import append, commit
from ingest.warehouse import CloudError

START = datetime(2024, 12, 30, tzinfo=UTC)
SYMBOLS = ["BTCUSDT", "XRPUSDT"]
VALUES = {
    pa.string(): "ä'\"|\n",
    pa.float64(): 0.1,
    pa.int64(): 2**53 + 1,
    pa.bool_(): True,
    pa.timestamp("us", "UTC"): START + timedelta(microseconds=1),
}
VALUES |= {pa.list_(kind): [value, value] for kind, value in VALUES.items()}
LINE = "{time},10,12,9,11,3,{close},33,5,1,11,0"


@pytest.fixture(scope="module")
def exchange() -> Iterator[Simulator]:
    with simulator(Market(7, SYMBOLS, start=START, days=2, edge=1.0)) as running:
        yield running


def klines(*minutes: int, high: str = "12") -> str:
    lines = []
    for minute in minutes:
        time = 1_704_067_200_000 + minute * 60_000
        lines.append(f"{time},10,{high},9,11,3,{time + 59_999},33,5,1,11,0")
    return "\n".join(lines) + "\n"


def type_name(field: bigquery.SchemaField) -> str:
    type_ = field.to_standard_sql().type
    assert type_ is not None
    element = type_.array_element_type
    return f"ARRAY<{element.type_kind.name}>" if element else type_.type_kind.name


def test_every_raw_table_is_there_by_day_and_symbol(cloud_settings: Settings) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    cloud.create_raw_tables()
    tables = [cloud.client.get_table(cloud.raw(name)) for name in raw_tables()]
    found = {
        table.table_id: (
            [(field.name, type_name(field)) for field in table.schema],
            table.time_partitioning.type_,
            table.time_partitioning.field,
            table.clustering_fields,
        )
        for table in tables
    }
    assert set(found) >= {"klines", "trades", "books", "raw_rejects", "landings"}
    assert {day for _, day, _, _ in found.values()} == {"DAY"}
    assert found["funding"] == (
        [
            *((name, "STRING") for name in ("exchange", "market", "symbol")),
            ("funding_time", "TIMESTAMP"),
            ("funding_rate", "FLOAT64"),
            ("mark_price", "FLOAT64"),
            ("source", "STRING"),
            ("received_at", "TIMESTAMP"),
        ],
        "DAY",
        "funding_time",
        ["symbol"],
    )
    assert ("bid_prices", "ARRAY<FLOAT64>") in found["books"][0]
    expected = {
        "klines": ("open_time", ["symbol"]),
        "trades": ("transact_time", ["symbol"]),
        "books": ("transact_time", ["symbol"]),
        "macro_bars": ("close_time", ["series"]),
        "news": ("published_time", ["provider"]),
        "raw_rejects": ("received_at", ["symbol"]),
        "landings": ("landed_at", ["symbol"]),
    }
    assert {name: found[name][2:] for name in expected} == expected


def test_every_raw_table_takes_a_whole_row_by_a_load_job_and_by_a_stream(
    cloud_settings: Settings,
) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    rows = {
        table.name: pa.table(
            {
                field.name: pa.array([VALUES[kind]], kind)
                for field in table.schema
                if (kind := arrow_type(field))
            }
        )
        for table in raw_tables().values()
    }
    with Staged(cloud) as staged:
        assert [staged.add(name, table) for name, table in rows.items()] == [{}] * len(rows)
        staged.insert()
    for name, table in rows.items():
        appended = append(cloud.writer, cloud.raw(name), table)
        assert appended.refused == {}
        commit(cloud.writer, cloud.raw(name), appended.stream)
        assert cloud.rows(cloud.raw(name)).equals(pa.concat_tables([table, table]))


def test_a_dataset_that_lies_elsewhere_is_told(cloud_settings: Settings) -> None:
    BigQuery(cloud_settings).create_raw_tables()
    elsewhere = cloud_settings.model_copy(update={"bigquery_location": "EU"})
    with pytest.raises(CloudError, match="lies in US: set TAPEHOUSE_BIGQUERY_LOCATION"):
        BigQuery(elsewhere).create_raw_tables()


def test_a_table_of_an_older_version_says_what_it_lacks(cloud_settings: Settings) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    cloud.client.delete_table(cloud.raw("signals"))
    older = [field for field in raw_tables()["signals"].schema if field.name != "probabilities"]
    cloud.client.create_table(bigquery.Table(cloud.raw("signals"), schema=older))
    rows = SCHEMAS["signals"].empty_table()
    with Staged(cloud) as staged, pytest.raises(CloudError, match="add column `probabilities` STR"):
        staged.add("signals", pa.Table.from_pylist([{"symbol": "BTCUSDT"}], rows.schema))


def test_history_lands_once_and_goes_on_where_it_ended(
    cloud_settings: Settings, exchange: Simulator
) -> None:
    where = cloud_settings.model_copy(update={"exchange_url": exchange.url, "symbols": SYMBOLS})
    first = ingest_history(where, "klines", start=START, end=START + timedelta(days=1))
    assert (first.failures, first.row_count) == ((), 2 * 1440)
    second = ingest_history(where, "klines", start=START, end=START + timedelta(days=1, hours=1))
    assert (second.failures, second.row_count) == ((), 2 * 60)
    assert rows_of(where, """
        select symbol, count(*), count(distinct open_time), min(open_time), max(open_time)
        from klines group by symbol order by symbol
    """) == [
        (symbol, 1500, 1500, START, START + timedelta(days=1, minutes=59)) for symbol in SYMBOLS
    ]  # fmt: skip
    assert rows_of(where, "select sum(row_count), sum(reject_count) from landings") == [(3000, 0)]
    books = ingest_history(where, "books")
    assert books.row_count == 2
    assert rows_of(where, "select array_length(bid_prices) > 0 from books") == [(True,)] * 2


def test_a_file_lands_once_with_its_rejects(cloud_settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "BTCUSDT-1m-2024-01.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("BTCUSDT-1m-2024-01.csv", klines(0, 1) + klines(2, high="8"))
    first = ingest_files(cloud_settings, "klines", [file])
    again = ingest_files(cloud_settings, "klines", [file])
    assert [(r.row_count, r.reject_count, r.skipped_units) for r in (first, again)] == [
        (2, 1, 0), (0, 0, 1),
    ]  # fmt: skip
    assert rows_of(cloud_settings, "select count(*) from klines") == [(2,)]
    assert rows_of(cloud_settings, "select kind, symbol, reason from raw_rejects") == [
        ("klines", "BTCUSDT", "high is below low")
    ]
    assert left_over(cloud_settings) == []


def test_rows_that_bigquery_refuses_become_rejects(
    cloud_settings: Settings, tmp_path: Path
) -> None:
    cloud = BigQuery(cloud_settings)
    cloud.create_raw_tables()
    cloud.client.delete_table(cloud.raw("funding"))
    fields = [
        bigquery.SchemaField(
            field.name, "INT64" if field.name == "mark_price" else field.field_type
        )
        for field in raw_tables()["funding"].schema
    ]
    cloud.client.create_table(bigquery.Table(cloud.raw("funding"), schema=fields))
    file = tmp_path / "BTCUSDT-fundingRate-2024-01.csv"
    prices = enumerate([100, 200, "1e300", 400])
    lines = [f"{1_704_067_200_000 + i * 28_800_000},0.0001,{price}\n" for i, price in prices]
    file.write_text("funding_time,funding_rate,mark_price\n" + "".join(lines))
    report = ingest_files(cloud_settings, "funding", [file])
    assert (report.row_count, report.reject_count) == (3, 1)
    assert rows_of(cloud_settings, "select mark_price from funding order by 1") == [
        (100,), (200,), (400,),
    ]  # fmt: skip
    assert rows_of(cloud_settings, """
        select kind, symbol, starts_with(reason, 'BigQuery: '), regexp_contains(payload, '1e.?300')
        from raw_rejects
    """) == [("funding", "BTCUSDT", True, True)]  # fmt: skip
    assert rows_of(cloud_settings, "select row_count, reject_count from landings") == [(3, 1)]


def left_over(settings: Settings) -> list[str]:
    cloud = BigQuery(settings)
    tables = cloud.client.list_tables(settings.bigquery_raw_dataset)
    return [table.table_id for table in tables if table.table_id.startswith("landing_")]
