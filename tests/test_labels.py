"""Labels against plain loops, and their silence about what is not decided."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.features_fixtures import SYMBOLS, built, random_market, table

HORIZONS = [5, 10, 20, 40]
BARRIERS = [(30, 4), (50, 12)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    market = random_market(minutes=900)
    working = tmp_path_factory.mktemp("labels")
    return built("labels", market, select="+labels +ds_order_flow", working=working)


def bars(database: Path, symbol: str, interval_minutes: int) -> pd.DataFrame:
    return table(
        database,
        f"""
        select * from int_bars
        left join lbl_return using (exchange, market, symbol, interval_minutes, opened_at)
        left join lbl_high_low using (exchange, market, symbol, interval_minutes, opened_at)
        where symbol = '{symbol}' and interval_minutes = {interval_minutes} order by opened_at
        """,
    )


def first(values: list[bool]) -> int:
    return values.index(True) if True in values else len(values)


def barrier_label(close: float, ahead: pd.DataFrame, threshold: int, *, up: bool) -> bool | None:
    highs = [high > close * (10000 + threshold) / 10000 for high in ahead.high_price]
    lows = [low < close * (10000 - threshold) / 10000 for low in ahead.low_price]
    wanted, opposite = (first(highs), first(lows)) if up else (first(lows), first(highs))
    if wanted == len(ahead):
        return False
    return None if wanted == opposite else wanted < opposite


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("interval_minutes", [1, 5])
def test_labels_equal_a_loop_over_the_next_bars_and_are_null_until_decided(
    database: Path, symbol: str, interval_minutes: int
) -> None:
    rows = bars(database, symbol, interval_minutes)
    expected: dict[str, list[object]] = {}
    for row in range(len(rows)):
        close = rows.close_price[row]
        for horizon in HORIZONS:
            window = rows.iloc[row : row + horizon + 1]
            decided = len(window) == horizon + 1 and not window.is_gap.any()
            change = window.close_price.iloc[-1] / close - 1 if decided else np.nan
            end = window.closed_at.iloc[-1] if decided else pd.NaT
            expected.setdefault(f"return_{horizon}", []).append(change)
            expected.setdefault(f"log_return_{horizon}", []).append(np.log1p(change))
            expected.setdefault(f"direction_{horizon}", []).append(np.sign(change))
            expected.setdefault(f"return_{horizon}_end_at", []).append(end)
        for threshold, horizon in BARRIERS:
            window = rows.iloc[row : row + horizon + 1]
            decided = len(window) == horizon + 1 and not window.is_gap.any()
            for name, up in (("high", True), ("low", False)):
                label = barrier_label(close, window.iloc[1:], threshold, up=up) if decided else None
                expected.setdefault(f"{name}_{threshold:03d}_{horizon}", []).append(label)
            end = window.closed_at.iloc[-1] if decided else pd.NaT
            expected.setdefault(f"high_low_{horizon}_end_at", []).append(end)
    for column, values in expected.items():
        if column.startswith(("return", "log", "direction")) and not column.endswith("_at"):
            actual = rows[column].to_numpy(dtype=float, na_value=np.nan)
            np.testing.assert_allclose(actual, np.array(values), rtol=1e-9, atol=1e-12)
        else:
            actual_values = [None if pd.isna(value) else value for value in rows[column]]
            assert actual_values == [None if pd.isna(value) else value for value in values]
    assert {True, False} <= set(rows.high_030_4.dropna())


def test_no_label_of_a_part_reaches_into_the_embargo_before_the_next(database: Path) -> None:
    rows = table(database, "select * from ds_order_flow where split is not null")
    ends = rows.groupby("split").label_end_at.max()
    starts = rows.groupby("split").closed_at.min()
    embargo = pd.Timedelta(minutes=12 * 5)
    assert set(rows.split) == {"train", "validation", "test"}
    assert ends["train"] + embargo <= starts["validation"]
    assert ends["validation"] + embargo <= starts["test"]


def test_folds_cut_the_time_after_training_into_equal_blocks(database: Path) -> None:
    rows = table(database, "select * from ds_order_flow where is_up_5 is not null")
    train_end = rows[rows.split == "validation"].closed_at.min()
    length = (rows.label_end_at.max() - train_end) / 5
    late = rows[rows.closed_at >= train_end]
    assert rows[rows.closed_at < train_end].fold.isna().all()
    assert late.fold.tolist() == ((late.closed_at - train_end) // length + 1).tolist()
    assert sorted(late.fold.unique()) == [1, 2, 3, 4, 5]


def test_fresh_bars_are_in_the_dataset_without_label_and_split(database: Path) -> None:
    fresh = table(
        database,
        """
        select symbol, is_up_5, split, fold, close_sma_3_rel from ds_order_flow
        qualify row_number() over (partition by symbol order by opened_at desc) <= 5
        """,
    )
    assert len(fresh) == 10
    assert fresh[["is_up_5", "split", "fold"]].isna().all(axis=None)
    assert fresh.close_sma_3_rel.notna().all()
