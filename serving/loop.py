"""The scoring loop: a closed bar becomes features, answers of models, and signals on disk."""

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from ingest import health, logs
from ingest.intervals import INTERVALS_US, MINUTE_US
from ingest.segments import START, Cursor, Frame, SegmentReader
from ingest.settings import Settings
from serving.bars import AHEAD, Close, Closes, newest_ends
from serving.late import LateKlines
from serving.models import Probabilities
from serving.online import LATE_BARS, OnlineFeatures
from serving.outbox import REPEATED, Outbox
from serving.prepare import CATCH_UP, REGIMES, Prepared
from serving.said import Said, ask
from serving.tape import Tape

POLL_S = 0.002
#: How often what does not wait for a close is computed.
ADVANCE_S = 2.0
#: When a minute is over its tape is computed so much later: before the exchange sends its candles.
MINUTE_S = 0.05
#: What was computed is planned for its next run so much later: after the candles of the minute.
PLAN_S = 1.0
#: How often rows that no later bar needs are dropped while no bar closes; after a close they are.
TIDY_S = 60.0
#: Frames may be so much newer than the clock.
CLOCK_STEP = timedelta(seconds=5)
#: The first symbol of a close waits so long for the others.
STRAGGLERS = timedelta(milliseconds=250)
BARS_MODEL = "int_bars"
_CLOSED = re.compile(rb'"x":\s*true')
_EPOCH = datetime(1970, 1, 1)
_log = logs.logger("loop")
Signal = Mapping[str, Any]


