"""Cross-asset and sentiment features against pandas and plain loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bars_fixtures import (
    KEY,
    SYMBOLS,
    Models,
    built,
    compiled,
    cut,
    random_bars,
    recorded_bars,
)

REFERENCE = "BTCUSDT"
MACRO = {"spx_return_1h": "spx", "dxy_return_1h": "dxy", "gold_return_1h": "gold"}
NO_MACRO = pd.DataFrame(
    {
        "series": pd.Series(dtype=str),
        "closed_at": pd.Series(dtype="datetime64[us]"),
        "close_value": pd.Series(dtype=float),
        "available_at": pd.Series(dtype="datetime64[us]"),
    }
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return compiled(tmp_path_factory)


def hourly_macro(bars: pd.DataFrame) -> pd.DataFrame:
    """Readings a quarter of an hour apart, three nights missing, a tenth of them late."""
    generator = np.random.default_rng(11)
    frames = []
    for number, name in enumerate(["spx", "dxy", "gold", "vix"]):
        closed = pd.date_range(
            bars.opened_at.min().floor("D"), bars.closed_at.max(), freq="15min", unit="us"
        )
        closed = closed[~closed.hour.isin([4 + number, 5 + number])]
        late = generator.choice([0, 1, 40, 100], len(closed), p=[0.7, 0.2, 0.05, 0.05])
        values = 1000 + generator.normal(0, 1, len(closed)).cumsum()
        available_at = closed + pd.to_timedelta(late, unit="min").astype("timedelta64[us]")
        frames.append(
            pd.DataFrame(
                {
                    "series": name,
                    "closed_at": closed,
                    "close_value": values,
                    "available_at": available_at,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def reference_oracle(bars: pd.DataFrame) -> pd.DataFrame:
    """Ratios, betas and correlations by pandas, over stretches that both symbols reported."""
    wide = bars.pivot(index="opened_at", columns="symbol", values="close_price").sort_index()
    returns = wide.pct_change(fill_method=None)
    frames = []
    for symbol in wide:
        ratio = wide[symbol] / wide[REFERENCE]
        features = pd.DataFrame({"ratio_to_reference": ratio})
        features["ratio_to_reference_change"] = ratio.diff()
        features["ratio_to_reference_change_rel"] = ratio.pct_change(fill_method=None)
        for window in (60, 288):
            own, reference = returns[symbol].rolling(window), returns[REFERENCE].rolling(window)
            covariance = own.cov(returns[REFERENCE])
            known = own.count().eq(window) & reference.count().eq(window)
            features[f"beta_{window}"] = (covariance / reference.var()).where(known)
            features[f"correlation_{window}"] = own.corr(returns[REFERENCE]).where(known)
        features["reference_return_1"] = returns[REFERENCE]
        full = wide[REFERENCE].rolling(6).count() == 6
        features["reference_return_5"] = (wide[REFERENCE] / wide[REFERENCE].shift(5) - 1).where(
            full
        )
        known = returns.notna().sum(axis=1)
        features["market_breadth"] = (returns > 0).sum(axis=1) / known.where(known > 0)
        frames.append(features[wide[symbol].notna()].assign(symbol=symbol).reset_index())
    return pd.concat(frames).sort_values(["symbol", "opened_at"]).reset_index(drop=True)


def macro_oracle(moments: pd.Series, readings: pd.DataFrame) -> pd.DataFrame:
    """Hourly changes as known at each moment, by a loop."""
    rows = []
    for moment in moments:
        row = {}
        for name in ("spx", "dxy", "gold", "vix"):
            arrived = readings[(readings.series == name) & (readings.available_at <= moment)]
            values = arrived.set_index("closed_at").close_value.sort_index()
            now = earlier = np.nan
            if len(values) and moment - values.index[-1] <= pd.Timedelta(minutes=90):
                now = values.iloc[-1]
                earlier = values.get(values.index[-1] - pd.Timedelta(hours=1), np.nan)
            row[name] = now - earlier if name == "vix" else now / earlier - 1
        row["risk"] = np.nan
        if not np.isnan(row["spx"] + row["vix"]):
            on, off = row["spx"] > 0 and row["vix"] < 0, row["spx"] < 0 and row["vix"] > 0
            row["risk"] = float(on) - float(off)
        rows.append(row)
    names = {f"{name}_return_1h": name for name in ("spx", "dxy", "gold")}
    names |= {"vix_change_1h": "vix", "risk_regime": "risk"}
    frame = pd.DataFrame(rows)
    return pd.DataFrame({column: frame[name] for column, name in names.items()})


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    for name in expected:
        np.testing.assert_allclose(
            actual[name].to_numpy(dtype=float, na_value=np.nan),
            expected[name].to_numpy(dtype=float),
            rtol=1e-9,
            atol=1e-12,
            err_msg=str(name),
        )


@pytest.mark.parametrize("interval_minutes", [1, 5])
def test_ratios_betas_and_breadth_equal_pandas(models: Models, interval_minutes: int) -> None:
    bars = random_bars(bars=1400, interval_minutes=interval_minutes)
    actual = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": NO_MACRO})
    expected = reference_oracle(bars)
    assert actual.symbol.tolist() == expected.symbol.tolist()
    assert actual.opened_at.tolist() == expected.opened_at.tolist()
    assert_equal(actual, expected.drop(columns=["symbol", "opened_at"]))
    assert actual.beta_288.notna().sum() > 300
    unmentioned = set(actual) - set(expected) - set(KEY) - {"available_at"}
    assert unmentioned == {*MACRO, "vix_change_1h", "risk_regime"}
    assert actual[sorted(unmentioned)].notna().sum().sum() == 0


def test_recorded_bars_give_the_betas_of_pandas(models: Models, shared_data: Path) -> None:
    bars = pd.concat(
        recorded_bars(
            shared_data / "um" / f"klines_{symbol}_1m.parquet",
            symbol=symbol,
            interval_minutes=1,
            rows=2500,
        )
        for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT")
    )
    actual = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": NO_MACRO})
    expected = reference_oracle(bars)
    assert_equal(actual, expected.drop(columns=["symbol", "opened_at"]))
    assert actual.correlation_288.notna().sum() > 4000


def test_constant_prices_have_no_correlation_and_no_beta_to_a_constant(models: Models) -> None:
    bars = random_bars(bars=400)
    bars.loc[(bars.symbol == REFERENCE) & ~bars.is_gap, "close_price"] = 123.4
    actual = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": NO_MACRO})
    assert actual[["beta_60", "correlation_60"]].notna().sum().tolist() == [0, 0]
    assert actual.ratio_to_reference.notna().any()


def test_macro_features_equal_a_loop_over_what_had_arrived(models: Models) -> None:
    bars = random_bars(bars=400, interval_minutes=5)
    readings = hourly_macro(bars)
    actual = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": readings})
    bar_available_at = actual.opened_at + pd.Timedelta(minutes=5)
    expected = macro_oracle(bar_available_at, readings)
    assert_equal(actual, expected)
    assert (expected.isna().mean() > 0.05).all()
    assert set(actual.risk_regime.dropna()) == {-1, 0, 1}


def test_readings_that_arrive_later_change_nothing_before(models: Models) -> None:
    bars = random_bars(bars=400, interval_minutes=5)
    readings = hourly_macro(bars)
    given = {"int_bars": bars, "stg_macro_bars": readings}
    whole = built(models, "feat_cross_asset", given)
    for share in (0.3, 0.6):
        until = bars.closed_at.quantile(share)
        known = {name: frame[frame.available_at <= until] for name, frame in given.items()}
        part = built(models, "feat_cross_asset", known)
        expected = whole[whole.available_at <= until].reset_index(drop=True)
        assert part.symbol.unique().tolist() == SYMBOLS
        pd.testing.assert_frame_equal(part, expected, check_exact=True, check_dtype=False)


def test_a_table_that_starts_later_gives_the_same_bits_once_windows_are_full(
    models: Models,
) -> None:
    bars = random_bars(bars=1400)
    whole = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": NO_MACRO})
    columns = models["feat_cross_asset"]["columns"].values()
    lookback = max(column["config"]["meta"].get("window_bars", 0) for column in columns)
    later = cut(bars, start=600)
    part = built(models, "feat_cross_asset", {"int_bars": later, "stg_macro_bars": NO_MACRO})
    start = later.opened_at.min() + pd.Timedelta(minutes=lookback)
    expected = whole[whole.opened_at >= start].reset_index(drop=True)
    actual = part[part.opened_at >= start].reset_index(drop=True)
    assert expected.beta_288.notna().all()
    assert len(actual) > 700
    pd.testing.assert_frame_equal(actual, expected, check_exact=True, check_dtype=False)


def test_a_row_is_known_when_the_last_bar_it_looks_at_is(models: Models) -> None:
    bars = random_bars(bars=100)
    bars["available_at"] += pd.to_timedelta(np.arange(len(bars)) % 7, unit="s")
    actual = built(models, "feat_cross_asset", {"int_bars": bars, "stg_macro_bars": NO_MACRO})
    reported = bars[~bars.is_gap]
    latest = reported.groupby("opened_at").available_at.max()
    following = reported.bars_in_run > 1
    expected = actual.opened_at.map(latest)
    counted = reported[following].groupby("opened_at").size().reindex(actual.opened_at)
    whole = (counted == 2).to_numpy()
    assert whole.sum() > 150
    assert actual.available_at[whole].tolist() == expected[whole].tolist()


def random_news(bars: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Headlines with a quiet day, some late, and scores that come later or not at all."""
    generator = np.random.default_rng(21)
    start = bars.opened_at.min() - pd.Timedelta(days=1)
    minutes = generator.integers(0, int((bars.closed_at.max() - start).total_seconds() / 60), 300)
    minutes = minutes[(minutes < 2200) | (minutes > 4200)]
    count = len(minutes)
    published = start + pd.to_timedelta(minutes, unit="min").astype("timedelta64[us]")
    late = generator.choice([0, 1, 30, 90, 2000], count)
    news = pd.DataFrame(
        {
            "provider": "desk",
            "news_id": [str(number) for number in range(count)],
            "published_at": published,
            "available_at": published + pd.to_timedelta(late, unit="min").astype("timedelta64[us]"),
        }
    )
    scores = news.sample(frac=0.8, random_state=1).assign(scorer="vader")
    later = generator.choice([-5, 0, 3, 50], len(scores))
    scores["available_at"] += pd.to_timedelta(later, unit="min").astype("timedelta64[us]")
    scores["score"] = np.round(generator.uniform(-1, 1, len(scores)), 4)
    other = scores.assign(scorer="other", score=1.0)
    return news, pd.concat([scores, other])


