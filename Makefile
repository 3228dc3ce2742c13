# Each target installs what it needs by itself, into .venv, with the pins of constraints.txt.
PYTHON ?= python3
GPU ?= 0
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch is a tenth of the CUDA one; `make run GPU=1` takes the build with CUDA.
TORCH_INDEX := $(if $(filter 1,$(GPU)),,--extra-index-url https://download.pytorch.org/whl/cpu --retries 1)
INSTALLED := $(VENV)/.installed-$(if $(filter 1,$(GPU)),gpu,cpu)
INSTALLED_TEST := $(VENV)/.installed-test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test check audit sbom bench reference faults faults-long clean

run: $(INSTALLED)
	$(BIN)/podium up

# Tests start a hundred processes: where bytecode is not kept, each of them would compile all our modules again.
test: $(INSTALLED_TEST)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(INSTALLED_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/app/test_migrations.py
	$(BIN)/python -m tests.supply_chain audit
	$(BIN)/python -m tests.supply_chain sbom build/sbom.json

# Known holes in what we build on; without a network it says so, and fails with AUDIT=required.
audit: $(INSTALLED_TEST)
	$(BIN)/python -m tests.supply_chain audit

# What Podium is made of, in CycloneDX.
sbom: $(INSTALLED_TEST)
	$(BIN)/python -m tests.supply_chain sbom build/sbom.json

bench: $(INSTALLED_TEST)
	$(BIN)/python -m benchmarks.reward

# docs/reference is written from the code; a test compares.
reference: $(INSTALLED_TEST)
	WRITE_REFERENCE=1 $(BIN)/python -m pytest -q tests/docs/test_reference.py

faults: $(INSTALLED_TEST)
	PODIUM_FAULTS=1 $(BIN)/python -m pytest -q tests/faults/test_faults.py

faults-long: $(INSTALLED_TEST)
	$(BIN)/python -m tests.faults --faults $(or $(FAULTS),300) --seed $(or $(SEED),1) --write

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Podium needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python cannot make virtual environments here; on Debian or Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }

# torch first and alone: the extra index serves nothing else.
$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Podium into $(VENV); the first time takes a few minutes."
	@$(PIP) --quiet $(TORCH_INDEX) torch
	@$(PIP) --editable .
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	@$(PIP) --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
