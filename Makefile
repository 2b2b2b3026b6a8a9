PYTHON ?= python3
export PYTHON
# Some images of containers set it. Then each process compiles every module it imports: 28 s more CPU for each process of
# the tests, which are several, and as much again for all that they start.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
DEMO := .venv/.easel-demo
DEV := .venv/.easel-dev

.DEFAULT_GOAL := help
.PHONY: help setup demo dev clients test test-all bench-engine bench-gateway bench-billing chaos fuzz docs lint format dashboards lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(DEV) ## Install everything into .venv (the others do it when needed).

# A marker that is newer than what it was made from: there is nothing to install.
$(DEMO): pyproject.toml $(wildcard requirements/*.lock) scripts/setup
	@scripts/setup $(if $(wildcard $(DEV)),dev,demo)

$(DEV): pyproject.toml $(wildcard requirements/*.lock) scripts/setup
	@scripts/setup dev

demo: $(DEMO) ## Start the whole stack, generate, show the cost (ONCE=1: exit after; HISTORY=1: with a month of use).
	@$(BIN)/easel demo $(if $(ONCE),--once) $(if $(HISTORY),--history)

dev: $(DEMO) ## Run the whole stack until Ctrl-C.
	@$(BIN)/easel up

# The clients of other projects. Where they can't be installed their tests are skipped, and say so.
clients: $(DEV)
	@scripts/client-programs || echo "The tests of these clients are skipped."

test: $(DEV) clients ## Run the tests, in three processes, and print the ten slowest.
	@$(BIN)/pytest -n 3 --durations=10

test-all: $(DEV) clients ## The same with twenty times the examples of Hypothesis, and the demo model's pictures judged.
	@$(BIN)/pytest -n 3 --durations=10 --hypothesis-profile=large -m ""

bench-engine: $(DEV) ## Measure the engine against diffusers and other policies (QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.engine

bench-gateway: $(DEV) ## Measure admission, dispatch and fairness (PEER=1: beside LiteLLM; QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.gateway

bench-billing: $(DEV) ## Measure statements, dashboards and exports at up to a million jobs (QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.billing

chaos: $(DEV) ## Kill, pause and confuse everything under load, and check the books (SEEDS=50, or SEED=17; RECORD=1).
	@$(BIN)/python -m tests.chaos

fuzz: $(DEV) ## Send 20,000 requests made of the OpenAPI document, by keys of two tenants (CASES=1000; SEED=2).
	@FUZZ_CASES=$(or $(CASES),20000) FUZZ_SEED=$(or $(SEED),1) $(BIN)/pytest tests/easel/api/test_fuzz.py

docs: $(DEV) ## Build the documentation site into var/site; a warning is an error.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet && echo "open var/site/index.html"

lint: $(DEV) ## Check style, types, directions of imports and migrations.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	scripts/types
	$(BIN)/lint-imports
	scripts/migrations
	$(BIN)/python -c "import platform, sysconfig; assert platform.__file__.startswith(sysconfig.get_path('stdlib')), platform.__file__"

format: $(DEV) ## Apply the style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

dashboards: $(DEV) ## Write Grafana's dashboards from deploy/grafana.
	@$(BIN)/python -m deploy.grafana

lock: $(DEV) ## Write the lock files from pyproject.toml, with hashes (UPGRADE="django click": newer versions of these).
	@$(BIN)/python scripts/lock

clean: ## Remove .venv, caches and the data of the local stack.
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
