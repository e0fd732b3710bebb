"""What comes from beyond the exchanges: bars of indices, headlines and their scores."""

from ingest.intervals import MINUTE_US
from ingest.kind import Column, Kind, Rule

# The series that features of the project read.
MACRO_SERIES = ("spx", "dxy", "gold", "vix")

MACRO_BARS = Kind(
    name="macro_bars",
    event_times=("close_time",),
    columns=(
        Column("series", "varchar", is_required=True),
        Column("open_time", "instant", ("opened_at", "datetime", "date", "time")),
        Column("close_time", "instant", ("closed_at",), default="typed.open_time + interval_us"),
        Column("open", "double"),
        Column("high", "double"),
        Column("low", "double"),
        Column("close", "double", is_required=True),
    ),
    rules=(
        Rule("close_time is null", "close_time is missing"),
        Rule("close_time <= open_time", "close_time is not after open_time"),
        Rule("close_time > arrival_us", "the bar had not closed when it was read"),
        Rule("least(open, high, low, close) <= 0", "a value is zero or negative"),
        Rule("high < low", "high is below low"),
        Rule("open < low or open > high", "open is outside low and high"),
        Rule("close < low or close > high", "close is outside low and high"),
        Rule("series <> lower(series)", "series is not in lower case"),
    ),
    subject="series",
    is_of_exchange=False,
)

_PUBLISHED = Column(
    "published_time",
    "instant",
    ("published_at", "published", "pubdate", "pub_date"),
    is_required=True,
)
_ARRIVAL = Column(
    "arrival_time",
    "instant",
    ("arrival_at", "arrived_at", "seen_at"),
    default="typed.published_time + known_after_us",
)
# Clocks differ by less, time zones by more.
_FROM_THE_FUTURE = Rule(
    f"published_time > arrival_us + {30 * MINUTE_US}",
    "published_time lies in the future: expected UTC or a time with its offset",
)

NEWS = Kind(
    name="news",
    event_times=("published_time",),
    columns=(
        Column("provider", "varchar", ("publisher", "source"), is_required=True),
        Column(
            "news_id",
            "varchar",
            ("id", "guid"),
            default="coalesce(typed.url, md5(typed.published_time || ' ' || typed.headline))",
        ),
        _PUBLISHED,
        _ARRIVAL,
        Column("headline", "varchar", ("title",), is_required=True),
        Column("url", "varchar", ("link",)),
    ),
    rules=(_FROM_THE_FUTURE,),
    subject="provider",
    is_of_exchange=False,
)

NEWS_SCORES = Kind(
    name="news_scores",
    event_times=("published_time",),
    columns=(
        Column("provider", "varchar", ("publisher", "source"), is_required=True),
        Column("news_id", "varchar", ("id", "guid"), is_required=True),
        _PUBLISHED,
        _ARRIVAL,
        Column("scorer", "varchar", is_required=True),
        Column("score", "double", is_required=True),
    ),
    rules=(
        _FROM_THE_FUTURE,
        Rule("score not between -1 and 1", "score is not between -1 and 1"),
    ),
    subject="provider",
    is_of_exchange=False,
)
