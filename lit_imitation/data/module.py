"""Base of all DataModules: an environment for evaluation, if there is one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

from gymnasium import Space
from gymnasium.vector import VectorEnv
from lightning import LightningDataModule

from lit_imitation.envs import Backend, make, shares_generator
from lit_imitation.errors import ConfigError, LitImitationError
from lit_imitation.policies import Policy
from lit_imitation.rollout import Actor, Episode, Episodes, shares
from lit_imitation.rollout.progress import EpisodeProgress
from lit_imitation.rollout.random_return import random_reference
from lit_imitation.rollout.reference import Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import TypeChecked
from lit_imitation.utils.cache import print_once
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed

EnvArguments: TypeAlias = dict[str, bool | int | float | str | list | dict | None]  # type: ignore[type-arg]
"""Arguments of an environment. In Python any value works. The annotation is for the command line's parser, which would
import and build a `class_path` below `Any`; here it stays plain data."""


class EnvironmentDataModule(TypeChecked, LightningDataModule):
    """An environment, its spaces, and evaluation: validation, test and prediction loaders roll out the policy.

    Args:
        env_id: ID of a registered Gymnasium environment, or `module:Id-v0`.
        env_kwargs: Arguments of the environment.
        num_envs: Number of environments that step in parallel, over all processes.
        backend: How environments are vectorized: `auto`, `vector`, `envpool`, `sync` or `async`, see
            `lit_imitation.envs.make`.
        eval_episodes: Number of episodes of each validation; 0 for none.
        test_episodes: Number of episodes of `test` and `predict`.
        eval_deterministic: Evaluate the mode of the policy's distribution instead of sampling from it.
        expert_return: Return that scores 1.0; by default the expert's, where it is known.
        refresh: Measure and collect again what is cached: reference returns and the expert's demonstrations.
        seed: Seed of all random numbers of the data; by default that of `seed_everything`.
    """

    argument_owner = "data"
    needs_environment = True
    """Whether `env_id` is required; otherwise it may be empty, and nothing is played."""

    def __init__(
        self,
        env_id: str,
        *,
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
        super().__init__()
        check_at_least("data", 0, eval_episodes=eval_episodes, seed=seed)
        check_at_least("data", 1, num_envs=num_envs, test_episodes=test_episodes)
        if expert_return is not None and not math.isfinite(expert_return):
            raise ConfigError(f"data.expert_return is {expert_return}; it must be finite")
        if not env_id and self.needs_environment:
            raise ConfigError(f"data.env_id is empty, but {type(self).__name__} plays in an environment: set it")
        self.env_id = env_id
        self.env_kwargs: dict[str, Any] = env_kwargs or {}
        self.num_envs, self.backend = num_envs, backend
        self.eval_episodes, self.test_episodes = eval_episodes, test_episodes
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.eval_deterministic, self.refresh = eval_deterministic, refresh
        self._given = None if expert_return is None else Reference(float(expert_return))
        self._reference: Reference | None = None
        self.comparable = False
        """Whether the reference is of an expert that acts the way the learner is evaluated: by mode or by samples."""
        self._unknown = False
        """Whether measuring the reference failed."""
        self._random: Reference | None = None
        self._renewed: set[str] = set()
        self._spaces: tuple[Space[Any], Space[Any]] | None = None
        self._envs: dict[int, VectorEnv[Any, Any, Any]] = {}

    @property
    def observation_space(self) -> Space[Any]:
        """Observation space of one environment, as `make` returns it."""
        return self.spaces[0]

    @property
    def action_space(self) -> Space[Any]:
        """Action space of one environment."""
        return self.spaces[1]

    @property
    def spaces(self) -> tuple[Space[Any], Space[Any]]:
        """Observation and action space; the first call builds an environment to find out."""
        if self._spaces is None:
            envs = self.make(1)
            self._spaces = envs.single_observation_space, envs.single_action_space
            envs.close()
        return self._spaces

    @property
    def random_return(self) -> float:
        """Mean return of random actions, measured once per environment and cached."""
        return self.random_reference.mean

    @property
    def random_reference(self) -> Reference:
        """Return of random actions with its standard error."""
        if self._random is None:
            processes = self.num_envs if self.backend == "async" else 0
            self._random = random_reference(self.env_id, self.env_kwargs, self._renews("random"), processes)
        return self._random

    @property
    def expert_return(self) -> float | None:
        """Return that scores 1.0; None if it is unknown. Checkpoints store it."""
        return None if self.expert_reference is None else self.expert_reference.mean

    @property
    def expert_reference(self) -> Reference | None:
        """Return that scores 1.0 with its standard error: as given, else as measured, else as recorded."""
        if self._given is None and self._reference is None and self._can_measure and not self._unknown:
            try:
                self.set_reference(self._measure_expert(), comparable=True)
            except LitImitationError as error:  # a missing score must not lose the evaluation
                print_once(f"no normalized_score: the expert's return cannot be measured: {error}")
                self._unknown = True
        return self._given or self._reference

    def set_reference(self, reference: Reference | None, *, comparable: bool) -> None:
        """Use this return as the one that scores 1.0, unless `expert_return` was given.

        Args:
            reference: The return; None if it is unknown.
            comparable: Whether the expert acted the way the learner is evaluated: by its mode, or by samples.
        """
        self._reference, self.comparable = reference, comparable

    @property
    def _can_measure(self) -> bool:
        """Whether there is an expert whose return can be measured."""
        return False

    def _measure_expert(self) -> Reference:
        """Measure the expert's return."""
        raise NotImplementedError

    def _renews(self, what: str) -> bool:
        """Whether to ignore the cached `what`: once, on the first process, if `refresh` is set."""
        first = self.trainer is None or self.trainer.global_rank == 0
        renews = self.refresh and first and what not in self._renewed
        self._renewed.add(what)
        return renews

    def make(self, num_envs: int, seed: int = 0) -> VectorEnv[Any, Any, Any]:
        """Build a vector environment of `num_envs` copies."""
        return make(self.env_id, num_envs, seed, self.backend, **self.env_kwargs)

    def prepare_data(self) -> None:
        """Measure the random return on one process; the others read it from the cache."""
        if self.eval_episodes or (self.trainer is not None and self.trainer.state.fn == "test"):
            _ = self.random_reference

    def val_dataloader(self) -> list[Any]:
        """Episodes of the current policy."""
        return [self.rollouts("validation", self.eval_episodes)] if self.eval_episodes else []

    def test_dataloader(self) -> list[Any]:
        """Episodes of the current policy, with other seeds than in validation."""
        return [self.rollouts("test", self.test_episodes)]

    def predict_dataloader(self) -> list[Any]:
        """One batch: the transitions of `test_episodes` episodes."""
        return [_Recorded(self.rollouts("predict", self.test_episodes, record=True))]

    def name_held_out(self, command: str) -> str:
        """Name of the held-out data that `fit`, `validate` or `test` measured, for the summary."""
        return "held-out trajectories"

    def rollouts(self, purpose: str, episodes: int, *, record: bool = False) -> PolicyEpisodes:
        """This process's share of `episodes` episodes of the current policy."""
        return PolicyEpisodes(self, episodes, derive_seed(self.seed, purpose), record=record)

    def evaluation_envs(self, num_envs: int, seed: int) -> VectorEnv[Any, Any, Any]:
        """Environments kept open from one evaluation to the next."""
        if num_envs not in self._envs:
            self._envs[num_envs] = self.make(num_envs, seed)
        return self._envs[num_envs]

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        for envs in self._envs.values():
            envs.close()
        self._envs = {}

    def on_exception(self, exception: BaseException) -> None:
        """Close the environments of a failed run: some have their own processes."""
        self.teardown("")

    def state_dict(self) -> dict[str, Any]:
        """The expert's return, so that evaluation can score without the demonstrations."""
        reference = self._given or self._reference
        return {
            "expert_return": None if reference is None else reference._asdict(),
            "expert_return_of": self._circumstances(),
            "eval_deterministic": self.eval_deterministic if self.comparable else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the expert's return, unless it was given, is measured again, or is of another expert or environment.

        Raises:
            ConfigError: The checkpoint's `expert_return` is not a return.
        """
        held, deterministic = state_dict["expert_return"], state_dict["eval_deterministic"]
        if held is not None and not _is_return(held):
            raise ConfigError(f"the checkpoint's expert_return is {held!r:.80}, which is not a return")
        if held is None or self._given or (self.refresh and (self._reference or self._can_measure)):
            return
        same = state_dict["expert_return_of"] == self._circumstances()
        if same and deterministic in (None, self.eval_deterministic):
            self.set_reference(Reference(**held), comparable=deterministic is not None)
        elif self._reference is None and not self._can_measure:
            print_once(
                f"no normalized_score: the checkpoint's expert return {held['mean']:.4g} is of another environment, of "
                "another expert, or of another data.eval_deterministic; set data.expert_return"
            )

    def _circumstances(self) -> str:
        """Environment and expert that a return belongs to, as text."""
        source = getattr(self, "demonstrations", "")
        names = (self.env_id, self.env_kwargs, source if isinstance(source, str) else "", getattr(self, "expert", ""))
        return json.dumps(names, sort_keys=True, default=lambda value: type(value).__name__)


def _is_return(held: Any) -> bool:
    """Whether a checkpoint holds the fields of a `Reference`."""
    return (
        isinstance(held, dict)
        and set(held) == set(Reference._fields)
        and all(value is None or (isinstance(value, int | float) and abs(value) < math.inf) for value in held.values())
        and held["mean"] is not None
    )


class PolicyEpisodes:
    """Loader of finished `Episode`s, played by the Trainer's policy at the time of iteration.

    Each of the `num_envs` environments plays a fixed share of the `episodes`, and each process runs some of the
    environments, so the result does not depend on the number of processes. If all environments draw from one random
    stream (backend `vector`), each process runs all of them and keeps the episodes of its own.
    """

    def __init__(self, datamodule: EnvironmentDataModule, episodes: int, seed: int, *, record: bool) -> None:
        trainer = datamodule.trainer
        assert trainer is not None
        rank, world = trainer.global_rank, trainer.world_size
        total = min(datamodule.num_envs, episodes)
        if total < world:
            raise ConfigError(
                f"{total} evaluation environments cannot be divided among {world} processes; raise data.num_envs and "
                f"the number of episodes to at least {world}"
            )
        first, last = total * rank // world, total * (rank + 1) // world
        self.episodes = int(shares(episodes, total)[first:last].sum())
        data = datamodule
        if world > 1 and shares_generator(data.env_id, data.backend, **data.env_kwargs):
            self.num_envs, self.played, self.seed, self.own = total, episodes, seed, slice(first, last)
        else:
            self.num_envs, self.played, self.own = last - first, self.episodes, slice(None)
            self.seed = seed + first  # environment i of all is seeded with `seed + i`, wherever it runs
        self.datamodule, self.record = datamodule, record
        policy = getattr(trainer.lightning_module, "policy", None)
        if data.eval_deterministic and isinstance(policy, Policy) and not policy.has_mode:
            print_once(
                f"{type(policy).__name__} is evaluated without noise, where a plan may lie between two demonstrated "
                "ways; set data.eval_deterministic to false for samples"
            )

    def __len__(self) -> int:
        """Number of episodes of this process."""
        return self.episodes

    def run(self) -> Episodes:
        """Roll out the current policy."""
        module: Any = self.datamodule.trainer.lightning_module  # type: ignore[union-attr]
        actor: Actor = module.actor() if self.datamodule.eval_deterministic else module.actor(deterministic=False)
        envs = self.datamodule.evaluation_envs(self.num_envs, self.seed)
        return Episodes(envs, actor, self.played, self.seed, record=self.record, own=self.own, purpose="evaluation")

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.run())


class _Recorded:
    """Loader of one batch: all transitions of a `PolicyEpisodes`."""

    def __init__(self, episodes: PolicyEpisodes) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Transitions]:
        run, data = self.episodes.run(), self.episodes.datamodule
        with EpisodeProgress(f"policy on {data.env_id}", len(run)) as progress:
            for episode in run:
                progress(episode)
        yield run.transitions()
