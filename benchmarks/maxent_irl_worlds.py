"""Expected value difference against the number of demonstrations: ObjectWorld and BinaryWorld 32 × 32, linear and deep.

Each seed is a world of its own with soft-optimal demonstrations, and a fresh world in which nothing was demonstrated;
else the recipes of `configs/maxent_irl/` as they are, or with a linear reward.

`python benchmarks/maxent_irl_worlds.py [--seeds 5]` writes `benchmarks/results/maxent_irl_worlds.json` and the table of
docs/maxent_irl.md. Runs that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from readme import refresh

from lit_imitation import lightning_cli
from lit_imitation.files import atomic_write

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "maxent_irl_worlds.json"
WORLDS = ("object_world", "binary_world")
DEMONSTRATIONS = (16, 64, 256, 1024, 4096)
LINEAR = {"class_path": "lit_imitation.LinearReward"}


def run(world: str, model: str, count: int, seed: int, out: Path) -> dict[str, Any]:
    """The figures of one training."""
    directory = out / world / model / str(count) / f"seed_{seed}"
    summary = directory / "summary.json"
    if not summary.exists() or "fresh_value_share" not in json.loads(summary.read_text()):
        config = yaml.safe_load((ROOT / "configs" / "maxent_irl" / f"{world}.yaml").read_text())
        config["seed_everything"] = seed
        if model == "linear":
            config["model"]["init_args"]["reward"] = LINEAR
        data = config["data"]["init_args"]
        # The fresh world has the next seed, so those of other runs are none of these.
        data |= {"expert_trajectories": count, "env_kwargs": {"world_seed": 100 * seed}, "fresh_worlds": 1}
        data |= {"eval_episodes": 0, "test_episodes": 1}
        config["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False, "check_val_every_n_epoch": 1000}
        more = ["--ckpt_path=last"] if (directory / "checkpoints" / "last.ckpt").exists() else []
        arguments = ["--config", yaml.safe_dump(config), f"--trainer.default_root_dir={directory}", *more]
        lightning_cli.run("fit", arguments)
    figures = json.loads(summary.read_text())
    names = ("expected_value_difference", "value_share", "fresh_expected_value_difference", "fresh_value_share")
    told = {"world": world, "model": model, "demonstrations": count, "seed": seed}
    return told | {name: figures[name] for name in names}


def main() -> None:
    """Measure, write, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "maxent_irl_worlds")
    options = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for seed in range(options.seeds):
        for world in options.worlds:
            for count in DEMONSTRATIONS:
                for model in ("linear", "deep"):
                    row = run(world, model, count, seed, options.out)
                    key = ("world", "model", "demonstrations", "seed")
                    rows = [one for one in rows if any(one[name] != row[name] for name in key)] + [row]
                    atomic_write(RESULTS, json.dumps(rows, indent=1) + "\n")
    refresh()


if __name__ == "__main__":
    main()
