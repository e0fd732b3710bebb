"""What a recording that begins learns from the log of the one before."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest import live_past
from ingest.live_past import past
from ingest.segment_writer import SegmentWriter
from ingest.segments import Frame

KLINE = "btcusdt@kline_1m"
EARLIER = {"event": "heartbeat", "candles": {"BTCUSDT:1m": 1}, "books": {"BTCUSDT": 1}}
LAST = {
    "event": "heartbeat",
    "candles": {"BTCUSDT:1m": 60_000},
    "books": {"BTCUSDT": 5_000_000, "XRPUSDT": 6_000_000},
}


def frame(stream: str, data: Any) -> Frame:
    return Frame(3_600_000_000, stream, json.dumps(data).encode())


def change(second: int, **more: int) -> dict[str, Any]:
    return {"U": 1, "u": 2, "E": second * 1000, "b": [], "a": []} | more


def heartbeat(said: dict[str, Any]) -> Frame:
    return frame("!recorder", said)


def test_nothing_before_the_last_heartbeat_is_needed(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append(Frame(1, "noise", b"no JSON"))
        writer.append(heartbeat(EARLIER))
        writer.seal()
        writer.append(frame("xrpusdt@depth@500ms", change(99)))
        writer.append(heartbeat(LAST))
        writer.append(frame(KLINE, 1))
        writer.append(frame("btcusdt@depth@500ms", {"data": change(9, T=8_000), "stream": ""}))
        writer.append(heartbeat({"event": "clock", "skew_us": 1}))
        writer.append(frame("rest:klines:BTCUSDT:1m", 2))
        writer.append(frame("btcusdt@depth20@1000ms", change(10)))
        writer.append(frame("btcusdt@aggTrade", 3))
        writer.append(frame("btcusdt@depth", {"E": 1}))
        found = past(tmp_path)
    assert found.candles == {"BTCUSDT:1m": 60_000}
    # The book is as old as its last change, however long the recorder went on.
    assert found.books == {"BTCUSDT": 8_000_000, "XRPUSDT": 6_000_000}
    heard = [each.payload for each in found.heard if "kline" in each.stream]
    assert heard == [b"1", b"2"]


def test_a_log_without_heartbeats_is_read_so_far_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_past, "_MOST_BYTES", 100)
    with SegmentWriter(tmp_path) as writer:
        for number in range(6):
            writer.append(frame(KLINE, f"{number}" * 60))
            writer.append(frame("btcusdt@depth", change(number)))
            writer.seal()
    found = past(tmp_path)
    assert [json.loads(each.payload)[0] for each in found.heard if each.stream == KLINE] == ["5"]
    assert (found.candles, found.books) == ({}, {"BTCUSDT": 5_000_000})
    assert past(tmp_path / "none") == ({}, [], {})
