"""The compared learners: BC and DAgger, trained on equally many labels."""

from __future__ import annotations

import tempfile
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.studies.common import fit
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.envs import Backend, make
from lit_imitation.experts import CONTROLLERS
from lit_imitation.methods import BC
from lit_imitation.methods.dagger.callback import DAggerCallback
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.rollout import Steps
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import RandomStream, derive_seed


class Recipe(NamedTuple):
    """Settings of both learners."""

    labels: int
    """Number of expert actions for either learner."""
    initial: int
    """Number of labels that DAgger starts from; it asks for the others in `rounds` equal shares."""
    rounds: int
    episode: int
    """Steps after which collection restarts an episode."""
    epochs: int
    """Epochs in each of DAgger's `rounds` + 1; BC has the same total, and so more gradient steps."""
    learning_rate: float
    batch_size: int


class Learners(NamedTuple):
    """The learned policies and their data."""

    bc: Policy
    dagger: Policy
    """DAgger's policy of the last round, trained on all labels."""
    demonstrations: Transitions
    """`[labels]`: BC's data."""
    labels: NDArray[np.int64]
    """`[rounds + 1]`: DAgger's labels after each round."""
    disagreement: NDArray[np.float64]
    """`[rounds]`: share of a round's states where the learner that visited them would have acted otherwise."""


def train(
    env_id: str,
    recipe: Recipe,
    policy: PolicyFactory,
    env_kwargs: dict[str, Any],
    seed: int,
    backend: Backend = "vector",
) -> Learners:
    """Train BC, and DAgger (β = 0) with as many labels, on the scripted expert.

    Args:
        env_id: Environment.
        recipe: Settings of both learners.
        policy: Factory of both policies.
        env_kwargs: Arguments of the environment.
        seed: Seed of everything.
        backend: Backend of the environment; results differ between backends.
    """
    share = (recipe.labels - recipe.initial) // recipe.rounds
    demonstrator = derive_seed(seed, "demonstrations")
    envs = make(env_id, max(recipe.labels // recipe.episode, 1), demonstrator, backend, **env_kwargs)
    rollout = Steps(envs, CONTROLLERS[env_id], recipe.labels, demonstrator, record=True)
    for _ in rollout:
        pass
    envs.close()
    demonstrations = rollout.transitions()
    first = demonstrations.keep(torch.arange(recipe.labels) < recipe.initial)

    def learn(data: Transitions, epochs: int, callback: DAggerCallback | None) -> Policy:
        module = BC(policy, learning_rate=recipe.learning_rate)
        datamodule = DemonstrationDataModule(
            env_id,
            demonstrations=data,
            expert="scripted",
            val_fraction=0.0,
            batch_size=recipe.batch_size,
            env_kwargs=env_kwargs,
            backend=backend,
            num_envs=max(share // recipe.episode, 1),
            eval_episodes=0 if callback is None else 1,
            seed=seed,
        )
        with RandomStream(derive_seed(seed, "learner")), tempfile.TemporaryDirectory() as directory:
            fit(module, datamodule, epochs, directory, *(() if callback is None else (callback,)))
        return module.policy.eval()

    callback = DAggerCallback(rounds=recipe.rounds, steps_per_round=share, epochs_per_round=recipe.epochs)
    bc = learn(demonstrations, recipe.epochs * (recipe.rounds + 1), None)
    dagger = learn(first, recipe.epochs, callback)
    return Learners(
        bc,
        dagger,
        demonstrations,
        np.array([record["dataset_size"] for record in callback.records]),
        np.array([record["disagreement"] for record in callback.records[1:]], dtype=np.float64),
    )
