PYTHON ?= python3
export PYTHON
BIN := .venv/bin
READY := .venv/.easel-ready

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test bench-engine bench-gateway bench-billing chaos lint format dashboards lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv (the others do it when needed).

# Newer than what it was made from: nothing to do, and make says so by doing nothing.
$(READY): pyproject.toml requirements.lock scripts/setup
	@scripts/setup

demo: $(READY) ## Start the whole stack, generate, show the cost (ONCE=1: exit after; HISTORY=1: with a month of use).
	@$(BIN)/easel demo $(if $(ONCE),--once) $(if $(HISTORY),--history)

dev: $(READY) ## Run the whole stack until Ctrl-C.
	@$(BIN)/easel up

test: $(READY) ## Run the tests, in two processes.
	@$(BIN)/pytest -n 2

bench-engine: $(READY) ## Measure the engine against diffusers and other policies (QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.engine

bench-gateway: $(READY) ## Measure admission, dispatch and fairness (PEER=1: beside LiteLLM; QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.gateway

bench-billing: $(READY) ## Measure statements, dashboards and exports at up to a million jobs (QUICK=1, RECORD=1).
	@$(BIN)/python -m tests.bench.billing

chaos: $(READY) ## Kill, pause and confuse everything under load, and check the books (SEEDS=50, or SEED=17; RECORD=1).
	@$(BIN)/python -m tests.chaos

lint: $(READY) ## Check style, types and the directions of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	scripts/types
	$(BIN)/lint-imports
	$(BIN)/python -c "import platform, sysconfig; assert platform.__file__.startswith(sysconfig.get_path('stdlib')), platform.__file__"

format: $(READY) ## Apply the style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

dashboards: $(READY) ## Write Grafana's dashboards from deploy/grafana.
	@$(BIN)/python -m deploy.grafana

lock: $(READY) ## Write the versions installed now to requirements.lock.
	@scripts/lock $(BIN)/python > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## Remove .venv, caches and the data of the local stack.
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
