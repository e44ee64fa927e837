# Nothing but Python 3.11 or newer and make need be there; the rest goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dev,box2d,mujoco,envpool,minari,sb3,hf

.PHONY: setup run test test-slow test-floors reliability mutants lint bench bench-table figures clean

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
	$(BIN)/python -m experiments.speed.bc
	$(BIN)/python -m experiments.speed.rollout
	$(BIN)/python -m experiments.speed.dagger

bench-table: setup  ## the tables of scores: every recipe over 5 seeds; the GAIL paper's column (needs its experts)
	$(BIN)/python -m experiments.scores.recipes
	$(BIN)/python -m experiments.scores.dagger_recipes
	$(BIN)/python -m experiments.scores.dagger_mujoco
	$(BIN)/python -m experiments.scores.bc_table
	$(BIN)/python -m experiments.scores.figure

figures: setup  ## the studies' figures, their numbers and pages; goes on where it was interrupted
	set -e; for study in horizon finetune sample_efficiency transfer inverse_rl; do \
	  OMP_NUM_THREADS=1 $(BIN)/lit-imitation study $$study --out runs/studies/$$study --jobs 2; \
	  mkdir -p docs/figures/$$study; \
	  for suffix in png svg csv json; do cp runs/studies/$$study/*.$$suffix docs/figures/$$study; done; \
	  sed "s,](\([a-z_]*\.[a-z]*\)),](figures/$$study/\1),g" runs/studies/$$study/$$study.md > docs/$$study.md; \
	done

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