class Loop:
    """Follows the recorder's log and says what the models think of each closed bar.

    Parameters
    ----------
    settings : Settings
        Names the market and the logs.
    prepared : Prepared
        Models, queries and rules.
    probabilities : callable
        Who is asked.
    announce : callable
        Told each signal once it is on disk.
    clock : callable
        Gives the time, naive UTC.
    on_said : callable
        Called once the signals of a close are on disk.
    after : datetime, optional
        Versions that were not asked before are asked about the bars that close after this moment,
        naive UTC; by default the close that was said last or, if none was, the present.
    late_from : datetime, optional
        Opening of the first bar of which the loop before left klines out, naive UTC: the bars since
        then are made up for.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        *,
        probabilities: Probabilities,
        announce: Callable[[Signal], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(tzinfo=None),
        on_said: Callable[[], None] = lambda: None,
        after: datetime | None = None,
        late_from: datetime | None = None,
    ) -> None:
        self._on_said = on_said
        self._made_up_from = late_from
        self._late = LateKlines(timedelta(minutes=max(prepared.intervals)))
        self.prepared = prepared
        self._after = after
        self._promoted: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
        self._probabilities = probabilities
        self._announce = announce
        self._clock = clock
        self._stop = threading.Event()
        self._exit = ExitStack()
        self._features = OnlineFeatures(prepared.lineage, prepared.plan)
        self._exit.callback(self._features.close)
        self._sources = {source.name: source for source in prepared.plan.sources}
        self._tape = Tape(settings.exchange, settings.market, list(self._sources))
        self._exit.callback(self._tape.close)
        self._market = settings.market
        self._log = settings.segments_directory / settings.market
        self._outbox = self._exit.enter_context(Outbox(settings.outbox_directory, prepared.signals))
        self._closes = Closes(prepared.intervals, STRAGGLERS)
        self._heard_us = 0
        self._candle_at: datetime | None = None
        self._advanced_at = 0.0
        self._advanced_until = _EPOCH
        self._is_planned = True
        self._tidied_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def since(self) -> datetime:
        """Return the opening of the first bar that may still have to be said, naive UTC."""
        last = self._outbox.last_closed_at
        first = min((last or _EPOCH) - LATE_BARS, self._made_up_from or datetime.max)
        self._outbox.forget(max(self._clock() - CATCH_UP, first))
        versions = self._begin(self._after or last or self._clock())
        first = min(self._outbox.since(version) for version in versions)
        return first - timedelta(minutes=max(self.prepared.intervals))

    def start(self, landed: Mapping[str, pa.Table]) -> None:
        """Begin with the rows of the warehouse, by relation, and what was heard since."""
        log = f"websocket:{self._market}@"
        place = max((_last_landed(rows, log) for rows in landed.values()), default=START)
        self._reader = self._exit.enter_context(SegmentReader(self._log, place))
        parts = {relation: [rows] for relation, rows in landed.items()}
        while frames := self._reader.read():
            self._hear(frames)
            for kind, rows in self._tape.take().items():
                relation = self._sources[kind].relation
                parts[relation].append(rows.cast(parts[relation][0].schema))
        rows = {relation: pa.concat_tables(some) for relation, some in parts.items()}
        results = self._features.start(rows, now=self._now())
        bars = results[BARS_MODEL]
        intervals = self.prepared.intervals
        closed_at = self._resume(newest_ends(bars, intervals, until=self._clock() + AHEAD))
        recent = self._clock().replace(tzinfo=UTC) - REPEATED
        for signal in self._outbox.unannounced:
            if signal["served_at"] >= recent:
                self._tell(signal)
        ended = {name: _closed_until(rows, closed_at) for name, rows in results.items()}
        self._say(ended, heard_at=self._now())
        _log.info("started", models=len(self.prepared.asked), bars=len(bars))

    def _resume(self, ended: dict[datetime, set[str]]) -> datetime:
        """Go on with the newest bars as if they had just come: of some symbols they may not have.

        Returns
        -------
        datetime
            The close of those before them.
        """
        newest = max(ended, default=_EPOCH)
        now, symbols = self._clock(), ended.pop(newest, set())
        self._closes.skip_to(ended)
        minute = timedelta(minutes=1)
        self._closes.add((symbol, newest - minute, 1, now) for symbol in sorted(symbols))
        return max(ended, default=_EPOCH)

    def adopt(self, prepared: Prepared) -> None:
        """Have `run` go on with other models, thresholds or rules; from any thread."""
        self._promoted.put(prepared)

    def run(self) -> Prepared | None:
        """Follow the log until `stop`.

        Returns
        -------
        Prepared or None
            What a new loop is to go on with, if models were promoted that need features which
            this one does not compute, or if it has left klines out; None once it was stopped.
        """
        while not self._stop.is_set():
            if successor := self.follow_promotions():
                return successor
            if self._late.is_over():
                return self.prepared
            if not self.step():
                self._stop.wait(POLL_S)
        return None

    def follow_promotions(self) -> Prepared | None:
        """Go on with what was adopted last; return it if only a new loop can."""
        adopted = None
        while not self._promoted.empty():
            if adopted:
                adopted.decisions.close()
            adopted = self._promoted.get()
        if adopted is None or adopted.plan != self.prepared.plan:
            return adopted
        self.prepared.decisions.close()
        self.prepared = adopted
        self._begin(self.last_closed_at or self._clock())
        _log.info("models", asked=[each.model.version for each in adopted.asked])
        return None

    @property
    def last_closed_at(self) -> datetime | None:
        """The close of the newest bars that were computed, naive UTC."""
        return self._closes.last_closed_at

    @property
    def late_from(self) -> datetime | None:
        """The opening of the first bar of which this loop left klines out, naive UTC."""
        return self._late.opened_at

    def stop(self, *_: object) -> None:
        """Have `run` return once what it is doing is done."""
        self._stop.set()

    def step(self) -> bool:
        """Do what there is to do; return whether there was anything."""
        frames = self._reader.read()
        if self._hear(frames):
            self._take()
        if close := self._closes.due(self._clock()):
            self._close(close)
        elif self._is_time_to_advance():
            self._advanced_at, self._advanced_until = time.monotonic(), self._now()
            self._take()
            self._features.advance(self._now())
            self._is_planned = False
            if time.monotonic() - self._tidied_at >= TIDY_S and not self._is_waiting():
                self._tidy()
        elif not self._is_planned and time.monotonic() - self._advanced_at >= PLAN_S:
            self._plan_ahead()
        else:
            return bool(frames)
        return True

    def _begin(self, at: datetime) -> list[str]:
        """Say who is asked, those who are new from a moment on; return all, and the rules."""
        versions = [each.model.version for each in self.prepared.asked]
        champions = [each.model.version for each in self.prepared.asked if each.stage == "champion"]
        versions.append(self.prepared.decisions.rules_hash(champions))
        self._outbox.start(versions, at=at)
        return versions

    def _hear(self, frames: Sequence[Frame]) -> bool:
        """Remember frames; return whether one of them closes a bar."""
        self._tape.add(frames)
        if frames:
            self._heard_us = max(self._heard_us, frames[-1].received_at)
        return any(
            frame.stream.startswith("rest:klines") or _CLOSED.search(frame.payload)
            for frame in frames
            if "kline" in frame.stream
        )

    def _take(self) -> None:
        now = self._clock()
        for kind, rows in self._tape.take().items():
            heard, rows = len(rows), self._in_time(rows) if kind == "klines" else rows
            rows = self._features.add(self._sources[kind], rows)
            if heard > len(rows):
                health.LATE_BARS.labels(f"{kind} too late").inc(heard - len(rows))
            if kind == "klines" and len(rows):
                self._candle_at = pc.max(rows["received_at"]).as_py().replace(tzinfo=None)
                columns = (rows[name].to_pylist() for name in ("symbol", "open_time", "interval"))
                self._closes.add(
                    (
                        symbol,
                        opened_at.replace(tzinfo=None),
                        INTERVALS_US[interval] // MINUTE_US,
                        now,
                    )
                    for symbol, opened_at, interval in zip(*columns, strict=True)
                )

    def _in_time(self, klines: pa.Table) -> pa.Table:
        first = self._features.complete_from(self._sources["klines"])
        return self._late.in_time(klines, first, oldest=self._clock() - CATCH_UP)

    def _close(self, close: Close) -> None:
        heard_at = self._now()
        begun = time.perf_counter()
        self._take()
        results = self._features.refresh(close.changed, until=close.closed_at)
        computed = time.perf_counter()
        health.SIGNAL_SECONDS.labels("features").observe(computed - begun)
        if close.is_again:
            health.LATE_BARS.labels("late or again").inc()
        if close.missing:
            health.LATE_BARS.labels("missing").inc(close.missing)
            _log.warning("bars missing", closed_at=str(close.closed_at), symbols=close.missing)
        # Of a later bar some candles may be there: it is said at its own close.
        ended = {name: _closed_until(rows, close.closed_at) for name, rows in results.items()}
        self._say(ended, heard_at=heard_at)
        self._plan_ahead()
        if not self._is_waiting():
            self._tidy()
        health.LAST_BAR.set(close.closed_at.replace(tzinfo=UTC).timestamp())

    def _is_time_to_advance(self) -> bool:
        now = self._now()
        minute = now.replace(second=0, microsecond=0)
        if self._advanced_until < minute and now - minute >= timedelta(seconds=MINUTE_S):
            return True
        # So late in a minute its end would find queries that are not planned again yet.
        is_late = now - minute > timedelta(minutes=1, seconds=-ADVANCE_S)
        return not is_late and time.monotonic() - self._advanced_at >= ADVANCE_S

    def _plan_ahead(self) -> None:
        self._features.plan_ahead()
        self.prepared.decisions.plan_ahead()
        self._is_planned = True

    def _tidy(self) -> None:
        self._tidied_at = time.monotonic()
        self._features.forget(self._now())
        self._outbox.forget(min(self._clock(), self.last_closed_at or datetime.max) - CATCH_UP)

    def _is_waiting(self) -> bool:
        return self._closes.is_waiting(self._clock())

    def _say(self, results: Mapping[str, pa.Table], *, heard_at: datetime) -> None:
        begun = time.perf_counter()
        answers = ask(
            self.prepared, results, since=self._outbox.since, probabilities=self._probabilities
        )
        if not answers:
            return
        said = Said(self.prepared, answers, results[REGIMES], since=self._outbox.since)
        signals = self._outbox.new(said.signals(heard_at=heard_at, served_at=self._clock()))
        asked = time.perf_counter()
        health.SIGNAL_SECONDS.labels("models").observe(asked - begun)
        if not len(signals):
            return
        served_at = self._clock()
        self._outbox.say(signals, said.features(signals, served_at=served_at), at=served_at)
        self._on_said()
        health.SIGNAL_SECONDS.labels("durable").observe(time.perf_counter() - asked)
        total = (self._clock() - (self._candle_at or heard_at)).total_seconds()
        health.SIGNAL_SECONDS.labels("total").observe(max(total, 0))
        health.LAST_SIGNAL.set_to_current_time()
        bars = signals.group_by(["exchange", "market", "symbol", "interval_minutes", "opened_at"])
        health.BARS.inc(len(bars.aggregate([])))
        for signal in signals.to_pylist():
            health.SIGNALS.labels(signal["model_name"]).inc()
            self._tell(signal)

    def _tell(self, signal: Signal) -> None:
        """Announce a signal to trade by, unless the bar closed too long ago."""
        if signal["signal"] and signal["stage"] != "shadow" and not signal["is_late"]:
            self._announce(signal)

    def _now(self) -> datetime:
        """Return when the newest frame arrived, naive UTC, if the clock agrees; else its time."""
        now = self._clock()
        if not self._heard_us:
            return now
        return min(_EPOCH + timedelta(microseconds=self._heard_us), now + CLOCK_STEP)


def _closed_until(rows: pa.Table, closed_at: datetime) -> pa.Table:
    if "closed_at" not in rows.column_names:
        return rows
    return rows.filter(pc.less_equal(rows["closed_at"], pa.scalar(closed_at, pa.timestamp("us"))))


def _last_landed(rows: pa.Table, log: str) -> Cursor:
    """Return where the newest stretch of a log began that rows have landed of."""
    found = (source for source in pc.unique(rows["source"]).to_pylist() if source)
    places = (source.removeprefix(log) for source in found if source.startswith(log))
    return max(map(Cursor.parse, places), default=START)
