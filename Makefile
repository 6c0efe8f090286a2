# Everything runs in the virtual environment $(VENV); `make` alone lists the targets.
#
# Debian and Ubuntu need the packages make, git and python3-venv (Python 3.11 or later), and for the tests of the panels
# libegl1, libgl1, libxkbcommon0, libdbus-1-3, libfontconfig1, libglib2.0-0 and fonts-dejavu-core (without: skipped).
# On Linux the package index gives the CUDA build of torch, some gigabytes. For the CPU build give PyTorch's own CPU
# index (its address is on PyTorch's "Get Started" page): make setup TORCH_INDEX=ADDRESS
# TORCH may also be a wheel or another build of the version that Resources/requirements/runtime.txt pins.
# Without network: make wheels WHEELS=FOLDER on a computer with network, the same system and the same Python; carry the folder
# over; make setup WHEELS=FOLDER there.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
WHEELS ?=
PYTEST_ARGS ?=
SLICER_PYTEST_ARGS ?=

BIN := $(VENV)/bin
INDEX := $(if $(WHEELS),--no-index --find-links "$(WHEELS)",$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)))
LACKING = $(if $(WHEELS),|| { echo "make: $(WHEELS) lacks what pip names above. Fill it on a computer with network and the same" \
  "system and Python: make wheels WHEELS=FOLDER" >&2; exit 1; })
FOLDER_ONLY := $(if $(WHEELS),--no-index --find-links "$(WHEELS)")
STAMP := $(VENV)/.imt-setup
ENGINES := Resources/requirements/engines.txt
REQUIREMENTS := Resources/requirements/runtime.txt Resources/requirements/test.txt $(ENGINES)

.DEFAULT_GOAL := help
.PHONY: help setup wheels demo test lint benchmark screenshots clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the pinned packages and this project (VENV, PYTHON, TORCH, TORCH_INDEX, WHEELS)

$(STAMP): pyproject.toml IMTTranslate/IMTCore/version.py $(REQUIREMENTS)
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "make: $(PYTHON) not found. Install Python 3.11 or later (Debian: apt install make git python3 python3-venv)" \
	         "or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old; IMT needs Python 3.11 or later." \
	         "Name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments." \
	         "On Debian and Ubuntu: apt install make git python3-venv" >&2; exit 1; }
	@test -z "$(WHEELS)" || test -d "$(WHEELS)" || \
	  { echo "make: there is no folder of wheels $(WHEELS). Make one on a computer with network: make wheels WHEELS=FOLDER" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-input $(INDEX) "$(TORCH)" $(LACKING)
	$(BIN)/python -m pip install --no-input $(FOLDER_ONLY) -r Resources/requirements/test.txt $(LACKING)
	$(BIN)/python -m pip install --no-input $(FOLDER_ONLY) --no-deps -e . $(LACKING)
	$(BIN)/python -m IMTSlicerLib.package_folders install --requirements $(ENGINES) --folder $(VENV)/engines \
	  $(if $(WHEELS),--wheels "$(WHEELS)")
	@touch $@

wheels: ## Download what `make setup WHEELS=FOLDER` needs on a computer without network (WHEELS, TORCH, TORCH_INDEX)
	@test -n "$(WHEELS)" || { echo "make: name the folder to fill: make wheels WHEELS=FOLDER" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip download --no-input --only-binary :all: -d "$(WHEELS)" $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip download --no-input --only-binary :all: -d "$(WHEELS)" --find-links "$(WHEELS)" \
	  -r Resources/requirements/test.txt "$(shell sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml)"
	$(BIN)/python -m pip download --no-input --only-binary :all: -d "$(WHEELS)" -r $(ENGINES)

demo: $(STAMP) ## Translate an example brain and draw the result, into demo-output
	$(BIN)/python Resources/Demo/demo.py --output demo-output

test: $(STAMP) ## Check style, test core and panels (PYTEST_ARGS="-k name" for the core, SLICER_PYTEST_ARGS)
	@failed=0; \
	$(BIN)/python -m ruff check . || failed=1; \
	$(BIN)/python -m pytest $(PYTEST_ARGS) || failed=1; \
	$(BIN)/python -m pytest -p no:xdist Testing/Slicer $(SLICER_PYTEST_ARGS) || failed=1; \
	exit $$failed

lint: $(STAMP) ## Check the code's style only
	$(BIN)/python -m ruff check .

screenshots: $(STAMP) ## Draw the README's pictures of the panel and the slice views
	$(BIN)/python Testing/make_screenshots.py

benchmark: $(STAMP) ## Measure time and memory of a translation
	$(BIN)/python Testing/Benchmarks/benchmark_translate.py

clean: ## Remove what builds, tests and the demo leave (not .venv)
	rm -rf build dist demo-output IMTTranslate/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find IMTTranslate Resources Testing -name __pycache__ -type d -prune -exec rm -rf {} +
