-- The registry of models. Its tables only grow; times are naive UTC.
-- Version: the first 16 hexadecimal digits of the ONNX file's sha256. A version trained again
-- from other inputs that gave the same bytes is registered again; the latest row counts.

create schema if not exists registry;

-- role: 'signal' (scored and traded), 'member' (of ensembles) or 'baseline' (only compared with).
-- engine: 'lightgbm', 'xgboost', 'catboost', 'linear' or 'neural'; native: the model in that engine's own form.
-- task: 'binary', 'multiclass' or 'regression'; classes: the labels in the order of the probabilities.
-- transform: the ONNX graph of TRANSFORM alone; origins: of each of its columns the feature, from 1.
create table if not exists registry.models (
    model_name varchar, model_version varchar, role varchar, model_type varchar, engine varchar, task varchar,
    options json, features varchar[], label varchar, classes varchar[],
    train_end_at timestamp, validation_end_at timestamp, train_rows bigint, validation_rows bigint,
    data_hash varchar, data_watermark timestamp, sql_hash varchar, git_revision varchar,
    seed bigint, trainer varchar, metrics json,
    onnx blob, onnx_sha256 varchar, native blob, transform blob, origins integer[],
    parity_sample struct(features float[], outputs double[])[],
    registered_at timestamp
);

-- What became of a version: 'candidate', 'shadow', 'champion' or 'retired'; the latest row counts.
create table if not exists registry.stages (
    model_name varchar, model_version varchar, stage varchar, reason varchar, changed_at timestamp
);

create table if not exists registry.training_info (
    model_name varchar, model_version varchar, training_run integer, iteration integer,
    loss double, eval_loss double, learning_rate double, duration_ms bigint
);

create table if not exists registry.feature_importance (
    model_name varchar, model_version varchar, feature varchar,
    importance_weight bigint, importance_gain double, importance_cover double
);

-- What the training rows hold of each feature; a missing value is NaN, infinite or NULL.
create table if not exists registry.feature_info (
    model_name varchar, model_version varchar, input varchar, "min" double, "max" double, mean double,
    median double, stddev double, category_count bigint, null_count bigint, dimension bigint
);

-- Mean absolute attributions over the validation part, by class; class_name: NULL for a regression.
create table if not exists registry.global_explanations (
    model_name varchar, model_version varchar, class_name varchar, feature varchar, attribution double
);

-- Maps from probabilities to frequencies, fitted on the validation part. method 'isotonic': a knot
-- from probability x to y; 'platt': slope x and intercept y of the log-odds.
create table if not exists registry.calibration (
    model_name varchar, model_version varchar, method varchar, x double, y double
);

-- Every trial of every search; a model without a search is one trial.
create table if not exists registry.trials (
    model_name varchar, model_version varchar, trial_id integer, hyperparameters json,
    hparam_tuning_evaluation_metrics json, training_loss double, eval_loss double,
    status varchar, error_message varchar, is_optimal boolean
);

-- Walk-forward: the model of a fold knew labels decided up to train_end_at, and was tested on
-- the rows of the fold. metrics: as in registry.models.
create table if not exists registry.folds (
    model_name varchar, model_version varchar, fold integer,
    train_end_at timestamp, test_start_at timestamp, test_end_at timestamp,
    train_rows bigint, test_rows bigint, metrics json
);

-- What the models of the folds said of their test rows. key: the row's key columns;
-- prediction: P(true), or the value of a regression; probabilities: in the order of classes.
create table if not exists registry.out_of_fold (
    model_name varchar, model_version varchar,
    exchange varchar, market varchar, symbol varchar, interval_minutes integer, opened_at timestamp,
    fold integer, prediction double, probabilities double[]
);

-- Trees as rows. Node 0 of a tree is its root; a leaf has no feature and carries the value that
-- it adds to the score of the output. feature: position from 1. A row goes to true_node where
-- the float32 value <= threshold, or where it is missing and is_missing_true. Tree -1 carries
-- what each score starts from.
create table if not exists registry.tree_nodes (
    model_version varchar, tree integer, node integer, feature integer, threshold float,
    is_missing_true boolean, true_node integer, false_node integer, output integer, value double
);

-- The champion of each model.
create or replace view registry.active_models as (
    with
    champions as (
        select model_name, model_version
        from registry.stages
        qualify row_number() over (partition by model_name, model_version order by changed_at desc) = 1
            and stage = 'champion'
    )
    select models.* exclude (onnx, native, transform, parity_sample), 'champion' as stage
    from registry.models
    inner join champions using (model_name, model_version)
    qualify row_number() over (partition by model_name order by registered_at desc) = 1
);
