"""The tables that a query names, as views over the rows and columns that are kept of them."""

from collections.abc import Collection, Iterable

import pyarrow as pa

from serving.manifest import Lineage
from serving.plan import Plan, Step, empty

_KEY = {"exchange", "market", "symbol", "interval_minutes", "opened_at"}


class Views:
    """Says what stands for each table of a lineage.

    Parameters
    ----------
    lineage : Lineage
        All models, compiled from all rows.
    plan : Plan
        What of them is kept.
    """

    def __init__(self, lineage: Lineage, plan: Plan) -> None:
        self._lineage = lineage
        self._plan = plan
        self._steps = {step.model.relation: step for step in plan.steps}
        self._sources = {source.relation for source in lineage.sources}
        self._models = {model.relation: model for model in lineage.models}
        with empty(lineage) as connection:
            self._schemas = {}
            self._types = {}
            for relation in (*self._sources, *self._models):
                rows = connection.sql(f"from {relation}")
                self._schemas[relation] = rows.to_arrow_table().schema
                self._types[relation] = dict(zip(rows.columns, map(str, rows.types), strict=True))

    def schema(self, relation: str) -> pa.Schema:
        """Return the columns of a table."""
        return self._schemas[relation]

    def of(self, step: Step) -> dict[str, str]:
        """Return the views that a step's refresh reads, each after those it reads itself."""
        found: dict[str, str] = {}
        for relation in sorted(step.keys_only):
            self._add_keys(found, relation)
        self._add(found, step.refresh.parents)
        if step.reads_itself or step.model.relation in step.refresh.sql:
            self._add(found, [step.model.relation])
        return found

    def _add(self, found: dict[str, str], relations: Iterable[str]) -> None:
        for relation in relations:
            if relation in found:
                continue
            model, step = self._models.get(relation), self._steps.get(relation)
            if model is not None and model.is_view:
                self._add(found, model.parents)
                found[relation] = model.sql
            elif relation in self._sources or (step is not None and not step.is_empty):
                kept = self._types[relation] if step is None else step.columns
                shown = self._shown(relation, kept)
                found[relation] = f'select {shown} from temp.main."{registered(relation)}"'
            elif step is not None and step.has_intervals:
                self._add_keys(found, relation)
            else:
                found[relation] = f"select {self._shown(relation, ())} where false"

    def _add_keys(self, found: dict[str, str], relation: str) -> None:
        """Let the bars stand for a table that has a row for each."""
        bars = self._plan.step("int_bars").model.relation
        self._add(found, [bars])
        found[relation] = f"select {self._shown(relation, _KEY)} from {bars} where not is_gap"

    def _shown(self, relation: str, kept: Collection[str]) -> str:
        """Return the columns of a table of which only some are kept; the others are NULL."""
        return ", ".join(
            f'"{name}"' if name in kept else f'cast(null as {kind}) as "{name}"'
            for name, kind in self._types[relation].items()
        )


def registered(relation: str) -> str:
    """Return the name under which the rows of a table are given to a query."""
    return relation.replace('"', "")
