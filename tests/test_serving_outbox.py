"""What the loop remembers of what it said, also where it runs for months."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from ingest import outbox, warehouse
from ingest.drain import drain
from ingest.segments import SegmentReader, segments
from ingest.settings import Settings
from serving.outbox import Outbox, landed_signals

NOON = datetime(2024, 12, 13, 12)
BAR = timedelta(minutes=5)
NOTHING = outbox.SCHEMAS["signals"].empty_table()


def signals(version: str, *opened: datetime, symbols: Sequence[str] = ("BTCUSDT",)) -> pa.Table:
    rows = [
        {
            "model_version": version,
            "exchange": "binance",
            "market": "um",
            "symbol": symbol,
            "interval_minutes": 5,
            "opened_at": moment.replace(tzinfo=UTC),
            "closed_at": moment.replace(tzinfo=UTC) + BAR,
        }
        for moment in opened
        for symbol in symbols
    ]
    return pa.Table.from_pylist(rows, outbox.SCHEMAS["signals"])


def say(box: Outbox, version: str, *opened: datetime) -> None:
    features = outbox.SCHEMAS["served_features"].empty_table()
    box.say(signals(version, *opened), features, at=opened[-1] + BAR)


def test_a_version_is_asked_about_what_closed_since_it_began_also_when_it_comes_back(
    tmp_path: Path,
) -> None:
    with Outbox(tmp_path, NOTHING) as box:
        assert box.last_closed_at is None
        box.start(["one", "rules"], at=NOON)
        say(box, "one", NOON)
        box.start(["one", "rules"], at=NOON + 9 * BAR)
        assert box.since("one") == NOON
    with Outbox(tmp_path, NOTHING) as box:
        box.start(["two", "rules"], at=NOON + BAR)
        assert (box.since("two"), box.since("rules")) == (NOON + BAR, NOON)
        say(box, "two", NOON + BAR)
        box.start(["one", "rules"], at=NOON + 2 * BAR)
        assert box.since("one") == NOON + 2 * BAR
    with Outbox(tmp_path, NOTHING) as box:
        assert (box.since("one"), box.since("rules")) == (NOON + 2 * BAR, NOON)
        assert box.last_closed_at == NOON + 2 * BAR
        both = signals("one", NOON, NOON + 2 * BAR, symbols=("BTCUSDT", "ETHUSDT"))
        new = box.new(both).select(["symbol", "opened_at"]).to_pylist()
    assert [(row["symbol"], row["opened_at"].hour, row["opened_at"].minute) for row in new] == [
        ("ETHUSDT", 12, 0),
        ("BTCUSDT", 12, 10),
        ("ETHUSDT", 12, 10),
    ]


def test_what_nobody_is_asked_about_any_more_is_forgotten(tmp_path: Path) -> None:
    with Outbox(tmp_path, signals("one", NOON - BAR)) as box:
        box.start(["one"], at=NOON - 2 * BAR)
        say(box, "one", *(NOON + number * BAR for number in range(100)))
        box.forget(NOON + 98 * BAR)
        assert box.since("one") == NOON + 98 * BAR
        assert box.last_closed_at == NOON + 100 * BAR
        assert len(box._said) == 2


def test_the_log_of_what_was_said_is_kept_for_two_days_and_its_end_for_ever(
    tmp_path: Path,
) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    log = settings.outbox_directory
    for opened in (NOON, NOON + BAR):
        with Outbox(log, NOTHING) as box:
            box.start(["one"], at=NOON)
            say(box, "one", opened)
    drain(settings)
    assert len(segments(log)) == 2
    for number, path in segments(log).items():
        path.rename(log / f"{number - 3 * 86_400_000}.frames.zst")
    assert drain(settings).row_count == 0
    (left,) = segments(log).values()
    with warehouse.reading(settings.database) as connection:
        landed = landed_signals(connection, NOON + 2 * BAR)
    assert len(landed) == 1
    with Outbox(log, landed) as box:
        assert left.exists()
        assert box.last_closed_at == NOON + 2 * BAR
        assert len(box.new(signals("one", NOON, NOON + BAR))) == 1


def test_who_is_asked_since_when_is_known_after_days_although_the_log_is_kept_for_two(
    tmp_path: Path,
) -> None:
    settings = Settings(database=tmp_path / "tapehouse.duckdb")
    log = settings.outbox_directory
    for hours in (0, 24, 72):
        with Outbox(log, NOTHING) as box:
            box.start(["one"], at=NOON)
            say(box, "one", NOON + timedelta(hours=hours))
    drain(settings)
    first, *_ = segments(log).values()
    for number, path in list(segments(log).items())[:2]:
        path.rename(log / f"{number - 3 * 86_400_000}.frames.zst")
    drain(settings)
    assert not first.exists()
    assert len(segments(log)) == 1
    with Outbox(log, NOTHING) as box:
        box.start(["one"], at=NOON + timedelta(hours=73))
        assert box.since("one") == NOON


def test_a_day_of_bars_may_be_said_at_once(tmp_path: Path) -> None:
    closes = [NOON + number * BAR for number in range(24)]
    said = signals("one", *closes, symbols=[f"COIN{number}USDT" for number in range(20)])
    features = pa.Table.from_pylist(
        [row | {"dataset": "ds", "features": "x" * 50_000} for row in said.to_pylist()],
        outbox.SCHEMAS["served_features"],
    )
    with Outbox(tmp_path, NOTHING) as box:
        box.start(["one"], at=NOON)
        box.say(said, features, at=closes[-1] + BAR)
    with SegmentReader(tmp_path) as reader:
        frames = [frame for frame in iter(reader.read, []) for frame in frame]
    served = outbox.rows(frames)
    assert served["signals"].equals(said)
    assert served["served_features"].equals(features)
