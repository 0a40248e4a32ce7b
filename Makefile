# Everything a user or a developer runs. `make help` lists it. Needs Python 3.11 or newer, nothing else installed.
# Another Python: make PYTHON=/path/to/python3.12 test

PYTHON ?= python3
PYTHON312 ?= python3.12
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.NOTPARALLEL:
# The C library gives freed memory back at once, so that every step of a CPU run would fault its buffers in anew:
# a quarter of the CPU time of `make quickstart` was system time without this. Keep it.
export MALLOC_MMAP_THRESHOLD_ = 268435456
export MALLOC_TRIM_THRESHOLD_ = 1073741824

# What is type-checked: train.py, evaluate.py and every folder of code but tests/, whose functions carry no types.
CODE := $(wildcard *.py) $(filter-out tests,$(patsubst %/,%,$(sort $(dir $(wildcard */*.py)))))
# As many test processes as there are cores, up to 4: each one emulates 8 devices. In the order of the files, because the
# longest tests are alone in theirs, and files with few tests would come last.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Where another Python with PyTorch is named, benchmarks measure beside it.
WITH_TORCH = $(if $(TORCH_PYTHON),--torch_python="$(TORCH_PYTHON)")

# "3.11", or empty where $(PYTHON) does not run. The stamps carry it, so another PYTHON means a new environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RUN := $(VENV)/.installed-$(VERSION)
DEV := $(VENV)/.installed-$(VERSION)-dev

.PHONY: help demo quickstart test test-fast test-312 test-latest fuzz drill benchmarks benchmarks-gpu lint format install install-dev clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUN)  ## segment photos by the model that comes with the program, into demo/ (PHOTO=mine.jpg for your own)
	@$(BIN)/python -c 'import onnx' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-input \
		--disable-pip-version-check -e '.[demo]' -c constraints.txt
	$(BIN)/python -m larvseg_jax demo $(PHOTO)

quickstart: $(RUN)  ## generate data, train a small model on the CPU, evaluate it, write a report (minutes)
	$(BIN)/python -m data_pipelines.scenes --data_root=data
	$(BIN)/python train.py --config=configs/quickstart.py

test: lint test-312 $(DEV)  ## every check there is: format, lint, types, spelling, tests, the second Python
	$(PYTEST)

test-fast: $(DEV)  ## the everyday tests, without those marked slow
	$(PYTEST) -m "not slow"

test-312:  ## the everyday tests under python3.12, where there is one
	@if [ "$(VERSION)" = 3.12 ]; then \
		echo "$(PYTHON) is Python 3.12 itself: no second run"; \
	elif $(PYTHON312) -c '' 2>/dev/null; then \
		$(MAKE) --no-print-directory PYTHON="$(PYTHON312)" VENV=.venv312 test-fast; \
	else \
		echo "python3.12 not found: that run is skipped"; \
	fi

test-latest:  ## the fast tests on the newest releases of everything, in .venv-latest; may fail, and then says where
	@echo "installing the newest releases into .venv-latest ..."
	@$(PYTHON) -m venv --clear .venv-latest
	@.venv-latest/bin/python -m pip install --quiet --no-input --disable-pip-version-check -e . pytest pytest-xdist beartype
	@.venv-latest/bin/python -m pip freeze --disable-pip-version-check --exclude-editable
	.venv-latest/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow"

fuzz: $(DEV)  ## give every reader of files 100,000 that are damaged on purpose (minutes; FUZZ="--seed=1 --seconds=60")
	$(BIN)/python -m tests.fuzz $(FUZZ)

drill: $(DEV)  ## do to a run of quickstart size everything that can happen to one, 50 kills among it (DRILL="--kills=5")
	$(BIN)/python -m data_pipelines.scenes --data_root=data
	$(BIN)/python -m tests.drill --config=configs/quickstart.py $(DRILL)

benchmarks: $(DEV)  ## a gate: cheap ratios against those of benchmarks/ratios.json (BENCHMARKS=--update writes it anew)
	$(BIN)/python -m benchmarks.gate $(WITH_TORCH) $(BENCHMARKS)

benchmarks-gpu: $(DEV)  ## what is measured on a GPU, in parts of ten minutes at most (TORCH_PYTHON=<a Python with PyTorch>)
	$(BIN)/python -m benchmarks.gpu $(WITH_TORCH) $(BENCHMARKS)

lint: $(DEV)  ## format check, lint, types, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/codespell

format: $(DEV)  ## rewrite the code in the project's format and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(RUN)  ## only the environment: .venv with what train.py needs
install-dev: $(DEV)  ## the same and what the tests need

clean:  ## remove environments and caches; runs/ and data/ stay
	rm -rf .venv .venv312 .venv-latest .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(RUN): requirements.txt constraints.txt
	$(call environment,requirements.txt)

$(DEV): requirements-dev.txt requirements.txt constraints.txt
	$(call environment,requirements-dev.txt,jax2onnx==0.17.1)

# Makes $(VENV) if it is missing or another Python's, and installs the pinned packages of the file $(1), and $(2) without
# what it asks for: jax2onnx wants an older Orbax, which writing needs none of (docs/exports.md).
define environment
	@[ -n "$(VERSION)" ] || { echo "error: '$(PYTHON)' does not run: install Python 3.11 or newer," \
		"or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: '$(PYTHON)' is Python $(VERSION):" \
		"3.11 or newer is needed, name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: '$(PYTHON)' cannot make environments:" \
		"install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "installing $(1) for Python $(VERSION) into $(VENV) (once, a few minutes, 1.4 GB) ..."
	@$(BIN)/python -c 'import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null \
		|| $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --use-pep517 -r $(1)
	@[ -z "$(2)" ] || $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps $(2)
	@touch $@
endef
