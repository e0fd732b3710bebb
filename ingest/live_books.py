"""Books as the recorder keeps them: verified change by change, shown once a second."""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

import orjson

from ingest.books import LEVELS, Book, Levels
from ingest.messages import NO_MESSAGE, RECORDER, message
from ingest.segments import Frame

# Levels a side that a snapshot is asked for; one that has fewer is the whole book.
SNAPSHOT_LEVELS = 500
SHOWN = "depth20@1000ms"
# Changes that are kept while a snapshot is on its way; the oldest give way.
_MOST_WAITING = 10_000
_MILLISECOND = 1_000
# Stream and payload.
Say = Callable[[str, bytes], None]


class Change(NamedTuple):
    """A change of a book: the exchange's U, u, pu, E and T, and the levels."""

    first_id: int
    final_id: int
    previous_id: int | None
    event_ms: int
    transact_ms: int | None
    bids: Levels
    asks: Levels

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """Read a change as the exchange sent it.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        return cls(
            int(data["U"]),
            int(data["u"]),
            data.get("pu"),
            int(data["E"]),
            None if data.get("T") is None else int(data["T"]),
            _levels(data["b"]),
            _levels(data["a"]),
        )

    @property
    def at_ms(self) -> int:
        """When it happened, as its book is dated in the warehouse."""
        return self.event_ms if self.transact_ms is None else self.transact_ms


class _Reach(NamedTuple):
    """How far one side of a snapshot goes: its last price, and the price halfway from its best.

    ``sign`` is 1 for bids and -1 for asks; a snapshot of the whole side goes to no end.
    """

    sign: int
    last: float
    half: float

    @classmethod
    def of(cls, levels: Levels, sign: int) -> Self:
        """Return it of a snapshot's levels."""
        prices = [sign * price for price, _ in levels]
        if len(prices) < SNAPSHOT_LEVELS:
            return cls(sign, -math.inf, -math.inf)
        return cls(sign, min(prices), (min(prices) + max(prices)) / 2)

    def has(self, best: Levels) -> bool:
        """Tell whether the best levels lie within it."""
        if self.last == -math.inf:
            return True
        return len(best) == LEVELS and self.sign * best[-1][0] >= self.last

    def is_near(self, best: Levels) -> bool:
        """Tell whether its end is near."""
        return bool(best) and self.sign * best[0][0] < self.half


