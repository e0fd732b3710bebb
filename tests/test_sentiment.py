"""Scores of headlines: what they are, when they count as known, and the features they make."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ingest import sentiment, warehouse
from ingest.classifier import classify
from ingest.files import ingest_files
from ingest.report import Report, Step
from ingest.sentiment import score_headlines
from ingest.service_settings import Classifier
from ingest.services import Service
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


RECENT = (
    "provider,id,published,arrived_at,received_at,title\n"
    "A,bad,2024-05-31 20:00,2024-05-31 20:05,2024-05-31 20:05,A horrible loss\n"
    "A,good,2024-05-31 20:00,2024-05-31 20:05,2024-05-31 20:05,A great win\n"
    "A,history,2024-05-31 21:00,2024-05-31 21:05,2024-06-01,A great success\n"
    "A,old,2024-05-30 23:00,2024-05-30 23:05,2024-05-30 23:05,A great day\n"
)
SCORES = """
    select news_id, scorer, round(score, 6) as score, arrival_time
    from raw.news_scores order by all
"""


@asynccontextmanager
async def classifier(answers: dict[str, Any], seen: list[Any]) -> AsyncIterator[str]:
    """Cloudflare's endpoint: an answer for each text, HTTP 500 for others."""

    async def run(request: web.Request) -> web.Response:
        text = (await request.json())["text"]
        seen.append((request.path, request.headers.get("Authorization"), text))
        if text not in answers:
            return web.json_response({"success": False, "errors": [{"code": 1}]}, status=500)
        return web.json_response(answers[text])

    app = web.Application()
    app.router.add_post("/run/{model}", run)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/run/sst"
    finally:
        await runner.cleanup()


def classified(positive: float) -> dict[str, Any]:
    labels = [("NEGATIVE", 1 - positive), ("POSITIVE", positive)]
    result = [{"label": label, "score": score} for label, score in labels]
    return {"result": result, "success": True, "errors": [], "messages": []}


async def scored(settings: Settings, url: str, text: str = "") -> Report:
    settings.remote_file.write_text(
        f"[sentiment]\nurl = '{url}'\nscorer = 'sst'\ntoken_variable = 'DEMO_TOKEN'\n"
        f"attempts = 2\nat_once = 1\n{text}"
    )
    return await asyncio.to_thread(score_headlines, settings, clock=lambda: NOW)


async def test_a_classifier_scores_new_headlines_beside_the_lexicon_as_known_from_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_TOKEN", "canary")
    settings = landed(tmp_path, RECENT)
    answers = {
        "A great win": classified(0.9),
        "A great success": classified(0.75),
        "A great day": classified(0.5),
    }
    seen: list[Any] = []
    async with classifier(answers, seen) as url:
        report = await scored(settings, url)
        assert report.row_count == 6
        (failure,) = report.failures
        assert (failure.unit, failure.message) == (
            "sst",
            "no score, the lexicon's stands: status 1",
        )
        early = datetime(2024, 5, 31, 21, 5, tzinfo=UTC)
        assert [row for row in query(settings, SCORES) if row[1] == "sst"] == [
            ("good", "sst", 0.8, NOW),
            ("history", "sst", 0.5, NOW),
        ]
        assert [
            (name, at) for name, scorer, _, at in query(settings, SCORES) if scorer == "vader"
        ] == [
            ("bad", NOW),
            ("good", NOW),
            ("history", early),
            ("old", NOW),
        ]
        # A failed request is made again, one older than a day never.
        assert sorted(seen) == sorted(
            ("/run/sst", "Bearer canary", text)
            for text in ["A horrible loss", "A horrible loss", "A great win", "A great success"]
        )
        answers["A horrible loss"] = classified(0.25)
        report = await scored(settings, url)
        assert (report.row_count, report.failures) == (1, ())
        assert len(seen) == 5
        assert query(
            settings,
            "select score, source from raw.news_scores where news_id = 'bad' and scorer = 'sst'",
        ) == [(-0.5, f"sst at {url.removeprefix('http://').removesuffix('/run/sst')}")]


async def test_without_the_classifiers_answer_the_lexicons_score_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_TOKEN", "canary")
    settings = landed(tmp_path, RECENT)
    async with classifier({}, []) as url:
        report = await scored(settings, url, "failures_to_open = 2\nopen_s = 100")
    (failure,) = report.failures
    assert failure.message == "no score, the lexicon's stands: breaker 2, status 1"
    assert query(settings, "select scorer, count(*) from raw.news_scores group by all") == [
        ("vader", 4)
    ]


@pytest.mark.parametrize(
    ("answer", "bounds", "failures"),
    [
        (classified(0.5), {"requests_per_day": 1}, {"budget": 2}),
        ({"result": [], "success": False, "errors": ["quota"]}, {}, {"malformed": 3}),
        ({"result": [{"label": "LABEL_1", "score": 0.9}], "success": True}, {}, {"malformed": 3}),
        ({"result": [{"label": "POSITIVE", "score": 9}], "success": True}, {}, {"malformed": 3}),
        ({"result": [], "success": True}, {}, {"malformed": 3}),
        ([], {}, {"malformed": 3}),
    ],
)
async def test_what_is_no_classification_is_no_score(
    tmp_path: Path, answer: Any, bounds: dict[str, Any], failures: dict[str, int]
) -> None:
    texts = ["a", "b", "c"]
    async with classifier(dict.fromkeys(texts, answer), []) as url:
        settings = Classifier(url=url, scorer="sst", at_once=1, **bounds)
        found = await classify(Service("sst", settings, tmp_path), settings, texts)
    assert dict(found.failures) == failures
    assert [score is None for score in found.scores].count(True) == sum(failures.values())
