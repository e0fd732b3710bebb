"""The point-in-time join against a plain loop, in both of its forms."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from dbt_fixtures import run_dbt

FORMS = ["duckdb", "default"]
START = pd.Timestamp("2025-01-31 22:00")
STALENESS_MINUTES = 45
KEYS = ["symbol"]


@pytest.fixture(scope="module")
def joins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The compiled join, by its form and whether it has keys."""
    calls = [
        f"{{{{ tapehouse.{form}__as_of_join('moments', 'updates', {keys}, 'event_at', "
        f"['value', 'note'], {STALENESS_MINUTES}) }}}}"
        for form in FORMS
        for keys in ([], KEYS)
    ]
    working = tmp_path_factory.getbasetemp()
    compiled = run_dbt(
        *(working / "tapehouse.duckdb", "--quiet", "compile", "--output", "json"),
        *("--inline", ";\n".join(calls)),
    )
    texts = json.loads(compiled)["compiled"].split(";")
    names = [f"{form} {len(keys)}" for form in FORMS for keys in ([], KEYS)]
    return dict(zip(names, texts, strict=True))


def joined(join: str, bars: pd.DataFrame, series: pd.DataFrame) -> pd.DataFrame:
    with duckdb.connect(":memory:") as connection:
        connection.register("moments", bars)
        connection.register("updates", series)
        return connection.execute(f"select * from ({join}) order by number").df()


