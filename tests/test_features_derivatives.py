"""Funding, open interest, liquidations and basis against a loop over what had arrived."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bars_fixtures import KEY, SYMBOLS, Models, built, compiled, on_grid, random_bars

LIMITS = {"funding": 540, "open_interest": 20, "mark_prices": 5, "liquidations": 1440}
Series = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


def live_bars(*, bars: int, interval_minutes: int) -> pd.DataFrame:
    """Bars that became available up to three seconds after their close."""
    frame = random_bars(bars=bars, interval_minutes=interval_minutes)
    step = pd.Timedelta(minutes=interval_minutes)
    shift = frame.opened_at.min().ceil(step) - frame.opened_at.min()
    for column in ("opened_at", "closed_at", "available_at"):
        frame[column] += shift
    latency = np.random.default_rng(3).integers(0, 3000, len(frame))
    frame["available_at"] += pd.to_timedelta(latency, unit="ms").astype("timedelta64[us]")
    return frame


def arriving(frame: pd.DataFrame, event_at: str, generator: np.random.Generator) -> pd.DataFrame:
    """Every row known at once, soon after, or so late that others overtake it."""
    minutes = generator.choice([0, 0.01, 0.5, 15, 700], len(frame), p=[0.5, 0.2, 0.15, 0.1, 0.05])
    delay = pd.to_timedelta(minutes * 60_000, unit="ms").astype("timedelta64[us]")
    return frame.assign(exchange="binance", market="um", available_at=frame[event_at] + delay)


def random_series(bars: pd.DataFrame, *, seed: int = 0) -> Series:
    """Fundings with two missing, open interest, mark prices and liquidations with pauses."""
    generator = np.random.default_rng(seed)
    start, end = bars.opened_at.min().floor("D"), bars.closed_at.max()
    fundings, interests, marks = [], [], []
    for symbol in SYMBOLS:
        at = pd.date_range(start - pd.Timedelta(days=34), end, freq="8h", unit="us")
        rate = np.round(generator.normal(1e-4, 1e-4, len(at)), 8)
        rate[generator.uniform(size=len(at)) < 0.3] = 1e-4
        funding = pd.DataFrame({"symbol": symbol, "funding_rate": rate})
        funding["funded_at"] = at + pd.to_timedelta(generator.integers(0, 30, len(at)), unit="ms")
        fundings.append(funding.drop(index=[3, len(at) - 4]))
        at = pd.date_range(start, end, freq="5min", unit="us", name="measured_at")
        at = at[(at.hour != 3)]
        values = np.round(generator.uniform(1000, 2000, len(at)), 3)
        interests.append(
            pd.DataFrame({"symbol": symbol, "open_interest": values, "measured_at": at})
        )
        at = pd.date_range(start, end, freq="1min", unit="us") + pd.Timedelta(seconds=3)
        at = at[(at.hour != 5)]
        index = np.round(generator.uniform(990, 1010, len(at)), 2)
        mark = np.round(index * (1 + generator.normal(0, 1e-3, len(at))), 2)
        marks.append(
            pd.DataFrame(
                {"symbol": symbol, "mark_price": mark, "index_price": index, "marked_at": at}
            )
        )
    seconds = np.sort(generator.uniform(0, (end - start).total_seconds() * 0.5, 900)).round(3)
    forced = pd.DataFrame(
        {
            "symbol": generator.choice([*SYMBOLS, "SOLUSDT"], 900),
            "side": generator.choice(["BUY", "SELL"], 900),
            "liquidated_at": start + pd.to_timedelta(seconds, unit="s").astype("timedelta64[us]"),
            "price": np.round(generator.uniform(900, 1100, 900), 2),
            "average_price": np.round(generator.uniform(900, 1100, 900), 2),
            "original_quantity": np.round(generator.uniform(1, 2, 900), 3),
            "filled_accumulated_quantity": np.round(generator.uniform(0.5, 1, 900), 3),
        }
    )
    forced.loc[::7, "average_price"] = np.nan
    return {
        "stg_funding": arriving(pd.concat(fundings), "funded_at", generator),
        "stg_open_interest": arriving(pd.concat(interests), "measured_at", generator),
        "stg_mark_prices": arriving(pd.concat(marks), "marked_at", generator),
        "stg_liquidations": arriving(forced, "liquidated_at", generator),
    }


def known(rows: pd.DataFrame, event_at: str, moment: pd.Timestamp, minutes: float) -> pd.DataFrame:
    """What had arrived by a moment, oldest event first; empty where the latest is stale."""
    arrived = rows[rows.available_at <= moment].sort_values(event_at)
    fresh = len(arrived) and moment - arrived[event_at].iloc[-1] <= pd.Timedelta(minutes=minutes)
    return arrived if fresh else arrived.iloc[:0]


def funding_features(known_fundings: pd.DataFrame) -> dict[str, float]:
    if known_fundings.empty:
        return {}
    rates = known_fundings.set_index(known_fundings.funded_at.dt.floor("h")).funding_rate
    last, latest = rates.index[-1], rates.iloc[-1]

    def of_last(count: int) -> pd.Series:
        times = pd.date_range(end=last, periods=count, freq="8h")
        return rates.reindex(times)

    month = of_last(90)
    lower, upper = np.nan, np.nan
    if month.notna().all():
        lower, upper = np.quantile(month, [0.1, 0.9], method="inverted_cdf")
    regime = float(latest > upper) - float(latest < lower)
    return {
        "funding_rate": latest,
        "funding_rate_change": of_last(2).diff().iloc[-1],
        "funding_rate_ma_24h": of_last(3).mean(skipna=False),
        "funding_regime": regime if month.notna().all() else np.nan,
    }


def oracle(bars: pd.DataFrame, series: Series) -> pd.DataFrame:
    """Every feature of every bar from the rows that had arrived when the bar did."""
    rows = []
    by_symbol = {
        symbol: {name: frame[frame.symbol == symbol] for name, frame in series.items()}
        for symbol in SYMBOLS
    }
    before = {}
    for bar in bars.itertuples():
        if bar.is_gap:
            continue
        own, moment = by_symbol[bar.symbol], bar.available_at
        row = {name: getattr(bar, name) for name in KEY}
        row |= funding_features(known(own["stg_funding"], "funded_at", moment, LIMITS["funding"]))
        interests = known(
            own["stg_open_interest"], "measured_at", moment, LIMITS["open_interest"]
        ).open_interest
        row["open_interest"] = interests.iloc[-1] if len(interests) else np.nan
        previous = before.get((bar.symbol, bar.opened_at), np.nan)
        row["oi_change"] = row["open_interest"] - previous
        row["oi_change_pct"] = row["oi_change"] / previous * 100
        before[bar.symbol, bar.closed_at] = row["open_interest"]
        marks = known(own["stg_mark_prices"], "marked_at", moment, LIMITS["mark_prices"])
        row["basis"] = (marks.mark_price / marks.index_price - 1).iloc[-1] if len(marks) else np.nan
        any_symbol = series["stg_liquidations"]
        if len(known(any_symbol, "liquidated_at", moment, LIMITS["liquidations"])):
            row |= liquidation_features(own["stg_liquidations"], bar)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(KEY).reset_index(drop=True)


def liquidation_features(forced: pd.DataFrame, bar) -> dict[str, float]:  # type: ignore[no-untyped-def]
    inside = forced[
        (forced.liquidated_at >= bar.opened_at)
        & (forced.liquidated_at < bar.closed_at)
        & (forced.available_at <= bar.available_at)
    ]
    price = inside.average_price.fillna(inside.price)
    notional = price * inside.filled_accumulated_quantity
    longs, shorts = notional[inside.side == "SELL"].sum(), notional[inside.side == "BUY"].sum()
    total = longs + shorts
    return {
        "liquidations_long": longs,
        "liquidations_short": shorts,
        "liquidation_ratio": longs / total if total else np.nan,
    }


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    features = [name for name in actual if name not in [*KEY, "available_at"]]
    assert sorted(features) == sorted(set(expected) - set(KEY))
    pd.testing.assert_frame_equal(actual[KEY], expected[KEY], check_dtype=False)
    for name in features:
        np.testing.assert_allclose(
            actual[name].to_numpy(dtype=float, na_value=np.nan),
            expected[name].to_numpy(dtype=float),
            rtol=1e-9,
            atol=1e-12,
            err_msg=name,
        )


@pytest.mark.parametrize(("bars", "interval_minutes"), [(350, 5), (240, 60)])
def test_features_equal_a_loop_over_what_had_arrived(
    models: Models, bars: int, interval_minutes: int
) -> None:
    frame = live_bars(bars=bars, interval_minutes=interval_minutes)
    series = random_series(frame)
    actual = built(models, "feat_derivatives", {"int_bars": frame, **series})
    expected = oracle(frame, series)
    assert_equal(actual, expected)
    unknown = actual.drop(columns=[*KEY, "available_at"]).isna().mean()
    assert (unknown > 0).all()
    assert (unknown < 0.95).all()
    if interval_minutes == 60:
        assert set(actual.funding_regime.dropna()) == {-1, 0, 1}


def test_rows_that_arrive_later_change_no_feature_of_an_earlier_bar(models: Models) -> None:
    bars = live_bars(bars=700, interval_minutes=5)
    series = random_series(bars)
    whole = built(models, "feat_derivatives", {"int_bars": bars, **series})
    for share in (0.3, 0.5, 0.8):
        cut = bars.available_at.quantile(share)
        arrived = {name: frame[frame.available_at <= cut] for name, frame in series.items()}
        past = bars[bars.available_at <= cut]
        part = built(models, "feat_derivatives", {"int_bars": past, **arrived})
        expected = whole[whole.available_at <= cut].reset_index(drop=True)
        assert part.symbol.unique().tolist() == SYMBOLS
        pd.testing.assert_frame_equal(part, expected, check_exact=True, check_dtype=False)


def test_older_rows_than_the_declared_reach_change_no_bit(models: Models) -> None:
    bars = live_bars(bars=700, interval_minutes=5)
    series = random_series(bars)
    whole = built(models, "feat_derivatives", {"int_bars": bars, **series})
    start = bars.opened_at.min() + pd.Timedelta(hours=30)
    clock = {
        "stg_funding": ("funded_at", 90 * 480 + LIMITS["funding"]),
        "stg_open_interest": ("measured_at", 5 + LIMITS["open_interest"]),
        "stg_mark_prices": ("marked_at", LIMITS["mark_prices"]),
        "stg_liquidations": ("liquidated_at", LIMITS["liquidations"]),
    }
    recent = {
        name: series[name][series[name][event_at] >= start - pd.Timedelta(minutes=minutes)]
        for name, (event_at, minutes) in clock.items()
    }
    lookback = models["feat_derivatives"]["config"]["meta"]["lookback_bars"]
    later = bars[bars.opened_at >= start - pd.Timedelta(minutes=5 * lookback)]
    part = built(models, "feat_derivatives", {"int_bars": later, **recent})
    expected = whole[whole.opened_at >= start].reset_index(drop=True)
    actual = part[part.opened_at >= start].reset_index(drop=True)
    assert len(actual) > 300
    pd.testing.assert_frame_equal(actual, expected, check_exact=True, check_dtype=False)


def test_without_rows_every_feature_is_null(models: Models) -> None:
    bars = live_bars(bars=50, interval_minutes=5)
    empty = {name: frame.iloc[:0] for name, frame in random_series(bars).items()}
    actual = built(models, "feat_derivatives", {"int_bars": bars, **empty})
    assert len(actual) == (~bars.is_gap).sum()
    assert actual.drop(columns=[*KEY, "available_at"]).notna().sum().sum() == 0


def test_recorded_fundings_and_open_interest_equal_the_loop(
    models: Models, shared_data: Path
) -> None:
    fundings, interests = [], []
    for symbol in SYMBOLS:
        rows = pd.read_parquet(shared_data / "um" / f"funding_{symbol}.parquet").tail(400)
        fundings.append(
            rows[["symbol", "funding_rate"]].assign(funded_at=instant(rows.funding_time))
        )
        rows = pd.read_parquet(shared_data / "um" / f"open_interest_{symbol}_5m.parquet")
        interests.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "open_interest": rows.sum_open_interest,
                    "measured_at": instant(rows.create_time),
                }
            )
        )
    end = min(frame.funded_at.max() for frame in fundings)
    end = min(end, *(frame.measured_at.max() for frame in interests))
    times = pd.date_range(end=end.floor("h"), periods=300, freq="1h", unit="us", name="opened_at")
    prices = pd.DataFrame({"close_price": 1.0}, index=times)
    bars = pd.concat(on_grid(prices, symbol=symbol, interval_minutes=60) for symbol in SYMBOLS)
    series = {name: frame.iloc[:0] for name, frame in random_series(bars).items()}
    series["stg_funding"] = on_time(pd.concat(fundings), "funded_at")
    series["stg_open_interest"] = on_time(pd.concat(interests), "measured_at")
    actual = built(models, "feat_derivatives", {"int_bars": bars, **series})
    expected = oracle(bars, series).assign(
        liquidations_long=np.nan, liquidations_short=np.nan, liquidation_ratio=np.nan
    )
    assert_equal(actual, expected)
    assert actual.funding_regime.notna().mean() > 0.9
    assert actual.oi_change.notna().mean() > 0.9


def instant(milliseconds: pd.Series) -> pd.Series:
    return pd.to_datetime(milliseconds, unit="ms").astype("datetime64[us]")


def on_time(frame: pd.DataFrame, event_at: str) -> pd.DataFrame:
    return frame.assign(exchange="binance", market="um", available_at=frame[event_at])
