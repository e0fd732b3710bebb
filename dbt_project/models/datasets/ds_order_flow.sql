{# The dataset of the order-flow strategy: features and label of 5-minute bars, split by time with purge and embargo. #}

{% set interval_minutes = 5 %}
{% set embargo_minutes = var('embargo_bars') * interval_minutes %}
{% set technical = [
    'close_sma_3_rel', 'close_sma_6_rel', 'close_sma_12_rel', 'close_sma_24_rel', 'close_sma_48_rel',
    'close_linearreg_slope_3_rel', 'close_linearreg_slope_6_rel', 'close_linearreg_slope_12_rel', 'close_linearreg_slope_24_rel',
    'close_stddev_12_rel', 'close_stddev_24_rel', 'bbands_20_width', 'bbands_20_pctb', 'vwap_20_rel', 'volume_sma_20_rel',
    'close_roc_1', 'close_roc_5', 'close_roc_10', 'close_roc_20', 'spread_pct_3', 'spread_pct_6', 'spread_pct_12',
    'stoch_k_14_3', 'stoch_d_3', 'close_willr_14',
] %}
{% set features = technical %}

with

bars as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at

    from {{ ref('int_bars') }}

    where interval_minutes = {{ interval_minutes }} and market = '{{ var("dataset_market") }}' and not is_gap

),

technical as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        {{ technical | join(',\n        ') }}

    from {{ ref('feat_ta') }}

),

labels as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        return_5,
        return_5_end_at

    from {{ ref('lbl_return') }}

),

joined as (

    select
        bars.exchange,
        bars.market,
        bars.symbol,
        bars.interval_minutes,
        bars.opened_at,
        bars.closed_at,
        technical.available_at,
        {% for column in technical -%}
            technical.{{ column }},
        {% endfor -%}
        case when labels.return_5 <> 0 then labels.return_5 > 0 end as is_up_5,
        labels.return_5,
        labels.return_5_end_at as label_end_at

    from bars
    inner join technical
        on bars.exchange = technical.exchange
        and bars.market = technical.market
        and bars.symbol = technical.symbol
        and bars.interval_minutes = technical.interval_minutes
        and bars.opened_at = technical.opened_at
    left join labels
        on bars.exchange = labels.exchange
        and bars.market = labels.market
        and bars.symbol = labels.symbol
        and bars.interval_minutes = labels.interval_minutes
        and bars.opened_at = labels.opened_at

),

labelled_span as (

    select
        min(closed_at) as start_at,
        max(label_end_at) as end_at,
        {{ minutes_between('min(closed_at)', 'max(label_end_at)') }} / {{ interval_minutes }} as bar_count

    from joined

    where is_up_5 is not null

),

parts as (

    select
        end_at as test_end_at,
        {% for part, share in [('train', var('train_share')), ('validation', var('train_share') + var('validation_share'))] -%}
            {{ add_minutes(
                'start_at', interval_minutes ~ ' * cast(floor(bar_count * ' ~ share ~ ') as bigint)'
            ) }} as {{ part }}_end_at{{ ',' if not loop.last }}
        {% endfor %}
    from labelled_span

),

placed as (

    select
        joined.*,
        parts.train_end_at,
        parts.test_end_at,
        case
            when joined.is_up_5 is null then null
            when joined.closed_at >= parts.validation_end_at then 'test'
            when joined.closed_at >= parts.train_end_at then
                case when joined.label_end_at <= {{ add_minutes('parts.validation_end_at', -embargo_minutes) }} then 'validation' end
            when joined.label_end_at <= {{ add_minutes('parts.train_end_at', -embargo_minutes) }} then 'train'
        end as split

    from joined
    cross join parts

),

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        closed_at,
        available_at,
        {% for column in features -%}
            cast({{ column }} as {{ type_float32() }}) as {{ column }},
        {% endfor -%}
        is_up_5,
        return_5,
        label_end_at,
        split,
        case
            when is_up_5 is not null and closed_at >= train_end_at
                then 1 + cast(
                    floor({{ safe_divide(
                        minutes_between('train_end_at', 'closed_at') ~ ' * ' ~ var('fold_count'),
                        minutes_between('train_end_at', 'test_end_at')
                    ) }}) as integer
                )
        end as fold

    from placed

)

select * from final
