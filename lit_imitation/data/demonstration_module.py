"""`DemonstrationDataModule`: shuffled batches of demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gymnasium import Space

from lit_imitation.data.blocks import Blocks
from lit_imitation.data.demonstrations import Demonstrations, columns_of, demonstrations_of, read_all, split
from lit_imitation.data.expert_module import ExpertDataModule, HeldOut, examples_of
from lit_imitation.data.file_spaces import SpaceArguments, check_varied, describe_seen, infer_spaces, space_of
from lit_imitation.errors import ConfigError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import constructor_signature
from lit_imitation.utils.cache import print_once
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed

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
        observation_space: SpaceArguments | None = None,
        action_space: SpaceArguments | None = None,
        **expert: Any,
    ) -> None:
        if not env_id:
            self._check_arguments(expert)
        super().__init__(env_id, **expert)
        check_at_least("data", 1, batch_size=batch_size, passes_per_epoch=passes_per_epoch)
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
        if self.env_id:
            return super().load()
        loaded, self._unsplit = self._unsplit, None
        return loaded or self._read()

    def _read(self) -> Demonstrations:
        """Read demonstrations without an environment, and find their spaces."""
        if isinstance(self.demonstrations, Transitions):
            sources = [columns_of(self.demonstrations, self._source)]
        else:
            sources = read_all(self.demonstrations, self._given_spaces[0], **self._reading)
        observation_space, action_space = infer_spaces(sources, *self._given_spaces)
        demonstrations = demonstrations_of(sources, observation_space, action_space)
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
        data = examples_of(self.train, trainer)
        return Blocks(data, self.batch_size, self.passes_per_epoch, derive_seed(self.seed, "batches"), trainer)

    def test_dataloader(self) -> list[Any]:
        """This process's share of the test trajectories, then episodes of the current policy."""
        assert self.trainer is not None
        if not self.env_id:
            return [*HeldOut.shared(self.tested if len(self.tested) else self.held_out, self.trainer)]
        held_out = HeldOut.shared(self.tested, self.trainer) if self.test_fraction else []
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

    Rewards and successors are left out: they followed from the recorded actions.
    """

    def __init__(self, data: DemonstrationDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Transitions]:
        data, trainer = self.data, self.data.trainer
        assert trainer is not None
        transitions = data.load().transitions
        total, rank, world = int(transitions.done.sum()), trainer.global_rank, trainer.world_size
        if total < world:
            raise ConfigError(f"{total} trajectories cannot be divided among {world} processes: start fewer")
        transitions = transitions.select_episodes(torch.arange(total * rank // world, total * (rank + 1) // world))
        policy: Any = trainer.lightning_module.policy
        actions = [policy.act(chunk.observation.to(policy.device)).cpu() for chunk in transitions.split(4096)]
        yield Transitions(
            observation=transitions.observation,
            action=torch.cat(actions),
            reward=torch.zeros_like(transitions.reward),
            terminated=transitions.terminated,
            truncated=transitions.truncated,
            batch_size=transitions.batch_size,
        )
