"""What the recorder asks the exchange for; every answer goes to the log as it came."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import ccxt
import orjson

from ingest import health, logs
from ingest.exchange import Exchange
from ingest.intervals import INTERVALS_US
from ingest.live_books import SNAPSHOT_LEVELS, LiveBook, Say
from ingest.live_candles import LiveCandles
from ingest.messages import NO_MESSAGE, RECORDER, parse
from ingest.settings import Market, Settings

CANDLES_AT_ONCE = 1000
_RETRY_S = 2.0
_LARGE_SKEW_US = 1_000_000
_log = logs.logger("recorder")


class LiveRequests:
    """The exchange's REST interface, one request at a time, paced by ccxt.

    Parameters
    ----------
    settings : Settings
        Names the exchange.
    market : {"spot", "um"}
        Its market.
    say : callable
        Gets the stream and the payload of what goes to the log.
    clock : callable
        Gives epoch microseconds.
    """

    def __init__(
        self, settings: Settings, market: Market, say: Say, clock: Callable[[], int]
    ) -> None:
        self._prefix = "public" if market == "spot" else "fapiPublic"
        self._say = say
        self._clock = clock
        # One attempt: a thread that waits would keep the process from ending.
        self._exchange = Exchange(settings, market, attempts=1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rest")
        self._open_interest: dict[str, int] = {}

    def close(self) -> None:
        """Ask for nothing more."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def book(self, book: LiveBook) -> None:
        """Start a book from a snapshot."""
        try:
            answer = await self._call("GetDepth", symbol=book.symbol, limit=SNAPSHOT_LEVELS)
            if answer is not None:
                self._say(f"rest:depth:{book.symbol}", orjson.dumps(answer))
                with self._reading("GetDepth"):
                    book.start(answer)
        finally:
            book.answered()

    async def candles(
        self, candles: LiveCandles, symbol: str, interval: str, start: int, end: int
    ) -> None:
        """Get the closed candles opened in ``[start, end)`` (milliseconds).

        Those before the last one that the exchange gives are there, or nowhere; those after it
        have not reached this interface yet, and are asked for again.
        """
        health.GAPS.labels("candle").inc()
        stream = f"rest:klines:{symbol}:{interval}"
        step = INTERVALS_US[interval] // 1000
        try:
            while start < end:
                answer = await self._call(
                    "GetKlines",
                    symbol=symbol,
                    interval=interval,
                    startTime=start,
                    endTime=end - 1,
                    limit=CANDLES_AT_ONCE,
                )
                if answer is None:
                    return
                self._say(stream, orjson.dumps(answer))
                opened = set()
                with self._reading("GetKlines"):
                    opened = {int(row["open_time"]) for _, row in parse(stream, answer)}
                if not (opened := opened & set(range(start, end, step))):
                    await asyncio.sleep(_RETRY_S)
                    return
                start = max(opened) + step
                candles.have(symbol, interval, start)
        finally:
            candles.answered(symbol, interval)

    async def open_interest(self, symbols: Iterable[str]) -> None:
        """Poll the open interest of futures; a reading goes to the log once."""
        for symbol in symbols:
            answer = await self._call(
                "fapiDataGetOpenInterestHist", symbol=symbol, period="5m", limit=2
            )
            with self._reading("OpenInterestHist"):
                if answer and self._open_interest.get(symbol) != (last := answer[-1]["timestamp"]):
                    self._open_interest[symbol] = last
                    self._say(f"rest:open_interest:{symbol}", orjson.dumps(answer))

    async def clock_skew(self) -> None:
        """Measure by how much this machine's clock is ahead of the exchange's."""
        asked_at = self._clock()
        answer = await self._call("GetTime")
        if answer:
            answered_at = self._clock()
            skew_us = (asked_at + answered_at) // 2 - int(answer["serverTime"]) * 1000
            health.CLOCK_SKEW.set(skew_us / 1e6)
            (_log.warning if abs(skew_us) > _LARGE_SKEW_US else _log.info)("clock", skew_us=skew_us)
            said = {"event": "clock", "skew_us": skew_us, "within_us": answered_at - asked_at}
            self._say(RECORDER, orjson.dumps(said))

    @contextmanager
    def _reading(self, method: str) -> Iterator[None]:
        """Count and pass over an answer that is not what was asked for."""
        try:
            yield
        except NO_MESSAGE as error:
            health.BAD_FRAMES.labels("answer").inc()
            _log.warning("unreadable", method=method, error=repr(error))

    async def _call(self, method: str, **parameters: Any) -> Any:
        """Return the answer; after a pause None if there is none."""
        name = f"{self._prefix}{method}" if method.startswith("Get") else method
        call = partial(self._exchange.call, name, **parameters)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, call)
        except ccxt.BaseError as error:
            _log.warning("refused", method=name, error=str(error))
            await asyncio.sleep(max(_RETRY_S, self._exchange.asked_pause_s()))
            return None
