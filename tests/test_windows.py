"""How far each feature looks back and each label looks ahead, compared with what its `.yml` says.

Copies of one market without gaps differ in a single bar. The rows in which a copy differs from the
original tell which bars a column depends on, to the last bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.bars_fixtures import KEY, SYMBOLS, Models, built_together, compiled

INTERVAL_MINUTES = 15
BARS = 2950
START = pd.Timestamp("2025-02-01")
STEP = pd.Timedelta(minutes=INTERVAL_MINUTES)
ORIGINAL = "original"
#: The bars that differ; the first is the first of a UTC day.
CHANGED_BARS = (192, 250, 340)
#: After one of them the book is carried on until it is stale.
BARS_WITHOUT_BOOKS = (251, 252)
CHANGES = {"dearer": (1.2, 1.0), "cheaper": (0.8, 3.0), "busier": (1.001, 9.0)}
COPIES = {f"{name} {bar}": (bar, *CHANGES[name]) for bar in CHANGED_BARS for name in CHANGES}
EXCHANGES = [ORIGINAL, *COPIES]
PRICES = ["open_price", "high_price", "low_price", "close_price"]
#: VPIN comes from 1-minute bars and is proved with them in test_features_trades.
UNPROVED = {"vpin"}
#: The limit of a day shows only in bars with a trade between the old one and the new; a flow looks
#: back further than a bar only where books are missing.
SELDOM_SEEN = {
    *(f"feat_microstructure.large_trade_{name}" for name in ("count", "count_rel", "ratio")),
    *(f"feat_orderflow.ofi_{name}" for name in ("1", "1_rel", "5", "5_rel")),
}


def original_bars() -> pd.DataFrame:
    """Bars around one price, so that a barrier is seldom passed before the bar that differs."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(seed)
        close = 1000 * (1 + generator.uniform(-2e-4, 2e-4, BARS))
        opened = np.concatenate([[1000.0], close[:-1]])
        spread = generator.exponential(0.02, (2, BARS))
        volume = np.round(generator.exponential(10.0, BARS) + 1, 3)
        opened_at = pd.date_range(START, periods=BARS, freq=STEP, unit="us")
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "opened_at": opened_at,
                    "closed_at": opened_at + STEP,
                    "available_at": opened_at + STEP,
                    "open_price": opened,
                    "high_price": np.maximum(opened, close) + spread[0],
                    "low_price": np.minimum(opened, close) - spread[1],
                    "close_price": close,
                    "volume": volume,
                    "quote_volume": np.round(volume * (opened + close) / 2, 4),
                    "trade_count": generator.integers(1, 100, BARS),
                    "taker_buy_volume": np.round(volume * generator.uniform(0, 1, BARS), 3),
                    "bars_in_run": np.arange(1, BARS + 1, dtype="int32"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True).assign(
        market="um", interval_minutes=np.int32(INTERVAL_MINUTES), is_gap=False
    )


def original_trades() -> pd.DataFrame:
    """Six trades in the second minute of every bar."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(10 + seed)
        count = 6 * BARS
        opened_at = START + STEP * np.repeat(np.arange(BARS), 6)
        seconds = pd.to_timedelta(60 + np.tile(np.arange(6) * 7, BARS), unit="s")
        price = np.round(1000 * (1 + generator.uniform(-2e-4, 2e-4, count)), 2)
        quantity = np.round(generator.exponential(1.0, count), 3) + 0.001
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "opened_at": opened_at,
                    "traded_at": (opened_at + seconds).astype("datetime64[us]"),
                    "trade_id": np.arange(count),
                    "price": price,
                    "quantity": quantity,
                    "quote_quantity": np.round(price * quantity, 4),
                    "is_buyer_maker": generator.uniform(size=count) < 0.5,
                }
            )
        )
    trades = pd.concat(frames, ignore_index=True)
    return trades.assign(
        market="um",
        is_aggregate=False,
        available_at=trades.traded_at,
        traded_on=trades.traded_at.dt.floor("D"),
    )


def original_books() -> pd.DataFrame:
    """Two books of 50 levels in each of the first 400 bars but two."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(20 + seed)
        count = 2 * 400
        opened_at = START + STEP * np.repeat(np.arange(400), 2)
        seconds = pd.to_timedelta(np.tile([100, 500], 400), unit="s")
        best = np.round(1000 + generator.choice([-0.1, 0.0, 0.1], count), 1)
        steps = np.round(generator.integers(1, 4, (2, count, 50)).cumsum(axis=2) * 0.1, 1)
        quantities = np.round(generator.exponential(5.0, (2, count, 50)), 3) + 0.001
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "opened_at": opened_at,
                    "snapshot_at": (opened_at + seconds).astype("datetime64[us]"),
                    "last_update_id": np.arange(count),
                    "bid_prices": list(np.round(best[:, None] + 0.1 - steps[0], 1)),
                    "bid_quantities": list(quantities[0]),
                    "ask_prices": list(np.round(best[:, None] + steps[1], 1)),
                    "ask_quantities": list(quantities[1]),
                }
            )
        )
    books = pd.concat(frames, ignore_index=True)
    books = books[~books.opened_at.isin(START + STEP * np.array(BARS_WITHOUT_BOOKS))]
    return books.assign(
        market="um",
        available_at=books.snapshot_at,
        snapshot_on=books.snapshot_at.dt.floor("D"),
    )


