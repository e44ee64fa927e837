"""GAIL and AIRL against the `imitation` library's: environment steps per second, and time to the expert on Hopper.

Everything runs on one thread, pinned to one core, the library's process too. The contenders take turns and a ratio is
taken within each turn. Only environment steps that are transitions count, not those that start an episode. The parts,
any of which can be named:

- `gail`, `airl`: equal work in both. 8 environments, rounds of 2,048 steps, 5 epochs of 32 minibatches of 64, networks
  of 2×64; GAIL with 8 discriminator steps on 1,024 expert and 1,024 learner pairs, AIRL with 16 on 2,048 and 2,048.
  Both have the same demonstrations. Ours is the command `fit` with logging and diagnostics, without evaluation and
  checkpoints. The first rounds of both sides, in which ours compiles its gradients, are not counted.
- `share`: the recipe `configs/gail/hopper.yaml` unchanged, including learning, and the bare `env.step` of its
  environments with the actions of its training.
- `reach`: seconds to 0.9 of the expert's return on Hopper-v4, from 4 trajectories of the GAIL authors' expert, sampled
  from its Gaussian, 1 step in 20: ours with the settings of `tables/gail_table.yaml`, and the curve below. Both clocks
  stop during evaluation (10 episodes of the learner's mode every 102,400 steps on either side); ours starts with `fit`
  and includes compilation.
- `curve`, only if named: records the curve of `imitation` on the same demonstrations, with the settings that the
  library has tuned for GAIL on seals/Hopper, into `results/imitation_hopper.json`. About 10 minutes.

`reach` and `curve` read the expert from `$LIT_IMITATION_EXPERTS` or ../shared/experts, and are skipped without it.
Parts that are not measured keep their stored results.
"""

from __future__ import annotations

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

from experiments.render import adversarial_speed
from experiments.runner import EXPERTS, load
from experiments.speed import rl
from experiments.speed.common import RESULTS, ROOT, machine, measured, ratios, run_fit, save
from experiments.speed.peer import Worker
from lit_imitation.data.demonstrations import Demonstrations, subsample, write_demonstrations
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import make
from lit_imitation.experts import load_expert
from lit_imitation.rollout import collect
from lit_imitation.training.lightning_cli import CLI

RECIPE = ROOT / "configs" / "gail" / "hopper.yaml"
SHIPPED = ROOT / "lit_imitation" / "experts" / "shipped"
EXPERT_OF = {
    "CartPole-v1": "scripted",
    "Hopper-v4": f"npz:{SHIPPED / 'Hopper-v5.npz'}",
    "HalfCheetah-v4": f"npz:{SHIPPED / 'HalfCheetah-v5.npz'}",
}
"""Version 4 of MuJoCo's tasks is the last in the Gymnasium of `imitation`; an expert's observations are the same."""
PARTS = ("gail", "airl", "share", "reach")
DISCRIMINATOR = {"gail": (8, 1024), "airl": (16, 2048)}
"""Discriminator steps per round, and pairs of either side per step."""
ENVS, STEPS, EPOCHS, BATCH, EPISODES = 8, 256, 5, 64, 10
WARMUP, ROUNDS = 4, 16
HOPPER, TRAJECTORIES, SUBSAMPLE, TUNED = "Hopper-v4", 4, 20, "gail_seals_hopper_best_hp_eval"
EVALUATE_EVERY, CURVE_POINTS = 102_400, 22
FASTER, BARE_SHARE, SOONER, SCORE = 5.0, 0.5, 5.0, 0.9


def demonstrations(env_id: str, expert: str, episodes: int, folder: Path, every: int = 1, mode: bool = True) -> Path:
    """A file that both sides read; seed 0, so that the same expert gives the same file."""
    envs = make(env_id, episodes, 0)
    spaces = envs.single_observation_space, envs.single_action_space
    transitions = collect(envs, load_expert(expert, env_id, *spaces, deterministic=mode), episodes, 0)
    envs.close()
    whole = Demonstrations(transitions, transitions.episode_returns(), {})
    path = folder / f"{env_id}.npz"
    write_demonstrations(path, subsample(whole, every, torch.Generator().manual_seed(0)))
    return path


