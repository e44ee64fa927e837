"""Base of DataModules with demonstrations: read from a file, or collected from an expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gymnasium import Space
from lightning import Trainer

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstrations import (
    LEARNER,
    Demonstrations,
    check,
    columns_of,
    demonstrations_of,
    files_of,
    read_demonstrations,
    recorded_return,
    split,
    subsample,
    take,
    with_successors,
    write_demonstrations,
)
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.data.sources import size_of
from lit_imitation.data.stored_observations import PIECE, StoredObservations
from lit_imitation.data.streamed_examples import StreamedExamples
from lit_imitation.envs.key import environment_key
from lit_imitation.errors import ConfigError, DemonstrationError, ExpertError, LitImitationError
from lit_imitation.experts import Expert, ExpertClass, add_expert, expert_name, load_expert
from lit_imitation.policies import Policy
from lit_imitation.rollout import collect, reference
from lit_imitation.rollout.progress import EpisodeProgress
from lit_imitation.rollout.reference import TOGETHER, Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.cache import Key, Store, load_or_make, print_once
from lit_imitation.utils.memory import available_memory, gigabytes
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed
from lit_imitation.windows import WindowedTransitions, Windows, WindowSize

CHUNK = 4096
"""Largest number of held-out examples that are measured at once."""


class ExpertDataModule(EnvironmentDataModule):
    """An environment and an expert's trajectories in it, split into training and held-out ones on the model's device.

    The trajectories are read from a file, or collected by rolling out an expert. Subclasses define what a training
    batch is.

    Args:
        env_id: ID of a registered Gymnasium environment, or `module:Id-v0`.
        demonstrations: Path of an `.npz` or `.hdf5` file, a zarr store or a LeRobot folder, `minari:ID`, `hf:NAME`, a
            list of these, or `Transitions` in memory. Empty to roll out `expert` and cache its trajectories.
        observation_keys: Keys to read from observations that are dictionaries, in this order; by default those of the
            environment's Dict space, or without an environment all.
        filter_key: Filter key of a robomimic file, such as `train`; empty to read all of its demonstrations.
        clip_actions: Clip recorded actions into the action space, instead of refusing those outside.
        expert: Expert that is rolled out: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip` or
            `package.module:function`; or `class_path` and `init_args` of a class of your own.
        expert_deterministic: Roll out the mode of the expert's distribution instead of sampling from it.
        expert_trajectories: Number of trajectories that are collected from the expert; ignored for files.
        trust: Allow experts whose files can execute code (Stable-Baselines3's).
        num_trajectories: Number of trajectories to use, drawn at random from a file; by default all of a file, or
            `expert_trajectories` of an expert.
        subsample: Keep every n-th transition of each trajectory, from a random offset.
        val_fraction: Fraction of the trajectories that is held out for validation.
        return_temperature: Temperature τ of trajectory weights w ∝ exp((R − mean R) / (τ · std R)), where R is the
            trajectory's return. By default the weights are those of the file, if it has a `weights` column.
        **environment: Arguments of `EnvironmentDataModule`, or of the next base class.
    """

    train: Transitions
    """`[N]`: the training split."""
    held_out: Transitions
    """`[M]`: the held-out trajectories; empty if there are none."""
    stored: StoredObservations | None = None
    """Observations that stay on disk; those of the splits are then row numbers in them."""
    needs_successors = False
    """Whether the method reads `next_observation`."""

    def __init__(
        self,
        env_id: str,
        *,
        demonstrations: list[str | Path]
        | str
        | Path
        | Transitions = "",  # list first: otherwise the config saves a list as a string
        observation_keys: list[str] | None = None,
        filter_key: str = "",
        clip_actions: bool = False,
        expert: ExpertClass | str = "",
        expert_deterministic: bool = True,
        expert_trajectories: int = 25,
        trust: bool = False,
        num_trajectories: int | None = None,
        subsample: int = 1,
        val_fraction: float = 0.1,
        return_temperature: float | None = None,
        **environment: Any,
    ) -> None:
        super().__init__(env_id, **environment)
        if isinstance(demonstrations, Path):
            demonstrations = str(demonstrations)
        elif isinstance(demonstrations, list | tuple):
            demonstrations = [str(one) for one in demonstrations]
        elif not isinstance(demonstrations, str | Transitions):
            raise ConfigError(
                f"data.demonstrations is a {type(demonstrations).__name__}; it must be a path, minari:ID or hf:NAME, a "
                "list of these, or Transitions"
            )
        if not isinstance(demonstrations, Transitions) and not demonstrations and not expert:
            raise ConfigError(
                "no demonstrations: set data.demonstrations to a file (or minari:ID, hf:NAME), or data.expert to an "
                "expert that can be rolled out"
            )
        check_at_least(
            "data", 1, num_trajectories=num_trajectories, subsample=subsample, expert_trajectories=expert_trajectories
        )
        if not 0.0 <= val_fraction < 1.0:
            raise ConfigError(f"data.val_fraction is {val_fraction}; it must lie in [0, 1)")
        if return_temperature is not None and not return_temperature > 0.0:
            raise ConfigError(f"data.return_temperature is {return_temperature}; it must be positive")
        self.demonstrations: str | list[str] | Transitions = demonstrations  # type: ignore[assignment]
        self.observation_keys, self.filter_key, self.clip_actions = observation_keys, filter_key, clip_actions
        self.expert = expert
        self.expert_deterministic, self.trust = expert_deterministic, trust
        self.num_trajectories, self.subsample, self.val_fraction = num_trajectories, subsample, val_fraction
        self.expert_trajectories, self.return_temperature = expert_trajectories, return_temperature
        self.chosen = 0
        """Number of the chosen trajectories."""
        self.terminated = 0
        """Number of the chosen trajectories that ended in a terminal state, before subsampling."""
        self.longest = 0
        """Number of steps of the longest chosen trajectory."""
        self._collected: Demonstrations | None = None

    def prepare_data(self) -> None:
        """Collect trajectories and measure returns on one process; the others read them from the cache."""
        self.prepare_expert()  # first, so that a misspelled expert fails early
        super().prepare_data()

    def prepare_expert(self) -> None:
        """Collect trajectories if no demonstrations are given, and measure the expert's return if it is not given."""
        if self.trainer is not None and self.trainer.state.fn not in ("fit", "validate"):
            return
        if self.rolls_out:
            self._collected = self._collect()
        if self._given is None and self._can_measure:
            self.set_reference(self._measure_expert(), comparable=True)

    def setup(self, stage: str) -> None:
        """Read, check, choose, weight and split demonstrations; `test` and `predict` need none."""
        super().setup(stage)
        if stage in ("fit", "validate"):
            self.choose()

    def choose(self) -> None:
        """Read, check, choose, weight and split demonstrations."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "demonstrations"))
        demonstrations = self.load()
        self._refer_to(demonstrations)
        if self.num_trajectories is not None:
            demonstrations = take(demonstrations, self.num_trajectories, generator)
        self.chosen = len(demonstrations.episode_returns)
        self.terminated = int(demonstrations.transitions.terminated.sum())
        self.longest = int(demonstrations.transitions.episode_lengths().max())
        if self.needs_successors:
            demonstrations = self.add_successors(demonstrations)
        demonstrations = subsample(demonstrations, self.subsample, generator)
        demonstrations = self._weight(demonstrations)
        self.divide(demonstrations, generator)

    def add_successors(self, demonstrations: Demonstrations) -> Demonstrations:
        """Find successors where they were not recorded."""
        return with_successors(demonstrations)

    def divide(self, demonstrations: Demonstrations, generator: torch.Generator) -> None:
        """Split into training and held-out trajectories."""
        train, held_out = split(demonstrations, self.val_fraction, generator)
        self.train, self.held_out = self.place(train), self.place(held_out)

    def place(self, demonstrations: Demonstrations) -> Transitions:
        """Transitions on the model's device, or in memory if their observations stay on disk."""
        self.stored = demonstrations.stored
        placed: Transitions = demonstrations.transitions.to("cpu" if self.stored is not None else self.device)
        return placed

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def measure(self, data: Transitions) -> list[HeldOut]:
        """Loader of this process's share of held-out transitions; none if there are fewer than processes."""
        assert self.trainer is not None
        examples = examples_of(data, self.trainer) if len(data) else data
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if len(examples) < world:
            return []
        share = examples.share(rank, world) if isinstance(examples, WindowedTransitions) else data[rank::world]
        if self.stored is None:
            return [HeldOut(share)]
        streamed = StreamedExamples(share, self.stored, self.device)
        return [HeldOut(streamed, max(1, min(CHUNK, PIECE // streamed.example_bytes)))]

    def load(self) -> Demonstrations:
        """All demonstrations of the source, checked against the environment's spaces."""
        if isinstance(self.demonstrations, Transitions):
            if self.clip_actions:
                source = [columns_of(self.demonstrations, "data.demonstrations")]
                return demonstrations_of(source, *self.spaces, self.clip_actions)
            check(self.demonstrations, *self.spaces, "data.demonstrations")
            return Demonstrations(self.demonstrations, self.demonstrations.episode_returns(), {})
        if self.demonstrations:
            self._check_memory()
            clip = self.clip_actions
            return read_demonstrations(self.demonstrations, *self.spaces, clip_actions=clip, **self._reading)
        collected, self._collected = self._collected, None
        several = self.trainer is not None and self.trainer.world_size > 1
        if several and self._key().unreadable:  # then the others cannot read the cache
            assert self.trainer is not None
            collected = self.trainer.strategy.broadcast(collected)
        return collected or self._collect()

    def _check_memory(self) -> None:
        """Check that demonstrations of files fit into memory, as far as the sizes of the files tell."""
        size, available = sum(map(size_of, files_of(self.demonstrations))), available_memory()  # type: ignore[arg-type]
        if size > available:
            raise ConfigError(
                f"{self.demonstrations}: holds {gigabytes(size)} and {gigabytes(available)} of memory are available, "
                f"but {type(self).__name__} keeps demonstrations in memory: write a file of fewer trajectories, or "
                "clone the demonstrations with BC and lit_imitation.DemonstrationDataModule, which read from disk"
            )

    @property
    def _reading(self) -> dict[str, Any]:
        """What to read of a file."""
        keys = {"observation_keys": self.observation_keys, "filter_key": self.filter_key}
        return keys | {"successors": self.needs_successors}

    def _refer_to(self, demonstrations: Demonstrations) -> None:
        """Find the expert's return, measured or recorded, or report that it is unknown."""
        if self._given is not None:
            return
        recorded = None if self.rolls_out else recorded_return(demonstrations, self.eval_deterministic)
        if recorded is None and self.expert:
            if not self.rolls_out:
                print_once(
                    f"normalized_score is relative to data.expert {expert_name(self.expert)}: the demonstrations "
                    "contain no "
                    "returns; set data.expert_return to the return of their expert, or data.expert to '' for no score"
                )
            self.refer_to(self.expert)
            return
        self.set_reference(recorded, comparable=False)
        if self._reference is None:
            source = self.demonstrations if isinstance(self.demonstrations, str) else "data.demonstrations"
            reason = "returns of a learner" if demonstrations.metadata.get("returns") == LEARNER else "no rewards"
            print_once(f"no normalized_score: {source} records {reason}; set data.expert_return to the expert's return")
        elif (
            "expert_return" not in demonstrations.metadata and self._sampled(demonstrations) is self.eval_deterministic
        ):
            sampled, mode = "sampled", "deterministic"
            used, evaluated = (sampled, mode) if self.eval_deterministic else (mode, sampled)
            print_once(
                f"normalized_score is relative to the demonstrations' returns, where the expert's actions are {used}, "
                f"but the learner is evaluated with {evaluated} actions; if you know the expert's return for that, set "
                "data.expert_return"
            )

    @staticmethod
    def _sampled(demonstrations: Demonstrations) -> bool | None:
        """Whether the expert's actions were sampled from a distribution; None if it is unknown."""
        deterministic = demonstrations.metadata.get("deterministic")
        return None if deterministic is None else not deterministic

    def refer_to(self, expert: str | ExpertClass | Expert, actor: Expert | None = None) -> None:
        """Use the return of this expert as the one that scores 1.0; the first process measures it."""
        if self._given is not None:
            return
        several = self.trainer is not None and self.trainer.world_size > 1
        first = self.trainer is None or self.trainer.global_rank == 0
        measured = None
        if first or not several:
            known = self._reference if expert == self.expert and self.comparable else None
            measured = known or self.measure_return(expert, actor)
        if several:
            assert self.trainer is not None
            measured = self.trainer.strategy.broadcast(measured)
        self.set_reference(measured, comparable=True)

    @property
    def rolls_out(self) -> bool:
        """Whether trajectories are collected from the expert, because no demonstrations are given."""
        return not isinstance(self.demonstrations, Transitions) and not self.demonstrations

    @property
    def expert_envs(self) -> int:
        """Number of environments that the expert is rolled out in; its trajectories depend on it."""
        return self.num_envs

    @property
    def _can_measure(self) -> bool:
        return bool(self.expert) and self.rolls_out

    def _measure_expert(self) -> Reference:
        return self.measure_return(self.expert)

    def measure_return(self, expert: str | ExpertClass | Expert, actor: Expert | None = None) -> Reference:
        """Measure the return of an expert that acts the way the learner is evaluated; cached.

        Args:
            expert: Name for `load_expert`, or a function.
            actor: The expert itself, if it is already loaded.
        """
        name = expert_name(expert)
        what = f"return of the expert {name} in {self.env_id}"
        together = min(TOGETHER, reference.EPISODES)
        if self.backend == "async":  # every environment is a process
            together = min(together, self.expert_envs)

        def measured() -> Reference:
            acts = actor or self._loaded(expert)
            try:
                with EpisodeProgress(f"{name} in {self.env_id}", reference.EPISODES) as progress:
                    return reference.measure(self.make(together), acts, what, progress)
            except LitImitationError:
                raise
            except Exception as error:  # expert and environment may be the user's code
                raise ExpertError(f"{what}: {type(error).__name__} while measuring it: {error}") from error

        key = environment_key(
            self.env_id,
            self.backend,
            self.env_kwargs,
            deterministic=self.eval_deterministic,
            episodes=reference.EPISODES,
            together=together,
        )
        add_expert(key, expert, self.env_id, self.action_space, trust=self.trust)
        store = reference.store("expert_returns")
        return load_or_make(store, self._file_name, key, measured, what=what, refresh=self._renews("expert"))

    def _loaded(self, expert: Any) -> Expert:
        """The expert, acting the way the learner is evaluated; by its mode if it has no distribution."""
        load = partial(load_expert, expert, self.env_id, *self.spaces, trust=self.trust)
        try:
            return load(deterministic=self.eval_deterministic)
        except ExpertError as error:
            if self.eval_deterministic:
                raise
            mode = load(deterministic=True)
            print_once(
                f"the expert's return is measured with deterministic actions, because it has no distribution ({error})"
            )
            return mode

    @property
    def _file_name(self) -> str:
        return self.env_id.rpartition(":")[2].replace("/", "_")

    def _key(self) -> Key:
        """Cache key of the trajectories collected from the expert."""
        count = self.num_trajectories or self.expert_trajectories
        key = environment_key(
            self.env_id,
            self.backend,
            self.env_kwargs,
            deterministic=self.expert_deterministic,
            episodes=count,
            num_envs=min(self.expert_envs, count),
            seed=derive_seed(self.seed, "expert"),
        )
        add_expert(key, self.expert, self.env_id, self.action_space, trust=self.trust)
        return key

    def _collect(self) -> Demonstrations:
        """Collect the expert's trajectories, or read them from the cache."""
        count = self.num_trajectories or self.expert_trajectories
        what = f"demonstrations of the expert {expert_name(self.expert)} in {self.env_id}"

        def collected() -> Demonstrations:
            seed = derive_seed(self.seed, "expert")
            expert = load_expert(
                self.expert, self.env_id, *self.spaces, deterministic=self.expert_deterministic, trust=self.trust
            )
            envs = self.make(min(self.expert_envs, count), seed)
            name = expert_name(self.expert)
            with closing(envs), EpisodeProgress(f"{name} demonstrates {self.env_id}", count) as progress:
                transitions = collect(envs, expert, count, seed, progress)
            check(transitions, *self.spaces, what)
            metadata: Metadata = {"env_id": self.env_id, "expert": expert_name(self.expert), "seed": seed}
            metadata["deterministic"] = self.expert_deterministic
            return Demonstrations(transitions, transitions.episode_returns(), metadata)

        store = Store("demonstrations", _write, partial(_read, self.spaces))
        return load_or_make(
            store, self._file_name, self._key(), collected, what=what, refresh=self._renews("demonstrations")
        )

    def _weight(self, demonstrations: Demonstrations) -> Demonstrations:
        """Set weights with mean 1, from returns or from the `weights` column; without either there are none."""
        transitions, returns = demonstrations.transitions, demonstrations.episode_returns
        if self.return_temperature is not None:
            if len(returns) < 2 or returns.std() == 0:
                raise DemonstrationError(
                    "data.return_temperature weights trajectories by their returns, but these are all the same: "
                    f"{len(returns)} trajectories with return {returns[0]:.4g}; leave it out"
                )
            # Relative to the best return, not the mean, to avoid overflow; the weights are normalized below.
            by_return = torch.exp((returns - returns.max()) / (self.return_temperature * returns.std()))
            transitions = transitions.clone(recurse=False)
            transitions.weight = by_return.float()[transitions.episode_index()]
        weight = transitions.weight
        if weight is not None:
            transitions = transitions.clone(recurse=False)
            transitions.weight = weight / weight.mean()
        return demonstrations._replace(transitions=transitions)

    def val_dataloader(self) -> list[Any]:
        """This process's share of the held-out transitions, then episodes of the current policy."""
        return [*self.measure(self.held_out), *super().val_dataloader()]


def _write(entry: Path, demonstrations: Demonstrations) -> dict[str, Any]:
    write_demonstrations(entry.with_suffix(".npz"), demonstrations)
    return {}


def _read(spaces: tuple[Space[Any], Space[Any]], entry: Path, held: dict[str, Any]) -> Demonstrations:
    return read_demonstrations(str(entry.with_suffix(".npz")), *spaces)


class HeldOut:
    """Loader of transitions or windows `[M]` in order, in chunks that fit in memory.

    A class of its own, because Lightning takes a list for a list of loaders.
    """

    def __init__(self, data: Transitions | WindowedTransitions | StreamedExamples, chunk: int = CHUNK) -> None:
        self.data, self.chunk = data, chunk

    def __len__(self) -> int:
        return -(-len(self.data) // self.chunk)

    def __iter__(self) -> Iterator[Transitions | Windows]:
        for first in range(0, len(self.data), self.chunk):
            yield self.data[first : first + self.chunk]


def examples_of(data: Transitions, trainer: Trainer) -> Transitions | WindowedTransitions:
    """What the Trainer's policy learns from: transitions, or windows of them if it plans ahead."""
    policy = getattr(trainer.lightning_module, "policy", None)
    if not isinstance(policy, Policy) or policy.window == WindowSize():
        return data
    windows = WindowedTransitions(data, policy.window)
    if windows.left_out:
        print_once(
            f"{windows.left_out} of {int(data.done.sum())} trajectories are shorter than a window (horizon "
            f"{policy.window.horizon}) and left out"
        )
    return windows