def oracle(bars: pd.DataFrame, series: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """What was known at each bar, by looking through the whole series for each."""
    rows = []
    for bar in bars.itertuples():
        known = series[series.available_at <= bar.available_at]
        for key in keys:
            known = known[known[key] == getattr(bar, key)]
        row = {"value": np.nan, "note": None}
        if len(known):
            winner = known.sort_values(["event_at", "available_at"]).iloc[-1]
            if bar.available_at - winner.event_at <= pd.Timedelta(minutes=STALENESS_MINUTES):
                row = {"value": winner.value, "note": winner.note}
        rows.append(row)
    return bars.assign(**pd.DataFrame(rows))


def random_series(generator: np.random.Generator, *, rows: int) -> pd.DataFrame:
    """Events with a pause, arriving late, out of order, several at once and twice."""
    minutes = generator.integers(0, 600, rows)
    minutes = minutes[(minutes < 200) | (minutes > 300)]
    delay = generator.choice([0, 0, 1, 2, 30, 90], len(minutes))
    frame = pd.DataFrame(
        {
            "symbol": generator.choice(["BTCUSDT", "ETHUSDT"], len(minutes)),
            "event_at": START + pd.to_timedelta(minutes, unit="min"),
            "available_at": START + pd.to_timedelta((minutes + delay + 4) // 5 * 5, unit="min"),
            "value": generator.normal(size=len(minutes)),
            "note": generator.choice(["a", "b", None], len(minutes)),
        }
    )
    frame.loc[generator.uniform(size=len(frame)) < 0.2, "value"] = np.nan
    return frame


def random_bars(generator: np.random.Generator) -> pd.DataFrame:
    opened = np.tile(np.arange(0, 620, 2), 3)
    return (
        pd.DataFrame(
            {
                "number": np.arange(len(opened)),
                "symbol": np.repeat(["BTCUSDT", "ETHUSDT", "SOLUSDT"], 310),
                "available_at": START + pd.to_timedelta(opened + 1, unit="min"),
            }
        )
        .sample(frac=0.9, random_state=generator)
        .reset_index(drop=True)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keys", [[], KEYS], ids=["all", "by symbol"])
@pytest.mark.parametrize("seed", range(2))
def test_each_bar_gets_the_latest_event_known_by_then(
    joins: dict[str, str], form: str, keys: list[str], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    bars = random_bars(generator)
    series = random_series(generator, rows=400)
    series = series.drop_duplicates([*keys, "event_at", "available_at"])
    late = series.groupby("symbol").event_at.diff() < pd.Timedelta(0)
    assert late.any()
    assert series.duplicated([*keys, "event_at"]).any()
    actual = joined(joins[f"{form} {len(keys)}"], bars, series)
    expected = oracle(bars, series, keys).sort_values("number").reset_index(drop=True)
    assert 0.1 < expected.value.isna().mean() < 0.9
    pd.testing.assert_frame_equal(actual, expected, check_dtype=False)


@pytest.mark.parametrize("form", FORMS)
def test_a_late_row_that_tells_of_an_older_event_changes_nothing(
    joins: dict[str, str], form: str
) -> None:
    bars = pd.DataFrame({"number": range(6), "symbol": "BTCUSDT", "available_at": at(range(6))})
    series = pd.DataFrame(
        {
            "symbol": "BTCUSDT",
            "event_at": at([1, 0, 2, 2]),
            "available_at": at([1, 3, 2, 4]),
            "value": [1.0, 0.0, 2.0, 3.0],
            "note": None,
        }
    )
    actual = joined(joins[f"{form} 1"], bars, series)
    assert actual.value.fillna(-1).tolist() == [-1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("form", FORMS)
def test_the_staleness_limit_counts_from_the_event_and_includes_its_end(
    joins: dict[str, str], form: str
) -> None:
    limit = STALENESS_MINUTES
    bars = pd.DataFrame(
        {"number": range(3), "symbol": "BTCUSDT", "available_at": at([limit - 1, limit, limit + 1])}
    )
    series = pd.DataFrame(
        {
            "symbol": "BTCUSDT",
            "event_at": at([0]),
            "available_at": at([20]),
            "value": 1.0,
            "note": "a",
        }
    )
    actual = joined(joins[f"{form} 1"], bars, series)
    assert actual.value.fillna(-1).tolist() == [1, 1, -1]
    assert actual.note.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [100, 250, 400])
def test_rows_that_arrive_later_change_no_earlier_bar(
    joins: dict[str, str], form: str, cut: int
) -> None:
    generator = np.random.default_rng(9)
    bars = random_bars(generator)
    series = random_series(generator, rows=400)
    series = series.drop_duplicates([*KEYS, "event_at", "available_at"])
    until = START + pd.Timedelta(minutes=cut)
    bars = bars[bars.available_at <= until]
    whole = joined(joins[f"{form} 1"], bars, series)
    known = joined(joins[f"{form} 1"], bars, series[series.available_at <= until])
    pd.testing.assert_frame_equal(whole, known)
    assert whole.value.notna().any()


@pytest.mark.parametrize("form", FORMS)
def test_events_beyond_the_limit_are_not_needed(joins: dict[str, str], form: str) -> None:
    generator = np.random.default_rng(5)
    bars = random_bars(generator)
    series = random_series(generator, rows=400)
    series = series.drop_duplicates([*KEYS, "event_at", "available_at"])
    start = START + pd.Timedelta(minutes=350)
    bars = bars[bars.available_at >= start]
    reach = start - pd.Timedelta(minutes=STALENESS_MINUTES)
    whole = joined(joins[f"{form} 1"], bars, series)
    recent = joined(joins[f"{form} 1"], bars, series[series.event_at >= reach])
    pd.testing.assert_frame_equal(whole, recent)


def test_both_forms_join_a_million_bars_within_bounded_memory(
    joins: dict[str, str], tmp_path: Path
) -> None:
    with duckdb.connect(str(tmp_path / "big.duckdb")) as connection:
        connection.execute("set memory_limit = '600MB'")
        connection.execute(
            """
            create table moments as
            select i as number, 'S' || i % 5 || 'USDT' as symbol,
                timestamp '2020-01-01' + to_minutes(i // 5) as available_at
            from range(1000000) as t(i);
            create table updates as
            select 'S' || i % 5 || 'USDT' as symbol,
                timestamp '2020-01-01' + to_seconds(30 * (i // 5)) as event_at,
                event_at + to_seconds(cast(hash(i) % 120 as bigint)) as available_at,
                i::double as value, 'a' as note
            from range(2000000) as t(i)
            """
        )
        sums = [
            connection.execute(
                "select count(*), count(value), sum(hash(number, value)) "
                f"from ({joins[f'{form} 1']})"
            ).fetchone()
            for form in FORMS
        ]
    assert sums[0][:2] == (1_000_000, 999_995)
    assert sums[0] == sums[1]


def at(minutes: list[int] | range) -> pd.DatetimeIndex:
    return START + pd.to_timedelta(list(minutes), unit="min")
