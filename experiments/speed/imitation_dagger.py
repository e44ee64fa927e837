"""The `imitation` library's DAgger as a worker that times itself; runs in a virtual environment without our package.

The first request says what to train. Then `{"seed", "rounds"}` is answered by one run's seconds, of wall clock and
processor, in total and per phase, and by its counts.
"""

import os
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch
from imitation.algorithms import dagger
from imitation.algorithms.bc import BC
from imitation.data.types import TrajectoryWithRew
from imitation.util.util import make_vec_env
from imitation_serve import serve
from stable_baselines3.common.policies import BasePolicy

torch.set_num_threads(1)


class Scripted(BasePolicy):
    """A function of batches of observations as a policy."""

    def __init__(self, observation_space, action_space, law):
        super().__init__(observation_space, action_space)
        self.law = law

    def _predict(self, observation, deterministic=False):
        return torch.from_numpy(self.law(observation.numpy()))


def read(path):
    """The demonstrations of the first round."""
    arrays = np.load(path, allow_pickle=False)
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    return [
        TrajectoryWithRew(
            obs=np.concatenate([arrays["observations"][rows], arrays["next_observations"][rows][-1:]]),
            acts=arrays["actions"][rows],
            infos=None,
            terminal=bool(arrays["terminals"][rows][-1]),
            rews=arrays["rewards"][rows],
        )
        for rows in map(slice, [0, *ends[:-1]], ends)
    ]


def clock():
    """Seconds of the wall clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def run(task, seed, rounds):
    """One run: its seconds per phase and its counts."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    spent = {phase: np.zeros(2) for phase in ("collecting", "evaluating", "loading", "training")}
    counts = {"transitions": 0, "gradient_steps": 0}
    phase = None

    def timed(work, name):
        def clocked(*args, **kwargs):
            nonlocal phase
            outer, phase, start = phase, name, clock()
            result = work(*args, **kwargs)
            elapsed = clock() - start
            spent[name] += elapsed
            if outer is not None:
                spent[outer] -= elapsed
            phase = outer
            return result

        return clocked

    def counted_optimize(*args, **kwargs):
        counts["gradient_steps"] += 1
        return optimize(*args, **kwargs)

    def counted_step():
        if phase == "collecting":
            counts["transitions"] += venv.num_envs
        return step()

    def generate(policy, venv, *args, **kwargs):
        # `imitation` logs episode statistics in the environment itself.
        name = "collecting" if isinstance(venv, dagger.InteractiveTrajectoryCollector) else "evaluating"
        return timed(library, name)(policy, venv, *args, **kwargs)

    demonstrations = read(task["demonstrations"])
    library = dagger.rollout.generate_trajectories
    with tempfile.TemporaryDirectory() as scratch:
        start = clock()
        venv = make_vec_env(task["env_id"], rng=rng, n_envs=task["num_envs"])
        bc = BC(
            observation_space=venv.observation_space,
            action_space=venv.action_space,
            rng=rng,
            batch_size=task["batch_size"],
            ent_weight=0.0,
            device="cpu",
        )
        trainer = dagger.SimpleDAggerTrainer(
            venv=venv,
            scratch_dir=scratch,
            expert_policy=Scripted(venv.observation_space, venv.action_space, task["law"]),
            rng=rng,
            expert_trajs=demonstrations,
            beta_schedule=dagger.LinearBetaSchedule(task["beta_rounds"]),
            bc_trainer=bc,
        )
        optimize, step = bc.optimizer.step, venv.step_wait
        bc.optimizer.step, venv.step_wait = counted_optimize, counted_step
        bc.train, trainer._try_load_demos = timed(bc.train, "training"), timed(trainer._try_load_demos, "loading")
        dagger.rollout.generate_trajectories = generate
        try:
            trainer.extend_and_update({"n_epochs": task["epochs_per_round"]})
            for _ in range(rounds):
                # After that many episodes every environment still ends its current one: `num_envs` − 1 more.
                # One call per round, because a number of steps ends a call.
                trainer.train(
                    total_timesteps=1,
                    rollout_round_min_episodes=task["episodes_per_round"] - task["num_envs"] + 1,
                    rollout_round_min_timesteps=1,
                    bc_train_kwargs={"n_epochs": task["epochs_per_round"]},
                )
        finally:
            dagger.rollout.generate_trajectories = library
        spent["all"] = clock() - start
        venv.close()
        collected = trainer._all_demos[len(demonstrations) :]
        counts |= {"episodes": len(collected), "labels": sum(len(one) for one in collected)}
    seconds = [{name: float(value[i]) for name, value in spent.items()} for i in (0, 1)]
    return {"seconds": seconds[0], "cpu_seconds": seconds[1], "counts": counts}


def start(task):
    """Define the expert."""
    names = {"np": np, "Array": np.ndarray}
    exec(task["expert"], names)
    task["law"] = names[task["expert_name"]]
    return lambda request: run(task, **request)


serve(start, ("imitation", "torch", "stable-baselines3", "gymnasium", "Box2D", "numpy", "datasets"))
