PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps

.PHONY: help install demo test test-quick walkthrough wheel proof bench platform chart check dev docs screenshots format lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

install: .venv/installed  ## Install what a server needs into .venv, without the tools for development

demo: .venv/installed  ## Load 90 days of invented sessions into data/demo and show the result
	@$(BIN)/devin-sessions demo

# Python writes its bytecode even if the environment says not to: the tests start the project's code many times.
test test-quick walkthrough wheel: export PYTHONDONTWRITEBYTECODE =

WALKED := tests/test_walkthrough.py tests/test_recipes.py
test: .venv/ready  ## Run every test, except those of make walkthrough and make wheel
	$(BIN)/python -m pytest $(WALKED:%=--ignore=%) --ignore=tests/test_wheel.py

QUICK := settings writes devin_api test_collect.py test_sql.py test_pace.py test_schedules.py test_days_meant.py \
	test_definitions.py test_docs.py
test-quick: .venv/ready  ## Run the tests that start no process, on DuckDB: in less than a minute, for while you edit
	$(BIN)/python -m pytest -k "not postgresql and not env_file" $(QUICK:%=tests/%)

walkthrough: .venv/ready  ## Follow the documentation as a person would: type its commands, check what it promises
	$(BIN)/python -m pytest --numprocesses=0 $(WALKED)

wheel: .venv/ready  ## Build the wheel, install it for another user with each Python that is here, and use it
	$(BIN)/python -m pytest --numprocesses=0 tests/test_wheel.py

proof: .venv/ready  ## Run every fault, lie, kill and broken disk, and print one table (PROOF=--quick for a part)
	$(if $(PROOF),,EXAMPLES=13 $(BIN)/python -m pytest --timeout=7200 $$(grep -rl "support.examples import" tests))
	$(BIN)/python -m tests.faults $(PROOF)

bench: .venv/ready  ## Measure calls, speed, memory and recovery, and print one table (BENCH=--quick for a short run)
	$(BIN)/python -m tests.bench $(BENCH)

platform: .venv/ready  ## Run the job as Kubernetes Jobs, lose a node, and print one table (BENCH=--quick for a short run)
	$(BIN)/python -m tests.bench platform $(BENCH)

chart: .venv/ready  ## Compare what Helm made of deploy/kubernetes/values.yaml with what the tests take for it (RENDERED=FILE)
	@$(BIN)/python -m tests.platform.rendered $(or $(RENDERED),$(error RENDERED=FILE is missing; see docs/platform.md))

check: .venv/ready  ## Check formatting, lint and types, and that Dagster loads the definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@! grep -rnE --include='*.py' '^ *(from|import) (tests[. ](.*[. ])?)?(test_|conftest)' tests || \
		{ echo "Test modules must not import from each other. Move what they share to tests/support/."; exit 1; }
	$(BIN)/mypy
	@printf '[cli.telemetry]\nenabled = false\n' > .venv/dg.toml
	VIRTUAL_ENV=$(CURDIR)/.venv DG_CLI_CONFIG=.venv/dg.toml $(BIN)/dg check defs

dev: .venv/installed  ## Start the Dagster UI with the daemon that runs the schedule; the instance is under data/
	@$(BIN)/devin-sessions ui

docs: .venv/ready  ## Generate docs/data-dictionary.md from the tables and docs/settings.md from the settings
	$(BIN)/python -m warehouse.dictionary docs/data-dictionary.md
	$(BIN)/python -m pipelines.settings_page docs/settings.md

screenshots: .venv/ready  ## Take the screenshots in docs/pictures: the demo's report and the Dagster UI
	$(BIN)/python -m tests.screenshots

format: .venv/ready  ## Format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The locks have hashes but no index URL, so they install from any index. Each one holds all of those before.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-emit-package devin-session-metrics pyproject.toml
lock: .venv/ready  ## Pin the newest allowed versions in the requirements locks
	$(LOCK) --upgrade --extra server --output-file requirements.lock
	$(LOCK) --upgrade --extra server --extra kubernetes --constraint requirements.lock \
		--output-file requirements-kubernetes.lock
	$(LOCK) --upgrade --extra dev --constraint requirements-kubernetes.lock --output-file requirements-dev.lock

clean:  ## Remove the installation and the caches, but no data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# The locks are complete and hashed, so pip resolves nothing; they have the build backend, so pip fetches nothing else.
.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. If it has another name here: make PYTHON=python3.12 …"; exit 1; }
	@echo "Installing into .venv (once, about a minute)"
	@$(PYTHON) -m venv --clear .venv || \
		{ echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	@$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/ready: .venv/installed requirements-dev.lock
	@echo "Adding the tools for tests and development"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
