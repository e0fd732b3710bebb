"""The live recorder: what the exchange says, message by message, into a durable log."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ingest import health, logs
from ingest.connections import SILENCE_S, follow, stream_addresses
from ingest.disk import DiskFullError, check_reserve, check_room
from ingest.drain import drain
from ingest.live_books import Change, LiveBook
from ingest.live_candles import LiveCandles
from ingest.live_past import past
from ingest.live_requests import LiveRequests
from ingest.messages import NO_MESSAGE, RECORDER, message
from ingest.report import Failure, Report
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame
from ingest.settings import Market, Settings
from ingest.warehouse import WarehouseBusyError

_EVERY_S = {"heartbeat": 10.0, "clock": 60.0, "open interest": 60.0}
# Whoever lands regularly need not wait at its end for a build to let the warehouse go.
_PATIENCE_S = 5.0
_CONTENT = re.compile(r"@(kline|aggTrade|depth|markPrice|forceOrder)(?![a-z])")
_DEPTH = re.compile(r"(\w+)@depth")
_COMBINED = re.compile(r'\{\s*"stream"\s*:\s*"([^"]*)"')
_log = logs.logger("recorder")


def now_us() -> int:
    """Return the time of this machine's clock, in epoch microseconds."""
    return time.time_ns() // 1000


def record(
    settings: Settings,
    *,
    seconds: float | None = None,
    market: Market | None = None,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    clock: Callable[[], int] = now_us,
    on_message: Callable[[int], None] | None = None,
    silence_s: float = SILENCE_S,
    land_s: float | None = None,
    is_landed: bool = True,
) -> Report:
    """Record candles, trades, books and of USD-M mark prices, open interest and liquidations.

    Everything is in the log before anything else is done with it. A book is kept for each symbol
    and written once a second; where its changes leave a hole, the log says so. Candles that
    closed while nobody listened are asked for. Killed at any moment, it loses nothing that it
    heard. What the log holds lands at the end.

    Parameters
    ----------
    settings : Settings
        Names the warehouse, the logs' directory, the exchange and the bounds of the disk.
    seconds : float, optional
        How long to listen; SIGINT or SIGTERM ends it earlier, and alone without.
    market, symbols, intervals
        The series; those of the settings by default.
    clock : callable
        Gives the time of arrival in epoch microseconds, UTC.
    on_message : callable, optional
        Told the number of messages heard so far.
    silence_s : float
        Seconds without a message after which a connection is taken for dead.
    land_s : float, optional
        What the log holds lands so often already while it listens.
    is_landed : bool
        False leaves landing to `tapehouse land`.

    Returns
    -------
    Report
        What landed, that of earlier interrupted recordings included; silence and a full disk are
        failures.

    Raises
    ------
    ingest.disk.DiskFullError
        If there is no room to begin with.
    ingest.segment_writer.LogBusyError
        If this market is being recorded already.
    """
    market = market or settings.market
    symbols = symbols or settings.symbols
    intervals = intervals or settings.intervals
    addresses = stream_addresses(settings, market, symbols, intervals)
    directory = settings.segments_directory / market
    check_room(settings)
    failures = []
    began_at = time.monotonic()
    with SegmentWriter(directory) as writer:
        recorder = _Recorder(
            settings, market, symbols, intervals, writer, clock, on_message, land_s
        )
        recorder.resume()
        try:
            asyncio.run(recorder.run(addresses, seconds, silence_s))
        except DiskFullError as error:
            failures.append(Failure(str(directory), str(error)))
    if not recorder.count or time.monotonic() - began_at > silence_s:
        silence = "nothing was heard. Check the network, the symbols and TAPEHOUSE_EXCHANGE_URL"
        unheard = [address for address in addresses if address not in recorder.connected]
        failures += [Failure(address, silence) for address in unheard]
    try:
        patience_s = _PATIENCE_S if land_s else settings.writer_timeout_s
        patient = settings.model_copy(update={"writer_timeout_s": patience_s})
        report = drain(patient) if is_landed else Report(())
    except WarehouseBusyError as error:
        report = Report(())
        failures.append(Failure(str(directory), f"not landed yet; `tapehouse land` does: {error}"))
    return replace(report, failures=(*failures, *report.failures))


