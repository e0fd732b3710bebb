"""What the registry keeps of a training, written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow

from ml import search, trees
from ml.trainers import Fitted


def write_model(connection: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> bool:
    """Write the model's row; returns whether its version is new."""
    key = [row["model_name"], row["model_version"]]
    known = connection.execute(
        "select 1 from registry.models where model_name = ? and model_version = ?", key
    ).fetchall()
    columns = ", ".join(row)
    values = ", ".join(f"${column}" for column in row)
    connection.execute(
        f"insert into registry.models ({columns}, registered_at) "
        f"values ({values}, get_current_timestamp() at time zone 'UTC')",
        dict(row),
    )
    return not known


def write_rounds(
    connection: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    fitted: Fitted,
    learning_rate: float | None,
) -> None:
    """Write every iteration."""
    connection.executemany(
        "insert into registry.training_info values (?, ?, 0, ?, ?, ?, ?, ?)",
        [
            [*key, number, done.loss, done.eval_loss, learning_rate, done.milliseconds]
            for number, done in enumerate(fitted.rounds, start=1)
        ],
    )


def write_trials(
    connection: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    trials: Sequence[search.Trial],
    best: int,
) -> None:
    """Write the trials that are new: another search may have ended at the same version before."""
    rows = [
        [
            *(json.dumps(trial.hyperparameters), json.dumps(trial.metrics)),
            *(trial.training_loss, trial.eval_loss),
            *(_status(trial), trial.error, number == best),
        ]
        for number, trial in enumerate(trials)
    ]
    known = connection.execute(
        "select * exclude (model_name, model_version, trial_id) from registry.trials "
        "where model_name = ? and model_version = ?",
        key,
    ).fetchall()
    new = [row for row in rows if tuple(row) not in known]
    if new:
        connection.executemany(
            "insert into registry.trials values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [[*key, number, *row] for number, row in enumerate(new, start=len(known) + 1)],
        )


def _status(trial: search.Trial) -> str:
    """Return how a trial ended, by BigQuery ML's names."""
    if trial.error:
        return "FAILED"
    return "STOPPED" if trial.is_cut else "SUCCEEDED"


def write_importance(
    connection: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    body: trees.Trees,
    features: Sequence[str],
    origins: Sequence[int],
) -> None:
    """Write the importance of each feature: of its columns, splits added and means weighted."""
    columns = trees.importance(body, len(origins))
    rows = []
    for position, feature in enumerate(features):
        own = [
            column for column, origin in zip(columns, origins, strict=True) if origin == position
        ]
        splits = sum(weight for weight, _, _ in own)
        rows.append(
            [
                *(*key, feature, splits),
                sum(weight * gain for weight, gain, _ in own) / max(splits, 1),
                sum(weight * cover for weight, _, cover in own) / max(splits, 1),
            ]
        )
    connection.executemany(
        "insert into registry.feature_importance values (?, ?, ?, ?, ?, ?)", rows
    )


def write_trees(connection: duckdb.DuckDBPyConnection, version: str, body: trees.Trees) -> None:
    """Write the trees as rows, those only that are not there yet."""
    leaf = body.is_leaf
    nodes = pyarrow.table(
        {
            "model_version": [version] * len(leaf),
            "tree": body.tree,
            "node": body.node,
            "feature": pyarrow.array(body.feature + 1, mask=leaf),
            "threshold": pyarrow.array(body.threshold, mask=leaf),
            "is_missing_true": pyarrow.array(body.is_missing_true, mask=leaf),
            "true_node": pyarrow.array(body.true_node, mask=leaf),
            "false_node": pyarrow.array(body.false_node, mask=leaf),
            "output": body.output,
            "value": pyarrow.array(body.value, mask=~leaf),
        }
    )
    base = pyarrow.table(
        {
            "model_version": [version] * len(body.base),
            "tree": [-1] * len(body.base),
            "node": [0] * len(body.base),
            "output": np.arange(len(body.base)),
            "value": body.base,
        }
    )
    for rows in (nodes, base):
        connection.register("tree_nodes_", rows)
        connection.execute(
            "insert into registry.tree_nodes by name select distinct tree_nodes_.* "
            "from tree_nodes_ "
            "anti join registry.tree_nodes using (model_version, tree, node, output)"
        )
        connection.unregister("tree_nodes_")
