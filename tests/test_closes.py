"""When bars are computed, and with which symbols."""

from datetime import datetime, timedelta

from serving.bars import Close, Closes

NINE = datetime(2025, 1, 1, 9)
MINUTE = timedelta(minutes=1)
WAIT = timedelta(milliseconds=250)


def kline(
    symbol: str, closed_at: datetime, heard_at: datetime
) -> tuple[str, datetime, int, datetime]:
    return symbol, closed_at - MINUTE, 1, heard_at


def test_a_symbol_that_was_late_once_is_waited_for_at_the_next_close() -> None:
    closes = Closes((5,), WAIT)
    closes.skip_to({NINE: {"A", "B"}})
    five, ten = NINE + 5 * MINUTE, NINE + 10 * MINUTE
    closes.add([kline("A", five, five)])
    assert closes.due(five) is None
    assert closes.due(five + WAIT) == Close(NINE, five, 1)
    closes.add([kline("B", five, five + 2 * WAIT)])
    assert closes.due(five + 2 * WAIT) == Close(NINE, five, 0)
    closes.add([kline("A", ten, ten)])
    assert closes.due(ten) is None
    closes.add([kline("B", ten, ten)])
    assert closes.due(ten) == Close(five, ten, 0)
    assert not closes.is_waiting(ten)


def test_of_bars_that_come_together_the_first_is_given_first() -> None:
    closes = Closes((5,), WAIT)
    closes.skip_to({NINE: {"A"}})
    five, ten = NINE + 5 * MINUTE, NINE + 10 * MINUTE
    closes.add([kline("A", end, ten) for end in (five, ten)])
    assert closes.due(ten) == Close(NINE, five, 0)
    assert closes.is_waiting(ten)
    assert closes.due(ten) == Close(five, ten, 0)
    assert closes.due(ten) is None


def test_bars_of_two_lengths_begin_after_the_newest_end_of_both() -> None:
    closes = Closes((5, 60), WAIT)
    closes.skip_to({NINE: {"A"}, NINE + 5 * MINUTE: {"A", "B"}})
    assert closes.last_closed_at == NINE + 5 * MINUTE
    ten = NINE + 10 * MINUTE
    closes.add([kline("A", ten, ten)])
    assert closes.due(ten) is None
    closes.add([kline("B", ten, ten)])
    assert closes.due(ten) == Close(NINE + 5 * MINUTE, ten, 0)
