"""`DemonstrationDataModule`: demonstrations from a file, or from an expert who is asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gymnasium import Space
from lightning import Trainer
from torch import Tensor

from lit_imitation.data.demonstrations import (
    LEARNER,
    Demonstrations,
    check,
    read_demonstrations,
    recorded_return,
    split,
    subsample,
    take,
    with_successors,
    write_demonstrations,
)
from lit_imitation.data.module import EnvArguments, EnvironmentDataModule
from lit_imitation.data.sources import Metadata
from lit_imitation.envs import Backend
from lit_imitation.envs.key import environment_key
from lit_imitation.errors import ConfigError, DemonstrationError, ExpertError, LitImitationError
from lit_imitation.experts import Expert, ExpertClass, add_expert, expert_name, load_expert
from lit_imitation.rollout import collect, reference
from lit_imitation.rollout.progress import EpisodeProgress
from lit_imitation.rollout.reference import TOGETHER, Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.cache import Key, Store, kept, say
from lit_imitation.utils.seeding import derive_seed


class DemonstrationDataModule(EnvironmentDataModule):
    """Demonstrations on the model's device, batched by index, beside the environment to be judged in.

    Args:
        env_id: a registered Gymnasium id, or `module:Id-v0`.
        demonstrations: path of an `.npz` or `.hdf5` file, `minari:ID`, `hf:NAME`, a list of these, or `Transitions` in
            memory; empty to roll out `expert` (cached by what was asked).
        expert: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip` or `package.module:function`; or
            `class_path` and `init_args` of a class of your own.
        expert_deterministic: the expert's mode, else draws from its distribution.
        expert_trajectories: how many an expert is asked for; a file has what it has.
        trust: open experts whose files can execute code (Stable-Baselines3's).
        num_trajectories: how many, drawn at random from a file; default all of a file, `expert_trajectories` of an
            expert.
        subsample: keep one transition in so many of each trajectory, from a random offset on.
        val_fraction: share of the trajectories held out for validation.
        return_temperature: τ of weights w ∝ exp((R − mean R) / (τ · std R)) from the trajectories' returns R; by
            default a `weights` column counts, if the file has one.
        batch_size: transitions per gradient step, over all processes together.
        passes_per_epoch: passes over the data in one epoch, after which validation and checkpoints may fall; more for
            small data.
        env_kwargs: passed to the environment.
        num_envs: environments that step together.
        backend: `auto`, `vector`, `envpool`, `sync` or `async`, see `lit_imitation.envs.make`.
        eval_episodes: episodes of each validation; 0 for none.
        test_episodes: episodes of `test` and `predict`.
        eval_deterministic: evaluate the policy's mode; else draw its actions, each process from a stream of its own.
        expert_return: return that scores 1.0; by default the expert's, where it is known.
        refresh: make anew what is cached: demonstrations and reference returns.
        seed: of everything drawn here; by default that of `seed_everything`.
    """

    train: Transitions
    """`[N]`: the training split."""
    held_out: Transitions
    """`[M]`: the trajectories held out; empty without."""

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
        batch_size: int = 64,
        passes_per_epoch: int = 1,
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
        if isinstance(demonstrations, Path):
            demonstrations = str(demonstrations)
        elif isinstance(demonstrations, list | tuple):
            demonstrations = [str(one) for one in demonstrations]
        elif not isinstance(demonstrations, str | Transitions):
            raise ConfigError(
                f"data.demonstrations is a {type(demonstrations).__name__}; it is a path, minari:ID or hf:NAME, a list "
                "of these, or Transitions"
            )
        if not isinstance(demonstrations, Transitions) and not demonstrations and not expert:
            raise ConfigError(
                "nobody demonstrates: set data.demonstrations to a file (or minari:ID, hf:NAME), or data.expert to an "
                "expert that can be rolled out"
            )
        for name, value in (("num_trajectories", num_trajectories), ("subsample", subsample)):
            if value is not None and value < 1:
                raise ConfigError(f"data.{name} is {value}; it must be at least 1")
        for name, value in (
            ("expert_trajectories", expert_trajectories),
            ("batch_size", batch_size),
            ("passes_per_epoch", passes_per_epoch),
        ):
            if value < 1:
                raise ConfigError(f"data.{name} is {value}; it must be at least 1")
        if not 0.0 <= val_fraction < 1.0:
            raise ConfigError(f"data.val_fraction is {val_fraction}; it must lie in [0, 1)")
        if return_temperature is not None and not return_temperature > 0.0:
            raise ConfigError(f"data.return_temperature is {return_temperature}; it must be positive")
        self.demonstrations: str | list[str] | Transitions = demonstrations  # type: ignore[assignment]
        self.expert = expert
        self.expert_deterministic, self.trust = expert_deterministic, trust
        self.num_trajectories, self.subsample, self.val_fraction = num_trajectories, subsample, val_fraction
        self.expert_trajectories, self.return_temperature = expert_trajectories, return_temperature
        self.batch_size, self.passes_per_epoch = batch_size, passes_per_epoch
        self.needs_successors = False
        """Whether the method reads where each transition led."""
        self.terminated = 0
        """How many of the trajectories chosen ended in a terminal state, before any of their rows is left out."""
        self.longest = 0
        """Steps of the longest of them."""
        self._shown: Demonstrations | None = None

    def prepare_data(self) -> None:
        """Ask the expert, on one process, so that the others find the answer."""
        self.ask_expert()  # first: a mistake in its name is told at once
        super().prepare_data()

    def ask_expert(self) -> None:
        """Let it demonstrate, where there is no file, and measure its return, where that is not given."""
        if self.trainer is not None and self.trainer.state.fn not in ("fit", "validate"):
            return
        if self.rolls_out:
            self._shown = self._rolled_out()
        if self._given is None and self._can_ask:
            self.set_reference(self._ask(), asked=True)

    def setup(self, stage: str) -> None:
        """Read, check, choose, hold out, weigh; to test or predict no demonstrations are needed."""
        if stage not in ("fit", "validate"):
            return
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "demonstrations"))
        demonstrations = self.load()
        self._refer_to(demonstrations)
        if self.num_trajectories is not None:
            demonstrations = take(demonstrations, self.num_trajectories, generator)
        self.terminated = int(demonstrations.transitions.terminated.sum())
        self.longest = int(demonstrations.transitions.episode_lengths().max())
        if self.needs_successors:
            demonstrations = with_successors(demonstrations)
        demonstrations = subsample(demonstrations, self.subsample, generator)
        demonstrations = self._weigh(demonstrations)
        train, held_out = split(demonstrations, self.val_fraction, generator)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        self.train, self.held_out = train.transitions.to(device), held_out.transitions.to(device)

    def load(self) -> Demonstrations:
        """All demonstrations of the source, checked against the environment's spaces."""
        if isinstance(self.demonstrations, Transitions):
            check(self.demonstrations, *self.spaces, "data.demonstrations")
            return Demonstrations(self.demonstrations, self.demonstrations.episode_returns(), {})
        if self.demonstrations:
            return read_demonstrations(self.demonstrations, *self.spaces)
        shown, self._shown = self._shown, None
        several = self.trainer is not None and self.trainer.world_size > 1
        if several and self._key().unreadable:  # then the others cannot find the answer
            assert self.trainer is not None
            shown = self.trainer.strategy.broadcast(shown)
        return shown or self._rolled_out()

    def _refer_to(self, demonstrations: Demonstrations) -> None:
        """Note the expert's return, measured or recorded, or say that it is not known."""
        if self._given is not None:
            return
        recorded = None if self.rolls_out else recorded_return(demonstrations, self.eval_deterministic)
        if recorded is None and self.expert:
            if not self.rolls_out:
                say(
                    f"normalized_score is relative to data.expert {expert_name(self.expert)}: the demonstrations hold "
                    "no returns. Set data.expert_return to their expert's, or data.expert to '' for no score"
                )
            self.refer_to(self.expert)
            return
        self.set_reference(recorded, asked=False)
        if self._reference is None:
            source = self.demonstrations if isinstance(self.demonstrations, str) else "data.demonstrations"
            reason = "returns of a learner" if demonstrations.metadata.get("returns") == LEARNER else "no rewards"
            say(f"no normalized_score, for {source} records {reason}: set data.expert_return to the expert's return")
        elif "expert_return" not in demonstrations.metadata and self._drawn(demonstrations) is self.eval_deterministic:
            drawn, mode = "draws from its distribution", "its mode"
            say(
                "normalized_score is relative to the demonstrations' returns, in which the expert's actions were "
                f"{drawn if self.eval_deterministic else mode}, while {mode if self.eval_deterministic else drawn} "
                "would be like what is evaluated: set data.expert_return to the return of those, if it is known"
            )

    @staticmethod
    def _drawn(demonstrations: Demonstrations) -> bool | None:
        """Whether the expert's actions were draws; None where it is not known."""
        deterministic = demonstrations.metadata.get("deterministic")
        return None if deterministic is None else not deterministic

    def refer_to(self, expert: str | ExpertClass | Expert, actor: Expert | None = None) -> None:
        """Score by the return of this expert, which the first process measures; see `ask`."""
        if self._given is not None:
            return
        several = self.trainer is not None and self.trainer.world_size > 1
        first = self.trainer is None or self.trainer.global_rank == 0
        measured = None
        if first or not several:
            known = self._reference if expert == self.expert and self.asked else None
            measured = known or self.ask(expert, actor)
        if several:
            assert self.trainer is not None
            measured = self.trainer.strategy.broadcast(measured)
        self.set_reference(measured, asked=True)

    @property
    def rolls_out(self) -> bool:
        """Whether the expert demonstrates; a file or `Transitions` are preferred to it."""
        return not isinstance(self.demonstrations, Transitions) and not self.demonstrations

    @property
    def _can_ask(self) -> bool:
        return bool(self.expert) and self.rolls_out

    def _ask(self) -> Reference:
        return self.ask(self.expert)

    def ask(self, expert: str | ExpertClass | Expert, actor: Expert | None = None) -> Reference:
        """The return of an expert that acts as the learner is evaluated; measured once and cached.

        Args:
            expert: as for `load_expert`, or a function.
            actor: `expert` where it is loaded already.
        """
        name = expert_name(expert)
        what = f"return of the expert {name} in {self.env_id}"
        together = min(TOGETHER, reference.EPISODES)
        if self.backend == "async":  # one process each
            together = min(together, self.num_envs)

        def measured() -> Reference:
            acts = actor or self._loaded(expert)
            try:
                with EpisodeProgress(f"{name} in {self.env_id}", reference.EPISODES) as progress:
                    return reference.measure(self.make(together), acts, what, progress)
            except LitImitationError:
                raise
            except Exception as error:  # expert and environment may be anybody's code
                raise ExpertError(f"{what}: {type(error).__name__} while it was measured: {error}") from error

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
        return kept(store, self._file_name, key, measured, what=what, refresh=self._renews("expert"))

    def _loaded(self, expert: Any) -> Expert:
        """The expert acting as the learner is evaluated; by its mode, where it has nothing to draw from."""
        load = partial(load_expert, expert, self.env_id, *self.spaces, trust=self.trust)
        try:
            return load(deterministic=self.eval_deterministic)
        except ExpertError as error:
            if self.eval_deterministic:
                raise
            mode = load(deterministic=True)
            say(f"the expert's return is that of its mode, for it has no distribution to draw from ({error})")
            return mode

    @property
    def _file_name(self) -> str:
        return self.env_id.rpartition(":")[2].replace("/", "_")

    def _key(self) -> Key:
        """Of the demonstrations that an expert is asked for."""
        count = self.num_trajectories or self.expert_trajectories
        key = environment_key(
            self.env_id,
            self.backend,
            self.env_kwargs,
            deterministic=self.expert_deterministic,
            episodes=count,
            num_envs=min(self.num_envs, count),
            seed=derive_seed(self.seed, "expert"),
        )
        add_expert(key, self.expert, self.env_id, self.action_space, trust=self.trust)
        return key

    def _rolled_out(self) -> Demonstrations:
        """The expert's trajectories, from the cache where they are in it."""
        count = self.num_trajectories or self.expert_trajectories
        name = expert_name(self.expert)
        what = f"demonstrations of the expert {name} in {self.env_id}"

        def shown() -> Demonstrations:
            seed = derive_seed(self.seed, "expert")
            expert = load_expert(
                self.expert, self.env_id, *self.spaces, deterministic=self.expert_deterministic, trust=self.trust
            )
            envs = self.make(min(self.num_envs, count), seed)
            with (
                closing(envs),
                EpisodeProgress(f"{name} demonstrates {self.env_id}", count) as progress,
            ):
                transitions = collect(envs, expert, count, seed, progress)
            check(transitions, *self.spaces, what)
            metadata: Metadata = {"env_id": self.env_id, "expert": name, "seed": seed}
            metadata["deterministic"] = self.expert_deterministic
            return Demonstrations(transitions, transitions.episode_returns(), metadata)

        store = Store("demonstrations", _write, partial(_read, self.spaces))
        return kept(store, self._file_name, self._key(), shown, what=what, refresh=self._renews("demonstrations"))

    def _weigh(self, demonstrations: Demonstrations) -> Demonstrations:
        """Weights of mean 1 over the transitions, from returns or from the column, if there is either."""
        transitions, returns, metadata = demonstrations
        if self.return_temperature is not None:
            if len(returns) < 2 or returns.std() == 0:
                raise DemonstrationError(
                    "data.return_temperature weighs trajectories by their returns, and these are all the same: "
                    f"{len(returns)} trajectories, return {returns[0]:.4g}; leave it out"
                )
            # From the best, not the mean, so that nothing overflows; the mean of the weights is made 1 below.
            by_return = torch.exp((returns - returns.max()) / (self.return_temperature * returns.std()))
            transitions = transitions.clone(recurse=False)
            transitions.weight = by_return.float()[transitions.episode_index()]
        weight = transitions.weight
        if weight is not None:
            transitions = transitions.clone(recurse=False)
            transitions.weight = weight / weight.mean()
        return Demonstrations(transitions, returns, metadata)

    def train_dataloader(self) -> Batches:
        """Shuffled batches of the training split; this process's part of each."""
        trainer = self.trainer
        assert trainer is not None
        return Batches(
            self.train,
            self.batch_size,
            passes=self.passes_per_epoch,
            seed=derive_seed(self.seed, "batches"),
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def val_dataloader(self) -> list[Any]:
        """This process's part of the held-out transitions, then episodes of the current policy."""
        assert self.trainer is not None
        return [*HeldOut.shared(self.held_out, self.trainer), *super().val_dataloader()]


def _write(entry: Path, demonstrations: Demonstrations) -> dict[str, Any]:
    write_demonstrations(entry.with_suffix(".npz"), demonstrations)
    return {}


def _read(spaces: tuple[Space[Any], Space[Any]], entry: Path, held: dict[str, Any]) -> Demonstrations:
    return read_demonstrations(str(entry.with_suffix(".npz")), *spaces)


class HeldOut:
    """Transitions `[M]` in order, in chunks that fit in memory. (A plain list Lightning would take for loaders.)"""

    def __init__(self, data: Transitions, chunk: int = 4096) -> None:
        self.chunks: tuple[Transitions, ...] = data.split(chunk)

    @classmethod
    def shared(cls, data: Transitions, trainer: Trainer) -> list[HeldOut]:
        """This process's part of them: all processes have one, or none has, since they average over what they have."""
        if len(data) < trainer.world_size:
            return []
        return [cls(data[trainer.global_rank :: trainer.world_size])]

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[Transitions]:
        return iter(self.chunks)


class Batches:
    """An epoch of whole batches, drawn without replacement: shuffled once, then cut.

    Process r of w takes its w-th part of each batch, so that w processes see what one would. Transitions that do not
    fill a batch at the end of a pass are left out; which ones changes from pass to pass. The order depends on seed and
    epoch alone, and the position within the epoch is state: a run that is resumed sees the batches it would have seen.

    Args:
        data: `[N]`, of which batches are rows.
        batch_size: over all processes; N if that is less.
        passes: passes over the data in one epoch.
        seed: of the order.
        epoch: tells the running epoch.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        data: Transitions | Tensor,
        batch_size: int,
        passes: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batch_size = min(batch_size, len(data))
        if batch_size < world_size or batch_size % world_size:
            raise ConfigError(
                f"a batch of {batch_size} cannot be shared out equally over {world_size} processes; choose another "
                "data.batch_size"
            )
        self.data, self.batch_size, self.passes, self.seed, self.epoch = data, batch_size, passes, seed, epoch
        self.rank, self.world_size = rank, world_size
        self._position = {"epoch": -1, "batches": 0}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.passes * (len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Transitions]:
        epoch = self.epoch()
        start = self._position["batches"] if self._position["epoch"] == epoch else 0
        self._position = {"epoch": epoch, "batches": start}
        per_pass, share = len(self.data) // self.batch_size, self.batch_size // self.world_size
        for number in range(start // per_pass, self.passes):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, number))
            order = torch.randperm(len(self.data), generator=generator)[: per_pass * self.batch_size]
            mine = order.view(per_pass, self.world_size, share)[:, self.rank].flatten().to(self.data.device)
            # One gather a pass, then views: an index per batch would cost more than the batch.
            batches = self.data[mine].split(share)
            for batch in batches[start % per_pass if number == start // per_pass else 0 :]:
                self._position["batches"] += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where in which epoch."""
        return dict(self._position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        self._position = dict(state_dict)
