# The tasks of a contributor. `make` lists them. Each runs in the virtual environment that deploy/setup made.
.PHONY: help setup check fast all lowest lock types
PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
export NAVARCH_EGRESS ?= off

help:  ## list the tasks
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

setup:  ## install what the tests need, and .venv
	deploy/setup --test

check:  ## lint, types, layers, generated code: what fails fastest
	ruff check .
	mypy
	lint-imports
	python -m navarch.api.types.generate --check

fast: check  ## check, and the tests without real nodes and clients (deploy/test --fast)
	deploy/test --fast

all:  ## everything that CI runs
	.ci/run

lowest:  ## the tests that matter on the lowest versions that pyproject.toml allows
	deploy/lowest

lock:  ## requirements.lock anew, with the newest versions that pyproject.toml allows
	uv pip compile -q --universal --python-version 3.11 --upgrade --no-header --no-annotate \
		--all-extras pyproject.toml -o requirements.lock

types:  ## navarch/api/types anew from Kubernetes' definitions
	python -m navarch.api.types.generate
