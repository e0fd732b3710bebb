{# The side that each ensemble of models takes after each bar, by the rules of the seed `ensembles`. #}

{% set key = 'exchange, market, symbol, interval_minutes, opened_at' %}

with

rules as (

    select
        ensemble_name,
        method,
        model_name,
        weight,
        vol_regime as own_regime,
        threshold,
        minimum_confidence,
        maximum_disagreement,
        count(*) over (partition by ensemble_name) as rule_count

    from {{ ref('ensembles') }}

),

members as (

    select
        {{ key }},
        closed_at,
        available_at,
        model_name,
        probability

    from {{ ref('sig_members') }}

),

regimes as (

    select {{ key }}, vol_regime
    from {{ ref('int_volatility_regimes') }}

),

votes as (

    select
        members.exchange,
        members.market,
        members.symbol,
        members.interval_minutes,
        members.opened_at,
        members.closed_at,
        members.available_at,
        rules.*,
        regimes.vol_regime,
        members.probability,
        rules.own_regime is null or coalesce(rules.own_regime = regimes.vol_regime, false) as is_asked,
        rules.weight * case
            when rules.method = 'confidence_vote' then greatest(members.probability, 1 - members.probability)
            else 1
        end as vote_weight

    from rules
    inner join members on rules.model_name = members.model_name
    left join regimes using ({{ key }})

),

counted as (

    select
        {{ key }},
        ensemble_name,
        max(method) as method,
        max(vol_regime) as vol_regime,
        max(closed_at) as closed_at,
        max(available_at) as available_at,
        max(threshold) as threshold,
        max(minimum_confidence) as minimum_confidence,
        max(maximum_disagreement) as maximum_disagreement,
        max(rule_count) - count(*) as missing_count,
        sum(case when is_asked then 1 else 0 end) as member_count,
        {# Twelve digits, so that what is on a threshold by hand is on it here. #}
        round({{ safe_divide(
            'sum(case when is_asked then vote_weight * probability end)', 'sum(case when is_asked then vote_weight end)'
        ) }}, 12) as probability,
        {{ safe_divide(
            'sum(case when is_asked and probability > 5e-1 then weight else 0 end)', 'sum(case when is_asked then weight end)'
        ) }} as up_share

    from votes

    group by {{ key }}, ensemble_name

),

judged as (

    select
        *,
        greatest(probability, 1 - probability) as confidence,
        round(case when probability > 5e-1 then 1 - up_share else up_share end, 12) as disagreement

    from counted

),

reasoned as (

    select
        *,
        case
            when missing_count > 0 then 'a model is missing'
            when member_count = 0 then 'the regime is not known'
            when probability > 1 - threshold and probability < threshold then 'below the threshold'
            when confidence < minimum_confidence then 'too little confidence'
            when disagreement > maximum_disagreement then 'too much disagreement'
            else 'signal'
        end as reason

    from judged

),

final as (

    select
        {{ key }},
        closed_at,
        available_at,
        ensemble_name,
        method,
        vol_regime,
        member_count,
        probability,
        confidence,
        disagreement,
        case
            when reason <> 'signal' or probability = 5e-1 then 0
            when probability > 5e-1 then 1
            else -1
        end as signal,
        reason

    from reasoned

)

select * from final
