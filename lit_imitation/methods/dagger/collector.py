"""Collection of a DAgger round: expert and learner act, and the expert labels the states that they visit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from gymnasium.vector import VectorEnv
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.envs import episode_limit, make
from lit_imitation.errors import ConfigError, ExpertError, LitImitationError
from lit_imitation.methods.dagger.human_labels import FrameRecorder, can_render
from lit_imitation.methods.dagger.mixture import Mixture
from lit_imitation.methods.method import Method
from lit_imitation.policies import EnsemblePolicy
from lit_imitation.rollout import Actor, Episodes, FunctionActor, Steps, as_actor, keeps_state, shares
from lit_imitation.rollout.progress import ShowsEpisodes
from lit_imitation.transitions import Transitions
from lit_imitation.utils.program import resume_command
from lit_imitation.utils.seeding import RandomStream, derive_seed

Array: TypeAlias = NDArray[Any]
T = TypeVar("T")


class Visited(NamedTuple):
    """Transitions of a round from all processes."""

    transitions: Transitions
    """`[N]`; the actions are the expert's labels where it was queried, and the learner's actions elsewhere."""
    learned: Tensor
    """`[N, *act]`: The learner's actions."""
    asked: Tensor
    """`[N]` bool: Where the expert was queried, or where a person has to label."""
    frames: FrameRecorder | None
    """Images of the states, if they were rendered for a person."""


