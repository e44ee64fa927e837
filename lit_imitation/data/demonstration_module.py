"""`DemonstrationDataModule`: shuffled batches of demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.data.blocks import Blocks
from lit_imitation.data.columns import Columns
from lit_imitation.data.demonstrations import (
    Demonstrations,
    columns_of,
    demonstrations_of,
    files_of,
    read_all,
    split,
    stored_demonstrations,
)
from lit_imitation.data.expert_module import CHUNK, ExpertDataModule, examples_of
from lit_imitation.data.file_spaces import SpaceArguments, check_varied, describe_seen, infer_spaces, space_of
from lit_imitation.data.sources import needs_memory, size_of
from lit_imitation.data.stored_observations import StoredSelection
from lit_imitation.data.streamed_blocks import StreamedBlocks
from lit_imitation.data.streamed_examples import StreamedExamples
from lit_imitation.errors import ConfigError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import constructor_signature
from lit_imitation.utils.cache import print_once
from lit_imitation.utils.integrity import FREE_BYTES, MAX_RATIO
from lit_imitation.utils.memory import available_memory, gigabytes
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed

Memory: TypeAlias = Literal["auto", "resident", "stream"]
RESIDENT_SHARE = 4
"""Observations stay on disk if they need more than one part in four of the available memory: while files are read and
split, there are up to three copies."""
OF_ENVIRONMENTS = (
    "env_kwargs",
    "num_envs",
    "backend",
    "eval_episodes",
    "test_episodes",
    "eval_deterministic",
    "expert_return",
    "refresh",
    "expert",
    "expert_deterministic",
    "expert_trajectories",
)
"""Arguments that mean nothing without an environment."""


class DemonstrationDataModule(ExpertDataModule):
    """Demonstrations in shuffled batches, with an environment for evaluation, or from a file alone.

    Without `env_id` nothing is played: spaces come from the file (see `infer_spaces`) or are given, `validate` and
    `test` measure loss and error of the policy's mode on held-out trajectories, and `predict` gives the policy's
    actions at the file's observations. An environment that a file names in its metadata is not built.

    Args:
        env_id: ID of a registered Gymnasium environment, or `module:Id-v0`; empty for demonstrations from a file alone.
        batch_size: Size of the batch of one gradient step, over all processes together.
        passes_per_epoch: Passes over the data in one epoch. Validation and checkpoints fall between epochs, so take
            more for small data.
        test_fraction: Fraction of the trajectories that only `test` measures. If there is an environment, `test` plays
            episodes too. Without both, `test` measures the validation trajectories, on which the best checkpoint was
            chosen, so that its figures are optimistic. With 1, and `val_fraction` 0, a trained policy is tested on a
            whole file.
        memory: Where the observations of a file are during training: `resident` in memory, or `stream` from disk, read
            ahead of training; `auto` streams those that need more than a quarter of the available memory. All other
            columns are in memory.
        num_workers: Threads that read observations from disk ahead of training; with 0, training waits for them.
        observation_space: Space of the observations without an environment, as plain data: `{type: Box, shape: [7]}`
            or `{type: Discrete, n: 16}`; by default inferred from the file.
        action_space: Space of the actions, in the same form: `{type: Box, low: [-1, 0], high: [1, 0.04]}`. Policies
            stay inside its bounds; without bounds they are not clipped.
        **expert: Arguments of `ExpertDataModule` and `EnvironmentDataModule`.

    Raises:
        ConfigError: There is neither an environment nor a file, or an argument needs an environment that is missing.
    """

    needs_environment = False
    tested: Transitions
    """`[L]`: the trajectories that only `test` measures; empty if there are none."""

    def __init__(
        self,
        env_id: str = "",
        *,
        batch_size: int = 64,
        passes_per_epoch: int = 1,
        test_fraction: float = 0.0,
        memory: Memory = "auto",
        num_workers: int = 1,
        observation_space: SpaceArguments | None = None,
        action_space: SpaceArguments | None = None,
        **expert: Any,
    ) -> None:
        if not env_id:
            self._check_arguments(expert)
        super().__init__(env_id, **expert)
        check_at_least("data", 1, batch_size=batch_size, passes_per_epoch=passes_per_epoch)
        check_at_least("data", 0, num_workers=num_workers)
        if memory == "stream" and self.rolls_out:
            raise ConfigError("data.memory is stream, but demonstrations of an expert are collected in memory")
        self.memory, self.num_workers = memory, num_workers
        whole = test_fraction == 1.0 and not self.val_fraction
        if not 0.0 <= test_fraction < 1.0 - self.val_fraction and not whole:
            raise ConfigError(
                f"data.test_fraction is {test_fraction} and data.val_fraction {self.val_fraction}; both must be at "
                "least 0, and their sum below 1, or test_fraction 1 alone to test all of a file"
            )
        self.batch_size, self.passes_per_epoch, self.test_fraction = batch_size, passes_per_epoch, test_fraction
        given = {"observation_space": observation_space, "action_space": action_space}
        self._given_spaces = [
            None if space is None else space_of(space, f"data.{name}") for name, space in given.items()
        ]
        if not env_id:
            self.eval_episodes = self.test_episodes = 0
        self._unsplit: Demonstrations | None = None
        self._told = False

    @staticmethod
    def _check_arguments(given: dict[str, Any]) -> None:
        """Check that there is something to learn from, and that no argument needs an environment."""
        parameters = constructor_signature(ExpertDataModule).parameters
        demonstrations = given.get("demonstrations", "")
        if not isinstance(demonstrations, Transitions) and not demonstrations:
            if given.get("expert"):
                raise ConfigError("data.expert demonstrates in an environment, but data.env_id is missing: set it")
            raise ConfigError(
                "no demonstrations: set data.demonstrations to a file (or minari:ID, hf:NAME), or set data.env_id and "
                "data.expert to an expert that can be rolled out"
            )
        for name in OF_ENVIRONMENTS:
            value, default = given.get(name), parameters[name].default
            harmless = name == "eval_episodes" and value == 0  # which is what happens
            if name in given and value != default and not harmless:
                raise ConfigError(
                    f"data.{name} is {value!r:.80}, but without data.env_id there is no environment: leave it out, or "
                    "set data.env_id"
                )

    # Spaces and demonstrations

    @property
    def spaces(self) -> tuple[Space[Any], Space[Any]]:
        """Observation and action space: those of the environment, else as given, else inferred from the file."""
        if self._spaces is None and not self.env_id:
            self._unsplit = self._read()
        spaces = super().spaces
        for name, given, own in zip(("observation", "action"), self._given_spaces, spaces, strict=True):
            if given is not None and space_mismatch(given, own, bounds=name == "action"):
                raise ConfigError(f"data.{name}_space is {given}, but {self.env_id} has {own}: leave it out")
        return spaces

    def load(self) -> Demonstrations:
        """All demonstrations of the source, checked against the spaces."""
        if self.env_id and (self.rolls_out or isinstance(self.demonstrations, Transitions)):
            return super().load()
        if self.env_id:
            sources, streams = self._read_files(self.spaces[0])
            return (stored_demonstrations if streams else demonstrations_of)(sources, *self.spaces, self.clip_actions)
        loaded, self._unsplit = self._unsplit, None
        return loaded or self._read()

    def _read_files(self, observation_space: Space[Any] | None) -> tuple[list[Columns], bool]:
        """Columns of the files, and whether their observations stay on disk."""
        files = files_of(self.demonstrations)  # type: ignore[arg-type]
        read = partial(read_all, files, observation_space, **self._reading)
        available = available_memory()
        limit, size = self._largest_resident(available), sum(map(size_of, files))
        if self.memory == "resident" or (self.memory == "auto" and max(MAX_RATIO * size, FREE_BYTES) <= limit):
            return read(), False
        whole = next((f"{file}: {reason}" for file in files if (reason := needs_memory(file, self.filter_key))), "")
        if whole and (self.memory == "stream" or size > available):
            why = "data.memory is stream" if self.memory == "stream" else f"it holds {gigabytes(size)}"
            raise ConfigError(f"{whole} ({why}, and {gigabytes(available)} of memory are available)")
        if not whole:
            sources = read(stored=True)
            rows: list[Any] = [columns.arrays["observations"] for columns in sources]
            size = sum(one.nbytes for one in rows)
            if self.memory == "stream" or size > limit:
                print_once(
                    f"{self._source}: {gigabytes(size)} of observations are read from disk during training "
                    f"({gigabytes(available)} of memory are available, and data.memory is {self.memory})"
                )
                return sources, True
            for one in rows:
                one.close()
        return read(), False

    def _largest_resident(self, available: int) -> int:
        """Largest size of observations that stay in memory, of `available` bytes."""
        largest = available // (RESIDENT_SHARE * getattr(self.trainer, "num_devices", 1))
        if self.device.type == "cuda":
            largest = min(largest, torch.cuda.mem_get_info(self.device)[0] // 2)
        return largest

    def _read(self) -> Demonstrations:
        """Read demonstrations without an environment, and find their spaces."""
        if isinstance(self.demonstrations, Transitions):
            sources, streams = [columns_of(self.demonstrations, self._source)], False
        else:
            sources, streams = self._read_files(self._given_spaces[0])
        observation_space, action_space = infer_spaces(sources, *self._given_spaces)
        join = stored_demonstrations if streams else demonstrations_of
        demonstrations = join(sources, observation_space, action_space, self.clip_actions)
        self._spaces = observation_space, action_space
        if not self._told:
            self._told = True
            count, steps = len(demonstrations.episode_returns), len(demonstrations.transitions)
            recorded = demonstrations.metadata.get("env_id")
            print_once(
                f"{self._source}: {count} trajector{'y' if count == 1 else 'ies'}, {steps} steps; "
                f"{describe_seen(demonstrations.transitions, observation_space, action_space)}. "
                "Without data.env_id, loss and error are measured on held-out trajectories"
                + (f" (they were recorded in {recorded})" if recorded else "")
            )
        return demonstrations

    @property
    def _source(self) -> str:
        """Name of the demonstrations in messages."""
        return "data.demonstrations" if isinstance(self.demonstrations, Transitions) else str(self.demonstrations)

    def _refer_to(self, demonstrations: Demonstrations) -> None:
        if self.env_id:
            super()._refer_to(demonstrations)

    def prepare_data(self) -> None:
        """Collect trajectories and measure returns if there is an environment."""
        if self.env_id:
            super().prepare_data()

    def setup(self, stage: str) -> None:
        """Read, check, choose, weight and split demonstrations, where the stage needs them."""
        fitted = hasattr(self, "train")
        super().setup(stage)
        if stage == "test" and not fitted and (self.test_fraction or not self.env_id):
            self.choose()
        if stage == "fit":
            self._check_agreement()
            if not len(self.train):
                raise ConfigError(f"data.test_fraction {self.test_fraction} leaves no trajectory for training")
            if not self.env_id:
                check_varied(self.train, self._source)
        if self.env_id or fitted or stage not in ("validate", "test"):
            return
        if not len(self.held_out) and not (stage == "test" and len(self.tested)):
            raise ConfigError(
                f"no trajectory is held out of {self.chosen} (data.val_fraction {self.val_fraction}), and without "
                f"data.env_id there is nothing else to {stage} on: hold out some"
            )

    def _check_agreement(self) -> None:
        """Check that all processes read from disk, or none: the order of the examples depends on it."""
        if self.trainer is not None and self.trainer.world_size > 1:
            streams = self.stored is not None
            if self.trainer.strategy.broadcast(streams) is not streams:
                raise ConfigError(
                    "some processes have enough memory for the demonstrations and some have not: set data.memory to "
                    "resident or stream"
                )

    def divide(self, demonstrations: Demonstrations, generator: torch.Generator) -> None:
        """Split into training, validation and test trajectories; validation comes first where there are few."""
        train, held_out = split(demonstrations, self.val_fraction, generator)
        if self.test_fraction < 1.0:
            train, tested = split(train, self.test_fraction / (1.0 - self.val_fraction), generator)
        else:
            train, tested = held_out, demonstrations  # none held out
        self.train, self.held_out, self.tested = (self.place(part) for part in (train, held_out, tested))

    # Loaders

    def train_dataloader(self) -> Blocks:
        """Shuffled minibatches of the training split in blocks, of windows if the policy plans ahead.

        This process gets its part of each minibatch.
        """
        trainer = self.trainer
        assert trainer is not None
        examples, seed = examples_of(self.train, trainer), derive_seed(self.seed, "batches")
        if self.stored is None:
            return Blocks(examples, self.batch_size, self.passes_per_epoch, seed, trainer)
        streamed = StreamedExamples(examples, self.stored, self.device)
        return StreamedBlocks(streamed, self.batch_size, self.passes_per_epoch, seed, trainer, self.num_workers)

    def observations(self, data: Transitions) -> Tensor | StoredSelection:
        """Observations of some transitions `[N]` of a split: `[N, *obs]`, or parts of it if they are on disk."""
        return data.observation if self.stored is None else StoredSelection(self.stored, data.observation)

    def teardown(self, stage: str) -> None:
        """Close environments and files."""
        if self.stored is not None:
            self.stored.close()
        super().teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """The expert's return, and whether observations are read from disk."""
        return super().state_dict() | {"streams": self.stored is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the expert's return.

        Raises:
            ConfigError: A run is resumed with another order of its examples, because memory has become scarce or free.
        """
        streamed = state_dict["streams"]
        if self.trainer is not None and self.trainer.state.fn == "fit" and streamed is not (self.stored is not None):
            was, memory = ("read from disk", "stream") if streamed else ("in memory", "resident")
            raise ConfigError(
                f"the observations of the interrupted run were {was}, which determines the order of its batches: "
                f"resume it with data.memory {memory}"
            )
        super().load_state_dict(state_dict)

    def test_dataloader(self) -> list[Any]:
        """This process's share of the test trajectories, then episodes of the current policy."""
        assert self.trainer is not None
        if not self.env_id:
            return [*self.measure(self.tested if len(self.tested) else self.held_out)]
        held_out = self.measure(self.tested) if self.test_fraction else []
        return [*held_out, *super().test_dataloader()]

    def predict_dataloader(self) -> list[Any]:
        """One batch: transitions of episodes or, without an environment, the file's with the policy's actions."""
        return super().predict_dataloader() if self.env_id else [Relabeled(self)]

    def name_held_out(self, command: str) -> str:
        """Name of the held-out data that `fit`, `validate` or `test` measured, for the summary."""
        if command != "test":
            return "held-out validation trajectories"
        if self.env_id or len(self.tested):
            return "held-out test trajectories"
        return "held-out validation trajectories, on which the checkpoint was chosen (data.test_fraction 0)"


class Relabeled:
    """Loader of one batch: all trajectories of a file with the policy's actions, this process's share of them.

    Rewards and successors are left out: they followed from the recorded actions. Observations that stay on disk are row
    numbers in the batch too; the writer reads them.
    """

    def __init__(self, data: DemonstrationDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Transitions]:
        data, trainer = self.data, self.data.trainer
        assert trainer is not None
        demonstrations = data.load()
        transitions, data.stored = demonstrations.transitions, demonstrations.stored
        total, rank, world = int(transitions.done.sum()), trainer.global_rank, trainer.world_size
        if total < world:
            raise ConfigError(f"{total} trajectories cannot be divided among {world} processes: start fewer")
        transitions = transitions.select_episodes(torch.arange(total * rank // world, total * (rank + 1) // world))
        policy: Any = trainer.lightning_module.policy
        observations = data.observations(transitions)
        chunks = torch.split(observations, CHUNK) if isinstance(observations, Tensor) else observations
        actions = [policy.act(chunk.to(policy.device)).cpu() for chunk in chunks]
        yield Transitions(
            observation=transitions.observation,
            action=torch.cat(actions),
            reward=torch.zeros_like(transitions.reward),
            terminated=transitions.terminated,
            truncated=transitions.truncated,
            batch_size=transitions.batch_size,
        )
