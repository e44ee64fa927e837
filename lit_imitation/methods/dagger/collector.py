"""A round of DAgger: expert and learner play, and the states they visit are labeled."""

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
    """What a round went through, on all processes together."""

    transitions: Transitions
    """`[N]`, the expert's labels as actions where it was asked, else the learner's actions."""
    learned: Tensor
    """`[N, *act]`: what the learner would have done."""
    asked: Tensor
    """`[N]` bool: where the expert's label is known, or a person's is wanted."""
    frames: FrameRecorder | None
    """Pictures of the states, where a person is to label them."""


class Collector:
    """Plays π_i = β_i π* + (1 − β_i) π̂ in environments of its own, and asks the expert about the states visited.

    Environment e of all plays a share that is fixed beforehand with random streams of its own, and a process plays the
    environments that are its: what is collected does not depend on the number of processes, unless all environments
    draw from one random stream (backend `vector`), which other processes then have of their own.

    Args:
        trainer: of the run.
        module: whose policy is π̂.
        data: names the environment.
        expert: π*, its answers checked; None for a person, who is asked later.
        episodes: episodes of a round.
        steps: steps of a round, instead.
        threshold: ask only where the ensemble's disagreement is above this.
        budget: ask at most so many times in a round, the expert's own actions included; what these leave, where the
            disagreement is largest. Each environment has a fixed share for them.
        frames: folder for pictures of the states, for a person.
        rescue: is given the labeled part of a round that fails, and says in words where it is kept.
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
                "DAggerCallback: query_budget asks the expert about single states after each round, but this expert "
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
        if steps and limit:  # so many that each gets beyond the first moments of an episode
            total = min(total, max(1, self.count // limit))
        rank, world = trainer.global_rank, trainer.world_size
        if total < world:
            raise ConfigError(
                f"DAgger collects a round on {total} environments, which cannot be shared out over {world} processes; "
                "raise data.num_envs and what it collects in a round"
            )
        self.total, self.first, self.last = total, total * rank // world, total * (rank + 1) // world
        self._envs: VectorEnv[Any, Any, Any] | None = None

    def collect(self, i: int, beta: float) -> Visited:
        """Play round `i` and ask.

        Raises:
            ExpertError: expert or environment failed, on whichever process; the text names round, step and cause.
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
        """This process's share."""
        envs = self._environments()
        share = int(shares(self.count, self.total)[self.first : self.last].sum())
        generator = np.random.default_rng(self._seed("beta", i))
        uncertain = None
        if self.budget is not None or self.expert is None:
            uncertain = _nowhere  # yet: asked when it is known where the learner goes
        elif self.threshold is not None:
            uncertain = self._uncertain
        mixture = Mixture(
            self.expert or FunctionActor(_nobody),
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
            rollout.actor = _Filmed(mixture, recorder)
        bar: Any = self.trainer.progress_bar_callback
        failure = ""
        shown = bar.collecting(f"Round {i}", rollout) if isinstance(bar, ShowsEpisodes) else nullcontext()
        try:
            with shown as progress:
                for episode in rollout:
                    if progress is not None:
                        progress(episode)
        except LitImitationError as error:  # expert or environment, named with its step
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
        """`[n]` bool: where the members of the ensemble disagree too much."""
        assert self.threshold is not None
        uncertain: NDArray[np.bool_] = (self._disagreement(torch.from_numpy(observation)) > self.threshold).numpy()
        return uncertain

    @torch.no_grad()
    def _disagreement(self, observation: Tensor) -> Tensor:
        policy = self.module.policy
        assert isinstance(policy, EnsemblePolicy)
        training = policy.training
        policy.eval()  # dropout is no disagreement
        result = policy.disagreement(observation.to(policy.device)).cpu()
        policy.train(training)
        return result

    def _most_uncertain(self, observation: Tensor, asked: Tensor) -> Tensor:
        """Indices of the states to ask about, within what is left of the budget."""
        assert self.budget is not None
        doubt = self._disagreement(observation).masked_fill(asked, -1.0)
        left = min(max(self.budget - int(asked.sum()), 0), int((~asked).sum()))
        chosen = doubt.argsort(descending=True, stable=True)[:left]
        if self.threshold is not None:
            chosen = chosen[doubt[chosen] > self.threshold]
        return chosen.sort().values

    def _answers(self, observation: Tensor, i: int) -> Tensor:
        """The expert's actions at `[n, *obs]`; the first process asks for all."""
        answers: list[Any] = [None]
        failure = ""
        if self.trainer.is_global_zero and len(observation):
            assert self.expert is not None
            try:
                with RandomStream(self._seed("answers", i)):
                    answers = [torch.from_numpy(self.expert.act(observation.numpy()))]
            except (Exception, SystemExit) as error:  # an expert may be anybody's code
                cause = str(error) if isinstance(error, ExpertError) else f"{type(error).__name__}: {error}"
                failure = f"round {i}, asked about its {len(observation)} most uncertain states: {cause}"
        self._agree_on(failure)
        if self.trainer.world_size > 1:
            dist.broadcast_object_list(answers)
        labels: Tensor = answers[0] if answers[0] is not None else self.module.policy(observation)  # of no rows
        return labels

    def _agree_on(self, failure: str) -> None:
        """Stop on all processes if it failed on one."""
        failures = [text for text in self._gather(failure) if text]
        if failures:
            raise ExpertError(
                f"{failures[0]}\nwhat the rounds before collected is kept; go on with: "
                f"{resume_command(self.trainer.default_root_dir)}"
            )

    def _gather(self, mine: T) -> list[T]:
        """What each process has, in their order."""
        if self.trainer.world_size == 1:
            return [mine]
        everybodys: list[Any] = [None] * self.trainer.world_size
        dist.all_gather_object(everybodys, mine)
        return everybodys

    def _seed(self, *purpose: str | int) -> int:
        return derive_seed(self.data.seed, "dagger", *purpose)


class _Filmed:
    """A mixture whose states are recorded as pictures before it acts.

    Args:
        mixture: The actor.
        recorder: Records the environments whose step counts.
    """

    def __init__(self, mixture: Mixture, recorder: FrameRecorder) -> None:
        self.mixture, self.recorder = mixture, recorder

    def act(self, observation: Array, /) -> Array:
        """Record, then act."""
        self.recorder(self.mixture.rollout.live)
        return self.mixture.act(observation)

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Pass the start of episodes on."""
        self.mixture.reset(mask)


def _nowhere(observation: Array) -> NDArray[np.bool_]:
    return np.zeros(len(observation), dtype=np.bool_)


def _nobody(observation: Array) -> Array:
    raise AssertionError("a person is not asked while the learner acts")
