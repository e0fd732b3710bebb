"""Bars: the complete grid, and what rolls up into it."""

from pathlib import Path

import pandas as pd
import pytest

from tests.features_fixtures import START, SYMBOLS, built, random_market, table

VALUES = ["open_price", "high_price", "low_price", "close_price", "volume", "quote_volume"]


@pytest.fixture(scope="module")
def market() -> dict[str, pd.DataFrame]:
    return random_market(minutes=400)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, market: dict[str, pd.DataFrame]) -> Path:
    klines = market["klines"]
    own = klines[(klines.symbol == "ETHUSDT") & (klines.open_time == START)]
    own = own.assign(interval="5m", close=1234.5, high=1234.5)
    unfinished = klines.tail(1).assign(is_closed=False, close=1.0)
    unfinished["open_time"] += pd.Timedelta(minutes=1)
    again = klines.assign(received_at=klines.received_at - pd.Timedelta(days=1), close=0.5)
    klines = pd.concat([klines, own, unfinished, again], ignore_index=True)
    working = tmp_path_factory.mktemp("bars")
    return built("bars", market | {"klines": klines}, select="+int_bars", working=working)


def test_the_grid_is_complete_and_its_gaps_are_the_minutes_not_reported(
    database: Path, market: dict[str, pd.DataFrame]
) -> None:
    for symbol in SYMBOLS:
        bars = table(
            database,
            f"""
            select * from int_bars where symbol = '{symbol}' and interval_minutes = 1
            order by opened_at
            """,
        )
        reported = market["klines"][market["klines"].symbol == symbol].open_time
        grid = pd.date_range(START, periods=400, freq="min")
        assert bars.opened_at.tolist() == grid.tz_localize(None).tolist()
        gaps = grid.difference(reported).tz_localize(None)
        assert bars.opened_at[bars.is_gap].tolist() == gaps.tolist()
        assert bars[bars.is_gap][VALUES].isna().all(axis=None)
        assert bars[~bars.is_gap][VALUES].notna().all(axis=None)
        assert (bars.bars_in_run == 0).tolist() == bars.is_gap.tolist()


@pytest.mark.parametrize("interval_minutes", [5, 15, 60])
def test_longer_bars_equal_those_of_pandas_where_every_minute_is_there(
    database: Path, market: dict[str, pd.DataFrame], interval_minutes: int
) -> None:
    klines = market["klines"][market["klines"].symbol == "BTCUSDT"]
    grouped = klines.set_index(klines.open_time.dt.tz_localize(None)).resample(
        f"{interval_minutes}min"
    )
    expected = grouped.agg(
        {
            "open": "first",
            "high": "max",
            "low": "min",
            "close": "last",
            "volume": "sum",
            "quote_volume": "sum",
        }
    )[grouped.size() == interval_minutes]
    bars = table(
        database,
        f"""
        select * from int_bars
        where symbol = 'BTCUSDT' and interval_minutes = {interval_minutes} and not is_gap
        order by opened_at
        """,
    ).set_index("opened_at")
    assert bars.index.tolist() == expected.index.tolist()
    pd.testing.assert_frame_equal(
        bars[VALUES].set_axis(expected.columns, axis=1),
        expected,
        check_freq=False,
        check_names=False,
        check_index_type=False,
        rtol=1e-12,
    )


def test_the_exchanges_own_bar_wins_over_the_rolled_up_one(database: Path) -> None:
    rows = table(
        database,
        f"""
        select symbol, close_price = 1234.5 as is_own from int_bars
        where interval_minutes = 5 and opened_at = timestamp '{START.tz_localize(None)}'
        order by symbol
        """,
    )
    assert rows.is_own.tolist() == [False, True]
