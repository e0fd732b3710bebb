"""What a kind of data is: its columns, and what its rows may not be."""

from dataclasses import dataclass
from typing import Literal

# What the exchange gives, and what else lands.
ExchangeKind = Literal[
    "klines", "trades", "books", "funding", "open_interest", "liquidations", "mark_prices"
]
KindName = Literal[
    ExchangeKind, "book_gaps", "macro_bars", "news", "news_scores", "garch_parameters"
]


@dataclass(frozen=True)
class Column:
    """A column of a raw table and the other names that sources give it.

    ``type`` is a DuckDB type, or ``instant``: epoch milliseconds, microseconds or nanoseconds
    (told apart by magnitude), a timestamp, or its ISO text.
    """

    name: str
    type: str
    aliases: tuple[str, ...] = ()
    is_required: bool = False
    default: str = "null"


@dataclass(frozen=True)
class Rule:
    """A SQL condition that a good row never meets, and what to say of a row that does."""

    condition: str
    reason: str


@dataclass(frozen=True)
class Kind:
    """A kind of data and how its rows are read and checked.

    A row happened at the first of ``event_times`` that is not null. The column ``subject`` says
    what it is about; ``is_of_exchange`` is whether that is traded on a market of the exchange.
    """

    name: KindName
    event_times: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    headerless: tuple[tuple[str, ...], ...] = ()
    subject: str = "symbol"
    is_of_exchange: bool = True
