# `make` alone lists the targets. CI calls only these.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
HOST ?= 127.0.0.1
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-export run check format test test-slow test-system label-studio-test bench audit sbom evaluate measure recognisers drill proto check-deploy settings-page nano triton stack lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.service ## make .venv and install the service in it (no torch)
setup-dev: .venv/.dev ## also what checks and tests need
setup-export: .venv/.export ## also what export and training need (torch)

.venv/.service: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv || { echo 'Python 3.11+ with venv is needed: apt-get install python3-venv'; exit 1; }
	$(PIP) --editable .
	@touch $@
.venv/.dev: .venv/.service
	$(PIP) --editable '.[dev]'
	@touch $@
.venv/.export: .venv/.dev
	$(PIP) --editable '.[dev,export]'
	@touch $@

run: setup ## serve the bundled model; prints the page's address and a call to paste
	$(BIN)/ovsam serve --host $(HOST) --port $(PORT)

check: setup-export ## lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup-dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-system: ## install the servers and tools that the tests run for real, where apt-get can
	@for pair in redis-server:redis-server chromium:chromium promtool:prometheus kubectl:kubernetes-client ip:iproute2; do \
	  tool=$${pair%%:*}; package=$${pair##*:}; command -v $$tool >/dev/null && continue; \
	  echo "installing $$package"; apt-get install -y -qq $$package >/dev/null 2>&1 \
	  || { apt-get update -qq && apt-get install -y -qq $$package >/dev/null; } \
	  || { echo "please install $$package, which has $$tool"; exit 1; }; done

test: setup-export test-system ## what fails first, against a real Redis and a real browser (minutes)
	$(BIN)/pytest -m "not slow" --durations=10

test-slow: setup-export test-system ## the rest: Triton, stacks that lose parts, the full-size network (half an hour)
	$(BIN)/pytest -m slow --durations=20

label-studio-test: setup-export ## drive the service by a real Label Studio, installed under build/ (minutes)
	test -x build/label-studio/bin/label-studio || { $(PYTHON) -m venv build/label-studio \
	  && build/label-studio/bin/python -m pip install --quiet label-studio==1.23.2; }
	OVSAM_LABEL_STUDIO=build/label-studio/bin/label-studio $(BIN)/pytest tests/end_to_end/test_label_studio_real.py

bench: setup-dev ## measure latency and throughput (ratios within one run)
	$(BIN)/python tests/benchmark/run.py

evaluate: setup-export ## measure the bundled model on its held-out sets
	$(BIN)/python -m export.nano prepare --scenes 0
	$(BIN)/python -m export.nano.evaluate --repository model_repository

build/audit-venv:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'pip-audit>=2.9,<3' 'cyclonedx-bom>=7,<8'

audit: build/audit-venv ## look the locked versions up for known weaknesses (asks pypi.org; fails where it cannot)
	build/audit-venv/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

sbom: build/audit-venv ## write build/sbom.json: what the service is made of (CycloneDX)
	$(PYTHON) -m venv build/sbom-venv
	build/sbom-venv/bin/python -m pip install --quiet --constraint requirements.lock .
	build/audit-venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
	  -o build/sbom.json build/sbom-venv/bin/python

URL ?= model_repository
measure: setup ## measure a service or model repository (URL=...) on the bundled evaluation set
	$(BIN)/ovsam evaluate --annotations tests/evaluation_set/annotations.json --images tests/evaluation_set/images \
	  --apart coin --prompt points:3 --url $(URL) --out build/evaluation

recognisers: setup-dev ## compare the model's names with image crops and feature crops (URL=...)
	$(BIN)/ovsam evaluate --annotations tests/evaluation_set/annotations.json --images tests/evaluation_set/images \
	  --apart coin --prompt paper-box --url $(URL) --recogniser all --out build/recognisers

drill: setup-dev test-system ## kill Redis, Triton and a gateway under load and watch the alerts
	$(BIN)/python deploy/drill/drill.py

check-deploy: setup-export test-system ## validate images, compose, manifests, alerts, dashboard, settings page
	$(BIN)/pytest tests/deploy

settings-page: setup ## write deploy/SETTINGS.md anew from the code
	$(BIN)/python -m service.settings_page > deploy/SETTINGS.md

proto: setup-dev ## generate the gRPC code anew (and lint the proto, which needs npm)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
	  --mypy_out=quiet:. --mypy_grpc_out=quiet:. service/transports/ovsam.proto
	npx --yes @bufbuild/buf@1.75.0 lint

nano: setup-export ## train and export the bundled model again (hours)
	for step in prepare train recognise vocabularies export; do $(BIN)/python -m export.nano $$step || exit 1; done

triton: setup ## serve model_repository/ from a real tritonserver on this machine
	$(BIN)/python deploy/triton/launch.py --repository model_repository

stack: setup ## Triton + Redis + two gateways on this machine
	$(BIN)/python deploy/triton/stack.py

lock: ## write requirements.lock anew from a fresh resolution
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/python -m pip install --quiet --editable '.[dev,export]'
	build/lock-venv/bin/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+).*/\1/' > requirements.lock
