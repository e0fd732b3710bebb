-- The raw schema: append-only, the exchange's own fields plus exchange, market, source and received_at.
-- Times are UTC instants with microseconds; prices and quantities are in the exchange's units.

create schema if not exists raw;

create table if not exists raw.klines (
    exchange varchar, market varchar, symbol varchar, "interval" varchar,
    open_time timestamptz, open double, high double, low double, close double, volume double,
    close_time timestamptz, quote_volume double, count bigint,
    taker_buy_volume double, taker_buy_quote_volume double, is_closed boolean,
    source varchar, received_at timestamptz
);

create table if not exists raw.trades (
    exchange varchar, market varchar, symbol varchar, is_aggregate boolean,
    trade_id bigint, price double, quantity double, quote_quantity double,
    first_trade_id bigint, last_trade_id bigint, transact_time timestamptz,
    is_buyer_maker boolean, is_best_match boolean,
    source varchar, received_at timestamptz
);

create table if not exists raw.books (
    exchange varchar, market varchar, symbol varchar,
    last_update_id bigint, event_time timestamptz, transact_time timestamptz,
    bid_prices double[], bid_quantities double[], ask_prices double[], ask_quantities double[],
    source varchar, received_at timestamptz
);

create table if not exists raw.funding (
    exchange varchar, market varchar, symbol varchar,
    funding_time timestamptz, funding_rate double, mark_price double,
    source varchar, received_at timestamptz
);

create table if not exists raw.open_interest (
    exchange varchar, market varchar, symbol varchar,
    create_time timestamptz, sum_open_interest double, sum_open_interest_value double,
    source varchar, received_at timestamptz
);

create table if not exists raw.liquidations (
    exchange varchar, market varchar, symbol varchar,
    side varchar, order_type varchar, time_in_force varchar, original_quantity double,
    price double, average_price double, order_status varchar,
    last_filled_quantity double, filled_accumulated_quantity double, trade_time timestamptz,
    source varchar, received_at timestamptz
);

create table if not exists raw.mark_prices (
    exchange varchar, market varchar, symbol varchar,
    event_time timestamptz, mark_price double, index_price double, estimated_settle_price double,
    funding_rate double, next_funding_time timestamptz,
    source varchar, received_at timestamptz
);

-- Time for which the recorder had no book it could trust; once as it began, gap_until null, and once when it was over.
create table if not exists raw.book_gaps (
    exchange varchar, market varchar, symbol varchar,
    cause varchar, gap_from timestamptz, gap_until timestamptz,
    source varchar, received_at timestamptz
);

-- Bars of indices and commodities from a user's files: series names spx, dxy, gold and vix.
create table if not exists raw.macro_bars (
    series varchar, open_time timestamptz, close_time timestamptz,
    open double, high double, low double, close double,
    source varchar, received_at timestamptz
);

-- GARCH(1,1) parameters that `tapehouse derive garch`, or something else outside the warehouse, fitted to log returns (fractions) before fitted_until; known_at is when they could have been used.
create table if not exists raw.garch_parameters (
    exchange varchar, market varchar, symbol varchar, interval_minutes integer,
    omega double, alpha double, beta double,
    fitted_until timestamptz, known_at timestamptz,
    source varchar, received_at timestamptz
);

-- Headlines from a user's files; arrival_time is when a reader could have seen one, null where it is not known.
create table if not exists raw.news (
    provider varchar, news_id varchar, published_time timestamptz, arrival_time timestamptz,
    headline varchar, url varchar,
    source varchar, received_at timestamptz
);

-- Sentiment of headlines, -1 to 1; arrival_time is when the score could have been known.
create table if not exists raw.news_scores (
    provider varchar, news_id varchar, published_time timestamptz, arrival_time timestamptz,
    scorer varchar, score double,
    source varchar, received_at timestamptz
);

-- What the scoring loop said: a row per model version (or ensemble) and bar, written once, before it was announced.
create table if not exists raw.signals (
    model_name varchar, model_version varchar, stage varchar,
    exchange varchar, market varchar, symbol varchar, interval_minutes integer,
    opened_at timestamptz, closed_at timestamptz, available_at timestamptz,
    probability double, threshold double, signal integer,
    reason varchar, answered_by varchar, features_sha256 varchar, is_late boolean,
    heard_at timestamptz, served_at timestamptz, probabilities varchar
);
alter table raw.signals add column if not exists probabilities varchar;

-- The features that were served, by dataset and bar; features: a JSON object, a number or null each.
create table if not exists raw.served_features (
    dataset varchar, exchange varchar, market varchar, symbol varchar, interval_minutes integer,
    opened_at timestamptz, closed_at timestamptz, available_at timestamptz,
    features varchar, served_at timestamptz
);

create table if not exists raw.raw_rejects (
    kind varchar, exchange varchar, market varchar, symbol varchar,
    payload varchar, reason varchar, source varchar, received_at timestamptz
);

create table if not exists raw.landings (
    kind varchar, exchange varchar, market varchar, symbol varchar, "interval" varchar,
    source varchar, sha256 varchar, covered_from timestamptz, covered_until timestamptz,
    first_event_at timestamptz, last_event_at timestamptz,
    row_count bigint, reject_count bigint, landed_at timestamptz
);

-- How far each log of the recorder and of the scoring loop has landed: the newest row of a log is where landing goes on.
create table if not exists raw.log_landings (
    log varchar, segment bigint, "offset" bigint,
    frame_count bigint, row_count bigint, reject_count bigint, landed_at timestamptz
);
