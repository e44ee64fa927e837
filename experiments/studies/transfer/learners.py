"""The runs of the study: RL on a fixed reward, true or learned, and imitation."""

from __future__ import annotations

import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.studies.common import Result, fit
from experiments.studies.finetune.learners import NETWORK, WEIGHTS, Curve, play, restored
from experiments.studies.transfer.worlds import WORLDS, World
from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import make
from lit_imitation.methods import AIRL, GAIL, RL
from lit_imitation.metrics.epic import EPIC, pearson_distance
from lit_imitation.policies import PolicyFactory, SquashedGaussianPolicy
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.rewards import AIRLDiscriminator, Discriminator, LearnedReward, load_reward
from lit_imitation.rl import PPO, LearnerFactory
from lit_imitation.rollout import Actor, Round
from lit_imitation.training.run import LastCheckpoint
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import RandomStream, derive_seed

ACTIONS = 64
"""Drawn at each state, over which a reward of state and action is averaged to compare it with one of the state."""
SAMPLES = 128
"""Number of samples of EPIC's expectation."""
REWARD_KEYS = ("reward", "state_dict")
"""The parts of a checkpoint that `load_reward` reads."""
POLICY: PolicyFactory = partial(SquashedGaussianPolicy, **NETWORK)
"""Policy of experts and imitators. Its entropy is that of the executed actions, unlike a clipped Gaussian's."""


class MaximumEntropy(RL):
    """`RL` with the reward r(s, a) − α log π(a | s): the objective of the expert that AIRL has in mind.

    An entropy coefficient of PPO is something else: it looks at the entropy of the present state alone.

    Args:
        learner: Learner, as for `RL`.
        policy: Policy, as for `RL`.
        temperature: α; π is a density over actions in units of half their range, as in `AIRLDiscriminator`.
    """

    def __init__(self, learner: LearnerFactory, policy: PolicyFactory, temperature: float) -> None:
        super().__init__(learner, policy)
        self.temperature = temperature

    @torch.no_grad()
    def relabel_rewards(self, batch: Round) -> Round:
        """The round, each reward with its share of the entropy."""
        rollout = batch.rollout.clone(recurse=False)
        head = self.policy.head(rollout.observation.flatten(0, 1))
        log_prob = self.policy.executed_log_prob(head, rollout.action.flatten(0, 1)).view_as(rollout.reward)
        rollout.reward = rollout.reward - self.temperature * log_prob
        return batch._replace(rollout=rollout)


def reinforced(
    world: str,
    where: str,
    rounds: dict[str, Any],
    ppo: dict[str, Any],
    episodes: int,
    seed: int,
    origin: dict[str, Any] | None = None,
    reward: Path | None = None,
    temperature: float | None = None,
) -> Result:
    """A fresh policy, by PPO on the true reward or on one that was learned before.

    Args:
        world: Key of `WORLDS`.
        where: `source` or `target`.
        rounds: Arguments of `RolloutDataModule`.
        ppo: Arguments of `PPO`.
        episodes: Number of episodes measured at the end.
        seed: Seed of everything.
        origin: Arguments with which `reward` was made.
        reward: File with a result of `adversarial`, whose reward trains the policy; the true reward is measured.
        temperature: Entropy weight of `MaximumEntropy`, for an expert on the true reward; None for no entropy.

    Returns:
        `returns: [episodes]`, `path: [T, obs]` of the first of them, the `curve` over `env_steps`, and the `weights`.
    """
    pair = WORLDS[world]
    env_id: str = getattr(pair, where)
    seed = derive_seed(seed, env_id, "reinforced")
    curve = Curve()
    with tempfile.TemporaryDirectory() as directory, RandomStream(derive_seed(seed, "learner")):
        if reward is not None:
            file = unpacked(reward, directory)
        module = (
            RL(partial(PPO, **ppo), reward=None if reward is None else str(file))
            if temperature is None
            else MaximumEntropy(partial(PPO, **ppo), POLICY, temperature)
        )
        fit(module, RolloutDataModule(env_id, backend=pair.backend, seed=seed, **rounds), 1, directory, curve)
    state = module.policy.state_dict()
    weights: Result = {f"{WEIGHTS}{name}": value.numpy().copy() for name, value in state.items()}
    return weights | curve.result() | _measured(env_id, pair, module.actor(), episodes, seed)


