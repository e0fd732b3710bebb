"""The durable log: what was heard, or said, on disk before it is anywhere else.

A log is a directory of segments with one writer and any number of readers. A segment's name is
its number; numbers rise and never come back. It grows as ``<number>.frames.part``, is sealed by a
rename to ``<number>.frames``, and is then compressed to ``<number>.frames.zst``. A cursor counts
the bytes before compression, so it means the same in all three.

A segment is ``TAPEHSE1``, the number of the segment before it, and frames: length and CRC-32 of
the body, then the body. Numbers are little-endian.
"""

import bisect
import contextlib
import math
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

MAGIC = b"TAPEHSE1"
HEADER = struct.Struct("<8sQ")
_HEAD = struct.Struct("<II")
# Arrival, connection, length of the stream's name.
_BODY = struct.Struct("<qIH")
_LARGEST_FRAME = 16 << 20
_CHUNK = 1 << 20
_STATES = (".frames.part", ".frames", ".frames.zst")
# The times of a directory move in steps of the kernel's clock: until then it may change unseen.
_UNSETTLED_NS = 50_000_000


class Frame(NamedTuple):
    """What arrived: ``received_at`` in epoch microseconds, and the payload as it came.

    ``stream`` names what it belongs to; ``connection`` tells the connections of a stream apart.
    """

    received_at: int
    stream: str
    payload: bytes
    connection: int = 0


