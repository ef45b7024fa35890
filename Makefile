# `make help` lists the targets. All of them run in .venv, which `make setup` makes from the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
PYTEST := pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder
IN_JOB := $(if $(JOB),--job='$(JOB)')
CHECK := $(if $(JOB),setup,check)
REMOTES := s3 gs azure ssh
JUNK := quickstart .hypothesis .mypy_cache .pytest_cache .ruff_cache
OUTS := data/raw data/download data/prepared recipes models predictions metrics evaluation selection.json diagnosis reports

export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY ?= true
.DEFAULT_GOAL := help
.PHONY: help setup check quickstart photos plan repro train champion promote rollback sync experiments compare cluster ranges search ui serve demo \
        clean lint format test test-faults test-system test-cluster test-all system-packages audit \
        bench bench-full lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

ifneq ($(REMOTE),$(filter $(REMOTE),$(REMOTES)))
$(error REMOTE: must be one of $(REMOTES); received $(REMOTE))
endif

setup: $(VENV)/made $(REMOTE:%=$(VENV)/%)  ## make .venv from the lock, bytecode compiled; REMOTE=s3, gs, azure or ssh for such a storage
$(VENV)/made: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON): set PYTHON to a Python 3.11 to 3.13"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or \
	  sys.exit(f"error: $(PYTHON) is Python {v[0]}.{v[1]}: set PYTHON to a Python 3.11 to 3.13")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/dvc config --local core.site_cache_dir '$(CURDIR)/.dvc/tmp/site'  # not /var/tmp/dvc, where others write
	@touch $@

check: setup  ## check params.yaml
	@python -m pipeline check

quickstart: setup  ## the whole pipeline in minutes, on handwritten digits
	@exec env MAKE_PID=$$PPID python -m pipeline quickstart

given-%:  # before anything is installed or run
	@test -n "$($*)" || { echo "error: $*: missing: see make help"; exit 1; }

photos: given-FOLDER setup  ## train on a folder of photographs, with a folder for each class: make photos FOLDER=~/pets
	@python -m pipeline photos '$(FOLDER)' $(if $(NAME),--name='$(NAME)')

plan: check  ## list the stages that would run, and how long their trainings took before
	@python -m pipeline plan

repro: check $(if $(filter ray,$(EXECUTOR)),cluster)  ## the real job: as in params.yaml; JOBS=N trainings at a time, EXECUTOR=ray on a cluster
	@exec env MAKE_PID=$$PPID python -m pipeline repro $(if $(JOBS),--jobs='$(JOBS)') $(if $(EXECUTOR),--executor='$(EXECUTOR)')
	@python -m pipeline sync

train: given-VARIANT check  ## train one variant: make train VARIANT=vgg3 SEED=0
	@stage=$$(dvc stage list --name-only | grep -xE '(train|finetune)@$(VARIANT)-$(SEED)') || \
	  { echo "error: no variant $(VARIANT) with seed $(SEED) in params.yaml"; exit 1; }; dvc repro $$stage

champion: $(CHECK)  ## print which model is champion, since when and why; JOB=jobs/pets or quickstart for its champion
	@python -m pipeline $(IN_JOB) champion

promote: $(CHECK)  ## promote the chosen model; FORCE=1 although it is a former champion or not better than the champion
	@python -m pipeline $(IN_JOB) promote $(if $(FORCE),--force)

rollback: $(CHECK)  ## make the previous champion champion again
	@python -m pipeline $(IN_JOB) rollback

sync: $(CHECK)  ## log the runs, versions and aliases that MLflow lacks
	@python -m pipeline $(IN_JOB) sync

experiments: setup  ## compare the experiments of `dvc exp run`: the settings and accuracies that changed
	dvc exp show --only-changed --drop '^(?!Experiment|variant|seed|split|training|.*accuracy$$)'

compare: given-REV setup  ## compare the results with those of another commit, as Markdown: make compare REV=main
	@python -m pipeline compare '$(REV)'

