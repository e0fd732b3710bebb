"""The feature models in memory, refreshed as bars close by the SQL of dbt's own refresh."""

import queue
from collections.abc import Mapping
from datetime import date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from serving.ahead import PlannedQuery
from serving.manifest import Lineage, Source
from serving.plan import CHANGES, Plan, Step
from serving.shapes import Views, registered

#: A bar that is complete so much later than it closed is still computed, and those after it.
LATE_BARS = timedelta(minutes=15)
#: Trades that come so much later than they happened still count.
LATE_TRADES = timedelta(minutes=2)
#: Snapshots of books likewise: each pass reads all that are kept.
LATE_BOOKS = timedelta(seconds=10)
_EPOCH = datetime(1970, 1, 1)


class OnlineFeatures:
    """Tables of the models that serving needs, over a bounded window of raw rows.

    Times are naive UTC. A row is computed by the query of a refresh since the moment from which on
    rows have changed, over the rows that are kept of the tables it reads.

    Parameters
    ----------
    lineage : Lineage
        All models, compiled from all rows.
    plan : Plan
        What of them is needed.
    """

    def __init__(self, lineage: Lineage, plan: Plan) -> None:
        self.plan = plan
        self._helper = duckdb.connect(":memory:")
        self._helper.execute("set TimeZone = 'UTC'").fetchall()
        self._helper.execute("set enable_progress_bar = false").fetchall()
        self._done: queue.SimpleQueue[tuple[str, pa.Table | Exception]] = queue.SimpleQueue()
        self._steps = {
            step.model.name: step
            for step in plan.steps
            if not step.is_empty and not step.model.is_view
        }
        self._sources = {source.relation: source for source in plan.sources}
        self._views = Views(lineage, plan)
        self._tables = {
            relation: self._views.schema(relation).empty_table() for relation in self._sources
        }
        for step in self._steps.values():
            schema = self._views.schema(step.model.relation)
            kept = schema.empty_table().select(list(step.columns))
            self._tables[step.model.relation] = kept
        self._parents: dict[str, set[str]] = {}
        self._queries: dict[str, PlannedQuery] = {}
        self._origins = {relation: {relation} for relation in self._sources}
        for name, step in self._steps.items():
            views = self._views.of(step)
            parents = {relation for relation in views if relation in self._tables}
            self._parents[name] = parents
            self._origins[step.model.relation] = set().union(
                *(self._origins.get(parent, set()) for parent in parents)
            )
            self._queries[name] = PlannedQuery(
                name,
                self._sql(step),
                database=plan.database,
                schemas={
                    CHANGES.strip('"'): pa.schema([("changed_at", pa.timestamp("us"))]),
                    **{registered(parent): self._tables[parent].schema for parent in parents},
                },
                views=views,
                done=self._done,
            )
        self._changed: dict[str, datetime] = {}
        self._complete_from: dict[str, datetime] = {}
        self._newest: dict[str, datetime] = {}

    def close(self) -> None:
        """Stop all queries."""
        for query in self._queries.values():
            query.stop()
        self._helper.close()

    def start(self, rows: Mapping[str, pa.Table], *, now: datetime) -> dict[str, pa.Table]:
        """Compute every model from raw rows, by relation, and keep what later bars need.

        Returns
        -------
        dict of str to pyarrow.Table
            By the name of a model, its rows.
        """
        for source in self.plan.sources:
            if source.relation in rows:
                self._tables[source.relation] = rows[source.relation].cast(
                    self._views.schema(source.relation)
                )
        results = self._run(dict.fromkeys(self._steps, _EPOCH))
        self.forget(now)
        return results

    def add(self, source: Source, rows: pa.Table) -> int:
        """Append raw rows; return how many came too late and were left out."""
        rows = rows.cast(self._views.schema(source.relation))
        complete_from = self._complete_from.get(source.relation, _EPOCH)
        happened_at = self._instants(source, rows)
        late = 0
        if len(rows) and pc.min(happened_at).as_py() < complete_from:
            in_time = pc.greater_equal(happened_at, pa.scalar(complete_from, happened_at.type))
            late = len(rows) - pc.sum(in_time).as_py()
            rows, happened_at = rows.filter(in_time), happened_at.filter(in_time)
        if not len(rows):
            return late
        first = pc.min(happened_at).as_py()
        self._tables[source.relation] = pa.concat_tables([self._tables[source.relation], rows])
        for name, step in self._steps.items():
            if step.is_early and source.relation in self._origins[step.model.relation]:
                self._changed[name] = min(self._changed.get(name, first), first)
        return late

    def advance(self, now: datetime) -> None:
        """Compute what comes from the tape alone for the rows that were added.

        Rows of a minute or a day that still goes on wait for its end.
        """
        self._run(self._due(now))

    def refresh(self, now: datetime, changed: datetime) -> dict[str, pa.Table]:
        """Compute all bars again that opened at or after a moment.

        Models whose sums begin at midnight are computed from there.

        Returns
        -------
        dict of str to pyarrow.Table
            By the name of a model, its rows from that moment or its midnight on.
        """
        bars = {
            name: _floor(changed, step.model.grain_minutes)
            for name, step in self._steps.items()
            if not step.is_early
        }
        return self._run(self._due(now, is_closing=True) | bars)

    def forget(self, now: datetime) -> None:
        """Drop what no later bar needs."""
        for source in self.plan.sources:
            self._forget_raw(source, now)
        bars = timedelta(minutes=max(self.plan.intervals)) + LATE_BARS
        for step in self._steps.values():
            if step.model.event_time:
                first = now - bars - timedelta(minutes=step.minutes)
                rows = self._tables[step.model.relation]
                is_needed = pc.greater_equal(rows[step.model.event_time], _as(first, rows, step))
                self._tables[step.model.relation] = rows.filter(is_needed).combine_chunks()

    def _run(self, changes: Mapping[str, datetime]) -> dict[str, pa.Table]:
        """Run the queries of some steps, each after those of its parents."""
        waiting = {
            name: {
                parent
                for parent in changes
                if self._steps[parent].model.relation in self._parents[name]
            }
            - {name}
            for name in changes
        }
        results: dict[str, pa.Table] = {}

        def release() -> None:
            for name in [name for name, parents in waiting.items() if not parents]:
                del waiting[name]
                self._queries[name].run(self._given(name, changes[name]))

        release()
        while len(results) < len(changes):
            name, result = self._done.get()
            if isinstance(result, Exception):
                raise result
            results[name] = result
            self._keep(self._steps[name], result, changes[name])
            for parents in waiting.values():
                parents.discard(name)
            release()
        return results

    def _given(self, name: str, changed: datetime) -> dict[str, pa.Table]:
        tables = {registered(parent): self._tables[parent] for parent in self._parents[name]}
        step = self._steps[name]
        for relation in self._parents[name] & self._sources.keys():
            source = self._sources[relation]
            first = changed - timedelta(minutes=step.reach + source.lookback_minutes)
            tables[registered(relation)] = self._recent(source, first, step.model.lookback_rows)
        moment = pa.array([changed], pa.timestamp("us"))
        return tables | {CHANGES.strip('"'): pa.table({"changed_at": moment})}

    def _sql(self, step: Step) -> str:
        names = ", ".join(f'"{name}"' for name in step.columns)
        conditions = []
        if step.has_intervals:
            conditions.append(f"interval_minutes in ({', '.join(map(str, self.plan.intervals))})")
        if step.model.event_time is None:
            conditions.append(f"opened_at >= (select changed_at from {CHANGES})")
        where = f" where {' and '.join(conditions)}" if conditions else ""
        return f"select {names} from ({step.refresh.sql}){where}"

    def _keep(self, step: Step, rows: pa.Table, changed: datetime) -> None:
        """Put rows in the place of those that happened at or after a moment."""
        relation, event_time = step.model.relation, step.model.event_time
        if event_time is None:
            return
        before = self._tables[relation]
        if changed <= self._newest.get(relation, _EPOCH):
            before = before.filter(pc.less(before[event_time], _as(changed, before, step)))
        self._tables[relation] = pa.concat_tables([before, rows.cast(before.schema)])
        if len(rows):
            newest = _naive(pc.max(rows[event_time]).as_py())
            self._newest[relation] = max(self._newest.get(relation, _EPOCH), newest)

    def _due(self, now: datetime, *, is_closing: bool = False) -> dict[str, datetime]:
        due = {}
        for name, step in self._steps.items():
            if changed := self._changed.get(name):
                grain = step.model.grain_minutes
                since = _floor(changed, grain)
                if not grain or _floor(now, grain) > since or (is_closing and grain == 1):
                    due[name] = since
                    del self._changed[name]
        return due

    def _forget_raw(self, source: Source, now: datetime) -> None:
        readers = [
            step for name, step in self._steps.items() if source.relation in self._parents[name]
        ]
        counts = [step.model.lookback_rows for step in readers]
        late = LATE_BARS + timedelta(minutes=max(self.plan.intervals))
        if all(step.is_early for step in readers):
            late = LATE_BOOKS if all(counts) else LATE_TRADES
        minutes, _ = self.plan.sources[source]
        grain = max(step.model.grain_minutes for step in readers)
        first = _floor(now - late - timedelta(minutes=minutes), grain)
        self._complete_from[source.relation] = max(
            first, self._complete_from.get(source.relation, _EPOCH)
        )
        rows = self._recent(source, first, max(counts) if all(counts) else 0)
        self._tables[source.relation] = rows.combine_chunks()

    def _recent(self, source: Source, first: datetime, count: int) -> pa.Table:
        """Return the raw rows since a moment, and of each symbol so many of the last before it."""
        rows = self._tables[source.relation]
        happened_at = self._instants(source, rows)
        is_recent = pc.greater_equal(happened_at, pa.scalar(first, pa.timestamp("us")))
        if not count or not len(rows):
            return rows.filter(is_recent)
        keys = rows.select(["exchange", "market", "symbol"])
        places = pa.array(range(len(rows)))
        before = keys.append_column("moment", happened_at).append_column("place", places)
        self._helper.register("before", before.filter(pc.invert(is_recent)))
        last = self._helper.sql(
            f"select unnest(max_by(place, moment, {count})) as place from before "
            "group by exchange, market, symbol order by place"
        ).to_arrow_table()["place"]
        return pa.concat_tables([rows.take(last), rows.filter(is_recent)])

    def _instants(self, source: Source, rows: pa.Table) -> pa.ChunkedArray:
        """Return when rows happened, naive UTC."""
        if source.event_time in rows.column_names:
            return rows[source.event_time].cast(pa.timestamp("us"))
        self._helper.register("rows", rows)
        found = self._helper.sql(f"select {_instant(source)} as at from rows")
        return found.to_arrow_table()["at"]


def _instant(source: Source) -> str:
    return f"make_timestamp(epoch_us({source.event_time}))"


def _as(moment: datetime, rows: pa.Table, step: Step) -> pa.Scalar:
    """Return a moment as a value of the column that says when a model's rows happened."""
    kind = rows.schema.field(step.model.event_time).type
    return pa.scalar(moment, pa.timestamp("us")).cast(kind, safe=False)


def _naive(moment: date) -> datetime:
    return (
        moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day)
    )


def _floor(moment: datetime, minutes: int) -> datetime:
    if not minutes:
        return moment
    width = timedelta(minutes=minutes)
    return _EPOCH + (moment - _EPOCH) // width * width
