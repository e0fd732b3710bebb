"""Served features of every family are those of the batch, to the last bit, bar by bar."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from refreshes_fixtures import END, write_whole

from serving import online
from serving.manifest import Lineage, Source, compiled, lineage, together
from serving.online import OnlineFeatures
from serving.plan import CHANGED, plan
from serving.window import evaluated

FAMILIES = [
    f"feat_{name}"
    for name in (
        *("alpha158", "calendar", "cross_asset", "derivatives", "microstructure"),
        *("orderflow", "sentiment", "stats", "ta"),
    )
]
KEYS = ["exchange", "market", "symbol", "interval_minutes", "opened_at"]
INTERVALS = (5, 15)
UNTIL = END.tz_localize(None).to_pydatetime()
SINCE = UNTIL - timedelta(minutes=15)
MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1)
TIMES = ["happened_at", "heard_at"]
RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH = """case "interval" when '1m' then 1 when '5m' then 5 when '15m' then 15 else 60 end"""
#: The recorded rows of each of these series are moved on, by whole steps of so many seconds, so
#: that the last ones are served.
MOVED = {
    "klines": (
        *("open_time", 'market, symbol, "interval"'),
        """case "interval" when '1m' then 60 when '5m' then 300 else 0 end""",
    ),
    "trades": ("transact_time", "market, symbol", "300"),
    "books": ("transact_time", "market, symbol", "300"),
    "liquidations": ("trade_time", "exchange", "300"),
}
#: A close is computed so long after it; what comes live comes within 20 seconds.
WAIT = timedelta(seconds=30)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lineage, Lineage]:
    """All families, compiled from all rows and as refreshes."""
    database = tmp_path_factory.mktemp("compiled") / "tapehouse.duckdb"
    selection = ["--select", "+path:models/features"]
    manifests = (
        compiled(database, selection),
        compiled(database, selection, changed_from=CHANGED),
    )
    full, refresh = (
        together(lineage(manifest, name) for name in FAMILIES) for manifest in manifests
    )
    return full, refresh


@pytest.fixture(scope="module")
def tape(
    chains: tuple[Lineage, Lineage], tmp_path_factory: pytest.TempPathFactory
) -> dict[Source, pa.Table]:
    """The raw rows of a market and, where there are any, of recorded data, with their times."""
    database = tmp_path_factory.mktemp("market") / "tapehouse.duckdb"
    sources = chains[0].sources
    times = {source.name: source.event_time for source in sources}
    write_whole(database, RECORDED if RECORDED.is_dir() else None, times)
    with duckdb.connect(database) as connection:
        connection.execute("set timezone = 'UTC'").fetchall()
        for name, (time, series, step_s) in MOVED.items():
            connection.execute(
                f"""
                update raw.{name} set {time} = moved_to from (
                    select rowid as place, {time} + to_seconds({step_s} * cast(floor(date_diff(
                        'second', max({time}) over (partition by {series}),
                        timestamptz '{END}' - interval 1 second
                    ) / {step_s}) as integer)) as moved_to
                    from raw.{name} where exchange = 'recorded' and {step_s} > 0
                ) as moved where {name}.rowid = place
                """
            ).fetchall()
        # A book is lost early in the last quarter of an hour: that bar has none when it closes.
        lost_at = f"timestamptz '{END}' - interval 13 minute"
        connection.execute(
            f"""
            insert into raw.book_gaps by name
            select distinct
                exchange, market, symbol, 'sequence' as cause, 'archive' as source,
                {lost_at} as gap_from, {lost_at} + interval 9 second as gap_until,
                gap_until as received_at
            from raw.books
            """
        ).fetchall()
        found = {}
        for source in sources:
            ended = source.event_time
            if source.name == "klines":
                ended = f"{ended} + to_minutes({WIDTH})"
            connection.execute(
                f"update raw.{source.name} set received_at = least(received_at, "
                f"{ended} + interval 20 seconds) where starts_with(source, 'websocket')"
            ).fetchall()
            found[source] = connection.sql(
                f"""
                select
                    *,
                    make_timestamp(epoch_us({source.event_time})) as happened_at,
                    make_timestamp(epoch_us(case when starts_with(source, 'websocket')
                        then greatest(received_at, {ended}) else {ended} end)) as heard_at
                from raw.{source.name} where {source.event_time} < timestamptz '{END}'
                """
            ).to_arrow_table()
        return found


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """Patch for all tests in here."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def compared(
    chains: tuple[Lineage, Lineage],
    tape: dict[Source, pa.Table],
    monkeypatch_module: pytest.MonkeyPatch,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """For each family its rows of the last bars as the batch has them, and as they were served."""
    # So that every step of bars is run for each share of the symbols, and a model that reads other
    # symbols without saying so differs.
    monkeypatch_module.setattr(online, "SHARED_BARS", 0)
    lengths = ", ".join(map(str, INTERVALS))
    raw = {source.relation: rows.drop_columns(TIMES) for source, rows in tape.items()}
    wanted = {}
    with duckdb.connect(":memory:") as found:
        found.execute("set TimeZone = 'UTC'").fetchall()
        with evaluated(chains[0], raw) as memory:
            for model in (each for each in chains[0].models if each.name in FAMILIES):
                rows = memory.sql(
                    f"from {model.relation} where interval_minutes in ({lengths}) "
                    f"and opened_at >= timestamp '{SINCE}' "
                    f"and opened_at + to_minutes(interval_minutes) <= timestamp '{UNTIL}'"
                ).to_arrow_table()
                rows = rows.drop_columns(list(model.unbounded))
                found.register("rows", rows)
                found.execute(f"create table batch_{model.name} as from rows").fetchall()
                wanted[model.name] = tuple(rows.column_names)
        features = OnlineFeatures(chains[0], plan(*chains, wanted, intervals=INTERVALS))
        with closing(features):
            for number, served in enumerate(closes(features, tape)):
                for name in FAMILIES:
                    rows = served[name].select(list(wanted[name]))
                    found.register("rows", rows)
                    verb = (
                        f"insert into served_{name} by name"
                        if number
                        else (f"create table served_{name} as")
                    )
                    found.execute(
                        f"{verb} select * from rows where interval_minutes in ({lengths})"
                    ).fetchall()
        yield found


