"""DAgger: behavioral cloning on the states that the learner itself visits (Ross, Gordon & Bagnell 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lit_imitation.experts import Expert, ExpertClass, expert_name
from lit_imitation.methods.dagger.checks import (
    check_components,
    check_counts,
    check_ensemble,
    check_human,
    check_recipe,
    check_threshold,
    evaluate_schedule,
    find_epoch_limit,
    find_expert,
)
from lit_imitation.methods.dagger.collector import Collector
from lit_imitation.methods.dagger.dataset import Dataset
from lit_imitation.methods.dagger.disagreement import disagreement_rate
from lit_imitation.methods.dagger.human_labels import HumanLabels
from lit_imitation.methods.dagger.labeling import read_labels, request_labels
from lit_imitation.methods.dagger.records import History
from lit_imitation.methods.dagger.schedules import BetaSchedule
from lit_imitation.methods.dagger.trainer_setup import prepare_trainer, restart_early_stopping, stopped_early
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import TypeChecked
from lit_imitation.utils.seeding import RandomStream, derive_seed


class DAggerCallback(TypeChecked, Checkpoint):
    """Alternate training and collecting: the learner acts, and the expert labels the states that it visits.

        D ← demonstrations;  train π̂_0 on D                                         (round 0)
        for i = 1 … N:   π_i = β_i π* + (1 − β_i) π̂_{i−1}, drawn anew at every step
                         D ← D ∪ {(s, π*(s)) : s visited by π_i};  train π̂_i on D
        keep the best of π̂_0 … π̂_N by evaluation return

    With an error rate ε on the states of D, the cost over T steps is O(εT); cloning's can be O(εT²) (Ross, Gordon &
    Bagnell 2011, arXiv:1011.0686, algorithm 3.1 and theorem 3.2, which is about the best policy of the sequence).
    Training itself is that of `BC`, on the data of its DataModule.

    Each collected round is written to `DIR/dataset/round_003.npz`, an ordinary demonstration file; the folder is a
    valid source too. `DIR/checkpoints/best.ckpt` is the policy of the best round. It replaces any monitored
    `ModelCheckpoint`: losses of different rounds are not comparable, since the data change.

    Args:
        expert: π*: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip`, `package.module:function`, a
            function, or `HumanLabels`; by default the DataModule's expert. Unless queries are limited, the return of a
            named expert scores 1.0, and so does that of a function if the DataModule has no reference.
        beta: β_i: a constant, or a function of the round i ≥ 1; see `lit_imitation.methods.dagger.schedules`.
        rounds: N, the number of rounds after round 0.
        episodes_per_round: Number of episodes to collect in each round; by default `data.num_envs`.
        steps_per_round: Number of steps to collect in each round, in place of `episodes_per_round`. Only as many
            environments are used as can each play a whole episode in these steps.
        epochs_per_round: Number of epochs of training in each round; by default until `EarlyStopping` ends it, at most
            `trainer.max_epochs`.
        reinitialize: Train each round's policy from scratch instead of from the weights of the previous round.
        initial_episodes: Number of demonstrations for round 0, drawn at random; by default all.
        uncertainty_threshold: Query the expert only where the disagreement of an `EnsemblePolicy` is above this.
        query_budget: Maximum number of queries in each round. The actions that the expert takes under β count first;
            when they have used up the budget, the learner acts alone. The remaining queries go to the states with the
            largest disagreement.
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
        check_counts(
            rounds=rounds,
            episodes_per_round=episodes_per_round,
            steps_per_round=steps_per_round,
            epochs_per_round=epochs_per_round,
            initial_episodes=initial_episodes,
            query_budget=query_budget,
        )
        check_threshold(uncertainty_threshold)
        self.expert, self.rounds = expert, rounds
        self.betas = evaluate_schedule(beta, rounds)
        self.episodes_per_round, self.steps_per_round = episodes_per_round, steps_per_round
        self.epochs_per_round, self.reinitialize = epochs_per_round, reinitialize
        self.initial_episodes = initial_episodes
        self.uncertainty_threshold, self.query_budget = uncertainty_threshold, query_budget
        self.history = History()
        self.best_model_path = ""
        self.paused = ""
        """What a person has to do before the run can continue; empty if nothing."""
        self._states_to_label: str | None = None  # their digest
        self._resumed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the run before its first step, and choose the demonstrations of round 0."""
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        self.trainer, self.directory = trainer, Path(trainer.default_root_dir)
        self.module, self.data = check_components(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        self.epoch_limit = find_epoch_limit(trainer, self.epochs_per_round)
        limited = self.query_budget is not None or self.uncertainty_threshold is not None
        expert = find_expert(self.expert, self.data, measure=not limited)
        check_recipe(self.module, self.data, self.reinitialize)
        self.human = expert if isinstance(expert, HumanLabels) else None
        if self.human is not None:
            check_human(trainer, self.betas, self.uncertainty_threshold)
        if limited:
            check_ensemble(self.module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.rounds, self.epoch_limit = 1, 1
        prepare_trainer(trainer, self, epochs=(self.rounds + 1) * self.epoch_limit)
        given = self.data.expert if self.expert is None else self.expert
        self.dataset = Dataset(trainer, self.data, expert_name(given) if isinstance(given, str | dict) else "")
        render = self.human is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]
        self.collector = Collector(
            trainer,
            self.module,
            self.data,
            None if isinstance(expert, HumanLabels) else expert,
            episodes=self.episodes_per_round or self.data.num_envs,
            steps=self.steps_per_round,
            threshold=self.uncertainty_threshold,
            budget=self.query_budget,
            frames=self.directory / "to_label" / ".frames" if render else None,
            rescue=self.dataset.rescue,
        )
        if self.initial_episodes is not None:
            self.dataset.sample_initial(self.initial_episodes)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Round 0: D ← demonstrations. A resumed run reads its rounds back, and labels that a person has given."""
        if not self._resumed:
            self.history.start_round(self.betas[0], self.dataset.start(), None)
            return
        if self.history.best_round is not None:
            self.best_model_path = str(self.directory / "checkpoints" / "best.ckpt")
        self.dataset.restore(self.history.records)
        if self.paused and self.human is not None:
            i = self.history.round + 1
            labeled = read_labels(self.human, self.directory, self.data, i, self._states_to_label)
            self.paused = ""
            self.aggregate(*labeled, i)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the start of a round, prepare the policy for the new data."""
        if not self.history.fresh:
            return
        self.history.fresh = False
        self.module.env_steps = self.history.visited  # the policy is now trained on these steps
        policy, train = self.module.policy, self.data.train
        if self.reinitialize:
            with RandomStream(derive_seed(self.data.seed, "dagger", "reinitialize", self.history.round)):
                new = type(policy)(policy.observation_space, policy.action_space, **policy.arguments)
            policy.load_state_dict(new.state_dict())
            self.module.descent.forget_moments()
            policy.fit_normalizer(train.observation, policy.demonstrated(train, train.observation))
        elif self.module.optimization.ema_decay is None:  # averaged weights need inputs with the same standardization
            policy.refit_normalizer(train.observation, self.module.descent.moments)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the end of a round: evaluate π̂_i, collect with π_{i+1}, aggregate, and keep the best."""
        self.history.epochs += 1
        if self.history.epochs < self.epoch_limit and not stopped_early(trainer):
            return
        best = self.history.set_return(self.module.evaluation["return_mean"])
        self.history.log(trainer)
        if self.history.round < self.rounds:
            restart_early_stopping(trainer)
            self.collect(self.history.round + 1)
        else:
            trainer.should_stop = True
        if best and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            # After collecting, so that a run can be resumed from this checkpoint like from any other.
            self.best_model_path = str(self.directory / "checkpoints" / "best.ckpt")
            trainer.save_checkpoint(self.best_model_path, weights_only=False)

    def collect(self, i: int) -> None:
        """Let π_i act, and aggregate the expert's labels; for a person's labels the run pauses."""
        visited, learned, asked, recorder = self.collector.collect(i, self.betas[i])
        self.history.visited += len(visited)
        if self.human is None:
            self.aggregate(visited.keep(asked), learned[asked], i)
            return
        frames = recorder.finish(asked.nonzero().squeeze(-1).tolist()) if recorder is not None else None
        self.trainer.should_stop = True
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            states = visited.keep(asked)
            self.paused, self._states_to_label = request_labels(
                self.human, self.directory, self.data, states, i, frames
            )

    def aggregate(self, labeled: Transitions, learned: Tensor, i: int) -> None:
        """D ← D ∪ {(s, π*(s))}.

        Args:
            labeled: Transitions `[N]` with the expert's labels as actions.
            learned: The learner's actions `[N, *act]` in these states.
            i: Number of the round.
        """
        disagreement = disagreement_rate(self.module.policy, learned, labeled.action)
        self.dataset.add(labeled, i)
        self.history.start_round(self.betas[i], len(labeled), disagreement)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the environments, and print the instructions for a person."""
        self.collector.close()
        if self.paused and trainer.is_global_zero:
            print(self.paused)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the environments of a run that failed."""
        if hasattr(self, "collector"):
            self.collector.close()

    def summary_figures(self) -> dict[str, Any]:
        """Entries of `summary.json`."""
        return {"method": "dagger"} | self.history.summary()

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint; the data are in `DIR/dataset`."""
        return self.history.state_dict() | {"paused": self.paused, "states": self._states_to_label}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`. A test keeps the state of the whole run, not that of the best round's checkpoint."""
        if self._fitting:
            self.history.load_state_dict(state_dict)
            self.paused, self._states_to_label = state_dict["paused"], state_dict["states"]
            self._resumed = True
