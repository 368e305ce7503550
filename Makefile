# `make demo` and `make test` do all set-up by themselves; they need Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Where `make bench` writes a line for each run.
BENCH ?= benchmark.jsonl

.PHONY: demo test lint stress chaos kill-actors mutate bench bench-quick bench-charts see pictures clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("outbox needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/bench-ready: $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[benchmark]'
	touch $@

demo: $(VENV)/ready  ## the internet shop, live in the terminal; ARGS=--keep-running for ever
	$(VENV)/bin/outbox demo $(ARGS)

test: $(VENV)/ready lint  ## everything; ARGS for pytest
	$(VENV)/bin/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

stress: $(VENV)/ready  ## the engine under everything at once; ARGS='seconds seed'
	$(VENV)/bin/python -m tests.engine.stress $(ARGS)

chaos: $(VENV)/ready  ## publishers, workers, network and Postgres struck at random; ARGS='seconds seed'
	$(VENV)/bin/python -m tests.crash.chaos $(ARGS)

kill-actors: $(VENV)/ready  ## dramatiq's worker processes killed again and again; ARGS='kills seed'
	$(VENV)/bin/python -m tests.crash.actors $(ARGS)

mutate: $(VENV)/ready  ## deliberate faults in the engine: each must be caught; ARGS='part of a name'
	$(VENV)/bin/python -m tests.mutations $(ARGS)

bench: $(VENV)/bench-ready  ## beside hand-written loops and other products, all workloads: hours; ARGS='W3 W5 --rounds 3'
	$(VENV)/bin/python -m tests.benchmark --jsonl $(BENCH) $(ARGS)

bench-quick: $(VENV)/ready  ## two minutes, beside hand-written loops only; ARGS=W3
	$(VENV)/bin/python -m tests.benchmark --quick $(ARGS)

bench-charts: $(VENV)/bench-ready  ## draw what `make bench` measured into tests/benchmark/charts/
	$(VENV)/bin/python -m tests.benchmark.charts $(BENCH)

see: $(VENV)/ready  ## what is made of grafana/*.py: dashboards, alerts, the table of metrics
	$(VENV)/bin/python -m grafana

pictures: $(VENV)/bench-ready  ## draw the dashboards' panels as a story on a real Prometheus fills them
	$(VENV)/bin/python -m tests.grafana.pictures

clean:
	rm -rf $(VENV) .outbox-demo dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
