"""The warehouse file: sessions that wait for each other, and the readers' copy."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest import warehouse
from ingest.settings import PROJECT_ROOT, Settings

HOLD = """
import sys
from pathlib import Path
from ingest import warehouse
with warehouse.writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "new" / "tapehouse.duckdb"


@contextmanager
def another_writer(database: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.communicate("\n")


def test_writing_creates_the_file_and_the_raw_tables(database: Path) -> None:
    with warehouse.writing(database) as connection:
        tables = connection.execute(
            "select table_name from information_schema.tables where table_schema = 'raw' order by 1"
        ).fetchall()
        zone = connection.execute("select current_setting('TimeZone')").fetchall()
    assert [name for (name,) in tables] == [
        *("book_gaps", "books", "funding", "garch_parameters", "klines", "landings"),
        *("liquidations", "log_landings", "macro_bars", "mark_prices", "news", "news_scores"),
        *("open_interest", "raw_rejects", "served_features", "signals", "trades"),
    ]
    assert zone == [("UTC",)]


def test_a_busy_warehouse_names_the_process_that_holds_it(database: Path) -> None:
    with another_writer(database) as holder:
        with (
            pytest.raises(warehouse.WarehouseBusyError, match=rf"\(PID {holder.pid}\).*0\.2 s"),
            warehouse.writing(database, timeout_s=0.2),
        ):
            pass
        with (
            pytest.raises(warehouse.WarehouseBusyError, match=rf"\(PID {holder.pid}\)"),
            warehouse.reading(database, timeout_s=0.2),
        ):
            pass
        with pytest.raises(warehouse.WarehouseBusyError):
            warehouse.wait_for_writer(database, timeout_s=0.2)


def test_a_session_waits_until_the_other_process_is_done(database: Path) -> None:
    with another_writer(database) as holder:
        stdin = holder.stdin
        assert stdin
        release = threading.Timer(0.5, lambda: (stdin.write("\n"), stdin.flush()))
        release.start()
        with warehouse.writing(database, timeout_s=30) as connection:
            assert connection.execute("select count(*) from raw.klines").fetchall() == [(0,)]
        release.join()


def test_reading_without_a_warehouse_says_what_to_do(database: Path) -> None:
    with (
        pytest.raises(warehouse.WarehouseMissingError, match="run `tapehouse ingest`"),
        warehouse.reading(database),
    ):
        pass
    assert not database.exists()


def test_a_file_that_is_no_database_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "text.duckdb"
    file.write_text("not a database" * 1000)
    with pytest.raises(Exception, match="not a valid DuckDB"), warehouse.reading(file):
        pass


def test_the_snapshot_is_replaced_while_a_reader_keeps_the_old_one(database: Path) -> None:
    with warehouse.writing(database) as connection:
        connection.execute("create table numbers as select 1 as number")
    snapshot = warehouse.publish_snapshot(database)
    with warehouse.reading(snapshot) as reader:
        with warehouse.writing(database) as connection:
            connection.execute("insert into numbers values (2)")
        assert warehouse.publish_snapshot(database) == snapshot
        assert reader.execute("from numbers").fetchall() == [(1,)]
    with warehouse.reading(snapshot) as reader:
        assert reader.execute("from numbers").fetchall() == [(1,), (2,)]
    assert sorted(path.name for path in database.parent.iterdir()) == [
        "tapehouse.duckdb",
        "tapehouse.snapshot.duckdb",
    ]


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPEHOUSE_DATABASE", "here/some.duckdb")
    monkeypatch.setenv("TAPEHOUSE_SYMBOLS", "BTCUSDT, ETHUSDT")
    monkeypatch.setenv("TAPEHOUSE_EXCHANGE_URL", "http://127.0.0.1:1/")
    settings = Settings()
    assert settings.database == tmp_path / "here" / "some.duckdb"
    assert settings.snapshot == tmp_path / "here" / "some.snapshot.duckdb"
    assert settings.symbols == ["BTCUSDT", "ETHUSDT"]
    assert settings.exchange_url == "http://127.0.0.1:1"
