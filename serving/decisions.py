"""What follows from probabilities: the project's signal models over the bars of the moment."""

import hashlib
import queue
from collections.abc import Collection, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from serving.ahead import PlannedQuery

ENSEMBLES = "sig_ensembles"
PREDICTIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("exchange", "market", "symbol")),
        ("interval_minutes", pa.int32()),
        *((name, pa.timestamp("us")) for name in ("opened_at", "closed_at", "available_at")),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("stage", pa.string()),
        ("probability", pa.float64()),
    ]
)
REGIMES = pa.schema(
    [
        *((name, pa.string()) for name in ("exchange", "market", "symbol")),
        ("interval_minutes", pa.int32()),
        ("opened_at", pa.timestamp("us")),
        ("vol_regime", pa.int32()),
    ]
)
_GIVEN = {"predictions": PREDICTIONS, "regimes": REGIMES}


class Decisions:
    """Applies thresholds and the rules of ensembles by the SQL of their models.

    Parameters
    ----------
    manifest : mapping
        A manifest with the signal models compiled.
    names : collection of str
        The signal models that are asked.
    votes : collection of str
        The models that put answers side by side for a stacked one.
    connection : duckdb.DuckDBPyConnection
        The warehouse, for thresholds and rules.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        names: Collection[str],
        votes: Collection[str],
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._names = names
        nodes = {node["name"]: node for node in manifest["nodes"].values() if node.get("name")}
        self._done: queue.SimpleQueue[tuple[str, pa.Table | Exception]] = queue.SimpleQueue()
        self._constants: dict[str, pa.Table] = {}
        self._queries: dict[str, PlannedQuery] = {}
        self._reads: dict[str, set[str]] = {}
        for name in (*names, *votes):
            views = {}
            schemas = {}
            for key in nodes[name]["depends_on"]["nodes"]:
                node = manifest["nodes"][key]
                given, condition = _stands_for(node)
                if given not in _GIVEN and given not in self._constants:
                    relation = f'"{node["schema"]}"."{node["name"]}"'
                    self._constants[given] = connection.sql(f"from {relation}").to_arrow_table()
                schemas[given] = _GIVEN.get(given) or self._constants[given].schema
                views[node["relation_name"]] = f'select * from temp.main."{given}"{condition}'
            self._reads[name] = set(schemas)
            self._queries[name] = PlannedQuery(
                name,
                nodes[name]["compiled_code"],
                database=nodes[name]["database"],
                schemas=schemas,
                views=views,
                done=self._done,
            )

    def close(self) -> None:
        """Stop all queries."""
        for planned in self._queries.values():
            planned.stop()

    def plan_ahead(self) -> None:
        """Have the queries that ran planned again: what is not done when bars close."""
        for planned in self._queries.values():
            planned.plan()

    def rules_hash(self, versions: list[str]) -> str:
        """Return what names the present rules of ensembles over model versions."""
        rules = self._constants["ensembles"].to_pylist() if "ensembles" in self._constants else []
        return hashlib.sha256(f"{sorted(versions)} {rules}".encode()).hexdigest()[:16]

    def decide(self, predictions: pa.Table, regimes: pa.Table) -> dict[str, pa.Table]:
        """Return the rows of each signal model over the given predictions."""
        return self._run(self._names, {"predictions": predictions, "regimes": regimes})

    def votes(self, name: str, predictions: pa.Table) -> pa.Table:
        """Return the rows that a stacked model is given, of those of the models that it asks."""
        return self._run([name], {"predictions": predictions})[name]

    def _run(self, names: Collection[str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        given = {**self._constants, **tables}
        for name in names:
            self._queries[name].run({table: given[table] for table in self._reads[name]})
        found = {}
        for _ in names:
            name, result = self._done.get()
            if isinstance(result, Exception):
                raise result
            found[name] = result
        return found


def _stands_for(node: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a signal model is given in the place of a table, and which rows of it."""
    name: str = node["name"]
    if name.startswith("pred_"):
        parents = (key.rpartition(".")[2] for key in node["depends_on"]["nodes"])
        models = ", ".join(f"'{parent}'" for parent in parents if parent.startswith("ml_"))
        return "predictions", f" where model_name in ({models})"
    if name == "sig_members":
        return "predictions", " where stage = 'champion'"
    return ("regimes" if name == "int_volatility_regimes" else name), ""
