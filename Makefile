# Nothing but Python 3.11 or newer and make need be there; the rest goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dev,plot,box2d,mujoco,envpool,minari,sb3,hf

.PHONY: setup run test test-slow test-floors reliability mutants lint bench tables figures clean

# The stamp is newer than what it was made from unless something changed.
.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

setup: .venv/.stamp  ## the environment, with the versions that are tested

run: setup  ## clone a LunarLander pilot and see how close it comes
	$(BIN)/python train.py fit --config configs/bc/lunar_lander.yaml

test: setup  ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: setup  ## the statistical ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-floors:  ## the fast tests with the oldest releases that pyproject.toml admits
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet --disable-pip-version-check -c floors.txt -e ".[$(EXTRAS)]"
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

reliability: setup  ## hostile files, bad inputs, faults and kills; counts what held into docs/reliability.md
	$(BIN)/python -m experiments.reliability $(ARGUMENTS)

mutants: setup  ## change one operator or statement at a time; reports the mutants that no fast test notices
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py --count 200 --jobs 2 --out experiments/results/mutants.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## speed, side by side with bare torch, the bare environments and the imitation library
	set -e; for name in bc rollout dagger; do $(BIN)/python -m experiments speed $$name; done
	$(BIN)/python -m experiments render

# Hours on two cores; published experts are read from $$LIT_IMITATION_EXPERTS. Others: make tables TABLES="gail_table".
TABLES := bc_recipes dagger_recipes dagger_mujoco bc_table

tables: setup  ## the score tables of docs/results.md; resumes where it was interrupted
	set -e; for name in $(TABLES); do $(BIN)/python -m experiments table $$name; done
	$(BIN)/python -m experiments render

figures: setup  ## the studies' figures, their numbers and pages; resumes where it was interrupted
	set -e; for study in horizon finetune sample_efficiency transfer inverse_rl; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m experiments study $$study --out runs/studies/$$study --jobs 2; \
	  mkdir -p docs/figures/$$study; \
	  for suffix in png svg csv json; do cp runs/studies/$$study/*.$$suffix docs/figures/$$study; done; \
	done
	$(BIN)/python -m experiments render

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
