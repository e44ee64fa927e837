"""`ImitationDataModule`: rounds of the current policy beside an expert's demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_imitation.data.demonstration_module import DemonstrationDataModule, HeldOut
from lit_imitation.data.module import EnvArguments
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import Backend, episode_limit
from lit_imitation.experts import ExpertClass
from lit_imitation.rollout.reference import Reference
from lit_imitation.transitions import Transitions


class ImitationDataModule(RolloutDataModule):
    """As `RolloutDataModule`, with demonstrations for a method that learns what the reward is from them.

    Args:
        env_id: a registered Gymnasium id, or `module:Id-v0`.
        demonstrations: see `DemonstrationDataModule`, like all up to `val_fraction`. Where successors were not recorded
            they are read from the rows that follow, and the last row of each trajectory is left out.
        expert: who is asked for demonstrations: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip` or
            `package.module:function`.
        expert_deterministic: the expert's mode, else draws from its distribution.
        expert_trajectories: how many an expert is asked for.
        trust: open experts whose files can execute code.
        num_trajectories: how many, drawn at random.
        subsample: keep one transition in so many.
        val_fraction: share of the trajectories held out, by which a discriminator's accuracy is judged.
        return_temperature: see `DemonstrationDataModule`. Demonstrations are drawn in proportion to their weights.
        env_steps: see `RolloutDataModule`, like the rest.
        steps_per_round: steps of each environment between two updates.
        rounds_per_epoch: rounds between two points at which validation and checkpoints may fall.
        env_kwargs: passed to the environment.
        num_envs: environments that step together, over all processes.
        backend: `auto`, `vector`, `envpool`, `sync` or `async`.
        eval_episodes: episodes of each validation; 0 for none.
        test_episodes: episodes of `test` and `predict`.
        eval_deterministic: evaluate the policy's mode; else draw its actions, each process from a stream of its own.
        expert_return: return that scores 1.0; by default the expert's, where it is known.
        refresh: make anew what is cached: demonstrations and reference returns.
        seed: of everything drawn here; by default that of `seed_everything`.
    """

    def __init__(
        self,
        env_id: str,
        demonstrations: list[str | Path] | str | Path | Transitions = "",  # a list first: else it is saved as a string
        expert: ExpertClass | str = "",
        expert_deterministic: bool = True,
        expert_trajectories: int = 25,
        trust: bool = False,
        num_trajectories: int | None = None,
        subsample: int = 1,
        val_fraction: float = 0.1,
        return_temperature: float | None = None,
        env_steps: int | None = None,
        steps_per_round: int = 256,
        rounds_per_epoch: int = 10,
        env_kwargs: EnvArguments | None = None,
        num_envs: int = 8,
        backend: Backend = "auto",
        eval_episodes: int = 10,
        test_episodes: int = 100,
        eval_deterministic: bool = True,
        expert_return: float | None = None,
        refresh: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            env_id,
            env_steps,
            steps_per_round,
            rounds_per_epoch,
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
        self.source = DemonstrationDataModule(
            env_id,
            demonstrations,
            expert,
            expert_deterministic,
            expert_trajectories,
            trust,
            num_trajectories,
            subsample,
            val_fraction,
            return_temperature,
            env_kwargs=env_kwargs,
            num_envs=10,
            backend=backend,
            eval_deterministic=eval_deterministic,
            expert_return=expert_return,
            refresh=refresh,
            seed=self.seed,
        )
        self.demonstrations, self.expert = demonstrations, expert
        self.source.needs_successors = True

    @property
    def train(self) -> Transitions:
        """`[N]`: the demonstrations that a discriminator learns from."""
        return self.source.train

    @property
    def held_out(self) -> Transitions:
        """`[M]`: those it is judged by; empty without."""
        return self.source.held_out

    def prepare_data(self) -> None:
        """Ask the expert, on one process, so that the others find the answer."""
        self.source.trainer = self.trainer
        self.source.ask_expert()  # first: a mistake in its name is told at once
        super().prepare_data()

    def setup(self, stage: str) -> None:
        """Read, check, choose and hold out demonstrations; turn `env_steps` into epochs."""
        super().setup(stage)
        self.source.trainer = self.trainer
        self.source.setup(stage)
        if stage in ("fit", "validate"):
            self.set_reference(self.source.expert_reference, asked=self.source.asked)
        if stage == "fit" and episode_limit(self.env_id, **self.env_kwargs) is None:
            self.check_epoch(self.source.longest)

    @property
    def _can_ask(self) -> bool:
        return bool(self.expert) and self.source.rolls_out

    def _ask(self) -> Reference:
        return self.source.ask(self.expert)

    def val_dataloader(self) -> list[Any]:
        """This process's part of the held-out transitions, then episodes of the current policy."""
        assert self.trainer is not None
        return [*HeldOut.shared(self.held_out, self.trainer), *super().val_dataloader()]
