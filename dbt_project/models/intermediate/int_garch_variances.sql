{# The variance of the next log return by GARCH(1,1), with the parameters that were known at each bar. #}

{% set changed = changed_from() if is_incremental() %}

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

    {% if is_incremental() %} where {{ in_lookback(changed) }} {% endif %}

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

    {% if is_incremental() -%}
        where fitted_until >= {{ add_minutes(changed, -1025 * (var('interval_minutes') | max) - var('staleness_minutes').garch_parameters) }}
    {%- endif %}

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
            {{ earlier('shock', bars) }} + {{ earlier('persistence', bars) }} * (
                {{ earlier('shock', 2 * bars) }}
                + {{ earlier('persistence', 2 * bars) }} * {{ earlier('shock', 3 * bars) }}
            )
        ) as shock,
        persistence
        {%- for block in range(1, 4) %}
            * {{ earlier('persistence', block * bars) }}
        {%- endfor %} as persistence,
        long_run_variance

    from over_{{ bars }}

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

{% if is_incremental() %} where opened_at >= {{ changed }} {% endif %}
