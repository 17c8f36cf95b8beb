# `make` shows what there is to do. Nothing needs more than git, make and Python 3.11 or newer.

VENV ?= .venv
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $$python && break; done)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := shared services spool tests $(wildcard bench)

# `make soak kill` and `make bench clip` read like `make soak NAME=kill`: the second word is no target then.
ifneq ($(filter soak bench,$(firstword $(MAKECMDGOALS))),)
NAME ?= $(word 2,$(MAKECMDGOALS))
ifneq ($(word 2,$(MAKECMDGOALS)),)
$(eval $(word 2,$(MAKECMDGOALS)): ; @:)
endif
endif

programs = $(filter-out __init__,$(basename $(notdir $(shell grep -l '__main__' $(1)/*.py 2>/dev/null))))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check lint types imports format reference lock soak bench clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { gsub(/[$$][$$]/, "$$"); printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## make .venv from requirements.lock (everything else does it by itself)

# uv is the one package that pip installs, by the hashes of the lock; uv then installs the rest.
# Two makes at once in a fresh clone take turns, and the second finds the work done (.lock is uv's own).
$(INSTALLED): requirements.lock pyproject.toml
	@$(or $(PYTHON),false) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Spool needs Python 3.11 or newer with venv (on Debian: apt-get install python3-venv), or PYTHON=/path/to/python"; exit 1; }
	@mkdir -p $(VENV)
	@if command -v flock >/dev/null; then flock $(VENV)/.turn sh -c "$$install"; else sh -c "$$install"; fi

define install
set -e
export UV_SYSTEM_CERTS=1 # as pip does: behind a company's proxy only the system knows its certificate
if [ $(INSTALLED) -nt requirements.lock ] && [ $(INSTALLED) -nt pyproject.toml ]; then exit 0; fi
echo "installing into $(VENV) with $(PYTHON)"
if ! [ -x $(BIN)/uv ]; then
	$(PYTHON) -m venv $(VENV)
	awk '/^[a-z]/ { wanted = /^uv==/ } wanted' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
fi
$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
touch $(INSTALLED)
endef
export install

demo: $(INSTALLED) ## cut a clip out of two camera recordings and prove it; FILE=my.mp4 takes your own
	@$(BIN)/spool demo $(if $(FILE),--file "$(FILE)")

test: $(INSTALLED) ## run the tests (with real servers after: eval "$$(.ci/servers start)")
	$(BIN)/python -m pytest -q $(TESTS)

check: lint types imports test ## everything that a change has to pass

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy $(SOURCES)

imports: $(INSTALLED) ## the floors of the house
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: $(INSTALLED) ## write docs/reference from the code; a test fails when it is stale
	@$(BIN)/python -m spool.reference

lock: $(INSTALLED) ## resolve pyproject.toml and .ci/servers.in anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links \
		--custom-compile-command 'make lock' --extra dev --extra otel $(LOCK_OPTIONS) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links \
		--custom-compile-command 'make lock' $(LOCK_OPTIONS) .ci/servers.in -o .ci/servers.lock

soak: $(INSTALLED) ## run one of tests/soak for as long as it takes: make soak NAME
	@$(if $(NAME),$(BIN)/python -m tests.soak.$(NAME) $(ARGS),echo "make soak NAME, with NAME one of: $(or $(call programs,tests/soak),(none yet))"; exit 2)

bench: $(INSTALLED) ## run all of bench, or one: make bench NAME; ARGS="--quick --check" for small and strict
	@set -e; for name in $(or $(NAME),$(call programs,bench)); do \
		echo "== bench/$$name.py $(ARGS)"; $(BIN)/python -m bench.$$name $(ARGS); done

clean: ## remove what was made here: .venv, caches, the demo's files (never ./spool-data)
	rm -rf .venv .venv-* spool-demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
