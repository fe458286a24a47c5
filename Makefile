# Two commands do everything on a machine with Python 3.11 or newer: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# threads wait for each other asleep: busy waiting makes training many times slower on a machine that does other work, too
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: quickstart test lint docs tutorials clean

# two thirds of the usual training: as accurate to the second digit here, and two minutes on slow machines, too
quickstart: $(VENV)/installed
	$(BIN)/countsdiff demo --steps 1200 --out quickstart

# tests compute on one thread each, so that every core runs some of them
test: lint
	$(BIN)/python -m pytest -q -n auto --dist worksteal

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-for-docs
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "Wrote docs/_build/html/index.html."

# COUNTSDIFF_DATA has to name the folder with the data of two of them, or they fall back on made-up data
tutorials: $(VENV)/installed-for-tests
	$(BIN)/python tutorials/execute.py

# torch comes first and alone. On Linux the constraints name its CPU build, which PyPI does not have: a plain install would
# fetch several GB of CUDA packages. Sources that pip is already configured with are tried before pytorch.org.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "countsdiff needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); this takes a few minutes."
	@$(PIP) torch 2>/dev/null || $(PIP) --extra-index-url https://download.pytorch.org/whl/cpu torch
	$(PIP) -e .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(PIP) -e ".[baselines,dev,distributed,image,test,tutorials]"
	@touch $@

$(VENV)/installed-for-docs: $(VENV)/installed
	$(PIP) -e ".[docs,image]"
	@touch $@

clean:
	rm -rf $(VENV) docs/_build docs/api/generated docs/benchmarks/results docs/tutorials quickstart .mypy_cache .pytest_cache .ruff_cache
