"""Features against slow independent definitions, and their blindness to the future."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib

from tests.features_fixtures import SYMBOLS, built, random_market, table

MINUTES = 1800
KEY = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]
FAMILIES = ["feat_ta", "feat_orderflow", "feat_microstructure", "feat_calendar"]


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def market() -> dict[str, pd.DataFrame]:
    return random_market(minutes=MINUTES)


@pytest.fixture(scope="module")
def whole(working: Path, market: dict[str, pd.DataFrame]) -> Path:
    return built("whole", market, select="+features", working=working)


def series(
    database: Path, name: str, symbol: str, interval_minutes: int, *, market: str = "um"
) -> pd.DataFrame:
    return table(
        database,
        f"""
        select bars.*, feature.* exclude (exchange, market, symbol, interval_minutes, opened_at)
        from int_bars as bars
        left join {name} as feature using (exchange, market, symbol, interval_minutes, opened_at)
        where market = '{market}' and symbol = '{symbol}'
            and interval_minutes = {interval_minutes}
        order by opened_at
        """,
    ).set_index("opened_at")


def runs(bars: pd.DataFrame) -> list[pd.DataFrame]:
    """The stretches of bars without a gap."""
    reported = bars[~bars.is_gap]
    return [run for _, run in reported.groupby(bars.is_gap.cumsum()[~bars.is_gap])]


def technical_oracle(run: pd.DataFrame) -> pd.DataFrame:
    high, low, close, volume = (
        run[name].to_numpy() for name in ("high_price", "low_price", "close_price", "volume")
    )
    features = {f"close_sma_{bars}": talib.SMA(close, bars) for bars in (3, 6, 12, 24, 48)}
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    features |= {
        "close_bbands_20_upper": upper,
        "close_bbands_20_middle": middle,
        "close_bbands_20_lower": lower,
    }
    typical = pd.Series((high + low + close) / 3 * volume)
    volumes = pd.Series(volume)
    features["vwap_20"] = (typical.rolling(20).sum() / volumes.rolling(20).sum()).to_numpy()
    relative = {f"{name}_rel": value / close - 1 for name, value in features.items()}
    spreads = {f"close_stddev_{bars}": talib.STDDEV(close, bars) for bars in (12, 24)}
    slopes = {
        f"close_linearreg_slope_{bars}": talib.LINEARREG_SLOPE(close, bars)
        for bars in (3, 6, 12, 24)
    }
    relative |= {f"{name}_rel": value / close for name, value in (spreads | slopes).items()}
    features |= relative | spreads | slopes
    features["bbands_20_width"] = (upper - lower) / middle
    features["bbands_20_pctb"] = (close - lower) / (upper - lower)
    features |= {f"close_roc_{bars}": talib.ROC(close, bars) for bars in (1, 5, 10, 20)}
    range_pct = pd.Series((high - low) / close * 100)
    features |= {
        f"spread_pct_{bars}": range_pct.rolling(bars).mean().to_numpy() for bars in (3, 6, 12)
    }
    # Of the two lines TA-Lib withholds %K until %D is there as well.
    slow_k, slow_d = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    features["stoch_k_14_3"], features["stoch_d_3"] = slow_k, slow_d
    features["close_willr_14"] = talib.WILLR(high, low, close, 14)
    features["volume_sma_20"] = talib.SMA(volume, 20)
    features["volume_sma_20_rel"] = volume / features["volume_sma_20"] - 1
    return pd.DataFrame(features, index=run.index)


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame, *, tolerance: float = 1e-9) -> None:
    for column in expected:
        np.testing.assert_allclose(
            actual[column].to_numpy(dtype=float),
            expected[column].to_numpy(dtype=float),
            rtol=tolerance,
            atol=tolerance,
            err_msg=str(column),
        )


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("interval_minutes", [1, 5])
def test_technical_indicators_equal_those_of_talib_and_pandas(
    whole: Path, symbol: str, interval_minutes: int
) -> None:
    bars = series(whole, "feat_ta", symbol, interval_minutes)
    stretches = runs(bars)
    assert len(stretches) == 2
    for run in stretches:
        expected = technical_oracle(run)
        actual = run.copy()
        actual.loc[actual.index[:17], "stoch_k_14_3"] = np.nan
        assert_equal(actual, expected, tolerance=1e-7)
        assert run["stoch_k_14_3"].isna().sum() == 15
        assert set(expected) <= set(run.columns)


def test_features_of_a_gap_have_no_row_of_their_own(whole: Path) -> None:
    for family in FAMILIES:
        counts = table(
            whole,
            f"""
            select count(*) as gaps, count(known_at) as known
            from int_bars
            left join (select *, available_at as known_at from {family})
                using (exchange, market, symbol, interval_minutes, opened_at)
            where is_gap
            """,
        )
        assert counts.gaps[0] > 0
        assert counts.known[0] == 0


def book_oracle(books: pd.DataFrame) -> pd.DataFrame:
    """Features of one symbol's snapshots by loops over NumPy rows."""
    rows = []
    previous = None
    for book in books.itertuples():
        prices = {"bid": np.asarray(book.bid_prices), "ask": np.asarray(book.ask_prices)}
        sizes = {"bid": np.asarray(book.bid_quantities), "ask": np.asarray(book.ask_quantities)}
        bid, ask = sizes["bid"], sizes["ask"]
        mid = (prices["bid"][0] + prices["ask"][0]) / 2
        row = {
            f"imbalance_{levels}": (bid[:levels].sum() - ask[:levels].sum())
            / (bid[:levels].sum() + ask[:levels].sum())
            for levels in (5, 10, 20)
        }
        row["level1_imbalance"] = (bid[0] - ask[0]) / (bid[0] + ask[0])
        row["quoted_spread_bps"] = (prices["ask"][0] - prices["bid"][0]) / mid * 1e4
        row["effective_spread"] = row["quoted_spread_bps"] / 100
        row["depth_ratio"] = bid.sum() / ask.sum()
        weighted = prices["ask"][0] * bid[0] + prices["bid"][0] * ask[0]
        row["microprice_rel"] = weighted / (bid[0] + ask[0]) / mid - 1
        for side in ("bid", "ask"):
            size, price = sizes[side], prices[side]
            first = pd.Series(size[:10])
            walls = size > 2 * size.mean()
            row[f"total_{side}_depth"] = size.sum()
            row[f"{side}_wall_count"] = walls.sum()
            row[f"{side}_wall_ratio"] = size[walls].sum() / size.sum()
            row[f"{side}_max_wall"] = size.max() / size.mean()
            row[f"{side}_volume_std"] = first.std(ddof=0)
            row[f"{side}_volume_skew"] = first.skew()
            slope = np.polyfit(price[:10] - price[0], size[:10].cumsum(), 1)[0]
            row[f"{side}_pressure"] = slope
            row[f"{side}_pressure_rel"] = slope * mid / 1e4 / size.sum()
        row["depth_5"] = bid[:5].sum() + ask[:5].sum()
        row["depth_20"] = bid.sum() + ask.sum()
        for levels in (1, 5):
            row[f"ofi_{levels}"] = (
                np.nan if previous is None else order_flow(previous, book, levels)
            )
        rows.append(row)
        previous = book
    return pd.DataFrame(rows, index=books.index)


