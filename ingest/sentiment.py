"""Sentiment of headlines by VADER, a lexicon: Hutto and Gilbert 2014."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ingest import warehouse
from ingest.kinds import KINDS
from ingest.landing import Batch, Entry, Series, land, unit
from ingest.report import OnStep, Report, Step, Tally, ignore
from ingest.settings import Settings
from ingest.validation import Origin, check

SCORER = "vader"
HEADLINES_AT_ONCE = 20_000
# Of two landed copies of a headline the one that was known first counts, as in stg_news.
_UNSCORED = f"""
    with news as (
        select
            provider, news_id, published_time, headline, received_at,
            greatest(published_time, coalesce(arrival_time, received_at)) as known_at
        from raw.news
        qualify row_number() over (
            partition by provider, news_id order by known_at, received_at desc, source
        ) = 1
    ),
    scores as (select provider, news_id from raw.news_scores where scorer = '{SCORER}')
    select * from news anti join scores using (provider, news_id)
"""


def score_headlines(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_step: OnStep = ignore,
) -> Report:
    """Land a score of every headline that has none by this scorer yet.

    The score is VADER's compound polarity of the headline, -1 to 1, a function of the text
    alone. Of a headline that counts as known before it landed, history by its author's word, it
    counts as known together with the headline. Of a headline that counts as known from its
    landing it counts as known from now.

    Parameters
    ----------
    settings : Settings
        Names the warehouse.
    clock : callable
        Gives the UTC time of arrival.
    on_step : callable
        Told of each batch before it is scored.

    Returns
    -------
    Report
        One line; running it again lands nothing twice.

    Raises
    ------
    ingest.warehouse.WarehouseMissingError, ingest.warehouse.WarehouseBusyError
        If there is no warehouse file, or another process keeps it.
    """
    series = Series("news_scores", None, None)
    tally = Tally()
    tally.expect(series)
    return tally.report(land(settings, _batches(settings, series, clock, on_step)))


def _batches(
    settings: Settings, series: Series, clock: Callable[[], datetime], on_step: OnStep
) -> Iterator[Batch]:
    analyzer = SentimentIntensityAnalyzer()
    source = f"{SCORER} {version('vadersentiment')}"
    total = _count(settings)
    done = 0
    last = ("", "")
    while done < total:
        on_step(Step(done, total, last[0]))
        news = _unscored(settings, after=last)
        if not news.num_rows:
            break
        origin = Origin(None, None, source, clock())
        checked = check(KINDS["news_scores"], _scored(news, analyzer, origin), origin)
        yield from unit([checked], Entry(series, source))
        done += news.num_rows
        last = (news["provider"][-1].as_py(), news["news_id"][-1].as_py())
    on_step(Step(total, total, "done"))


def _count(settings: Settings) -> int:
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        ((count,),) = connection.execute(f"select count(*) from ({_UNSCORED})").fetchall()
    return int(count)


def _unscored(settings: Settings, *, after: tuple[str, str]) -> pa.Table:
    with warehouse.reading(settings.database, timeout_s=settings.writer_timeout_s) as connection:
        return connection.sql(
            f"from ({_UNSCORED}) where (provider, news_id) > ($provider, $news_id) "
            f"order by provider, news_id limit {HEADLINES_AT_ONCE}",
            params={"provider": after[0], "news_id": after[1]},
        ).to_arrow_table()


def _scored(news: pa.Table, analyzer: SentimentIntensityAnalyzer, origin: Origin) -> pa.Table:
    scores = [analyzer.polarity_scores(text)["compound"] for text in news["headline"].to_pylist()]
    arrivals = [
        known_at if known_at < received_at else max(known_at, origin.received_at)
        for known_at, received_at in zip(
            news["known_at"].to_pylist(), news["received_at"].to_pylist(), strict=True
        )
    ]
    instant = pa.timestamp("us", "UTC")
    return (
        news.select(["provider", "news_id", "published_time"])
        .append_column("arrival_time", pa.array(arrivals, instant))
        .append_column("scorer", pa.repeat(pa.scalar(SCORER), news.num_rows))
        .append_column("score", pa.array(scores, pa.float64()))
    )