class Collector:
    """Plays π_i = β_i π* + (1 − β_i) π̂ in its own environments, and labels the visited states.

    Each environment plays a fixed share of the round with its own random streams, and each process plays some of the
    environments. The collected data therefore do not depend on the number of processes, except with backend `vector`,
    where all environments of a process share one random stream.

    Args:
        trainer: Trainer of the run.
        module: Method whose policy is π̂.
        data: DataModule that makes the environments.
        expert: π*, its answers checked; None for a person, who labels later.
        episodes: Number of episodes in a round.
        steps: Number of steps in a round, in place of `episodes`.
        threshold: Query only where the ensemble's disagreement is above this.
        budget: Maximum number of queries in a round. Each environment has a fixed share of it for the actions that the
            expert takes; the remaining queries go to the states with the largest disagreement.
        frames: Directory for images of the states.
        rescue: Function that saves the labeled part of a failed round and returns a sentence about it.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: Method,
        data: DemonstrationDataModule,
        expert: Actor | None,
        *,
        episodes: int,
        steps: int | None,
        threshold: float | None,
        budget: int | None,
        frames: Path | None,
        rescue: Callable[[Transitions, int], str],
    ) -> None:
        if budget is not None and expert is not None and keeps_state(expert):
            raise ConfigError(
                "DAggerCallback: query_budget queries the expert at single states after each round, but this expert "
                "needs every step of an episode, since it has `reset` or sets `needs_env`; leave out query_budget"
            )
        self.trainer, self.module, self.data, self.expert = trainer, module, data, expert
        self.steps, self.threshold, self.budget = steps, threshold, budget
        self.frames, self.rescue = frames, rescue
        self.count = steps or episodes
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.count = min(self.count, data.num_envs)
        total = min(data.num_envs, self.count)
        limit = episode_limit(data.env_id, **data.env_kwargs)
        if steps and limit:  # with more environments, none would finish an episode
            total = min(total, max(1, self.count // limit))
        rank, world = trainer.global_rank, trainer.world_size
        if total < world:
            raise ConfigError(
                f"DAgger collects a round in {total} environments, fewer than the {world} processes; raise "
                "data.num_envs, and steps_per_round or episodes_per_round"
            )
        self.total, self.first, self.last = total, total * rank // world, total * (rank + 1) // world
        self._envs: VectorEnv[Any, Any, Any] | None = None

    def collect(self, i: int, beta: float) -> Visited:
        """Play round `i` and label its states.

        Raises:
            ExpertError: Expert or environment failed on some process. The message names round, step and cause.
        """
        mixture, recorder = self._play(i, beta)
        parts, learneds, askeds = zip(*self._gather(mixture.outcome()), strict=True)
        visited, asked = Transitions.concatenate(parts), torch.cat(askeds)
        if self.budget is not None:
            chosen = self._most_uncertain(visited.observation, asked)
            if self.expert is not None:
                visited.action[chosen] = self._answers(visited.observation[chosen], i)
            asked[chosen] = True
        elif self.expert is None:
            asked[:] = True
        return Visited(visited, torch.cat(learneds), asked, recorder)

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def _play(self, i: int, beta: float) -> tuple[Mixture, FrameRecorder | None]:
        """Play this process's share of the round; returns the finished mixture and the images."""
        envs = self._environments()
        share = int(shares(self.count, self.total)[self.first : self.last].sum())
        generator = np.random.default_rng(self._seed("beta", i))
        uncertain = None
        if self.budget is not None or self.expert is None:
            uncertain = _nowhere  # queries come after the round, when all visited states are known
        elif self.threshold is not None:
            uncertain = self._uncertain
        mixture = Mixture(
            self.expert or FunctionActor(_no_expert),
            as_actor(self.module.actor(), self.data.observation_space),
            beta,
            lambda: generator.random(self.total)[self.first : self.last],
            uncertain,
            turns=None if self.budget is None else shares(self.budget, self.total)[self.first : self.last],
        )
        kind = Steps if self.steps else Episodes
        mixture.rollout = rollout = kind(
            envs, mixture, share, self._seed("round", i) + self.first, record=True, purpose=f"DAgger's round {i}"
        )
        recorder = None
        if self.frames is not None and getattr(envs, "render_mode", None) == "rgb_array":
            recorder = FrameRecorder(envs, self.frames)
            rollout.actor = _RecordedActor(mixture, recorder)
        bar: Any = self.trainer.progress_bar_callback
        failure = ""
        shown = bar.collecting(f"Round {i}", rollout) if isinstance(bar, ShowsEpisodes) else nullcontext()
        try:
            with shown as progress:
                for episode in rollout:
                    if progress is not None:
                        progress(episode)
        except LitImitationError as error:  # its message names the step
            failure = f"round {i}, {error}"
        except Exception as error:
            failure = f"round {i}, step {len(mixture.labels)}: {type(error).__name__} in the rollout: {error}"
        if failure and any(asked.any() for asked in mixture.asked):
            visited, _, asked = mixture.outcome()
            if asked.any():
                failure += f"\n{self.rescue(visited.keep(asked), i)}"
        self._agree_on(failure)
        return mixture, recorder

    def _environments(self) -> VectorEnv[Any, Any, Any]:
        data, number = self.data, self.last - self.first
        if self._envs is None:
            if self.frames is not None and can_render(data.env_id, data.env_kwargs):
                self._envs = make(data.env_id, number, 0, "sync", **{**data.env_kwargs, "render_mode": "rgb_array"})
            else:
                self._envs = data.make(number)
        return self._envs

    def _uncertain(self, observation: Array) -> NDArray[np.bool_]:
        """`[n]` bool: Where the ensemble's disagreement is above the threshold."""
        assert self.threshold is not None
        uncertain: NDArray[np.bool_] = (self._disagreement(torch.from_numpy(observation)) > self.threshold).numpy()
        return uncertain

    @torch.no_grad()
    def _disagreement(self, observation: Tensor) -> Tensor:
        policy = self.module.policy
        assert isinstance(policy, EnsemblePolicy)
        training = policy.training
        policy.eval()  # noise of dropout is not disagreement
        result = policy.disagreement(observation.to(policy.device)).cpu()
        policy.train(training)
        return result

    def _most_uncertain(self, observation: Tensor, asked: Tensor) -> Tensor:
        """Indices of the states to query, within the remaining budget."""
        assert self.budget is not None
        disagreement = self._disagreement(observation).masked_fill(asked, -1.0)
        remaining = min(max(self.budget - int(asked.sum()), 0), int((~asked).sum()))
        chosen = disagreement.argsort(descending=True, stable=True)[:remaining]
        if self.threshold is not None:
            chosen = chosen[disagreement[chosen] > self.threshold]
        return chosen.sort().values

    def _answers(self, observation: Tensor, i: int) -> Tensor:
        """The expert's actions at `[n, *obs]`; the first process queries it for all."""
        answers: list[Any] = [None]
        failure = ""
        if self.trainer.is_global_zero and len(observation):
            assert self.expert is not None
            try:
                with RandomStream(self._seed("answers", i)):
                    answers = [torch.from_numpy(self.expert.act(observation.numpy()))]
            except (Exception, SystemExit) as error:  # the expert's code may raise anything
                cause = str(error) if isinstance(error, ExpertError) else f"{type(error).__name__}: {error}"
                failure = f"round {i}, query at the {len(observation)} most uncertain states: {cause}"
        self._agree_on(failure)
        if self.trainer.world_size > 1:
            dist.broadcast_object_list(answers)
        labels: Tensor = answers[0] if answers[0] is not None else self.module.policy(observation)  # without rows
        return labels

    def _agree_on(self, failure: str) -> None:
        """Raise on all processes if one has failed."""
        failures = [text for text in self._gather(failure) if text]
        if failures:
            raise ExpertError(
                f"{failures[0]}\nearlier rounds are saved; resume with: {resume_command(self.trainer.default_root_dir)}"
            )

    def _gather(self, mine: T) -> list[T]:
        """Values of all processes, in their order."""
        if self.trainer.world_size == 1:
            return [mine]
        values: list[Any] = [None] * self.trainer.world_size
        dist.all_gather_object(values, mine)
        return values

    def _seed(self, *purpose: str | int) -> int:
        return derive_seed(self.data.seed, "dagger", *purpose)


class _RecordedActor:
    """Mixture that records an image of each state before it acts.

    Args:
        mixture: The actor.
        recorder: Recorder of the environments whose step counts.
    """

    def __init__(self, mixture: Mixture, recorder: FrameRecorder) -> None:
        self.mixture, self.recorder = mixture, recorder

    def act(self, observation: Array, /) -> Array:
        """Record the states, then act."""
        self.recorder(self.mixture.rollout.live)
        return self.mixture.act(observation)

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Pass the start of episodes on to the mixture."""
        self.mixture.reset(mask)


def _nowhere(observation: Array) -> NDArray[np.bool_]:
    return np.zeros(len(observation), dtype=np.bool_)


def _no_expert(observation: Array) -> Array:
    raise AssertionError("a person is not queried during a rollout")
