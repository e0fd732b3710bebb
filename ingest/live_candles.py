"""Closed candles that the streams did not bring, as the recorder finds them."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
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

    @property
    def expected(self) -> dict[str, int]:
        """Open time of the first candle that is missing, by ``symbol:interval``."""
        return {":".join(key): opened for key, opened in self._expected.items()}

    def resume(self, expected: Mapping[str, int], frames: Iterable[Frame]) -> None:
        """Take up, before the first message, what an earlier recording knew and heard since.

        Parameters
        ----------
        expected : mapping
            What it expected at some time.
        frames : iterable of Frame
            What it heard after that.
        """
        before = {}
        for name, opened in expected.items():
            symbol, _, interval = name.partition(":")
            before[symbol, interval] = opened
        for frame in frames:
            if "kline" in frame.stream:
                with contextlib.suppress(*NO_MESSAGE):
                    for _, row in parse(frame.stream, message(frame)):
                        key, opened = (row["symbol"], row["interval"]), int(row["open_time"])
                        _ = INTERVALS_US[row["interval"]]
                        self._expected[key] = min(opened, self._expected.get(key, opened))
                        if row["is_closed"]:
                            self._closed.setdefault(key, set()).add(opened)
        self._expected |= before
        for key, opened in list(self._expected.items()):
            self.have(*key, opened)

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
