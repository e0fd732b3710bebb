-- The registry of models: append-only; the latest row of a name is its active version.
-- Times are naive UTC. Version: the first 16 hexadecimal digits of the ONNX file's sha256.

create schema if not exists registry;

create table if not exists registry.models (
    model_name varchar, model_version varchar, stage varchar, model_type varchar, options json,
    features varchar[], label varchar,
    train_end_at timestamp, validation_end_at timestamp, train_rows bigint, validation_rows bigint,
    data_hash varchar, data_watermark timestamp, sql_hash varchar, git_revision varchar,
    seed bigint, trainer varchar, metrics json,
    onnx blob, onnx_sha256 varchar,
    parity_sample struct(features float[], probability double)[],
    registered_at timestamp
);

create table if not exists registry.training_info (
    model_name varchar, model_version varchar, training_run integer, iteration integer,
    loss double, eval_loss double, learning_rate double, duration_ms bigint
);

create table if not exists registry.feature_importance (
    model_name varchar, model_version varchar, feature varchar,
    importance_weight bigint, importance_gain double, importance_cover double
);

create or replace view registry.active_models as (
    select * exclude (onnx, parity_sample)
    from registry.models
    qualify row_number() over (partition by model_name order by registered_at desc) = 1
);
