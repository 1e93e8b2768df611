# `make` lists the targets. Each does what it needs first, and little when it was done before.

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

# Files that mark a step as done; they live and die with the virtual environment.
TOOLS_READY := .venv/.tools-ready
BUILT := .venv/.built

C_SOURCES := $(filter-out bpf/vmlinux.h,$(wildcard csrc/*.[ch] bpf/*.[ch]))
BUILD_INPUTS := setup.py pyproject.toml $(wildcard csrc/*.[ch] csrc/*.py bpf/*.[ch])

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup packages .venv build wheel demo test test-unit test-bpf test-install test-vm test-full test-cycles
.PHONY: test-mixed test-binaries fuzz-executables lint format bench bench-inspect clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: packages .venv ## Debian packages (as root, with apt) and .venv with the development tools

packages:
	@tools/install-packages

.venv: $(TOOLS_READY)

$(TOOLS_READY): pyproject.toml tools/requirements.py
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "the python3 on PATH must be 3.10 or later" >&2; exit 1; }
	@tools/install-packages --group build || echo "going on without them" >&2
	python3 -m venv .venv
	$(PYTHON) tools/requirements.py > .venv/requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
	@touch $@

build: $(BUILT) ## compile the core and the BPF objects, install the package in place

$(BUILT): $(TOOLS_READY) $(BUILD_INPUTS)
	@tools/install-packages --group build || echo "going on without them" >&2
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

wheel: $(TOOLS_READY) ## the sdist and the wheel, into dist/
	@tools/install-packages --group build || echo "going on without them" >&2
	rm -f dist/pytraceprop-*
	$(PYTHON) -m build --no-isolation

demo: packages build ## trace a chain of unmodified Go services and show their spans
	$(PYTHON) -m examples.demo

test: packages lint test-unit test-bpf test-install test-vm ## all tests, at a size that fits a coffee break

test-unit: .venv ## tests that need neither root nor a particular kernel
	@$(MAKE) --no-print-directory build || echo "not built: tests of the compiled core will fail" >&2
	$(PYTEST) tests/unit tests/reading

test-bpf: build ## tests that load BPF into this kernel (root)
	$(PYTEST) tests/bpf

test-install: build ## tests of the sdist and the wheel, installed in clean places (root)
	$(PYTEST) tests/install

test-vm: build ## tests inside Debian kernels under qemu (root)
	@tools/install-packages --group vm
	$(PYTEST) tests/vm

test-full: export PYTRACEPROP_FULL = 1
test-full: test ## all tests at full size: more kernels, more Go releases, more requests

test-cycles: export PYTRACEPROP_FULL = 1
test-cycles: build ## attach and detach 200 times under load (root)
	$(PYTEST) tests/bpf/test_cycles.py -s

test-mixed: export PYTRACEPROP_FULL = 1
test-mixed: build ## 10 000 requests through HTTP/1.1, HTTP/2 and gRPC, here and in a virtual machine (root)
	@tools/install-packages --group vm
	$(PYTEST) tests/bpf/test_mixed.py tests/vm/test_mixed_kernels.py -s

test-binaries: build ## read every Go release in every build form, and Debian's Go programs
	$(PYTHON) -m tests.reading

fuzz-executables: build ## read 10 000 damaged executables
	$(PYTHON) -m tests.reading.mutations

lint: .venv ## ruff, mypy, clang-format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy -p tools
	$(if $(C_SOURCES),.venv/bin/clang-format --dry-run -Werror $(C_SOURCES))

format: .venv ## let ruff and clang-format rewrite the sources
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(if $(C_SOURCES),.venv/bin/clang-format -i $(C_SOURCES))

bench: build ## measure what tracing costs, as ratios to the bare program
	$(PYTHON) -m tests.bench

bench-inspect: build ## measure how long reading large executables takes
	$(PYTHON) -m tests.reading.bench

clean: ## remove what was built, downloaded and installed here
	rm -rf .venv .build build dist pytraceprop/objects pytraceprop.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pytraceprop -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
