"""The statistics that tell luck from skill, against NumPy, SciPy and scikit-learn."""

import hashlib
import json
from itertools import combinations
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pytest
from dbt_fixtures import run_dbt
from scipy.stats import kurtosis, norm, skew, spearmanr, ttest_1samp
from sklearn.metrics import roc_auc_score

DRAWS = 500
BLOCKS = 24
HOURS = 240
STATISTICS = "trd_candidates trd_sharpe trd_overfitting trd_information trd_roc_auc_interval"


def profits(seed: int, skill: float) -> pandas.DataFrame:
    """Hourly profits of 20 candidates of which the last earns `skill` standard deviations."""
    generator = np.random.default_rng(seed)
    hours = pandas.date_range("2025-01-01", periods=HOURS, freq="h")
    candidates = []
    for number in range(20):
        net = generator.normal(size=HOURS) + (skill if number == 19 else 0)
        part = np.where(np.arange(HOURS) < HOURS // 2, "validation", "test")
        candidates.append(
            pandas.DataFrame(
                {
                    "model_name": "m",
                    "model_version": "a",
                    "threshold": number / 100,
                    "part": part,
                    "block_at": hours,
                    "gross_bps": net + 0.1,
                    "net_bps": net,
                }
            )
        )
    return pandas.concat(candidates, ignore_index=True)


def judged(seed: int) -> pandas.DataFrame:
    generator = np.random.default_rng(seed)
    times = pandas.date_range("2025-01-01", periods=600, freq="5min").repeat(2)
    forecast = generator.normal(size=len(times))
    returns = 0.2 * forecast + generator.normal(size=len(times))
    return pandas.DataFrame(
        {
            "strategy": "model",
            "symbol": ["BTCUSDT", "ETHUSDT"] * 600,
            "opened_at": times,
            "is_true": returns > 0,
            "future_return": returns.round(1),
            "probability": (0.5 + forecast / 10).round(3),
        }
    )


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Warehouses with the statistics of a market without skill and of one with it."""
    databases = {}
    for name, skill in (("luck", 0.0), ("skill", 0.6)):
        database = tmp_path_factory.mktemp(name) / "tapehouse.duckdb"
        blocks = profits(7, skill)
        chosen = blocks[blocks["threshold"] == 0.19].assign(strategy="model")
        rows = judged(3)
        with duckdb.connect(str(database)) as connection:
            for table, frame in (
                ("sig_candidate_blocks", blocks),
                ("trd_blocks", chosen),
                ("trd_judged", rows),
            ):
                connection.register("frame", frame)
                connection.execute(f"create table {table} as from frame")
                connection.unregister("frame")
        run_dbt(database, "run", "--select", *STATISTICS.split())
        databases[name] = database
    return databases


def rows_of(database: Path, table: str) -> list[dict[str, float]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(f"from {table} order by 1").df().to_dict("records")


def test_the_normal_distribution_and_its_inverse_are_those_of_scipy(tmp_path: Path) -> None:
    inline = "select x, {{ normal_cdf('x') }} as cdf, {{ normal_quantile('x') }} as quantile from x"
    printed = run_dbt(
        tmp_path / "t.duckdb", "compile", "--inline", inline, "--output", "json", "--quiet"
    )
    sizes = [np.linspace(-40, 40, 50_001), np.linspace(1e-6, 1 - 1e-6, 50_001)]
    x = pandas.DataFrame({"x": np.concatenate([*sizes, 10.0 ** -np.arange(1, 300)])})
    sql = json.loads(printed)["compiled"]
    with duckdb.connect() as connection:
        connection.register("x", x)
        found = connection.execute(sql).fetchnumpy()
        outside = connection.execute(
            sql.replace("from x", "from (values (0e0), (1e0), (null)) as x (x)")
        ).fetchall()
    assert np.abs(found["cdf"] - norm.cdf(x["x"])).max() < 1e-15
    inside = (x["x"] > 0) & (x["x"] < 1)
    expected = norm.ppf(x["x"][inside])
    error = np.abs(found["quantile"][inside] - expected) / np.maximum(np.abs(expected), 1e-3)
    assert error.max() < 2e-15
    assert [row[2] for row in outside] == [None, None, None]


@pytest.mark.parametrize("market", ["luck", "skill"])
def test_the_deflated_sharpe_ratio_is_that_of_numpy_and_scipy(
    markets: dict[str, Path], market: str
) -> None:
    net = profits(7, {"luck": 0.0, "skill": 0.6}[market])
    hours = net[net["threshold"] == 0.19]["net_bps"].to_numpy()
    sharpe = hours.mean() / hours.std(ddof=1)
    skewness, fourth = skew(hours), kurtosis(hours, fisher=False)
    spread = np.sqrt(1 - skewness * sharpe + (fourth - 1) / 4 * sharpe**2)
    # The registry of this warehouse is empty: no trial, so nothing to beat but zero.
    (found,) = rows_of(markets[market], "trd_sharpe")
    assert found["trial_count"] == 0
    assert found["luck_per_block"] == 0
    assert found["probabilistic_sharpe"] == pytest.approx(
        norm.cdf(sharpe * np.sqrt(HOURS - 1) / spread), abs=1e-12
    )


def test_the_more_was_tried_the_more_a_sharpe_ratio_must_be(tmp_path: Path) -> None:
    inline = (
        "select trial_count, {{ expected_maximum('trial_count') }} as best, "
        "{{ normal_cdf('score') }} as deflated from (select *, "
        "{{ sharpe_score('0.2', 'luck', '1001', '-0.5', '6') }} as score from trials)"
    )
    printed = run_dbt(
        tmp_path / "t.duckdb", "compile", "--inline", inline, "--output", "json", "--quiet"
    )
    trials = pandas.DataFrame({"trial_count": [1, 2, 10, 1000], "luck": [0.0, 0.05, 0.1, 0.15]})
    with duckdb.connect() as connection:
        connection.register("trials", trials)
        found = connection.execute(json.loads(printed)["compiled"]).fetchnumpy()
    count = trials["trial_count"].to_numpy()[1:]
    gamma = np.euler_gamma
    best = (1 - gamma) * norm.ppf(1 - 1 / count) + gamma * norm.ppf(1 - 1 / (count * np.e))
    assert found["best"] == pytest.approx(np.concatenate([[0], best]), abs=1e-12)
    # Of 1,000 skill-less normal trials the best is 3.26 standard deviations up, on average.
    simulated = np.random.default_rng(1).normal(size=(2000, 1000)).max(axis=1).mean()
    assert found["best"][3] == pytest.approx(simulated, abs=0.05)
    spread = np.sqrt(1 + 0.5 * 0.2 + 5 / 4 * 0.2**2)
    expected = norm.cdf((0.2 - trials["luck"]) * np.sqrt(1000) / spread)
    assert found["deflated"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("market", ["luck", "skill"])
def test_the_probability_of_overfitting_is_that_of_a_loop_over_splits(
    markets: dict[str, Path], market: str
) -> None:
    net = profits(7, {"luck": 0.0, "skill": 0.6}[market]).pivot(
        index="block_at", columns="threshold", values="net_bps"
    )
    blocks = np.array_split(net.to_numpy(), 10)
    worse, losses, logits = [], [], []
    for chosen in combinations(range(10), 5):
        halves = [
            np.concatenate([blocks[number] for number in numbers])
            for numbers in (chosen, sorted(set(range(10)) - set(chosen)))
        ]
        ratios = [half.mean(axis=0) / half.std(axis=0) for half in halves]
        best = ratios[0].argmax()
        rank = (ratios[1] <= ratios[1][best]).sum() / 21
        worse.append(rank <= 0.5)
        losses.append(halves[1][:, best].mean() <= 0)
        logits.append(np.log(rank / (1 - rank)))
    found = {row["measure"]: row for row in rows_of(markets[market], "trd_overfitting")}["net"]
    assert found == {
        "candidates": "thresholds",
        "measure": "net",
        "candidate_count": 20,
        "split_count": 252,
        "overfitting_probability": pytest.approx(np.mean(worse)),
        "loss_probability": pytest.approx(np.mean(losses)),
        "mean_logit": pytest.approx(np.mean(logits)),
    }


def test_a_market_of_luck_is_called_so_and_skill_is_found(markets: dict[str, Path]) -> None:
    luck, skill = (
        {row["measure"]: row for row in rows_of(markets[name], "trd_overfitting")}["net"]
        for name in ("luck", "skill")
    )
    assert luck["overfitting_probability"] > 0.4
    assert luck["loss_probability"] > 0.4
    assert skill["overfitting_probability"] == 0
    assert skill["loss_probability"] == 0


def test_the_information_coefficient_is_the_rank_correlation_of_scipy(
    markets: dict[str, Path],
) -> None:
    rows = judged(3)
    hourly = [
        spearmanr(hour["probability"], hour["future_return"]).statistic
        for _, hour in rows.groupby(rows["opened_at"].dt.floor("h"))
    ]
    (found,) = rows_of(markets["luck"], "trd_information")
    assert found == {
        "strategy": "model",
        "row_count": 1200,
        "information_coefficient": pytest.approx(
            spearmanr(rows["probability"], rows["future_return"]).statistic
        ),
        "block_count": 50,
        "block_information_coefficient": pytest.approx(np.mean(hourly)),
        "t_statistic": pytest.approx(ttest_1samp(hourly, 0).statistic),
    }


def test_the_bootstrap_interval_is_that_of_resampled_rows(markets: dict[str, Path]) -> None:
    rows = judged(3)
    blocks = np.array_split(np.arange(1200), BLOCKS)
    areas = []
    for draw in range(DRAWS):
        places = [
            int(hashlib.md5(f"{draw}:{place}".encode()).hexdigest()[:8], 16) % BLOCKS
            for place in range(BLOCKS)
        ]
        sample = rows.iloc[np.concatenate([blocks[place] for place in places])]
        areas.append(roc_auc_score(sample["is_true"], sample["probability"]))
    areas.sort()
    (found,) = rows_of(markets["luck"], "trd_roc_auc_interval")
    assert found == {
        "strategy": "model",
        "draw_count": DRAWS,
        "roc_auc_error": pytest.approx(np.std(areas, ddof=1)),
        "lower_bound": pytest.approx(areas[12]),
        "upper_bound": pytest.approx(areas[487]),
    }
