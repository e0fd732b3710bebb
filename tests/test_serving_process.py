"""The scoring loop as a process: killed, shut out of the warehouse for hours, begun anew."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ingest import outbox, warehouse
from ingest.drain import drain, waiting
from ingest.segments import Frame, SegmentReader
from ingest.settings import PROJECT_ROOT
from ingest.simulator import Market
from ml import registry
from tests.registry_fixtures import add_version, logistic, promote
from tests.serving_fixtures import SYMBOLS, built, ingested, market, start_of_last_day
from tests.serving_tape import MODEL, Tape, at, holding

__all__ = ["built", "ingested", "market"]

PATIENCE_S = 120.0
BAR = timedelta(minutes=5)


class Process:
    """A loop in a process of its own, and the recorder that it hears: the test."""

    def __init__(self, tape: Tape, directory: Path) -> None:
        self.tape = tape
        self.directory = directory
        directory.mkdir()
        self._played = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._now = tape.start
        self.wait(tape.start)

    def start(self) -> None:
        (self.directory / "ready").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "tests/serving_process.py", str(self.directory)],
            env=os.environ | self.tape.settings.environment() | {"PYTHONPATH": "."},
            cwd=PROJECT_ROOT,
        )
        self.wait_for(lambda: self.loops == 1)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def loops(self) -> int:
        """How many loops this process has begun."""
        note = self.directory / "ready"
        return int(note.read_text() or 0) if note.exists() else 0

    def play(self, until: datetime) -> None:
        """Write what a recorder hears until a moment, minute by minute."""
        minutes: dict[int, list[Frame]] = {}
        for frame in self.tape.frames[self._played :]:
            if at(frame.received_at) >= until:
                break
            minutes.setdefault(frame.received_at // 60_000_000, []).append(frame)
        for minute, heard in minutes.items():
            self.tape.writer.append_all(heard)
            self._played += len(heard)
            self.wait(at((minute + 1) * 60_000_000))

    def wait(self, until: datetime) -> None:
        """Have the clock show a moment, unless it is past."""
        self._now = max(self._now, until)
        part = self.directory / "clock.part"
        part.write_text(str((self._now - datetime(1970, 1, 1)) // timedelta(microseconds=1)))
        part.replace(self.directory / "clock")

    def wait_until_said(self, opened_at: datetime) -> None:
        """Wait until every symbol's bar of a moment was said."""
        self.wait_for(lambda: {row[1] for row in self.said() if row[0] == opened_at} == {*SYMBOLS})

    def said(self) -> list[tuple[datetime, str]]:
        """The bars of which the outbox has a row, by the features' rows."""
        found = []
        with SegmentReader(self.tape.settings.outbox_directory) as reader:
            while frames := reader.read():
                rows = outbox.rows(frames).get("served_features")
                if rows is not None:
                    opened = [each.replace(tzinfo=None) for each in rows["opened_at"].to_pylist()]
                    found += list(zip(opened, rows["symbol"].to_pylist(), strict=True))
        return found

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._process
            assert self._process.poll() is None, "the loop ended by itself"
            assert time.monotonic() < until, "the loop did not get so far"
            time.sleep(0.05)


@contextmanager
def loop_over(
    built: Path, market: Market, directory: Path, *, bars: int
) -> Iterator[tuple[Tape, Process]]:
    start = start_of_last_day(market) + timedelta(hours=3)
    tape = Tape(built, directory / "warehouse", start, start + bars * BAR)
    process = Process(tape, directory / "loop")
    try:
        yield tape, process
    finally:
        process.kill()
        tape.writer.close()


@pytest.mark.long
def test_what_is_said_in_an_outage_of_hours_with_kills_lands_once(
    built: Path, market: Market, tmp_path: Path
) -> None:
    with loop_over(built, market, tmp_path, bars=27) as (tape, process):
        settings = tape.settings
        warehouse.publish_snapshot(settings.database)
        hour = tape.start + timedelta(hours=1)
        with holding(settings.database):
            process.start()
            process.play(tape.start + 3 * BAR + timedelta(minutes=1))
            process.wait_until_said(tape.start + 2 * BAR)
            process.kill()
            process.play(hour + timedelta(minutes=2))
            process.start()
            process.wait_until_said(hour - BAR)
            process.play(hour + BAR + timedelta(minutes=1))
            process.wait_until_said(hour)
            process.play(tape.end - 2 * BAR)
            process.kill()
            process.play(tape.end + timedelta(minutes=1))
            process.start()
            process.wait_until_said(tape.end - BAR)
            with pytest.raises(warehouse.WarehouseBusyError):
                drain(settings.model_copy(update={"writer_timeout_s": 0.1}))
            assert waiting(settings.outbox_directory) >= 4
        assert tape.said() == tape.expected
        process.kill()
        process.start()
        assert drain(settings).row_count == 0
        with warehouse.reading(settings.database) as connection:
            counts = connection.execute(
                "select dataset, count(*), count(distinct (symbol, opened_at)) "
                "from raw.served_features group by all"
            ).fetchall()
    bars = 27 * len(SYMBOLS)
    assert counts == [("ds_order_flow", bars, bars)]


@pytest.mark.long
def test_promotions_that_need_other_features_lose_and_double_no_bar_also_while_no_loop_runs(
    built: Path, market: Market, tmp_path: Path
) -> None:
    with loop_over(built, market, tmp_path, bars=8) as (tape, process):
        database = tape.settings.database
        with warehouse.writing(database) as connection:
            whole = {
                model.name: model
                for model in registry.active_models(connection, role=None)
                if model.role in ("signal", "member") and "stacked" not in model.name
            }
            narrow = {}
            for name, model in whole.items():
                version = add_version(
                    connection, name, logistic([0.0] * 3), features=model.features[:3], stage="x"
                )
                promote(connection, name, version)
                narrow[name] = version
        process.start()
        process.play(tape.start + 2 * BAR + timedelta(minutes=1))
        process.wait_until_said(tape.start + BAR)
        with warehouse.writing(database) as connection:
            for name, model in whole.items():
                promote(connection, name, model.version)
        process.wait(tape.start + 5 * BAR)
        process.wait_for(lambda: process.loops == 2)
        process.play(tape.end - 2 * BAR + timedelta(minutes=1))
        process.wait_until_said(tape.end - 3 * BAR)
        process.kill()
        with warehouse.writing(database) as connection:
            for name, version in narrow.items():
                promote(connection, name, version)
        process.play(tape.end + timedelta(minutes=1))
        process.start()
        process.wait_until_said(tape.end - BAR)
        said = tape.said()["champions"]
    assert {row[2] for row in said} == {narrow[MODEL], whole[MODEL].version}
    assert {row[2] for row in said if row[1] >= tape.end - 2 * BAR} == {narrow[MODEL]}
    bars = [(symbol, tape.start + number * BAR) for symbol in SYMBOLS for number in range(8)]
    assert [row[:2] for row in said] == bars
    taken_up = [row for row in said if row[2] == whole[MODEL].version]
    until = (taken_up[0][1], tape.end - 2 * BAR)
    assert taken_up == [row for row in tape.expected["champions"] if until[0] <= row[1] < until[1]]
