# Every target sets itself up from a fresh clone: a virtual environment in .venv, then pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint docs dist constraints bench study clean

demo: .venv/installed
	$(BIN)/flowlm demo

test: .venv/developed lint
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: .venv/developed
	EVERY_CALL=1 $(BIN)/pytest -n 2 --dist worksteal

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site needs its own tools alone: the reference is read off the source. The demo's model is put
# beside its pages, as a page that writes in the browser.
docs: .venv/documented .venv/installed
	$(BIN)/zensical build --strict --clean
	$(BIN)/flowlm export demo --page site/playground.html

# What a release publishes, built and tried in a virtual environment that has nothing else.
dist:
	rm -rf dist .venv/dist
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build
	$(PYTHON) -m venv .venv/dist
	.venv/dist/bin/pip install --quiet dist/*.whl
	cd dist && ../.venv/dist/bin/flowlm sample demo --steps 1

# The versions that the tests run with, for `pip install -c constraints.txt`.
constraints: .venv/developed
	$(BIN)/python .ci/constraints.py > constraints.part
	mv constraints.part constraints.txt

bench: .venv/developed
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.passes
	$(BIN)/python -m benchmarks.memory --measured
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.kills  # 15 minutes

study: .venv/developed
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.rules

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/developed: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

.venv/documented: docs/requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r docs/requirements.txt
	touch $@

clean:
	rm -rf .venv site
