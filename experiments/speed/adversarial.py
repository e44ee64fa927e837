"""GAIL and AIRL beside the `imitation` library's: environment steps a second, and time to the expert on Hopper.

One thread, on one core to which all is pinned, that library's process too; the contenders take turns and a ratio is
taken within each turn. Environment steps are those that were transitions: where an environment spends a step on
starting its next episode, that step is none. The parts, any of which can be named:

- `gail`, `airl`: equal work in both. 8 environments, rounds of 2,048 steps, 5 epochs of 32 minibatches of 64, nets of
  2×64; GAIL with 8 steps of the discriminator on 1,024 expert and 1,024 learner pairs, AIRL with 16 on 2,048 and 2,048.
  Both have the same demonstrations. Ours is `fit` as the command runs it, logging and diagnostics on, evaluation and
  checkpoints off; its first rounds, in which gradients are compiled, are left out, and as many of theirs.
- `share`: the recipe `configs/gail/hopper.yaml` as it is, learning included, and the bare `env.step` of its
  environments, fed the very actions that a stretch of its training took.
- `reach`: seconds to a return of 0.9 of the expert's on Hopper-v4, from 4 trajectories of the GAIL authors' expert,
  sampled from its Gaussian, 1 step in 20: ours as in `gail_table.py`, and the curve below. Neither clock runs during
  evaluation (10 episodes of the learner's mode each 102,400 steps on either side); ours begins with `fit`, and compiles
  in that time.
- `curve`, only if named: records that of `imitation` on the same demonstrations with the settings that the library
  brings along as tuned for GAIL on seals/Hopper, into `results/imitation_hopper.json`. About 10 minutes.

`reach` and `curve` read the expert from `$LIT_IMITATION_EXPERTS` or ../shared/experts, and are skipped without it.
`python -m experiments.speed.adversarial [--repeats 3] [part …]` writes `experiments/results/adversarial.json`, keeping there
what it does not measure, and puts the table into docs/adversarial.md.
"""

from __future__ import annotations

import rl  # isort: skip  # first: it pins this process to one core before torch is imported

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import yaml
from gymnasium.vector import VectorEnv
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch._inductor.utils import fresh_cache

from experiments.scores.bc_table import EXPERTS
from experiments.scores.readme import refresh
from experiments.scores.tables import adversarial_speed
from experiments.speed.baseline import Worker, baseline_python
from experiments.speed.common import RESULTS, machine, ratios, save, turns
from lit_imitation.data.demonstrations import Demonstrations, subsample, write_demonstrations
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import make
from lit_imitation.experts import load_expert
from lit_imitation.rollout import collect
from lit_imitation.training import lightning_cli

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "configs" / "gail" / "hopper.yaml"
TABLE = HERE.parent / "tables" / "gail_table.yaml"
SHIPPED = HERE.parents[1] / "lit_imitation" / "experts" / "shipped"
EXPERT_OF = {
    "CartPole-v1": "scripted",
    "Hopper-v4": f"npz:{SHIPPED / 'Hopper-v5.npz'}",
    "HalfCheetah-v4": f"npz:{SHIPPED / 'HalfCheetah-v5.npz'}",
}
"""Version 4 of MuJoCo's tasks is the last that the Gymnasium of `imitation` has; they look the same to an expert."""
PARTS = ("gail", "airl", "share", "reach")
DISCRIMINATOR = {"gail": (8, 1024), "airl": (16, 2048)}
"""Its steps in a round, and pairs of either side in a step."""
ENVS, STEPS, EPOCHS, BATCH, EPISODES = 8, 256, 5, 64, 10
WARMUP, ROUNDS = 4, 16
HOPPER, TRAJECTORIES, SUBSAMPLE, TUNED = "Hopper-v4", 4, 20, "gail_seals_hopper_best_hp_eval"
EVALUATE_EVERY, CURVE_POINTS = 102_400, 22
FASTER, BARE_SHARE, SOONER, SCORE = 5.0, 0.5, 5.0, 0.9


