"""Segments: what the recorder heard, on disk before it is anywhere else."""

import fcntl
import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self

from ingest import messages
from ingest.kinds import KINDS
from ingest.landing import Batch, Entry, Series, land, landed_files, unit
from ingest.report import Report, Tally
from ingest.settings import Market, Settings
from ingest.validation import Origin, check, nothing

SECONDS_PER_SEGMENT = 60.0
_SECONDS_PER_SYNC = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SegmentWriter:
    """Appends messages to a segment and starts a new one every minute.

    A segment grows as ``<market>_<time>.jsonl.part`` and becomes ``<market>_<time>.jsonl.gz``
    in one step. The part is locked while it is written to, so that nobody else finishes it.
    """

    def __init__(self, directory: Path, market: Market, *, clock: Callable[[], datetime]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._market = market
        self._clock = clock
        self._part: BinaryIO | None = None
        self._opened_at = self._synced_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._finish()

    def write(self, stream: str, data: Any) -> None:
        """Append a message of a stream, as received now."""
        received_at = self._clock()
        now = time.monotonic()
        if self._part and now - self._opened_at >= SECONDS_PER_SEGMENT:
            self._finish()
        if self._part is None:
            name = f"{self._market}_{received_at:%Y%m%dT%H%M%S_%f}_{os.getpid()}.jsonl.part"
            self._part = (self._directory / name).open("xb")
            fcntl.flock(self._part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._opened_at = self._synced_at = now
        line = {
            "received_at": (received_at - _EPOCH) // timedelta(microseconds=1),
            "stream": stream,
            "data": data,
        }
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
        self._part.write(text.encode() + b"\n")
        if now - self._synced_at >= _SECONDS_PER_SYNC:
            self._sync()
            self._synced_at = now

    def _sync(self) -> None:
        if self._part:
            self._part.flush()
            os.fsync(self._part.fileno())

    def _finish(self) -> None:
        if self._part is None:
            return
        self._sync()
        _complete(Path(self._part.name))
        self._part.close()
        self._part = None


def recover(directory: Path) -> list[Path]:
    """Complete the segments that an interrupted recorder left; a torn last line is dropped."""
    recovered = []
    for part in sorted(directory.glob("*.jsonl.part")):
        with part.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            recovered.append(_complete(part))
    return recovered


def read_lines(segment: Path) -> Iterator[bytes]:
    """Yield a segment's messages."""
    with gzip.open(segment, "rb") as stream:
        yield from stream


def land_segments(settings: Settings) -> Report:
    """Land every segment that has not landed yet.

    Returns
    -------
    Report
        One line per market and kind of which rows landed.
    """
    recover(settings.segments_directory)
    tally = Tally()

    def batches() -> Iterator[Batch]:
        landed = {kind: landed_files(settings, kind) for kind in messages.STREAM_KINDS}
        for segment in sorted(settings.segments_directory.glob("*.jsonl.gz")):
            market: Market = "spot" if segment.name.startswith("spot_") else "um"
            sha256 = hashlib.sha256(segment.read_bytes()).hexdigest()
            missing = [
                kind
                for kind in messages.STREAM_KINDS
                if (Series(kind, market, None), sha256) not in landed[kind]
            ]
            tables = messages.rows(read_lines(segment)) if missing else {}
            source = f"websocket:{segment.name}"
            origin = Origin(settings.exchange, market, source, datetime.now(UTC))
            for name in messages.STREAM_KINDS:
                series = Series(name, market, None)
                kind = KINDS[name]
                if name not in missing:
                    continue
                table = tables.get(name)
                checked = nothing(kind) if table is None else check(kind, table, origin)
                yield from unit([checked], Entry(series, source, sha256))

    report = tally.report(land(settings, batches()))
    return replace(report, lines=tuple(line for line in report.lines if line.row_count))


def _complete(part: Path) -> Path:
    segment = part.with_name(part.name.removesuffix(".part") + ".gz")
    compressed = segment.with_name(f"{segment.name}.part")
    with (
        part.open("rb") as source,
        compressed.open("wb") as target,
        gzip.GzipFile(fileobj=target, mode="wb", mtime=0, filename="") as packed,
    ):
        for line in source:
            if line.endswith(b"\n"):
                packed.write(line)
    with compressed.open("rb") as written:
        os.fsync(written.fileno())
    compressed.replace(segment)
    part.unlink()
    return segment
