"""What exchanges give, and what is made of it: candles, trades, books, derivatives."""

from ingest.intervals import INTERVALS_US, MINUTE_US
from ingest.kind import Column, Kind, Rule

SYMBOL = Column("symbol", "varchar", ("s",), is_required=True)

_KLINE_LAYOUT = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip

KLINES = Kind(
    name="klines",
    event_times=("open_time",),
    columns=(
        SYMBOL,
        Column("interval", "varchar", is_required=True),
        Column("open_time", "instant", ("opentime",), is_required=True),
        Column("open", "double", is_required=True),
        Column("high", "double", is_required=True),
        Column("low", "double", is_required=True),
        Column("close", "double", is_required=True),
        Column("volume", "double", is_required=True),
        Column(
            "close_time",
            "instant",
            ("closetime",),
            default="typed.open_time + interval_us - 1000",
        ),
        Column("quote_volume", "double", ("quote_asset_volume",)),
        Column("count", "bigint", ("number_of_trades", "trades")),
        Column("taker_buy_volume", "double", ("taker_buy_base_asset_volume",)),
        Column("taker_buy_quote_volume", "double", ("taker_buy_quote_asset_volume",)),
        Column(
            "is_closed",
            "boolean",
            default="coalesce(typed.close_time, typed.open_time + interval_us) < arrival_us",
        ),
    ),
    rules=(
        Rule("interval_us is null", f"interval is not one of {', '.join(INTERVALS_US)}"),
        Rule("open_time % interval_us <> 0", "open_time is not on the interval's grid"),
        Rule("close_time <= open_time", "close_time is not after open_time"),
        Rule("is_closed and close_time > received_at + 3600000000",
             "it closes an hour or more after it arrived"),
        Rule("least(open, high, low, close) <= 0", "a price is zero or negative"),
        Rule("volume < 0", "volume is negative"),
        Rule("least(quote_volume, taker_buy_volume, taker_buy_quote_volume, count) < 0",
             "a volume or count is negative"),
        Rule("high < low", "high is below low"),
        Rule("open < low or open > high", "open is outside low and high"),
        Rule("close < low or close > high", "close is outside low and high"),
    ),
    headerless=(_KLINE_LAYOUT,),
)  # fmt: skip

AGGREGATE_ID_NAMES = ("agg_trade_id", "aggregate_trade_id")
_AGGREGATE_LAYOUT = (
    "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time",
    "is_buyer_maker", "is_best_match",
)  # fmt: skip
_TRADE_LAYOUT = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")

TRADES = Kind(
    name="trades",
    event_times=("transact_time",),
    columns=(
        SYMBOL,
        Column("is_aggregate", "boolean", is_required=True),
        Column("trade_id", "bigint", (*AGGREGATE_ID_NAMES, "id"), is_required=True),
        Column("price", "double", is_required=True),
        Column("quantity", "double", ("qty",), is_required=True),
        Column("quote_quantity", "double", ("quote_qty",)),
        Column("first_trade_id", "bigint"),
        Column("last_trade_id", "bigint"),
        Column("transact_time", "instant", ("time", "trade_time"), is_required=True),
        Column("is_buyer_maker", "boolean", is_required=True),
        Column("is_best_match", "boolean"),
    ),
    rules=(
        Rule("price <= 0", "price is zero or negative"),
        Rule("quantity < 0 or quote_quantity < 0", "a quantity is negative"),
        Rule("trade_id < 0", "trade id is negative"),
    ),
    headerless=(_AGGREGATE_LAYOUT, _AGGREGATE_LAYOUT[:-1], _TRADE_LAYOUT, _TRADE_LAYOUT[:-1]),
)

BOOKS = Kind(
    name="books",
    event_times=("transact_time",),
    columns=(
        SYMBOL,
        Column("last_update_id", "bigint", ("seq", "lastupdateid"), is_required=True),
        Column("event_time", "instant", ("exch_ts_ms",)),
        Column("transact_time", "instant", ("transaction_time",),
               default="coalesce(typed.event_time, typed.received_at)"),
        Column("bid_prices", "double[]", ("bids_px",), is_required=True),
        Column("bid_quantities", "double[]", ("bids_qty",), is_required=True),
        Column("ask_prices", "double[]", ("asks_px",), is_required=True),
        Column("ask_quantities", "double[]", ("asks_qty",), is_required=True),
    ),
    rules=(
        Rule("transact_time is null",
             "neither the exchange's time nor the arrival is known"),
        Rule("len(bid_prices) <> len(bid_quantities) or len(ask_prices) <> len(ask_quantities)",
             "a side has more prices than quantities or fewer"),
        Rule("len(bid_prices) = 0 and len(ask_prices) = 0", "both sides are empty"),
        Rule("least(list_min(bid_prices), list_min(ask_prices)) <= 0",
             "a price is zero or negative"),
        Rule("least(list_min(bid_quantities), list_min(ask_quantities)) < 0",
             "a quantity is negative"),
        Rule("bid_prices <> list_reverse_sort(bid_prices) or ask_prices <> list_sort(ask_prices)",
             "levels are not sorted from the best price on"),
        Rule("bid_prices[1] >= ask_prices[1]", "the best bid reaches the best ask"),
    ),
)  # fmt: skip