def demonstrations(env_id: str, expert: str, episodes: int, folder: Path, every: int = 1, mode: bool = True) -> Path:
    """A file that both sides read, with seed 0: the same expert gives the same one."""
    envs = make(env_id, episodes, 0)
    spaces = envs.single_observation_space, envs.single_action_space
    transitions = collect(envs, load_expert(expert, env_id, *spaces, deterministic=mode), episodes, 0)
    envs.close()
    whole = Demonstrations(transitions, transitions.episode_returns(), {})
    path = folder / f"{env_id}.npz"
    write_demonstrations(path, subsample(whole, every, torch.Generator().manual_seed(0)))
    return path


def ours(part: str, env_id: str, file: Path) -> dict[str, float]:
    """A round of ours."""
    steps, pairs = DISCRIMINATOR[part]
    model: dict[str, Any] = {"discriminator_steps": steps, "batch_size": pairs, "replay_rounds": 0}
    discriminator: dict[str, Any] = {"activation": "relu"}  # as theirs, like what AIRL's reward reads
    if part == "airl":
        discriminator["state_only"] = False
    cls = {"gail": "Discriminator", "airl": "AIRLDiscriminator"}[part]
    model["discriminator"] = {"class_path": f"lit_imitation.{cls}", "init_args": discriminator}
    learner = {"epochs": EPOCHS, "batch_size": BATCH, "compile": True}
    model["learner"] = {"class_path": "lit_imitation.PPO", "init_args": learner}
    data = {"env_id": env_id, "demonstrations": str(file), "num_envs": ENVS, "steps_per_round": STEPS}
    data |= {"rounds_per_epoch": WARMUP + ROUNDS, "eval_episodes": 0}
    config = {
        "model": {"class_path": f"lit_imitation.{part.upper()}", "init_args": model},
        "data": {"class_path": "lit_imitation.ImitationDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False},
    }
    return rl.fit(config, WARMUP)


def theirs(worker: Worker) -> dict[str, float]:
    """A round of theirs."""
    worker.ask({"seed": 0})
    worker.ask({"rounds": WARMUP})
    answer = worker.ask({"rounds": ROUNDS})
    return {"round": answer["seconds"] / ROUNDS, "env_steps": answer["env_steps"] / ROUNDS}


def equal_work(part: str, env_id: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Both on one environment."""
    file = demonstrations(env_id, EXPERT_OF[env_id], EPISODES, folder)
    steps, pairs = DISCRIMINATOR[part]
    request = {
        "method": part.upper(),
        "env_id": env_id,
        "demonstrations": str(file),
        "num_envs": ENVS,
        "algorithm": {"demo_batch_size": pairs, "n_disc_updates_per_round": steps},
        "ppo": {"n_steps": STEPS, "batch_size": BATCH, "n_epochs": EPOCHS},
    }
    worker = Worker(baseline_python(), "imitation_gail.py", request)
    contenders = {"ours": lambda: ours(part, env_id, file), "imitation": lambda: theirs(worker)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for name, contender in turns(contenders, repeats):
        runs[name].append(contender())
        print(part, env_id, name, runs[name][-1], flush=True)
    worker.close()
    rates = {name: [run["env_steps"] / run["round"] for run in ran] for name, ran in runs.items()}
    return {
        "method": part.upper(),
        "env_id": env_id,
        "runs": runs,
        "env_steps_per_second": rates,
        "ours_over_imitation": ratios(rates["ours"], rates["imitation"]),
        "imitation_versions": worker.versions,
    }


class Recorded:
    """The training environments of a run, and the actions that they were given."""

    def __init__(self) -> None:
        self.actions: list[NDArray[Any]] = []
        self._make = RolloutDataModule.training_envs

    def __enter__(self) -> Recorded:
        def training_envs(data: RolloutDataModule, seed: int) -> VectorEnv[Any, Any, Any]:
            fresh = data._training_envs is None
            envs = self._make(data, seed)
            if fresh:
                step = envs.step

                def noting(actions: NDArray[Any]) -> Any:
                    self.actions.append(actions)
                    return step(actions)

                envs.step = noting  # type: ignore[method-assign]
                self.seed = seed
            return envs

        RolloutDataModule.training_envs = training_envs  # type: ignore[method-assign]
        return self

    def __exit__(self, *exception: object) -> None:
        RolloutDataModule.training_envs = self._make  # type: ignore[method-assign]


def recipe_share() -> tuple[dict[str, float], float]:
    """A round of the recipe, and its steps in the bare environment."""
    warmup, counted = 10, 40
    config = yaml.safe_load(RECIPE.read_text())
    data = config["data"]["init_args"]
    data.pop("env_steps")
    data |= {"rounds_per_epoch": warmup + counted, "eval_episodes": 0}
    config["trainer"] = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False}
    with Recorded() as recorded:
        parts = rl.fit(config, warmup)
    envs = make(data["env_id"], data["num_envs"], recorded.seed)
    envs.reset(seed=recorded.seed)
    before = warmup * data["steps_per_round"]
    for action in recorded.actions[:before]:
        envs.step(action)
    start = time.perf_counter()
    for action in recorded.actions[before:]:
        envs.step(action)
    seconds = (time.perf_counter() - start) / counted
    envs.close()
    return parts, seconds


def hopper(folder: Path) -> tuple[Path, float]:
    """Demonstrations for `reach` and `curve`, and the return of the expert's mode.

    Raises:
        FileNotFoundError: no such expert here.
    """
    expert = EXPERTS / "policies" / f"{HOPPER}-trpo.npz"
    if not expert.exists():
        raise FileNotFoundError(f"{expert} is not there; set $LIT_IMITATION_EXPERTS")
    spec = f"npz:{expert}"
    envs = make(HOPPER, 10, 0)
    spaces = envs.single_observation_space, envs.single_action_space
    returns = collect(envs, load_expert(spec, HOPPER, *spaces), 10, 0).episode_returns()
    envs.close()
    return demonstrations(HOPPER, spec, TRAJECTORIES, folder, SUBSAMPLE, mode=False), float(returns.mean())


def curve(folder: Path) -> None:
    """Record `imitation`, point by point, and write each at once."""
    file, expert_return = hopper(folder)
    request = {"method": "GAIL", "env_id": HOPPER, "demonstrations": str(file), "num_envs": 8, "tuned": TUNED}
    worker = Worker(baseline_python(), "imitation_gail.py", request)
    settings = worker.ask({"seed": 0})["settings"]
    rounds = EVALUATE_EVERY // settings["rl"]["batch_size"]
    result = machine() | {
        "made": f"python -m experiments.speed.adversarial curve: {TRAJECTORIES} trajectories of {HOPPER}-trpo.npz, sampled, 1 "
        f"step in {SUBSAMPLE} (seed 0); imitation's GAIL with scripts/config/tuned_hps/{TUNED}.json, 8 environments "
        "one after the other, one thread, seed 0; 10 episodes of the mode a point, in none of the seconds",
        "imitation_versions": worker.versions,
        "settings": settings,
        "expert_return": expert_return,
    }
    points: list[dict[str, Any]] = []
    last = {"env_steps": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    for _ in range(CURVE_POINTS):
        trained, returns = worker.ask({"rounds": rounds}), worker.ask({"episodes": 10})["returns"]
        last = {name: value + trained[name] for name, value in last.items()}
        points.append(last | {"return_mean": mean(returns)})
        print("imitation", points[-1], flush=True)
        save("imitation_hopper", result | {"points": points})
    worker.close()


class Points(Callback):
    """At each validation the return, and the seconds of training up to it, without evaluation."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self._away = np.zeros(2)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._start = clocks()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop them."""
        self._stopped = clocks()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the point, and go on."""
        seconds, cpu_seconds = (self._stopped - self._start - self._away).tolist()
        self.points.append(
            {
                "env_steps": pl_module.env_steps,  # type: ignore[dict-item]
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "return_mean": pl_module.evaluation["return_mean"],  # type: ignore[index]
            }
        )
        self._away += clocks() - self._stopped


def clocks() -> NDArray[np.float64]:
    """The wall's and the processor's."""
    return np.array([time.perf_counter(), time.process_time()])


def reach(folder: Path, seeds: int) -> dict[str, Any]:
    """Ours beside the recorded curve."""
    file, expert_return = hopper(folder)
    recorded = json.loads((RESULTS / "imitation_hopper.json").read_text())
    wanted = SCORE * expert_return
    runs = []
    for seed in range(seeds):
        config = yaml.safe_load(TABLE.read_text())
        data = config["data"]["init_args"]
        for name in ("expert", "expert_deterministic", "expert_trajectories", "subsample"):
            data.pop(name)
        data |= {"env_id": HOPPER, "demonstrations": str(file), "val_fraction": 0.0}
        config |= {"seed_everything": seed}
        config["trainer"] = {"accelerator": "cpu", "enable_checkpointing": False}
        points = Points()

        class WithPoints(lightning_cli.CLI):
            def before_fit(self, points: Points = points) -> None:
                self.trainer.callbacks.append(points)

            def after_fit(self) -> None:
                pass

        with fresh_cache():  # so that the gradients are compiled as on the first day
            rl.run(config, WithPoints)
        runs.append({"seed": seed, "points": points.points, **reached(points.points, wanted)})
        print("ours", seed, {name: value for name, value in runs[-1].items() if name != "points"}, flush=True)
    theirs = reached(recorded["points"], wanted)
    return {
        "env_id": HOPPER,
        "expert_return": expert_return,
        "ours": runs,
        "imitation": theirs,
        "sooner": {
            when: {
                clock: [_over(theirs[when], run[when], clock) for run in runs] for clock in ("seconds", "cpu_seconds")
            }
            for when in ("first", "for_good")
        },
    }


def reached(points: list[dict[str, Any]], wanted: float) -> dict[str, Any]:
    """The first point with the return, and the first after which no point is without it; None where there is none."""
    enough = [point["return_mean"] >= wanted for point in points]
    first = next((point for point, yes in zip(points, enough, strict=True) if yes), None)
    last_without = max((i for i, yes in enumerate(enough) if not yes), default=-1)
    for_good = points[last_without + 1] if last_without + 1 < len(points) else None
    return {"first": first, "for_good": for_good}


def _over(theirs: dict[str, Any] | None, ours: dict[str, Any] | None, clock: str) -> float | None:
    return theirs[clock] / ours[clock] if theirs is not None and ours is not None else None


def main() -> None:
    """Measure what was asked for, print a table, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} and curve (default: all but curve)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="of ours in `reach`")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - {*PARTS, "curve"}:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    if not (EXPERTS / "policies" / f"{HOPPER}-trpo.npz").exists():
        print(f"`reach` and `curve` are skipped: the expert is not in {EXPERTS} (set $LIT_IMITATION_EXPERTS)")
        parts = [part for part in parts if part not in ("reach", "curve")]
    file = RESULTS / "adversarial.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "curve" in parts:
            curve(folder)
        for part in ("gail", "airl"):
            if part in parts:
                rows = [equal_work(part, env_id, options.repeats, folder) for env_id in EXPERT_OF]
                result[part] = machine() | {"rows": rows}
        if "share" in parts:
            pairs = [recipe_share() for _ in range(options.repeats)]
            result["share"] = machine() | {
                "seconds": [parts | {"bare": seconds} for parts, seconds in pairs],
                "share_of_bare": ratios([seconds for _, seconds in pairs], [parts["round"] for parts, _ in pairs]),
            }
        if "reach" in parts:
            result["reach"] = machine() | reach(folder, options.seeds)
    print(f"\n{adversarial_speed(result)}")
    print(f"\ntargets: {FASTER} × as fast, {BARE_SHARE:.0%} of the bare rate, {SOONER} × sooner")
    print(f"written: {save('adversarial', result)}")
    refresh()


if __name__ == "__main__":
    main()
