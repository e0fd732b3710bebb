"""The processes of the live chain: started in a moment, killed at any."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Self

from ingest import health, messages, outbox, warehouse
from ingest.drain import drain
from ingest.history import ingest_history
from ingest.recorder import record
from ingest.segments import SegmentReader
from ingest.service_settings import Services
from ingest.settings import Settings
from ingest.simulator import Market, Simulator, simulator
from serving.serve import serve

SYMBOLS = ("BTCUSDT", "ETHUSDT")
INTERVAL = timedelta(minutes=5)
PATIENCE_S = 60.0
COMPILATION_S = 300.0
_HOLDING_S = 2.0
#: Who is killed is down, and who is paused stands still, for so long at most.
LONGEST_PAUSE_S = 4.0


@dataclass(frozen=True)
class Stage:
    """Where the chain runs, and the clock it goes by: that of the exchange.

    Parameters
    ----------
    settings : Settings
        Of the warehouse, with the model trained on the days before `start`.
    start : datetime
        UTC; when the recording begins.
    speed : float
        Simulated seconds per second.
    begun_at : float
        Monotonic time at `start`.
    """

    settings: Settings
    start: datetime
    speed: float = 0.0
    begun_at: float = 0.0

    def on(self, exchange: Simulator) -> "Stage":
        """Return the stage with the exchange's address and clock."""
        settings = self.settings.model_copy(update={"exchange_url": exchange.url})
        ahead = exchange.clock.now() / 1e6 - self.start.timestamp()
        speed = exchange.clock.speed
        return replace(
            self, settings=settings, speed=speed, begun_at=time.monotonic() - ahead / speed
        )

    def now_us(self) -> int:
        """Return simulated epoch microseconds; the monotonic clock is that of all processes."""
        passed = (time.monotonic() - self.begun_at) * self.speed
        return int(self.start.timestamp() * 1e6) + int(passed * 1e6)

    @property
    def directory(self) -> Path:
        """Everything that the run leaves behind."""
        return self.settings.database.parent


@dataclass(frozen=True)
class Check:
    """Something that must hold, and whether it does."""

    name: str
    expected: str
    found: str
    is_good: bool
    examples: tuple[str, ...] = ()


def prepared(
    market: Market, directory: Path, build: Callable[..., str], *, history: timedelta
) -> Stage:
    """Ingest the market's first days and train on them.

    Parameters
    ----------
    market : Market
        With more days than are ingested.
    directory : Path
        Empty.
    build : callable
        Runs dbt: takes the warehouse's path and dbt's arguments.
    history : timedelta
        How much is ingested.
    """
    start = market.start + history
    settings = Settings(database=directory / "tapehouse.duckdb", symbols=list(SYMBOLS))
    with simulator(market, now=start) as exchange:
        source = settings.model_copy(update={"exchange_url": exchange.url})
        for kind in ("klines", "trades", "funding"):
            ingest_history(source, kind, start=market.start)
    wanted = ("+sig_order_flow", "+int_volatility_regimes", "ensembles")
    build(settings.database, "build", "--select", *wanted)
    return Stage(settings, start)


def _recorder(stage: Stage) -> None:
    record(stage.settings, market="um", clock=stage.now_us, silence_s=2.0)


def _landing(stage: Stage) -> None:
    while True:
        drain(stage.settings)
        time.sleep(0.2)


def _loop(stage: Stage) -> None:
    def announce(signal: Mapping[str, Any]) -> None:
        print(json.dumps(dict(signal), default=str), flush=True)

    def now() -> datetime:
        return datetime.fromtimestamp(stage.now_us() / 1e6, UTC).replace(tzinfo=None)

    def ready(_: object) -> None:
        (stage.directory / "loop.ready").write_text(str(os.getpid()))

    serve(stage.settings, services=Services(), announce=announce, clock=now, ready=ready)


def _holder(stage: Stage) -> None:
    """Hold the warehouse as a build would."""
    with warehouse.writing(stage.settings.database, timeout_s=60.0):
        time.sleep(_HOLDING_S)


ROLES: dict[str, Callable[[Stage], None]] = {
    "recorder": _recorder,
    "loop": _loop,
    "landing": _landing,
}
_ALL = ROLES | {"holder": _holder}


