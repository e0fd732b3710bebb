{# A polynomial of a column by Horner's rule, the highest power's coefficient first. #}
{% macro polynomial(column, coefficients) -%}
    {%- set nested = namespace(sql=coefficients[0] | string) -%}
    {%- for coefficient in coefficients[1:] -%}
        {%- set nested.sql = '(' ~ nested.sql ~ ' * ' ~ column ~ ' + ' ~ coefficient ~ ')' -%}
    {%- endfor -%}
    {{- nested.sql -}}
{%- endmacro %}


{# The standard normal distribution function of a column.

   Hart (1968), algorithm 5666, as in West, "Better approximations to cumulative normal functions" (2005). Absolute error at most 1e-15. #}
{% macro normal_cdf(column) -%}
    {%- set size = 'abs(' ~ column ~ ')' -%}
    {%- set numerator = [
        '3.52624965998911e-2', '7.00383064443688e-1', '6.37396220353165e0', '3.3912866078383e1', '1.12079291497871e2',
        '2.21213596169931e2', '2.20206867912376e2',
    ] -%}
    {%- set denominator = [
        '8.83883476483184e-2', '1.75566716318264e0', '1.6064177579207e1', '8.67807322029461e1', '2.96564248779674e2',
        '6.37333633378831e2', '7.93826512519948e2', '4.40413735824752e2',
    ] -%}
    {%- set fraction = namespace(sql='(' ~ size ~ ' + 6.5e-1)') -%}
    {%- for step in [4, 3, 2, 1] -%}
        {%- set fraction.sql = '(' ~ size ~ ' + ' ~ step ~ ' / ' ~ fraction.sql ~ ')' -%}
    {%- endfor -%}
    case
        when {{ column }} is null then null
        when {{ size }} > 37e0 then case when {{ column }} > 0 then 1e0 else 0e0 end
        when {{ size }} < 7.07106781186547e0
            then
                case when {{ column }} > 0 then 1e0 else 0e0 end
                - case when {{ column }} > 0 then 1e0 else -1e0 end * exp(-{{ column }} * {{ column }} / 2)
                * {{ polynomial(size, numerator) }} / {{ polynomial(size, denominator) }}
        else
            case when {{ column }} > 0 then 1e0 else 0e0 end
            - case when {{ column }} > 0 then 1e0 else -1e0 end * exp(-{{ column }} * {{ column }} / 2)
            / {{ fraction.sql }} / 2.506628274631e0
    end
{%- endmacro %}


{# The quantile of the standard normal distribution for a column of probabilities; NULL for 0 and 1, which have none.

   Wichura, "Algorithm AS 241" (1988), PPND16. Relative error about 1e-16. #}
{% macro normal_quantile(column) -%}
    {%- set centre = '(1.80625e-1 - (' ~ column ~ ' - 5e-1) * (' ~ column ~ ' - 5e-1))' -%}
    {%- set tail = 'sqrt(-ln(least(' ~ column ~ ', 1 - ' ~ column ~ ')))' -%}
    case
        when {{ column }} <= 0 or {{ column }} >= 1 then null
        when abs({{ column }} - 5e-1) <= 4.25e-1
            then ({{ column }} - 5e-1) * {{ polynomial(centre, [
                '2.5090809287301226727e3', '3.3430575583588128105e4', '6.7265770927008700853e4', '4.5921953931549871457e4',
                '1.3731693765509461125e4', '1.9715909503065514427e3', '1.3314166789178437745e2', '3.3871328727963666080e0',
            ]) }} / {{ polynomial(centre, [
                '5.2264952788528545610e3', '2.8729085735721942674e4', '3.9307895800092710610e4', '2.1213794301586595867e4',
                '5.3941960214247511077e3', '6.8718700749205790830e2', '4.2313330701600911252e1', '1e0',
            ]) }}
        when {{ tail }} <= 5
            then case when {{ column }} < 5e-1 then -1e0 else 1e0 end * {{ polynomial('(' ~ tail ~ ' - 1.6e0)', [
                '7.74545014278341407640e-4', '2.27238449892691845833e-2', '2.41780725177450611770e-1', '1.27045825245236838258e0',
                '3.64784832476320460504e0', '5.76949722146069140550e0', '4.63033784615654529590e0', '1.42343711074968357734e0',
            ]) }} / {{ polynomial('(' ~ tail ~ ' - 1.6e0)', [
                '1.05075007164441684324e-9', '5.47593808499534494600e-4', '1.51986665636164571966e-2', '1.48103976427480074590e-1',
                '6.89767334985100004550e-1', '1.67638483018380384940e0', '2.05319162663775882187e0', '1e0',
            ]) }}
        else case when {{ column }} < 5e-1 then -1e0 else 1e0 end * {{ polynomial('(' ~ tail ~ ' - 5e0)', [
                '2.01033439929228813265e-7', '2.71155556874348757815e-5', '1.24266094738807843860e-3', '2.65321895265761230930e-2',
                '2.96560571828504891230e-1', '1.78482653991729133580e0', '5.46378491116411436990e0', '6.65790464350110377720e0',
            ]) }} / {{ polynomial('(' ~ tail ~ ' - 5e0)', [
                '2.04426310338993978564e-15', '1.42151175831644588870e-7', '1.84631831751005468180e-5', '7.86869131145613259100e-4',
                '1.48753612908506148525e-2', '1.36929880922735805310e-1', '5.99832206555887937690e-1', '1e0',
            ]) }}
    end
{%- endmacro %}


{# How many standard errors a Sharpe ratio lies above a benchmark, for returns with skewness and fat tails; its normal_cdf is the
   probabilistic Sharpe ratio of Bailey and López de Prado, "The Sharpe ratio efficient frontier" (2012). Ratios are per observation,
   the kurtosis of normal returns is 3. #}
{% macro sharpe_score(sharpe, benchmark, observations, skewness, kurtosis) -%}
    {{ safe_divide(
        '(' ~ sharpe ~ ' - ' ~ benchmark ~ ') * sqrt(greatest(' ~ observations ~ ' - 1, 0))',
        'sqrt(greatest(1 - ' ~ skewness ~ ' * ' ~ sharpe ~ ' + (' ~ kurtosis ~ ' - 1) / 4 * ' ~ sharpe ~ ' * ' ~ sharpe ~ ', 0))'
    ) }}
{%- endmacro %}


{# The best Sharpe ratio to expect of some trials without skill, in standard deviations of a trial's ratio: Bailey and López de Prado,
   "The deflated Sharpe ratio" (2014). 0 for one trial. `trials` is a column. #}
{% macro expected_maximum(trials) -%}
    case
        when {{ trials }} > 1
            then
                (1 - 5.772156649015329e-1) * {{ normal_quantile('(1 - 1e0 / ' ~ trials ~ ')') }}
                + 5.772156649015329e-1 * {{ normal_quantile('(1 - 1e0 / (' ~ trials ~ ' * exp(1e0)))') }}
        else 0e0
    end
{%- endmacro %}


{# A whole number from 0 to 4,294,967,295 drawn by a text: the first 32 bits of its MD5, the same on both engines. #}
{% macro draw(text) %}{{ return(adapter.dispatch('draw', 'tapehouse')(text)) }}{% endmacro %}

{% macro default__draw(text) %}cast(concat('0x', substr(md5({{ text }}), 1, 8)) as bigint){% endmacro %}

{% macro bigquery__draw(text) %}cast(concat('0x', substr(to_hex(md5({{ text }})), 1, 8)) as int64){% endmacro %}


{# The whole numbers from 0 on, as many as asked for, in a column. #}
{% macro numbers(count, column) %}{{ return(adapter.dispatch('numbers', 'tapehouse')(count, column)) }}{% endmacro %}

{% macro default__numbers(count, column) %}select unnest(range({{ count }})) as {{ column }}{% endmacro %}

{% macro bigquery__numbers(count, column) %}select {{ column }} from unnest(generate_array(0, {{ count }} - 1)) as {{ column }}{% endmacro %}


{# Resamples of blocks of time, as many blocks drawn with replacement as there are: draw_number, time_block (from 0) and weight, how often
   the block was drawn. The draws are those of `draw('<draw>:<place>')`. #}
{% macro bootstrap_weights(draws, blocks) -%}
    select
        draw_number,
        time_block,
        count(*) as weight
    from (
        select
            draw_number,
            mod({{ draw("concat(cast(draw_number as " ~ dbt.type_string() ~ "), ':', cast(place as " ~ dbt.type_string() ~ "))") }}, {{ blocks }})
                as time_block
        from ({{ numbers(draws, 'draw_number') }}) as draws
        cross join ({{ numbers(blocks, 'place') }}) as places
    ) as drawn
    group by draw_number, time_block
{%- endmacro %}
