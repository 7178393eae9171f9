# What people and CI run; `make help` lists it. Needs Python 3.11 or later and nothing else.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BENCH   ?=
FAULTS  ?=
SURE    := */net/retry.py,*/errors.py,*/wire/sse.py,*/wire/ndjson.py,*/wire/json_array.py,*/wire/eventstream.py
FUZZ_SECONDS ?= 600
SOAK_SECONDS ?= 600
MUTANTS ?=

BIN     := $(VENV)/bin
CODE    := src tests examples benchmarks
INSTALL := $(BIN)/python -m pip --quiet --disable-pip-version-check install
PYTHONS := 3.11 3.12 3.13
PEERS   := openai anthropic langchain-openai langchain-anthropic
MAKEFLAGS += --no-print-directory

# Our own settings only: nothing of the shell may lead the tests to another copy of the package.
unexport PYTHONPATH

.PHONY: help demo test test-all test-sdks test-langchain matrix check format lint mypy pyright layers audit wheel \
  bench bench-check bench-peers bench-plot profile cover fuzz soak mutants faults-peers clean

help:
	@echo "make demo         see it work: an answer streams from an embedded provider, no key"
	@echo "make test         every test once (at most five minutes on two cores)"
	@echo "make test-all     the full matrix, on each Python of $(PYTHONS) that is installed"
	@echo "make test-sdks    the same bytes through the vendors' SDKs and through streamfold"
	@echo "make test-langchain  LangChain's own suite for chat models, and a LangGraph agent"
	@echo "make check        format, lint, types, layers, advisories (each of them is a target, too)"
	@echo "make wheel        build the wheel and try it in an environment of its own"
	@echo "make bench        what a chunk costs; bench-peers: next to other libraries"
	@echo "make bench-check  whether the hot path has become more expensive; profile: where it goes"
	@echo "make bench-plot   how the costs grow, from one stream to thousands; a picture in docs"
	@echo "make fuzz         hostile bytes for FUZZ_SECONDS=$(FUZZ_SECONDS); what breaks is kept"
	@echo "make soak         1,000 streams at once with faults, for SOAK_SECONDS=$(SOAK_SECONDS)"
	@echo "make faults-peers every fault of the wire, next to other libraries"
	@echo "make cover        every test once, and which lines none of them ran"
	@echo "make mutants      which changes of the kernel no test notices; MUTANTS='--sample 120': some"
	@echo "make clean        remove environments, builds and caches"
	@echo "PYTHON=... is the interpreter to use, VENV=... where its environment goes"

demo: $(VENV)/.installed
	@$(BIN)/streamfold demo

test: $(VENV)/.test
	@echo "Tests"
	@$(BIN)/python -m pytest -n $(WORKERS)

matrix: $(VENV)/.test
	@HYPOTHESIS_PROFILE=matrix $(BIN)/python -m pytest -n $(WORKERS) -m "matrix or not matrix"

test-all:
	@ran=""; for version in $(PYTHONS); do \
	  for python in python$$version "$$HOME"/.pyenv/versions/$$version.*/bin/python; do \
	    test "$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" \
	      = $$version || continue; \
	    echo "Tests, full matrix, Python $$version"; \
	    $(MAKE) matrix PYTHON="$$python" VENV=.venv-$$version || exit 1; \
	    ran="$$ran $$version"; break; \
	  done; \
	done; echo "Passed on Python:$${ran:- none is installed}"; test -n "$$ran"

# An environment of its own: the SDKs bring much along that nothing else here needs.
test-sdks:
	@$(MAKE) .venv-sdks/.sdks VENV=.venv-sdks
	@echo "Tests, against the vendors' SDKs and over other HTTP clients"
	@.venv-sdks/bin/python -m pytest -n $(WORKERS) tests/differential tests/net/test_http_clients.py \
	  tests/integrations/web/test_openai_sdk.py

