"""A small warehouse over a simulated market: ingested once, built once, copied for each test."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from dbt_fixtures import WITHOUT_TESTS, run_dbt, share_compiled, shared

from ingest import warehouse
from ingest.files import ingest_files
from ingest.history import ingest_history
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator, write_books

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
SIGNALS = """
    select exchange, market, symbol, interval_minutes, opened_at, closed_at, available_at,
        model_name, model_version, probability, threshold, signal
    from sig_order_flow
    order by all
"""


def ingest(settings: Settings, market: Market) -> None:
    for kind in ("klines", "trades", "funding"):
        ingest_history(settings, kind, start=market.start)


def copy(warehouse: Path, directory: Path) -> None:
    """Copy the directory of a warehouse, which goes on to share what is compiled."""
    shutil.copytree(warehouse, directory, symlinks=True, dirs_exist_ok=True)


def build(settings: Settings, *selection: str) -> None:
    run_dbt(settings.database, "build", *selection, *WITHOUT_TESTS)


def signals(settings: Settings) -> list[tuple[object, ...]]:
    with warehouse.reading(settings.database) as connection:
        return connection.execute(SIGNALS).fetchall()


@pytest.fixture(scope="session")
def market() -> Market:
    return Market(seed=3, symbols=SYMBOLS, days=4, edge=1.0)


@pytest.fixture(scope="session")
def ingested(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse's directory with the raw rows of four days."""

    def make(directory: Path) -> None:
        with simulator(market) as exchange:
            settings = Settings(
                database=directory / "tapehouse.duckdb", exchange_url=exchange.url, symbols=SYMBOLS
            )
            ingest(settings, market)
        for day in (2, 3):
            date = (market.start + timedelta(days=day)).date()
            write_books(market, "um", SYMBOLS[0], date, directory / "books")
        ingest_files(settings, "books", [directory / "books"])
        share_compiled(directory)

    return shared(tmp_path_factory, "ingested", make)


@pytest.fixture(scope="session")
def built(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, after `dbt build`."""

    def make(directory: Path) -> None:
        copy(ingested, directory)
        build(Settings(database=directory / "tapehouse.duckdb"))

    return shared(tmp_path_factory, "built", make)


@pytest.fixture
def exchange(market: Market) -> Iterator[Simulator]:
    with simulator(market) as running:
        yield running


@pytest.fixture
def settings(built: Path, tmp_path: Path, exchange: Simulator) -> Settings:
    """Settings of a copy of the built warehouse, connected to the exchange."""
    copy(built, tmp_path / "warehouse")
    return Settings(
        database=tmp_path / "warehouse" / "tapehouse.duckdb",
        exchange_url=exchange.url,
        symbols=SYMBOLS,
    )


def start_of_last_day(market: Market) -> datetime:
    return market.end.replace(tzinfo=None) - timedelta(days=1)
