"""What the verbs say of a version beside its training: features, attributions, calibration."""

import duckdb
import numpy as np
import numpy.typing as npt

from ml import calibration
from ml.data import Data, Rows, quote
from ml.explanation import Explainer

# Rows of the validation part whose attributions make the global ones.
EXPLAINED_ROWS = 2_000


def register(
    connection: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    data: Data,
    validation: Rows,
    predicted: npt.NDArray[np.float64],
    explain: Explainer,
) -> None:
    """Write ``registry.feature_info``, ``global_explanations`` and ``calibration`` of a version.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The warehouse.
    key : tuple of str
        Model name and version.
    data : Data
        What was learned from.
    validation : Rows
        The validation part, which explains and calibrates.
    predicted : numpy.ndarray
        Shape (n, outputs): the probabilities of every class, or values, of the validation part.
    explain : Explainer
        The model's, of `ml.explanation.explainer`.
    """
    _register_features(connection, key, data)
    found = np.abs(explain(validation.features[:EXPLAINED_ROWS])).mean(axis=0)
    # Of two classes one score tells them apart: a feature counts as much for both.
    names = data.task.classes or (None,)
    attributions = np.broadcast_to(found, (len(names), found.shape[1]))
    connection.executemany(
        "insert into registry.global_explanations values (?, ?, ?, ?, ?)",
        [
            [*key, name, feature, attribution]
            for name, row in zip(names, attributions.tolist(), strict=True)
            for feature, attribution in zip(data.features, row[:-2], strict=True)
        ],
    )
    if data.task.kind == "binary":
        connection.executemany(
            "insert into registry.calibration values (?, ?, ?, ?, ?)",
            [[*key, *knot] for knot in calibration.fit(predicted[:, 1], validation.labels)],
        )


def _register_features(
    connection: duckdb.DuckDBPyConnection, key: tuple[str, str], data: Data
) -> None:
    statistics = "min(x), max(x), avg(x), median(x), stddev_samp(x)"
    columns = ", ".join(map(quote, data.features))
    connection.execute(
        f"""
        insert into registry.feature_info
        with
        training as (select {columns} from {data.relation} as rows_ where split_ = 'train'),
        values_ as (
            select * from training unpivot include nulls (x for input in ({columns}))
        ),
        finite as (select input, case when isfinite(x) then x::double end as x from values_)
        select $name, $version, input, {statistics}, null, count(*) - count(x), null
        from finite
        group by input
        """,
        {"name": key[0], "version": key[1]},
    )
