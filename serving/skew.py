"""What was served, held against what the batch computes of the same bars, and against training."""

from dataclasses import dataclass
from datetime import datetime

import duckdb

KEY = "exchange, market, symbol, interval_minutes, opened_at"
#: Rows of the training part, those with the smallest hashes of their keys, that drift is told by.
SAMPLE_ROWS = 20_000
#: Bars that closed so long before the last one served are not compared again.
DAYS = 7


class NothingServedError(RuntimeError):
    """No served features have landed."""


@dataclass(frozen=True)
class Skew:
    """A feature as served and as the batch computes it.

    Parameters
    ----------
    dataset, feature : str
        The feature.
    rows : int
        Bars that both have.
    mismatches : int
        Those of them in which the values differ, also where one alone is NULL.
    missing : int
        Bars of the batch, between the first and the last one served of their symbol, that were
        not served.
    extra : int
        Served bars that the batch does not have.
    worst : float or None
        Largest absolute difference; None where none can be told.
    psi : float or None
        Population stability index of the served values against the training part, over ten bins
        of equal counts; None without values.
    """

    dataset: str
    feature: str
    rows: int
    mismatches: int
    missing: int
    extra: int
    worst: float | None
    psi: float | None


@dataclass(frozen=True)
class Prediction:
    """What a model version said live.

    Parameters
    ----------
    model, version, stage : str
        The version.
    rows, late : int
        Bars it was asked about, and those that were served late.
    mismatches : int
        Bars whose probability the batch has otherwise.
    psi : float or None
        Of the served probabilities against those of training: what the walk-forward folds said of
        bars that they had not learned from or, without folds, what the batch says of the bars
        before those served; None without either.
    rate : float
        Bars asked about of those that the batch has in the time served, 0 to 1.
    last_closed_at : datetime
        Close of the last bar served, naive UTC: what staleness is counted from.
    """

    model: str
    version: str
    stage: str
    rows: int
    late: int
    mismatches: int
    psi: float | None
    rate: float
    last_closed_at: datetime


@dataclass(frozen=True)
class Champion:
    """A model version that is to be asked live, by the registry.

    Parameters
    ----------
    model, version : str
        The version.
    last_at : datetime
        Close of the last bar that any champion of its name was asked about; its own promotion
        where none was, or where that is later. Naive UTC.
    interval_minutes : int
        Length of the shortest bars that it was asked about; 0 where there is none.
    """

    model: str
    version: str
    last_at: datetime
    interval_minutes: int


def champions(connection: duckdb.DuckDBPyConnection) -> list[Champion]:
    """Return the versions that are asked and traded by, with when they said something last."""
    found = connection.execute(
        "select 1 from duckdb_views() where schema_name = 'registry' "
        "and view_name = 'active_models'"
    ).fetchall()
    if not found:
        return []
    rows = connection.execute(
        """
        with
        promoted as (
            select model_name, model_version, max(changed_at) as promoted_at
            from registry.active_models inner join registry.stages
                using (model_name, model_version)
            where role in ('signal', 'member')
            group by all
        ),
        said as (
            select
                model_name, make_timestamp(epoch_us(max(closed_at))) as closed_at,
                min(interval_minutes) as interval_minutes
            from raw.signals where stage = 'champion' group by all
        )
        select
            model_name, model_version, greatest(promoted_at, coalesce(closed_at, promoted_at)),
            coalesce(interval_minutes, 0)
        from promoted left join said using (model_name)
        order by all
        """
    ).fetchall()
    return [Champion(*row) for row in rows]


def skew(connection: duckdb.DuckDBPyConnection, *, days: int = DAYS) -> list[Skew]:
    """Compare every served feature of the last days with the batch's, worst first.

    Bars newer than any that the batch has were served since it was built, and are not compared.

    Raises
    ------
    NothingServedError
        If no served features have landed, or their dataset was not built.
    """
    served = connection.execute(
        "select distinct dataset from raw.served_features "
        "inner join duckdb_tables() on table_name = dataset and schema_name = 'main' order by 1"
    ).fetchall()
    if not served:
        raise NothingServedError(
            "no served features have landed: run `tapehouse serve` and `tapehouse land` first"
        )
    found = [row for (dataset,) in served for row in _skew_of(connection, dataset, days)]
    return sorted(found, key=lambda row: (-row.mismatches, -(row.psi or 0), row.dataset))


def predictions(connection: duckdb.DuckDBPyConnection, *, days: int = DAYS) -> list[Prediction]:
    """Compare what each model version said live in the last days with the batch, by name."""
    tables = connection.execute(
        "select table_name from duckdb_columns() where schema_name = 'main' "
        "and starts_with(table_name, 'pred_') and column_name = 'probability' "
        "and table_name in (select table_name from duckdb_tables()) order by 1"
    ).fetchall()
    batch = " union all ".join(
        f"select model_name, model_version, {KEY}, probability from main.{name}"
        for (name,) in tables
    ) or (
        "select model_name, model_version, exchange, market, symbol, interval_minutes, "
        "opened_at::timestamp as opened_at, probability from raw.signals where false"
    )
    rows = connection.execute(
        f"""
        with
        batch as ({batch}),
        served as (
            select
                model_name, model_version, stage, exchange, market, symbol, interval_minutes,
                make_timestamp(epoch_us(opened_at)) as opened_at,
                make_timestamp(epoch_us(closed_at)) as closed_at, probability, is_late
            from raw.signals where stage <> 'ensemble' and {_recent("signals", days)}
        ),
        spans as (
            select
                model_name, model_version, stage, count(*) as row_count,
                count(*) filter (where is_late) as late_count, min(opened_at) as first_opened_at,
                max(opened_at) as last_opened_at, max(closed_at) as last_closed_at
            from served group by all
        ),
        compared as (
            select
                model_name, model_version,
                count(*) filter (where served.probability is distinct from batch.probability)
                    as mismatch_count
            from served inner join batch using (model_name, model_version, {KEY}) group by all
        ),
        expected as (
            select spans.model_name, spans.model_version, count(*) as bar_count
            from spans inner join batch using (model_name, model_version)
            where batch.opened_at between first_opened_at and last_opened_at group by all
        ),
        training as (
            select model_name, model_version, probability from ({_out_of_fold(connection)})
            union all
            select model_name, model_version, probability
            from batch inner join spans using (model_name, model_version)
            where opened_at < first_opened_at
                and model_version not in (
                    select model_version from ({_out_of_fold(connection)})
                )
        ),
        drift as ({_psi("model_name || ' ' || model_version", "probability", "served", "training")})
        select
            model_name, model_version, stage, row_count, late_count,
            coalesce(mismatch_count, 0), psi, least(1, row_count / coalesce(bar_count, row_count)),
            last_closed_at
        from spans
        left join compared using (model_name, model_version)
        left join expected using (model_name, model_version)
        left join drift on feature = model_name || ' ' || model_version
        order by all
        """
    ).fetchall()
    return [Prediction(*row) for row in rows]