def ours(part: str, env_id: str, file: Path) -> dict[str, float]:
    """Seconds per round of ours."""
    steps, pairs = DISCRIMINATOR[part]
    model: dict[str, Any] = {"discriminator_steps": steps, "discriminator_batch_size": pairs, "replay_rounds": 0}
    discriminator: dict[str, Any] = {"activation": "relu"}  # as theirs, and so are the inputs of AIRL's reward
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
    """Seconds per round of theirs."""
    worker.ask({"seed": 0})
    worker.ask({"rounds": WARMUP})
    answer = worker.ask({"rounds": ROUNDS})
    return {"round": answer["seconds"] / ROUNDS, "env_steps": answer["env_steps"] / ROUNDS}


def equal_work(part: str, env_id: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Both sides on one environment."""
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
    worker = Worker("imitation_gail.py", request)
    contenders = {"ours": lambda: ours(part, env_id, file), "imitation": lambda: theirs(worker)}
    runs = measured(contenders, repeats, f"{part}, {env_id}")
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
    """Records the actions that a run's training environments are given."""

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
    """Seconds per round of the recipe, and of its steps in the bare environment."""
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
        FileNotFoundError: The expert is absent.
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
    """Record the curve of `imitation`; each point is written at once."""
    file, expert_return = hopper(folder)
    request = {"method": "GAIL", "env_id": HOPPER, "demonstrations": str(file), "num_envs": 8, "tuned": TUNED}
    worker = Worker("imitation_gail.py", request)
    settings = worker.ask({"seed": 0})["settings"]
    rounds = EVALUATE_EVERY // settings["rl"]["batch_size"]
    result = machine() | {
        "made": f"python -m experiments speed adversarial curve: {TRAJECTORIES} trajectories of {HOPPER}-trpo.npz, "
        f"sampled, 1 step in {SUBSAMPLE} (seed 0); imitation's GAIL with scripts/config/tuned_hps/{TUNED}.json, 8 "
        "environments one after the other, one thread, seed 0; 10 episodes of the mode a point, in none of the seconds",
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
    """Records at each validation the return and the seconds of training until then, without evaluation."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self._away = np.zeros(2)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._start = clocks()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clocks."""
        self._stopped = clocks()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the point, and restart the clocks."""
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
    """Seconds of wall clock and processor."""
    return np.array([time.perf_counter(), time.process_time()])


def reach(folder: Path, seeds: int) -> dict[str, Any]:
    """Ours against the recorded curve."""
    file, expert_return = hopper(folder)
    recorded = json.loads((RESULTS / "imitation_hopper.json").read_text())
    wanted = SCORE * expert_return
    row = next(row for row in load("gail_table") if row.name == "gail/hopper")
    runs = []
    for seed in range(seeds):
        config = row.recipe()
        data = config["data"]["init_args"]
        for name in ("expert", "expert_deterministic", "expert_trajectories", "subsample"):
            data.pop(name)
        data |= {"env_id": HOPPER, "demonstrations": str(file), "val_fraction": 0.0}
        config |= {"seed_everything": seed}
        config["trainer"] = {"accelerator": "cpu", "enable_checkpointing": False}
        points = Points()

        class WithPoints(CLI):
            def before_fit(self, points: Points = points) -> None:
                self.trainer.callbacks.append(points)

            def after_fit(self) -> None:
                pass

        torch._dynamo.reset()  # a process compiles one function for a limited number of objects
        with fresh_cache():  # so that the gradients are compiled again
            run_fit(config, WithPoints)
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
    """The first point with the return, and the first from which on all points have it; None if there is none."""
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
    parser.add_argument("--seeds", type=int, default=3, help="number of our seeds in `reach`")
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
