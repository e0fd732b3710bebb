# Every target makes the environment itself the first time and reuses it afterwards.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EMULATOR := .venv-emulator/.installed

# What dbt needs to render for BigQuery without an account.
OFFLINE_BIGQUERY := TAPEHOUSE_BIGQUERY_PROJECT=tapehouse TAPEHOUSE_BIGQUERY_METHOD=oauth-secrets TAPEHOUSE_BIGQUERY_TOKEN=offline

# dbt and Dagster open the warehouse that the demo filled, unless one is named or a default one exists.
export TAPEHOUSE_DATABASE ?= $(firstword $(wildcard $(CURDIR)/data/tapehouse.duckdb $(CURDIR)/data/demo/tapehouse.duckdb) $(CURDIR)/data/tapehouse.duckdb)

.PHONY: help demo test test-long test-bigquery lint docs ui bench-features bench-ml bench-recorder bench-serving soak chaos lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(STAMP) ## the whole way offline: simulated exchange, ingest, dbt build, training, scoring, report
	@env -u TAPEHOUSE_DATABASE $(BIN)/tapehouse demo

test: $(STAMP) $(EMULATOR) ## run the tests
	@env -u TAPEHOUSE_DATABASE $(BIN)/python -m pytest -n auto --dist loadfile

test-long: $(STAMP) $(EMULATOR) ## the long tests: refreshes against rebuilds, whole demos, outages and kills of processes, guides word for word, Dagster with a process per step
	@env -u TAPEHOUSE_DATABASE $(BIN)/python -m pytest -n auto --dist loadfile -m long

test-bigquery: $(STAMP) $(EMULATOR) ## all of the project on the emulator of BigQuery, beside DuckDB; on the service with credentials
	@env -u TAPEHOUSE_DATABASE TAPEHOUSE_TEST_BIGQUERY=all $(BIN)/python -m pytest -m "long or not long" tests/test_bigquery_*.py tests/test_sync*.py \
		tests/test_serving.py tests/test_engines.py tests/test_orchestration.py tests/test_models_export.py

lint: $(STAMP) ## ruff, mypy, and sqlfluff on both dialects
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --disable-progress-bar --processes 0 dbt_project/models dbt_project/analyses
	$(OFFLINE_BIGQUERY) $(BIN)/dbt --quiet compile --project-dir dbt_project --target bigquery \
		--no-populate-cache --no-introspect --target-path target/bigquery
	$(BIN)/sqlfluff lint --disable-progress-bar --processes 0 --dialect bigquery --templater raw --rules CP01,CP03,CV08,RF01 \
		dbt_project/target/bigquery/compiled

docs: $(STAMP) ## write the reference pages in docs/reference
	$(BIN)/python -m orchestration.reference

ui: $(STAMP) ## open Dagster on 127.0.0.1
	@$(BIN)/tapehouse ui

bench-ml: $(STAMP) ## training and scoring in the warehouse, beside LightGBM and ONNX Runtime alone (ROWS=5300000)
	@env -u TAPEHOUSE_DATABASE PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/bench_ml.py $(ROWS)

bench-features: $(STAMP) ## speed and memory of the feature families, beside polars, pandas, TA-Lib and a bare GROUP BY
	@for name in features families alpha158 qlib orderflow refresh history; do env -u TAPEHOUSE_DATABASE $(BIN)/python benchmarks/bench_$$name.py || exit 1; done

bench-recorder: $(STAMP) ## messages a second of the recorder on one core, and what a day of books takes on disk
	@env -u TAPEHOUSE_DATABASE PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/bench_recorder.py
	@env -u TAPEHOUSE_DATABASE PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/bench_disk.py

soak: $(STAMP) ## an hour of the exchange at sixty times its speed: nothing lost, memory flat
	@env -u TAPEHOUSE_DATABASE PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/soak.py

chaos: $(STAMP) ## kill recorder, loop and landing 200 times under a faulty exchange, and prove that nothing is lost
	@env -u TAPEHOUSE_DATABASE $(BIN)/python benchmarks/chaos.py --kills 200

bench-serving: $(STAMP) ## from the candles of a close, over a socket, to signals on disk
	@env -u TAPEHOUSE_DATABASE $(BIN)/python benchmarks/bench_serving.py

lock: ## renew requirements.lock from pyproject.toml, and the BigQuery emulator's (needs uv)
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --extra dev --extra bigquery --extra boosters pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header tests/emulator.in -o tests/emulator.lock

clean: ## remove the environment, build results and the demo's warehouse; keeps data/tapehouse.duckdb
	rm -rf .venv .venv-emulator *.egg-info .*_cache dbt_project/target dbt_project/logs logs data/demo data/recorded

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Tapehouse needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}: name one with make PYTHON=…")'
	@echo "Installing the environment into .venv (once, about two minutes)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The emulator of BigQuery needs an older DuckDB than Tapehouse: an environment of its own, for the tests alone.
$(EMULATOR): tests/emulator.lock
	@echo "Installing the BigQuery emulator into .venv-emulator (once, about a minute)"
	@$(PYTHON) -m venv --clear .venv-emulator
	@.venv-emulator/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/emulator.lock
	@touch $@
