{# The variance of the next log return by GARCH(1,1), with the parameters that were known at each bar. #}

with

returns as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        available_at,
        bars_in_run,
        log_return

    from {{ ref('int_bar_returns') }}

),

parameters as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        fitted_until,
        available_at,
        omega,
        alpha,
        beta

    from {{ ref('stg_garch_parameters') }}

),

known as (

    {{ as_of_join(
        'returns',
        'parameters',
        ['exchange', 'market', 'symbol', 'interval_minutes'],
        'fitted_until',
        ['omega', 'alpha', 'beta'],
        var('staleness_minutes').garch_parameters,
    ) }}

),

{# Each bar maps the variance before it to shock + persistence * variance; the maps of many bars compose to one. #}

over_1 as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        omega + alpha * log_return * log_return as shock,
        beta as persistence,
        {{ safe_divide('omega', '1 - alpha - beta') }} as long_run_variance

    from known

    order by exchange, market, symbol, interval_minutes, opened_at

),

{% for bars in [1, 4, 16, 64, 256] %}

over_{{ 4 * bars }} as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        bars_in_run,
        shock + persistence * (
            lag(shock, {{ bars }}) over by_series + lag(persistence, {{ bars }}) over by_series * (
                lag(shock, {{ 2 * bars }}) over by_series
                + lag(persistence, {{ 2 * bars }}) over by_series * lag(shock, {{ 3 * bars }}) over by_series
            )
        ) as shock,
        persistence
        {%- for block in range(1, 4) %}
            * lag(persistence, {{ block * bars }}) over by_series
        {%- endfor %} as persistence,
        long_run_variance

    from over_{{ bars }}

    window by_series as {{ sorted_series() }}

),

{% endfor %}

final as (

    select
        exchange,
        market,
        symbol,
        interval_minutes,
        opened_at,
        {{ if_full(1025, 'sqrt(shock + persistence * long_run_variance)') }} as garch_volatility_1

    from over_1024

)

select * from final