class LiveBook:
    """The book of one symbol.

    It begins with a gap. A gap ends with a snapshot that the changes continue, or when what was
    missing comes after all; while it lasts, nothing is shown. Beyond its snapshot a book is known
    only where it changed: the next snapshot is asked for before prices get there, and if they are
    there first, that is a gap.

    Parameters
    ----------
    symbol : str
        As the exchange writes it.
    say : callable
        Gets a stream and a payload to write to the log: a book a second, and gaps.
    ask : callable
        Called with the book when it needs a snapshot, which ``start`` then gets.
    gap_from : int
        Epoch microseconds: since when nothing is known of the book.
    """

    def __init__(
        self, symbol: str, say: Say, ask: Callable[["LiveBook"], None], gap_from: int
    ) -> None:
        self.symbol = symbol
        self._say = say
        self._ask = ask
        self._book: Book | None = None
        self._reaches = _Reach.of([], 1), _Reach.of([], -1)
        self._waiting: list[Change] = []
        self._is_asking = False
        self._event_us = gap_from
        self._shown_second = 0
        self._gap_from: int | None = None
        self._cause = ""
        self._lose("start")

    @property
    def is_whole(self) -> bool:
        """Whether the book can be trusted."""
        return self._gap_from is None

    @property
    def known_until(self) -> int:
        """Epoch microseconds: until when the book is known without a hole."""
        return self._event_us if self._gap_from is None else self._gap_from

    def take(self, change: Change) -> bool:
        """Take a change of the book; return False if it opened a gap."""
        book = self._book
        if book and change.final_id <= book.last_update_id:
            return True
        if self._is_asking or not self.is_whole:
            self._waiting.append(change)
            del self._waiting[:-_MOST_WAITING]
        if self.is_whole:
            if book and _follows(book, change):
                self._apply(book, change)
                return self.is_whole
            self._lose("sequence")
            self._waiting.append(change)
            self._request()
            return False
        cause = "late" if book and book.is_continued else self._cause
        if book and self._catch_up(book):
            self._find(cause)
        else:
            self._request()
        return True

    def start(self, snapshot: dict[str, Any]) -> None:
        """Take the answer to what was asked: a snapshot, and go on from it.

        A gap ends with the first change that continues it.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is no snapshot.
        """
        self._is_asking = False
        bids, asks = _levels(snapshot["bids"]), _levels(snapshot["asks"])
        book = Book(int(snapshot["lastUpdateId"]), dict(bids), dict(asks))
        before = self._event_us
        is_continued = self._catch_up(book)
        behind = self.is_whole and self._book and book.last_update_id < self._book.last_update_id
        if not is_continued or behind:
            self._event_us = before
            return
        self._reaches = _Reach.of(bids, 1), _Reach.of(asks, -1)
        self._book = book
        self._waiting.clear()
        if book.is_continued and not self.is_whole:
            self._find(self._cause)

    def interrupt(self) -> None:
        """Be told that the changes no longer come; the next one tells whether any is missing."""
        if self.is_whole:
            self._lose("connection")

    def answered(self) -> None:
        """Be told that a request is over, however it ended; the next change may ask again."""
        self._is_asking = False

    def _catch_up(self, book: Book) -> bool:
        """Apply what has waited; return False if it does not continue the book."""
        for change in sorted(self._waiting, key=lambda waiting: waiting.final_id):
            if change.final_id > book.last_update_id:
                if not _follows(book, change):
                    return False
                self._apply(book, change)
        return True

    def _apply(self, book: Book, change: Change) -> None:
        book.apply(change.final_id, change.bids, change.asks)
        self._event_us = change.at_ms * _MILLISECOND
        second = change.at_ms // 1000
        if second != self._shown_second and book is self._book and self.is_whole:
            self._shown_second = second
            self._show(book, change)

    def _show(self, book: Book, change: Change) -> None:
        bids, asks = sides = book.best()
        if not all(reach.has(best) for reach, best in zip(self._reaches, sides, strict=True)):
            self._book = None
            self._lose("depth")
            self._request()
            return
        shown = {"e": "depthUpdate", "E": change.event_ms, "T": change.transact_ms}
        shown |= {"s": self.symbol, "u": change.final_id, "b": bids, "a": asks}
        self._say(f"{self.symbol.lower()}@{SHOWN}", orjson.dumps(shown))
        if any(reach.is_near(best) for reach, best in zip(self._reaches, sides, strict=True)):
            self._request()

    def _lose(self, cause: str) -> None:
        self._gap_from, self._cause = self._event_us, cause
        self._tell(None)

    def _find(self, cause: str) -> None:
        self._cause = cause
        self._tell(max(self._event_us, self._gap_from or 0))
        self._gap_from = None
        self._waiting.clear()

    def _tell(self, until: int | None) -> None:
        gap = {
            "event": "gap",
            "symbol": self.symbol,
            "cause": self._cause,
            "gap_from": self._gap_from,
            "gap_until": until,
        }
        self._say(RECORDER, orjson.dumps(gap))

    def _request(self) -> None:
        if not self._is_asking:
            self._is_asking = True
            self._ask(self)


def known_until(frames: Iterable[Frame]) -> dict[str, int]:
    """Return the time of each symbol's last change, epoch microseconds, as frames tell it."""
    found = {}
    for frame in frames:
        symbol, _, content = frame.stream.upper().partition("@")
        if content.startswith("DEPTH@") or content == "DEPTH":
            with contextlib.suppress(*NO_MESSAGE):
                found[symbol] = Change.of(message(frame)).at_ms * _MILLISECOND
    return found


def _follows(book: Book, change: Change) -> bool:
    return book.follows(change.first_id, change.final_id, change.previous_id)


def _levels(levels: Sequence[Sequence[str]]) -> Levels:
    return [(float(price), float(quantity)) for price, quantity in levels]
