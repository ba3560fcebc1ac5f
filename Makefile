# Everything runs in .venv, which the first target that needs it makes. `make help` lists targets.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
SCALE ?= paper
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format table bench results clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY)  ## set up .venv from requirements.lock; a second call does nothing

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 or name one, make PYTHON=..."; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.lock
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## train DSPN to read small scenes, print it beside an MLP; about ten minutes
	$(RUN) train.py experiment=dspn_clevr_state scale=small dataset.source=procedural
	@$(RUN) scripts/report.py beside outputs/dspn_clevr_state/default/small-procedural/seed-0 \
		results/dspn_clevr_state_mlp/default/small-procedural-seed0.json \
		results/dspn_clevr_state/trainer.epochs=0/small-procedural-seed0.json
	@echo "predicted beside true scenes: $$(ls outputs/dspn_clevr_state/default/small-procedural/seed-0/pictures/*.png)"

test: $(READY)  ## all tests
	$(RUN) -m pytest -n 2 $(ARGS)

lint: $(READY)  ## formatting, lint and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(READY)  ## format and mend what can be mended
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

table: $(READY)  ## fill a table and print it: make table TABLE=thesis/5.3 [SCALE=small] [ARGS="..."]
	@test -n "$(TABLE)" || { echo "error: name a table, make table TABLE=thesis/5.3"; exit 2; }
	-$(RUN) train.py -m table=$(subst /,_,$(subst .,_,$(TABLE))) scale=$(SCALE) $(ARGS)
	@$(RUN) scripts/report.py table $(TABLE)

bench: $(READY)  ## milliseconds per step beside a straightforward reference
	$(RUN) benchmarks/bench.py $(ARGS)

results: $(READY)  ## docs/results.md and the README's table from the records in results/
	$(RUN) scripts/report.py page

clean:  ## remove the environment and caches, not data and outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
