"""Leaky models, one mistake each: the layer, the column that leaks and the SQL."""

from dataclasses import dataclass

KEY = "exchange, market, symbol, interval_minutes, opened_at"
BY_SERIES = "partition by exchange, market, symbol, interval_minutes"


@dataclass(frozen=True)
class Leaky:
    """What is selected from `bars`, the reported bars, or from `source`; the columns that leak."""

    column: str
    value: str
    source: str = "bars"
    available_at: str = "available_at"
    layer: str = "features"
    more: tuple[str, ...] = ()

    def sql(self) -> str:
        return (
            "with bars as (select * from {{ ref('int_bars') }} where not is_gap)\n"
            f"select {KEY}, {self.available_at} as available_at, "
            f"1 as harmless, {self.value} as {self.column.strip('()')}\nfrom {self.source}\n"
        )


LEAKY = {
    "whole_sample_quantile": Leaky(
        "is_high", f"close_price > quantile_cont(close_price, 0.9) over ({BY_SERIES})"
    ),
    "full_sample_scaler": Leaky(
        "close_scaled",
        f"(close_price - avg(close_price) over ({BY_SERIES})) "
        f"/ stddev_pop(close_price) over ({BY_SERIES})",
    ),
    "full_sample_rank": Leaky("volume_rank", f"percent_rank() over ({BY_SERIES} order by volume)"),
    "interpolation_through_the_future": Leaky(
        "open_interest",
        "(earlier + later) / 2",
        "bars asof left join (select symbol as earlier_symbol, measured_at as earlier_at, "
        "open_interest as earlier from {{ ref('stg_open_interest') }}) "
        "on symbol = earlier_symbol and opened_at >= earlier_at "
        "asof left join (select symbol as later_symbol, measured_at as later_at, "
        "open_interest as later from {{ ref('stg_open_interest') }}) "
        "on symbol = later_symbol and opened_at <= later_at",
    ),
    "forward_fill_from_a_later_row": Leaky(
        "funding_rate",
        "funding_rate",
        "bars asof left join (select symbol as funded_symbol, funded_at, funding_rate "
        "from {{ ref('stg_funding') }}) on symbol = funded_symbol and closed_at <= funded_at",
    ),
    "headlines_by_publication": Leaky(
        "headline_count",
        "(select count(*) from {{ ref('stg_news') }} as news where news.published_at "
        "between bars.available_at - interval 1 hour and bars.available_at)",
    ),
    "scores_by_their_headlines": Leaky(
        "sentiment",
        "(select sum(score) from {{ ref('stg_news_scores') }} as scores where scores.published_at "
        "between bars.available_at - interval 1 hour and bars.available_at)",
    ),
    "fits_before_they_were_known": Leaky(
        "omega",
        "(select arg_max(omega, fitted_until) from {{ ref('stg_garch_parameters') }} as fits "
        "where fits.symbol = bars.symbol and fits.fitted_until <= bars.closed_at)",
    ),
    "centred_window": Leaky(
        "close_sma_5",
        f"avg(close_price) over ({BY_SERIES} order by opened_at "
        "rows between 2 preceding and 2 following)",
    ),
    "label_in_features": Leaky("return_5", "return_5", "{{ ref('lbl_return') }}"),
    "label_among_the_features_of_a_dataset": Leaky(
        "momentum", "cast(return_5 as float)", "{{ ref('lbl_return') }}", layer="datasets"
    ),
    "wrong_sort": Leaky(
        "close_change", f"close_price - lag(close_price) over ({BY_SERIES} order by opened_at desc)"
    ),
    "off_by_one_lag": Leaky(
        "close_lag_1", f"lag(close_price, -1) over ({BY_SERIES} order by opened_at)"
    ),
    "late_data_used_early": Leaky(
        "open_interest",
        "(select max_by(open_interest, measured_at) from {{ ref('stg_open_interest') }} as seen "
        "where seen.symbol = bars.symbol and seen.measured_at < bars.closed_at)",
    ),
    "raw_rows_read_past_staging": Leaky(
        "reading_count",
        "(select count(*) from {{ source('raw', 'open_interest') }} as seen "
        "where seen.symbol = bars.symbol "
        "and seen.create_time at time zone 'UTC' < bars.closed_at)",
    ),
    "join_by_event_time": Leaky(
        "funding_rate",
        "funding_rate",
        "bars asof left join (select symbol as funded_symbol, funded_at, funding_rate "
        "from {{ ref('stg_funding') }}) on symbol = funded_symbol and closed_at >= funded_at",
    ),
    "late_trades_in_an_early_bar": Leaky(
        "traded_volume",
        "traded",
        f"bars left join (select {KEY}, volume as traded from {{{{ ref('int_trade_bars') }}}}) "
        f"using ({KEY})",
    ),
    "resample_by_close_label": Leaky(
        "high_price_5",
        "max(high_price)",
        "(select exchange, market, symbol, 5 as interval_minutes, high_price, "
        "time_bucket(interval 5 minutes, opened_at - interval 1 minute) as opened_at "
        "from bars where interval_minutes = 1) group by all",
        "opened_at + interval 5 minutes",
    ),
    "peeking_at_an_unfinished_bar": Leaky(
        "hour_high",
        "highest",
        "bars left join (select symbol as hour_symbol, opened_at as hour_at, high_price as highest "
        "from bars where interval_minutes = 60) "
        "on symbol = hour_symbol and date_trunc('hour', opened_at) = hour_at",
    ),
    "known_at_the_open": Leaky("(row)", "close_price", "bars", "opened_at"),
    "known_before_it_arrived": Leaky("(row)", "close_price", "bars", "closed_at"),
    "symbols_that_survived": Leaky(
        "(row)",
        "close_price",
        "bars where symbol in (select symbol from bars where interval_minutes = 1 "
        "group by symbol having count(*) > 1700)",
    ),
    "end_before_the_last_bar_it_reads": Leaky(
        "return_3",
        "case when lead(opened_at, 3) over by_series is not null "
        "then lead(closed_at, 2) over by_series end as return_3_end_at, "
        "lead(close_price, 3) over by_series / close_price - 1",
        f"bars window by_series as ({BY_SERIES} order by opened_at)",
        layer="labels",
        more=("return_3_end_at",),
    ),
    "label_of_a_horizon_that_is_not_over": Leaky(
        "highest_9",
        "case when lead(bars_in_run, 9) over by_series > 9 then lead(closed_at, 9) over by_series "
        "end as highest_9_end_at, "
        "max(high_price) over (by_series rows between 1 following and 9 following)",
        f"bars window by_series as ({BY_SERIES} order by opened_at)",
        layer="labels",
    ),
    "label_that_changes_once_decided": Leaky(
        "above_mean_7",
        "case when lead(bars_in_run, 7) over by_series > 7 then lead(closed_at, 7) over by_series "
        "end as above_mean_7_end_at, "
        "case when lead(bars_in_run, 7) over by_series > 7 "
        f"then close_price - avg(close_price) over ({BY_SERIES}) end",
        f"bars window by_series as ({BY_SERIES} order by opened_at)",
        layer="labels",
    ),
}
