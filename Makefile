# Nothing is installed outside .venv, and nothing but pip uses the network.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
ON_DEVICES := tests/devices tests/train tests/plugins tests/engine/pipeline_test.py

.PHONY: quickstart test test-all test-ci test-slow mutations test-ray test-ray-run lint parity parity-run reproduce reproduce-run \
        docs clean

quickstart: $(VENV)/.installed-core
	$(BIN)/python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Also what takes long, and then with eight simulated devices what needs them or may depend on them.
test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'
	W2S_TEST_DEVICES=8 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(ON_DEVICES)

# What continuous integration runs: the fast tests, and those of them again that may depend on how many devices there are.
test-ci: test
	W2S_TEST_DEVICES=8 $(BIN)/python -m pytest -n 2 --dist worksteal $(ON_DEVICES)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow
	W2S_TEST_DEVICES=8 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests/devices

# Deliberate defects, each of which tests of `make test` must catch.
mutations: $(VENV)/.installed-test
	$(BIN)/python tests/mutations.py

# Grids on a Ray cluster of this machine. Only this needs Ray, in an environment of its own.
test-ray:
	$(MAKE) VENV=.venv-ray test-ray-run

test-ray-run: $(VENV)/.installed-test
	$(PIP) --editable '.[ray]'
	$(BIN)/python -m pytest tests/engine/cluster_test.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy w2s_jax experiments researcher

# Checks the golden files of the models against transformers, or rewrites them (WRITE=1). Only this needs PyTorch.
parity:
	$(MAKE) VENV=.venv-parity parity-run

parity-run: $(VENV)/.installed-core
	$(PIP) torch==2.13.0
	$(BIN)/python tests/parity/make_goldens.py $(if $(WRITE),--write)
	$(BIN)/python tests/parity/generations.py $(if $(WRITE),--write)
	$(BIN)/python tests/parity/exports.py

# Small experiments in a checkout of openai/weak-to-strong and here, every loss and every answer: CODE=checkout
# MODEL=folder of SmolLM2-135M-Instruct DATA=folder of datasets. Nothing of the checkout is installed or kept.
TASKS ?= sst2,rotten_tomatoes
SEEDS ?= 5
WORK ?= runs/reproduce
reproduce:
	$(if $(wildcard $(CODE)/weak_to_strong/train.py),,$(error CODE: '$(CODE)', expected a checkout of openai/weak-to-strong))
	$(MAKE) VENV=.venv-parity reproduce-run

reproduce-run: $(VENV)/.installed-core
	$(PIP) torch==2.13.0
	-$(PIP) torch_optimizer==0.3.0 wandb==0.31.0
	$(BIN)/python -m experiments.reproduce --code='$(CODE)' --model='$(MODEL)' --data='$(DATA)' --tasks='$(TASKS)' \
	    --seeds='$(SEEDS)' --workdir='$(WORK)'

docs: $(VENV)/.installed-core
	$(BIN)/python -c 'from w2s_jax.engine import listing; print(listing.page(), end="")' > docs/config.md

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.installed-core: setup.py constraints.txt | $(BIN)/pip
	@echo 'installing into $(VENV) (some minutes the first time)'
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: setup.py constraints.txt | $(BIN)/pip
	@echo 'installing into $(VENV) (some minutes the first time)'
	$(PIP) --editable '.[test]'
	@touch $@

$(BIN)/pip:
	@for python in $(PYTHON) python3.12 python3.11 python3.13; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        exec $$python -m venv $(VENV); \
	    fi; \
	done; \
	echo 'error: w2s_jax needs Python 3.11 or later: install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)' >&2; \
	exit 1
