"""What becomes of good rows and of bad ones."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from ingest.kinds import KINDS
from ingest.validation import Checked, Origin, UnknownLayoutError, check

ARRIVAL = datetime(2024, 6, 1, tzinfo=UTC)
MINUTE = datetime(2024, 1, 1, tzinfo=UTC)
KLINE = {
    "open_time": "1704067200000",
    "open": "10",
    "high": "12",
    "low": "9",
    "close": "11",
    "volume": "3",
}
BOOK: dict[str, Any] = {
    "last_update_id": 1,
    "event_time": 1704067200000,
    "bid_prices": [2.0, 1.0],
    "bid_quantities": [1.0, 1.0],
    "ask_prices": [3.0, 4.0],
    "ask_quantities": [1.0, 0.0],
}


def checked(kind: str, *rows: dict[str, Any], interval: str = "1m") -> Checked:
    constants = (("symbol", "BTCUSDT"), ("interval", interval), ("is_aggregate", False))
    origin = Origin("binance", "um", "file:test", ARRIVAL, constants)
    return check(KINDS[kind], pa.Table.from_pylist(list(rows)), origin)


def reasons(result: Checked) -> list[str]:
    return [str(reason) for reason in result.rejects["reason"].to_pylist()]


def test_a_kline_lands_with_its_close_time_and_without_invented_numbers() -> None:
    result = checked("klines", KLINE)
    assert result.rejects.num_rows == 0
    assert result.rows.to_pylist() == [
        {
            "exchange": "binance",
            "market": "um",
            "symbol": "BTCUSDT",
            "interval": "1m",
            "open_time": MINUTE,
            "open": 10.0,
            "high": 12.0,
            "low": 9.0,
            "close": 11.0,
            "volume": 3.0,
            "close_time": MINUTE.replace(second=59, microsecond=999_000),
            "quote_volume": None,
            "count": None,
            "taker_buy_volume": None,
            "taker_buy_quote_volume": None,
            "is_closed": True,
            "source": "file:test",
            "received_at": ARRIVAL,
        }
    ]


@pytest.mark.parametrize(
    "text", ["1704067200000", "1704067200000000", "1704067200000000000", "2024-01-01 00:00:00"]
)
def test_the_unit_of_a_time_is_told_by_its_magnitude(text: str) -> None:
    assert checked("klines", KLINE | {"open_time": text}).rows["open_time"].to_pylist() == [MINUTE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"open_time": "1704067200"},
         "open_time cannot be read: expected epoch milliseconds, microseconds or nanoseconds"),
        ({"open_time": "1704067201000"}, "open_time is not on the interval's grid"),
        ({"open_time": ""}, "open_time is missing"),
        ({"open": "ten"}, "open cannot be read: expected double"),
        ({"open": None}, "open is missing"),
        ({"close": "inf"}, "close is not finite"),
        ({"high": "nan"}, "high is not finite"),
        ({"high": "8"}, "high is below low"),
        ({"open": "8.9"}, "open is outside low and high"),
        ({"close": "12.1"}, "close is outside low and high"),
        ({"volume": "-1"}, "volume is negative"),
        ({"low": "-9"}, "a price is zero or negative"),
        ({"count": "-1"}, "a volume or count is negative"),
        ({"close_time": "1704067199999"}, "close_time is not after open_time"),
    ],
)  # fmt: skip
def test_a_bad_kline_is_rejected_with_the_reason_and_the_others_land(
    change: dict[str, str | None], reason: str
) -> None:
    good = KLINE | {"close_time": None, "count": None}
    bad = good | change
    result = checked("klines", good, bad, good)
    assert result.rows.num_rows == 2
    assert reasons(result) == [reason]
    assert [json.loads(text) for text in result.rejects["payload"].to_pylist()] == [bad]
    assert result.rejects["symbol"].to_pylist() == ["BTCUSDT"]


def test_an_interval_without_a_fixed_length_is_rejected() -> None:
    (reason,) = reasons(checked("klines", KLINE, interval="1M"))
    assert reason.startswith("interval is not one of 1m, 3m")


def test_a_candle_that_was_still_open_on_arrival_does_not_land_as_closed() -> None:
    now = str(int(ARRIVAL.timestamp()) * 1000)
    assert checked("klines", KLINE | {"open_time": now}).rows["is_closed"].to_pylist() == [False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bid_prices": [1.0, 2.0]}, "levels are not sorted from the best price on"),
        ({"ask_prices": [2.0, 4.0]}, "the best bid reaches the best ask"),
        ({"ask_prices": [3.0]}, "a side has more prices than quantities or fewer"),
        ({"bid_prices": [float("nan"), 1.0]}, "bid_prices holds a level that is not finite"),
        ({"bid_prices": [2.0, None]}, "bid_prices holds a level that is not finite"),
        ({"bid_quantities": [1.0, -1.0]}, "a quantity is negative"),
        ({"ask_prices": None}, "ask_prices is missing"),
        ({"event_time": None}, "neither the exchange's time nor the arrival is known"),
    ],
)
def test_a_bad_book_is_rejected(change: dict[str, Any], reason: str) -> None:
    result = checked("books", BOOK, BOOK | change)
    assert result.rows["bid_prices"].to_pylist() == [[2.0, 1.0]]
    assert reasons(result) == [reason]


def test_a_book_with_one_empty_side_lands() -> None:
    result = checked("books", BOOK | {"ask_prices": [], "ask_quantities": []})
    assert reasons(result) == []
    assert result.rows["ask_prices"].to_pylist() == [[]]


def test_repeated_trade_ids_are_no_rejects() -> None:
    trade = {"id": 7, "price": "1.5", "qty": "2", "time": 1704067200000, "is_buyer_maker": "True"}
    result = checked("trades", trade, trade, trade | {"price": "0"})
    assert result.rows["trade_id"].to_pylist() == [7, 7]
    assert reasons(result) == ["price is zero or negative"]


def test_columns_that_are_not_those_of_the_kind_are_named() -> None:
    with pytest.raises(UnknownLayoutError) as raised:
        checked("funding", KLINE)
    assert str(raised.value) == (
        "file:test does not hold funding: found the columns "
        "open_time, open, high, low, close, volume; "
        "missing funding_time or calc_time or fundingtime; "
        "funding_rate or last_funding_rate or fundingrate"
    )