cluster: $(VENV)/cluster  ## install Ray, for EXECUTOR=ray, on each node (docs/cluster.md)
$(addprefix $(VENV)/,cluster demo moto $(REMOTES)): $(VENV)/%: $(VENV)/made requirements-%.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements-$*.lock
	@touch $@

ranges: given-VARIANT setup  # before Ray is installed
	@python -m pipeline check '$(VARIANT)'

search: ranges $(if $(filter ray,$(EXECUTOR)),cluster)  ## search for better settings: make search VARIANT=shallow TRIALS=40 SEEDS=3, ranges in search.yaml; JOBS and EXECUTOR as for repro
	@python -m pipeline search '$(VARIANT)' $(if $(TRIALS),--trials='$(TRIALS)') $(if $(SEEDS),--seeds='$(SEEDS)') \
	  $(if $(JOBS),--jobs='$(JOBS)') $(if $(EXECUTOR),--executor='$(EXECUTOR)')

ui: setup  ## look at runs and models on http://127.0.0.1:5000; PORT=N for another port
	@python -m pipeline ui $(if $(PORT),--port='$(PORT)')

serve: setup  ## serve the champion on http://127.0.0.1:5001; of another dataset: make serve MODEL=digits; PORT=N
	@python -m pipeline serve $(if $(MODEL),--model='models:/$(MODEL)@champion') $(if $(PORT),--port='$(PORT)')

demo: $(VENV)/demo  ## a page to try the champion on, http://127.0.0.1:8501; MODEL and PORT as for serve
	@python -m pipeline demo $(if $(MODEL),--model='models:/$(MODEL)@champion') $(if $(PORT),--port='$(PORT)')

clean: setup  ## list what would be deleted; YES=1 deletes it (dvc checkout restores all but quickstart and download)
	@du -shc $(JUNK) $(OUTS) 2>/dev/null || true
	@if [ -n "$(YES)" ]; then rm -rf $(JUNK) $(OUTS); echo "deleted"; else echo "nothing deleted yet: make clean YES=1"; fi

lint: setup  ## format check, linters, type checker
	ruff format --check .
	ruff check .
	lint-imports --no-cache > /dev/null || lint-imports --no-cache
	mypy

format: setup  ## format, and fix what the linter can fix
	ruff format .
	ruff check --fix .

test: lint  ## linter, type checker and the tests that need only pip packages
	$(PYTEST) -m "not system and not faults"

test-faults: system-packages  ## the long tests of faults: kills, full disks, stopped servers (docs/reliability.md)
	$(PYTEST) --numprocesses=$$(($$(nproc) + 1)) -m faults  # they mostly wait

test-system: system-packages  ## the tests that need a browser, Postgres or nginx, which it installs
	$(PYTEST) -m "system and not faults and not cluster"

test-cluster: $(VENV)/cluster  ## the tests of Ray: nodes that die, a search
	$(PYTEST) tests/running/test_cluster.py tests/commands/test_search.py -m "system or cluster"

test-all: system-packages  ## all tests but the longest of Ray, with one quickstart for all of them
	$(PYTEST) --numprocesses=$$(($$(nproc) + 1)) -m "not cluster"  # the tests of faults mostly wait

system-packages: $(addprefix $(VENV)/,demo cluster s3 moto)
	bash tests/install_system_packages.sh

audit: setup  ## unsafe code, and known vulnerabilities in the locked packages
	@.ci/audit

bench: check  ## measure the speed, half an hour on 5,000 of the job's images (dvc repro prepare)
	python -m benchmarks

bench-full: check  ## all benchmarks, some hours
	python -m benchmarks --full

lock: setup  ## update the locks from pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev \
	  --no-header --upgrade pyproject.toml -o requirements.lock
	for group in demo cluster $(REMOTES); do uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --group $$group --no-header --upgrade -c requirements.lock -o requirements-$$group.lock || exit 1; done
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --group moto \
	  --no-header --upgrade -c requirements.lock -c requirements-s3.lock -o requirements-moto.lock