class Cursor(NamedTuple):
    """A place between two frames: a segment's number and the bytes before the place."""

    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.segment}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that was written as ``<segment>:<offset>``."""
        segment, _, offset = text.partition(":")
        return cls(int(segment), int(offset))


START = Cursor(0, 0)


def encode(frame: Frame) -> bytes:
    """Return a frame as it is written."""
    name = frame.stream.encode()
    body = b"".join(
        (_BODY.pack(frame.received_at, frame.connection, len(name)), name, frame.payload)
    )
    if len(body) + _HEAD.size > _LARGEST_FRAME:
        raise ValueError(f"expected a frame of at most {_LARGEST_FRAME} bytes, found {len(body)}")
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def segments(directory: Path) -> dict[int, Path]:
    """Return the segments of a log by their numbers, in order."""
    return {number: directory / name for number, name in _names(directory).items()}


def _names(directory: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    # After months there are many, and making paths of them takes most of the time.
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as files:
        for file in files:
            number, _, state = file.name.partition(".")
            if f".{state}" in _STATES:
                found[int(number)] = file.name
    return dict(sorted(found.items()))


class SegmentReader:
    """Reads a log on from a cursor, also while it grows.

    It gives whole frames whose checksum is right. At the end of the last segment it waits for
    more; bytes at the end of an earlier one that are no frame were left by a killed writer and
    are passed over.

    Parameters
    ----------
    directory : Path
        The log, which may not exist yet.
    cursor : Cursor
        Where to go on; ``START`` is the oldest frame there is.
    last : int, optional
        Number of the last segment to read; without, there is always another.
    """

    def __init__(self, directory: Path, cursor: Cursor = START, *, last: int | None = None) -> None:
        self._directory = directory
        self._cursor = cursor
        self._last = math.inf if last is None else last
        self._file: int | None = None
        self._content: memoryview | None = None
        self._seen_at_ns = self._changed_at_ns = -1
        self._numbers: list[int] = []
        self._passed = cursor.segment if cursor.offset else 0
        self.damaged_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def cursor(self) -> Cursor:
        """The place after the last frame given; a later reader goes on from there."""
        return self._cursor

    def read(self, limit: int = 10_000) -> list[Frame]:
        """Return the next frames, at most ``limit``; none if there are no more at present."""
        frames: list[Frame] = []
        while len(frames) < limit:
            following = self._following()
            if self._is_closed() and not self._open(following):
                break
            count = len(frames)
            rest = self._parse(frames, limit)
            if len(frames) == count:
                if following is None:
                    break
                self.damaged_bytes += rest
                self._passed = self._cursor.segment
                self.close()
                self._cursor = Cursor(following, 0)
        return frames

    def close(self) -> None:
        """Let the present segment go; ``read`` opens it again."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._content = None

    def _is_closed(self) -> bool:
        return self._file is None and self._content is None

    def _following(self) -> int | None:
        """Return the number of a later segment; the present one then grows no more."""
        try:
            changed_at_ns = self._directory.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if changed_at_ns != self._changed_at_ns or self._seen_at_ns - changed_at_ns < _UNSETTLED_NS:
            self._changed_at_ns, self._seen_at_ns = changed_at_ns, time.time_ns()
            self._numbers = list(_names(self._directory))
        place = bisect.bisect_right(self._numbers, self._cursor.segment)
        following = self._numbers[place] if place < len(self._numbers) else None
        return following if following is not None and following <= self._last else None

    def _open(self, following: int | None) -> bool:
        """Open the cursor's segment, or where that is gone the oldest after it."""
        is_open = self._open_segment(self._cursor.segment)
        if is_open and self._cursor.offset >= HEADER.size:
            return True
        if not is_open:
            if following is None or not self._open_segment(following):
                return False
            self._cursor = Cursor(following, 0)
        while True:
            magic, previous = HEADER.unpack(self._bytes(0, HEADER.size))
            if magic != MAGIC:
                raise ValueError(f"{self._directory}: {self._cursor.segment} is not a segment")
            # A listing of a directory may miss a name that is being changed.
            if previous <= self._passed or not self._open_segment(previous):
                self._cursor = Cursor(self._cursor.segment, HEADER.size)
                return True
            self._cursor = Cursor(previous, 0)

    def _open_segment(self, number: int) -> bool:
        for state in _STATES:
            path = self._directory / f"{number}{state}"
            with contextlib.suppress(FileNotFoundError):
                file = os.open(path, os.O_RDONLY)
                self.close()
                if path.suffix != ".zst":
                    self._file = file
                    return True
                with os.fdopen(file, "rb") as packed, pa.input_stream(packed, "zstd") as stream:
                    self._content = memoryview(stream.read())
                return True
        return False

    def _bytes(self, offset: int, size: int) -> memoryview:
        if self._content is not None:
            return self._content[offset : offset + size]
        if self._file is None:
            raise ValueError("no segment is open")
        return memoryview(os.pread(self._file, size, offset))

    def _parse(self, frames: list[Frame], limit: int) -> int:
        """Append the whole frames of the next bytes; return how many bytes are left of them."""
        segment, offset = self._cursor
        content = self._bytes(offset, _CHUNK)
        if len(content) >= _HEAD.size:
            length = _HEAD.unpack_from(content)[0]
            if len(content) < length + _HEAD.size <= _LARGEST_FRAME:
                content = self._bytes(offset, length + _HEAD.size)
        position = 0
        while len(content) - position >= _HEAD.size and len(frames) < limit:
            length, checksum = _HEAD.unpack_from(content, position)
            start = position + _HEAD.size
            body = content[start : start + length]
            if not _BODY.size <= length == len(body) or zlib.crc32(body) != checksum:
                break
            received_at, connection, name_length = _BODY.unpack_from(body)
            name_end = _BODY.size + name_length
            name = str(body[_BODY.size : name_end], "utf-8")
            frames.append(Frame(received_at, name, bytes(body[name_end:]), connection))
            position = start + length
        self._cursor = Cursor(segment, offset + position)
        return len(content) - position


def read_segment(directory: Path, number: int) -> Iterator[list[Frame]]:
    """Yield the frames that one segment holds at present, some at a time."""
    with SegmentReader(directory, Cursor(number, HEADER.size), last=number) as reader:
        yield from iter(reader.read, [])


def oldest_since(directory: Path, received_at: int) -> Cursor:
    """Return a place before every frame received since then (epoch microseconds).

    Looked for from the end: frames lie in the order of their arrival.
    """
    for number in reversed(segments(directory)):
        with SegmentReader(directory, Cursor(number, HEADER.size), last=number) as reader:
            first = reader.read(limit=1)
        if first and first[0].received_at < received_at:
            return Cursor(number, HEADER.size)
    return START


def prune(directory: Path, before: int, *, excess: float) -> int:
    """Delete the oldest segments numbered below ``before`` until ``excess`` bytes are free.

    Only compressed ones go, and the newest always stays.

    Returns
    -------
    int
        The bytes set free; fewer than asked for if there was no more to delete.
    """
    freed = 0
    for number, path in list(segments(directory).items())[:-1]:
        if freed >= excess or number >= before or path.suffix != ".zst":
            break
        freed += path.stat().st_size
        path.unlink()
    return freed
