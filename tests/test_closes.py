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
    assert closes.due(five + 2 * WAIT) == Close(NINE, five, 0, is_again=True)
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


def test_a_clock_that_is_set_back_keeps_no_symbol_waiting() -> None:
    closes = Closes((5,), WAIT)
    closes.skip_to({NINE: {"A", "B"}})
    five = NINE + 5 * MINUTE
    closes.add([kline("A", five, five + 60 * MINUTE)])
    assert closes.due(five) == Close(NINE, five, 1)


def test_a_bar_of_the_future_is_not_given_out_before_its_time_and_keeps_nothing_waiting() -> None:
    closes = Closes((5,), WAIT)
    closes.skip_to({NINE: {"A"}})
    five, later = NINE + 5 * MINUTE, NINE + 35 * MINUTE
    closes.add([kline("A", later, NINE)])
    assert closes.due(NINE) is None
    assert not closes.is_waiting(NINE)
    closes.add([kline("A", five, five)])
    assert closes.due(five) == Close(NINE, five, 0)
    assert closes.due(later) == Close(later - 5 * MINUTE, later, 0)
