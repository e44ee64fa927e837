"""`TabularDataModule`: finite worlds with known transitions, and demonstrations in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_imitation.data.blocks import Blocks
from lit_imitation.data.module import EnvArguments, EnvironmentDataModule
from lit_imitation.data.trajectories import read_trajectories
from lit_imitation.envs.make import episode_limit, make_single
from lit_imitation.errors import ConfigError
from lit_imitation.rollout.reference import Reference
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Planning, solve
from lit_imitation.tabular.trajectories import Trajectories, sample_trajectories
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed

EXPERT_EPISODES = 1000
"""Number of episodes that measure the expert's return; fast, because the world is an array."""


class EvaluationWorld(NamedTuple):
    """World in which a learned reward is evaluated."""

    mdp: TabularMDP
    fresh: bool
    """Whether there are no demonstrations in this world."""


class TabularDataModule(EnvironmentDataModule):
    """Worlds as arrays, trajectories of state and action indices, and the first world as environment for evaluation.

    A batch is the indices `[B]` of its trajectories, counted over all worlds.

    Args:
        env_id: Environment whose transitions `TabularMDP.of_env` can read: FrozenLake, Taxi, CliffWalking, or
            `lit_imitation/GridWorld-v0`, `lit_imitation/ObjectWorld-v0`, `lit_imitation/BinaryWorld-v0`.
        world: Your own world, in place of `env_id`.
        demonstrations: File of trajectories (see `read_trajectories`), or a list of trajectories: states `[n + 1]`, or
            a pair of states and actions `[n]` (see `Trajectories.of`). Empty to sample them from the expert.
        expert: Expert for the true reward: `optimal`, or `soft` for the maximum causal entropy policy.
        expert_gamma: Discount factor of the expert.
        expert_trajectories: Number of trajectories sampled from the expert in each world.
        steps_per_trajectory: Largest length of the expert's trajectories; by default the environment's time limit, or
            100.
        num_worlds: Number of worlds with demonstrations. The first has the `world_seed` of `env_kwargs`, and each
            further one the next seed. With `world` there is only one.
        fresh_worlds: Number of further worlds without demonstrations, only for evaluating the reward.
        val_fraction: Fraction of each world's trajectories that is held out to measure their likelihood.
        batch_size: Size of the batch of one gradient step, over all processes together; by default all trajectories.
        passes_per_epoch: Passes over the data in one epoch. Validation and checkpoints fall between epochs.
        env_kwargs: Arguments of the environment.
        **environment: Arguments of `EnvironmentDataModule`.

    Raises:
        ConfigError: A value is out of range, or several worlds are asked for with `world`, or (in `setup`) with an
            environment that has no `world_seed`.
    """

    worlds: list[TabularMDP]
    """Worlds with demonstrations."""
    fresh: list[TabularMDP]
    """Worlds without demonstrations."""
    trajectories: list[Trajectories]
    """Training trajectories of each world in `worlds`."""
    held_out: list[Trajectories | None]
    """Held-out trajectories of each world; None if there are none."""

    def __init__(
        self,
        env_id: str = "",
        *,
        world: TabularMDP | None = None,
        demonstrations: str | Sequence[Any] = "",  # of `Trajectory`, a type that the command line's parser cannot read
        expert: Literal["optimal", "soft"] = "optimal",
        expert_gamma: float = 0.95,
        expert_trajectories: int = 64,
        steps_per_trajectory: int | None = None,
        num_worlds: int = 1,
        fresh_worlds: int = 0,
        val_fraction: float = 0.0,
        batch_size: int | None = None,
        passes_per_epoch: int = 10,
        env_kwargs: EnvArguments | None = None,
        **environment: Any,
    ) -> None:
        if bool(env_id) == (world is not None):
            raise ConfigError("set either data.env_id or data.world, not both")
        if world is not None:
            arguments: dict[str, Any] = {**(env_kwargs or {}), "world": world}
            env_id, env_kwargs = "lit_imitation/Tabular-v0", arguments
        super().__init__(env_id, env_kwargs=env_kwargs, **environment)
        check_at_least("data", 0, fresh_worlds=fresh_worlds)
        check_at_least(
            "data",
            1,
            expert_trajectories=expert_trajectories,
            steps_per_trajectory=steps_per_trajectory,
            num_worlds=num_worlds,
            batch_size=batch_size,
            passes_per_epoch=passes_per_epoch,
        )
        if not 0.0 <= val_fraction < 1.0:
            raise ConfigError(f"data.val_fraction is {val_fraction}; it must lie in [0, 1)")
        if not 0.0 < expert_gamma < 1.0:
            raise ConfigError(f"data.expert_gamma is {expert_gamma}; it must lie in (0, 1)")
        if expert not in ("optimal", "soft"):
            raise ConfigError(f"data.expert is {expert!r}; choose optimal or soft")
        if num_worlds > 1 and demonstrations:
            raise ConfigError(
                "data.demonstrations belong to one world; with data.num_worlds above 1 they come from the expert: "
                "leave data.demonstrations empty"
            )
        if num_worlds + fresh_worlds > 1 and isinstance(self.env_kwargs.get("world"), TabularMDP):
            raise ConfigError(
                f"{_several(num_worlds)} asks for several worlds, but data.world is a single one: take an environment "
                "with a world_seed, like data.env_id lit_imitation/GridWorld-v0, or leave data.num_worlds 1 and "
                "data.fresh_worlds 0"
            )
        self.demonstrations, self.expert, self.expert_gamma = demonstrations, expert, expert_gamma
        self.expert_trajectories, self.steps_per_trajectory = expert_trajectories, steps_per_trajectory
        self.num_worlds, self.fresh_worlds = num_worlds, fresh_worlds
        self.val_fraction, self.batch_size, self.passes_per_epoch = val_fraction, batch_size, passes_per_epoch

    def setup(self, stage: str) -> None:
        """Build the worlds; read or sample demonstrations, which `test` and `predict` do not need."""
        if not hasattr(self, "worlds"):
            every = [self._world(i) for i in range(self.num_worlds + self.fresh_worlds)]
            self.worlds, self.fresh = every[: self.num_worlds], every[self.num_worlds :]
        if stage not in ("fit", "validate") or hasattr(self, "trajectories"):
            return
        if isinstance(self.demonstrations, str) and not self.demonstrations:
            self.trajectories = [self._sample_expert(i, mdp) for i, mdp in enumerate(self.worlds)]
            self.set_reference(self._expert_return(self.worlds[0]), comparable=True)
        elif isinstance(self.demonstrations, str):
            self.trajectories = [read_trajectories(self.demonstrations)]
        else:
            self.trajectories = [Trajectories.from_arrays(self.demonstrations)]
        self.held_out = [None] * len(self.trajectories)
        if self.val_fraction:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "held out"))
            parts = [one.split(self.val_fraction, generator) for one in self.trajectories]
            self.trajectories, self.held_out = [train for train, _ in parts], [held for _, held in parts]

    def _world(self, number: int) -> TabularMDP:
        arguments = self.env_kwargs
        if number:  # the first world was built, so only the seed can be refused
            arguments = {**arguments, "world_seed": arguments.get("world_seed", 0) + number}
        try:
            env = make_single(self.env_id, **arguments)
        except ConfigError as error:
            if not number or not isinstance(error.__cause__, TypeError):
                raise
            raise ConfigError(
                f"{_several(self.num_worlds)} asks for several worlds, which differ in an environment's argument "
                f"world_seed, but {self.env_id} has none: leave data.num_worlds 1 and data.fresh_worlds 0"
            ) from error
        mdp = TabularMDP.from_env(env)
        env.close()
        return mdp

    def _expert_policy(self, mdp: TabularMDP) -> Tensor:
        """Action probabilities `[S, A]` of the expert."""
        if mdp.reward is None:
            raise ConfigError(
                "the true reward of this world is unknown, so there is no expert: set data.demonstrations"
            )
        entropy: Literal["none", "causal"] = "none" if self.expert == "optimal" else "causal"
        return solve(mdp, mdp.reward, Planning(gamma=self.expert_gamma, entropy=entropy)).policy

    def _time_limit(self) -> int:
        return episode_limit(self.env_id, **self.env_kwargs) or 100

    def _sample_expert(self, number: int, mdp: TabularMDP) -> Trajectories:
        policy = self._expert_policy(mdp)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "demonstrations", number))
        count, steps = self.expert_trajectories, self.steps_per_trajectory or self._time_limit()
        return sample_trajectories(mdp, policy, count, steps, generator, f"the {self.expert} expert in world {number}")

    def _expert_return(self, mdp: TabularMDP) -> Reference:
        """Return of the expert when it acts the way the learner is evaluated."""
        policy = self._expert_policy(mdp)
        if self.eval_deterministic:
            policy = torch.nn.functional.one_hot(policy.argmax(-1), mdp.num_actions).to(policy.dtype)
        generator = torch.Generator().manual_seed(0)
        played = sample_trajectories(mdp, policy, EXPERT_EPISODES, self._time_limit(), generator, "the expert")
        assert mdp.reward is not None
        return Reference.of(played.returns(mdp, mdp.reward).numpy())

    def train_dataloader(self) -> Blocks:
        """Numbers of trajectories in shuffled minibatches, in blocks; this process's part of each."""
        trainer = self.trainer
        assert trainer is not None
        count = sum(len(of_world.length) for of_world in self.trajectories)
        return Blocks(
            torch.arange(count, device=trainer.strategy.root_device),
            self.batch_size or count,
            self.passes_per_epoch,
            derive_seed(self.seed, "batches"),
            trainer,
        )

    def val_dataloader(self) -> list[Any]:
        """Worlds with a known reward, then episodes of the current policy."""
        return [*self._evaluation(), *super().val_dataloader()]

    def test_dataloader(self) -> list[Any]:
        """Worlds with a known reward, then other episodes of the current policy."""
        return [*self._evaluation(), *super().test_dataloader()]

    def _evaluation(self) -> list[_Worlds]:
        every = [(mdp, False) for mdp in self.worlds] + [(mdp, True) for mdp in self.fresh]
        known = [EvaluationWorld(*one) for one in every if one[0].reward is not None]
        return [_Worlds(known)] if known else []


def _several(num_worlds: int) -> str:
    """The argument that asks for more than one world."""
    return "data.num_worlds above 1" if num_worlds > 1 else "data.fresh_worlds above 0"


class _Worlds:
    """Loader of a few worlds. A class of its own, because Lightning takes a list for a list of loaders."""

    def __init__(self, worlds: list[EvaluationWorld]) -> None:
        self.worlds = worlds

    def __len__(self) -> int:
        return len(self.worlds)

    def __iter__(self) -> Iterator[EvaluationWorld]:
        return iter(self.worlds)
