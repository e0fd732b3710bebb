"""Predictions, signals, positions and the verdict, against independent computations."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from dbt_fixtures import run_dbt
from ml_fixtures import build, build_market
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from ml.plugin import create_functions

COST_BPS = 5.0
HOLDING_BARS = 5
SERIES = "exchange, market, symbol, interval_minutes"


ENSEMBLES = [f"ensemble_{name}" for name in ("by_regime", "confident", "stacked", "weighted")]


@pytest.fixture(scope="module")
def edge_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_market(tmp_path_factory.mktemp("edge"), seed=7, edge=0.5)


@pytest.fixture
def edge(edge_market: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(edge_market), read_only=True) as connection:
        yield connection


@pytest.fixture
def edge_copy(edge_market: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(edge_market.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / edge_market.name


def verdict(connection: duckdb.DuckDBPyConnection) -> dict[str, bool]:
    rows = connection.execute(
        "select criterion, is_passed, verdict from trd_verdict where strategy = 'model' "
        "order by criterion_number"
    ).fetchall()
    passed = {criterion: is_passed for criterion, is_passed, _ in rows}
    assert {verdict for _, _, verdict in rows} == {"GO" if all(passed.values()) else "NO-GO"}
    return passed


def test_a_planted_edge_is_found(edge: duckdb.DuckDBPyConnection) -> None:
    assert [name for name, passed in verdict(edge).items() if not passed] == []
    auc = edge.execute(
        "select strategy, roc_auc from trd_evaluation where roc_auc is not null order by all"
    ).fetchall()
    assert [strategy for strategy, _ in auc] == [*ENSEMBLES, "model", "shuffled_labels"]
    assert [name for name, area in auc[:-1] if area <= 0.6] == []
    assert abs(auc[-1][1] - 0.5) < 0.05


def test_ensembles_are_judged_by_the_same_criteria_as_the_model(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    judged = edge.execute(
        "select strategy, count(*), count(*) filter (where verdict = 'GO') % 13, "
        "list(criterion order by criterion_number) from trd_verdict group by all order by all"
    ).fetchall()
    assert [row[:3] for row in judged] == [(name, 13, 0) for name in [*ENSEMBLES, "model"]]
    assert len({tuple(row[3]) for row in judged}) == 1
    found = dict(edge.execute("select strategy, roc_auc from trd_evaluation").fetchall())
    for name in ENSEMBLES:
        rows = edge.execute(
            """
            select ds_order_flow.is_up_5, ensembles.probability
            from sig_ensembles as ensembles
            inner join ds_order_flow using (exchange, market, symbol, interval_minutes, opened_at)
            where concat('ensemble_', ensembles.ensemble_name) = ?
                and ds_order_flow.split = 'test' and ensembles.probability is not null
            """,
            [name],
        ).df()
        assert found[name] == pytest.approx(
            roc_auc_score(rows["is_up_5"].astype(bool), rows["probability"])
        )


def test_a_market_without_an_edge_is_a_no_go(tmp_path: Path) -> None:
    database = build_market(tmp_path, seed=7, edge=0)
    with duckdb.connect(str(database), read_only=True) as connection:
        passed = verdict(connection)
        assert passed["out_of_sample_rows"]
        assert not passed["roc_auc_lower_bound"]
        assert not passed["t_statistic"]
        assert not passed["deflated_sharpe"]
        assert not passed["overfitting_probability"]
        assert not passed["loss_probability"]
        ensembles = connection.execute(
            "select distinct strategy, verdict from trd_verdict where strategy <> 'model' "
            "order by all"
        ).fetchall()
        assert ensembles == [(name, "NO-GO") for name in ENSEMBLES]


def test_no_prediction_was_made_in_sample(edge: duckdb.DuckDBPyConnection) -> None:
    for name in ("order_flow", "order_flow_shuffled"):
        found = edge.execute(
            f"""
            select min(closed_at) >= (select train_end_at from ml_{name}),
                count(*) = (
                    select count(*) from ds_order_flow
                    where closed_at >= (select train_end_at from ml_{name})
                )
            from pred_{name}
            """
        ).fetchall()
        assert found == [(True, True)]


def test_in_sample_predictions_fail_the_build_and_do_not_reach_the_evaluation(
    edge_copy: Path,
) -> None:
    judged = "select strategy, row_count, roc_auc, net_bps from trd_evaluation order by strategy"
    with duckdb.connect(str(edge_copy)) as connection:
        before = connection.execute(judged).fetchall()
        # Rows that the model learned from, called a test, with predictions that know the label.
        connection.execute(
            f"""
            insert into pred_order_flow by name
            select {SERIES}, opened_at, closed_at, available_at, 'ml_order_flow' as model_name,
                (select model_version from ml_order_flow) as model_version,
                is_up_5 as predicted_is_up_5, is_up_5::double as probability,
                closed_at as predicted_at
            from ds_order_flow where split = 'train';
            update ds_order_flow set split = 'test' where split = 'train'
            """
        )
    with pytest.raises(AssertionError, match=r"FAIL .* never_in_sample_pred_order_flow"):
        run_dbt(edge_copy, "test", "--select", "test_name:never_in_sample")
    run_dbt(edge_copy, "run", "--select", "sig_trading_bars", "path:models/trading")
    with duckdb.connect(str(edge_copy)) as connection:
        assert connection.execute(judged).fetchall() == [
            tuple(map(pytest.approx, row)) for row in before
        ]


def test_positions_and_profits_are_those_of_a_loop_over_bars(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    start = edge.execute(
        "select min(closed_at) from ds_order_flow where split = 'test'"
    ).fetchall()[0][0]
    found = edge.execute(
        "select symbol, opened_at, position, turnover, is_entry::int, gross_bps, funding_bps, "
        "net_bps from trd_positions where strategy = 'model' order by symbol, opened_at"
    ).fetchall()
    expected = []
    for (symbol,) in edge.execute("select distinct symbol from int_bars order by all").fetchall():
        bars = edge.execute(
            "select opened_at, close_price, coalesce(signal, 0), coalesce(funding_rate, 0) "
            f"from int_bars left join sig_order_flow using ({SERIES}, opened_at) "
            "left join int_funding on int_funding.symbol = int_bars.symbol "
            "and funded_at = int_bars.opened_at "
            "where int_bars.symbol = ? and int_bars.closed_at >= ? order by int_bars.opened_at",
            [symbol, start],
        ).fetchall()
        signals, held, last_close, previous = [], 0.0, None, None
        for opened_at, close, signal, funding_rate in bars:
            position = sum(signals[-HOLDING_BARS:]) / HOLDING_BARS if previous else held
            earned = 0.0
            if close is not None and last_close is not None:
                earned = 1e4 * position * (close / last_close - 1)
            turnover = abs(position - held)
            funding = 1e4 * position * funding_rate
            net = earned - COST_BPS * turnover - funding
            is_entry = position != 0 and position * held <= 0
            expected.append((symbol, opened_at, position, turnover, is_entry, earned, funding, net))
            signals.append(signal)
            held, last_close, previous = position, close or last_close, close
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert np.allclose([row[2:] for row in found], [row[2:] for row in expected], atol=1e-9)
    assert np.count_nonzero([row[2] for row in found]) > 500
    assert np.count_nonzero([row[6] for row in found]) > 10


def test_statistics_of_hours_are_those_of_numpy(edge: duckdb.DuckDBPyConnection) -> None:
    hours = edge.execute(
        "select sum(net_bps) / 3 as net_bps from trd_positions where strategy = 'model' "
        "group by date_trunc('hour', opened_at) order by date_trunc('hour', opened_at)"
    ).fetchnumpy()["net_bps"]
    equity = np.cumsum(hours)
    drawdown = (np.maximum.accumulate(np.maximum(equity, 0)) - equity).max()
    t_statistic = hours.mean() / (hours.std(ddof=1) / np.sqrt(len(hours)))
    sharpe = hours.mean() / hours.std(ddof=1)
    found = edge.execute(
        "select block_count, net_bps, t_statistic, sharpe_per_block, max_drawdown_bps "
        "from trd_evaluation where strategy = 'model'"
    ).fetchall()[0]
    assert found == pytest.approx((len(hours), hours.sum(), t_statistic, sharpe, drawdown))
    assert edge.execute("select distinct sharpe from trd_evaluation").fetchall() == [(None,)]


def test_ensembles_vote_as_numpy_and_the_stacked_model_saw_only_what_was_out_of_fold(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    joined = " ".join(
        f"inner join (from sig_members where model_name = 'ml_{model}') as {name} "
        f"using ({SERIES}, opened_at)"
        for name, model in (
            ("boosted", "order_flow"),
            ("forest", "order_flow_forest"),
            ("linear", "order_flow_linear"),
            ("network", "order_flow_network"),
        )
    )
    votes = edge.execute(
        f"""
        select boosted.probability as boosted, forest.probability as forest,
            linear.probability as linear, network.probability as network, ensemble.*
        from (from sig_ensembles where ensemble_name = 'confident') as ensemble
        {joined}
        """
    ).df()
    told = votes[["boosted", "forest", "linear", "network"]].to_numpy()
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    shares = weights * np.maximum(told, 1 - told)
    probability = (shares * told).sum(axis=1) / shares.sum(axis=1)
    side = np.sign(probability - 0.5)
    disagreement = (weights * ((told > 0.5) != (side > 0)[:, None])).sum(axis=1)
    trusted = (np.maximum(probability, 1 - probability) >= 0.55) & (disagreement <= 0.4)
    assert len(votes) > 5000
    assert votes["probability"].to_numpy() == pytest.approx(probability)
    assert votes["disagreement"].to_numpy() == pytest.approx(disagreement)
    assert (votes["signal"] == np.where(trusted, side, 0)).all()
    assert edge.execute(
        """
        select (select count(*) from registry.out_of_fold as told
                inner join registry.folds as folds using (model_name, model_version, fold)
                where told.opened_at + interval 5 minute < folds.train_end_at),
            (select min(closed_at) from pred_order_flow_stacked)
                >= (select train_end_at from ml_order_flow_stacked)
        """
    ).fetchall() == [(0, True)]


def test_combinatorial_folds_are_purged_and_embargoed_as_a_loop_says(
    edge: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    inline = (
        "select symbol, split_number, time_block, {{ combinatorial_part() }} as part, "
        "closed_at, label_end_at from "
        "({{ combinatorial_blocks('ds_order_flow', 'is_up_5', 'symbol', 6, 5) }}) as blocks "
        "cross join ({{ combinatorial_splits(6, 2) }}) as splits"
    )
    printed = run_dbt(
        tmp_path / "t.duckdb", "compile", "--inline", inline, "--output", "json", "--quiet"
    )
    rows = edge.execute(json.loads(printed)["compiled"]).df()
    assert rows["split_number"].nunique() == 15
    assert (
        len(rows) == 15 * edge.execute("select count(is_up_5) from ds_order_flow").fetchall()[0][0]
    )
    embargo = timedelta(minutes=60)
    for _, split in rows.groupby("split_number"):
        tested = split[split["part"] == "test"]
        assert tested["time_block"].nunique() == 2
        allowed = ~split["time_block"].isin(tested["time_block"])
        for _, block in tested.groupby("time_block"):
            start, end = block["closed_at"].min(), block["label_end_at"].max() + embargo
            allowed &= (split["label_end_at"] <= start) | (split["closed_at"] >= end)
        assert (split["part"] == "train").tolist() == allowed.tolist()
        assert split["part"].isna().any()
        assert (split["part"] == "train").mean() > 0.6
    sizes = rows[rows["split_number"] == 1].groupby("time_block").size()
    assert sizes.max() - sizes.min() < 10


def test_the_threshold_is_the_best_of_the_validation_part(
    edge: duckdb.DuckDBPyConnection,
) -> None:
    best = edge.execute(
        "select threshold from sig_threshold_candidates where model_name = 'ml_order_flow' "
        "and signal_count >= 50 and net_bps > 0 order by net_bps desc limit 1"
    ).fetchall()
    chosen = "select threshold from sig_thresholds where model_name = 'ml_order_flow'"
    assert len(best) == 1
    assert edge.execute(chosen).fetchall() == best


def test_classification_agrees_with_scikit_learn(edge: duckdb.DuckDBPyConnection) -> None:
    judged = edge.execute(
        "select is_up_5, probability from ds_order_flow "
        f"inner join pred_order_flow using ({SERIES}, opened_at) where split = 'test'"
    ).fetchnumpy()
    labels, probability = judged["is_up_5"], judged["probability"]
    found = edge.execute(
        "select row_count, positive_count, accuracy, log_loss, roc_auc from trd_classification "
        "where strategy = 'model'"
    ).fetchall()[0]
    assert found == pytest.approx(
        (
            len(labels),
            labels.sum(),
            accuracy_score(labels, probability > 0.5),
            log_loss(labels, probability),
            roc_auc_score(labels, probability),
        )
    )


def test_the_verbs_agree_with_scikit_learn(edge_copy: Path) -> None:
    query = "select * from ds_order_flow where split = 'test'"
    model = "ref('ml_order_flow')"
    verbs = {
        "predicted": f'ml_predict({model}, "{query}")',
        "evaluated": f'ml_evaluate({model}, "{query}")',
        "roc": f'ml_roc_curve({model}, "{query}")',
        "matrix": f'ml_confusion_matrix({model}, "{query}")',
    }
    inline = "with " + ", ".join(f"{name} as ({{{{ {verb} }}}})" for name, verb in verbs.items())
    printed = run_dbt(
        edge_copy, "compile", "--inline", inline + " select 1", "--output", "json", "--quiet"
    )
    sql = json.loads(printed)["compiled"].removesuffix("select 1")
    with duckdb.connect(str(edge_copy)) as connection:
        create_functions(connection, database=edge_copy)
        connection.execute("set threads = 1")
        rows = connection.execute(
            f"{sql} select is_up_5, predicted_is_up_5, predicted_is_up_5_probs from predicted"
        ).fetchall()
        evaluated = connection.execute(f"{sql} select columns(*) from evaluated").fetchall()[0]
        names = [column[0] for column in connection.description or []]
        roc = connection.execute(
            f"{sql} select false_positive_rate, recall, threshold from roc order by threshold desc"
        ).fetchnumpy()
        matrix = connection.execute(f"{sql} from matrix order by expected_label").fetchall()
    labels = np.array([row[0] for row in rows])
    predicted = np.array([row[1] for row in rows])
    probability = np.array([next(each["prob"] for each in row[2] if each["label"]) for row in rows])
    assert [row[2][0]["label"] for row in rows] == predicted.tolist()
    assert dict(zip(names, evaluated, strict=True)) == pytest.approx(
        {
            "precision": precision_score(labels, predicted),
            "recall": recall_score(labels, predicted),
            "accuracy": accuracy_score(labels, predicted),
            "f1_score": f1_score(labels, predicted),
            "log_loss": log_loss(labels, probability),
            "roc_auc": roc_auc_score(labels, probability),
        }
    )
    rates, recalls, thresholds = roc_curve(labels, probability, drop_intermediate=False)
    assert roc["false_positive_rate"] == pytest.approx(rates[1:])
    assert roc["recall"] == pytest.approx(recalls[1:])
    assert roc["threshold"] == pytest.approx(thresholds[1:])
    assert [list(row[1:]) for row in matrix] == confusion_matrix(labels, predicted).tolist()


def test_building_twice_changes_nothing_and_in_two_batches_gives_what_one_gives(
    edge_copy: Path,
) -> None:
    signals = "select * from sig_order_flow order by all"
    with duckdb.connect(str(edge_copy)) as connection:
        at_once = connection.execute(signals).fetchall()
        connection.execute(
            "delete from pred_order_flow where symbol = 'ETHUSDT' or opened_at > '2024-12-29'"
        )
    printed = build(edge_copy)
    assert printed.count("are unchanged, training skipped") == 6
    with duckdb.connect(str(edge_copy)) as connection:
        assert connection.execute(signals).fetchall() == at_once
        assert connection.execute("select count(*) from registry.models").fetchall() == [(6,)]


def test_a_retrained_model_is_judged_beside_its_earlier_version(edge_copy: Path) -> None:
    with duckdb.connect(str(edge_copy)) as connection:
        before = connection.execute("select model_version from ml_order_flow").fetchall()[0][0]
        kept = connection.execute("select * from trd_evaluation order by all").fetchall()
        connection.execute("update ds_order_flow set noise_0 = 0 where split = 'train'")
    build(edge_copy, "--full-refresh")
    with duckdb.connect(str(edge_copy)) as connection:
        after = connection.execute("select model_version from ml_order_flow").fetchall()[0][0]
        assert after != before
        assert (
            connection.execute(
                "select * from trd_evaluation where model_version = ? order by all", [before]
            ).fetchall()
            == kept
        )
        versions = "select distinct model_version from {} order by all"
        for table in ("pred_order_flow", "sig_order_flow", "trd_evaluation"):
            assert connection.execute(versions.format(table)).fetchall() == sorted(
                [(before,), (after,)]
            )
        assert connection.execute(versions.format("trd_verdict")).fetchall() == [(after,)]


def test_without_a_test_part_the_verdict_is_no_go_and_says_why(edge_copy: Path) -> None:
    with duckdb.connect(str(edge_copy)) as connection:
        connection.execute("update ds_order_flow set split = null where split = 'test'")
        connection.execute("delete from trd_evaluation")
    run_dbt(edge_copy, "run", "--select", "path:models/trading")
    with duckdb.connect(str(edge_copy)) as connection:
        assert connection.execute(
            "select distinct reason, verdict from trd_verdict"
        ).fetchall() == [("no out-of-sample rows", "NO-GO")]


def test_calibrated_probabilities_interpolate_the_knots_of_the_validation_part(
    edge: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    inline = (
        "select * from ({{ ml_calibrate(ref('ml_order_flow'), "
        '"select i / 1000 as probability from range(1001) as numbers (i)") }}) as calibrated'
    )
    printed = run_dbt(
        tmp_path / "t.duckdb", "compile", "--inline", inline, "--output", "json", "--quiet"
    )
    sql = json.loads(printed)["compiled"].replace('"t".', "")
    found = edge.execute(f"{sql} order by probability").df()
    own = "select {} from registry.calibration inner join ml_order_flow using (model_version) "
    knots = edge.execute(own.format("x, y") + "where method = 'isotonic' order by x, y").df()
    ((slope, intercept),) = edge.execute(own.format("x, y") + "where method = 'platt'").fetchall()
    probability = found["probability"].to_numpy()
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    odds = slope * np.log(clipped / (1 - clipped)) + intercept
    assert found["isotonic_probability"].to_numpy() == pytest.approx(
        np.interp(probability, knots["x"], knots["y"])
    )
    assert found["platt_probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-odds)))
    assert slope > 0
    errors = edge.execute(
        "select calibration, any_value(expected_calibration_error), sum(row_count) "
        "from trd_reliability group by all order by all"
    ).fetchall()
    assert [row[0] for row in errors] == ["isotonic", "none", "platt"]
    assert all(error < 0.08 for _, error, _ in errors)
    assert len({count for *_, count in errors}) == 1
