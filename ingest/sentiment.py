"""Sentiment of headlines: by VADER, a lexicon (Hutto and Gilbert 2014), and by a classifier."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import chain
from typing import Any

import pyarrow as pa
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ingest import warehouse
from ingest.batches import Batch, Entry, Series, unit
from ingest.classifier import classify
from ingest.kinds import KINDS
from ingest.landing import land
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.service_settings import Classifier, load
from ingest.services import Service
from ingest.settings import Settings
from ingest.validation import Origin, check

SCORER = "vader"
HEADLINES_AT_ONCE = 20_000
ASKED_AT_ONCE = 200
_SERIES = Series("news_scores", None, None)
_INSTANT = pa.timestamp("us", "UTC")
# Of two landed copies of a headline the one that was known first counts, as in stg_news.
_UNSCORED = """
    with news as (
        select
            provider, news_id, published_time, headline, received_at,
            greatest(published_time, coalesce(arrival_time, received_at)) as known_at
        from raw.news
        where published_time >= $since
        qualify row_number() over (
            partition by provider, news_id order by known_at, received_at desc, source
        ) = 1
    ),
    scores as (select provider, news_id from raw.news_scores where scorer = $scorer)
    select * from news anti join scores using (provider, news_id)
"""


@dataclass(frozen=True)
class _Wanted:
    """Headlines without a score of a scorer, published since a time."""

    scorer: str
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)


def score_headlines(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_step: OnStep = ignore,
) -> Report:
    """Land a score of every headline that has none by the lexicon, or by the classifier, yet.

    The lexicon's score is VADER's compound polarity of the headline, -1 to 1, a function of the
    text alone. Of a headline that counts as known before it landed, history by its author's word,
    it counts as known together with the headline. Of a headline that counts as known from its
    landing it counts as known from now.

    Where a classifier is configured, new headlines are also asked of it. Its score, P(positive) -
    P(negative), lands beside the lexicon's and counts as known from now, always: it may have
    learned from what came later. Where it gives no answer the lexicon's score stands alone, and
    the next run asks again.

    Parameters
    ----------
    settings : Settings
        Names the warehouse and the file of services.
    clock : callable
        Gives the UTC time of arrival.
    on_step : callable
        Told of each batch before it is scored.

    Returns
    -------
    Report
        One line, and a failure for headlines of which the classifier said nothing; running it
        again lands nothing twice.

    Raises
    ------
    ingest.warehouse.WarehouseMissingError, ingest.warehouse.WarehouseBusyError
        If there is no warehouse file, or another process keeps it.
    ingest.service_settings.ServicesError
        If the file of services is wrong.
    """
    classifier = load(settings).sentiment
    tally = Tally()
    tally.expect(_SERIES)
    landed = land(settings, _by_lexicon(settings, clock, on_step))
    if classifier is None:
        return tally.report(landed)
    asked = _by_classifier(settings, classifier, clock, on_step, tally)
    # Answers may have cost something: they land as they come.
    return tally.report(
        chain(landed, chain.from_iterable(land(settings, [batch]) for batch in asked))
    )


def _by_lexicon(
    settings: Settings, clock: Callable[[], datetime], on_step: OnStep
) -> Iterator[Batch]:
    analyzer = SentimentIntensityAnalyzer()
    source = f"{SCORER} {version('vadersentiment')}"
    for news in _unscored(settings, _Wanted(SCORER), HEADLINES_AT_ONCE, on_step):
        texts = news["headline"].to_pylist()
        scores = [analyzer.polarity_scores(text)["compound"] for text in texts]
        received_at = clock()
        arrivals = [
            known_at if known_at < landed_at else max(known_at, received_at)
            for known_at, landed_at in _times(news)
        ]
        yield from _batch(news, SCORER, scores, arrivals, Origin(None, None, source, received_at))


def _by_classifier(
    settings: Settings,
    classifier: Classifier,
    clock: Callable[[], datetime],
    on_step: OnStep,
    tally: Tally,
) -> Iterator[Batch]:
    service = Service("sentiment", classifier, settings.budgets_directory, clock=clock)
    wanted = _Wanted(classifier.scorer, clock() - timedelta(hours=classifier.max_age_hours))
    failures: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        for news in _unscored(settings, wanted, ASKED_AT_ONCE, on_step):
            texts = news["headline"].to_pylist()
            found = runner.run(classify(service, classifier, texts))
            failures += found.failures
            received_at = clock()
            origin = Origin(None, None, f"{classifier.scorer} at {classifier.host}", received_at)
            scores = {row: score for row, score in enumerate(found.scores) if score is not None}
            answered = news.take(pa.array(scores, pa.int64()))
            arrivals = [max(known_at, received_at) for known_at, _ in _times(answered)]
            yield from _batch(answered, classifier.scorer, list(scores.values()), arrivals, origin)
    if failures:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failures.most_common())
        tally.fail(classifier.scorer, f"no score, the lexicon's stands: {reasons}")


def _times(news: pa.Table) -> Iterator[tuple[datetime, datetime]]:
    return zip(news["known_at"].to_pylist(), news["received_at"].to_pylist(), strict=True)


def _batch(
    news: pa.Table,
    scorer: str,
    scores: list[float],
    arrivals: list[datetime],
    origin: Origin,
) -> Iterator[Batch]:
    table = (
        news.select(["provider", "news_id", "published_time"])
        .append_column("arrival_time", pa.array(arrivals, _INSTANT))
        .append_column("scorer", pa.repeat(pa.scalar(scorer), news.num_rows))
        .append_column("score", pa.array(scores, pa.float64()))
    )
    checked = check(KINDS["news_scores"], table, origin)
    yield from unit([checked], Entry(_SERIES, origin.source))


def _unscored(
    settings: Settings, wanted: _Wanted, at_once: int, on_step: OnStep
) -> Iterator[pa.Table]:
    """Yield headlines, `at_once` at a time, those that came before left out."""
    parameters: dict[str, Any] = {"scorer": wanted.scorer, "since": wanted.since}
    total = _read(settings, f"select count(*) as n from ({_UNSCORED})", parameters)["n"][0].as_py()
    done = 0
    last = ("", "")
    while done < total:
        on_step(Step(done, total, last[0]))
        news = _read(
            settings,
            f"from ({_UNSCORED}) where (provider, news_id) > ($provider, $news_id) "
            "order by provider, news_id limit $at_once",
            parameters | {"provider": last[0], "news_id": last[1], "at_once": at_once},
        )
        if not news.num_rows:
            break
        yield news
        done += news.num_rows
        last = (news["provider"][-1].as_py(), news["news_id"][-1].as_py())
    on_step(Step(total, total, "done"))


def _read(settings: Settings, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        return connection.sql(sql, params=dict(parameters)).to_arrow_table()
