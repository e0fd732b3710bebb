"""Raw history between DuckDB and BigQuery: copied, resumed, compared by counts and checksums."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud_fixtures import rows_of
from typer.testing import CliRunner

from ingest import warehouse
from ingest.bigquery import BigQuery
from ingest.checksums import digest_sql
from ingest.raw_tables import RawTable, raw_tables
from ingest.settings import Settings
from ingest.stores import CloudStore, FileStore
from ingest.sync import sync
from orchestration.cli import app

DAY = datetime(2024, 1, 1, tzinfo=UTC)
# Numbers at the edges of what prints, rounds and overflows differently.
NUMBERS = [
    *("0.1", "1e-5", "123456789.12345678", "1e300", "-1e-12"),
    *("-0.0", "3", "0.30000000000000004", "null"),
]


def fill(database: Path) -> None:
    """Write odd rows of three kinds on two days, one of them twice."""
    with warehouse.writing(database) as connection:
        for place, number in enumerate(NUMBERS):
            connection.execute(
                f"""
                insert into raw.trades by name
                select
                    'binance' as exchange, 'um' as market, symbol,
                    {place} as trade_id, {number}::double as price, 2.5 as quantity,
                    $day + to_seconds({place}) as transact_time, {place} % 2 = 0 as is_buyer_maker,
                    'file:ä|"''' || symbol as source, $day as received_at
                from (values ('BTCUSDT'), ('ETHUSDT')) as symbols (symbol)
                """,
                {"day": DAY + timedelta(days=place % 2)},
            )
        connection.execute("insert into raw.trades from raw.trades where trade_id = 3")
        connection.execute(
            """
            insert into raw.books by name
            select 'BTCUSDT' as symbol, 1 as last_update_id, [0.1, 1e-9] as bid_prices,
                [1.0, 2.0] as bid_quantities, [] as ask_prices, null as ask_quantities,
                $day as transact_time, $day as received_at
            """,
            {"day": DAY},
        )
        connection.execute(
            "insert into raw.landings by name select 'trades' as kind, $day as landed_at",
            {"day": DAY},
        )


@pytest.fixture
def filled(cloud_settings: Settings) -> Settings:
    fill(cloud_settings.database)
    return cloud_settings


def test_raw_rows_go_to_bigquery_and_back_and_are_the_same(
    filled: Settings, tmp_path: Path
) -> None:
    there = {compared.table: compared for compared in sync(filled, "bigquery")}
    names = ("trades", "books", "landings", "news")
    copied = [(there[name].groups, there[name].copied) for name in names]
    assert copied == [(4, 20), (1, 1), (1, 1), (0, 0)]
    assert not any(compared.missing or compared.extra for compared in there.values())
    back = filled.model_copy(update={"database": tmp_path / "back.duckdb"})
    again = sync(back, "duckdb", tables=["trades", "books"])
    assert [compared.copied for compared in again] == [20, 1]
    assert contents(back.database) == contents(filled.database)
    assert [compared.copied for compared in sync(back, "bigquery", tables=["trades"])] == [0]


def test_what_the_target_lacks_is_copied_and_what_it_has_stays(filled: Settings) -> None:
    sync(filled, "bigquery", tables=["trades"])
    cloud = BigQuery(filled)
    cloud.query("delete from trades where trade_id in (1, 3) and symbol = 'BTCUSDT'")
    cloud.query("insert into trades (symbol, transact_time) values ('ETHUSDT', '2024-01-02')")
    (trades,) = sync(filled, "bigquery", tables=["trades"])
    assert (trades.copied, trades.missing) == (3, ())
    assert trades.extra == ((date(2024, 1, 2), "ETHUSDT"),)
    assert rows_of(filled, """
        select symbol, count(*), count(distinct trade_id) from trades group by 1 order by 1
    """) == [("BTCUSDT", 10, 9), ("ETHUSDT", 11, 9)]  # fmt: skip


def test_days_between_those_that_differ_are_not_read(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse.writing(filled.database) as connection:
        connection.execute(
            "insert into raw.trades by name select 'BTCUSDT' as symbol, "
            "unnest([$day, $day + interval 2 day, $day + interval 300 day]) as transact_time",
            {"day": DAY + timedelta(days=1)},
        )
    sync(filled, "bigquery", tables=["trades"])
    cloud = BigQuery(filled)
    cloud.query("insert into trades (symbol, transact_time) values ('BTCUSDT', '2024-01-01')")
    cloud.query("delete from trades where transact_time >= '2024-01-03'")
    read = []
    export = CloudStore.export

    def watched(
        store: CloudStore, table: RawTable, start: datetime, end: datetime, file: Path
    ) -> None:
        read.append((start - DAY, end - DAY))
        export(store, table, start, end, file)

    monkeypatch.setattr(CloudStore, "export", watched)
    steps: list[str] = []
    (trades,) = sync(filled, "bigquery", tables=["trades"], on_step=steps.append)
    assert (trades.copied, trades.missing, len(trades.extra)) == (2, (), 1)
    assert read == [(timedelta(0), timedelta(days=1))]
    assert steps[1:-1] == ["trades: 2024-01-01 to 2024-01-01", "trades: 2024-01-04 to 2024-10-28"]


def test_only_the_days_and_tables_that_are_named_are_copied(filled: Settings) -> None:
    start = DAY + timedelta(days=1)
    (trades,) = sync(filled, "bigquery", tables=["trades"], start=start, end=start + timedelta(1))
    assert (trades.groups, trades.copied, trades.rows) == (2, 10, 10)
    assert rows_of(filled, "select distinct date(transact_time) from trades") == [(start.date(),)]
    assert rows_of(filled, "select count(*) from landings") == [(0,)]
    with pytest.raises(ValueError, match="no raw table trade:"):
        sync(filled, "bigquery", tables=["trade"])


def test_the_command_shows_what_it_did(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = CliRunner().invoke(app, ["sync", "--to", "bigquery", "--table", "trades"])
    assert (done.exit_code, done.stdout.splitlines()[1].split()) == (0, ["trades", "4", "20", "20"])
    assert "The ledgers stay as they are" in done.stdout
    ledger = CliRunner().invoke(app, ["sync", "--to", "bigquery", "--table", "landings"])
    assert (ledger.exit_code, "stay as they are" in ledger.stdout) == (0, False)
    wrong = CliRunner().invoke(app, ["sync", "--to", "bigquery", "--table", "trade"])
    assert wrong.exit_code == 2


def test_both_engines_give_a_row_the_same_checksum(filled: Settings) -> None:
    names = ["trades", "books", "landings"]
    sync(filled, "bigquery", tables=names)
    end = DAY + timedelta(days=9)
    for name in names:
        table = raw_tables()[name]
        here = FileStore(filled).digests(table, DAY, end)
        assert here
        assert CloudStore(filled).digests(table, DAY, end) == here


@pytest.mark.parametrize(
    "change",
    [
        "price = price + 1e-15 where price = 0.1",
        "symbol = symbol || ' '",
        "is_best_match = false",
        "transact_time = transact_time + to_microseconds(1)",
    ],
)
def test_a_changed_value_changes_the_checksum(tmp_path: Path, change: str) -> None:
    def checksum() -> list[Any]:
        with warehouse.reading(database) as connection:
            query = digest_sql(raw_tables()["trades"], "raw.trades", "duckdb")
            days = {"start": DAY, "end": DAY + timedelta(days=1)}
            return sorted(connection.execute(query, days).fetchall())

    database = tmp_path / "tapehouse.duckdb"
    fill(database)
    before = checksum()
    with warehouse.writing(database) as connection:
        connection.execute(f"update raw.trades set {change}")
    assert checksum() != before


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with warehouse.reading(database) as connection:
        return {
            name: connection.execute(
                f"select {columns(name)} from raw.{name} order by all"
            ).fetchall()
            for name in ("trades", "books")
        }


def columns(name: str) -> str:
    """Return a table's columns; BigQuery knows no difference between no list and an empty one."""
    return ", ".join(
        f'coalesce("{column}", []) as "{column}"' if type_.endswith("[]") else f'"{column}"'
        for column, type_ in raw_tables()[name].columns
    )
