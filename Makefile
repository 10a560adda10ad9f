# Everything a contributor types. `make` alone lists it.

VENV   := .venv
PYTHON ?=
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
ARGS   ?=
JOBS   ?= 2
SEEDS  ?= 20000

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos soak check format docs bench bench-orchestration clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with FlowKit (editable), all its extras and the tools of development

# Runs again when the dependencies may have changed. pip before 25.1 knows no dependency groups.
$(STAMP): pyproject.toml .ci/venv
	@PYTHON='$(PYTHON)' .ci/venv $(VENV)
	@echo 'Installing FlowKit and its tools into $(VENV) …' >&2
	@$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	@$(PY) -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

demo: $(STAMP) ## Run the code census on the embedded broker and store: progress and logs, then its result
	@$(VENV)/bin/flowkit run discover $(ARGS)

test: $(STAMP) ## Run all tests, on real RabbitMQs and PostgreSQLs (ARGS="-k add" for some of them, JOBS=0 for pdb)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

chaos: $(STAMP) ## Twenty thousand seeds, then every fault again and again (SEEDS=0 ARGS="broker-wiped --rounds 3"; an hour)
	@$(PY) -m tests.simulation --seeds $(SEEDS)
	@$(PY) -m tests.chaos $(ARGS)
	$(if $(ARGS),,@$(PY) -m tests.simulation)

soak: $(STAMP) ## Ten minutes of load with faults: nothing may grow (ARGS="--minutes 60 --svg soak.svg")
	@$(PY) -m tests.chaos.soak $(ARGS)

check: $(STAMP) ## Check format, style, types and the layers of imports
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

format: $(STAMP) ## Format the code and repair what ruff can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

docs: $(STAMP) ## Write anew what is generated: the JSON Schemas in docs/reference, broker/definitions.json
	@$(PY) docs/reference/generate.py
	@$(PY) broker/generate.py

bench: $(STAMP) ## FlowKit beside its peers and the raw limit (ARGS="--scenarios chain --systems flowkit,raw"; 25 minutes)
	@$(PY) -m benchmarks $(ARGS)

bench-orchestration: $(STAMP) ## Measure orchestration beside its limits; fails when one is missed (five minutes)
	@$(PY) -m benchmarks.orchestration $(ARGS)

clean: ## Remove what is not in version control: .venv, .flowkit, caches
	@rm -rf $(VENV) .flowkit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
