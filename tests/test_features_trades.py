"""Large trades, volume buckets, the day's delta and usual volumes against plain loops."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.bars_fixtures import KEY, SYMBOLS, Models, built, built_together, compiled, on_grid

DAYS = 8
START = pd.Timestamp("2025-02-26 05:00")
DAY = pd.Timedelta(days=1)
BUCKETS = 50
TABLES = ["feat_microstructure", "int_trade_bars"]


def minute_bars(*, days: int = DAYS) -> pd.DataFrame:
    """One-minute bars; the second symbol has a hole of three minutes on its fifth day."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(seed)
        count = days * 1440
        index = pd.date_range(START, periods=count, freq="min", name="opened_at", unit="us")
        volume = np.round(generator.exponential(10.0, count), 3)
        volume[generator.uniform(size=count) < 0.05] = 0.0
        # One minute as large as the day before, and a quiet day.
        volume[3 * 1440 + 77] = volume[2 * 1440 : 3 * 1440].sum().round(3)
        volume[5 * 1440 : 6 * 1440] = np.round(volume[5 * 1440 : 6 * 1440] * 0.6, 3)
        close = np.round(1000 + generator.normal(0, 1, count).cumsum(), 1)
        reported = pd.DataFrame(
            {
                "close_price": close,
                "volume": volume,
                "quote_volume": np.round(volume * close, 4),
                "trade_count": generator.integers(1, 100, count),
                "taker_buy_volume": np.round(volume * generator.beta(2, 2, count), 3),
            },
            index=index,
        )
        if seed == 1:
            reported = reported.drop(index=reported.index[5 * 1440 : 5 * 1440 + 3])
        frames.append(on_grid(reported, symbol=symbol, interval_minutes=1))
    return pd.concat(frames, ignore_index=True)


def hour_bars(minutes: pd.DataFrame) -> pd.DataFrame:
    """Bars of an hour from complete hours of minutes."""
    frames = []
    for symbol, rows in minutes.groupby("symbol"):
        grouped = rows.groupby(rows.opened_at.dt.floor("h"))
        sums = ["volume", "quote_volume", "trade_count", "taker_buy_volume"]
        hours = grouped[sums].sum().round(4).assign(close_price=grouped.close_price.last())
        whole = hours[grouped.is_gap.any() == False]  # noqa: E712
        whole.index = whole.index.astype("datetime64[us]").rename("opened_at")
        frames.append(on_grid(whole, symbol=str(symbol), interval_minutes=60))
    return pd.concat(frames, ignore_index=True)


