"""Connections to the exchange's streams that are taken up again whenever they end."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ccxt
import ccxt.pro
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from ingest.settings import Market, Settings

# Candles come every two seconds at the latest: a longer silence is a dead connection.
SILENCE_S = 30.0
# The exchange cuts a connection after 24 hours; the next one takes over before that.
RENEW_S = 23 * 3600.0
OVERLAP_S = 10.0
# One that was lost sooner is no success: the pauses before the next go on growing.
STEADY_S = 10.0
CLOSING_S = 5.0
# The exchange takes more of them in one connection, but no address of more than 8 kB.
STREAMS_AT_ONCE = 200
_TICK_S = 1.0
_NEVER = "never"

# Text and number of the connection.
OnText = Callable[[str, int], None]
# "connected", "disconnected" or "renewed", the number of the connection, and a remark.
OnEvent = Callable[[str, int, str], None]


class SilenceError(ccxt.NetworkError):  # type: ignore[misc]
    """A connection that is open but says nothing."""


def stream_addresses(
    settings: Settings, market: Market, symbols: Sequence[str], intervals: Sequence[str]
) -> list[str]:
    """Return the WebSocket addresses of everything that is recorded.

    Many symbols have several; each carries candles or changes of books, and so is never silent.
    """
    base = settings.exchange_url and settings.exchange_url.replace("http", "ws", 1)
    tape = [*(f"kline_{interval}" for interval in intervals), "aggTrade"]
    if market == "spot":
        root = f"{base}/spot" if base else "wss://stream.binance.com:9443"
        return _addresses(f"{root}/stream", symbols, [*tape, "depth"])
    root = f"{base}/um" if base else "wss://fstream.binance.com"
    return [
        *_addresses(f"{root}/public/stream", symbols, ["depth@500ms"]),
        *_addresses(f"{root}/market/stream", symbols, [*tape, "markPrice@1s", "forceOrder"]),
    ]


def _addresses(path: str, symbols: Sequence[str], streams: Sequence[str]) -> list[str]:
    count = max(STREAMS_AT_ONCE // len(streams), 1)
    return [
        f"{path}?streams="
        + "/".join(
            f"{symbol.lower()}@{stream}"
            for stream in streams
            for symbol in symbols[start : start + count]
        )
        for start in range(0, len(symbols), count)
    ]


async def follow(
    market: Market,
    address: str,
    *,
    on_text: OnText,
    on_event: OnEvent,
    numbers: Iterator[int],
    silence_s: float = SILENCE_S,
    renew_s: float = RENEW_S,
    overlap_s: float = OVERLAP_S,
) -> None:
    """Hear an address until cancelled.

    A lost or silent connection is replaced, with growing pauses while none lasts; an old one once
    its successor has taken over, so that what both hear comes twice.

    Parameters
    ----------
    market : {"spot", "um"}
        Chooses ccxt's client.
    address : str
        Of a combined stream.
    on_text : callable
        Gets every message as it came.
    on_event : callable
        Told of connections that begin and end.
    numbers : iterator of int
        Gives each connection its number.
    silence_s, renew_s, overlap_s : float
        Seconds without a message after which a connection is taken for dead, age at which it
        is replaced, and how long it is heard beside its successor.
    """
    closing: set[asyncio.Task[None]] = set()
    old: list[Any] = []

    def tell(event: str, number: int, remark: str) -> None:
        on_event(event, number, remark)
        while event == "connected" and old:
            closing.add(task := asyncio.create_task(_close_later(old.pop(), overlap_s)))
            task.add_done_callback(closing.discard)

    try:
        while True:
            attempts = AsyncRetrying(
                retry=retry_if_exception_type(ccxt.NetworkError),
                wait=wait_random_exponential(multiplier=0.1, max=30),
            )
            async for attempt in attempts:
                with attempt:
                    outlived = await _hear(
                        market, address, next(numbers), on_text, tell, silence_s, renew_s
                    )
            if outlived:
                old.append(outlived)
    finally:
        for exchange in old:
            await _close(exchange)
        for task in closing:
            task.cancel()
        if closing:
            await asyncio.wait(closing, timeout=CLOSING_S)


async def _hear(
    market: Market,
    address: str,
    number: int,
    on_text: OnText,
    on_event: OnEvent,
    silence_s: float,
    renew_s: float,
) -> Any:
    """Hear one connection; return it, still open, once it is old, and None once it was lost.

    Raises
    ------
    ccxt.NetworkError
        If it was lost before it said anything, or soon after it began.
    """
    exchange = ccxt.pro.binance() if market == "spot" else ccxt.pro.binanceusdm()
    began_at = heard_at = time.monotonic()
    is_heard = False

    def hear(text: str) -> None:
        nonlocal heard_at, is_heard
        heard_at = time.monotonic()
        if not is_heard:
            is_heard = True
            on_event("connected", number, address)
        on_text(text, number)

    # The text is kept as it came and parsed later: ccxt's own parsing and dispatch cost more than
    # all the rest.
    client = exchange.client(address)
    client.handle_text_or_binary_message = hear
    lost = asyncio.ensure_future(exchange.watch(address, _NEVER))
    is_old = False
    try:
        while not is_old:
            done, _ = await asyncio.wait({lost}, timeout=min(_TICK_S, silence_s, renew_s))
            if done:
                lost.result()
            now = time.monotonic()
            if now - heard_at > silence_s:
                raise SilenceError(f"nothing was heard for {silence_s:g} s")
            is_old = is_heard and now - began_at > renew_s
    except ccxt.NetworkError as error:
        on_event("disconnected", number, str(error))
        if not is_heard or time.monotonic() - began_at < STEADY_S:
            raise
        return None
    finally:
        if not is_old:
            lost.cancel()
            await _close(exchange)
    on_event("renewed", number, address)
    return exchange


async def _close_later(exchange: Any, delay_s: float) -> None:
    try:
        await asyncio.sleep(delay_s)
    finally:
        await _close(exchange)


async def _close(exchange: Any) -> None:
    # A connection that will not close must not keep what was heard.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSING_S):
            await exchange.close()
