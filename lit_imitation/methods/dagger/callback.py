"""DAgger: behavioral cloning on the states that the learner itself visits (Ross, Gordon & Bagnell 2011)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from gymnasium.spaces import Box
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import (
    LEARNER,
    Demonstrations,
    read_demonstrations,
    split,
    take,
    with_return,
    write_demonstrations,
)
from lit_imitation.errors import ConfigError
from lit_imitation.experts import Expert, ExpertClass, checked, expert_name, load_expert
from lit_imitation.methods.bc import BC
from lit_imitation.methods.dagger.collector import Collector
from lit_imitation.methods.dagger.human_labels import HumanLabels, digest
from lit_imitation.methods.dagger.mixture import differ
from lit_imitation.methods.dagger.schedules import BetaSchedule
from lit_imitation.policies import EnsemblePolicy
from lit_imitation.policies.continuous import BoxActions
from lit_imitation.rollout import Actor
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import TypeChecked
from lit_imitation.utils.seeding import RandomStream, derive_seed


class RoundRecord(TypedDict):
    """What a round came to."""

    round: int
    beta: float
    dataset_size: int
    """Labeled states so far, held-out ones included."""
    expert_queries: int
    """States that the expert has labeled so far; those of the demonstrations count."""
    disagreement: float | None
    """Share of this round's labeled states where the learner that visited them would have acted otherwise."""
    return_mean: float | None
    """Of the policy trained on these data, by the evaluation at the round's end."""


MOST_ROUNDS = 100_000
"""β is worked out for all of them beforehand."""


