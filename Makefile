# The two commands of the README are `make demo` and `make test`. Everything lives in .venv and .demo.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := install
.PHONY: install demo test test-slow lint lock demo-model simulated-model clean

install: $(STAMP)

# uv installs exactly what the lock says and checks each hash; the project itself is installed editable.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: export URBAN_REID_HOME ?= $(CURDIR)/.demo
demo: $(STAMP)
	$(BIN)/urban-reid demo --out "$(URBAN_REID_HOME)/report"

test: $(STAMP) lint
	$(BIN)/python -m pytest

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

# Exact versions and hashes of everything, and no index address.
lock:
	$(BIN)/uv pip compile --upgrade --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --extra openvino --extra onnx --group dev pyproject.toml -o requirements.lock

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
