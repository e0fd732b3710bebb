"""The synthetic market: deterministic, consistent, and predictable only by its planted edge."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.simulator import Market, write_books
from ingest.simulator.books import ladders
from ingest.simulator.source import DAY, MINUTE, SECOND, Columns, microseconds

START = microseconds(datetime(2024, 12, 10, tzinfo=UTC))


def small_market(seed: int = 5, edge: float = 0.5) -> Market:
    return Market(seed, ["BTCUSDT", "XRPUSDT"], days=3, edge=edge)


def day_of(market: Market, kind: str, symbol: str, day: int) -> list[Columns]:
    start, end = START + day * DAY, START + (day + 1) * DAY
    return [
        market.klines(kind, symbol, "1m", start, end, now=end),
        market.trades(kind, symbol, start, end),
        market.aggregate_trades(kind, symbol, start, end),
        market.funding(symbol, start, end),
        market.open_interest(symbol, start, end),
        market.liquidations(symbol, start, end),
    ]


def as_lists(tables: list[Columns]) -> list[dict[str, list[object]]]:
    return [{name: values.tolist() for name, values in table.items()} for table in tables]


def test_the_same_seed_gives_the_same_market_in_any_order_of_access() -> None:
    forwards, backwards = small_market(), small_market()
    first = {day: as_lists(day_of(forwards, "um", "XRPUSDT", day)) for day in (0, 1, 2)}
    second = {day: as_lists(day_of(backwards, "um", "XRPUSDT", day)) for day in (2, 1, 0)}
    assert first == second


def test_a_symbol_does_not_depend_on_which_others_are_traded() -> None:
    alone = Market(5, ["XRPUSDT"], days=3, edge=0.5)
    assert as_lists(day_of(alone, "um", "XRPUSDT", 1)) == as_lists(
        day_of(small_market(), "um", "XRPUSDT", 1)
    )


def test_another_seed_gives_another_market() -> None:
    assert as_lists(day_of(small_market(5), "um", "BTCUSDT", 0)) != as_lists(
        day_of(small_market(6), "um", "BTCUSDT", 0)
    )


def slow_candles(
    trades: Columns, width: int, opened: list[int], before: float
) -> list[list[float]]:
    """Aggregate trades to candles one by one."""
    candles = []
    for open_time in opened:
        inside = (trades["time"] >= open_time) & (trades["time"] < open_time + width)
        prices, quantities = trades["price"][inside], trades["qty"][inside]
        quotes, bought = trades["quote_qty"][inside], ~trades["is_buyer_maker"][inside]
        if not len(prices):
            candles.append([before] * 4 + [0.0] * 5)
            continue
        candles.append(
            [
                *(prices[0], prices.max(), prices.min(), prices[-1], quantities.sum()),
                *(quotes.sum(), len(prices), quantities[bought].sum(), quotes[bought].sum()),
            ]
        )
        before = prices[-1]
    return candles


@pytest.mark.parametrize("kind", ["spot", "um"])
@pytest.mark.parametrize("interval", ["1m", "5m", "1h"])
def test_candles_are_the_aggregates_of_their_trades(kind: str, interval: str) -> None:
    market = small_market()
    start, end = START + DAY, START + 2 * DAY
    candles = market.klines(kind, "BTCUSDT", interval, start, end, now=end)
    trades = market.trades(kind, "BTCUSDT", START, end)
    before = float(trades["price"][trades["time"] < start][-1])
    width = int(candles["open_time"][1] - candles["open_time"][0])
    expected = slow_candles(trades, width, candles["open_time"].tolist(), before)
    names = ("open", "high", "low", "close", "volume", "quote_volume", "count")
    found = np.column_stack(
        [candles[name] for name in (*names, "taker_buy_volume", "taker_buy_quote_volume")]
    )
    assert candles["open_time"].tolist() == list(range(start, end, width))
    assert found[:, :4].tolist() == [row[:4] for row in expected]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


def test_minutes_without_trades_exist_and_repeat_the_close() -> None:
    candles = small_market().klines("um", "BTCUSDT", "1m", START, START + DAY, now=START + DAY)
    silent = np.flatnonzero(candles["count"] == 0)[1:]
    assert 5 < len(silent) < 100
    for name in ("open", "high", "low", "close"):
        assert candles[name][silent].tolist() == candles["close"][silent - 1].tolist()
    assert not candles["volume"][silent].any()


def test_aggregate_trades_sum_up_trades_with_ids_free_of_gaps() -> None:
    market = small_market()
    trades = market.trades("spot", "BTCUSDT", START, START + 2 * DAY)
    merged = market.aggregate_trades("spot", "BTCUSDT", START, START + 2 * DAY)
    assert np.unique(np.diff(trades["id"])).tolist() == [1]
    assert np.unique(np.diff(merged["agg_trade_id"])).tolist() == [1]
    order = np.searchsorted(merged["first_trade_id"], trades["id"], side="right") - 1
    assert trades["price"].tolist() == merged["price"][order].tolist()
    assert trades["is_buyer_maker"].tolist() == merged["is_buyer_maker"][order].tolist()
    sums = np.bincount(order, weights=trades["qty"])
    np.testing.assert_allclose(sums, merged["quantity"], rtol=1e-12)
    assert (trades["qty"] > 0).all()


@pytest.mark.parametrize("kind", ["spot", "um"])
def test_books_are_ordered_deep_and_positive(kind: str) -> None:
    times = START + np.arange(0, DAY, 7 * SECOND)
    bids, bid_quantities, asks, ask_quantities = ladders(small_market(), kind, "XRPUSDT", times)
    assert bids.shape == (len(times), 25)
    assert (bids[:, 0] < asks[:, 0]).all()
    assert (np.diff(bids) < 0).all()
    assert (np.diff(asks) > 0).all()
    assert (bid_quantities > 0).all()
    assert (ask_quantities > 0).all()


def test_trades_hit_the_best_price_of_the_book_on_the_takers_side() -> None:
    market = small_market()
    orders = market.orders("um", "BTCUSDT", START // DAY)
    bids, _ = market.quotes("um", "BTCUSDT", orders.time)
    alone = np.concatenate([np.diff(orders.time) > 0, [True]])
    trades = market.aggregate_trades("um", "BTCUSDT", START, START + DAY)
    ticks = np.rint(trades["price"] * 10).astype(int)
    expected = np.where(trades["is_buyer_maker"], bids, bids + 1)
    assert ticks[alone].tolist() == expected[alone].tolist()


def test_book_files_hold_what_the_exchange_answers(tmp_path: Path) -> None:
    market = small_market()
    path = write_books(market, "um", "BTCUSDT", date(2024, 12, 11), tmp_path)
    rows = pq.read_table(path).to_pylist()
    assert path == tmp_path / "um" / "depth_book20_BTCUSDT_2024-12-11.parquet"
    assert [row["exch_ts_ms"] for row in rows] == [
        (START + DAY + minute * MINUTE + 59 * SECOND) // 1000 for minute in range(1440)
    ]
    book = market.book("um", "BTCUSDT", rows[700]["exch_ts_ms"] * 1000)
    assert rows[700]["seq"] == book.update_id
    assert rows[700]["bids_px"] == book.bid_prices[:20].tolist()
    assert rows[700]["asks_qty"] == book.ask_quantities[:20].tolist()


def test_funding_comes_every_eight_hours_and_open_interest_every_five_minutes() -> None:
    market = small_market()
    funding = market.funding("BTCUSDT", START, START + DAY)
    interest = market.open_interest("BTCUSDT", START, START + DAY)
    assert ((funding["calc_time"] - START) // MINUTE).tolist() == [0, 480, 960]
    assert ((interest["create_time"] - START) // MINUTE).tolist() == list(range(0, 1440, 5))


def test_forced_orders_follow_strong_moves_on_the_losing_side() -> None:
    market = Market(5, ["SOLUSDT"], days=10)
    end = START + 10 * DAY
    forced = market.liquidations("SOLUSDT", START, end)
    close = market.klines("um", "SOLUSDT", "1m", START, end, now=end)["close"]
    minute = (forced["time"] - START) // MINUTE
    fell = close[minute - 1] < close[minute - 2]
    assert len(minute) > 20
    assert np.where(fell, "SELL", "BUY").tolist() == forced["side"].tolist()


def test_volatility_clusters_and_symbols_move_together() -> None:
    market = Market(3, days=10)
    end = START + 10 * DAY
    returns = np.array(
        [
            np.diff(np.log(market.klines("um", symbol, "5m", START, end, now=end)["close"]))
            for symbol in market.instruments("um")
        ]
    )
    size = np.abs(returns[0])
    correlations = np.corrcoef(returns)[np.triu_indices(5, 1)]
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.15
    assert correlations.min() > 0.3
    assert 12e-4 < returns[0].std() < 20e-4


def forecasts(seed: int, edge: float) -> tuple[float, float]:
    """Return out-of-sample correlation with, and size in bps of, a linear forecast.

    The forecast of the return over the next five 5-minute bars uses what a bar shows at its
    close: imbalance of the book and of the takers, and its own return. It is fitted on the first
    half of 30 days of all symbols and judged on the second.
    """
    market = Market(seed, edge=edge)
    end = START + 30 * DAY
    halves: list[list[np.ndarray]] = [[], []]
    for symbol in market.instruments("um"):
        candles = market.klines("um", symbol, "5m", START, end, now=end)
        log_close = np.log(candles["close"])
        times = candles["open_time"] + 4 * MINUTE + 59 * SECOND
        depth = np.concatenate(
            [
                np.column_stack([side.sum(axis=1) for side in (book[1], book[3])])
                for book in (ladders(market, "um", symbol, day) for day in np.split(times, 30))
            ]
        )
        book_imbalance = (depth[:, 0] - depth[:, 1]) / depth.sum(axis=1)
        taken = candles["taker_buy_volume"] / np.maximum(candles["volume"], 1e-9) * 2.0 - 1.0
        own = np.concatenate([[0.0], np.diff(log_close)]) * 1e3
        rows = np.column_stack(
            [book_imbalance, taken, own, np.ones(len(own)), np.roll(log_close, -5) - log_close]
        )[1:-5]
        for half, part in zip(halves, np.array_split(rows, 2), strict=True):
            half.append(part)
    train, test = (np.concatenate(half) for half in halves)
    weights = np.linalg.lstsq(train[:, :-1], train[:, -1], rcond=None)[0]
    forecast = test[:, :-1] @ weights
    return float(np.corrcoef(forecast, test[:, -1])[0, 1]), float(forecast.std() * 1e4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_an_edge_nothing_predicts_returns(seed: int) -> None:
    correlation, _ = forecasts(seed, 0.0)
    # 21,600 overlapping rows of five correlated symbols: about 1,500 independent ones.
    assert abs(correlation) < 0.08


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_strong_edge_is_worth_more_than_costs(seed: int) -> None:
    correlation, size = forecasts(seed, 1.0)
    assert correlation > 0.3
    assert 15.0 < size < 40.0
    half_correlation, half_size = forecasts(seed, 0.5)
    assert 0.12 < half_correlation < correlation
    assert half_size < size


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="midnight UTC"):
        Market(1, start=datetime(2024, 12, 10, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="edge from 0 to 1, found 2"):
        Market(1, edge=2.0)
    with pytest.raises(ValueError, match="quoted in USDT"):
        Market(1, symbols=["ETHBTC"])
