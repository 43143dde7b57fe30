# Serin: `make demo` shows the main job, `make test` runs everything. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CLUSTER ?= serin
PYTHON ?= python3
VENV := .venv
FUZZ_SEED ?= $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(10**9))')
BIN := $(VENV)/bin
CLUSTER_CLI := $(PYTHON) -m tests.cluster

.PHONY: help demo test check lint types unit process fuzz chart e2e test-chaos test-chaos-cluster bench-decisions bench-server bench-router venv lock generate cluster-up cluster-down cluster-status images clean preflight

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: preflight venv ## watch a better model be promoted and a harmful one be stopped, on a real cluster
	$(BIN)/python -m demo $(DEMO_ARGS)

test: preflight check process fuzz chart e2e ## everything, in order of cost

check: lint types unit ## lint, types and unit tests: no cluster, two minutes

lint: venv ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=operator/src:model-server/src $(BIN)/lint-imports

types: venv ## mypy, strict
	$(BIN)/mypy

unit: venv ## unit tests
	$(BIN)/pytest -m "not process and not simulation and not helm and not cluster and not e2e" -n 2

process: venv ## tests of model servers and routers as processes of this machine, and long simulations
	$(BIN)/pytest -m "(process or simulation) and not chaos" -n 2

test-chaos: venv ## rollouts under faults; SERIN_CHAOS_SEED=N strikes at the same moments again, SERIN_CHAOS_TIMES=N more often
	$(BIN)/pytest -n 4 tests/operator/test_faults.py $(CHAOS_ARGS)

test-chaos-cluster: images ## the same on the local cluster, with signals to its own processes
	$(BIN)/python -m tests.run -m cluster_chaos tests/chaos $(CHAOS_ARGS)

fuzz: venv ## 100,000 malformed requests to the model server; FUZZ_SEED=N runs the same ones again
	SERIN_FUZZ_INPUTS=100000 SERIN_FUZZ_SEED=$(FUZZ_SEED) $(BIN)/pytest -s -o timeout=900 tests/model_server/test_fuzz.py

chart: cluster-up ## Helm lint and template; schema and examples against the API server; a cluster that comes and goes
	$(BIN)/python -m tests.run -m "helm or (cluster and not e2e)" tests/chart tests/cluster

e2e: images ## the rollouts, on the cluster
	$(BIN)/python -m tests.run -m e2e tests/e2e

bench-decisions: venv ## simulate error rates and delays, next to other tools' rules
	PYTHONPATH=operator/src $(BIN)/python -m bench.decisions $(BENCH_ARGS)

bench-server: venv ## compare the model server with MLServer, KServe and its floors
	PYTHONPATH=model-server/src $(BIN)/python -m bench.server $(BENCH_ARGS)

bench-router: venv ## compare calling the model server through the router with calling it directly
	PYTHONPATH=operator/src:model-server/src $(BIN)/python -m bench.router $(BENCH_ARGS)

images: cluster-up ## build the images and load them into the cluster
	$(CLUSTER_CLI) images --name $(CLUSTER)

cluster-up: preflight venv ## bring a cluster up (kind, or real components in a network namespace)
	$(CLUSTER_CLI) up --name $(CLUSTER)

cluster-down: ## take it down, leaving nothing behind
	$(CLUSTER_CLI) down --name $(CLUSTER)

cluster-status: ## say what runs and what does not
	$(CLUSTER_CLI) status --name $(CLUSTER)

preflight: ## say what is missing before anything starts
	@$(CLUSTER_CLI) preflight

venv: $(VENV)/.installed ## the virtual environment, from the lock

# The lock is complete. Without --no-deps, pip would take what is asked for with an extra to be another requirement, without a
# pin, as soon as a newer release than the lock's is out.
$(VENV)/.installed: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Serin needs Python 3.11 or newer; found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $@

# Names no index, so that a lock serves behind any mirror. What is tested is what ships: the images' locks follow dev's.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
SHIPPED = $(COMPILE) --constraints requirements/dev.txt
lock: ## resolve the dependencies again and pin them with hashes
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet uv
	$(COMPILE) --extra operator --extra server --extra boosting --extra cli --extra plot --group demo --group router --group dev -o requirements/dev.txt pyproject.toml
	$(SHIPPED) --extra operator -o requirements/operator.txt pyproject.toml
	$(SHIPPED) --extra server -o requirements/server.txt pyproject.toml
	$(SHIPPED) --group demo -o requirements/demo.txt pyproject.toml
	$(SHIPPED) --group router -o requirements/router.txt pyproject.toml

generate: venv ## copy the resource's definition into the chart; write its reference page, gRPC messages and commands' outputs
	cp crds/modeldeployments.serin.dev.yaml charts/serin/files/crd.yaml
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python model-server/proto/generate.py
	$(BIN)/python docs/generate_command_line.py

clean: ## remove what the targets above made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
