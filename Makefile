# Two commands need nothing but Python 3.11 to 3.13 and make: `make demo` and `make test`. Everything lives in .venv.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	>/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready

# Every target is a command, none a file.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\#.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(READY) ## everything into .venv

$(READY): requirements.lock pyproject.toml clients/python/pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11, 3.12 or 3.13 is needed (with venv); set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing into .venv with $(PYTHON) (hash-checked, about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# The lock is whole: resolving again is what older pips fail at (an extra of a pinned package) once something newer is out.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable clients/python
	@touch $@

demo: $(READY) ## the whole story on one screen, from nothing, with a real Kafka and a real S3 API
	@$(BIN)/python -m sandbox.demo

demo-live: $(READY) ## the same, and leave it running to play with
	@$(BIN)/python -m sandbox.demo --live

test: $(READY) ## every test, on a real Kafka and a real S3 API
	@$(BIN)/python -m sandbox.jars
	@$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

campaign: $(READY) ## RUNS=n SEED=s runs: kill every role and Kafka at every named point and at random (docs/survival.md)
	@$(BIN)/python -m tests.campaign --runs $(or $(RUNS),200) --seed $(or $(SEED),0) $(if $(MINUTES),--minutes $(MINUTES))

hostility: $(READY) ## RECORDS=n SEED=s hostile records on every input of intake and core
	@RECORDS=$(or $(RECORDS),20000) SEED=$(or $(SEED),7) $(BIN)/python -m pytest -q -s --timeout 3600 tests/hostility/test_core_inputs.py

bench: $(READY) ## figures of this commit on this machine, beside bare aiokafka and a PostgreSQL queue
	@$(BIN)/python -m bench

simulate: $(READY) ## HISTORIES=n SEED=s seeded histories of the shipped core and executors, with every fault, held against the laws
	@$(BIN)/python -m tests.simulation --histories $(or $(HISTORIES),2000) --seed $(or $(SEED),0)

three-nodes: $(READY) ## three Kafka nodes under load: kill a leader, a group's and a transaction's coordinator
	@$(BIN)/python -m tests.campaign.three_nodes

exhaust: $(READY) ## every order of every event in small worlds, through the shipped decide (a quarter of an hour)
	@$(BIN)/python -m tests.simulation.exhaust

mutants: $(READY) ## every guard and law broken once: something must notice (ten minutes or more)
	@$(BIN)/python -m tests.laws

PURE := schemas/*,broker/lifecycle.py,broker/core/order.py,broker/core/rows.py,broker/core/trail.py,broker/core/deciding.py,$\
	broker/intake/answering.py,executors/checking.py,executors/outcomes.py,executors/lanes.py,executors/iam/patterns.py,$\
	notifiers/card.py,notifiers/visible.py
coverage: $(READY) ## every branch of the pure modules is taken by a cheap test or by a simulated history
	@$(BIN)/coverage run --include='$(PURE)' -m pytest -q tests/broker tests/schemas tests/golden tests/executors/test_checking.py \
		tests/executors/test_outcomes.py tests/executors/test_ledger.py tests/executors_iam/test_documents.py \
		tests/notifiers/test_card.py tests/notifiers/test_visible.py tests/notifiers/test_identity.py
	@$(BIN)/coverage run --append --include='$(PURE)' -m tests.simulation --histories 140 --jobs 1
	@$(BIN)/coverage report --show-missing --skip-covered --fail-under=100

check: $(READY) ## ruff, mypy, pyright, import contracts, generated files
	@$(BIN)/ruff check --quiet . && echo "ruff: clean"
	@$(BIN)/ruff format --check --quiet . && echo "format: clean"
	@$(BIN)/mypy --no-error-summary && echo "mypy: clean"
	@$(BIN)/pyright --warnings >/tmp/keyturn-pyright.$$$$ 2>&1 && echo "pyright: clean" && rm -f /tmp/keyturn-pyright.$$$$ \
		|| { cat /tmp/keyturn-pyright.$$$$; rm -f /tmp/keyturn-pyright.$$$$; exit 1; }
	@$(BIN)/lint-imports --no-cache >/dev/null && echo "imports: clean" || { $(BIN)/lint-imports --no-cache; exit 1; }
	@$(BIN)/python -m schemas.contract --check
	@$(BIN)/python -m cli.settings_reference --check

format: $(READY) ## ruff format, and its safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

contract: $(READY) ## generate schemas/json, schemas/asyncapi.json, schemas/vectors and docs/settings.md anew
	@$(BIN)/python -m schemas.contract
	@$(BIN)/python -m cli.settings_reference

golden: $(READY) ## the golden trail anew, after a change of rules that was meant (docs/audit.md)
	@$(BIN)/python -m tests.golden.make

differential: $(READY) ## 2,000 random histories: core and verifier, which share no code, must agree on each
	@$(BIN)/python -m tests.auditors.differential 2000

RESOLVE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header --quiet
lock: ## resolve all dependencies anew, for every supported Python
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet uv
	@$(RESOLVE) pyproject.toml --all-extras --upgrade --output-file requirements.lock
	@# What the image holds, and what builds it: the same versions.
	@$(RESOLVE) pyproject.toml --extra aws --extra otel --constraint requirements.lock --output-file requirements.runtime.lock
	@echo hatchling | $(RESOLVE) - --constraint requirements.lock --output-file requirements.build.lock

clean: ## remove .venv and the caches of the tools
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