def copies(original: pd.DataFrame, change: Any) -> pd.DataFrame:
    """The original and the copies, in each of which `change` altered the rows of one bar."""
    frames = [original.assign(exchange=ORIGINAL)]
    for exchange, (bar, price, volume) in COPIES.items():
        copy = original.assign(exchange=exchange)
        own = copy.opened_at == START + bar * STEP
        copy[own] = change(copy[own], price, volume)
        frames.append(copy)
    return pd.concat(frames, ignore_index=True)


def change_bars(bars: pd.DataFrame, price: float, volume: float) -> pd.DataFrame:
    quantities = ["volume", "quote_volume", "taker_buy_volume"]
    return bars.assign(
        **{name: bars[name] * price for name in PRICES},
        **{name: bars[name] * volume for name in quantities},
    )


def change_trades(trades: pd.DataFrame, price: float, volume: float) -> pd.DataFrame:
    is_last = trades.trade_id % 6 == 5
    prices = trades.price.where(~is_last, np.round(trades.price * price, 2))
    quantity = trades.quantity.where(is_last, trades.quantity * volume + 0.001)
    return trades.assign(
        price=prices,
        quantity=quantity,
        quote_quantity=np.round(prices * quantity, 4),
        is_buyer_maker=volume > 1,
    )


def change_books(books: pd.DataFrame, price: float, volume: float) -> pd.DataFrame:
    return books.assign(
        ask_prices=books.ask_prices * (price + 0.3),
        bid_quantities=[
            quantities * (1 + volume * np.arange(1, 51) ** 2) for quantities in books.bid_quantities
        ],
        ask_quantities=[
            quantities * (1 + np.arange(1, 51) ** 3) for quantities in books.ask_quantities
        ],
    )


def every(minutes: int, event_at: str, **columns: Any) -> pd.DataFrame:
    """Events known at once, from 40 days before the bars until after them."""
    at = pd.date_range(
        START - pd.Timedelta(days=40), START + BARS * STEP, freq=f"{minutes}min", unit="us"
    )
    return pd.DataFrame({event_at: at, "available_at": at, **columns})


def of_every_symbol(events: pd.DataFrame) -> pd.DataFrame:
    return events.merge(pd.DataFrame({"symbol": SYMBOLS}), how="cross").merge(
        pd.DataFrame({"exchange": EXCHANGES, "market": "um"}), how="cross"
    )


def slower_series() -> dict[str, pd.DataFrame]:
    """Fundings, open interest, marks, forced orders, indices, headlines and fits: never stale."""
    macro = every(15, "closed_at", close_value=100.0).merge(
        pd.DataFrame({"series": ["spx", "dxy", "gold", "vix"]}), how="cross"
    )
    forced = every(
        15, "liquidated_at", price=10.0, average_price=10.0, original_quantity=1.0
    ).assign(filled_accumulated_quantity=1.0)
    sides = pd.DataFrame({"side": ["BUY", "SELL"]})
    news = every(60, "published_at", provider="wire")
    news["news_id"] = np.arange(len(news)).astype(str)
    fits = every(14400, "fitted_until", omega=1e-9, alpha=0.1, beta=0.8)
    return {
        "stg_funding": of_every_symbol(every(480, "funded_at", funding_rate=1e-4)),
        "stg_open_interest": of_every_symbol(every(5, "measured_at", open_interest=50.0)),
        "stg_mark_prices": of_every_symbol(
            every(5, "marked_at", mark_price=101.0, index_price=100.0)
        ),
        "stg_liquidations": of_every_symbol(forced.merge(sides, how="cross")),
        "stg_macro_bars": macro,
        "stg_news": news,
        "stg_news_scores": news.assign(scorer="vader", score=0.5),
        "stg_garch_parameters": of_every_symbol(
            fits.assign(interval_minutes=np.int32(INTERVAL_MINUTES))
        ),
    }


