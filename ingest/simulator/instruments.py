"""What is traded: decimals, first prices and temper of each symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

KINDS = ("spot", "um")


@dataclass(frozen=True)
class Instrument:
    """One symbol on one market.

    ``price_decimals`` and ``quantity_decimals`` give the tick ``10 ** -price_decimals`` and the
    lot; ``volatility`` is the standard deviation of a one-minute log return in calm-to-normal
    times; ``open_interest`` counts base assets.
    """

    symbol: str
    base_asset: str
    quote_asset: str
    price_decimals: int
    quantity_decimals: int
    first_price: float
    volatility: float
    open_interest: float


@dataclass(frozen=True)
class _Profile:
    decimals: Mapping[str, tuple[int, int]]
    first_price: float
    volatility: float
    open_interest: float


_PROFILES = MappingProxyType(
    {
        "BTCUSDT": _Profile({"spot": (2, 5), "um": (1, 3)}, 97_000.0, 5.0e-4, 90_000.0),
        "ETHUSDT": _Profile({"spot": (2, 4), "um": (2, 3)}, 3_700.0, 6.0e-4, 1_600_000.0),
        "SOLUSDT": _Profile({"spot": (2, 3), "um": (2, 2)}, 215.0, 8.0e-4, 9_000_000.0),
        "BNBUSDT": _Profile({"spot": (2, 3), "um": (2, 2)}, 690.0, 5.5e-4, 700_000.0),
        "XRPUSDT": _Profile({"spot": (4, 1), "um": (4, 1)}, 2.25, 8.0e-4, 450_000_000.0),
    }
)
_OTHER = _Profile({"spot": (4, 1), "um": (4, 1)}, 10.0, 8.0e-4, 20_000_000.0)
DEFAULT_SYMBOLS = tuple(_PROFILES)


def instrument(kind: str, symbol: str) -> Instrument:
    """Describe a symbol of the synthetic market.

    Raises
    ------
    ValueError
        If the market is unknown or the symbol is not quoted in USDT.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a market of {KINDS}, found {kind!r}")
    if not symbol.endswith("USDT") or symbol == "USDT":
        raise ValueError(f"expected a symbol quoted in USDT such as BTCUSDT, found {symbol!r}")
    profile = _PROFILES.get(symbol, _OTHER)
    price_decimals, quantity_decimals = profile.decimals[kind]
    return Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        price_decimals=price_decimals,
        quantity_decimals=quantity_decimals,
        first_price=profile.first_price,
        volatility=profile.volatility,
        open_interest=profile.open_interest,
    )
