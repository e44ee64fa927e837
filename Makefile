# Requires Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dev,plot,box2d,mujoco,envpool,minari,sb3,hf,zarr,lerobot,video,onnx

.PHONY: setup run test-unit test test-slow test-floors reliability mutants lint bench tables figures clean

# A change of pyproject.toml or constraints.txt makes the stamp outdated, and the next target installs again.
.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

setup: .venv/.stamp  ## create the environment with the tested versions

run: setup  ## clone the LunarLander pilot and print its score
	$(BIN)/python train.py fit --config configs/bc/lunar_lander.yaml

# Three tiers by marker: a test without one is a unit test and may start no Trainer, process, or compiler.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-unit: setup  ## run the unit tests, in less than 30 seconds
	$(PYTEST) -m "not slow and not integration"

test: setup  ## run the unit tests and one integration test for each contract, in about two minutes
	$(PYTEST) -m "not slow"

test-slow: setup  ## run grids, learning, and scores, which takes hours
	$(PYTEST) -m slow

test-floors:  ## run the fast tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet --disable-pip-version-check -c floors.txt -e ".[$(EXTRAS)]"
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

reliability: setup  ## test hostile files, bad inputs, faults and kills; write the counts to docs/reliability.md
	$(BIN)/python -m experiments.reliability $(ARGUMENTS)

mutants: setup  ## change one operator or statement at a time; report the changes that no fast test notices
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py --count 200 --jobs 2 --out experiments/results/mutants.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup  ## compare speed with bare torch, bare environments and the imitation library
	set -e; for name in bc rollout dagger; do $(BIN)/python -m experiments speed $$name; done
	$(BIN)/python -m experiments render

# Takes hours on two cores. Published experts are read from the folder LIT_IMITATION_EXPERTS.
# Other tables: make tables TABLES="gail_table".
TABLES := bc_recipes dagger_recipes dagger_mujoco bc_table

tables: setup  ## make the score tables of docs/results.md; an interrupted run resumes
	set -e; for name in $(TABLES); do $(BIN)/python -m experiments table $$name; done
	$(BIN)/python -m experiments render

figures: setup  ## make the figures, numbers and pages of the studies; an interrupted run resumes
	set -e; for study in horizon finetune sample_efficiency transfer inverse_rl multimodal; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m experiments study $$study --out runs/studies/$$study --jobs 2; \
	  mkdir -p docs/figures/$$study; \
	  for suffix in png svg csv json; do cp runs/studies/$$study/*.$$suffix docs/figures/$$study; done; \
	done
	$(BIN)/python -m experiments render

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