def no_gaps() -> pd.DataFrame:
    """No moment in which a recorder lost its book."""
    return of_every_symbol(every(15, "gap_at")).head(0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


@pytest.fixture(scope="module")
def tables(models: Models) -> dict[str, dict[str, np.ndarray]]:
    """Of each model each column's values as integers, by copy, symbol and bar; -1 is NULL."""
    given = slower_series() | {
        "int_bars": copies(original_bars(), change_bars),
        "stg_trades": copies(original_trades(), change_trades),
        "stg_books": copies(original_books(), change_books),
        "stg_book_gaps": no_gaps(),
    }
    names = [name for name in models if name.startswith(("feat_", "lbl_"))]
    return {name: coded(frame) for name, frame in built_together(models, names, given).items()}


def coded(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    order = frame.exchange.map(EXCHANGES.index)
    rows = frame.assign(order=order).sort_values(["order", "symbol", "opened_at"])
    shape = (len(EXCHANGES), len(SYMBOLS), BARS)
    return {
        name: np.where(rows[name].isna(), -1, pd.factorize(rows[name])[0]).reshape(shape)
        for name in frame.columns
        if name not in {*KEY, "available_at"}
    }


@dataclass(frozen=True)
class Span:
    """The bars that a column was seen to depend on, its own among them."""

    changed_by: int
    changes_ahead_of: int
    first_known: int
    unknown_at_the_end: int


def span(values: np.ndarray) -> Span:
    """How far a bar that differs is seen, and where the first and last values are."""
    seen = [
        np.flatnonzero((values[number] != values[0]).any(axis=0)) - bar
        for number, (bar, *_) in enumerate(COPIES.values(), start=1)
    ]
    offsets = np.concatenate(seen)
    known = np.flatnonzero((values[0] >= 0).any(axis=0))
    return Span(
        changed_by=int(offsets.max(initial=-1)) + 1,
        changes_ahead_of=-int(offsets.min(initial=0)),
        first_known=int(known[0]) + 1,
        unknown_at_the_end=int(BARS - 1 - known[-1]),
    )


@pytest.fixture(scope="module")
def spans(
    models: Models, tables: dict[str, dict[str, np.ndarray]]
) -> dict[str, tuple[dict[str, Any], Span]]:
    """What each column of a feature or label declares, and what was seen."""
    return {
        f"{name}.{column}": (models[name]["columns"][column]["config"]["meta"], span(values))
        for name, columns in tables.items()
        for column, values in columns.items()
        if column not in UNPROVED
    }


def window_bars(meta: dict[str, Any]) -> int:
    """The declared window in bars; one that never ends is as long as the table."""
    if meta.get("is_unbounded"):
        return BARS
    return meta.get("window_minutes", 0) // INTERVAL_MINUTES or meta.get("window_bars", 0)


def test_no_bar_before_its_window_changes_a_value(
    spans: dict[str, tuple[dict[str, Any], Span]],
) -> None:
    wrong = [
        f"{column} declares {window_bars(meta)} bars, {seen.changed_by} bars change it"
        for column, (meta, seen) in spans.items()
        if seen.changed_by > window_bars(meta)
    ]
    assert wrong == []


def test_the_oldest_bar_of_its_window_changes_a_value_or_makes_it_known(
    spans: dict[str, tuple[dict[str, Any], Span]],
) -> None:
    wrong = [
        f"{column} declares {window_bars(meta)} bars, {seen.changed_by} bars change it, "
        f"{seen.first_known} make it known"
        for column, (meta, seen) in spans.items()
        if not meta.get("is_unbounded")
        and column not in SELDOM_SEEN
        and window_bars(meta) not in (seen.changed_by, seen.first_known)
    ]
    assert wrong == []


def test_a_feature_looks_at_no_later_bar_and_a_label_as_far_as_its_horizon(
    spans: dict[str, tuple[dict[str, Any], Span]],
) -> None:
    wrong = [
        f"{column} declares a horizon of {meta.get('horizon_bars', 0)} bars: {seen}"
        for column, (meta, seen) in spans.items()
        if seen.changes_ahead_of > meta.get("horizon_bars", 0)
        or meta.get("horizon_bars", 0) not in (seen.changes_ahead_of, seen.unknown_at_the_end)
    ]
    assert wrong == []


def test_the_oldest_bar_of_all_changes_a_value_without_a_window(
    spans: dict[str, tuple[dict[str, Any], Span]],
) -> None:
    unbounded = {name: seen for name, (meta, seen) in spans.items() if meta.get("is_unbounded")}
    assert list(unbounded) == ["feat_ta.close_volume_obv"]
    assert all(seen.changed_by == BARS - CHANGED_BARS[0] for seen in unbounded.values())
