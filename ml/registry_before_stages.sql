-- A registry from before versions had stages: the latest row of a name was its active version.

alter table registry.models rename column stage to role;
update registry.models set role = 'signal' where role = 'active';

alter table registry.models add column engine varchar;
alter table registry.models add column task varchar;
alter table registry.models add column classes varchar[];
alter table registry.models add column native blob;
alter table registry.models add column transform blob;
alter table registry.models add column origins integer[];
update registry.models set engine = 'lightgbm', task = 'binary', classes = ['false', 'true'];

alter table registry.models alter column parity_sample
set data type struct(features float[], outputs double[])[]
using list_transform(
    parity_sample,
    lambda row_: {'features': row_.features, 'outputs': [1 - row_.probability, row_.probability]}
);

create table registry.stages as
select
    model_name,
    model_version,
    case
        when row_number() over (partition by model_name order by max(registered_at) desc) = 1 then 'champion'
        else 'retired'
    end as stage,
    'active before versions had stages' as reason,
    max(registered_at) as changed_at
from registry.models
group by model_name, model_version;
