"""What each of GAIL's rewards does where ending an episode is success, and where it is failure.

`python -m experiments.scores.termination [--seeds 3] [--jobs 2]` trains GAIL with each reward, with and without absorbing
states, on the two small tasks of `tests/helpers/early_termination.py`, whose experts finish after 5.5 steps and never
fall in 60. It writes `experiments/results/termination.json`, and puts the table into docs/adversarial.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "termination.json"
TASKS = {"FinishLine-v0": "walks", "Ledge-v0": "stays"}
REWARDS = ("positive", "negative", "logit")


def recipe(env_id: str, reward: str, absorbing: bool) -> dict[str, Any]:
    """A run of some seconds."""
    discriminator = {"reward": reward, "absorbing": absorbing}
    learner = {"entropy_coefficient": 0.01, "hidden_sizes": [32]}
    return {
        "model": {
            "class_path": "lit_imitation.GAIL",
            "init_args": {
                "discriminator": {"class_path": "lit_imitation.Discriminator", "init_args": discriminator},
                "learner": {"class_path": "lit_imitation.PPO", "init_args": learner},
                "batch_size": 256,
                "learning_rate": 1e-3,
            },
        },
        "data": {
            "class_path": "lit_imitation.ImitationDataModule",
            "init_args": {
                "env_id": f"early_termination:{env_id}",
                "expert": f"early_termination:{TASKS[env_id]}",
                "expert_trajectories": 4,
                "backend": "sync",
                "env_steps": 30_720,
                "num_envs": 8,
                "steps_per_round": 64,
                "rounds_per_epoch": 20,
                "test_episodes": 20,
            },
        },
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }


def main() -> None:
    """Measure, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for env_id in TASKS:
        for reward in REWARDS:
            for absorbing in (False, True):
                out = ROOT / "runs" / "termination" / f"{env_id}_{reward}_{absorbing}"
                out.mkdir(parents=True, exist_ok=True)
                config = out / "recipe.yaml"
                config.write_text(yaml.safe_dump(recipe(env_id, reward, absorbing), sort_keys=False))
                repeat([str(config)], seeds=options.seeds, jobs=options.jobs, out=out, overrides=[])
                summaries = [json.loads((out / f"seed_{s}" / "summary.json").read_text()) for s in range(options.seeds)]
                lengths = [summary["length_mean"] for summary in summaries]
                rows.append({"env_id": env_id, "reward": reward, "absorbing": absorbing, "lengths": lengths})
    atomic_write(RESULTS, json.dumps(rows, indent=1) + "\n")
    refresh()


if __name__ == "__main__":
    main()
