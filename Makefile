# The two commands of the README are `make demo` and `make test`. Everything lies in .venv, .demo and build.
PYTHON ?= python3
BIN := .venv/bin
# Two processes run the tests, a file at a time, each with one thread for torch. `make test WORKERS=0` runs one process.
WORKERS ?= 2
# A crash of one of them ends the run: a new process in its place would leave the tests of its file unrun, for ever.
CODE := schemas synthetic reid_core pipeline flows urban_reid migrations benchmarks scripts docs examples
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0
STAMP := .venv/.installed
LOCK := --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11

.DEFAULT_GOAL := install
.PHONY: install demo test test-quick test-slow test-system lint audit docs texts lock demo-model simulated-model clean

install: $(STAMP)

# uv installs exactly what the lock says and checks each hash, its own included; the project is installed editable.
$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: export URBAN_REID_HOME ?= $(CURDIR)/.demo
demo: $(STAMP)
	$(BIN)/urban-reid demo --out "$(URBAN_REID_HOME)/report"

# Lint, security lint, types, import contract, and the suite without its slow and system tests.
test: $(STAMP) lint
	$(PYTEST)

# Under a minute: the tests that need no database, no Prefect server, no process of the command line and no network.
test-quick: $(STAMP)
	$(PYTEST) -m "not server and not heavy and not slow and not system"

# What takes longer and must not rot: examples, docs site, the wheel in an environment of its own, odd data directories.
test-system: $(STAMP)
	$(PYTEST) -m "system and not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# The same checks run before each commit with `pre-commit install` (.pre-commit-config.yaml).
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known faults of the locked packages, by the registry's advisories; skipped with a word where there are none to be had.
audit: $(STAMP)
	$(BIN)/python -m scripts.audit

# The docs site, into build/docs/site; a warning is an error.
docs: $(STAMP)
	$(BIN)/python -m docs.build

# The console's catalogs of texts, from its code and templates; says what each language lacks.
texts: $(STAMP)
	$(BIN)/python -m scripts.texts

# Exact versions and hashes of everything, and no index address. What is locked stays, unless UPGRADE=--upgrade. The host
# that serves the core on Ray has a lock of its own, of the same versions: Ray brings what others should not have.
lock:
	$(BIN)/uv pip compile $(UPGRADE) $(LOCK) --extra openvino --extra onnx --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile $(UPGRADE) $(LOCK) --extra ray --extra openvino --extra onnx --constraint requirements.lock \
		pyproject.toml -o requirements-ray.lock
	$(BIN)/uv pip compile $(UPGRADE) $(LOCK) --extra openvino --extra onnx --extra s3 --constraint requirements.lock pyproject.toml -o requirements-image.lock
	echo uv | $(BIN)/uv pip compile $(UPGRADE) $(LOCK) --no-annotate - -o requirements-uv.lock

# Trains the demo's small model again, on rendered pedestrians, fits its calibration on rendered cities, and writes both
# over those in the package. About half an hour on two cores.
demo-model: $(STAMP)
	$(BIN)/python -m scripts.train_demo
	$(BIN)/python -m scripts.calibrate_demo

# Makes the model of simulated cities again: diff attention on simulated people, calibration and the baselines' thresholds
# on simulated cities. About half an hour on two cores.
simulated-model: $(STAMP)
	$(BIN)/python -m scripts.calibrate_simulated

clean:
	rm -rf .venv .demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
