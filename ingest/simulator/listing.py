"""The listing (exchangeInfo)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.simulator.instruments import Instrument

_WEIGHT = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
_FOREVER = 4133404800000
_LISTED = 1569398400000


def exchange_information(
    kind: str, instruments: Mapping[str, Instrument], server_time: int
) -> dict[str, Any]:
    """Describe a market: its limits and its symbols. ``server_time`` is in milliseconds."""
    describe = _spot_symbol if kind == "spot" else _futures_symbol
    is_linear = {"futuresType": "U_MARGINED"} if kind == "um" else {}
    assets = {"assets": [_asset("USDT")]} if kind == "um" else {}
    return {
        "timezone": "UTC",
        "serverTime": server_time,
        **is_linear,
        "rateLimits": [_WEIGHT | {"limit": 6000 if kind == "spot" else 2400}],
        "exchangeFilters": [],
        **assets,
        "symbols": [describe(item) for item in instruments.values()],
    }


def _asset(name: str) -> dict[str, Any]:
    return {"asset": name, "marginAvailable": True, "autoAssetExchange": "-10000"}


def _spot_symbol(item: Instrument) -> dict[str, Any]:
    tick, lot = 10.0**-item.price_decimals, 10.0**-item.quantity_decimals
    return {
        "symbol": item.symbol,
        "status": "TRADING",
        "baseAsset": item.base_asset,
        "baseAssetPrecision": 8,
        "quoteAsset": item.quote_asset,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": f"{tick:.8f}",
                "maxPrice": "1000000.00000000",
                "tickSize": f"{tick:.8f}",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": f"{lot:.8f}",
                "maxQty": "9000000.00000000",
                "stepSize": f"{lot:.8f}",
            },
            {
                "filterType": "MIN_NOTIONAL",
                "minNotional": "5.00000000",
                "applyToMarket": True,
                "avgPriceMins": 5,
            },
        ],
        "permissions": ["SPOT", "MARGIN"],
    }


def _futures_symbol(item: Instrument) -> dict[str, Any]:
    tick = f"{10.0**-item.price_decimals:.{max(2, item.price_decimals)}f}"
    lot = f"{10.0**-item.quantity_decimals:.{item.quantity_decimals}f}"
    return {
        "symbol": item.symbol,
        "pair": item.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _FOREVER,
        "onboardDate": _LISTED,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": item.base_asset,
        "quoteAsset": item.quote_asset,
        "marginAsset": item.quote_asset,
        "pricePrecision": max(2, item.price_decimals),
        "quantityPrecision": item.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012000",
        "marketTakeBound": "0.30",
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "1000000",
                "tickSize": tick,
            },
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "1000000", "stepSize": lot},
            {"filterType": "MARKET_LOT_SIZE", "minQty": lot, "maxQty": "10000", "stepSize": lot},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }
