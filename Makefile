# Two commands for a first visit: `make demo` and `make test`. Nothing is installed outside this folder
# but the package managers' own caches.
.PHONY: demo test bench faults ihtc synthea up down check lock clean

PYTHON ?= python3.11
RUN := .venv/bin/python

.venv/ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/ready ## set everything up, run the whole path, stop what it started
	$(RUN) -m infra.demo

up: .venv/ready ## start Kafka, Elasticsearch and a worker, and leave them running
	.venv/bin/wardstream up --detach

down: .venv/ready
	.venv/bin/wardstream down

test: .venv/ready ## everything, against the embedded servers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@mkdir -p build
	@$(RUN) -m pytest -q -m "not servers" > build/test-pure.log 2>&1 & pure=$$!; \
	$(RUN) -m pytest -m servers; servers=$$?; \
	wait $$pure; status=$$?; echo "tests without the servers of the run, beside them:"; \
	[ $$status -eq 0 ] && tail -n 12 build/test-pure.log || cat build/test-pure.log; exit $$((servers | status))

bench: .venv/ready .venv-bench/ready ## measured figures into build/bench.json
	PYTHONPATH=. $(RUN) tests/bench/bench.py

# The peers' own environment: Quix Streams wants older clients than ours.
.venv-bench/ready: requirements-bench.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-bench.lock
	@touch $@

faults: .venv/ready ## ten minutes of failing servers and processes, and the account of every message; then beds, outcomes, images
	$(RUN) tests/faults/run.py
	PYTHONPATH=. $(RUN) tests/faults/beds.py
	PYTHONPATH=. $(RUN) tests/faults/outcomes.py
	PYTHONPATH=. $(RUN) tests/faults/images.py

SECONDS ?= 600
INSTANCES ?=
IHTC_DATA ?= ../shared/data/allocation/ihtc2024
ihtc: .venv/ready ## solve the competition's instances into build/ihtc.jsonl: make ihtc SECONDS=600 INSTANCES="i01 i02"
	$(RUN) tests/bench/ihtc.py --seconds $(SECONDS) --data $(IHTC_DATA) $(if $(FORCE),--force) $(INSTANCES)

PATIENTS ?= 20
SEED ?= 7
synthea: .venv/ready ## made-up people as FHIR R4 bundles in build/synthea: make synthea PATIENTS=20 SEED=7
	rm -rf build/synthea/fhir
	$(RUN) -m infra.local.synthea build/synthea --patients $(PATIENTS) --seed $(SEED)

check: .venv/ready ## the fast checks that a commit runs
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

lock: ## resolve pyproject.toml anew into requirements.lock
	.venv/bin/uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --output-file requirements.lock
	.venv/bin/uv pip compile pyproject.toml --extra bench --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --output-file requirements-bench.lock

clean:
	rm -rf .venv .venv-bench build .mypy_cache .ruff_cache .pytest_cache