def sentiment_oracle(moments: pd.Series, news: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Counts and means at each moment, by a loop over all headlines."""
    own = scores[scores.scorer == "vader"].set_index("news_id")
    rows = []
    for moment in moments:
        row = {}
        for name, hours in (("1h", 1), ("24h", 24)):
            inside = news[
                (news.available_at <= moment)
                & (news.published_at > moment - pd.Timedelta(hours=hours))
            ]
            known = own.reindex(inside.news_id)
            known = known[known.available_at <= moment]
            row[f"headline_count_{name}"] = len(inside)
            row[f"sentiment_mean_{name}"] = known.score.mean()
        rows.append(row if row["headline_count_24h"] else dict.fromkeys(row, np.nan))
    return pd.DataFrame(rows)


def test_sentiment_equals_a_loop_over_the_headlines_known(models: Models) -> None:
    bars = random_bars(bars=600, interval_minutes=5)
    news, scores = random_news(bars)
    given = {"int_bars": bars, "stg_news": news, "stg_news_scores": scores}
    actual = built(models, "feat_sentiment", given)
    expected = sentiment_oracle(actual.available_at, news, scores)
    assert_equal(actual, expected)
    assert set(actual) == {*KEY, "available_at", *expected}
    assert actual.headline_count_24h.isna().sum() > 50
    assert (actual.headline_count_1h == 0).sum() > 50
    assert actual.sentiment_mean_1h.notna().sum() > 100


def test_news_that_arrive_later_change_nothing_before_and_old_news_are_not_needed(
    models: Models,
) -> None:
    bars = random_bars(bars=600, interval_minutes=5)
    news, scores = random_news(bars)
    given = {"int_bars": bars, "stg_news": news, "stg_news_scores": scores}
    whole = built(models, "feat_sentiment", given)
    until = bars.closed_at.quantile(0.6)
    known = {name: frame[frame.available_at <= until] for name, frame in given.items()}
    part = built(models, "feat_sentiment", known)
    expected = whole[whole.available_at <= until].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected, check_exact=True, check_dtype=False)
    reach = until - pd.Timedelta(hours=24)
    recent = {
        "int_bars": bars[bars.opened_at >= until],
        "stg_news": news[news.published_at >= reach],
        "stg_news_scores": scores[scores.published_at >= reach],
    }
    part = built(models, "feat_sentiment", recent)
    expected = whole[whole.opened_at >= until].reset_index(drop=True)
    assert expected.sentiment_mean_24h.notna().any()
    pd.testing.assert_frame_equal(part, expected, check_exact=True, check_dtype=False)


def test_without_news_sentiment_is_null(models: Models) -> None:
    bars = random_bars(bars=20, interval_minutes=5)
    news, scores = random_news(bars)
    given = {"int_bars": bars, "stg_news": news.iloc[:0], "stg_news_scores": scores.iloc[:0]}
    actual = built(models, "feat_sentiment", given)
    assert len(actual) == (~bars.is_gap).sum()
    assert actual.drop(columns=[*KEY, "available_at"]).notna().sum().sum() == 0


def test_recorded_headlines_equal_the_loop(models: Models, shared_data: Path) -> None:
    rows = pd.read_parquet(shared_data / "news_headlines.parquet").tail(1500)
    published_at = rows.published_at.astype("datetime64[us]")
    news = pd.DataFrame(
        {
            "provider": rows.source,
            "news_id": rows.index.astype(str),
            "published_at": published_at,
            "available_at": published_at + pd.Timedelta(minutes=10),
        }
    )
    scores = news.assign(scorer="vader", score=np.round(rows.polarity, 9))
    bars = random_bars(bars=150, interval_minutes=60)
    shift = published_at.quantile(0.8).floor("h") - bars.opened_at.min()
    for column in ("opened_at", "closed_at", "available_at"):
        bars[column] += shift
    given = {"int_bars": bars, "stg_news": news, "stg_news_scores": scores}
    actual = built(models, "feat_sentiment", given)
    assert_equal(actual, sentiment_oracle(actual.available_at, news, scores))
    assert actual.sentiment_mean_24h.notna().mean() > 0.5
