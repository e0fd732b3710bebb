"""The live recorder: the exchange's streams, message by message, into segments."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import ccxt
import ccxt.pro
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from ingest.recordings import SegmentWriter, land_segments, recover
from ingest.report import Failure, Report
from ingest.settings import Market, Settings

# Candles come every two seconds at the latest: a longer silence is a dead connection.
SILENCE_S = 30.0
CLOSING_S = 5.0
_MESSAGE = "message"


class _Heard:
    """What is done with each message of a combined stream."""

    def __init__(self, on_message: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._on_message = on_message

    def handle_message(self, client: Any, message: Any) -> None:
        if "stream" in message:
            self._on_message(message["stream"], message["data"])
        client.resolve(message, _MESSAGE)


class _Spot(_Heard, ccxt.pro.binance):  # type: ignore[misc]
    """ccxt's connection to the spot streams."""


class _Futures(_Heard, ccxt.pro.binanceusdm):  # type: ignore[misc]
    """ccxt's connection to the USD-M streams."""


def record(
    settings: Settings,
    *,
    seconds: float,
    market: Market | None = None,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_message: Callable[[int], None] | None = None,
) -> Report:
    """Record candles, trades, books of 20 levels and of USD-M mark prices and liquidations.

    All of it lands at the end.

    Parameters
    ----------
    settings : Settings
        Names the warehouse, the segments' directory and the exchange.
    seconds : float
        How long to listen; Ctrl-C ends it earlier.
    market, symbols, intervals
        The series; those of the settings by default.
    clock : callable
        Gives the UTC time of arrival.
    on_message : callable, optional
        Told the number of messages heard so far.

    Returns
    -------
    Report
        What landed, that of earlier interrupted recordings included; silence is a failure.
    """
    market = market or settings.market
    symbols = symbols or settings.symbols
    addresses = stream_addresses(settings, market, symbols, intervals or settings.intervals)
    recover(settings.segments_directory)
    count = 0
    with SegmentWriter(settings.segments_directory, market, clock=clock) as writer:

        def keep(stream: str, data: Any) -> None:
            nonlocal count
            writer.write(stream, data)
            count += 1
            if on_message:
                on_message(count)

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_listen(market, addresses, seconds, keep))
    report = land_segments(settings)
    if count:
        return report
    silence = "nothing was heard. Check the network, the symbols and TAPEHOUSE_EXCHANGE_URL"
    return replace(report, failures=tuple(Failure(address, silence) for address in addresses))


def stream_addresses(
    settings: Settings, market: Market, symbols: Sequence[str], intervals: Sequence[str]
) -> list[str]:
    """Return the WebSocket addresses of everything that is recorded."""
    names = [symbol.lower() for symbol in symbols]
    tape = [f"{name}@kline_{interval}" for name in names for interval in intervals]
    tape += [f"{name}@aggTrade" for name in names]
    depths = [f"{name}@depth20@100ms" for name in names]
    base = settings.exchange_url and settings.exchange_url.replace("http", "ws", 1)
    if market == "spot":
        root = f"{base}/spot" if base else "wss://stream.binance.com:9443"
        return [f"{root}/stream?streams={'/'.join([*tape, *depths])}"]
    root = f"{base}/um" if base else "wss://fstream.binance.com"
    tape += [f"{name}@{stream}" for name in names for stream in ("markPrice@1s", "forceOrder")]
    return [
        f"{root}/public/stream?streams={'/'.join(depths)}",
        f"{root}/market/stream?streams={'/'.join(tape)}",
    ]


async def _listen(
    market: Market,
    addresses: Sequence[str],
    seconds: float,
    on_message: Callable[[str, Any], None],
) -> None:
    exchange = _Spot(on_message) if market == "spot" else _Futures(on_message)
    following = [asyncio.create_task(_follow(exchange, address)) for address in addresses]
    try:
        done, _ = await asyncio.wait(
            following, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in done:
            task.result()
    finally:
        # Every wait here has an end: a connection that will not close must not keep what was heard.
        for task in following:
            task.cancel()
        await asyncio.wait(following, timeout=CLOSING_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await exchange.close()


async def _follow(exchange: Any, address: str) -> None:
    attempts = AsyncRetrying(
        retry=retry_if_exception_type((ccxt.NetworkError, TimeoutError)),
        wait=wait_random_exponential(multiplier=0.1, max=5),
    )
    async for attempt in attempts:
        with attempt:
            while True:
                # Not wait_for: until Python 3.12 it drops a cancellation that meets a message.
                async with asyncio.timeout(SILENCE_S):
                    await exchange.watch(address, _MESSAGE)
