# The commands of this project. Everything lives in .venv; `make` builds it by itself, with uv where there is one.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Two installs into one environment at a time would race.
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Arguments of `make demo`, `make bench` and `make workloads`.
ARGS ?=
# Arguments of `make test`: two workers halve the time of a suite that mostly waits.
PYTEST_ARGS ?= -n 2

UV := $(shell command -v uv 2>/dev/null)
ifdef UV
create_venv = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
install = uv pip install --quiet --python $(BIN)/python
else
create_venv = $(PYTHON) -m venv $(VENV)
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

# The compose plug-in of Docker where there is one, else the older program of its own.
COMPOSE ?= $(shell if docker compose version > /dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)

.PHONY: help demo test check bench workloads benchmark wheel-test up down constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.installed-demo ## run the demo (ARGS="..."); needs no broker and no API key
	$(BIN)/ccs-stream demo $(ARGS)

test: $(VENV)/.installed-test ## run the tests (PYTEST_ARGS="...")
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Types are checked with every import installed that some folder needs, or the outcome would depend on what ran before.
check: $(VENV)/.installed-dev $(VENV)/.installed-test $(VENV)/.installed-bench ## lint, format, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/architecture/purity.py

bench: $(VENV)/.installed-bench ## measure speed, next to stores that do the same work (ARGS="...")
	$(BIN)/python -m benchmarks $(ARGS)

workloads: $(VENV)/.installed-demo ## count the tokens that shared copies save in three graphs (ARGS=--json)
	$(BIN)/ccs-stream workloads $(ARGS)

benchmark: workloads # its name before it was told apart from `make bench`

wheel-test: $(VENV)/.installed-dev ## build sdist and wheel, and try the wheel in an environment of its own
	$(BIN)/python tests/packaging/wheel_check.py

up: ## start a broker, two coordinators and an example with Docker; `make down` removes them
	$(COMPOSE) up --build --detach
	@echo "kafka://127.0.0.1:9094 is the log; what the example says: $(COMPOSE) logs example"

down: ## stop what `make up` started, and delete its data
	$(COMPOSE) down --volumes --remove-orphans

constraints: ## renew constraints.txt from the newest versions that fit pyproject.toml
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet -e '.[test,dev,demo,bench,langgraph]'
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/constraints/bin/python -m pip freeze --exclude-editable >> build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## remove the environment, caches and build products
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, one stamp per extra: an extra is installed when it is first needed, and again only when what
# it is made from has changed.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ccs-stream needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(create_venv)
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	$(install) --constraint constraints.txt --editable '.[$*]'
	@touch $@
