"""A book kept by the exchange's rules: what continues it, what breaks it, what heals it."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.live_books import SNAPSHOT_LEVELS, Change, LiveBook

GAP_FROM = 500


class Kept:
    """A book, what it said and how often it asked for a snapshot."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.gaps: list[tuple[str, int, int | None]] = []
        self.asked = 0
        self.book = LiveBook("BTCUSDT", self.say, self.ask, GAP_FROM)

    def say(self, stream: str, payload: bytes) -> None:
        data = json.loads(payload)
        if stream == "!recorder":
            self.gaps.append((data["cause"], data["gap_from"], data["gap_until"]))
        else:
            assert stream == "btcusdt@depth20@1000ms"
            self.shown.append(data)

    def ask(self, book: LiveBook) -> None:
        assert book is self.book
        self.asked += 1


def change(
    first: int, last: int, previous: int | None, *, second: int = 1, bid: float = 1.0
) -> Change:
    data = {"U": first, "u": last, "E": second * 1000, "b": [[str(bid), "2"]], "a": []}
    return Change.of(data | ({} if previous is None else {"pu": previous}))


def snapshot(last: int, *, levels: int = 1) -> dict[str, Any]:
    return {
        "lastUpdateId": last,
        "bids": [[str(1 - level / 1000), "1"] for level in range(levels)],
        "asks": [[str(2 + level / 1000), "1"] for level in range(levels)],
    }


def whole(*, is_spot: bool) -> Kept:
    """Return a book that a snapshot and a change made whole, at update 10."""
    kept = Kept()
    assert kept.book.take(change(8, 10, None if is_spot else 7))
    assert (kept.asked, kept.book.is_whole) == (1, False)
    kept.book.start(snapshot(9))
    assert kept.book.is_whole
    assert kept.gaps == [("start", GAP_FROM, None), ("start", GAP_FROM, 1_000_000)]
    return kept


def test_spot_continues_by_the_next_id_and_futures_by_the_id_before() -> None:
    spot, futures = whole(is_spot=True), whole(is_spot=False)
    assert spot.book.take(change(11, 15, None))
    assert spot.book.take(change(13, 17, None))
    assert futures.book.take(change(14, 15, 10))
    assert spot.book.is_whole
    assert futures.book.is_whole
    assert not whole(is_spot=True).book.take(change(12, 15, None))
    assert not whole(is_spot=False).book.take(change(11, 15, 9))


def test_what_came_before_is_passed_over() -> None:
    kept = whole(is_spot=True)
    assert kept.book.take(change(9, 10, None))
    assert kept.book.take(change(3, 4, None))
    assert kept.book.is_whole
    assert kept.asked == 1


def test_a_book_is_shown_at_the_first_change_of_each_second() -> None:
    kept = whole(is_spot=True)
    kept.book.take(change(11, 11, None, second=2, bid=1.1))
    kept.book.take(change(12, 12, None, second=2, bid=1.2))
    kept.book.take(change(13, 13, None, second=3, bid=1.3))
    assert [(shown["E"], shown["u"]) for shown in kept.shown] == [(2000, 11), (3000, 13)]
    assert kept.shown[1]["b"] == [[1.3, 2.0], [1.2, 2.0], [1.1, 2.0], [1.0, 2.0]]
    assert kept.shown[1]["a"] == [[2.0, 1.0]]


def test_a_missing_change_that_comes_late_heals_the_book() -> None:
    kept = whole(is_spot=True)
    assert not kept.book.take(change(12, 12, None, second=3))
    assert kept.book.take(change(13, 13, None, second=4))
    assert kept.book.take(change(11, 11, None, second=2))
    assert kept.gaps[2:] == [("sequence", 1_000_000, None), ("late", 1_000_000, 4_000_000)]
    assert kept.shown == []
    assert kept.book.take(change(14, 14, None, second=5))
    assert [shown["u"] for shown in kept.shown] == [14]


def test_a_snapshot_heals_the_book_with_the_first_change_that_continues_it() -> None:
    kept = whole(is_spot=True)
    assert not kept.book.take(change(15, 15, None, second=3))
    kept.book.start(snapshot(12))
    assert not kept.book.is_whole
    kept.book.take(change(16, 16, None, second=4))
    assert kept.asked == 3
    kept.book.start(snapshot(20))
    assert not kept.book.is_whole
    kept.book.take(change(21, 21, None, second=6))
    assert kept.gaps[2:] == [("sequence", 1_000_000, None), ("sequence", 1_000_000, 6_000_000)]
    assert kept.book.is_whole


def test_a_failed_request_is_made_again_by_the_next_change() -> None:
    kept = Kept()
    kept.book.take(change(8, 10, None))
    kept.book.take(change(11, 11, None))
    assert kept.asked == 1
    kept.book.answered()
    kept.book.take(change(12, 12, None))
    assert kept.asked == 2


def deep() -> Kept:
    """Return a whole book of 500 levels a side, to which a change far beyond them belongs."""
    kept = Kept()
    far = {"U": 8, "u": 10, "E": 1000, "b": [["0.01", "5"], ["1.0", "0"]], "a": [["99", "5"]]}
    kept.book.take(Change.of(far))
    kept.book.start(snapshot(9, levels=SNAPSHOT_LEVELS))
    assert kept.book.is_whole
    return kept


