"""Closed candles that the streams did not bring, as the recorder finds them."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from ingest.intervals import INTERVALS_US
from ingest.messages import NO_MESSAGE, message, parse
from ingest.segments import Frame

# Time of the exchange after which a candle that closed is missing.
PATIENCE_MS = 3_000


class LiveCandles:
    """Watches that every closed candle comes.

    Parameters
    ----------
    ask : callable
        Called with symbol, interval and the open times (milliseconds, closed, open) of candles
        that have closed and did not come.
    """

    def __init__(self, ask: Callable[[str, str, int, int], None]) -> None:
        self._ask = ask
        # Open time of the first candle that has not come closed.
        self._expected: dict[tuple[str, str], int] = {}
        self._closed: dict[tuple[str, str], set[int]] = {}
        self._asked: set[tuple[str, str]] = set()

    def remember(self, frames: Iterable[Frame]) -> None:
        """Take what an earlier recording heard, in any order, before the first message."""
        for frame in frames:
            if "kline" in frame.stream:
                with contextlib.suppress(*NO_MESSAGE):
                    for _, row in parse(frame.stream, message(frame)):
                        key, opened = (row["symbol"], row["interval"]), int(row["open_time"])
                        _ = INTERVALS_US[row["interval"]]
                        self._expected[key] = min(opened, self._expected.get(key, opened))
                        if row["is_closed"]:
                            self._closed.setdefault(key, set()).add(opened)

    def resume(self) -> None:
        """Expect the first candle that is missing from what was remembered."""
        for key, expected in list(self._expected.items()):
            self.have(*key, expected)

    @property
    def series(self) -> set[tuple[str, str]]:
        """The symbols and intervals of which a closed candle is known."""
        return {key for key, closed in self._closed.items() if closed}

    def take(self, message: dict[str, Any]) -> None:
        """Take a message of a stream of candles.

        Raises
        ------
        KeyError, TypeError
            If it is none.
        """
        candle = message["k"]
        key = message["s"], candle["i"]
        opened = candle["t"]
        expected = self._expected.setdefault(key, opened)
        if candle["x"] and opened >= expected:
            self._closed.setdefault(key, set()).add(opened)
            self.have(*key, expected)
        expected = self._expected[key]
        if opened > expected and (candle["x"] or message["E"] - opened > PATIENCE_MS):
            self._request(key, expected, opened)

    def have(self, symbol: str, interval: str, until: int) -> None:
        """Be told that candles opened before ``until`` (milliseconds) are there, or nowhere."""
        key = symbol, interval
        step = INTERVALS_US[interval] // 1000
        until = max(until, self._expected.get(key, until))
        closed = self._closed.setdefault(key, set())
        while until in closed:
            closed.remove(until)
            until += step
        self._expected[key] = until

    def answered(self, symbol: str, interval: str) -> None:
        """Be told that a request is over; the next message asks for what is still missing."""
        self._asked.discard((symbol, interval))

    def _request(self, key: tuple[str, str], start: int, end: int) -> None:
        if key not in self._asked:
            self._asked.add(key)
            self._ask(*key, start, end)
