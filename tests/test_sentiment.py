"""Scores of headlines: what they are, when they count as known, and the features they make."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest import sentiment, warehouse
from ingest.files import ingest_files
from ingest.report import Step
from ingest.sentiment import score_headlines
from ingest.settings import PROJECT_ROOT, Settings

NOW = datetime(2024, 6, 1, tzinfo=UTC)
NEWS = (
    "provider,id,published,arrived_at,received_at,title\n"
    "A,history,2024-01-01 10:00,2024-01-01 10:05,2024-05-01,A great win\n"
    "A,live,2024-01-01 10:00,2024-01-01 10:05,2024-01-01 10:05,A horrible loss\n"
    "A,unknown,2024-01-01 10:00,,2024-05-01,The market opens\n"
    "B,live,2024-01-01 10:00,2024-01-01 10:05,2024-01-01 10:05,A horrible loss\n"
)


def query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.reading(settings.database) as connection:
        return connection.execute(sql).fetchall()


def landed(tmp_path: Path, text: str = NEWS) -> Settings:
    path = tmp_path / "news.csv"
    path.write_text(text)
    settings = Settings()
    assert ingest_files(settings, "news", [path]).reject_count == 0
    return settings


def test_a_score_counts_as_known_with_a_headline_of_history_and_from_now_with_a_live_one(
    tmp_path: Path,
) -> None:
    settings = landed(tmp_path)
    assert score_headlines(settings, clock=lambda: NOW).row_count == 4
    in_time = datetime(2024, 1, 1, 10, 5, tzinfo=UTC)
    assert query(
        settings,
        "select provider, news_id, arrival_time, sign(score), received_at, scorer, source[:6] "
        "from raw.news_scores order by all",
    ) == [
        ("A", "history", in_time, 1, NOW, "vader", "vader "),
        ("A", "live", NOW, -1, NOW, "vader", "vader "),
        ("A", "unknown", NOW, 0, NOW, "vader", "vader "),
        ("B", "live", NOW, -1, NOW, "vader", "vader "),
    ]


def test_only_what_has_no_score_is_scored_in_batches_that_say_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "HEADLINES_AT_ONCE", 3)
    settings = landed(tmp_path)
    steps: list[Step] = []
    assert score_headlines(settings, clock=lambda: NOW, on_step=steps.append).row_count == 4
    assert [(step.done, step.total) for step in steps] == [(0, 4), (3, 4), (4, 4)]
    assert score_headlines(settings, clock=lambda: NOW).row_count == 0
    landed(tmp_path, NEWS.replace(",history,", ",later,").replace("A great win", "A great defeat"))
    assert score_headlines(settings, clock=lambda: NOW).row_count == 1
    assert query(
        settings, "select count(*), count(distinct (provider, news_id)) from raw.news_scores"
    ) == [(5, 5)]


def test_of_two_copies_of_a_headline_the_one_that_was_known_first_is_scored(
    tmp_path: Path,
) -> None:
    settings = landed(tmp_path)
    landed(tmp_path, NEWS.replace("A great win", "A bad end").replace("01 10:05", "01 10:04"))
    score_headlines(settings, clock=lambda: NOW)
    assert query(
        settings, "select score < 0, arrival_time from raw.news_scores where news_id = 'history'"
    ) == [(True, datetime(2024, 1, 1, 10, 4, tzinfo=UTC))]


def test_recorded_headlines_and_bars_give_sentiment_features(
    shared_data: Path, tmp_path: Path
) -> None:
    settings = Settings(intervals=["1h"], market="spot")
    klines = shared_data / "spot" / "klines_BTCUSDT_1h.parquet"
    ingest_files(settings, "klines", [klines])
    headlines = shared_data / "news_headlines.parquet"
    ingest_files(settings, "news", [headlines], known_after=timedelta(hours=12))
    score_headlines(settings)
    command = [
        *(str(Path(sys.executable).with_name("dbt")), "--quiet", "run"),
        *("--select", "+feat_sentiment"),
        *("--project-dir", str(PROJECT_ROOT / "dbt_project"), "--profiles-dir", str(PROJECT_ROOT)),
        *("--target-path", str(tmp_path / "dbt"), "--log-path", str(tmp_path / "dbt")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    # The same by hand: published within a day before the bar's close, seen 12 hours after that.
    assert query(
        settings,
        """
        with expected as (
            select
                features.opened_at,
                count(news.news_id) as headline_count,
                count(news.news_id) filter (
                    where news.published_time::timestamp > features.available_at - interval 1 hour
                ) as headline_count_1h,
                avg(scores.score) as sentiment_mean
            from feat_sentiment as features
            left join raw.news
                on news.published_time::timestamp > features.available_at - interval 24 hours
                and news.arrival_time::timestamp <= features.available_at
            left join raw.news_scores as scores using (provider, news_id)
            group by all
        )
        select
            count(*) > 3000,
            count(*) = count(headline_count_24h),
            bool_and(headline_count_24h = headline_count),
            bool_and(features.headline_count_1h = expected.headline_count_1h),
            max(abs(sentiment_mean_24h - sentiment_mean)) < 1e-9,
            count(*) = count(sentiment_mean_24h)
        from expected inner join feat_sentiment as features using (opened_at)
        where headline_count > 0
        """,
    ) == [(True, True, True, True, True, True)]
