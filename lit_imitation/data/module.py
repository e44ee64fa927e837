"""DataModules: an environment to be judged in, for every method."""

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
from lit_imitation.rollout import Actor, Episode, Episodes, shares
from lit_imitation.rollout.progress import EpisodeProgress
from lit_imitation.rollout.random_return import random_reference
from lit_imitation.rollout.reference import Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import TypeChecked
from lit_imitation.utils.cache import print_once
from lit_imitation.utils.seeding import derive_seed

EnvArguments: TypeAlias = dict[str, bool | int | float | str | list | dict | None]  # type: ignore[type-arg]
"""Arguments of an environment, as the command line's parser reads them: a `class_path` below them is plain data, which
below `Any` it would import and build. In Python any value will do."""


class EnvironmentDataModule(TypeChecked, LightningDataModule):
    """The environment, its spaces, and evaluation: the loaders for validation, test and prediction roll out the policy.

    Args:
        env_id: a registered Gymnasium id, or `module:Id-v0`.
        env_kwargs: passed to the environment.
        num_envs: environments that step together.
        backend: `auto`, `vector`, `envpool`, `sync` or `async`, see `lit_imitation.envs.make`.
        eval_episodes: episodes of each validation; 0 for none.
        test_episodes: episodes of `test` and `predict`.
        eval_deterministic: evaluate the policy's mode; else draw its actions, each process from a stream of its own.
        expert_return: return that scores 1.0; by default the expert's, where it is known.
        refresh: make anew what is cached: the return of acting at random.
        seed: of everything drawn here; by default that of `seed_everything`.
    """

    argument_owner = "data"

    def __init__(
        self,
        env_id: str,
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
        for name, value, least in (
            ("num_envs", num_envs, 1),
            ("eval_episodes", eval_episodes, 0),
            ("test_episodes", test_episodes, 1),
        ):
            if value < least:
                raise ConfigError(f"data.{name} is {value}; it must be at least {least}")
        if expert_return is not None and not math.isfinite(expert_return):
            raise ConfigError(f"data.expert_return is {expert_return}; it must be finite")
        if seed is not None and seed < 0:
            raise ConfigError(f"data.seed is {seed}; it must be at least 0")
        self.env_id = env_id
        self.env_kwargs: dict[str, Any] = env_kwargs or {}
        self.num_envs, self.backend = num_envs, backend
        self.eval_episodes, self.test_episodes = eval_episodes, test_episodes
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.eval_deterministic, self.refresh = eval_deterministic, refresh
        self._given = None if expert_return is None else Reference(float(expert_return))
        self._reference: Reference | None = None
        self.asked = False
        """Whether the reference is that of an expert acting as the learner is evaluated, or was recorded."""
        self._unknown = False
        """Whether it could not be measured."""
        self._random: Reference | None = None
        self._renewed: set[str] = set()
        self._spaces: tuple[Space[Any], Space[Any]] | None = None
        self._envs: dict[int, VectorEnv[Any, Any, Any]] = {}

    @property
    def observation_space(self) -> Space[Any]:
        """Of one environment, as `make` gives it."""
        return self.spaces[0]

    @property
    def action_space(self) -> Space[Any]:
        """Of one environment."""
        return self.spaces[1]

    @property
    def spaces(self) -> tuple[Space[Any], Space[Any]]:
        """Observation and action space, from an environment made for the purpose the first time."""
        if self._spaces is None:
            envs = self.make(1)
            self._spaces = envs.single_observation_space, envs.single_action_space
            envs.close()
        return self._spaces

    @property
    def random_return(self) -> float:
        """Mean return of acting at random, measured once per environment and cached."""
        return self.random_reference.mean

    @property
    def random_reference(self) -> Reference:
        """Likewise, with its standard error."""
        if self._random is None:
            processes = self.num_envs if self.backend == "async" else 0
            self._random = random_reference(self.env_id, self.env_kwargs, self._renews("random"), processes)
        return self._random

    @property
    def expert_return(self) -> float | None:
        """Return that scores 1.0; None where it is unknown. A checkpoint carries it."""
        return None if self.expert_reference is None else self.expert_reference.mean

    @property
    def expert_reference(self) -> Reference | None:
        """Likewise, with its standard error: as given, else as measured, else as recorded."""
        if self._given is None and self._reference is None and self._can_ask and not self._unknown:
            try:
                self.set_reference(self._ask(), asked=True)
            except LitImitationError as error:  # what was evaluated is worth more than its score
                print_once(f"no normalized_score, for the expert's return cannot be measured: {error}")
                self._unknown = True
        return self._given or self._reference

    def set_reference(self, reference: Reference | None, *, asked: bool) -> None:
        """Score by this return, unless `expert_return` was given.

        Args:
            reference: None where it is unknown.
            asked: it is the return of an expert that acted as the learner is evaluated.
        """
        self._reference, self.asked = reference, asked

    @property
    def _can_ask(self) -> bool:
        """Whether there is an expert that can be asked."""
        return False

    def _ask(self) -> Reference:
        """The return of the expert that can be asked."""
        raise NotImplementedError

    def _renews(self, what: str) -> bool:
        """Whether to make `what` anew, which the first process does once."""
        first = self.trainer is None or self.trainer.global_rank == 0
        renews = self.refresh and first and what not in self._renewed
        self._renewed.add(what)
        return renews

    def make(self, num_envs: int, seed: int = 0) -> VectorEnv[Any, Any, Any]:
        """`num_envs` of this DataModule's environments."""
        return make(self.env_id, num_envs, seed, self.backend, **self.env_kwargs)

    def prepare_data(self) -> None:
        """Measure the random return, on one process, so that the others find it."""
        if self.eval_episodes or (self.trainer is not None and self.trainer.state.fn == "test"):
            _ = self.random_reference

    def val_dataloader(self) -> list[Any]:
        """Episodes of the current policy."""
        return [self.rollouts("validation", self.eval_episodes)] if self.eval_episodes else []

    def test_dataloader(self) -> list[Any]:
        """Episodes of the current policy, other ones than in validation."""
        return [self.rollouts("test", self.test_episodes)]

    def predict_dataloader(self) -> list[Any]:
        """One batch: the transitions of `test_episodes` episodes."""
        return [_Recorded(self.rollouts("predict", self.test_episodes, record=True))]

    def rollouts(self, purpose: str, episodes: int, *, record: bool = False) -> PolicyEpisodes:
        """This process's share of `episodes` episodes of the module in training."""
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
        """Close the environments of a run that failed: some have processes of their own."""
        self.teardown("")

    def state_dict(self) -> dict[str, Any]:
        """What evaluation needs to know when the demonstrations are not at hand."""
        reference = self._given or self._reference
        return {
            "expert_return": None if reference is None else reference._asdict(),
            "expert_return_of": self._circumstances(),
            "eval_deterministic": self.eval_deterministic if self.asked else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse, where the expert is the same, acts in the same way, and is not to be asked anew.

        Raises:
            ConfigError: the checkpoint holds something else than a return.
        """
        held, deterministic = state_dict["expert_return"], state_dict["eval_deterministic"]
        if held is not None and not _is_return(held):
            raise ConfigError(f"the checkpoint's expert_return is {held!r:.80}, which is no return")
        if held is None or self._given or (self.refresh and (self._reference or self._can_ask)):
            return
        same = state_dict["expert_return_of"] == self._circumstances()
        if same and deterministic in (None, self.eval_deterministic):
            self.set_reference(Reference(**held), asked=deterministic is not None)
        elif self._reference is None and not self._can_ask:
            print_once(
                f"no normalized_score: the checkpoint's expert return {held['mean']:.4g} is of another environment or "
                "of other actions than are evaluated; set data.expert_return"
            )

    def _circumstances(self) -> str:
        """In what and of whom an expert's return is."""
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
    """A loader of finished `Episode`s of whatever policy the Trainer holds when it is iterated.

    Of `episodes` in all, environment i of all `num_envs` plays a fixed share, and a process plays the shares of the
    environments that are its own: what is measured does not depend on the number of processes. Where all environments
    draw from one random stream (backend `vector`), a process plays all of them, and counts its own.
    """

    def __init__(self, datamodule: EnvironmentDataModule, episodes: int, seed: int, *, record: bool) -> None:
        trainer = datamodule.trainer
        assert trainer is not None
        rank, world = trainer.global_rank, trainer.world_size
        total = min(datamodule.num_envs, episodes)
        if total < world:
            raise ConfigError(
                f"{total} evaluation environments cannot be shared out over {world} processes; raise data.num_envs and "
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

    def __len__(self) -> int:
        """Episodes of this process."""
        return self.episodes

    def run(self) -> Episodes:
        """The rollout, with the policy as it is now."""
        module: Any = self.datamodule.trainer.lightning_module  # type: ignore[union-attr]
        actor: Actor = module.actor() if self.datamodule.eval_deterministic else module.actor(deterministic=False)
        envs = self.datamodule.evaluation_envs(self.num_envs, self.seed)
        return Episodes(envs, actor, self.played, self.seed, record=self.record, own=self.own, purpose="evaluation")

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.run())


class _Recorded:
    """The transitions of a `PolicyEpisodes` as one batch."""

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