def adversarial(
    world: str,
    method: str,
    rounds: dict[str, Any],
    ppo: dict[str, Any],
    discriminator: dict[str, Any],
    steps: dict[str, Any],
    teacher: dict[str, Any],
    demonstrations: int,
    episodes: int,
    seed: int,
    expert: Path,
) -> Result:
    """GAIL or AIRL in the source; how its policy fares in the target, as it is, and how good its reward is.

    Args:
        world: Key of `WORLDS`.
        method: `airl_state`, `airl_state_action` or `gail`.
        rounds: Arguments of `ImitationDataModule`.
        ppo: Arguments of `PPO`.
        discriminator: Arguments of `AIRLDiscriminator` or `Discriminator`.
        steps: Arguments of `AIRL` or `GAIL`.
        teacher: Arguments with which `expert` was made.
        demonstrations: Number of expert episodes with sampled actions, new ones for each seed.
        episodes: Number of episodes measured in each environment.
        seed: Seed of everything.
        expert: File with the result of `reinforced`.

    Returns:
        `checkpoint: [bytes]` with the reward; `source_returns` and `returns: [episodes]`, `path: [T, obs]` of the first
        in the target; `curve` over `env_steps` in the source; `correlation` and `epic`, `[]`, with the true reward, and
        `state_reward: [N]` at the world's states.
    """
    pair = WORLDS[world]
    seed = derive_seed(seed, pair.source, "adversarial")
    envs = make(pair.source, 1, 0, pair.backend)
    policy = restored(POLICY(envs.single_observation_space, envs.single_action_space), expert)
    envs.close()
    shown, data = play(
        pair.source, pair.backend, policy.eval().actor(deterministic=False), demonstrations,
        derive_seed(seed, "demonstrations"), record=True,
    )  # fmt: skip
    assert data is not None
    module: GAIL
    if method == "gail":
        module = GAIL(partial(Discriminator, **discriminator), partial(PPO, **ppo), POLICY, **steps)
    else:
        build = partial(AIRLDiscriminator, state_only=method == "airl_state", **discriminator)
        module = AIRL(build, learner=partial(PPO, **ppo), policy=POLICY, **steps)
    curve = Curve()
    with tempfile.TemporaryDirectory() as directory, RandomStream(derive_seed(seed, "learner")):
        source = ImitationDataModule(
            pair.source, demonstrations=data, val_fraction=0.0, backend=pair.backend, seed=seed, **rounds
        )  # fmt: skip
        fit(module, source, 1, directory, curve, LastCheckpoint())
        file = Path(directory) / "checkpoints" / "last.ckpt"
        whole = read_checkpoint(file)
        buffer = io.BytesIO()
        torch.save({key: whole[key] for key in REWARD_KEYS}, buffer)
        quality = compare(load_reward(file), pair, data)
    actor = module.actor()
    returns, _ = play(pair.source, pair.backend, actor, episodes, derive_seed(seed, "test"))
    kept: Result = {
        "checkpoint": np.frombuffer(buffer.getvalue(), np.uint8), "source_returns": returns, "shown_returns": shown,
    }  # fmt: skip
    return kept | curve.result() | _measured(pair.target, pair, actor, episodes, seed) | quality


def unpacked(result: Path, directory: str) -> Path:
    """The checkpoint in a result of `adversarial`, as a file for `load_reward`."""
    file = Path(directory) / "reward.ckpt"
    with np.load(result) as kept:
        file.write_bytes(kept["checkpoint"].tobytes())
    return file


def compare(reward: LearnedReward, pair: World, demonstrations: Transitions) -> Result:
    """Correlation of a learned reward with the true one over states, and their EPIC distance.

    Args:
        reward: Reward, as from `load_reward`.
        pair: The two environments.
        demonstrations: Transitions `[N]`.

    Returns:
        `correlation`, Pearson's ρ of the reward of states with the true one, `[]`; `epic`, the distance, `[]`; and
        `state_reward: [N]`, the mean over actions drawn uniformly of the learned reward at `pair.states`.
    """
    states = pair.states(demonstrations)
    found = over_actions(reward, states)
    distance = float(pearson_distance(found, pair.state_reward(states)))
    epic = EPIC(reward.reward, pair.true_reward, samples=SAMPLES)
    epic.update(pair.coverage(demonstrations, 0))
    return {
        "correlation": np.array(1.0 - 2.0 * distance**2),
        "epic": np.array(float(epic.compute())),
        "state_reward": found.numpy(),
    }


def over_actions(reward: LearnedReward, states: Tensor) -> Tensor:
    """`[N]`: the mean of the reward over `ACTIONS` actions drawn uniformly, the same at each of `states: [N, obs]`."""
    space = reward.spaces[1]
    space.seed(0)
    actions = torch.from_numpy(np.stack([space.sample() for _ in range(ACTIONS)]))
    never = torch.zeros(len(states), dtype=torch.bool)
    total = torch.zeros(len(states))
    for action in actions:
        total += reward.reward(
            Transitions(
                observation=states,
                action=action.expand(len(states), -1),
                reward=never.float(),
                terminated=never,
                truncated=never,
                next_observation=states,
                batch_size=never.shape,
            )
        )
    return total / ACTIONS


def _measured(env_id: str, pair: World, actor: Actor, episodes: int, seed: int) -> Result:
    """True returns of the actor, and where its first episode went."""
    returns, record = play(env_id, pair.backend, actor, episodes, derive_seed(seed, "test"), record=True)
    assert record is not None
    return {"returns": returns, "path": record.observation[: int(record.episode_lengths()[0])].numpy()}
