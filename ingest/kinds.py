"""The kinds of data that land, by the names of their raw tables."""

from ingest.kind import Kind
from ingest.market_kinds import (
    BOOK_GAPS,
    BOOKS,
    FUNDING,
    GARCH_PARAMETERS,
    KLINES,
    LIQUIDATIONS,
    MARK_PRICES,
    OPEN_INTEREST,
    TRADES,
)
from ingest.world_kinds import MACRO_BARS, NEWS, NEWS_SCORES

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *(KLINES, TRADES, BOOKS, FUNDING, OPEN_INTEREST, LIQUIDATIONS, MARK_PRICES),
        *(BOOK_GAPS, MACRO_BARS, NEWS, NEWS_SCORES, GARCH_PARAMETERS),
    )
}
