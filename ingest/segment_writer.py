"""The writer of a log; ``ingest.segments`` says what a log is."""

import fcntl
import os
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa

from ingest.segments import HEADER, MAGIC, Cursor, Frame, encode, segments

SYNC_S = 1.0
SEGMENT_S = 300.0
SEGMENT_BYTES = 32 << 20
_COMPRESSION_LEVEL = 6


class LogBusyError(RuntimeError):
    """Another process is writing this log."""


class SegmentWriter:
    """Appends frames to a log; every reader sees a frame as soon as ``append`` returns.

    A thread of its own makes them durable every ``sync_s`` seconds and compresses what is sealed.
    What an interrupted writer left is sealed first.

    Parameters
    ----------
    directory : Path
        The log; created where missing.
    sync_s : float
        A power failure loses at most what was appended in so many seconds; a killed process
        loses nothing.
    segment_bytes, segment_s
        A segment is sealed once it is so large or so old.

    Raises
    ------
    LogBusyError
        If another process writes this log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sync_s: float = SYNC_S,
        segment_bytes: int = SEGMENT_BYTES,
        segment_s: float = SEGMENT_S,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._sync_s, self._segment_bytes, self._segment_s = sync_s, segment_bytes, segment_s
        self._taken = _take(directory)
        for path in directory.glob("*.frames.part"):
            path.rename(path.with_suffix(""))
        found = segments(directory)
        self._cursor = Cursor(max(found, default=0), 0)
        self._part: int | None = None
        self._opened_at = 0.0
        self._swapping = threading.Lock()
        self._sealed: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._fault: OSError | None = None
        for path in found.values():
            if path.suffix != ".zst":
                self._sealed.put(path)
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {directory}")
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def cursor(self) -> Cursor:
        """The place after the last frame appended."""
        return self._cursor

    def append(self, frame: Frame) -> None:
        """Append a frame."""
        self.append_all((frame,))

    def append_all(self, frames: Sequence[Frame]) -> None:
        """Append frames that readers see one by one, in one write.

        Raises
        ------
        OSError
            If the disk did not take it; the log then ends where it ended before.
        """
        if self._fault:
            raise self._fault
        now = time.monotonic()
        if self._part is not None and (
            self._cursor.offset >= self._segment_bytes or now - self._opened_at >= self._segment_s
        ):
            self.seal()
        part = self._open(now) if self._part is None else self._part
        content = b"".join(map(encode, frames))
        segment, offset = self._cursor
        try:
            written = os.write(part, content)
            while written < len(content):
                written += os.write(part, content[written:])
        except OSError:
            os.ftruncate(part, offset)
            raise
        self._cursor = Cursor(segment, offset + len(content))

    def sync(self) -> None:
        """Return once all that was appended is on the disk."""
        with self._swapping:
            copy = None if self._part is None else os.dup(self._part)
        if copy is not None:
            try:
                os.fsync(copy)
            finally:
                os.close(copy)

    def seal(self) -> None:
        """End the present segment; the next frame begins another."""
        if self._part is None:
            return
        self.sync()
        part = self._directory / f"{self._cursor.segment}.frames.part"
        with self._swapping:
            os.close(self._part)
            self._part = None
        sealed = part.rename(part.with_suffix(""))
        _sync_directory(self._directory)
        self._sealed.put(sealed)

    def close(self) -> None:
        """Seal, compress and let the log go."""
        try:
            self.seal()
        finally:
            self._sealed.put(None)
            self._keeper.join()
            os.close(self._taken)
        if self._fault:
            raise self._fault

    def _open(self, now: float) -> int:
        number = max(self._cursor.segment + 1, time.time_ns() // 1_000_000)
        path = self._directory / f"{number}.frames.part"
        fresh = path.with_suffix(".new")
        part = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.write(part, HEADER.pack(MAGIC, self._cursor.segment))
        fresh.rename(path)
        _sync_directory(self._directory)
        self._cursor, self._opened_at = Cursor(number, HEADER.size), now
        with self._swapping:
            self._part = part
        return part

    def _keep(self) -> None:
        while True:
            try:
                sealed = self._sealed.get(timeout=self._sync_s)
            except queue.Empty:
                sealed = None
            else:
                if sealed is None:
                    return
            try:
                if sealed:
                    _compress(sealed)
                self.sync()
            except OSError as error:
                self._fault = error


def _take(directory: Path) -> int:
    taken = os.open(directory / ".writer", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(taken, 20, 0).decode() or "unknown"
        os.close(taken)
        raise LogBusyError(
            f"{directory} is being written by process {holder}: one at a time can; stop it first"
        ) from error
    os.ftruncate(taken, 0)
    os.pwrite(taken, str(os.getpid()).encode(), 0)
    return taken


def _compress(sealed: Path) -> None:
    packed = pa.Codec("zstd", compression_level=_COMPRESSION_LEVEL).compress(sealed.read_bytes())
    partial = sealed.with_name(f"{sealed.name}.zst.part")
    with partial.open("wb") as target:
        target.write(packed)
        target.flush()
        os.fsync(target.fileno())
    partial.rename(partial.with_suffix(""))
    sealed.unlink()


def _sync_directory(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