# An environment of its own: langchain-tests and langsmith bring plugins into every run of pytest.
# The types of this integration are checked here, too, for here are those of LangChain.
LANGCHAIN := src/streamfold/integrations/langchain
test-langchain:
	@$(MAKE) .venv-langchain/.langchain VENV=.venv-langchain
	@echo "Tests, in LangChain"
	@.venv-langchain/bin/python -m pytest tests/integrations/langchain --benchmark-disable \
	  -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function
	@echo "Types, of LangChain"
	@.venv-langchain/bin/mypy --no-error-summary $(LANGCHAIN)/*.py
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv-langchain/bin/pyright \
	  --pythonpath .venv-langchain/bin/python $(LANGCHAIN)/*.py

check: format lint mypy pyright layers audit

format: $(VENV)/.dev
	@echo "Format"
	@$(BIN)/ruff format --check --quiet $(CODE)

lint: $(VENV)/.dev
	@echo "Lint"
	@$(BIN)/ruff check --quiet $(CODE)

mypy: $(VENV)/.dev
	@echo "Types, by mypy"
	@$(BIN)/mypy --no-error-summary

pyright: $(VENV)/.dev
	@echo "Types, by pyright"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

layers: $(VENV)/.test
	@echo "Layers"
	@$(BIN)/python -m pytest tests/test_layers.py

# Where the package index has no advisories, or cannot be reached, it says so and that is all.
audit: $(VENV)/.dev
	@echo "Advisories"
	@said=$$($(BIN)/pip-audit --progress-spinner off . 2>&1); failed=$$?; case "$$said" in \
	  *"Found "*" known vulnerabilit"*) echo "$$said"; exit 1;; \
	  *"could not be audited"*) echo "  not checked: the package index has no advisories";; \
	  *) test $$failed = 0 || echo "  not checked: no advisories can be reached";; \
	esac

wheel: $(VENV)/.dev
	@echo "Wheel"
	@rm -rf dist && said=$$($(BIN)/python -m build --outdir dist . 2>&1) || { echo "$$said"; exit 1; }
	@here=$$PWD && there=$$(mktemp -d) && trap 'rm -rf "$$there"' EXIT \
	  && $(PYTHON) -m venv "$$there/env" && cd "$$there" \
	  && env/bin/python -m pip --quiet --disable-pip-version-check install "$$here"/dist/*.whl \
	  && env/bin/python -W error -c 'from streamfold import *; import streamfold; print(streamfold.__file__)' \
	  && env/bin/streamfold demo >demo.txt && env/bin/python -m streamfold --version \
	  && for program in async_stream fold batch; do \
	       env/bin/python -W error "$$here/examples/$$program.py" >/dev/null || exit 1; done
	@ls dist

bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/run.py $(BENCH)

bench-check: $(VENV)/.installed
	@$(BIN)/python benchmarks/check.py $(BENCH)

profile: $(VENV)/.installed
	@$(BIN)/python benchmarks/profile_stages.py $(BENCH)

bench-peers: $(VENV)/.installed .venv-peers/.installed
	@$(BIN)/python benchmarks/run.py --peers-python .venv-peers/bin/python $(BENCH)

# What a chunk and a stream cost among ever more of them, and a picture of it for the docs.
bench-plot: $(VENV)/.installed .venv-peers/.installed
	@$(BIN)/python benchmarks/scale.py --peers-python .venv-peers/bin/python --json build/scale.json
	@$(INSTALL) matplotlib
	@$(BIN)/python benchmarks/plot.py build/scale.json docs/images/scale

# All of it to 95 %, and without a gap what must never be wrong: framing, retries, errors.
cover: $(VENV)/.test
	@$(INSTALL) 'pytest-cov>=7'
	@$(BIN)/python -m pytest -n $(WORKERS) --cov \
	  --cov-report term-missing:skip-covered --cov-fail-under 95
	@$(BIN)/python -m coverage report --fail-under 100 --include '$(SURE)'

fuzz: $(VENV)/.test
	@$(BIN)/python tests/fuzz/driver.py --seconds $(FUZZ_SECONDS)

# In a copy of the tree, below build.
mutants: $(VENV)/.test
	@$(INSTALL) --group mutants
	@$(BIN)/python tests/mutants/driver.py --workers $(WORKERS) $(MUTANTS)

soak: $(VENV)/.test
	@$(BIN)/python tests/soak/soak.py --seconds $(SOAK_SECONDS)

faults-peers: $(VENV)/.installed .venv-peers/.installed
	@$(BIN)/python tests/peers/compare_faults.py --peers-python .venv-peers/bin/python $(FAULTS)

clean:
	rm -rf .venv .venv-* dist build .benchmarks .hypothesis .mypy_cache .ruff_cache .pytest_cache .coverage*
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# ---- environments: a stamp says what is installed, and goes when the environment goes -----------

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "streamfold needs Python 3.11 or later; %s is %d.%d: make PYTHON=/path/to/python3.11" \
	  % (sys.executable, *sys.version_info[:2]))'
	@echo "Environment: $(VENV), $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo '*' >$(VENV)/.gitignore
	@$(INSTALL) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo "Install: streamfold and what it needs"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@echo "Install: what the tests need"
	@$(INSTALL) --group test
	@touch $@

$(VENV)/.sdks: $(VENV)/.test
	@echo "Install: the vendors' SDKs, and other HTTP clients"
	@$(INSTALL) --group sdks
	@touch $@

$(VENV)/.langchain: $(VENV)/.dev
	@echo "Install: LangChain, LangGraph, and their tests"
	@$(INSTALL) --group langchain
	@touch $@

# Pyright needs Node; where there is none, a wheel brings it.
$(VENV)/.dev: $(VENV)/.test
	@echo "Install: what the checks need"
	@$(INSTALL) --group dev $$(command -v node >/dev/null || echo 'pyright[nodejs]')
	@touch $@

.venv-peers/.installed: Makefile
	@echo "Environment: .venv-peers, with $(PEERS)"
	@$(PYTHON) -m venv .venv-peers && echo '*' >.venv-peers/.gitignore
	@.venv-peers/bin/python -m pip --quiet --disable-pip-version-check install $(PEERS)
	@touch $@
