"""The durable log: written once, read by cursor while it grows, safe from kill -9."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.segment_writer import LogBusyError, SegmentWriter
from ingest.segments import (
    START,
    Cursor,
    Frame,
    SegmentReader,
    encode,
    oldest_since,
    prune,
    segments,
)
from ingest.settings import PROJECT_ROOT

NUMBERING = """
import sys
from pathlib import Path
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame

with SegmentWriter(Path(sys.argv[1]), segment_bytes=20_000) as writer:
    number = int(sys.argv[2])
    while True:
        writer.append(Frame(number, "numbers", b"x" * (number % 300)))
        number += 1
        print(number, flush=True)
"""


def frame(number: int) -> Frame:
    return Frame(1_700_000_000_000_000 + number, "btcusdt@kline_1m", b'{"n":%d}' % number, 3)


def frames(count: int, start: int = 0) -> list[Frame]:
    return [frame(number) for number in range(start, start + count)]


def all_of(directory: Path, cursor: Cursor = START) -> list[Frame]:
    with SegmentReader(directory, cursor) as reader:
        return [found for part in iter(reader.read, []) for found in part]


def wait_until(directory: Path, suffix: str) -> None:
    deadline = time.monotonic() + 10
    while any(path.suffix != suffix for path in segments(directory).values()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_frame_is_seen_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    reader = SegmentReader(tmp_path / "log")
    assert reader.read() == []
    with SegmentWriter(tmp_path / "log") as writer, reader:
        assert reader.read() == []
        for found in frames(3):
            writer.append(found)
            assert reader.read() == [found]
            assert reader.read() == []
        assert reader.cursor == writer.cursor


def test_a_reader_goes_on_through_sealing_and_compression(tmp_path: Path) -> None:
    heard: list[Frame] = []
    with SegmentWriter(tmp_path, segment_bytes=1_000) as writer, SegmentReader(tmp_path) as reader:
        for found in frames(500):
            writer.append(found)
            if found.received_at % 7 == 0:
                heard += reader.read(limit=3)
        heard += reader.read()
        assert heard == frames(500)
    assert len(segments(tmp_path)) > 10
    assert {path.suffix for path in segments(tmp_path).values()} == {".zst"}
    assert all_of(tmp_path) == frames(500)
    assert reader.damaged_bytes == 0


def test_a_cursor_means_the_same_before_and_after_compression(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append_all(frames(10))
        with SegmentReader(tmp_path) as reader:
            reader.read(limit=4)
            cursor = reader.cursor
            assert all_of(tmp_path, cursor) == frames(6, start=4)
            writer.seal()
            wait_until(tmp_path, ".zst")
            assert all_of(tmp_path, cursor) == frames(6, start=4)
            assert reader.read() == frames(6, start=4)
        writer.append(frame(10))
        assert all_of(tmp_path, reader.cursor) == [frame(10)]


def test_one_process_writes_a_log(tmp_path: Path) -> None:
    with (
        SegmentWriter(tmp_path),
        pytest.raises(LogBusyError, match=f"written by process {os.getpid()}"),
    ):
        SegmentWriter(tmp_path)
    with SegmentWriter(tmp_path) as writer:
        writer.append(frame(0))


@pytest.mark.parametrize("cut", range(1, len(encode(frame(1)))))
def test_a_torn_frame_is_passed_over_once_another_segment_follows(tmp_path: Path, cut: int) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append(frame(0))
    (number,) = segments(tmp_path)
    segments(tmp_path)[number].unlink()
    torn = b"TAPEHSE1" + bytes(8) + encode(frame(0)) + encode(frame(1))[:cut]
    (tmp_path / f"{number}.frames.part").write_bytes(torn)
    with SegmentReader(tmp_path) as reader:
        assert reader.read() == [frame(0)]
        assert reader.read() == []
        with SegmentWriter(tmp_path) as writer:
            writer.append(frame(2))
            assert reader.read() == [frame(2)]
        assert reader.damaged_bytes == cut


def test_a_changed_byte_hides_the_rest_of_its_segment(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append_all(frames(3))
        (part,) = segments(tmp_path).values()
        content = bytearray(part.read_bytes())
        content[16 + len(encode(frame(0))) + 30] ^= 1
        part.write_bytes(content)
        assert all_of(tmp_path) == [frame(0)]
        writer.seal()
        writer.append(frame(3))
        with SegmentReader(tmp_path) as reader:
            assert reader.read() == [frame(0), frame(3)]
            assert reader.damaged_bytes == 2 * len(encode(frame(1)))


def test_pruning_keeps_what_was_not_asked_for_and_the_newest(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        for number in range(3):
            writer.append(frame(number))
            writer.seal()
    first, second, third = segments(tmp_path)
    assert prune(tmp_path, third + 1, excess=0) == 0
    assert prune(tmp_path, first, excess=1) == 0
    assert prune(tmp_path, third + 1, excess=1) > 0
    assert list(segments(tmp_path)) == [second, third]
    with SegmentReader(tmp_path, Cursor(first, 20)) as reader:
        assert reader.read() == frames(2, start=1)
    prune(tmp_path, third + 1, excess=1_000_000)
    assert list(segments(tmp_path)) == [third]


def test_the_place_before_what_was_received_since_is_found_from_the_end(tmp_path: Path) -> None:
    assert oldest_since(tmp_path, 5) == START
    with SegmentWriter(tmp_path) as writer:
        for first in (10, 20, 30):
            writer.append_all([Frame(first + more, "s", b"x") for more in range(3)])
            writer.seal()
    numbers = list(segments(tmp_path))
    for received_at, number in ((31, 2), (30, 1), (21, 1), (20, 0), (11, 0)):
        assert oldest_since(tmp_path, received_at).segment == numbers[number]
        with SegmentReader(tmp_path, oldest_since(tmp_path, received_at)) as reader:
            assert {frame.received_at for frame in reader.read()} >= {received_at, 32}
    assert oldest_since(tmp_path, 10) == START
    # What lies before it is not even opened.
    segments(tmp_path)[numbers[0]].write_bytes(b"torn")
    assert oldest_since(tmp_path, 25).segment == numbers[1]


def test_numbers_never_come_back(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append(frame(0))
    (first,) = segments(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    with SegmentWriter(tmp_path) as writer:
        writer.append(frame(1))
    assert list(segments(tmp_path)) > [first]


def test_a_disk_that_takes_no_more_leaves_whole_frames(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n" + NUMBERING
    )
    with run(script, tmp_path, 0) as process:
        done = process.communicate()
    assert "File too large" in done[1]
    heard = all_of(tmp_path)
    assert [found.received_at for found in heard] == list(range(len(heard)))
    assert str(len(heard)) == done[0].split()[-1]
    with SegmentWriter(tmp_path) as writer, SegmentReader(tmp_path) as reader:
        writer.append(frame(0))
        assert reader.read(limit=1_000_000) == [*heard, frame(0)]
        assert reader.damaged_bytes == 0


def run(script: str, directory: Path, start: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(directory), str(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
    )


def appended(process: "subprocess.Popen[str]") -> Iterator[int]:
    assert process.stdout
    for line in process.stdout:
        if line.endswith("\n"):
            yield int(line)


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    generator = random.Random(1)
    heard: list[Frame] = []
    last = 0
    with SegmentReader(tmp_path) as reader:
        for _ in range(5):
            kill_at = last + generator.randint(100, 1_000)
            with run(NUMBERING, tmp_path, last) as process:
                for number in appended(process):
                    last = number
                    if number == kill_at:
                        process.send_signal(signal.SIGKILL)
            heard += [found for part in iter(reader.read, []) for found in part]
            # One more may have been appended than was told.
            assert len(heard) - last in (0, 1)
            last = len(heard)
    assert [found.received_at for found in heard] == list(range(last))
    assert [found.payload for found in heard] == [b"x" * (n % 300) for n in range(last)]
