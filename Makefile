# Everything a newcomer needs is `make run` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)

UV_VERSION := 0.13.9
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml

.PHONY: help run test check record lock lock-check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: .venv/.ready ## Run the whole system on this machine: PostgreSQL with a replica, Redis, the service, the sample data
	@exec rates dev

test: .venv/.ready ## Set up everything the tests need and run them
	@python -m pytest -n 2 --dist loadgroup --cov --cov-report=term:skip-covered

check: .venv/.ready ## Lint, types, and whether the lock files match pyproject.toml
	@ruff check . && ruff format --check . && mypy && $(MAKE) --no-print-directory lock-check

record: .venv/.ready ## Write down what the stacks consist of and cost, for the diff to be reviewed
	@python pulumi/record.py

lock: | .tools/bin/uv ## Resolve the dependencies again, keeping what is pinned where it still fits
	@$(COMPILE) --group dev --output-file requirements/dev.txt
	@$(COMPILE) --constraints requirements/dev.txt --output-file requirements/app.txt
	@$(COMPILE) --constraints requirements/dev.txt --group spark --output-file requirements/spark.txt

lock-check: | .tools/bin/uv ## Fail if pyproject.toml asks for something that the lock files do not hold
	@for set in "dev --group dev" "app" "spark --group spark"; do \
	  read -r name group <<<"$$set"; fresh=$$(mktemp); cp requirements/$$name.txt $$fresh; \
	  $(COMPILE) --constraints requirements/dev.txt $$group --output-file $$fresh >/dev/null; \
	  diff -u requirements/$$name.txt $$fresh || { echo "requirements/$$name.txt is stale: run 'make lock' and commit it" >&2; exit 1; }; \
	  rm -f $$fresh; done

clean: ## Remove the environment and the local data
	rm -rf .venv .tools .rates

.tools/bin/uv:
	@echo "Installing uv $(UV_VERSION), which installs the rest"
	@python3 -m venv .tools && .tools/bin/pip install --quiet uv==$(UV_VERSION)

.venv/.ready: requirements/dev.txt pyproject.toml | .tools/bin/uv
	@echo "Installing the environment from requirements/dev.txt"
	@test -x .venv/bin/python || uv venv --quiet --python 3.11 .venv
	@uv pip sync --quiet --require-hashes --python .venv/bin/python requirements/dev.txt
	@uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