def fallen(number: int, second: int, *, left: int) -> Change:
    """Return a change after which so many bids of the snapshot are left, and others below them."""
    gone = [[str(1 - level / 1000), "0"] for level in range(SNAPSHOT_LEVELS - left)]
    below = [[str(0.4 - level / 1000), "7"] for level in range(30)]
    return Change.of({"U": number, "u": number, "E": second * 1000, "b": gone + below, "a": []})


def test_a_book_that_comes_near_the_end_of_its_snapshot_is_fetched_anew_without_a_gap() -> None:
    kept = deep()
    kept.book.take(change(11, 11, None, second=2, bid=0.3))
    assert kept.asked == 1
    assert kept.book.take(fallen(12, 3, left=25))
    assert kept.asked == 2
    kept.book.answered()
    kept.book.take(change(13, 13, None, second=4, bid=0.3))
    assert kept.asked == 3
    kept.book.start(snapshot(13, levels=SNAPSHOT_LEVELS))
    kept.book.take(change(14, 14, None, second=5, bid=0.3))
    assert (kept.asked, len(kept.gaps), len(kept.shown)) == (3, 2, 4)
    assert [0.4, 7.0] not in kept.shown[2]["b"]
    assert kept.shown[-1]["b"][0] == [1.0, 1.0]


def test_a_book_that_has_left_its_snapshot_is_not_shown_until_another_came() -> None:
    kept = deep()
    assert not kept.book.take(fallen(11, 2, left=19))
    assert (kept.asked, kept.shown) == (2, [])
    kept.book.answered()
    kept.book.take(change(12, 12, None, second=3, bid=0.4))
    kept.book.answered()
    kept.book.take(change(13, 13, None, second=4, bid=0.4))
    assert (kept.asked, kept.shown) == (4, [])
    kept.book.start(snapshot(12, levels=SNAPSHOT_LEVELS))
    kept.book.take(change(14, 14, None, second=5, bid=0.4))
    assert [len(shown["b"]) for shown in kept.shown] == [20]
    assert kept.gaps[2:] == [("depth", 2_000_000, None), ("depth", 2_000_000, 4_000_000)]


def test_a_change_dated_ahead_silences_the_book_for_no_longer_than_itself() -> None:
    kept = whole(is_spot=True)
    kept.book.take(change(11, 11, None, second=3_600))
    kept.book.take(change(12, 12, None, second=2))
    kept.book.take(change(13, 13, None, second=3))
    assert [shown["u"] for shown in kept.shown] == [11, 12, 13]


@pytest.mark.parametrize("wrong", [{}, {"U": 1}, [], {"U": 1, "u": 2, "E": 3, "b": 4, "a": []}])
def test_what_is_no_change_is_refused(wrong: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Change.of(wrong)


SPOT = "hftbacktest_spot_btcusdt_20240808.gz"
FUTURES = "cryptofeed_BINANCE_FUTURES.ws.1.0.gz"
FUTURES_SYMBOLS = ["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"]


def recorded(capture: Path) -> Iterator[dict[str, Any]]:
    """The messages of a recording of the exchange, in the order of their arrival."""
    for line in gzip.decompress(capture.read_bytes()).splitlines():
        start = line.find(b"{")
        if start >= 0 and b"wss://" not in line[:start]:
            yield json.loads(line[start:])


def judge(messages: Iterable[dict[str, Any]], symbol: str, snapshot: dict[str, Any]) -> int:
    """Keep a book of recorded changes; return how many tops the exchange told of it as well.

    It ends where the price has left the snapshot: the recordings have no second one.
    """
    shown: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []

    def say(stream: str, payload: bytes) -> None:
        (gaps if stream == "!recorder" else shown).append(json.loads(payload))

    book = LiveBook(symbol, say, lambda _: None, 0)
    tops: dict[int, list[float]] = {}
    is_started = False
    for message in messages:
        data = message.get("data", {})
        if data.get("s") != symbol:
            continue
        if "@bookTicker" in message["stream"]:
            tops[data["u"]] = [float(data[name]) for name in "bBaA"]
        elif "@depth" in message["stream"]:
            if not is_started and data["u"] > snapshot["lastUpdateId"]:
                is_started = True
                book.start(snapshot)
            if not book.take(Change.of(data)):
                break
    assert [gap["cause"] for gap in gaps if gap["cause"] != "start"] in ([], ["depth"])
    assert all(each["b"][0][0] < each["a"][0][0] and len(each["b"]) == 20 for each in shown)
    both = [each for each in shown if each["u"] in tops]
    assert [[*each["b"][0], *each["a"][0]] for each in both] == [tops[each["u"]] for each in both]
    return len(both)


def test_recorded_changes_of_spot_give_the_books_that_the_exchange_told(shared_data: Path) -> None:
    messages = list(recorded(shared_data / "raw_captures" / SPOT))
    (snapshot,) = (message for message in messages if "lastUpdateId" in message)
    assert judge(messages, "BTCUSDT", snapshot) == 62


def test_recorded_changes_of_futures_give_the_books_that_the_exchange_told(
    shared_data: Path,
) -> None:
    rest = shared_data / "raw_messages" / "rest" / "depth_um.jsonl"
    snapshots = map(json.loads, rest.read_text().splitlines()[3:])
    messages = list(recorded(shared_data / "raw_captures" / FUTURES))
    both = [
        judge(messages, symbol, snapshot)
        for symbol, snapshot in zip(FUTURES_SYMBOLS, snapshots, strict=False)
    ]
    assert both == [1, 0, 3, 4]