FUNDING = Kind(
    name="funding",
    event_times=("funding_time",),
    columns=(
        SYMBOL,
        Column("funding_time", "instant", ("calc_time", "fundingtime"), is_required=True),
        Column("funding_rate", "double", ("last_funding_rate", "fundingrate"), is_required=True),
        Column("mark_price", "double", ("markprice",)),
    ),
    rules=(
        Rule("abs(funding_rate) >= 1", "funding_rate is not a fraction"),
        Rule("mark_price <= 0", "mark_price is zero or negative"),
    ),
    headerless=(("calc_time", "funding_interval_hours", "last_funding_rate"),),
)

OPEN_INTEREST = Kind(
    name="open_interest",
    event_times=("create_time",),
    columns=(
        SYMBOL,
        Column("create_time", "instant", ("timestamp",), is_required=True),
        Column("sum_open_interest", "double", ("sumopeninterest",), is_required=True),
        Column("sum_open_interest_value", "double", ("sumopeninterestvalue",)),
    ),
    rules=(
        Rule("least(sum_open_interest, sum_open_interest_value) < 0", "open interest is negative"),
    ),
    headerless=(
        (
            "create_time", "symbol", "sum_open_interest", "sum_open_interest_value",
            "count_toptrader_long_short_ratio", "sum_toptrader_long_short_ratio",
            "count_long_short_ratio", "sum_taker_long_short_vol_ratio",
        ),
    ),
)  # fmt: skip

LIQUIDATIONS = Kind(
    name="liquidations",
    event_times=("trade_time",),
    columns=(
        SYMBOL,
        Column("side", "varchar", is_required=True),
        Column("order_type", "varchar"),
        Column("time_in_force", "varchar"),
        Column("original_quantity", "double", is_required=True),
        Column("price", "double", is_required=True),
        Column("average_price", "double"),
        Column("order_status", "varchar"),
        Column("last_filled_quantity", "double",
               ("order_last_filled_quantity", "last_fill_quantity")),
        Column("filled_accumulated_quantity", "double",
               ("order_filled_accumulated_quantity", "accumulated_fill_quantity")),
        Column("trade_time", "instant", ("order_trade_time", "time"), is_required=True),
    ),
    rules=(
        Rule("side not in ('BUY', 'SELL')", "side is neither BUY nor SELL"),
        Rule("least(price, average_price) < 0", "a price is negative"),
        Rule("original_quantity <= 0", "original_quantity is zero or negative"),
        Rule("least(last_filled_quantity, filled_accumulated_quantity) < 0",
             "a quantity is negative"),
    ),
    headerless=(
        (
            "time", "side", "order_type", "time_in_force", "original_quantity", "price",
            "average_price", "order_status", "last_fill_quantity", "accumulated_fill_quantity",
        ),
    ),
)  # fmt: skip

MARK_PRICES = Kind(
    name="mark_prices",
    event_times=("event_time",),
    columns=(
        SYMBOL,
        Column("event_time", "instant", ("time", "timestamp", "e"), is_required=True),
        Column("mark_price", "double", ("markprice", "p"), is_required=True),
        Column("index_price", "double", ("indexprice", "i")),
        Column("estimated_settle_price", "double", ("estimatedsettleprice",)),
        Column("funding_rate", "double", ("lastfundingrate", "last_funding_rate", "r")),
        Column("next_funding_time", "instant", ("nextfundingtime", "funding_timestamp", "t")),
    ),
    rules=(
        Rule("least(mark_price, index_price) <= 0", "a price is zero or negative"),
        Rule("abs(funding_rate) >= 1", "funding_rate is not a fraction"),
    ),
)

BOOK_GAPS = Kind(
    name="book_gaps",
    event_times=("gap_from",),
    columns=(
        SYMBOL,
        Column("cause", "varchar", is_required=True),
        Column("gap_from", "instant", is_required=True),
        Column("gap_until", "instant"),
    ),
    rules=(Rule("gap_until < gap_from", "gap_until is before gap_from"),),
)

GARCH_PARAMETERS = Kind(
    name="garch_parameters",
    event_times=("fitted_until",),
    columns=(
        SYMBOL,
        Column("interval_minutes", "integer", is_required=True),
        Column("omega", "double", is_required=True),
        Column("alpha", "double", is_required=True),
        Column("beta", "double", is_required=True),
        Column("fitted_until", "instant", is_required=True),
        Column("known_at", "instant", is_required=True),
    ),
    rules=(
        Rule(f"interval_minutes not in {tuple(us // MINUTE_US for us in INTERVALS_US.values())}",
             "interval_minutes is that of no interval"),
        Rule("omega <= 0", "omega is zero or negative"),
        Rule("least(alpha, beta) < 0", "alpha or beta is negative"),
        Rule("alpha + beta >= 1", "alpha and beta sum up to 1 or more: no long-run variance"),
        Rule("known_at < fitted_until", "known_at is before fitted_until"),
    ),
)  # fmt: skip