def _run(role: str, stage: Stage, log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    with health.running(stage.settings, role):
        _ALL[role](stage)


@dataclass
class Crew:
    """Starts, kills and starts again.

    Children are forked from a process that has imported everything, so that a start costs
    milliseconds.
    """

    stage: Stage
    kills: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    _living: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Python 3.11 does not hand sys.path on, and says nothing of a failed import.
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "pandas"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._living.values():
            process.kill()
            process.join()

    def start(self) -> None:
        """Start everyone, the recorder first: what nobody has heard of cannot be missed."""
        for role in ROLES:
            self._start(role)
            if role == "recorder":
                wait_for(lambda: set(first_candles(self.stage)) == set(SYMBOLS))
            elif role == "loop":
                wait_for(self._follows, patience_s=COMPILATION_S)

    def kill(self, random: Random) -> None:
        """Kill one of the processes and start it again."""
        self._note_crashes()
        role = random.choice(list(self._living))
        if role == "loop" and not self._follows() and random.random() < 0.8:
            role = random.choice([name for name in self._living if name != "loop"])
        process = self._living.pop(role)
        process.kill()
        process.join()
        self.kills[role] += 1
        if random.random() < 0.15:
            time.sleep(random.uniform(0.0, LONGEST_PAUSE_S))
        if role != "holder":
            self._start(role)
        if "holder" not in self._living and random.random() < 0.1:
            self._start("holder")

    def pause(self, random: Random) -> None:
        """Have one of the processes stand still for a while, as on a machine that sleeps."""
        self._note_crashes()
        role = random.choice(list(self._living))
        os.kill(self._living[role].pid, signal.SIGSTOP)
        time.sleep(random.uniform(0.0, LONGEST_PAUSE_S))
        os.kill(self._living[role].pid, signal.SIGCONT)
        self.pauses[role] += 1

    def settle(self) -> datetime:
        """Let the chain catch up undisturbed, stop it, land the rest.

        Returns
        -------
        datetime
            UTC; the close of the last bar that everything must have come of.
        """
        self._note_crashes()
        end = datetime.fromtimestamp(self.stage.now_us() / 1e6, UTC)
        seconds = INTERVAL.total_seconds()
        end = datetime.fromtimestamp((end.timestamp() // seconds + 1) * seconds, UTC)
        wait_for(lambda: self.stage.now_us() / 1e6 > end.timestamp() + 5)
        wait_for(lambda: self._has_heard(end))
        wait_for(lambda: self._has_said(end))
        for role in ("recorder", "loop", "landing", "holder"):
            process = self._living.pop(role, None)
            if process is not None:
                process.terminate()
                process.join(PATIENCE_S)
                if process.exitcode not in (0, -signal.SIGTERM):
                    self.crashes.append(f"{role} ended with {process.exitcode}")
        drain(self.stage.settings)
        return end

    def told(self) -> str:
        """Return how many were killed, and how many paused."""
        killed = ", ".join(f"{count} {role}" for role, count in sorted(self.kills.items()))
        return f"{killed}; {self.pauses.total()} paused"

    def checks(self) -> list[Check]:
        """Say whether any process ended without being killed."""
        count = len(self.crashes)
        return [
            Check("crashes", "0", str(count), not count, tuple(self.crashes[:3])),
        ]

    def _start(self, role: str) -> None:
        log = str(self.stage.directory / f"{role}.log")
        process = self._context.Process(target=_run, args=(role, self.stage, log), name=role)
        process.start()
        self._living[role] = process

    def _follows(self) -> bool:
        """Whether the present loop has started and follows the log."""
        note = self.stage.directory / "loop.ready"
        return note.exists() and note.read_text() == str(self._living["loop"].pid)

    def _note_crashes(self) -> None:
        for role, process in list(self._living.items()):
            if process.exitcode is None:
                continue
            del self._living[role]
            if role == "holder" and process.exitcode == 0:
                continue
            log = self.stage.directory / f"{role}.log"
            last = log.read_text().strip().splitlines()[-1:] if log.exists() else []
            self.crashes.append(f"{role} ended with {process.exitcode}: {' '.join(last)}")
            if role != "holder":
                self._start(role)

    def _has_heard(self, end: datetime) -> bool:
        """Whether the log holds every closed candle up to a time."""
        heard = {(symbol, opened) for symbol, opened, is_closed in candles(self.stage) if is_closed}
        minute = timedelta(minutes=1)
        return heard >= {
            (symbol, first + minute * number)
            for symbol, first in first_candles(self.stage).items()
            for number in range((end - first) // minute)
        }

    def _has_said(self, end: datetime) -> bool:
        """Whether the outbox holds a signal for each symbol's bar that closed at a time."""
        said = set()
        with SegmentReader(self.stage.settings.outbox_directory) as reader:
            while frames := reader.read():
                served = [frame for frame in frames if frame.stream == outbox.SERVED]
                for row in outbox.rows(served)["signals"].to_pylist() if served else ():
                    said.add((row["symbol"], row["closed_at"]))
        return {(symbol, end) for symbol in SYMBOLS} <= said


def candles(stage: Stage) -> Iterator[tuple[str, datetime, bool]]:
    """Yield symbol, open time (UTC) and whether it is closed of the candles in the log."""
    with SegmentReader(stage.settings.segments_directory / "um") as reader:
        while frames := reader.read():
            for frame in frames:
                if "kline" in frame.stream:
                    with suppress(*messages.NO_MESSAGE):
                        for _, row in messages.parse(frame.stream, messages.message(frame)):
                            opened = datetime.fromtimestamp(int(row["open_time"]) / 1000, UTC)
                            yield row["symbol"], opened, bool(row["is_closed"])


def first_candles(stage: Stage) -> dict[str, datetime]:
    """Return the open time of each symbol's first candle in the log."""
    found: dict[str, datetime] = {}
    for symbol, opened, _ in candles(stage):
        found[symbol] = min(opened, found.get(symbol, opened))
    return found


def wait_for(condition: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> bool:
    """Return whether a condition came to hold in time."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def none(name: str, found: Sequence[Any], total: int) -> Check:
    """Return the check that nothing was found among so many, and that there were any."""
    examples = tuple(" ".join(map(str, row)) for row in found[:3])
    return Check(name, f"0 of {total:,}", f"{len(found):,}", not found and total > 0, examples)
