# make demo: set up .venv and run streampose on the bundled clip
# make test: set up .venv and run the tests

PYTHON ?= python3
# Additional options for pip, for example an index with a CPU build of torch: make demo PIP_FLAGS="--extra-index-url URL"
PIP_FLAGS ?=
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

# If the system libraries for windows are missing, as on most servers, install OpenCV without windows.
OPENCV_LOADS = $(BIN)/python -c "import cv2" 2>/dev/null
WITHOUT_WINDOWS = echo "system libraries for OpenCV windows are missing: installing opencv-python-headless" \
	&& $(BIN)/python -m pip uninstall --quiet --yes opencv-python \
	&& $(PIP_INSTALL) --force-reinstall --no-deps opencv-python-headless

.PHONY: demo test test-long check docs clean

demo: .venv/ready
	$(BIN)/streampose run demo --to out/demo.mp4 --to out/poses.jsonl --overwrite

test: .venv/ready-tests
	$(BIN)/python -m pytest -m "not long"

# Long tests: full clips and long runs.
test-long: .venv/ready-tests
	$(BIN)/python -m pytest -m long

# Lint and types.
check: .venv/ready-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Update the help texts in docs/cli.md.
docs: .venv/ready
	$(BIN)/python -m tools.docs_help

clean:
	rm -rf .venv out build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "streampose needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up .venv (once; some minutes)"
	@$(PYTHON) -m venv .venv || { echo "no venv module: on Debian, apt install python3-venv"; rm -rf .venv; exit 1; }

.venv/ready: .venv/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable .
	@$(OPENCV_LOADS) || { $(WITHOUT_WINDOWS); }
	@touch $@

.venv/ready-tests: .venv/ready
	$(PIP_INSTALL) --editable ".[test,check]"
	@$(OPENCV_LOADS) || { $(WITHOUT_WINDOWS); }
	@touch $@