def order_flow(previous, book, levels: int) -> float:  # type: ignore[no-untyped-def]
    total = 0.0
    for level in range(levels):
        for side, better in (("bid", 1), ("ask", -1)):
            price = getattr(book, f"{side}_prices")[level]
            price_before = getattr(previous, f"{side}_prices")[level]
            size = getattr(book, f"{side}_quantities")[level]
            size_before = getattr(previous, f"{side}_quantities")[level]
            move = np.sign(price - price_before) * better
            change = size if move > 0 else -size_before if move < 0 else size - size_before
            total += better * change
    return total


def assert_books_equal(bars: pd.DataFrame, books: pd.DataFrame, *, interval_minutes: int) -> None:
    """Compare the bars that hold books with a loop over these."""
    snapshots = book_oracle(books)
    opened_at = books.transact_time.dt.tz_localize(None).dt.floor(f"{interval_minutes}min")
    grouped = snapshots.groupby(opened_at)
    states = [
        column for column in snapshots if not column.startswith(("ofi", "depth_5", "depth_20"))
    ]
    expected = grouped[states].last()
    for column in states:
        if column == "effective_spread" or column.endswith("pressure_rel"):
            continue
        expected[f"{column}_mean"] = grouped[column].mean()
        expected[f"{column}_mid"] = grouped[column].apply(
            lambda values: values.iloc[len(values) // 2]
        )
    depth = grouped["depth_20"].last()
    for column in ("ofi_1", "ofi_5"):
        expected[column] = grouped[column].sum()
        expected[f"{column}_rel"] = expected[column] / depth
    reported = bars[~bars.is_gap & bars.index.isin(expected.index)]
    assert len(reported) > 0.8 * len(expected)
    assert_equal(reported, expected.loc[reported.index], tolerance=1e-7)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_order_book_features_equal_a_plain_loop_over_snapshots(
    whole: Path, market: dict[str, pd.DataFrame], symbol: str
) -> None:
    books = market["books"][market["books"].symbol == symbol].reset_index(drop=True)
    bars = series(whole, "feat_orderflow", symbol, 5)
    assert_books_equal(bars, books, interval_minutes=5)


def test_a_book_is_carried_for_two_bars_and_then_unknown(whole: Path) -> None:
    bars = series(whole, "feat_orderflow", "BTCUSDT", 1)
    missing = bars[bars.ofi_1.isna() & ~bars.is_gap]
    assert len(missing) == 10
    assert missing.imbalance_5.notna().tolist() == [True, True] + [False] * 8
    assert missing.imbalance_5_mean.notna().sum() == 0


def assert_trades_equal(bars: pd.DataFrame, trades: pd.DataFrame, *, interval_minutes: int) -> None:
    """Compare bars with what pandas makes of their trades, all in order of time."""
    trades = trades.copy()
    at = trades.transact_time.dt.tz_localize(None)
    trades["change"] = trades.groupby(at.dt.floor("min")).price.diff()
    trades["earlier"] = trades.groupby(at.dt.floor("min")).change.shift()
    trades["buy"] = trades.quantity.where(~trades.is_buyer_maker, 0)
    trades["sell"] = trades.quantity.where(trades.is_buyer_maker, 0)
    grouped = trades.groupby(at.dt.floor(f"{interval_minutes}min"))
    by_trades = pd.DataFrame(
        {
            "buy_volume": grouped.buy.sum(),
            "sell_volume": grouped.sell.sum(),
            "trade_size_mean": grouped.quantity.mean(),
            "trade_size_std": grouped.quantity.std(ddof=0),
            "trade_size_skew": grouped.quantity.skew(),
            "trade_frequency": grouped.size() / (interval_minutes * 60),
            "price_impact": (grouped.price.last() - grouped.price.first()) / grouped.quantity.sum(),
            "roll_spread": grouped.apply(roll_spread),
        }
    ).reindex(bars.index)
    by_trades[bars.is_gap] = np.nan
    expected = by_trades.copy()
    expected["buy_volume"] = by_trades.buy_volume.fillna(bars.taker_buy_volume)
    expected["sell_volume"] = by_trades.sell_volume.fillna(bars.volume - bars.taker_buy_volume)
    net = expected.buy_volume - expected.sell_volume
    gross = expected.buy_volume + expected.sell_volume
    expected["net_volume"] = net
    expected["buy_sell_ratio"] = (expected.buy_volume / expected.sell_volume).replace(
        np.inf, np.nan
    )
    expected["taker_buy_ratio"] = expected.buy_volume / gross
    value = trades.assign(value=trades.quote_quantity).groupby(grouped.ngroup()).value.sum()
    value = pd.Series(value.to_numpy(), index=grouped.size().index).reindex(bars.index)
    value = value.fillna(bars.quote_volume)
    change = bars.close_price.diff()
    illiquidity = (bars.close_price / bars.close_price.shift() - 1).abs() / value
    expected["amihud_20"] = illiquidity.rolling(20).mean()
    expected["amihud_60"] = illiquidity.rolling(60).mean()
    expected["kyle_lambda"] = change.rolling(60).cov(net) / net.rolling(60).var()
    known = change.rolling(60).count() == 60
    expected["kyle_lambda"] = expected.kyle_lambda.where(known)
    expected["cumulative_delta_288"] = net.rolling(288).sum()
    expected["cumulative_delta_288_rel"] = net.rolling(288).sum() / gross.rolling(288).sum()
    expected["roll_spread_rel"] = expected.roll_spread / bars.close_price
    expected["trade_size_std_rel"] = expected.trade_size_std / expected.trade_size_mean
    reported = ~bars.is_gap
    assert_equal(bars[reported], expected[reported], tolerance=1e-7)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("interval_minutes", [1, 5])
def test_microstructure_equals_pandas_over_the_trades(
    whole: Path, market: dict[str, pd.DataFrame], symbol: str, interval_minutes: int
) -> None:
    bars = series(whole, "feat_microstructure", symbol, interval_minutes)
    trades = market["trades"][market["trades"].symbol == symbol]
    traded = trades.transact_time.dt.tz_localize(None).dt.floor(f"{interval_minutes}min")
    assert bars.index[~bars.is_gap].isin(traded).all() == (interval_minutes == 5)
    assert_trades_equal(bars, trades, interval_minutes=interval_minutes)


def roll_spread(trades: pd.DataFrame) -> float:
    pairs = trades.dropna(subset=["earlier"])
    if pairs.empty:
        return np.nan
    covariance = (pairs.change * pairs.earlier).mean() - pairs.change.mean() * pairs.earlier.mean()
    return 2 * np.sqrt(max(-covariance, 0))


def test_the_calendar_equals_that_of_pandas(whole: Path) -> None:
    rows = table(whole, "select * from feat_calendar order by all")
    opened = rows.opened_at
    closed = opened + pd.to_timedelta(rows.interval_minutes, unit="min")
    expected = pd.DataFrame(
        {
            "hour": opened.dt.hour,
            "day_of_week": opened.dt.day_of_week,
            "is_weekend": opened.dt.day_of_week >= 5,
            "month": opened.dt.month,
            "is_end_of_month": opened.dt.day >= 28,
            "is_asia_session": opened.dt.hour.between(0, 7),
            "is_europe_session": opened.dt.hour.between(8, 15),
            "is_us_session": opened.dt.hour.between(16, 23),
            "hour_sin": np.sin(2 * np.pi * opened.dt.hour / 24),
            "hour_cos": np.cos(2 * np.pi * opened.dt.hour / 24),
            "day_of_week_sin": np.sin(2 * np.pi * opened.dt.day_of_week / 7),
            "day_of_week_cos": np.cos(2 * np.pi * opened.dt.day_of_week / 7),
            "minutes_to_funding": (
                (closed + pd.Timedelta(microseconds=1)).dt.ceil("8h") - closed
            ).dt.total_seconds()
            / 60,
        }
    )
    assert set(expected) | {*KEY, "available_at", "volume_vs_typical"} == set(rows)
    assert_equal(rows, expected)


def test_cutting_the_data_at_any_time_changes_no_feature_before_it(
    whole: Path, working: Path, market: dict[str, pd.DataFrame]
) -> None:
    clock = {"klines": "open_time", "trades": "transact_time", "books": "transact_time"}
    end = market["klines"].open_time.min() + pd.Timedelta(minutes=MINUTES * 3 // 4)
    earlier = {name: frame[frame[clock[name]] < end] for name, frame in market.items()}
    database = built("earlier", earlier, select="+features", working=working)
    for family in FAMILIES:
        query = f"""
            select * from {family}
            where opened_at + to_minutes(interval_minutes) <= timestamp '{end.tz_localize(None)}'
            order by symbol, interval_minutes, opened_at
        """
        expected, cut = table(whole, query), table(database, query)
        assert cut.symbol.unique().tolist() == SYMBOLS
        pd.testing.assert_frame_equal(expected, cut, check_exact=True)


def test_starting_later_changes_no_book_feature_once_its_window_is_full(
    whole: Path, working: Path, market: dict[str, pd.DataFrame], manifest: dict[str, Any]
) -> None:
    clock = {"klines": "open_time", "trades": "transact_time", "books": "transact_time"}
    start = market["klines"].open_time.min() + pd.Timedelta(minutes=1200)
    later = {name: frame[frame[clock[name]] >= start] for name, frame in market.items()}
    database = built("later", later, select="+feat_orderflow", working=working)
    described = manifest["nodes"]["model.tapehouse.feat_orderflow"]
    query = f"""
        select * from feat_orderflow
        where interval_minutes = 1
            and opened_at >= timestamp '{start.tz_localize(None)}'
                + to_minutes({described["config"]["meta"]["lookback_bars"]})
        order by symbol, opened_at
    """
    expected, part = table(whole, query), table(database, query)
    assert len(part) > 100
    pd.testing.assert_frame_equal(expected, part, check_exact=True)


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> dict[str, pd.DataFrame]:
    """Bars of XRPUSDT and BNBUSDT; trades and books of BTCUSDT with the bars that trades make."""
    klines = []
    for symbol in ("XRPUSDT", "BNBUSDT"):
        rows = pd.read_parquet(shared_data / "um" / f"klines_{symbol}_1m.parquet").tail(6000)
        rows["open_time"] = pd.to_datetime(rows.open_time, unit="ms", utc=True)
        klines.append(rows.assign(market="um", symbol=symbol))
    aggregates = pd.read_parquet(shared_data / "spot" / "agg_trades_BTCUSDT.parquet").rename(
        columns={"agg_trade_id": "trade_id"}
    )
    singles = pd.read_parquet(shared_data / "um" / "trades_BTCUSDT_20260216.parquet").rename(
        columns={"id": "trade_id", "qty": "quantity", "time": "transact_time"}
    )
    trades = []
    for market, rows in (("spot", aggregates), ("um", singles)):
        rows = rows.sort_values(["transact_time", "trade_id"], ignore_index=True)
        rows["transact_time"] = pd.to_datetime(rows.transact_time, unit="ms", utc=True)
        rows["quote_quantity"] = (rows.price * rows.quantity).round(8)
        rows = rows.assign(market=market, symbol="BTCUSDT", is_aggregate=market == "spot")
        trades.append(rows)
        minutes = rows.groupby(rows.transact_time.dt.floor("min"))
        bars = minutes.price.agg(open="first", high="max", low="min", close="last")
        bought = rows.quantity.where(~rows.is_buyer_maker, 0).groupby(
            rows.transact_time.dt.floor("min")
        )
        bars = bars.assign(
            volume=minutes.quantity.sum().round(8),
            quote_volume=minutes.quote_quantity.sum().round(8),
            taker_buy_volume=bought.sum().round(8),
            count=minutes.size(),
        )
        klines.append(
            bars.rename_axis("open_time").reset_index().assign(market=market, symbol="BTCUSDT")
        )
    levels = {"bids_px": "bid_prices", "bids_qty": "bid_quantities"}
    levels |= {"asks_px": "ask_prices", "asks_qty": "ask_quantities"}
    books = pd.read_parquet(shared_data / "um" / "depth_book1000_BTCUSDT.parquet")
    books = books.rename(columns=levels | {"seq": "last_update_id"})
    books["transact_time"] = pd.to_datetime(books.exch_ts_ms, unit="ms", utc=True)
    for column in levels.values():
        books[column] = books[column].map(lambda values: values[:20])
    books = books.sort_values("last_update_id", ignore_index=True).assign(market="um")
    columns = {
        "klines": [
            *("market", "symbol", "open_time", "open", "high", "low", "close", "volume"),
            *("quote_volume", "taker_buy_volume", "count"),
        ],
        "trades": [
            *("market", "symbol", "trade_id", "transact_time", "price", "quantity"),
            *("quote_quantity", "is_buyer_maker", "is_aggregate"),
        ],
        "books": ["market", "symbol", "last_update_id", "transact_time", *levels.values()],
    }
    given = {"klines": pd.concat(klines), "trades": pd.concat(trades), "books": books}
    tables = {
        name: rows[columns[name]].assign(
            exchange="binance",
            source="archive",
            received_at=pd.Timestamp("2026-08-01", tz="UTC"),
        )
        for name, rows in given.items()
    }
    tables["klines"] = tables["klines"].assign(interval="1m", is_closed=True)
    return tables


@pytest.fixture(scope="module")
def recorded_features(recorded: dict[str, pd.DataFrame], working: Path) -> Path:
    families = "+feat_ta +feat_orderflow +feat_microstructure"
    return built("recorded", recorded, select=families, working=working)


@pytest.mark.parametrize("symbol", ["XRPUSDT", "BNBUSDT"])
def test_recorded_bars_give_the_indicators_of_talib(recorded_features: Path, symbol: str) -> None:
    for run in runs(series(recorded_features, "feat_ta", symbol, 5)):
        actual = run.copy()
        actual.loc[actual.index[:17], "stoch_k_14_3"] = np.nan
        assert_equal(actual, technical_oracle(run), tolerance=1e-6)


def test_recorded_books_give_the_features_of_the_loop(
    recorded_features: Path, recorded: dict[str, pd.DataFrame]
) -> None:
    bars = series(recorded_features, "feat_orderflow", "BTCUSDT", 1)
    # Two books came twice.
    books = recorded["books"].drop_duplicates("last_update_id", ignore_index=True)
    assert len(books) == len(recorded["books"]) - 2
    assert_books_equal(bars, books, interval_minutes=1)


@pytest.mark.parametrize("interval_minutes", [1, 15])
def test_recorded_trades_give_the_microstructure_of_pandas(
    recorded_features: Path, recorded: dict[str, pd.DataFrame], interval_minutes: int
) -> None:
    bars = series(
        recorded_features, "feat_microstructure", "BTCUSDT", interval_minutes, market="spot"
    )
    trades = recorded["trades"][recorded["trades"].market == "spot"]
    assert_trades_equal(bars, trades, interval_minutes=interval_minutes)
    assert (~bars.is_gap).sum() >= 100 // interval_minutes
