"""The scoring loop says what the batch says, once, on disk before anybody hears of it."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ingest import health, warehouse
from ingest.settings import Settings
from ingest.simulator import Market
from ml import onnx_model, registry
from serving import loop as loops
from serving import online
from serving.models import Local
from serving.prepare import Prepared, prepare
from serving.promotions import Promotions
from serving.skew import predictions, skew
from tests.registry_fixtures import add_version, logistic, promote, softmax
from tests.serving_fixtures import SYMBOLS, built, copy, ingested, market, start_of_last_day
from tests.serving_tape import MODEL, Tape, at, holding

__all__ = ["built", "ingested", "market"]

BARS = 3
SECOND = timedelta(seconds=1)


@pytest.fixture
def tape(built: Path, market: Market, tmp_path: Path) -> Iterator[Tape]:
    start = start_of_last_day(market) + timedelta(hours=3)
    made = Tape(built, tmp_path / "warehouse", start, start + timedelta(minutes=5 * BARS))
    yield made
    made.writer.close()


@pytest.fixture(scope="module")
def prepared(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    directory = tmp_path_factory.mktemp("prepared") / "warehouse"
    copy(built, directory)
    settings = Settings(database=directory / "tapehouse.duckdb", symbols=SYMBOLS)
    with warehouse.writing(settings.database) as connection:
        watch(connection)
    found = prepare(settings, now=datetime(2024, 12, 13), timeout_s=10)
    yield found
    found.decisions.close()


def watch(connection: duckdb.DuckDBPyConnection) -> None:
    """Register two shadows: one that finds a signal in every bar, and one of three classes."""
    (model,) = (each for each in registry.active_models(connection) if each.name == MODEL)
    ups = [*([0.0] * (len(model.features) - 1)), 1e-3]
    eager = add_version(connection, MODEL, logistic(ups), features=model.features, stage="shadow")
    connection.execute("insert into sig_thresholds values (?, ?, 0, 1, 0)", [MODEL, eager])
    weights = np.random.default_rng(1).normal(0, 0.01, (len(model.features), 3)).tolist()
    add_version(
        connection,
        MODEL,
        softmax(weights),
        features=model.features,
        stage="shadow",
        classes=["-1", "0", "1"],
    )


def test_signals_equal_those_of_the_batch_and_a_restarted_loop_repeats_none(
    tape: Tape, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "ADVANCE_S", 0.0)
    # The tape of the second bar has been heard, but not its candles.
    half = tape.start + timedelta(minutes=10, milliseconds=150)
    before = [frame for frame in tape.frames if at(frame.received_at) < half]
    with tape.loop(prepared) as loop:
        tape.play(loop, before)
    again = len(tape.told)
    with tape.loop(prepared) as loop:
        tape.settle(loop)
        # Two bars close in one piece, as after a pause of the machine.
        tape.writer.append_all(tape.frames[len(before) :])
        tape.clock.now = tape.end + timedelta(seconds=2)
        tape.settle(loop)
    said = tape.said()
    assert said == tape.expected
    assert {row[2] for row in said["ensembles"] if row[3]} >= {"stacked", "weighted"}
    assert len({key(signal) for signal in tape.told}) == len(tape.told) > again
    # What a loop said in the minute before is announced again, and never what is older.
    for later, is_told in ((timedelta(seconds=50), True), (timedelta(hours=6), False)):
        told = len(tape.told)
        tape.clock.now = tape.end + later
        with tape.loop(prepared):
            assert (len(tape.told) > told) is is_told

    judge_shadows(tape, prepared)
    with warehouse.reading(tape.settings.database) as connection:
        assert {(row.mismatches, row.missing, row.extra) for row in skew(connection)} == {(0, 0, 0)}
        answers = predictions(connection)
    assert {(row.rows, row.mismatches, row.rate) for row in answers} == {(BARS * 2, 0, 1.0)}
    with warehouse.writing(tape.settings.database) as connection:
        connection.execute(
            "update raw.served_features set features = "
            "regexp_replace(features, '\"close_roc_1\":[^,]*', '\"close_roc_1\":9') "
            f"where symbol = 'BTCUSDT' and opened_at = timestamptz '{tape.start}+00'"
        )
        worst = skew(connection)[0]
    assert (worst.feature, worst.mismatches) == ("close_roc_1", 1)


def judge_shadows(tape: Tape, prepared: Prepared) -> None:
    """Shadows said something of every bar, nobody was told, and several classes are all kept."""
    eager, classes = sorted(
        (each for each in prepared.asked if each.stage == "shadow"),
        key=lambda each: each.model.task,
    )
    with warehouse.reading(tape.settings.database) as connection:
        rows = connection.execute(
            "select model_version, signal, probability, probabilities from raw.signals "
            "where stage = 'shadow' order by model_version, symbol, opened_at"
        ).fetchall()
        features = ", ".join(f'cast("{name}" as float)' for name in classes.model.features)
        given = connection.execute(
            f"select {features} from ds_order_flow where opened_at >= $start and opened_at < $end "
            "order by symbol, opened_at",
            {"start": tape.start, "end": tape.end},
        ).fetchall()
    of = {each.model.version: each for each in (eager, classes)}
    said = {version: [row[1:] for row in rows if row[0] == version] for version in of}
    assert {len(signals) for signals in said.values()} == {BARS * len(SYMBOLS)}
    assert {signal for signal, _, _ in said[eager.model.version]} <= {-1, 1}
    assert not {signal["model_version"] for signal in tape.told} & of.keys()
    matrix = np.array(given, dtype=np.float32)
    found = onnx_model.outputs(onnx_model.load(classes.file), matrix)
    expected = [
        sorted(
            (
                {"label": label, "prob": prob}
                for label, prob in zip(("-1", "0", "1"), row, strict=True)
            ),
            key=lambda told: -told["prob"],
        )
        for row in found.tolist()
    ]
    assert [json.loads(told) for _, _, told in said[classes.model.version]] == expected
    assert [prob for _, prob, _ in said[classes.model.version]] == found.max(axis=1).tolist()


def test_a_promotion_is_taken_up_while_the_loop_runs(tape: Tape, prepared: Prepared) -> None:
    half = tape.start + timedelta(minutes=7)
    before = [frame for frame in tape.frames if at(frame.received_at) < half]
    with warehouse.writing(tape.settings.database) as connection:
        watch(connection)
    first = prepare(tape.settings, now=tape.start, timeout_s=10)
    local = Local(first.asked)
    with tape.loop(first, local) as loop:
        tape.play(loop, before)
        promotions = Promotions(
            tape.settings, local, first.state, adopt=loop.adopt, clock=tape.clock
        )
        promotions.look()
        assert loop.follow_promotions() is None
        assert loop.prepared is first
        champion, eager = (
            next(
                each.model.version
                for each in first.asked
                if (each.model.name, each.stage, each.model.task) == (MODEL, stage, "binary")
            )
            for stage in ("champion", "shadow")
        )
        with warehouse.writing(tape.settings.database) as connection:
            promote(connection, MODEL, eager)
        with holding(tape.settings.database):
            promotions.look()
        assert loop.follow_promotions() is None
        assert loop.prepared is first
        promotions.look()
        assert loop.follow_promotions() is None
        assert loop.prepared is not first
        tape.play(loop, tape.frames[len(before) :])
        loop.prepared.decisions.close()
    tape.said()
    with warehouse.reading(tape.settings.database) as connection:
        said = connection.execute(
            "select model_version, stage, count(*), min(opened_at::timestamp) from raw.signals "
            "where model_version in (?, ?) group by all order by 4, 2",
            [champion, eager],
        ).fetchall()
    then = tape.start + timedelta(minutes=5)
    assert said == [
        (champion, "champion", 2, tape.start),
        (eager, "shadow", 2, tape.start),
        (eager, "champion", 2 * (BARS - 1), then),
    ]


def test_a_late_symbol_is_scored_when_it_comes_and_a_correction_changes_no_signal(
    tape: Tape, prepared: Prepared
) -> None:
    first_close = round(
        ((tape.start + timedelta(minutes=5)) - datetime(1970, 1, 1)).total_seconds()
    )
    held = [
        frame
        for frame in tape.frames
        if frame.stream == "ethusdt@kline_1m" and f'"t":{first_close - 60}000' in str(frame.payload)
    ]
    assert len(held) == 1
    counted = late_bars()
    later = at(held[0].received_at) + timedelta(minutes=3)
    on_time = [frame for frame in tape.frames if frame not in held]
    before = [frame for frame in on_time if at(frame.received_at) < later]
    with tape.loop(prepared) as loop:
        tape.play(loop, before)
        after_first = tape.said()["champions"]
        assert [row[0] for row in after_first] == ["BTCUSDT"]
        assert late_bars() - counted == {"missing": 1}
        tape.play(loop, [held[0]._replace(received_at=before[-1].received_at)])
        assert late_bars() - counted == {"missing": 1, "late or again": 1}
        tape.play(loop, on_time[len(before) :])
        assert tape.said() == tape.expected
        last = next(frame for frame in reversed(on_time) if "btcusdt@kline" in frame.stream)
        tape.play(loop, [last, last._replace(payload=last.payload.replace(b'"n":', b'"n":1'))])
        assert tape.said() == tape.expected


def test_klines_that_come_too_late_to_be_computed_have_the_loop_begin_anew(
    tape: Tape, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loops, online):
        monkeypatch.setattr(module, "LATE_BARS", timedelta(minutes=2))
    for name in ("QUIET_S", "RENEWED_S"):
        monkeypatch.setattr(f"serving.late.{name}", 0.0)
    half = tape.start + timedelta(minutes=11)
    held = [
        frame
        for frame in tape.frames
        if frame.stream == "ethusdt@kline_1m" and at(frame.received_at) < half - SECOND
    ]
    on_time = [frame for frame in tape.frames if frame not in held]
    before = [frame for frame in on_time if at(frame.received_at) < half]
    counted = late_bars()
    with tape.loop(prepared) as loop:
        tape.play(loop, before)
        assert loop.late_from is None
        tape.play(loop, [frame._replace(received_at=before[-1].received_at) for frame in held])
        assert loop.late_from is not None
        assert loop.late_from <= tape.start
        assert loop.run() is prepared
    assert (late_bars() - counted)["klines too late"] == len(held)
    assert {row[0] for row in tape.said()["champions"]} == {"BTCUSDT"}
    with tape.loop(prepared, late_from=loop.late_from) as loop:
        tape.play(loop, on_time[len(before) :])
        assert loop.late_from is None
    assert tape.said() == tape.expected


def test_a_clock_that_jumps_ahead_and_back_changes_nothing_that_is_said(
    tape: Tape, prepared: Prepared
) -> None:
    minutes = [6, 7]
    jumped = [tape.start + timedelta(minutes=minute) for minute in minutes]
    ahead = timedelta(minutes=45)
    with tape.loop(prepared) as loop:
        for minute in range(5 * BARS + 1):
            begin = tape.start + timedelta(minutes=minute)
            some = [
                frame
                for frame in tape.frames
                if begin <= at(frame.received_at) < begin + timedelta(minutes=1)
            ]
            if begin not in jumped:
                tape.play(loop, some)
                continue
            tape.play(
                loop,
                [
                    frame._replace(received_at=frame.received_at + ahead // timedelta.resolution)
                    for frame in some
                ],
            )
            loop._tidy()
    assert tape.said() == tape.expected
    # A loop that begins now reads what came after the rows of the wrong time.
    with tape.loop(prepared) as loop:
        assert loop.last_closed_at == tape.end - timedelta(minutes=5)


def test_a_loop_that_begins_amid_a_close_waits_for_the_other_symbols(
    tape: Tape, prepared: Prepared
) -> None:
    first_close = tape.start + timedelta(minutes=5)
    late = next(
        frame
        for frame in tape.frames
        if frame.stream == "ethusdt@kline_1m" and at(frame.received_at) > first_close
    )
    before = [
        frame
        for frame in tape.frames
        if at(frame.received_at) < first_close + SECOND and frame is not late
    ]
    with tape.loop(prepared):
        pass
    tape.writer.append_all(before)
    tape.clock.now = first_close + SECOND
    with tape.loop(prepared) as loop:
        tape.settle(loop)
        assert tape.said()["champions"] == []
        tape.writer.append_all([late])
        tape.settle(loop)
        said = {row[0] for row in tape.said()["champions"] if row[1] == tape.start}
        assert said == set(SYMBOLS)
        tape.play(loop, tape.frames[len(before) + 1 :])
    assert tape.said() == tape.expected


def late_bars() -> Counter[str]:
    """What the metric of late bars counts, by kind."""
    (metric,) = health.LATE_BARS.collect()
    some = (each for each in metric.samples if each.name.endswith("_total"))
    return Counter({each.labels["kind"]: int(each.value) for each in some})


def key(signal: Any) -> tuple[Any, ...]:
    return (signal["model_version"], signal["model_name"], signal["symbol"], signal["opened_at"])
