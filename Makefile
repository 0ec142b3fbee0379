# Needs Python 3.10 or newer and make; everything else goes into .venv. Another Python:
#     make train PYTHON=python3.12
# ARGS is handed on:
#     make train ARGS="--seed 1"    make test ARGS="-k geometry"    make test ARGS="-n 0 --pdb"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS :=
# Written when a set of packages is installed, and older than pyproject.toml when it must be again.
BASE := $(VENV)/.installed
TEST := $(VENV)/.installed-test
DOCS := $(VENV)/.installed-docs
VOT := $(VENV)/.installed-vot

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help train base test test-fast test-vot lint docs clean
# Two pips in one environment would get in each other's way.
.NOTPARALLEL:

help:
	@echo "make train      train TransT on synthetic video, evaluate it, draw a plot and a video"
	@echo "make base       train the base that make train starts from, frame by frame"
	@echo "make test       run all tests; make test-fast leaves the slow ones out"
	@echo "make test-vot   run the tests that need the official vot-toolkit, which it installs"
	@echo "make lint       check style, format and types"
	@echo "make docs       build the documentation in site/"
	@echo "make clean      remove .venv and all that was built; runs/ stays"

train: $(BASE)
	$(BIN)/python examples/train_slt_transt.py $(ARGS)

# How the base of transt-tiny that ships with the package was made (about half an hour). One thread
# for PyTorch: another number rounds differently.
PRETRAIN = OMP_NUM_THREADS=1 $(BIN)/slt-gym pretrain transt-tiny synthetic
PRETRAIN_OPTIONS = --warmup-steps 100 --max-grad-norm 1.0 --threads 1 \
    --dataset-options '{"width": 256, "height": 192}'

base: $(BASE)
	$(PRETRAIN) runs/base-1 --steps 6000 --learning-rate 1e-3 --seed 0 $(PRETRAIN_OPTIONS)
	$(PRETRAIN) runs/base-2 --initial-weights runs/base-1/weights --freeze-batch-norm \
	    --steps 2000 --learning-rate 4e-4 --seed 1 $(PRETRAIN_OPTIONS)

# Two processes with one thread each: PyTorch's own threads would get in each other's way.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(TEST)
	$(PYTEST) $(ARGS)

test-fast: $(TEST)
	$(PYTEST) -m "not slow" $(ARGS)

test-vot: $(VOT)
	$(BIN)/python -m pytest tests/cli/test_cli_trax.py $(ARGS)

lint: $(TEST)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(DOCS)
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) site build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment has a python in it, so that only a stamp tells whether it is whole.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "slt_gym needs Python 3.10 or newer, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
	    echo "Name a newer one, for example: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	    echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; \
	    exit 1; }
	$(BIN)/python -m pip install "pip>=22"
	@touch $@

$(BASE): $(VENV)/.made pyproject.toml
	@rm -f $@
	$(BIN)/python -m pip install -e .
	@$(BIN)/python -c 'import torch, torchvision, cv2' || { \
	    echo "The packages are installed, but one of them cannot be imported (see above)."; \
	    echo "libGL: on Debian and Ubuntu, apt install libgl1 libglib2.0-0."; \
	    echo "torchvision: it must be the release that goes with this torch."; exit 1; }
	@touch $@

$(TEST): $(BASE)
	@rm -f $@
	$(BIN)/python -m pip install -e ".[test]"
	@touch $@

$(DOCS): $(BASE)
	@rm -f $@
	$(BIN)/python -m pip install -e ".[docs]"
	@touch $@

$(VOT): $(TEST)
	@rm -f $@
	$(BIN)/python -m pip install -e ".[vot]"
	@touch $@