class DAggerCallback(TypeChecked, Checkpoint):
    """Between rounds of training, let the learner act, ask the expert what it would have done, and add the answers.

        D ← demonstrations;  train π̂_0 on D                                         (round 0)
        for i = 1 … N:   π_i = β_i π* + (1 − β_i) π̂_{i−1}, drawn anew at every step
                         D ← D ∪ {(s, π*(s)) : s visited by π_i};  train π̂_i on D
        keep the best of π̂_0 … π̂_N by evaluation return

    With an error rate ε on the states of D the cost over T steps is O(εT), where cloning's can be O(εT²) (Ross, Gordon
    & Bagnell 2011, algorithm 3.1 and theorem 3.2; the theorem is about the best policy of the sequence). Method and
    DataModule are those of cloning and know nothing of this.

    A round is written to `DIR/dataset/round_003.npz` once it is collected, an ordinary demonstration file like the
    folder as a whole; `DIR/checkpoints/best.ckpt` is the policy of the best round, in place of any monitored
    `ModelCheckpoint` of the recipe, whose losses would be on other data in each round.

    Args:
        expert: π*, `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip`, `package.module:function`, a
            function, or `HumanLabels`; by default the DataModule's own expert. Unless queries are limited, the return
            of one that is named scores 1.0, and that of a function where the DataModule knows no other.
        beta: β_i, a constant or a function of the round i ≥ 1: see `lit_imitation.methods.dagger.schedules`.
        rounds: N, rounds after the one on the demonstrations.
        episodes_per_round: episodes collected in each; by default `data.num_envs`.
        steps_per_round: steps collected in each, instead, on as many environments as have time for a whole episode.
        epochs_per_round: epochs of training in each round; by default until the recipe's `EarlyStopping` says so, at
            most `trainer.max_epochs`.
        reinitialize: train each round's policy from scratch; else from the last one's weights.
        initial_episodes: how many of the demonstrations round 0 starts from, drawn at random; by default all.
        uncertainty_threshold: ask only where the disagreement of an `EnsemblePolicy` is above this.
        query_budget: ask at most so many times in a round. An action of the expert is a query too: where β lets it act,
            that is paid first, and the learner acts once it is used up. The remainder goes where the disagreement is
            largest.
    """

    def __init__(
        self,
        expert: HumanLabels | ExpertClass | str | Expert | None = None,
        beta: float | BetaSchedule = 0.0,
        rounds: int = 10,
        episodes_per_round: int | None = None,
        steps_per_round: int | None = None,
        epochs_per_round: int | None = None,
        reinitialize: bool = False,
        initial_episodes: int | None = None,
        uncertainty_threshold: float | None = None,
        query_budget: int | None = None,
    ) -> None:
        for name, value in (
            ("rounds", rounds),
            ("episodes_per_round", episodes_per_round),
            ("steps_per_round", steps_per_round),
            ("epochs_per_round", epochs_per_round),
            ("initial_episodes", initial_episodes),
            ("query_budget", query_budget),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"DAggerCallback: {name} is {value}; it must be at least 1")
        if episodes_per_round is not None and steps_per_round is not None:
            raise ConfigError("DAggerCallback: set episodes_per_round or steps_per_round, not both")
        if uncertainty_threshold is not None and not uncertainty_threshold >= 0.0:
            raise ConfigError(f"DAggerCallback: uncertainty_threshold is {uncertainty_threshold}; it must be 0 or more")
        if rounds > MOST_ROUNDS:
            raise ConfigError(f"DAggerCallback: rounds is {rounds}; it must be at most {MOST_ROUNDS}")
        self.expert, self.rounds = expert, rounds
        self.betas = [1.0, *(_beta(beta, i) for i in range(1, rounds + 1))]
        self.episodes_per_round, self.steps_per_round = episodes_per_round, steps_per_round
        self.epochs_per_round, self.reinitialize = epochs_per_round, reinitialize
        self.initial_episodes = initial_episodes
        self.uncertainty_threshold, self.query_budget = uncertainty_threshold, query_budget
        self.records: list[RoundRecord] = []
        """One a round, the last without a return until it is evaluated."""
        self.visited = 0
        """States that the rounds went through so far, labeled or not."""
        self.best_round: int | None = None
        self.best_model_path = ""
        self.paused = ""
        """What a person has to do before the run can go on; empty while it can."""
        self._states: str | None = None
        """Digest of the states that wait for labels."""
        self._best_return = -math.inf
        self._epochs = 0  # of the running round
        self._fresh = False  # a new round's data wait for their first epoch
        self._resumed = False

    # Before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before the first step, and choose the demonstrations of round 0."""
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, DemonstrationDataModule) or not isinstance(pl_module, BC):
            raise ConfigError(
                "DAggerCallback goes with BC and a DemonstrationDataModule; here are "
                f"{type(pl_module).__name__} and {type(data).__name__}"
            )
        self.trainer, self.module, self.data = trainer, pl_module, data
        self._limit = self._epochs_limit()
        self._ask = self._expert()
        self._check_recipe(data)
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # data grow
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.rounds, self._limit = 1, 1
        trainer.fit_loop.max_epochs = (self.rounds + 1) * self._limit
        self._take_charge_of_checkpoints()
        human = isinstance(self._ask, HumanLabels)
        self._collector = Collector(
            trainer,
            pl_module,
            data,
            None if isinstance(self._ask, HumanLabels) else self._ask,
            episodes=self.episodes_per_round or data.num_envs,
            steps=self.steps_per_round,
            threshold=self.uncertainty_threshold,
            budget=self.query_budget,
            frames=self._directory / "to_label" / ".frames" if human and not trainer.fast_dev_run else None,  # type: ignore[attr-defined]
            rescue=self._rescue,
        )
        if self.initial_episodes is not None:
            self._start_from(data, self.initial_episodes)

    def _epochs_limit(self) -> int:
        limit = self.epochs_per_round or self.trainer.max_epochs or -1
        if limit < 1:
            raise ConfigError(
                "DAggerCallback: nothing ends a round; set epochs_per_round, or trainer.max_epochs as the most that a "
                "round may take until EarlyStopping ends it"
            )
        every = self.trainer.check_val_every_n_epoch or 1
        early = any(isinstance(one, EarlyStopping) for one in self.trainer.callbacks)  # type: ignore[attr-defined]
        if limit % every or (early and every > 1):
            raise ConfigError(
                f"DAggerCallback: each round ends with an evaluation, but trainer.check_val_every_n_epoch is {every} "
                f"and a round takes {'up to ' if early else ''}{limit} epochs: choose "
                + ("1, for EarlyStopping can end a round at any epoch" if early else f"a divisor of {limit}")
            )
        return limit

    def _check_recipe(self, data: DemonstrationDataModule) -> None:
        if not data.eval_episodes:
            raise ConfigError(
                "DAggerCallback keeps the policy of the best round by evaluation return, but data.eval_episodes is 0; "
                "set it to 1 or more"
            )
        if self.reinitialize and self.module.optimization.ema_decay is not None:
            raise ConfigError(
                "DAggerCallback: reinitialize starts each round from other weights, whose average means nothing; leave "
                "out model.optimization.ema_decay, or train on from round to round"
            )
        if isinstance(self._ask, HumanLabels) and self.trainer.world_size > 1:
            raise ConfigError("DAggerCallback: HumanLabels go with one process; set trainer.devices to 1")
        if isinstance(self._ask, HumanLabels) and any(self.betas[1:]):
            raise ConfigError(
                f"DAggerCallback: a person who labels afterwards cannot act in between, but beta is {self.betas[1:]}; "
                "set it to 0"
            )
        if self.uncertainty_threshold is None and self.query_budget is None:
            return
        if isinstance(self._ask, HumanLabels) and self.uncertainty_threshold is not None:
            raise ConfigError("DAggerCallback: for HumanLabels limit the queries with query_budget")
        self.module.configure_model()
        if not isinstance(self.module.policy, EnsemblePolicy):
            raise ConfigError(
                "DAggerCallback: to ask only where it is uncertain takes an ensemble; set model.policy to "
                f"lit_imitation.EnsemblePolicy, which is {type(self.module.policy).__name__}"
            )

    def _expert(self) -> Actor | HumanLabels:
        """Whoever answers, with every answer checked."""
        data = self.data
        expert = data.expert if self.expert is None else self.expert
        if isinstance(expert, HumanLabels):
            return expert
        if isinstance(expert, str | dict):
            if not expert or (isinstance(expert, str) and _is_log(expert)):
                what = f"{expert} is a log of what one did" if expert else "neither expert nor data.expert names one"
                raise ConfigError(
                    f"DAgger needs an expert that can be asked, at states of the learner's own choosing; {what}. Name "
                    "one that answers (scripted, shipped, npz:PATH of a policy, checkpoint:PATH, sb3:PATH.zip, "
                    "package.module:function) or a person (lit_imitation.HumanLabels) as the callback's expert; with "
                    "a log alone, clone it: leave the callback out"
                )
            loaded = load_expert(
                expert, data.env_id, *data.spaces, deterministic=data.expert_deterministic, trust=data.trust
            )
            # The one that labels is the one that is imitated.
            if (expert != data.expert or not data.rolls_out) and not self._limited:
                data.refer_to(expert)
            return checked(loaded, *data.spaces, expert_name(expert))
        if not callable(getattr(expert, "act", expert)):
            raise ConfigError(
                f"DAgger needs an expert that can be asked; a {type(expert).__name__} cannot. Give a function or an "
                "object with a method `act`, from observations [B, *obs] to actions [B, *act], the name of an expert, "
                "or HumanLabels"
            )
        answers = checked(expert, *data.spaces, expert_name(expert))
        if data.expert_reference is None and not self._limited:
            data.refer_to(expert, answers)
        return answers

    @property
    def _limited(self) -> bool:
        """Whether the expert is to be asked for few labels, and so for nothing else."""
        return self.query_budget is not None or self.uncertainty_threshold is not None

    def _take_charge_of_checkpoints(self) -> None:
        """Run after `EarlyStopping` and before other checkpoints; the best one is this callback's own.

        Lightning calls `EarlyStopping` at the end of an epoch after all callbacks that are no `Checkpoint`.
        """
        callbacks = [one for one in self.trainer.callbacks if one is not self]  # type: ignore[attr-defined]
        for one in callbacks:
            if isinstance(one, ModelCheckpoint) and one.monitor is not None:
                rank_zero_info(
                    f"DAgger keeps the policy of the best round by return as best.ckpt; the {type(one).__name__} that "
                    f"watches {one.monitor} is left out"
                )
        callbacks = [one for one in callbacks if not (isinstance(one, ModelCheckpoint) and one.monitor is not None)]
        first = next((i for i, one in enumerate(callbacks) if isinstance(one, Checkpoint)), len(callbacks))
        # A new list: Lightning is going through the old one.
        self.trainer.callbacks = [*callbacks[:first], self, *callbacks[first:]]  # type: ignore[attr-defined]

    def _start_from(self, data: DemonstrationDataModule, episodes: int) -> None:
        together = Transitions.concatenate([data.train, data.held_out])
        demonstrations = Demonstrations(together.cpu(), together.episode_returns().cpu(), {})
        if episodes > len(demonstrations.episode_returns):
            raise ConfigError(
                f"DAggerCallback: initial_episodes is {episodes}, but there are "
                f"{len(demonstrations.episode_returns)} demonstrations; raise data.num_trajectories"
            )
        generator = torch.Generator().manual_seed(self._seed("initial"))
        train, held_out = split(take(demonstrations, episodes, generator), data.val_fraction, generator)
        device = data.train.device
        data.train, data.held_out = train.transitions.to(device), held_out.transitions.to(device)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the demonstrations as round 0; of a resumed run, take in again what it had collected."""
        data = self.data
        if self._resumed:
            if self.best_round is not None:
                self.best_model_path = str(self._directory / "checkpoints" / "best.ckpt")
            for before, record in itertools.pairwise(self.records):
                if record["dataset_size"] > before["dataset_size"]:
                    file = self._file(record["round"])
                    self._add(read_demonstrations(str(file), *data.spaces).transitions, record["round"])
            if self.paused:
                self._take_labels()
            return
        demonstrations = Transitions.concatenate([data.train, data.held_out])
        self._put_aside()
        self._write(demonstrations.cpu(), 0)
        self._record(0, len(demonstrations), None)

    # Between rounds

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the first of a round, make the policy ready for its data."""
        if not self._fresh:
            return
        self._fresh = False
        self.module.env_steps = self.visited  # only now are they behind the policy
        policy = self.module.policy
        if self.reinitialize:
            with RandomStream(self._seed("reinitialize", self.round)):
                spaces = policy.observation_space, policy.action_space
                policy.load_state_dict(type(policy)(*spaces, **policy.arguments).state_dict())
            self.module.descent.forget_moments()
            policy.fit_normalizer(self.data.train.observation, self.data.train.action)
        elif self.module.optimization.ema_decay is None:  # an average is over weights that read their inputs one way
            policy.refit_normalizer(self.data.train.observation, self.module.descent.moments)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a round ends: note what it came to, keep it if it is the best, and collect the next."""
        self._epochs += 1
        early = [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
        stopped = trainer.should_stop and any(one.stopped_epoch == trainer.current_epoch for one in early)
        if self._epochs < self._limit and not stopped:
            return
        record = self.records[-1]
        record["return_mean"] = value = self.module.evaluation["return_mean"]
        best = value > self._best_return
        if best:
            self._best_return = value
            self.best_round = self.round
        figures = {f"dagger/{name}": cast("float", value) for name, value in record.items() if value is not None}
        for logger in trainer.loggers:  # by hand: what Lightning logs at the end of an epoch comes after checkpoints
            logger.log_metrics(figures, step=trainer.global_step - 1)
        rank_zero_info(f"round {self.round}: {record['expert_queries']} labels, return {value:.4g}")
        if self.round == self.rounds:
            trainer.should_stop = True
        else:
            if stopped:
                trainer.should_stop = False
            for one in early:
                one.wait_count, one.stopped_epoch = 0, 0
                one.best_score = torch.tensor(math.inf if one.monitor_op == torch.lt else -math.inf)
            self._collect(self.round + 1)
        if best and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            # After collecting, so that one can go on from it as from any other.
            self.best_model_path = str(self._directory / "checkpoints" / "best.ckpt")
            trainer.save_checkpoint(self.best_model_path, weights_only=False)

    @property
    def round(self) -> int:
        """Number of the round whose data are the latest."""
        return len(self.records) - 1

    def _collect(self, i: int) -> None:
        """Let π_i act, have the visited states labeled, and add them."""
        transitions, learned, asked, recorder = self._collector.collect(i, self.betas[i])
        self.visited += len(transitions)
        if isinstance(self._ask, HumanLabels):
            frames = recorder.finish(asked.nonzero().squeeze(-1).tolist()) if recorder is not None else None
            self._pause(transitions.keep(asked), i, frames)
        else:
            self._take_in(transitions.keep(asked), learned[asked], i)

    def _rescue(self, labeled: Transitions, i: int) -> str:
        """Keep what a round that failed had so far."""
        path = self._file(i).with_name(f"partial_{i:03d}_{self.trainer.global_rank}.npz")
        self._write(labeled, i, path)
        return f"the {len(labeled)} labels of this round so far are in {path}"

    # What was collected

    def _take_in(self, labeled: Transitions, learned: Tensor, i: int) -> None:
        """Write a round, train on it from now on, and start its record."""
        differing = differ(learned.numpy(), labeled.action.numpy(), self._range())
        if len(labeled):
            self._write(labeled, i)
            self._add(labeled, i)
        if self.trainer.is_global_zero:
            for part in self._file(i).parent.glob(f"partial_{i:03d}_*.npz"):  # of an attempt that was cut
                part.unlink()
        self._record(i, len(labeled), float(differing.mean()) if len(labeled) else None)
        self._epochs, self._fresh = 0, True

    def _range(self) -> NDArray[Any] | None:
        """`[*act]`: what the policy takes for the range of continuous actions."""
        policy = self.module.policy
        if not isinstance(policy, BoxActions) or not isinstance(self.data.action_space, Box):
            return None
        return 2.0 * policy.scale.cpu().numpy().reshape(self.data.action_space.shape)

    def _record(self, i: int, labels: int, disagreement: float | None) -> None:
        before = self.records[-1]["dataset_size"] if self.records else 0
        self.records.append(
            {
                "round": i,
                "beta": self.betas[i],
                "dataset_size": before + labels,
                "expert_queries": before + labels,
                "disagreement": disagreement,
                "return_mean": None,
            }
        )

    def _add(self, labeled: Transitions, i: int) -> None:
        """Append a round to the training and held-out splits, in the fields that the demonstrations have."""
        data = self.data
        if data.train.weight is not None:
            labeled = labeled.clone(recurse=False)
            labeled.weight = torch.ones(len(labeled))
        generator = torch.Generator().manual_seed(self._seed("split", i))
        train, held_out = split(Demonstrations(labeled, labeled.episode_returns(), {}), data.val_fraction, generator)
        device = data.train.device
        data.train = Transitions.concatenate([data.train, train.transitions.to(device)])
        data.held_out = Transitions.concatenate([data.held_out, held_out.transitions.to(device)])

    def _write(self, labeled: Transitions, i: int, path: Path | None = None) -> None:
        # A part of a round is its process's own to write; a round is the first one's.
        if self.trainer.fast_dev_run or (path is None and not self.trainer.is_global_zero):  # type: ignore[attr-defined]
            return
        data = self.data
        expert = self.expert if isinstance(self.expert, str | dict) else data.expert if self.expert is None else ""
        metadata: Metadata = {"env_id": data.env_id, "expert": expert_name(expert), "seed": data.seed, "round": i}
        if i:
            metadata["returns"] = LEARNER
        metadata = with_return(metadata, data.expert_reference, data.eval_deterministic)
        write_demonstrations(path or self._file(i), Demonstrations(labeled, labeled.episode_returns(), metadata))

    def _put_aside(self) -> None:
        """Rename what another run left in this directory: this one starts anew, and nothing collected is lost."""
        dataset = self._directory / "dataset"
        if self.trainer.is_global_zero and dataset.is_dir() and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            number = next(n for n in itertools.count(1) if not (dataset.parent / f"dataset-{n}").exists())
            dataset.rename(dataset.parent / f"dataset-{number}")

    @property
    def _directory(self) -> Path:
        return Path(self.trainer.default_root_dir)

    def _file(self, i: int) -> Path:
        return self._directory / "dataset" / f"round_{i:03d}.npz"

    # A person as the expert

    def _pause(self, states: Transitions, i: int, frames: Path | None) -> None:
        """Write the states to be labeled, and end the run after its checkpoint."""
        directory = self._directory / "to_label" / f"round_{i:03d}"
        assert isinstance(self._ask, HumanLabels)
        data = self.data
        metadata: Metadata = {"env_id": data.env_id, "expert": "HumanLabels", "seed": data.seed, "round": i}
        metadata["returns"] = LEARNER
        self.trainer.should_stop = True
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._ask.write(directory, states, metadata, frames)
            self._states = digest(states)
            self.paused = self._ask.instructions(directory, self._directory, len(states), data.action_space)

    def _take_labels(self) -> None:
        """Go on with the labels that a person gave."""
        i = len(self.records)
        directory = self._directory / "to_label" / f"round_{i:03d}"
        assert isinstance(self._ask, HumanLabels)
        spaces = self.data.spaces
        labeled = self._ask.read(directory, *spaces, self._states)
        learned = read_demonstrations(str(directory / "states.npz"), *spaces).transitions.action
        self.paused = ""
        self._take_in(labeled, learned, i)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the environments; tell a person what there is to do."""
        self._collector.close()
        if self.paused and trainer.is_global_zero:
            print(self.paused)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the environments of a run that failed."""
        if hasattr(self, "_collector"):
            self._collector.close()

    # State

    def summary_figures(self) -> dict[str, Any]:
        """For `summary.json`."""
        last = self.records[-1] if self.records else None
        return {
            "method": "dagger",
            "expert_queries": last["expert_queries"] if last else 0,
            "queries_saved": self.visited + self._initial() - last["expert_queries"] if last else 0,
            "best_round": self.best_round,
            "rounds": self.records,
        }

    def _initial(self) -> int:
        return self.records[0]["dataset_size"]

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands; the data themselves lie in `DIR/dataset`."""
        return {
            "records": [dict(record) for record in self.records],
            "visited": self.visited,
            "best_round": self.best_round,
            "best_return": self._best_return,
            "epochs": self._epochs,
            "fresh": self._fresh,
            "paused": self.paused,
            "states": self._states,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse; a test of the best round's checkpoint does not turn back what became of the run."""
        if not self._fitting:
            return
        self.records = [cast("RoundRecord", record) for record in state_dict["records"]]
        self.visited = state_dict["visited"]
        self.best_round, self._best_return = state_dict["best_round"], state_dict["best_return"]
        self._epochs, self._fresh = state_dict["epochs"], state_dict["fresh"]
        self.paused, self._states = state_dict["paused"], state_dict["states"]
        self._resumed = True

    def _seed(self, *purpose: str | int) -> int:
        return derive_seed(self.data.seed, "dagger", *purpose)


def _beta(beta: float | BetaSchedule, i: int) -> float:
    value = float(beta(i) if callable(beta) else beta)
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"DAggerCallback: beta is {value} in round {i}; a probability lies in [0, 1]")
    return value


def _is_log(expert: str) -> bool:
    """Whether the name is one of demonstrations, which tell what was done and not what would be."""
    form, _, path = expert.partition(":")
    if form in ("minari", "hf") or (Path(expert).suffix in (".npz", ".hdf5", ".h5") and form != "npz"):
        return True
    if form != "npz" or not Path(path).is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "observations" in arrays or "obs" in arrays
    except (OSError, ValueError):  # to load it will say what is wrong
        return False
