"""The feature models in memory, refreshed as bars close by the SQL of dbt's own refresh."""

import queue
from collections.abc import Mapping
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from serving.ahead import PlannedQuery
from serving.kept import SHARES, Kept, Moments, microseconds
from serving.manifest import Lineage, Source
from serving.plan import CHANGES, Plan, Step
from serving.shapes import Views, registered

#: A bar that is complete so much later than it closed is still computed, and those after it.
LATE_BARS = timedelta(minutes=15)
#: Trades and books that come so much later than they happened still count.
LATE_TAPE = timedelta(minutes=2)
#: Who reads so many bars back is given them series by series.
_FAR_BARS = 64
#: Who reads so many bars back is run for each share of the symbols by itself, at the same time.
SHARED_BARS = 512
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
        self._slow = {step.model.relation for step in self._steps.values() if step.is_slow}
        self._sources = {source.relation: source for source in plan.sources}
        self._views = Views(lineage, plan)
        self._tables = {
            relation: Kept(self._views.schema(relation).empty_table(), is_ordered=False)
            for relation in self._sources
        }
        far = _FAR_BARS * max(plan.intervals)
        read_far = {
            parent
            for step in self._steps.values()
            if step.reach >= far
            for parent in self._views.of(step)
        }
        for step in self._steps.values():
            relation = step.model.relation
            kept = self._views.schema(relation).empty_table().select(list(step.columns))
            self._tables[relation] = Kept(kept, is_ordered=True, is_read_far=relation in read_far)
        self._tidied_at = _EPOCH
        self._newest = 0
        self._parents: dict[str, set[str]] = {}
        self._queries: dict[str, list[PlannedQuery]] = {}
        self._origins = {relation: {relation} for relation in self._sources}
        for name, step in self._steps.items():
            parents = self._views.of(step).keys() & self._tables.keys() - step.keys_only
            self._parents[name] = parents
            self._origins[step.model.relation] = set().union(
                *(self._origins.get(parent, set()) for parent in parents)
            )
            self._queries[name] = [
                self._planned(step, step.refresh.sql)
                for _ in range(SHARES if self._is_shared(step) else 1)
            ]
        #: Of each step how many wait for it, one after the other.
        self._waiting = dict.fromkeys(self._steps, 0)
        for name, step in reversed(self._steps.items()):
            for parent, other in self._steps.items():
                if other.model.relation in self._parents[name] - {step.model.relation}:
                    self._waiting[parent] = max(self._waiting[parent], self._waiting[name] + 1)
        self._changed: dict[str, datetime] = {}
        self._complete_from: dict[str, datetime] = {}

    def close(self) -> None:
        """Stop all queries."""
        for queries in self._queries.values():
            for query in queries:
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
                some = rows[source.relation].cast(self._views.schema(source.relation))
                self._append(source, some, self._instants(source, some))
        queries = {
            name: [self._planned(step, step.model.sql)] for name, step in self._steps.items()
        }
        results = self._run(dict.fromkeys(self._steps, _EPOCH), queries)
        for (query,) in queries.values():
            query.stop()
        self.forget(now)
        self.plan_ahead()
        return results

    def complete_from(self, source: Source) -> datetime:
        """Return the moment since which rows are still taken, naive UTC."""
        return self._complete_from.get(source.relation, _EPOCH)

    def add(self, source: Source, rows: pa.Table) -> pa.Table:
        """Append raw rows; return them without those that came too late and were left out."""
        rows = rows.cast(self._views.schema(source.relation))
        happened_at = self._instants(source, rows)
        in_time = happened_at >= microseconds(self.complete_from(source))
        if not in_time.all():
            rows, happened_at = rows.filter(pa.array(in_time)), happened_at[in_time]
        if not len(rows):
            return rows
        first = _EPOCH + timedelta(microseconds=int(happened_at.min()))
        self._append(source, rows, happened_at)
        for name, step in self._steps.items():
            if step.is_early and source.relation in self._origins[step.model.relation]:
                self._changed[name] = min(self._changed.get(name, first), first)
        return rows

    def advance(self, now: datetime) -> None:
        """Compute what comes from the tape alone for the rows that were added.

        Rows of a minute, a bar or a day that still goes on wait for its end.
        """
        self._run(self._due(now))

    def refresh(self, changed: datetime, *, until: datetime) -> dict[str, pa.Table]:
        """Compute all bars again that opened at or after a moment.

        Parameters
        ----------
        changed : datetime
            The moment, naive UTC; models whose sums begin at midnight are computed from there.
        until : datetime
            When the newest of them closed, naive UTC.

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
        return self._run(self._due(until, is_closing=True) | bars)

    def plan_ahead(self) -> None:
        """Have the queries that ran planned again: what is not done when bars close."""
        for queries in self._queries.values():
            for query in queries:
                query.plan()

    def forget(self, now: datetime) -> None:
        """Drop what no later bar needs; the newest row tells if a clock runs ahead."""
        now = min(now, _EPOCH + timedelta(microseconds=self._newest))
        for source in self.plan.sources:
            self._forget_raw(source, now)
        if (tidied_at := _floor(now, min(self.plan.intervals))) == self._tidied_at:
            return
        self._tidied_at = tidied_at
        bars = timedelta(minutes=max(self.plan.intervals)) + LATE_BARS
        for step in self._steps.values():
            if step.model.event_time:
                first = now - bars - timedelta(minutes=step.minutes)
                self._tables[step.model.relation].forget(first, last=1)

    def _is_shared(self, step: Step) -> bool:
        """Whether a step reads far back and only rows of bars of the symbol that it is about."""
        is_far = step.reach >= SHARED_BARS * max(self.plan.intervals)
        tables = (self._tables[parent].rows for parent in self._parents[step.model.name])
        return (
            is_far
            and not step.model.reads_other_symbols
            and all("interval_minutes" in rows.column_names for rows in tables)
        )

    def _planned(self, step: Step, sql: str) -> PlannedQuery:
        """Return a query of a step's columns, which reads what is kept of its parents."""
        return PlannedQuery(
            step.model.name,
            self._sql(step, sql),
            database=self.plan.database,
            schemas={
                CHANGES.strip('"'): pa.schema([("changed_at", pa.timestamp("us"))]),
                **{
                    registered(parent): self._tables[parent].rows.schema
                    for parent in self._parents[step.model.name]
                },
            },
            views=self._views.of(step),
            done=self._done,
        )

    def _run(
        self,
        changes: Mapping[str, datetime],
        queries: Mapping[str, list[PlannedQuery]] | None = None,
    ) -> dict[str, pa.Table]:
        """Run the queries of some steps, each after those of its parents."""
        queries = queries or self._queries
        waiting = {
            name: {
                parent
                for parent in changes
                if self._steps[parent].model.relation in self._parents[name]
            }
            - {name}
            for name in changes
        }
        parts: dict[str, list[pa.Table]] = {name: [] for name in changes}
        results: dict[str, pa.Table] = {}

        def release() -> None:
            ready = [name for name, parents in waiting.items() if not parents]
            for name in sorted(ready, key=self._waiting.__getitem__, reverse=True):
                del waiting[name]
                given = self._given(name, changes[name], is_shared=len(queries[name]) > 1)
                for query, tables in zip(queries[name], given, strict=True):
                    query.run(tables)

        release()
        while len(results) < len(changes):
            name, result = self._done.get()
            if isinstance(result, Exception):
                raise result
            parts[name].append(result)
            if len(parts[name]) < len(queries[name]):
                continue
            results[name] = pa.concat_tables(parts[name])
            self._keep(self._steps[name], results[name], changes[name])
            for parents in waiting.values():
                parents.discard(name)
            release()
        return results

    def _given(self, name: str, changed: datetime, *, is_shared: bool) -> list[dict[str, pa.Table]]:
        """Return what a step reads: of each table the rows that its declared look-back reaches."""
        step = self._steps[name]
        first = changed - timedelta(minutes=step.reach)
        moment = pa.table({"changed_at": pa.array([changed], pa.timestamp("us"))})
        given = [{CHANGES.strip('"'): moment} for _ in range(SHARES if is_shared else 1)]
        for parent in self._parents[name]:
            kept, last = self._tables[parent], 0
            since = first
            if source := self._sources.get(parent):
                since = first - timedelta(minutes=source.lookback_minutes)
            elif parent == step.model.relation:
                since, last = changed, 1
            elif parent in self._slow:
                since = _EPOCH
            else:
                last = step.model.lookback_rows
            shares = (
                kept.shares_since(since, last=last) if is_shared else [kept.since(since, last=last)]
            )
            for tables, rows in zip(given, shares, strict=True):
                tables[registered(parent)] = rows
        return given

    def _sql(self, step: Step, sql: str) -> str:
        names = ", ".join(f'"{name}"' for name in step.columns)
        conditions = []
        if step.has_intervals:
            conditions.append(f"interval_minutes in ({', '.join(map(str, self.plan.intervals))})")
        happened_at = step.model.event_time or "opened_at"
        conditions.append(f"{happened_at} >= (select changed_at from {CHANGES})")
        return f"select {names} from ({sql}) where {' and '.join(conditions)}"

    def _keep(self, step: Step, rows: pa.Table, changed: datetime) -> None:
        """Put rows in the place of those that happened at or after a moment."""
        event_time = step.model.event_time
        if event_time is None:
            return
        kept = self._tables[step.model.relation]
        moments = rows[event_time].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        kept.replace(rows.cast(kept.rows.schema), moments, since=changed)

    def _due(self, now: datetime, *, is_closing: bool = False) -> dict[str, datetime]:
        """Return what comes from the tape alone and is to be computed now, and since when."""
        due = {}
        for name, step in self._steps.items():
            if not (changed := self._changed.get(name)):
                continue
            widths = self.plan.intervals if step.has_intervals else (step.model.grain_minutes,)
            shortest = min(widths)
            # Minutes and bars that close are complete but for what comes too late; days are not.
            is_whole = is_closing and (step.has_intervals or shortest == 1)
            if changed < now if is_whole else _floor(changed, shortest) < _floor(now, shortest):
                due[name] = min(_floor(changed, width) for width in widths)
                if is_closing and self._newest >= microseconds(now):
                    # Of what came since the bars closed its parents may have nothing yet.
                    self._changed[name] = now
                else:
                    del self._changed[name]
        return due

    def _append(self, source: Source, rows: pa.Table, happened_at: Moments) -> None:
        if len(rows):
            self._tables[source.relation].add(rows, happened_at)
            self._newest = max(self._newest, int(happened_at.max()))

    def _forget_raw(self, source: Source, now: datetime) -> None:
        readers = [
            step for name, step in self._steps.items() if source.relation in self._parents[name]
        ]
        longest = max(self.plan.intervals)
        late = LATE_BARS + timedelta(minutes=longest)
        if all(step.is_early and not step.has_intervals for step in readers):
            late = LATE_TAPE
        minutes, _ = self.plan.sources[source]
        grain = max(step.model.grain_minutes for step in readers)
        first = _floor(now - late - timedelta(minutes=minutes), grain)
        # Bars before that would be computed from what is not kept.
        is_tape = all(step.is_early for step in readers)
        complete_from = first if is_tape else _floor(now - LATE_BARS, longest)
        self._complete_from[source.relation] = max(complete_from, self.complete_from(source))
        self._tables[source.relation].forget(first)

    def _instants(self, source: Source, rows: pa.Table) -> Moments:
        """Return when rows happened, epoch microseconds."""
        if source.event_time in rows.column_names:
            at = rows[source.event_time].cast(pa.timestamp("us")).cast(pa.int64())
        else:
            self._helper.register("rows", rows)
            sql = f"select epoch_us({source.event_time})::bigint as at from rows"
            at = self._helper.sql(sql).to_arrow_table()["at"]
        found: Moments = at.to_numpy()
        return found


def _floor(moment: datetime, minutes: int) -> datetime:
    if not minutes:
        return moment
    width = timedelta(minutes=minutes)
    return _EPOCH + (moment - _EPOCH) // width * width
