"""DAgger on LunarLander: our `fit` and the `imitation` library's SimpleDAggerTrainer; collection and bare stepping.

Both run 10 rounds of 20 episodes on 10 environments, on one thread, after a round on the same 20 episodes of the
scripted pilot, which is the expert on both sides. Network (2×32, tanh), loss, batch size, epochs and β are equal. The
contenders take turns and a ratio is taken within each turn, so that a machine that slows down for a while slows both.

The time runs from making the environments to the end of the last round, with everything that either side writes and
logs by default. Evaluation is subtracted from both (by default ours plays 10 episodes after each round, `imitation` at
least 5 every 500 gradient steps); the ratio with evaluation is in the results as well. Different learners fly longer or
shorter episodes and so train on more or fewer labels. A second ratio is therefore at equal counts: its numerator gives
`imitation` our counts, at its own seconds per label for collecting and loading and its own seconds per gradient step.
All ratios are also given in processor seconds, which depend less on other work of the machine.

The bare environment is timed within our runs, after each round: `envs.step` is given the actions of the round, from the
same seed, so that both simulate the same. These seconds are subtracted from ours too.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib.util
import inspect
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from experiments.markdown import table
from experiments.speed.common import machine, ratios, run_fit, save, turns
from experiments.speed.peer import Worker, start_or_skip
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.experts import scripted
from lit_imitation.methods.dagger.callback import DAggerCallback
from lit_imitation.rollout import collect
from lit_imitation.training.lightning_cli import CLI

ENV_ID, THEIR_ENV_ID = "LunarLander-v3", "LunarLander-v2"
"""Version 3 fixed the wind, which is off in both; the Gymnasium that `imitation` needs has only version 2."""
ROUNDS, EPISODES, ENVS, EPOCHS, BATCH, BETA_ROUNDS = 10, 20, 10, 4, 32, 15
IMITATION_LIMIT, COLLECTION_LIMIT = 5.0, 0.6
CLOCKS = ("seconds", "cpu_seconds")
SHOWN = ("as_it_is", "at_equal_counts", "with_evaluation")
BACKENDS = ["envpool", "sync"] if importlib.util.find_spec("envpool") else ["sync"]
"""The first is the one that `auto` selects; `imitation` steps the same Python environments as `sync`."""


class TimedFit(CLI):
    """The command `fit` without the final test, and the time of its phases."""

    outcome: dict[str, Any]

    def before_fit(self) -> None:
        """Start the clock, and time the phases."""
        trainer, data = self.trainer, self.datamodule
        (dagger,) = (one for one in trainer.callbacks if isinstance(one, DAggerCallback))
        self._spent: dict[str, list[NDArray[Any]]] = {"collecting": [], "bare": [], "evaluating": []}
        self._steps: list[int] = []  # of all environments together, in each round
        taken: list[NDArray[Any]] = []
        make_envs = data.make

        def watched(num_envs: int) -> VectorEnv[Any, Any, Any]:
            envs = make_envs(num_envs)
            self._reset, self._step = envs.reset, envs.step
            envs.reset, envs.step = reset, step  # type: ignore[method-assign]
            return envs

        def reset(*, seed: int) -> Any:
            self._seed = seed
            return self._reset(seed=seed)

        def step(action: NDArray[Any]) -> Any:
            taken.append(action)
            return self._step(action)

        def collected(*arguments: Any) -> None:
            data.make = watched
            collect(*arguments)
            data.make = make_envs
            bare()
            self._steps.append(len(taken))
            taken.clear()

        @timed(self._spent["bare"])
        def bare() -> None:
            self._reset(seed=self._seed)
            for action in taken:
                self._step(action)

        loop = trainer.fit_loop.epoch_loop.val_loop
        collect = timed(self._spent["collecting"])(dagger.collect)
        dagger.collect = collected
        loop.run = timed(self._spent["evaluating"])(loop.run)
        self._start = clock()

    def after_fit(self) -> None:
        """Stop it."""
        spent = {name: np.sum(values, axis=0) for name, values in self._spent.items()}
        spent["all"] = clock() - self._start - spent.pop("bare")
        spent["training"] = spent["all"] - spent["collecting"] - spent["evaluating"]
        wall, cpu = ({name: float(value[i]) for name, value in spent.items()} for i in (0, 1))
        TimedFit.outcome = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "counts": {
                "transitions": ENVS * sum(self._steps),
                "episodes": EPISODES * len(self._steps),
                "labels": self.model.env_steps,
                "gradient_steps": self.trainer.global_step,
            },
            "rounds": {
                "transitions": [ENVS * steps for steps in self._steps],
                **{name: [float(value[0]) for value in self._spent[name]] for name in ("collecting", "bare")},
            },
        }


def clock() -> NDArray[Any]:
    """Seconds of the wall clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def timed(spent: list[NDArray[Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that appends the seconds of each call to `spent`."""

    def decorate(work: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = work(*args, **kwargs)
            spent.append(clock() - start)
            return result

        return clocked

    return decorate


def ours(demonstrations: Path, backend: str, rounds: int, seed: int) -> dict[str, Any]:
    """One run of `fit`: seconds and counts."""
    recipe = {
        "seed_everything": seed,
        "model": {
            "class_path": "lit_imitation.BC",
            "init_args": {
                "policy": {
                    "class_path": "lit_imitation.CategoricalPolicy",
                    "init_args": {"hidden_sizes": [32, 32], "activation": "tanh"},
                },
                "learning_rate": 1e-3,
            },
        },
        "data": {
            "class_path": "lit_imitation.DemonstrationDataModule",
            "init_args": {
                "env_id": ENV_ID,
                "demonstrations": str(demonstrations),
                "expert": "scripted",
                "val_fraction": 0.0,
                "batch_size": BATCH,
                "num_envs": ENVS,
                "backend": backend,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "check_val_every_n_epoch": EPOCHS,
            "callbacks": [
                {
                    "class_path": "lit_imitation.DAggerCallback",
                    "init_args": {
                        "beta": {
                            "class_path": "lit_imitation.methods.dagger.schedules.LinearBeta",
                            "init_args": {"rounds": BETA_ROUNDS},
                        },
                        "rounds": rounds,
                        "episodes_per_round": EPISODES,
                        "epochs_per_round": EPOCHS,
                        "initial_episodes": EPISODES,
                    },
                }
            ],
        },
    }
    run_fit(recipe, TimedFit)
    return TimedFit.outcome


def start_imitation(demonstrations: Path) -> Worker | None:
    """The worker of `imitation_dagger.py` with our expert's source, or None where it cannot be installed."""
    functions = (scripted._lander_errors, scripted.lunar_lander)
    request = {
        "demonstrations": str(demonstrations),
        "expert": "\n\n".join(inspect.getsource(function) for function in functions),
        "expert_name": scripted.lunar_lander.__name__,
        "env_id": THEIR_ENV_ID,
        "num_envs": ENVS,
        "episodes_per_round": EPISODES,
        "epochs_per_round": EPOCHS,
        "batch_size": BATCH,
        "beta_rounds": BETA_ROUNDS,
    }
    return start_or_skip("imitation_dagger.py", request)


def at_our_counts(theirs: dict[str, Any], mine: dict[str, Any], clock: str) -> float:
    """Seconds of their run if it had collected our labels and taken our gradient steps."""
    seconds = theirs[clock]
    collecting, training = seconds["collecting"] + seconds["loading"], seconds["training"]
    rest = seconds["all"] - seconds["evaluating"] - collecting - training
    labels, steps = (mine["counts"][name] / theirs["counts"][name] for name in ("labels", "gradient_steps"))
    return float(rest + labels * collecting + steps * training)


def compared(theirs: list[dict[str, Any]], mine: list[dict[str, Any]], clock: str) -> dict[str, Any]:
    """Their time over ours."""

    def per(runs: list[dict[str, Any]], phases: list[str], count: str) -> list[float]:
        return [sum(run[clock][phase] for phase in phases) / run["counts"][count] for run in runs]

    def without_evaluation(runs: list[dict[str, Any]]) -> list[float]:
        return [run[clock]["all"] - run[clock]["evaluating"] for run in runs]

    equal = [at_our_counts(a, b, clock) for a, b in zip(theirs, mine, strict=True)]
    return {
        "as_it_is": ratios(without_evaluation(theirs), without_evaluation(mine)),
        "at_equal_counts": ratios(equal, without_evaluation(mine)),
        "with_evaluation": ratios([run[clock]["all"] for run in theirs], [run[clock]["all"] for run in mine]),
        "training_per_gradient_step": ratios(
            per(theirs, ["training"], "gradient_steps"), per(mine, ["training"], "gradient_steps")
        ),
        "collecting_per_label": ratios(
            per(theirs, ["collecting", "loading"], "labels"), per(mine, ["collecting"], "labels")
        ),
    }


def collection(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates of collection and of the bare environment over all rounds, and their ratio within each round."""
    rounds = {name: [value for run in runs for value in run["rounds"][name]] for name in runs[0]["rounds"]}
    return {
        "transitions_per_second": {
            name: median(n / t for n, t in zip(rounds["transitions"], rounds[name], strict=True))
            for name in ("collecting", "bare")
        },
        "share_of_bare": ratios(rounds["bare"], rounds["collecting"]),
    }


def main() -> None:
    """Measure, print a table, write `results/dagger.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer to try it out; results are then not written")
    parser.add_argument("--profile", action="store_true", help="print where our time goes")
    parser.add_argument("--no-imitation", action="store_true", help="omit the imitation library")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = machine() | {"rounds": arguments.rounds, "episodes_per_round": EPISODES, "num_envs": ENVS}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "demonstrations.npz"
        envs = make(ENV_ID, ENVS, 0, "sync")
        data = collect(envs, scripted.lunar_lander, EPISODES, 0)
        envs.close()
        write_demonstrations(file, Demonstrations(data, data.episode_returns(), {}))
        contenders: dict[str, Any] = {
            backend: lambda rounds, seed, backend=backend: ours(file, backend, rounds, seed) for backend in BACKENDS
        }
        worker = None if arguments.no_imitation else start_imitation(file)
        if worker is not None:
            ask = worker.ask
            contenders["imitation"] = lambda rounds, seed: ask({"rounds": rounds, "seed": seed})
            result["imitation_versions"] = worker.versions
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for contender in contenders.values():
            contender(1, 0)  # imports and first allocations
        for name, contender in turns(contenders, arguments.repeats):
            last = contender(arguments.rounds, len(runs[name])) | {"load": os.getloadavg()[0]}
            runs[name].append(last)
            phases = ", ".join(f"{phase} {value:.1f}" for phase, value in last["seconds"].items())
            print(f"{name}: seconds {phases}; {last['counts']}; load {last['load']:.1f}", flush=True)
        if worker is not None:
            worker.close()
        result["runs"] = runs
        result["collection"] = {backend: collection(runs[backend]) for backend in BACKENDS}
        titles = [f"× {name.replace('_', ' ')} (CPU)" for name in SHOWN]
        rows = [["DAgger, 2×32, batch 32", "seconds", "labels", "gradient steps", *titles]]
        if worker is not None:
            result["imitation_over_ours"] = {
                backend: {clock: compared(runs["imitation"], runs[backend], clock) for clock in CLOCKS}
                for backend in BACKENDS
            }
        for name, done in runs.items():
            middle = [f"{median(run['seconds']['all'] - run['seconds']['evaluating'] for run in done):.1f}"]
            middle += [f"{median(run['counts'][count] for run in done):,.0f}" for count in ("labels", "gradient_steps")]
            if worker is not None and name in BACKENDS:
                wall, cpu = (result["imitation_over_ours"][name][clock] for clock in CLOCKS)
                middle += [f"{wall[key]['median']:.2f} ({cpu[key]['median']:.2f})" for key in SHOWN]
            else:
                middle += [""] * len(SHOWN)
            rows.append([name if name not in BACKENDS else f"ours, {name}", *middle])
        print(f"\n{table(rows[0], rows[1:])}\n")
        rows = [["collecting", "bare transitions/s", "ours transitions/s", f"share (target ≥ {COLLECTION_LIMIT})"]]
        for backend, measured in result["collection"].items():
            rate = measured["transitions_per_second"]
            share = f"{measured['share_of_bare']['median']:.2f}"
            rows.append([backend, f"{rate['bare']:,.0f}", f"{rate['collecting']:,.0f}", share])
        print(table(rows[0], rows[1:]))
        if arguments.rounds == ROUNDS:
            print(f"\nwritten: {save('dagger', result)}")
        if arguments.profile:
            profiler = cProfile.Profile()
            profiler.runcall(contenders[BACKENDS[0]], arguments.rounds, 0)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
