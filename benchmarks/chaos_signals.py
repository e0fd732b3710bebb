"""Whether each signal was said once and is the batch's."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
from chaos_crew import INTERVAL, Check, Stage, none

from ingest import outbox, warehouse
from ingest.segments import SegmentReader
from ml import onnx_model, registry
from serving.manifest import compiled_manifest, dataset, lineage
from serving.scoring import score
from serving.window import evaluated, raw_rows

MODEL = "ml_order_flow"
_KEY = "exchange, market, symbol, interval_minutes, opened_at"
_SERVED = f"""
    select
        model_version, exchange, market, symbol, interval_minutes,
        make_timestamp(epoch_us(opened_at)) as opened_at,
        make_timestamp(epoch_us(heard_at)) as heard_at, probability, threshold, signal
    from raw.signals where model_name = '{MODEL}'
"""


def judged_signals(stage: Stage, end: datetime) -> list[Check]:
    """Compare what was served with what the batch computes of all that landed.

    A frame may reach the loop after the bar that it belongs to was served: the exchange repeats,
    delays, and the recorder asks for what it missed. Such a signal is compared with what the
    batch computes of the rows that had been heard when it was served.
    """
    database = stage.settings.database
    until = end.replace(tzinfo=None)
    score(database, now=until)
    with warehouse.reading(database) as connection:
        connection.execute(f"create temp view served as {_SERVED}")
        connection.execute(
            f"create temp view batch as select * from sig_order_flow "
            f"where closed_at > timestamp '{_asked_since(stage)}' "
            f"and closed_at <= timestamp '{until}'"
        )
        ((total,),) = connection.execute("select count(*) from batch").fetchall()
        lost = connection.execute(
            f"select symbol, opened_at from batch anti join served using (model_version, {_KEY}) "
            "order by all"
        ).fetchall()
        doubled = connection.execute(
            "select model_name, symbol, opened_at, count(*) from raw.signals "
            f"group by model_name, model_version, {_KEY} having count(*) > 1 order by all"
        ).fetchall()
        different = connection.execute(
            f"""
            select symbol, served.opened_at, heard_at, served.probability, batch.probability,
                served.signal, served.threshold
            from served inner join batch using (model_version, {_KEY})
            where served.probability is distinct from batch.probability
                or served.threshold is distinct from batch.threshold
                or served.signal is distinct from batch.signal
            order by all
            """
        ).fetchall()
        wrong = [row for row in different if not _was_right(stage, connection, row)]
    return [
        none("signals lost", lost, total),
        none("signals doubled", doubled, total),
        none("signals other than the batch's", wrong, total),
        Check(
            "of these equal only over what was heard",
            "",
            f"{len(different) - len(wrong)} of {total}",
            is_good=True,
        ),
        *_announced(stage),
    ]


def _asked_since(stage: Stage) -> datetime:
    """Return when the loop first asked its models, naive UTC."""
    with SegmentReader(stage.settings.outbox_directory) as reader:
        while frames := reader.read():
            for frame in frames:
                if frame.stream == outbox.STARTED:
                    return datetime.fromtimestamp(frame.received_at / 1e6, UTC).replace(tzinfo=None)
    return datetime.max


def _was_right(stage: Stage, connection: duckdb.DuckDBPyConnection, row: tuple[Any, ...]) -> bool:
    """Whether a signal is what the batch gives over the rows heard until it was served."""
    symbol, opened_at, heard_at, probability, _, signal, threshold = row
    manifest = compiled_manifest(stage.settings.database, [MODEL])
    chain = lineage(manifest, dataset(manifest, MODEL))
    minutes = int(INTERVAL.total_seconds()) // 60
    raw = raw_rows(
        connection,
        chain,
        start=opened_at,
        end=opened_at + timedelta(days=1),
        interval_minutes=minutes,
    )
    heard = {}
    for relation, rows in raw.items():
        connection.register("landed", rows)
        heard[relation] = connection.sql(
            "select * from landed where source not like 'websocket:%' "
            "or make_timestamp(epoch_us(received_at)) <= $heard_at",
            params={"heard_at": heard_at},
        ).to_arrow_table()
        connection.unregister("landed")
    (model,) = [m for m in registry.active_models(connection) if m.name == MODEL]
    features = ", ".join(f'cast("{name}" as float)' for name in model.features)
    with evaluated(chain, heard) as memory:
        found = memory.execute(
            f"select {features} from {chain.models[-1].relation} "
            "where symbol = $symbol and opened_at = $opened_at",
            {"symbol": symbol, "opened_at": opened_at},
        ).fetchall()
    if len(found) != 1:
        return False
    file = registry.model_file(connection, stage.settings.database, model.sha256)
    matrix = np.array(found, dtype=np.float32)
    batch = float(onnx_model.probabilities(onnx_model.load(file), matrix)[0])
    side = (batch >= 0.5 + threshold) - (batch <= 0.5 - threshold)
    return batch == probability and side == signal


def _announced(stage: Stage) -> list[Check]:
    """Whether only what is on disk was announced, and again only by a loop that began anew."""
    told: Counter[tuple[Any, ...]] = Counter()
    starts = 0
    for line in (stage.directory / "loop.log").read_text().splitlines():
        if line.startswith('{"model_name"'):
            said = json.loads(line)
            told[said["model_version"], said["symbol"], said["opened_at"]] += 1
        elif " started " in line:
            starts += 1
    with warehouse.reading(stage.settings.database) as connection:
        known = {
            (version, symbol, str(opened_at))
            for version, symbol, opened_at in connection.execute(
                "select model_version, symbol, opened_at from raw.signals"
            ).fetchall()
        }
    unknown = [key for key in told if key not in known]
    again = [(*key, count) for key, count in told.items() if count > starts + 1]
    return [
        Check("announced, not on disk", "0", str(len(unknown)), not unknown),
        Check("announced again without a restart", "0", str(len(again)), not again),
    ]
