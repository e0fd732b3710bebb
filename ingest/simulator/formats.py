"""Numbers and payloads as the exchange writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ingest.simulator.instruments import Instrument
from ingest.simulator.source import Book, Columns


@dataclass(frozen=True)
class Decimals:
    """Digits after the point of prices, quantities and quote amounts."""

    price: int
    quantity: int
    quote: int


def decimals(kind: str, item: Instrument) -> Decimals:
    """Return the digits a market writes: spot always 8, USD-M those of the symbol."""
    if kind == "spot":
        return Decimals(8, 8, 8)
    price = max(2, item.price_decimals)
    return Decimals(price, item.quantity_decimals, price + item.quantity_decimals)


def number(value: float, digits: int) -> str | None:
    """Write a number; a value that was not recorded (NaN) is null."""
    return None if math.isnan(value) else f"{value:.{digits}f}"


def whole(value: float) -> int | None:
    """Write a count; one that was not recorded (NaN) is null."""
    return None if math.isnan(value) else int(value)


def shortest(value: float) -> str | None:
    """Write a number without needless zeros; one that was not recorded (NaN) is null."""
    return None if math.isnan(value) else f"{value:.8f}".rstrip("0").rstrip(".")


def records(columns: Columns) -> list[dict[str, Any]]:
    """Return rows as dictionaries of Python values."""
    names = list(columns)
    lists = [values.tolist() for values in columns.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def levels(book: Book, digits: Decimals, limit: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return bids and asks as pairs of strings, best first."""

    def pairs(prices: Any, quantities: Any) -> list[list[str]]:
        return [
            [f"{price:.{digits.price}f}", f"{quantity:.{digits.quantity}f}"]
            for price, quantity in zip(
                prices[:limit].tolist(), quantities[:limit].tolist(), strict=True
            )
        ]

    return (
        pairs(book.bid_prices, book.bid_quantities),
        pairs(book.ask_prices, book.ask_quantities),
    )


def kline_row(row: dict[str, Any], digits: Decimals) -> list[Any]:
    """Write a candle as REST does: twelve fields, times in milliseconds."""
    return [
        row["open_time"] // 1000,
        *(number(row[name], digits.price) for name in ("open", "high", "low", "close")),
        number(row["volume"], digits.quantity),
        row["close_time"] // 1000,
        number(row["quote_volume"], digits.quote),
        whole(row["count"]),
        number(row["taker_buy_volume"], digits.quantity),
        number(row["taker_buy_quote_volume"], digits.quote),
        "0",
    ]
