# Everything a person or CI does here. `make setup` is what the others start with.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two at a time: most of a test's time is waiting for somebody else. `make test PARALLEL=` is one.
PARALLEL ?= -n 2 --dist loadfile
GATE   := $(BIN)/python -m pytest -q -m 'not vm and not long' $(PARALLEL)
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: setup demo gradcam test long systemd vm check lint bench simulate soak clean
.DEFAULT_GOAL := help

help:
	@echo "make setup     .venv with 'supervise' in it"
	@echo "make demo      a real training survives a crash, a hang and a torn checkpoint"
	@echo "make gradcam   heat maps over photographs: a batch job in isolated workers"
	@echo "make test      all tests, two at a time"
	@echo "make long      what the gate has no time for"
	@echo "make systemd   the service on a real systemd, in a container (root)"
	@echo "make vm        control groups of a usual host, and a real power cut (qemu, minutes)"
	@echo "make check     the whole gate: lint, format, imports, types, tests with coverage"
	@echo "make bench     every benchmark, beside its peers"
	@echo "make simulate  the long simulation: thousands of seeds"
	@echo "make soak      kill the runner at random moments of the demo job, many times"

setup: $(VENV)/.base
demo: $(VENV)/.examples
	@$(BIN)/python -m examples.digits.demo
gradcam: $(VENV)/.examples
	@$(BIN)/python -m examples.gradcam.prepare
	@$(BIN)/supervise --state-dir gradcam-run run examples/gradcam/job.yaml
test: $(VENV)/.dev
	@$(GATE) $(PYTEST_ARGS)
long: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m long
systemd: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/systemd
vm: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m vm tests/vm
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --cache-dir .import_linter_cache
	$(BIN)/mypy
check: lint
	$(GATE) --cov --cov-report= $(PYTEST_ARGS)
	$(BIN)/coverage report --include='supervisor/core/*' --fail-under=100
	$(BIN)/coverage report --fail-under=95
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks
simulate: $(VENV)/.dev
	SUPERVISE_SEEDS=5000 $(BIN)/python -m pytest -q tests/simulation
soak: $(VENV)/.dev
	$(BIN)/python -m examples.digits.soak
clean:
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache demo-run gradcam-run

# Each stamp installs one layer; a file that changed reinstalls it, nothing else does.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "supervise needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV) || \
	  { echo "Debian and Ubuntu keep venv apart: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@touch $@
$(VENV)/.base: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing supervise"; $(PIP) -e '.[daemon]' && touch $@
$(VENV)/.examples: $(VENV)/.base
	@echo "installing torch and scikit-learn (a few minutes, once)"; $(PIP) -e '.[examples]' && touch $@
$(VENV)/.bench: $(VENV)/.dev
	@echo "installing the peers"; $(PIP) -e '.[examples,daemon,dev,bench]' && touch $@
$(VENV)/.dev: $(VENV)/.examples
	@echo "installing the test tools"; $(PIP) -e '.[examples,daemon,dev]' && touch $@