def closes(features: OnlineFeatures, tape: dict[Source, pa.Table]) -> Iterator[dict[str, pa.Table]]:
    """Play the tape minute by minute, as the loop does; give what each close computes."""

    def heard(source: Source, first: datetime, last: datetime, minutes: int = 0) -> pa.Table:
        rows = tape[source]
        is_heard = pc.and_(
            pc.and_(
                pc.greater_equal(rows["heard_at"], pa.scalar(first)),
                pc.less(rows["heard_at"], pa.scalar(last)),
            ),
            pc.greater_equal(
                rows["happened_at"],
                pa.scalar(SINCE - timedelta(minutes=minutes) if minutes else EPOCH),
            ),
        )
        return rows.filter(is_heard).drop_columns(TIMES)

    now = SINCE + WAIT
    before = {
        source.relation: heard(source, EPOCH, now, minutes)
        for source, (_, minutes) in features.plan.sources.items()
    }
    features.start(before, now=now)
    for minute in range(1, int((UNTIL - SINCE) / MINUTE) + 1):
        for source in features.plan.sources:
            features.add(source, heard(source, now, now + MINUTE))
        now += MINUTE
        ended = [each for each in INTERVALS if minute % each == 0]
        if ended:
            closed_at = now - WAIT
            yield features.refresh(closed_at - max(ended) * MINUTE, until=closed_at)
            features.forget(now)
        else:
            features.advance(now)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_served_as_the_batch_computes_it(
    compared: duckdb.DuckDBPyConnection, name: str
) -> None:
    judge(compared, name, "binance")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_recorded_data_is_served_as_the_batch_computes_it(
    shared_data: Path, compared: duckdb.DuckDBPyConnection, name: str
) -> None:
    judge(compared, name, "recorded")


def judge(compared: duckdb.DuckDBPyConnection, name: str, exchange: str) -> None:
    """Compare the rows of an exchange, to the last bit, NULLs too."""
    keys = ", ".join(KEYS)
    columns = [
        column
        for column in compared.sql(f"from batch_{name} limit 0").columns
        if column not in KEYS
    ]
    compared.execute(
        f"create or replace temp view batch as from batch_{name} where exchange = '{exchange}'; "
        f"create or replace temp view served as from served_{name} "
        f"where exchange = '{exchange}' and opened_at >= timestamp '{SINCE}'"
    ).fetchall()
    counts = ", ".join(
        f"count(*) filter (where served.{column} is distinct from batch.{column})"
        for column in columns
    )
    (differing,) = compared.execute(
        f"select {counts} from batch inner join served using ({keys})"
    ).fetchall()
    assert {column: n for column, n in zip(columns, differing, strict=True) if n} == {}
    ((bars, missing, extra),) = compared.execute(
        f"select (select count(*) from batch), "
        f"(select count(*) from batch anti join served using ({keys})), "
        f"(select count(*) from served anti join batch using ({keys}))"
    ).fetchall()
    assert (missing, extra) == (0, 0)
    assert bars > 0
    known = compared.sql(f"select {', '.join(f'count({column})' for column in columns)} from batch")
    share = sum(count > 0 for count in known.fetchall()[0]) / len(columns)
    assert share >= (0.9 if exchange == "binance" else 0.6)