def _out_of_fold(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the query of what the folds of each version said, if there is a registry."""
    found = connection.execute(
        "select 1 from duckdb_tables() where schema_name = 'registry' "
        "and table_name = 'out_of_fold'"
    ).fetchall()
    table = "registry.out_of_fold where prediction is not null"
    nothing = "(select '' as model_name, '' as model_version, 0.0 as prediction) where false"
    rows = table if found else nothing
    return f"select model_name, model_version, prediction as probability from {rows}"


def _recent(table: str, days: int) -> str:
    """Return the condition that a bar closed in the days before the last one that was served."""
    return f"closed_at > (select max(closed_at) - interval {days} day from raw.{table})"


def _skew_of(connection: duckdb.DuckDBPyConnection, dataset: str, days: int) -> list[Skew]:
    columns = connection.sql(f"from main.{dataset} limit 0")
    features = [
        name
        for name, kind in zip(columns.columns, map(str, columns.types), strict=True)
        if kind == "FLOAT"
    ]
    names = ", ".join(f'"{name}"' for name in features)
    rows = connection.execute(
        f"""
        with
        bars as (
            select
                exchange, market, symbol, interval_minutes,
                make_timestamp(epoch_us(opened_at)) as opened_at, features
            from raw.served_features
            where dataset = '{dataset}' and {_recent("served_features", days)}
        ),
        names as (select unnest({features!r}) as feature),
        served as (
            select bars.* exclude (features), feature,
                cast(json_extract_string(features, '$."' || feature || '"') as float) as value
            from bars cross join names
        ),
        spans as (
            select exchange, market, symbol, interval_minutes,
                min(opened_at) as first_opened_at, max(opened_at) as last_opened_at
            from bars group by all
        ),
        batch as (
            from (
                select {KEY}, {names} from main.{dataset}
                inner join spans using (exchange, market, symbol, interval_minutes)
                where opened_at between first_opened_at and last_opened_at
            ) unpivot include nulls (value for feature in ({names}))
        ),
        compared as (
            select
                feature,
                count(*) filter (where served.opened_at is not null and batch.opened_at is not null)
                    as row_count,
                count(*) filter (
                    where served.opened_at is not null and batch.opened_at is not null
                    and served.value is distinct from batch.value
                ) as mismatch_count,
                count(*) filter (where served.opened_at is null) as missing_count,
                count(*) filter (where batch.opened_at is null) as extra_count,
                max(abs(served.value - batch.value)) as worst
            from (from served where opened_at <= (select max(opened_at) from main.{dataset}))
                as served
            full join batch using (feature, {KEY})
            group by feature
        ),
        chosen as (
            select {names} from main.{dataset} where split = 'train'
            order by hash({KEY}) limit {SAMPLE_ROWS}
        ),
        training as (from chosen unpivot (value for feature in ({names}))),
        drift as ({_psi("feature", "value", "served", "training")})
        select
            feature, coalesce(row_count, 0), coalesce(mismatch_count, 0),
            coalesce(missing_count, 0), coalesce(extra_count, 0), worst, psi
        from names left join compared using (feature) left join drift using (feature)
        """
    ).fetchall()
    return [Skew(dataset, *row) for row in rows]


def _psi(name: str, value: str, study: str, base: str) -> str:
    """Return the query of the population stability index by name; a share is at least 0.0001."""
    tenths = ", ".join(str(tenth / 10) for tenth in range(1, 10))
    return f"""
        with
        edges as (
            select {name} as feature, quantile_cont({value}, [{tenths}]) as cuts
            from {base} where isfinite({value}) group by all
        ),
        parts as (
            select true as is_base, {name} as feature, {value} as known from {base}
            where isfinite({value})
            union all
            select false, {name}, {value} from {study} where isfinite({value})
        ),
        binned as (
            select is_base, feature, len([cut for cut in cuts if cut < known]) as bin
            from parts inner join edges using (feature)
        ),
        counted as (
            select
                feature, bin,
                count(*) filter (where is_base) as base_count,
                count(*) filter (where not is_base) as study_count
            from binned group by all
        ),
        shares as (
            select
                feature,
                greatest(base_count / sum(base_count) over of_feature, 1e-4) as base_share,
                greatest(study_count / sum(study_count) over of_feature, 1e-4) as study_share,
                sum(study_count) over of_feature as study_total
            from counted window of_feature as (partition by feature)
        )
        select feature, sum((study_share - base_share) * ln(study_share / base_share)) as psi
        from shares where study_total > 0 group by feature
    """