@dataclass
class _Recorder:
    settings: Settings
    market: Market
    symbols: Sequence[str]
    intervals: Sequence[str]
    writer: SegmentWriter
    clock: Callable[[], int]
    on_message: Callable[[int], None] | None
    land_s: float | None
    count: int = 0
    connected: set[str] = field(default_factory=set)
    _pending: list[Frame] = field(default_factory=list)
    _heard: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _books: dict[str, LiveBook] = field(default_factory=dict)
    # Epoch microseconds until which books are known, those of earlier recordings included.
    _known_until: dict[str, int] = field(default_factory=dict)
    _addresses: dict[int, str] = field(default_factory=dict)
    _landing: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._candles = LiveCandles(self._ask_candles)
        self._requests = LiveRequests(self.settings, self.market, self._say, self.clock)
        self._failed: asyncio.Future[None] | None = None
        self._numbers = itertools.count(int(time.time()))

    def resume(self) -> None:
        """Take up where the log ends: which candles it has, and until when it knows the books."""
        found = past(self.settings.segments_directory / self.market)
        self._candles.resume(found.candles, found.heard)
        self._known_until = found.books

    async def run(self, addresses: Sequence[str], seconds: float | None, silence_s: float) -> None:
        """Listen until the time is over or a signal comes."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self._books = {
            symbol: LiveBook(
                symbol, self._say, self._ask_book, self._known_until.get(symbol, self.clock())
            )
            for symbol in self.symbols
        }
        stop = asyncio.Event()
        with contextlib.suppress(ValueError, RuntimeError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
        tasks = [
            asyncio.create_task(
                follow(
                    self.market,
                    address,
                    on_text=self._hear,
                    on_event=self._tell,
                    numbers=self._numbers,
                    silence_s=silence_s,
                )
            )
            for address in addresses
        ]
        tasks.append(asyncio.create_task(self._keep_house()))
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), self._failed, *tasks]
        try:
            done, _ = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._requests.close()
            for task in (*ends, *self._tasks):
                task.cancel()
            await asyncio.wait([*tasks, *self._tasks])
            self._flush()
            self._count_heard()

    def _hear(self, text: str, connection: int) -> None:
        combined = _COMBINED.match(text)
        stream = combined[1] if combined else ""
        frame = Frame(self.clock(), stream, text.encode(), connection)
        self._append(frame)
        self.count += 1
        self._heard[stream] += 1
        if self.on_message:
            self.on_message(self.count)
        name, _, content = stream.partition("@")
        try:
            if content.startswith("depth"):
                book = self._books.get(name.upper())
                if book and not book.take(Change.of(message(frame))):
                    health.GAPS.labels("book").inc()
            elif content.startswith("kline_"):
                data = message(frame)
                self._candles.take(data)
                lag_s = frame.received_at / 1e6 - data["E"] / 1e3
                health.FRAME_LAG.labels("kline").observe(lag_s)
        except NO_MESSAGE as error:
            health.BAD_FRAMES.labels("unreadable").inc()
            _log.warning("unreadable", stream=stream, error=str(error), length=len(text))

    def _say(self, stream: str, payload: bytes) -> None:
        self._append(Frame(self.clock(), stream, payload))

    def _tell(self, event: str, connection: int, remark: str) -> None:
        if event == "connected":
            self.connected.add(remark)
            self._addresses[connection] = remark
        else:
            health.RECONNECTS.labels(event).inc()
        tell = _log.warning if event == "disconnected" else _log.info
        tell(event, connection=connection, remark=remark)
        said = {"event": event, "connection": connection, "remark": remark}
        self._say(RECORDER, orjson.dumps(said))
        if event == "disconnected":
            for name in _DEPTH.findall(self._addresses.pop(connection, "")):
                if book := self._books.get(name.upper()):
                    book.interrupt()

    def _append(self, frame: Frame) -> None:
        # What one turn of the loop brings is one write.
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(frame)

    def _flush(self) -> None:
        frames, self._pending = self._pending, []
        if not frames:
            return
        try:
            self.writer.append_all(frames)
        except OSError as error:
            self._fail(DiskFullError(f"the log cannot be written: {error}"))

    def _fail(self, error: BaseException) -> None:
        if self._failed and not self._failed.done():
            self._failed.set_exception(error)

    def _ask_book(self, book: LiveBook) -> None:
        self._start(self._requests.book(book))

    def _ask_candles(self, symbol: str, interval: str, start: int, end: int) -> None:
        self._start(self._requests.candles(self._candles, symbol, interval, start, end))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    async def _keep_house(self) -> None:
        due = dict.fromkeys(("heartbeat", "clock", "open interest"), 0.0)
        if self.land_s:
            due["landing"] = time.monotonic() + self.land_s
        while True:
            check_reserve(self.settings)
            self._count_heard()
            now = time.monotonic()
            for name in [name for name, at in due.items() if at <= now]:
                if name == "heartbeat":
                    await self._beat()
                elif name == "clock":
                    self._start(self._requests.clock_skew())
                elif name == "landing":
                    if self._landing is None or self._landing.done():
                        self._landing = self._start(self._land())
                elif self.market == "um":
                    self._start(self._requests.open_interest(self.symbols))
                due[name] = now + (self.land_s or 0.0 if name == "landing" else _EVERY_S[name])
            await asyncio.sleep(1.0)

    def _count_heard(self) -> None:
        heard, self._heard = self._heard, Counter()
        if heard:
            health.LAST_FRAME.set_to_current_time()
        for stream, count in heard.items():
            found = _CONTENT.search(stream)
            health.FRAMES.labels(found[1] if found else "other").inc(count)

    async def _beat(self) -> None:
        # A thread looks at the files, which are many after months.
        health.SEGMENT_BYTES.set(await asyncio.to_thread(check_room, self.settings))
        gaps = [symbol for symbol, book in self._books.items() if not book.is_whole]
        _log.info("heartbeat", messages=self.count, without_book=gaps)
        said: dict[str, Any] = {"event": "heartbeat", "messages": self.count, "without_book": gaps}
        self._known_until |= {symbol: book.known_until for symbol, book in self._books.items()}
        said |= {"candles": self._candles.expected, "books": self._known_until}
        self._say(RECORDER, orjson.dumps(said))

    async def _land(self) -> None:
        """Land in a process of its own; in this one no frame would be heard meanwhile."""
        landing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ingest.drain"),
            env=os.environ | self.settings.environment(),
            start_new_session=True,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            landed, _ = await landing.communicate()
        except asyncio.CancelledError:
            landing.terminate()
            await landing.wait()
            raise
        if landing.returncode:
            _log.warning("not landed", code=landing.returncode)
            return
        health.LAST_LANDING.set_to_current_time()
        for line in landed.decode().splitlines():
            kind, count = line.split()
            health.LANDED.labels(kind).inc(int(count))
