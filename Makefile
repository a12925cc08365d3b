# Every command a person types. `make help` explains each; `smoke-local` and `test` set up what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
ENV := . .venv/env.sh &&
OUT ?= smoke-out
EXPERIMENT ?= experiments/smoke.toml
MODEL ?= search-out/model
N ?= 4000

##@ Begin
help: ## what each target does
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

setup: .venv/env.sh ## create .venv with everything, pinned (Python 3.11+; Java comes along)

.venv/env.sh: pyproject.toml constraints.txt bootstrap/setup.sh
	PYTHON=$(PYTHON) bash bootstrap/setup.sh

##@ Run on this machine
smoke-local: setup ## the whole way on a simulated sky: targets to report, under 5 minutes on two cores
	$(ENV) python -m local_spark.smoke --out "$(OUT)"

selection-function: setup ## which lenses the smoke run's finder finds: OUT, N (4000) injections [ARGS=--plan: what that gives and takes]
	$(ENV) python -m local_spark.selection --out "$(OUT)" --n $(N) $(ARGS)

smoke-real: setup ## the same injection on real survey pixels (needs the shared data folder)
	$(ENV) python -m local_spark.smoke_real --out smoke-real-out

search-local: setup ## lenses planted by another renderer: are they found, and how much else? (after smoke-local)
	$(ENV) python -m local_spark.search --workspace "$(OUT)" --out search-out

find: setup ## what a finder thinks of one place: RA=150.1 DEC=2.2 [MODEL=search-out/model] [ARGS="--survey URL"]
	$(ENV) python -m evaluation.find --model "$(MODEL)" $(ARGS) -- $(RA) $(DEC)

gallery: setup ## pictures of arcs over theta_E, magnitude and source: do they look like lenses?
	$(ENV) python -m local_spark.gallery

validate: setup ## numbers and pictures of every stage that has run in OUT (smoke-out), with warnings
	$(ENV) python -m darkhaloscope.validation --root "$(OUT)" --experiment "$(EXPERIMENT)"

local-cluster: setup ## a Spark master and two workers on this machine, until Ctrl-C
	$(ENV) python -m local_spark.cluster

generations: setup ## make and train all six generations small, one result card each (plumbing only)
	$(ENV) python -m local_spark.generations

study: setup ## one thing at a time from generation 2, small and unresolved (12 minutes on two cores)
	$(ENV) python -m evaluation.study --size small --out study-out --page docs/study.md

study-gpu: ## the same at full size, on a GPU host (bootstrap/gpu_host.sh)
	. .venv-gpu/bin/activate && python -m evaluation.study --size gpu --out study-gpu-out --page docs/study-gpu.md

##@ Check
test: setup ## unit, oracle and fault tests (no GPU, no network)
	$(ENV) python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu"

test-all: setup ## the slow and, where there is one, the GPU tests too
	$(ENV) python -m pytest -n 2 --dist loadgroup

lint: setup ## ruff, mypy, import directions, generated docs up to date
	$(ENV) ruff check . && ruff format --check . && mypy && lint-imports && python docs/tables.py --check

docs: setup ## write columns, flags and measured figures into docs/
	$(ENV) python docs/tables.py

##@ EMR
emr-package: ## the environment archive for EMR, in dist/emr (needs Python 3.11)
	bash bootstrap/emr_environment.sh dist/emr

emr-submit: setup ## send a stage to EMR: STAGE=4c EXPERIMENT=experiments/gen3.toml OUTPUT=s3://BUCKET/runs [ARGS=...]
	$(ENV) python -m emr.submit --stage $(STAGE) $(if $(filter search,$(STAGE)),,--experiment "$(EXPERIMENT)") --output-s3 "$(OUTPUT)" $(ARGS)

scale-model: setup ## what a run would take: time, cost, bytes, requests (dist/scale-model/index.html)
	$(ENV) python -m emr.scale_model

##@ Measure, clean
bench: setup ## benchmarks; each writes benchmarks/results/<name>.json
	$(ENV) for b in $(filter-out $(addprefix benchmarks/,record.py peers.py turns.py),$(wildcard benchmarks/*.py)); do python $$b || exit 1; done

clean: ## remove what runs and tests left (not .venv)
	rm -rf smoke-out search-out find.png smoke-real-out gallery-out generations-out study-out study-gpu-out spark-warehouse build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\#.*/\1/p' Makefile)
