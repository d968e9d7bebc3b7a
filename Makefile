# `make serve` and `make test` are all a newcomer needs; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= data
# On Linux outside a mirror that offers the CPU wheel, plain `pip install torch` brings the multi-gigabyte CUDA
# build. Name the CPU index to avoid it:  make serve TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Test processes side by side; each file of tests stays in one of them, so that it starts its servers once.
WORKERS ?= 2
PIP_EXTRA := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),)

# Of the long mixed load with faults: how long, and on which database (sqlite or postgresql).
MINUTES ?= 10
RECORD ?= postgresql

# Of the tests of the image: the engine, its compose command (`podman-compose`; else that of the engine), and more for
# the build, such as `--build-arg NAME=VALUE`.
ENGINE ?= docker
COMPOSE ?=
BUILD_OPTIONS ?=

.PHONY: help serve test test-slow test-browser test-containers picture test-api soak hostile docs check format audit sbom bench clean

help:
	@echo "make serve   environment, migrations, server on http://$(HOST):$(PORT) (PORT=, DATA=)"
	@echo "make test    environment and the quick test suite"
	@echo "make test-slow   the long tests (more kill moments, larger pools)"
	@echo "make test-browser   the page in a real browser (needs /usr/bin/chromium); screenshots in .artefacts/page"
	@echo "make test-containers   the image built and run, and compose.scaled.yaml (ENGINE=docker|podman, COMPOSE=)"
	@echo "make picture   docs/page.webp, the page as README shows it (needs /usr/bin/chromium)"
	@echo "make docs    the documents as pages in .site, broken links being errors; the code in them is run"
	@echo "make test-api   many generated requests to every path of the interface"
	@echo "make soak    mixed load for ten minutes with one fault after the other (MINUTES=, RECORD=sqlite|postgresql)"
	@echo "make hostile every kind of hostile input on a real server; the table is left in .bench/"
	@echo "make audit   bandit over the sources, pip-audit over what is installed (asks PyPI for advisories)"
	@echo "make sbom    what is installed, as CycloneDX, in .artefacts/sbom.json"
	@echo "make check   formatting, linting, types, rules"
	@echo "make bench   benchmarks that need no outside data; results in .bench/"

$(VENV)/.run: pyproject.toml
	@echo "Installing into $(VENV): minutes the first time, most of them for torch."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) --editable ".[dev]"
	@touch $@

serve: $(VENV)/.run
	$(BIN)/oddity serve --host $(HOST) --port $(PORT) --data $(DATA)

# One thread each, since they share the cores already: threads of OpenMP that wait for others which have no core wait in
# circles, and training takes several times as long.
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser tests/browser

test-containers: $(VENV)/.dev
	ENGINE="$(ENGINE)" COMPOSE="$(COMPOSE)" BUILD_OPTIONS="$(BUILD_OPTIONS)" \
		$(BIN)/python -m pytest -m containers tests/containers

picture: $(VENV)/.dev
	$(BIN)/python -m tests.browser.picture

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m docs tests/docs

test-api: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow tests/contract/test_generated_requests.py

soak: $(VENV)/.dev
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --record $(RECORD)

hostile: $(VENV)/.dev
	$(BIN)/oddity bench hostile --out .bench

$(VENV)/.audit: $(VENV)/.run
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) --editable ".[audit]"
	@touch $@

audit: $(VENV)/.audit
	$(BIN)/bandit --configfile pyproject.toml --quiet --recursive --severity-level medium app models index migrations benchmarks
	$(BIN)/pip-audit --progress-spinner off --local --skip-editable

sbom: $(VENV)/.audit
	@mkdir -p .artefacts
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o .artefacts/sbom.json

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/rules

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/oddity bench all --out .bench

clean:
	rm -rf $(VENV) build dist .bench .site *.egg-info
