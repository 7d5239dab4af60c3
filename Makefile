# `make help` lists the targets. Environments are built from constraints/ when a target first needs them.

# The pins are made for these versions; the first one found is used. PYTHON=... on the command line overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

# What runs anywhere in seconds; also run beside other versions of Airflow.
QUICK = not e2e and not e2e_more and not scale and not slow and not versions

# Half of it lies in tests/jobs and runs beside the rest, whose output comes first, and again at the end where it failed.
TESTS = not scale and not versions and not e2e_more and not wheel

# A test that takes ten minutes hangs; of those that are long by themselves, one that takes forty.
LONG = -o faulthandler_timeout=2400

.DEFAULT_GOAL := help
.PHONY: help demo test e2e lint format types fields contracts wheel-test test-oldest test-versions test-scale constraints clean

help: ## say what each target does
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: .venv/ready ## chained windows on a local Airflow and the emulator; WINDOWS=14 runs a week, KEEP=1 leaves the UI up, ROUTE=vertex
	.venv/bin/geminibatch demo $(if $(WINDOWS),--windows $(WINDOWS)) $(if $(KEEP),--keep) $(if $(ROUTE),--route $(ROUTE))

test: .venv/ready ## everything that needs no Airflow processes, and one end-to-end run that does
	@said=$$(mktemp -d) && { .venv/bin/pytest -m "$(TESTS)" tests/jobs > "$$said/jobs" 2>&1 & } && \
		{ .venv/bin/pytest -m "$(TESTS)" --ignore=tests/jobs 2>&1; echo $$? > "$$said/others-code"; } | tee "$$said/others"; \
		wait $$!; code=$$?; cat "$$said/jobs"; others=$$(cat "$$said/others-code"); \
		[ $$others -eq 0 ] || { echo "Outside of tests/jobs, whose outcome is above:"; tail -n 50 "$$said/others"; }; \
		rm -r "$$said"; exit $$(( others || code ))

e2e: .venv/ready ## every end-to-end run on real Airflow processes
	.venv/bin/pytest -m "e2e or e2e_more" $(LONG)

lint: .venv/ready ## ruff: rules and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/ready ## let ruff fix and format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

types: .venv/ready ## mypy, strict
	.venv/bin/mypy

fields: .venv/ready ## compose the field table of requests anew from tests/witnesses
	.venv/bin/python -m tests.witnesses.compose

contracts: .venv/ready ## who may import whom
	.venv/bin/lint-imports

wheel-test: .venv/ready ## build the wheel, install it in a clean environment, let Airflow find it
	.venv/bin/pytest -m wheel

test-oldest: .venv-3.1/ready ## the quick tests on the oldest supported Airflow, without the crash matrices, which need no Airflow
	.venv-3.1/bin/pytest -m "$(QUICK) and not matrix"

test-versions: .venv-3.1/ready .venv-google/ready ## the quick and the versions tests on the oldest Airflow, and beside the Google provider
	.venv-3.1/bin/pytest -m "versions or ($(QUICK))"
	.venv-google/bin/pytest -m "versions or ($(QUICK))"

test-scale: .venv/ready ## many rows, jobs and windows: time and memory
	.venv/bin/pytest -m scale $(LONG)

clean: ## remove environments, caches and builds
	rm -rf .venv .venv-3.1 .venv-google build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: constraints/airflow-3.3.txt
.venv-3.1/ready: constraints/airflow-3.1.txt
.venv-google/ready: constraints/google-provider.txt
# The adapter for common.ai is tried in these two: that provider's plugins would load into every process of the demo.
.venv-3.1/ready: EXTRAS = dev,parquet,sql,prices,common-ai
.venv-google/ready: EXTRAS = dev,parquet,sql,prices,google,common-ai
EXTRAS = dev,parquet,sql,prices

# uv installs in seconds what takes pip most of a minute, but does not read pip's own settings: then pip does it.
%/ready: setup.cfg
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none is on the PATH." \
		"Install one, or say which: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "$(@D): installing the pins of $(filter constraints/%,$^)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $(filter constraints/%,$^) uv
	@VIRTUAL_ENV=$(CURDIR)/$(@D) $(@D)/bin/uv pip install --quiet --compile-bytecode -c $(filter constraints/%,$^) -e ".[$(EXTRAS)]" \
		|| { echo "uv could not install it; pip tries." >&2; \
			$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $(filter constraints/%,$^) -e ".[$(EXTRAS)]"; }
	@touch $@

PINS = .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make constraints" setup.cfg - --extra dev --extra parquet --extra sql --extra prices \
	--extra common-ai

constraints: .venv/ready ## renew the pins in constraints/
	printf '%s\n' apache-airflow==3.3.2 google-genai==3.4.0 | $(PINS) -o constraints/airflow-3.3.txt
	printf '%s\n' apache-airflow==3.1.8 google-genai==2.8.0 google-cloud-storage==3.10.1 \
		apache-airflow-providers-common-compat==1.22.0 | $(PINS) -o constraints/airflow-3.1.txt
	printf '%s\n' apache-airflow==3.3.2 google-genai==2.34.0 | $(PINS) --extra google -o constraints/google-provider.txt
