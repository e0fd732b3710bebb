"""Whether anything was lost, doubled or different: bars, rows, signals."""

from datetime import datetime

import pyarrow as pa
from chaos_crew import Check, Stage, first_candles, none
from chaos_signals import judged_signals

from ingest import messages, warehouse
from ingest.segments import SegmentReader
from ingest.simulator import Market

_KLINES = ("open", "high", "low", "close", "volume", "quote_volume", "count")


def judge(stage: Stage, market: Market, end: datetime) -> list[Check]:
    """Compare what landed with what the exchange had to say."""
    truth = _truth(stage, market, end)
    with warehouse.reading(stage.settings.database) as connection:
        connection.register("truth", truth)
        values = " or ".join(f"landed.{name} is distinct from truth.{name}" for name in _KLINES)
        lost = connection.execute(
            """
            select symbol, open_time from truth anti join (
                select * from raw.klines where is_closed and "interval" = '1m' and market = 'um'
            ) using (symbol, open_time) order by all
            """
        ).fetchall()
        wrong = connection.execute(
            f"""
            select symbol, open_time from truth inner join raw.klines as landed
            using (symbol, open_time)
            where landed.is_closed and landed."interval" = '1m' and market = 'um' and ({values})
            order by all
            """
        ).fetchall()
    return [
        none("closed bars lost", lost, truth.num_rows),
        none("closed bars with other values", wrong, truth.num_rows),
        *_landed_once(stage),
        *judged_signals(stage, end),
    ]


def _truth(stage: Stage, market: Market, end: datetime) -> pa.Table:
    """The exchange's closed one-minute candles, from the first that was heard of to the end."""
    last = int(end.timestamp() * 1e6)
    parts = []
    for symbol, opened in first_candles(stage).items():
        first = int(opened.timestamp() * 1e6)
        columns = market.klines("um", symbol, "1m", first, last, now=last)
        table = pa.table({name: columns[name] for name in ("open_time", *_KLINES)})
        parts.append(table.append_column("symbol", pa.repeat(pa.scalar(symbol), table.num_rows)))
    table = pa.concat_tables(parts)
    opened = table["open_time"].cast(pa.timestamp("us", "UTC"))
    return table.set_column(table.schema.get_field_index("open_time"), "open_time", opened)


def _landed_once(stage: Stage) -> list[Check]:
    """Whether the rows of all frames of the log landed, each once."""
    heard: dict[str, int] = {}
    bad = 0
    with SegmentReader(stage.settings.segments_directory / "um") as reader:
        while frames := reader.read():
            parsed = messages.rows(frames)
            bad += len(parsed.bad)
            for kind, table in parsed.tables.items():
                heard[kind] = heard.get(kind, 0) + table.num_rows
    landed = {}
    with warehouse.reading(stage.settings.database) as connection:
        for kind in heard:
            ((rows,),) = connection.execute(
                f"select count(*) from raw.{kind} where source like 'websocket:%'"
            ).fetchall()
            ((rejects,),) = connection.execute(
                "select count(*) from raw.raw_rejects where kind = ? and source like 'websocket:%'",
                [kind],
            ).fetchall()
            landed[kind] = rows + rejects
        ((unread,),) = connection.execute(
            "select count(*) from raw.raw_rejects where kind = 'frames'"
        ).fetchall()
    checks = [
        Check(
            f"{kind} heard, landed once",
            f"{heard[kind]:,}",
            f"{landed[kind]:,}",
            heard[kind] == landed[kind],
        )
        for kind in sorted(heard)
    ]
    return [*checks, Check("unreadable frames, rejected", f"{bad:,}", f"{unread:,}", bad == unread)]
