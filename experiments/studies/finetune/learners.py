"""The runs of the study: an expert, PPO from its clone, and PPO from scratch."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray

from experiments.studies.common import Result, fit
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import Backend, make
from lit_imitation.methods import BC, RL, Method
from lit_imitation.policies import CategoricalPolicy, GaussianPolicy, Policy, PolicyFactory
from lit_imitation.rl import PPO
from lit_imitation.rollout import ActorLike, Episodes
from lit_imitation.training.run import LastCheckpoint
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import RandomStream, derive_seed

NETWORK: dict[str, Any] = {"hidden_sizes": [64, 64], "activation": "tanh"}
"""Network of every policy: `PPO`'s default, so that a clone and a fresh policy differ only in weights."""
WEIGHTS = "policy."
"""Prefix of the names of an expert's weights in its result."""


class Curve(Callback):
    """Records `env_steps` and the mean return of the policy's mode before training and at each validation."""

    def __init__(self) -> None:
        self.env_steps: list[int] = []
        self.returns: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the untrained policy, with the episodes of validation."""
        assert isinstance(pl_module, Method)
        data = pl_module.datamodule
        episodes = data.rollouts("validation", data.eval_episodes)
        self._note(pl_module, float(np.mean([episode.episode_return for episode in episodes])))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the validation."""
        assert isinstance(pl_module, Method)
        self._note(pl_module, pl_module.evaluation["return_mean"])

    def _note(self, module: Method, value: float) -> None:
        self.env_steps.append(module.env_steps)
        self.returns.append(value)

    def result(self) -> Result:
        """The recorded arrays, `[validations + 1]` each."""
        return {"env_steps": np.array(self.env_steps), "curve": np.array(self.returns)}


def play(
    env_id: str, backend: Backend, actor: ActorLike, episodes: int, seed: int, *, record: bool = False
) -> tuple[NDArray[np.float64], Transitions | None]:
    """Returns `[episodes]` of an actor and, if recorded, the transitions."""
    envs = make(env_id, min(episodes, 20), seed, backend)
    run = Episodes(envs, actor, episodes, seed, record=record)
    returns = np.array([episode.episode_return for episode in run])
    envs.close()
    return returns, run.transitions() if record else None


def expert(
    env_id: str, backend: Backend, rounds: dict[str, Any], ppo: dict[str, Any], aim: float, episodes: int, seed: int
) -> Result:
    """PPO from scratch, stopped at the first validation with a mean return of `aim`.

    Args:
        env_id: Environment.
        backend: Backend of the environment; results differ between backends.
        rounds: Arguments of `RolloutDataModule`; `env_steps` limits the training.
        ppo: Arguments of `PPO`.
        aim: Mean validation return at which training stops.
        episodes: Number of new episodes measured after training.
        seed: Seed of everything.
    """
    seed = derive_seed(seed, env_id, "expert")
    curve = Curve()
    stop = EarlyStopping("val/return_mean", mode="max", stopping_threshold=aim, patience=1_000_000)
    with RandomStream(derive_seed(seed, "learner")), tempfile.TemporaryDirectory() as directory:
        module = RL(partial(PPO, **ppo))
        fit(module, RolloutDataModule(env_id, backend=backend, seed=seed, **rounds), 1, directory, curve, stop)
    weights = {f"{WEIGHTS}{name}": value.numpy().copy() for name, value in module.policy.state_dict().items()}
    returns, _ = play(env_id, backend, module.actor(), episodes, derive_seed(seed, "test"))
    return weights | curve.result() | {"returns": returns}


def scratch(
    env_id: str, backend: Backend, rounds: dict[str, Any], ppo: dict[str, Any], episodes: int, seed: int
) -> Result:
    """PPO without demonstrations; the final policy is measured.

    Args:
        env_id: Environment.
        backend: Backend of the environment.
        rounds: Arguments of `RolloutDataModule`.
        ppo: Arguments of `PPO`.
        episodes: Number of measured episodes.
        seed: Seed of everything.
    """
    seed = derive_seed(seed, env_id, "learner")
    with tempfile.TemporaryDirectory() as directory:
        return _reinforced(RL(partial(PPO, **ppo)), env_id, backend, rounds, episodes, seed, directory)


def finetuned(
    env_id: str,
    backend: Backend,
    rounds: dict[str, Any],
    ppo: dict[str, Any],
    teacher: dict[str, Any],
    demonstrations: int,
    bc: dict[str, Any],
    episodes: int,
    seed: int,
    expert: Path,
) -> Result:
    """Clone the expert, and start PPO from the clone.

    Args:
        env_id: Environment.
        backend: Backend of the environment.
        rounds: Arguments of `RolloutDataModule`.
        ppo: Arguments of `PPO`.
        teacher: Arguments with which `expert` was made.
        demonstrations: Number of cloned expert episodes, with sampled actions.
        bc: `epochs`, `batch_size`, and further arguments of `BC`.
        episodes: Number of measured episodes of the clone and of the fine-tuned policy.
        seed: Seed of everything.
        expert: File with the result of the function `expert`.
    """
    seed = derive_seed(seed, env_id, "learner")
    envs = make(env_id, 1, 0, backend)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    build: PolicyFactory = partial(CategoricalPolicy if isinstance(spaces[1], Discrete) else GaussianPolicy, **NETWORK)
    actor = restored(build(*spaces), expert).actor(deterministic=False)
    shown, data = play(env_id, backend, actor, demonstrations, derive_seed(seed, "demonstrations"), record=True)
    assert data is not None
    options = dict(bc)
    epochs, batch_size = options.pop("epochs"), options.pop("batch_size")
    with tempfile.TemporaryDirectory() as directory:
        with RandomStream(derive_seed(seed, "clone")):
            clone = BC(build, **options)
            source = DemonstrationDataModule(
                env_id,
                demonstrations=data,
                val_fraction=0.0,
                batch_size=batch_size,
                eval_episodes=0,
                backend=backend,
                seed=seed,
            )
            fit(clone, source, epochs, directory, LastCheckpoint())
        cloned, _ = play(env_id, backend, clone.actor(), episodes, derive_seed(seed, "test"))
        module = RL(partial(PPO, **ppo), start=directory)
        result = _reinforced(module, env_id, backend, rounds, episodes, seed, directory)
    return result | {"clone_returns": cloned, "shown_returns": shown, "labels": np.array(len(data))}


def restored(policy: Policy, file: Path) -> Policy:
    """`policy` with the weights in the result of `expert`."""
    with np.load(file) as result:
        names = [name for name in result.files if name.startswith(WEIGHTS)]
        policy.load_state_dict({name.removeprefix(WEIGHTS): torch.from_numpy(result[name]) for name in names})
    return policy


def _reinforced(
    module: RL, env_id: str, backend: Backend, rounds: dict[str, Any], episodes: int, seed: int, directory: str
) -> Result:
    curve = Curve()
    with RandomStream(derive_seed(seed, "learner")):
        fit(module, RolloutDataModule(env_id, backend=backend, seed=seed, **rounds), 1, directory, curve)
    returns, _ = play(env_id, backend, module.actor(), episodes, derive_seed(seed, "test"))
    return curve.result() | {"returns": returns}
