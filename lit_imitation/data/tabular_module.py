"""`TabularDataModule`: worlds whose transitions are known, and demonstrations in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_imitation.data.demonstration_module import Batches
from lit_imitation.data.module import EnvArguments, EnvironmentDataModule
from lit_imitation.data.trajectories import read_trajectories
from lit_imitation.envs import Backend
from lit_imitation.envs.make import episode_limit, make_single
from lit_imitation.errors import ConfigError
from lit_imitation.rollout.reference import Reference
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Planning, solve
from lit_imitation.tabular.trajectories import Trajectories, sample_trajectories
from lit_imitation.utils.seeding import derive_seed

EXPERT_EPISODES = 1000
"""Over how many the expert's return is measured, which takes a moment in a world of arrays."""


class EvaluationWorld(NamedTuple):
    """A world by which a reward is judged."""

    mdp: TabularMDP
    fresh: bool
    """Nothing was demonstrated in it."""


class TabularDataModule(EnvironmentDataModule):
    """Worlds as arrays, trajectories of indices in them, and the first world as an environment to be judged in.

    A batch is the numbers of its trajectories `[B]`, counted through all worlds.

    Args:
        env_id: an environment whose transitions `TabularMDP.from_env` can read: FrozenLake, Taxi, CliffWalking, or
            `lit_imitation/GridWorld-v0`, `lit_imitation/ObjectWorld-v0`, `lit_imitation/BinaryWorld-v0`.
        world: a world of one's own, in place of `env_id`.
        demonstrations: a file (see `read_trajectories`), or trajectories: states `[n + 1]`, or a pair of these and
            actions `[n]` (see `Trajectories.of`); empty to let the expert demonstrate.
        expert: acts by the true reward: `optimal`, or `soft`, of maximum causal entropy.
        expert_gamma: discount of the expert.
        expert_trajectories: how many it demonstrates in each world.
        steps_per_trajectory: of the expert, at most; by default the environment's limit of an episode, or 100.
        num_worlds: worlds that are learned from: that of `env_kwargs`, and those of the next values of its `world_seed`;
            with `world` there is but one.
        fresh_worlds: further ones, in which the reward is judged only.
        val_fraction: share of the trajectories of each world that is held out, for their likelihood in validation.
        batch_size: trajectories of a gradient step, over all processes together; by default all.
        passes_per_epoch: passes over them in one epoch, after which validation and checkpoints may fall.
        env_kwargs: passed to the environment.
        num_envs: environments that step together.
        backend: `auto`, `vector`, `envpool`, `sync` or `async`, see `lit_imitation.envs.make`.
        eval_episodes: episodes of each validation; 0 for none.
        test_episodes: episodes of `test` and `predict`.
        eval_deterministic: evaluate the policy's mode; else draw its actions, each process from a stream of its own.
        expert_return: return that scores 1.0; by default the expert's in the first world, where its reward is known.
        refresh: make anew what is cached: the return of acting at random.
        seed: of everything drawn here; by default that of `seed_everything`.

    Raises:
        ConfigError: a setting out of its range, or several worlds where they cannot be drawn: of one of one's own, or
            (by `setup`) of an environment without `world_seed`.
    """

    worlds: list[TabularMDP]
    """Those that are learned from."""
    fresh: list[TabularMDP]
    """Those in which nothing was demonstrated."""
    trajectories: list[Trajectories]
    """Those of each world in `worlds` that are learned from."""
    held_out: list[Trajectories | None]
    """Those of each world that are not; None where there are none."""

    def __init__(
        self,
        env_id: str = "",
        world: TabularMDP | None = None,
        demonstrations: str | Sequence[Any] = "",  # of `Trajectory`, whose type a recipe's parser cannot read
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
        num_envs: int = 10,
        backend: Backend = "auto",
        eval_episodes: int = 10,
        test_episodes: int = 100,
        eval_deterministic: bool = True,
        expert_return: float | None = None,
        refresh: bool = False,
        seed: int | None = None,
    ) -> None:
        if bool(env_id) == (world is not None):
            raise ConfigError("either data.env_id or data.world says which world it is")
        if world is not None:
            arguments: dict[str, Any] = {**(env_kwargs or {}), "world": world}
            env_id, env_kwargs = "lit_imitation/Tabular-v0", arguments
        super().__init__(
            env_id,
            env_kwargs,
            num_envs,
            backend,
            eval_episodes,
            test_episodes,
            eval_deterministic,
            expert_return,
            refresh,
            seed,
        )
        for name, value, least in (
            ("expert_trajectories", expert_trajectories, 1),
            ("steps_per_trajectory", 1 if steps_per_trajectory is None else steps_per_trajectory, 1),
            ("num_worlds", num_worlds, 1),
            ("fresh_worlds", fresh_worlds, 0),
            ("batch_size", 1 if batch_size is None else batch_size, 1),
            ("passes_per_epoch", passes_per_epoch, 1),
        ):
            if value < least:
                raise ConfigError(f"data.{name} is {value}; it must be at least {least}")
        if not 0.0 <= val_fraction < 1.0:
            raise ConfigError(f"data.val_fraction is {val_fraction}; it must lie in [0, 1)")
        if not 0.0 < expert_gamma < 1.0:
            raise ConfigError(f"data.expert_gamma is {expert_gamma}; it must lie in (0, 1)")
        if expert not in ("optimal", "soft"):
            raise ConfigError(f"data.expert is {expert!r}; choose optimal or soft")
        if num_worlds > 1 and demonstrations:
            raise ConfigError(
                "data.demonstrations are of one world; with data.num_worlds above 1 the expert demonstrates"
            )
        if num_worlds + fresh_worlds > 1 and isinstance(self.env_kwargs.get("world"), TabularMDP):
            raise ConfigError(
                f"{_several(num_worlds)} asks for several worlds, and data.world is one, from which no others can be "
                "drawn: take an environment with a world_seed, like data.env_id lit_imitation/GridWorld-v0, or leave "
                "data.num_worlds 1 and data.fresh_worlds 0"
            )
        self.demonstrations, self.expert, self.expert_gamma = demonstrations, expert, expert_gamma
        self.expert_trajectories, self.steps_per_trajectory = expert_trajectories, steps_per_trajectory
        self.num_worlds, self.fresh_worlds = num_worlds, fresh_worlds
        self.val_fraction, self.batch_size, self.passes_per_epoch = val_fraction, batch_size, passes_per_epoch

    def setup(self, stage: str) -> None:
        """Build the worlds; read or ask for demonstrations, which `test` and `predict` do without."""
        if not hasattr(self, "worlds"):
            every = [self._world(i) for i in range(self.num_worlds + self.fresh_worlds)]
            self.worlds, self.fresh = every[: self.num_worlds], every[self.num_worlds :]
        if stage not in ("fit", "validate") or hasattr(self, "trajectories"):
            return
        if isinstance(self.demonstrations, str) and not self.demonstrations:
            self.trajectories = [self._demonstrated(i, mdp) for i, mdp in enumerate(self.worlds)]
            self.set_reference(self._expert_return(self.worlds[0]), asked=True)
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
        if number:  # the first has been made, so that an argument that is not taken can only be the seed
            arguments = {**arguments, "world_seed": arguments.get("world_seed", 0) + number}
        try:
            env = make_single(self.env_id, **arguments)
        except ConfigError as error:
            if not number or not isinstance(error.__cause__, TypeError):
                raise
            raise ConfigError(
                f"{_several(self.num_worlds)} asks for several worlds, which are drawn by an environment's argument "
                f"world_seed; {self.env_id} has none: leave data.num_worlds 1 and data.fresh_worlds 0"
            ) from error
        mdp = TabularMDP.from_env(env)
        env.close()
        return mdp

    def _expert_policy(self, mdp: TabularMDP) -> Tensor:
        """`[S, A]`."""
        if mdp.reward is None:
            raise ConfigError(
                "the true reward of this world is not known, so nobody can demonstrate: set data.demonstrations"
            )
        entropy: Literal["none", "causal"] = "none" if self.expert == "optimal" else "causal"
        return solve(mdp, mdp.reward, Planning(gamma=self.expert_gamma, entropy=entropy)).policy

    def _limit(self) -> int:
        return episode_limit(self.env_id, **self.env_kwargs) or 100

    def _demonstrated(self, number: int, mdp: TabularMDP) -> Trajectories:
        policy = self._expert_policy(mdp)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "demonstrations", number))
        count, steps = self.expert_trajectories, self.steps_per_trajectory or self._limit()
        return sample_trajectories(mdp, policy, count, steps, generator, f"the {self.expert} expert in world {number}")

    def _expert_return(self, mdp: TabularMDP) -> Reference:
        """The return of the expert acting as the learner is evaluated, in episodes of the environment."""
        policy = self._expert_policy(mdp)
        if self.eval_deterministic:
            policy = torch.nn.functional.one_hot(policy.argmax(-1), mdp.num_actions).to(policy.dtype)
        generator = torch.Generator().manual_seed(0)
        played = sample_trajectories(mdp, policy, EXPERT_EPISODES, self._limit(), generator, "the expert")
        assert mdp.reward is not None
        return Reference.of(played.returns(mdp, mdp.reward).numpy())

    def train_dataloader(self) -> Batches:
        """Numbers of trajectories, shuffled; this process's part of each batch."""
        trainer = self.trainer
        assert trainer is not None
        count = sum(len(of_world.length) for of_world in self.trajectories)
        return Batches(
            torch.arange(count, device=trainer.strategy.root_device),
            self.batch_size or count,
            passes=self.passes_per_epoch,
            seed=derive_seed(self.seed, "batches"),
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def val_dataloader(self) -> list[Any]:
        """The worlds with a true reward, then episodes of the current policy."""
        return [*self._evaluation(), *super().val_dataloader()]

    def test_dataloader(self) -> list[Any]:
        """Likewise, with other episodes."""
        return [*self._evaluation(), *super().test_dataloader()]

    def _evaluation(self) -> list[_Worlds]:
        every = [(mdp, False) for mdp in self.worlds] + [(mdp, True) for mdp in self.fresh]
        known = [EvaluationWorld(*one) for one in every if one[0].reward is not None]
        return [_Worlds(known)] if known else []


def _several(num_worlds: int) -> str:
    """The setting that asks for more worlds than one."""
    return "data.num_worlds above 1" if num_worlds > 1 else "data.fresh_worlds above 0"


class _Worlds:
    """A loader of a few worlds. (A plain list Lightning would take for loaders.)"""

    def __init__(self, worlds: list[EvaluationWorld]) -> None:
        self.worlds = worlds

    def __len__(self) -> int:
        return len(self.worlds)

    def __iter__(self) -> Iterator[EvaluationWorld]:
        return iter(self.worlds)