def trades() -> pd.DataFrame:
    """Three trades a minute, none in every fortieth one."""
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(10 + seed)
        count = 3 * DAYS * 1440
        seconds = np.arange(count) * 20.0 + generator.uniform(0, 19, count).round(3)
        price = np.round(1000 + generator.normal(0, 0.5, count).cumsum(), 1)
        quantity = np.round(np.exp(generator.normal(0, 1.5, count)), 3) + 0.001
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "trade_id": np.arange(count),
                    "traded_at": START + pd.to_timedelta(seconds, unit="s").astype("m8[us]"),
                    "price": price,
                    "quantity": quantity,
                    "quote_quantity": np.round(price * quantity, 4),
                    "is_buyer_maker": generator.uniform(size=count) < 0.5,
                }
            )[(seconds // 60) % 40 != 7]
        )
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(
        exchange="binance",
        market="um",
        is_aggregate=False,
        available_at=rows.traded_at,
        traded_on=rows.traded_at.dt.floor("D"),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


@pytest.fixture(scope="module")
def given() -> dict[str, pd.DataFrame]:
    minutes = minute_bars()
    bars = pd.concat([minutes, hour_bars(minutes)], ignore_index=True)
    return {"int_bars": bars, "stg_trades": trades()}


@pytest.fixture(scope="module")
def tables(models: Models, given: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return built_together(models, TABLES, given)


def features(tables: dict[str, pd.DataFrame], symbol: str, interval_minutes: int) -> pd.DataFrame:
    rows = tables["feat_microstructure"]
    own = rows[(rows.symbol == symbol) & (rows.interval_minutes == interval_minutes)]
    return own.set_index("opened_at")


def vpin_oracle(minutes: pd.DataFrame) -> pd.DataFrame:
    """VPIN after each minute that filled a bucket, by pouring volume into buckets."""
    day_of = minutes.opened_at.dt.floor("D")
    volume_of_day = minutes.volume.groupby(day_of).sum()
    is_whole = (~minutes.is_gap).groupby(day_of).sum() == 1440
    buckets: list[tuple[pd.Timestamp, float]] = []
    gap_at = pd.Timestamp.min
    size = room = np.nan
    net = 0.0
    values = []
    for minute, today in zip(minutes.itertuples(), day_of, strict=True):
        if minute.opened_at == today:
            size = volume_of_day[today - DAY] / BUCKETS if is_whole.get(today - DAY) else np.nan
            room, net = size, 0.0
        if minute.is_gap:
            gap_at = minute.opened_at
        if minute.is_gap or np.isnan(size) or minute.volume == 0:
            continue
        left = minute.volume
        share = 2 * minute.taker_buy_volume / minute.volume - 1
        is_filled = left >= room
        while left >= room:
            buckets.append((today, abs(net + room * share) / size))
            left, room, net = left - room, size, 0.0
        room, net = room - left, net + left * share
        if is_filled:
            last = buckets[-BUCKETS:]
            first_day = last[0][0]
            is_full = len(last) == BUCKETS and today - first_day <= 2 * DAY and first_day > gap_at
            vpin = np.mean([imbalance for _, imbalance in last]) if is_full else np.nan
            values.append((minute.closed_at, vpin))
    return pd.DataFrame(values, columns=["completed_at", "vpin"])


@pytest.mark.parametrize("interval_minutes", [1, 60])
def test_vpin_equals_pouring_minutes_into_buckets(
    tables: dict[str, pd.DataFrame], given: dict[str, pd.DataFrame], interval_minutes: int
) -> None:
    bars = given["int_bars"]
    for symbol in SYMBOLS:
        known = vpin_oracle(bars[(bars.symbol == symbol) & (bars.interval_minutes == 1)])
        actual = features(tables, symbol, interval_minutes).vpin
        closed_at = actual.index + pd.Timedelta(minutes=interval_minutes)
        expected = pd.merge_asof(
            pd.DataFrame({"completed_at": closed_at}), known, on="completed_at", tolerance=DAY
        )
        np.testing.assert_allclose(actual.to_numpy(), expected.vpin.to_numpy(), rtol=1e-9)
        assert 0.2 < actual.notna().mean() < 0.9
        assert actual.nunique() > 50


@pytest.mark.parametrize("interval_minutes", [1, 60])
def test_large_trades_are_those_above_the_percentile_of_the_day_before(
    tables: dict[str, pd.DataFrame], given: dict[str, pd.DataFrame], interval_minutes: int
) -> None:
    for symbol in SYMBOLS:
        rows = given["stg_trades"][given["stg_trades"].symbol == symbol]
        limits = {}
        for day, values in rows.groupby("traded_on").quote_quantity:
            ordered = np.sort(values)
            percentile = ordered[int(np.ceil(0.99 * len(ordered))) - 1]
            step = np.floor(np.log(percentile) * 50) + 1
            limits[day + DAY] = np.exp(step / 50)
            assert percentile <= limits[day + DAY] < percentile * 1.0203
        del limits[START.floor("D") + DAY]
        limit = rows.traded_on.map(limits)
        large = (rows.quote_quantity >= limit).astype(float).where(limit.notna())
        value = (rows.quote_quantity * large).where(limit.notna())
        bar = rows.traded_at.dt.floor(f"{interval_minutes}min")
        expected = pd.DataFrame(
            {
                "large_trade_count": large.groupby(bar).sum(min_count=1),
                "large_trade_count_rel": large.groupby(bar).mean(),
                "large_trade_ratio": value.groupby(bar).sum(min_count=1)
                / rows.quote_quantity.groupby(bar).sum(),
            }
        )
        actual = features(tables, symbol, interval_minutes)
        expected = expected.reindex(actual.index)
        assert 0 < actual.large_trade_count.sum() < len(rows) * 0.02
        assert actual.large_trade_count.isna().any()
        for column in expected:
            np.testing.assert_allclose(
                actual[column].to_numpy(dtype=float), expected[column], rtol=1e-9, err_msg=column
            )


@pytest.mark.parametrize("interval_minutes", [1, 60])
def test_running_and_relative_flows_equal_those_of_pandas(
    tables: dict[str, pd.DataFrame], given: dict[str, pd.DataFrame], interval_minutes: int
) -> None:
    bars = given["int_bars"]
    for symbol in SYMBOLS:
        own = bars[(bars.symbol == symbol) & (bars.interval_minutes == interval_minutes)]
        own = own.set_index("opened_at")
        actual = features(tables, symbol, interval_minutes).reindex(own.index)
        landed = tables["int_trade_bars"]
        landed = landed[(landed.symbol == symbol) & (landed.interval_minutes == interval_minutes)]
        landed = landed.set_index("opened_at").reindex(own.index)
        net, gross = actual.net_volume, actual.buy_volume + actual.sell_volume
        count = landed.trade_count.fillna(own.trade_count).where(~own.is_gap)
        value = landed.quote_volume.fillna(own.quote_volume).where(~own.is_gap)
        imbalance = net / gross.where(gross != 0)
        day = own.index.floor("D")
        # A day is known from midnight on until a bar is missing.
        known = ~own.is_gap.groupby(day).cummax() & (day > START)
        expected = pd.DataFrame(
            {
                "trade_imbalance": imbalance,
                "trade_imbalance_autocorrelation_1": imbalance.rolling(60).corr(imbalance.shift()),
                "cumulative_delta_day": net.groupby(day).cumsum().where(known),
                "cumulative_delta_day_rel": (
                    net.groupby(day).cumsum() / gross.groupby(day).cumsum()
                ).where(known),
                "trade_size_mean_rel": landed.trade_size_mean
                / (gross.rolling(60).sum() / count.rolling(60).sum())
                - 1,
                "trade_frequency_rel": landed.trade_count / count.rolling(60).mean() - 1,
                "price_impact_rel": actual.price_impact
                * gross.rolling(60).mean()
                / own.close_price,
                "kyle_lambda_rel": actual.kyle_lambda * gross.rolling(60).mean() / own.close_price,
                "amihud_20_rel": actual.amihud_20 * value.rolling(20).mean(),
                "amihud_60_rel": actual.amihud_60 * value.rolling(60).mean(),
            }
        )
        for column in expected:
            pd.testing.assert_series_equal(
                actual[column], expected[column], check_names=False, rtol=1e-7, atol=1e-9
            )
            assert actual[column].notna().sum() > 20, column


@pytest.mark.parametrize("end", [False, True])
def test_no_value_depends_on_where_the_table_starts_or_ends(
    models: Models,
    given: dict[str, pd.DataFrame],
    tables: dict[str, pd.DataFrame],
    end: bool,
) -> None:
    names = {"int_bars": "opened_at", "stg_trades": "traded_at"}
    edge = START + pd.Timedelta(minutes=(DAYS - 2) * 1440 + 600 if end else 607)
    part = {
        name: frame[(frame[names[name]] < edge) == end].reset_index(drop=True)
        for name, frame in given.items()
    }
    bars = part["int_bars"]
    first = bars.groupby(["symbol", "interval_minutes"]).opened_at.transform("min")
    run = (bars.opened_at - first) // pd.to_timedelta(bars.interval_minutes, unit="min") + 1
    part["int_bars"] = bars.assign(bars_in_run=np.minimum(run, bars.bars_in_run).astype("int32"))
    rows = built(models, "feat_microstructure", part)
    whole = tables["feat_microstructure"]
    lookback = pd.to_timedelta(
        np.maximum(7200, 289 * whole.interval_minutes) if not end else 0, unit="min"
    )
    inside = (
        whole.opened_at + pd.to_timedelta(whole.interval_minutes, unit="min") <= edge
        if end
        else whole.opened_at >= edge + lookback
    )
    expected = whole[inside].reset_index(drop=True)
    actual = expected[KEY].merge(rows, on=KEY, how="left", validate="one_to_one")
    assert len(expected) > 2000
    pd.testing.assert_frame_equal(actual[expected.columns], expected, check_exact=True)


def test_a_volume_is_compared_with_that_of_the_hour_on_28_days_before(models: Models) -> None:
    frames = []
    for seed, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng(seed)
        index = pd.date_range(START, periods=96 * 40, freq="15min", name="opened_at", unit="us")
        volume = np.round(generator.exponential(10.0, len(index)), 3)
        reported = pd.DataFrame({"close_price": 1.0, "volume": volume}, index=index)
        if seed == 1:
            reported = reported.drop(index=reported.index[96 * 30 + 5])
        frames.append(on_grid(reported, symbol=symbol, interval_minutes=15))
    rows = built(models, "feat_calendar", {"int_bars": pd.concat(frames, ignore_index=True)})
    for bars, symbol in zip(frames, SYMBOLS, strict=True):
        volume = bars.set_index("opened_at").volume
        hours = volume.groupby(volume.index.floor("h"))
        total, count = hours.sum(), hours.count()
        expected: dict[Any, float] = {}
        for hour in total.index:
            before = [hour - number * DAY for number in range(1, 29)]
            if all(count.get(other, 0) == 4 for other in before):
                expected[hour] = sum(total[other] for other in before) / (4 * 28)
        typical = volume.index.floor("h").map(expected)
        actual = rows[rows.symbol == symbol].set_index("opened_at").volume_vs_typical
        wanted = (volume / np.asarray(typical, dtype=float))[actual.index]
        assert actual.notna().sum() > 1000
        np.testing.assert_allclose(actual.to_numpy(), wanted.to_numpy(), rtol=1e-12)
