"""DAgger's rounds: collection, labels, data, counts, and the errors that stop a run."""

from __future__ import annotations

import csv
import json
from functools import partial
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from lit_imitation import (
    BC,
    CategoricalPolicy,
    DAggerCallback,
    DemonstrationDataModule,
    EnsemblePolicy,
    GaussianPolicy,
    HumanLabels,
    QuantizedPolicy,
    Transitions,
    load_policy,
    read_demonstrations,
)
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError, DemonstrationError, ExpertError
from lit_imitation.experts.scripted import cart_pole
from lit_imitation.methods.dagger.checks import check_components
from lit_imitation.methods.dagger.collector import Collector
from lit_imitation.training.run import LastCheckpoint

pytestmark = pytest.mark.integration

SMALL = {"rounds": 2, "epochs_per_round": 2, "episodes_per_round": 3}


def run(directory, *, ckpt_path=None, callbacks=(), policy=CategoricalPolicy, data=None, trainer=None, **dagger):
    """A short run on CartPole; returns callback, module and DataModule in their final state."""
    settings = {
        "expert": "scripted",
        "num_trajectories": 3,
        "num_envs": 3,
        "eval_episodes": 2,
        "seed": 0,
        "batch_size": 32,
    }
    datamodule = DemonstrationDataModule(**({"env_id": "CartPole-v1"} | settings | (data or {})))
    lightning.seed_everything(0, verbose=False)
    module = BC(policy=partial(policy, hidden_sizes=[16]))
    dagger = dagger.pop("callback", None) or DAggerCallback(**(SMALL | dagger))
    arguments = {"max_epochs": 4, "check_val_every_n_epoch": 2, "logger": False} | (trainer or {})
    fit = lightning.Trainer(
        default_root_dir=directory,
        callbacks=[dagger, *callbacks, LastCheckpoint()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        log_every_n_steps=1,
        **arguments,
    )
    fit.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    return dagger, module, datamodule


def last(directory):
    return directory / "checkpoints" / "last.ckpt"


def dataset(directory, data):
    return [
        read_demonstrations(str(file), *data.spaces).transitions for file in sorted(directory.glob("dataset/*.npz"))
    ]


class Noted(Callback):
    """Records the policy at the start of each epoch and at each evaluation."""

    def __init__(self):
        self.starts, self.ends, self.moments = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx:
            return
        self.starts.append({k: v.clone() for k, v in pl_module.policy.state_dict().items()})
        self.moments.append(len(trainer.optimizers[0].state))

    def on_validation_end(self, trainer, pl_module):
        self.ends.append({k: v.clone() for k, v in pl_module.policy.state_dict().items()})


def test_round_adds_expert_labels_of_whole_episodes(tmp_path):
    dagger, module, data = run(tmp_path, beta=0.5)
    rounds = dataset(tmp_path, data)
    assert [record["round"] for record in dagger.history.records] == [0, 1, 2]
    assert [record["beta"] for record in dagger.history.records] == [1.0, 0.5, 0.5]
    for transitions in rounds:
        np.testing.assert_array_equal(transitions.action, cart_pole(transitions.observation.numpy()))
        assert len(transitions.episode_lengths()) == 3
    # CartPole's reward is 1 per step, so equal lengths and returns show that no step is missing.
    np.testing.assert_array_equal(rounds[1].episode_returns(), rounds[1].episode_lengths())
    same = rounds[1].next_observation[:-1][~rounds[1].done[:-1]] == rounds[1].observation[1:][~rounds[1].done[:-1]]
    assert same.all()
    sizes = np.cumsum([len(transitions) for transitions in rounds]).tolist()
    assert [record["dataset_size"] for record in dagger.history.records] == sizes
    assert [record["expert_queries"] for record in dagger.history.records] == sizes
    assert module.env_steps == dagger.history.visited == sizes[-1] - sizes[0]
    assert len(data.train) + len(data.held_out) == sizes[-1]


def test_dataset_folder_loads_as_demonstrations(tmp_path):
    _, _, data = run(tmp_path)
    again = DemonstrationDataModule("CartPole-v1", demonstrations=str(tmp_path / "dataset"), val_fraction=0.0, seed=0)
    again.setup("fit")
    together = Transitions.concatenate([data.train, data.held_out])
    assert len(again.train) == len(together)
    order = [np.lexsort(record.observation.numpy().T) for record in (again.train, together)]
    np.testing.assert_array_equal(again.train.observation[order[0]], together.observation[order[1]])
    np.testing.assert_array_equal(again.train.action[order[0]], together.action[order[1]])


@pytest.mark.slow
def test_round_returns_are_those_of_the_learner(tmp_path):
    """The expert's return of 500 is kept; it is measured again only if the demonstrations have no rewards."""
    _, _, data = run(tmp_path)
    again = DemonstrationDataModule("CartPole-v1", demonstrations=str(tmp_path / "dataset"), seed=0)
    again.setup("fit")
    assert again.load().episode_returns.mean() < 450
    assert again.expert_reference == data.expert_reference
    assert again.expert_return == 500.0
    asked = []

    def act(observation):
        asked.append(len(observation))
        return cart_pole(observation)

    file = str(tmp_path / "dataset" / "round_000.npz")
    for known in (0.0, 1.0):
        transitions = read_demonstrations(file, *data.spaces).transitions
        transitions.reward *= known
        settings = {"demonstrations": transitions, "expert": "", "num_trajectories": None}
        _, _, data = run(tmp_path / str(known), expert=act, data=settings)
        assert data.expert_return == 500.0
        queries, asked[:] = sum(asked), []
        assert (queries > 100 * 500) == (known == 0.0)


def test_round_zero_uses_initial_demonstrations(tmp_path):
    _, _, data = run(tmp_path / "all", rounds=1)
    plain = DemonstrationDataModule("CartPole-v1", expert="scripted", num_trajectories=3, num_envs=3, seed=0)
    plain.setup("fit")
    first = dataset(tmp_path / "all", data)[0]
    assert torch.equal(first.observation, Transitions.concatenate([plain.train, plain.held_out]).observation)
    dagger, _, data = run(tmp_path / "one", rounds=1, initial_episodes=1)
    (only,) = dataset(tmp_path / "one", data)[0].episode_lengths().tolist()
    assert dagger.history.records[0]["dataset_size"] == only
    assert data.expert_return == plain.expert_return  # measured on all demonstrations
    with pytest.raises(ConfigError, match="initial_episodes is 4, but there are 3"):
        run(tmp_path / "many", initial_episodes=4)


def test_best_round_is_kept(tmp_path):
    class Judge(Noted):
        def on_validation_end(self, trainer, pl_module):
            super().on_validation_end(trainer, pl_module)
            pl_module.evaluation = {"return_mean": [10.0, 20.0, 40.0, 30.0, 5.0][len(self.ends) - 1]}

    noted = Judge()
    dagger, _, _ = run(tmp_path, callbacks=[noted], rounds=4)
    returns = [record["return_mean"] for record in dagger.history.records]
    assert dagger.history.best_round == int(np.argmax(returns))
    assert dagger.history.best_round == 2
    kept = load_policy(tmp_path).state_dict()
    for name, value in noted.ends[dagger.history.best_round].items():
        assert torch.equal(kept[name], value), name
    # Counts the steps of the rounds it was trained on, although the next round was collected before it was saved.
    for name, i in (("best", dagger.history.best_round), ("last", 4)):
        checkpoint = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        sizes = [record["dataset_size"] for record in dagger.history.records]
        assert checkpoint["env_steps"] == sizes[i] - sizes[0]


def test_monitored_checkpoints_are_replaced(tmp_path):
    theirs = ModelCheckpoint(tmp_path / "theirs", monitor="val/loss")
    dagger, _, _ = run(tmp_path, callbacks=[theirs])
    assert not (tmp_path / "theirs").exists()
    assert dagger.best_model_path == str(tmp_path / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize("reinitialize", [False, True])
def test_reinitialize_decides_where_a_round_starts(tmp_path, reinitialize):
    noted = Noted()
    run(tmp_path, callbacks=[noted], reinitialize=reinitialize)
    for number in (2, 4):  # the first epochs of rounds 1 and 2
        name = "network.layers.1.weight"  # layer 0 also changes with the standardization of its inputs
        warm = torch.equal(noted.starts[number][name], noted.ends[number // 2 - 1][name])
        assert warm is not reinitialize
        assert bool(noted.moments[number]) is not reinitialize  # Adam's moments
        assert not torch.equal(noted.starts[number][name], noted.starts[0][name])


def test_reinitialized_codes_are_fitted_to_chunks(tmp_path):
    data = {"env_id": "Pendulum-v1"}
    policy = partial(QuantizedPolicy, horizon=4, n_action_steps=2, codes=4)
    dagger, _, _ = run(tmp_path, policy=policy, data=data, reinitialize=True)
    assert dagger.history.round == 2


def test_inputs_are_standardized_by_all_data_of_a_round(tmp_path):
    _, module, data = run(tmp_path)
    np.testing.assert_allclose(module.policy.encoder.standardize.mean, data.train.observation.mean(0), rtol=1e-5)


def test_early_stopping_ends_a_round(tmp_path):
    """With an unreachable improvement threshold, each round ends after patience + 1 epochs."""
    stop = EarlyStopping("val/loss", min_delta=1e9, patience=2)
    noted = Noted()
    trainer = {"max_epochs": 10, "check_val_every_n_epoch": 1}
    dagger, _, _ = run(tmp_path, callbacks=[stop, noted], epochs_per_round=None, trainer=trainer)
    # The first value counts as an improvement on infinity.
    assert len(noted.starts) == 3 * 3
    assert [record["return_mean"] is not None for record in dagger.history.records] == [True] * 3


@pytest.mark.slow
def test_round_takes_max_epochs_without_early_stopping(tmp_path):
    noted = Noted()
    run(tmp_path, callbacks=[noted], epochs_per_round=None)
    assert len(noted.starts) == 3 * 4


def test_steps_per_round_sets_collected_steps(tmp_path):
    dagger, _, data = run(tmp_path, episodes_per_round=None, steps_per_round=70)
    assert np.diff([record["dataset_size"] for record in dagger.history.records]).tolist() == [70, 70]
    assert all(bool(transitions.done[-1]) for transitions in dataset(tmp_path, data))


def test_labels_weigh_one_among_weighted_demonstrations(tmp_path):
    data = {"return_temperature": None}
    source = DemonstrationDataModule("CartPole-v1", expert="scripted", num_trajectories=3, num_envs=3, seed=0)
    source.setup("fit")
    weighted = Transitions.concatenate([source.train, source.held_out])
    weighted.weight = torch.rand(len(weighted)) + 0.5
    weighted.next_observation = None
    data = {"expert": "scripted", "demonstrations": weighted}
    _, _, module_data = run(tmp_path, data=data)
    assert module_data.train.next_observation is None
    assert (module_data.train.weight == 1).sum() >= len(module_data.train) - len(weighted)


@pytest.mark.slow
def test_disagreement_is_share_of_states_that_differ(tmp_path):
    asked = []

    def contrary(observation):
        asked.append(observation.copy())
        return 1 - cart_pole(observation)

    dagger, _, _ = run(
        tmp_path, expert=contrary, rounds=1, epochs_per_round=20, trainer={"check_val_every_n_epoch": 20}
    )
    states = np.concatenate(asked)
    record = dagger.history.records[1]
    assert len(states) == record["expert_queries"] - dagger.history.records[0]["expert_queries"]
    # The kept policy may be of another round, so round 0's learner is loaded from its own checkpoint.
    if dagger.history.best_round == 0:
        learner = load_policy(tmp_path)(states)
        assert record["disagreement"] == pytest.approx(float(np.mean(learner != 1 - cart_pole(states))))
    assert record["disagreement"] > 0.5


# Fewer queries


@pytest.mark.parametrize(
    "beta", [pytest.param(0.0, marks=pytest.mark.slow), 0.3, pytest.param(1.0, marks=pytest.mark.slow)]
)
def test_query_budget_limits_expert_labels(tmp_path, beta):
    asked = []

    def expert(observation):
        asked.append(len(observation))
        return cart_pole(observation)

    dagger, _, data = run(tmp_path, expert=expert, policy=EnsemblePolicy, query_budget=40, beta=beta)
    first, *others = dagger.history.records
    # The expert is asked equally often whether it acts or only labels.
    assert np.diff([record["expert_queries"] for record in dagger.history.records]).tolist() == [40, 40]
    assert sum(asked) == others[-1]["expert_queries"] - first["expert_queries"]
    assert dagger.summary_figures()["queries_saved"] == dagger.history.visited - sum(asked)
    for transitions in dataset(tmp_path, data)[1:]:
        np.testing.assert_array_equal(transitions.action, cart_pole(transitions.observation.numpy()))
    assert len(data.train) + len(data.held_out) == others[-1]["dataset_size"]


@pytest.mark.parametrize("budget", [1, 10])
def test_learner_acts_after_budget_is_spent(tmp_path, budget):
    """At β = 1 the expert acts in the first steps of each environment, up to the environment's share of the budget."""
    learner = []

    def expert(observation):
        return cart_pole(observation)

    class Watch(Collector):
        def _play(self, i, beta):
            played = super()._play(i, beta)
            learner.append((played[0].asked, played[0].learned, played[0].labels))
            return played

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_imitation.methods.dagger.callback.Collector", Watch)
        run(tmp_path, expert=expert, policy=EnsemblePolicy, query_budget=budget, beta=1.0, rounds=1)
    ((asked, _, _),) = learner
    asked = np.stack(asked)  # [time, env]
    shares = np.array([budget // 3 + (e < budget % 3) for e in range(3)])
    np.testing.assert_array_equal(asked.sum(0), shares)
    assert all(asked[:n, e].all() for e, n in enumerate(shares))
    assert len(asked) > 10 + max(shares)  # the learner continued


def test_warm_start_keeps_policy_until_first_step(tmp_path):
    """Statistics of the inputs change between rounds, and the first layer is adapted to the new ones."""
    noted = Noted()
    _, module, data = run(tmp_path, callbacks=[noted], episodes_per_round=6, data={"num_trajectories": 2})
    x = data.train.observation[:500]
    for before, after in ((noted.ends[0], noted.starts[2]), (noted.ends[1], noted.starts[4])):
        heads = []
        for state in (before, after):
            module.policy.load_state_dict(state)
            heads.append(module.policy.head(x).detach())
        assert not torch.equal(before["encoder.standardize.mean"], after["encoder.standardize.mean"])
        torch.testing.assert_close(*heads, rtol=1e-4, atol=1e-4)


def test_budget_goes_to_states_of_largest_disagreement(tmp_path, monkeypatch):
    """With one round, round 0's learner chooses the states."""
    states, doubts = [], []

    def watch(self, observation, asked):
        states.append(observation)
        doubts.append(self._disagreement(observation))
        return choose(self, observation, asked)

    choose = Collector._most_uncertain
    monkeypatch.setattr(Collector, "_most_uncertain", watch)
    _, _, data = run(tmp_path, rounds=1, policy=EnsemblePolicy, query_budget=25)
    labeled = dataset(tmp_path, data)[1].observation
    least = doubts[0].sort(descending=True).values[24]
    chosen = states[0][doubts[0] >= least]
    assert len(states[0]) > 25
    assert {tuple(row) for row in labeled.tolist()} == {tuple(row) for row in chosen.tolist()}


@pytest.mark.slow
def test_uncertainty_threshold_limits_queries(tmp_path):
    never, _, _ = run(tmp_path / "never", policy=EnsemblePolicy, uncertainty_threshold=100.0)
    assert len({record["expert_queries"] for record in never.history.records}) == 1
    assert len(never.history.records) == 3
    assert never.history.records[1]["disagreement"] is None
    assert never.summary_figures()["queries_saved"] == never.history.visited
    resumed, _, data = run(
        tmp_path / "never", policy=EnsemblePolicy, uncertainty_threshold=100.0, ckpt_path=last(tmp_path / "never")
    )
    assert resumed.history.records == never.history.records  # rounds without labels have no file
    always, _, data = run(tmp_path / "always", policy=EnsemblePolicy, uncertainty_threshold=0.0)
    some, module, data = run(tmp_path / "some", policy=EnsemblePolicy, uncertainty_threshold=0.05, rounds=1)
    assert 0 < some.summary_figures()["queries_saved"] < some.history.visited
    assert always.history.visited > 0
    assert len(data.train) + len(data.held_out) == some.history.records[-1]["dataset_size"]
    assert isinstance(module.policy, EnsemblePolicy)


def test_selective_queries_need_an_ensemble(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.policy to lit_imitation\.EnsemblePolicy, which is CategoricalPolicy"
    ):
        run(tmp_path, query_budget=10)


# Faults


class Unreliable:
    """Acts like the controller until a call within round 2, and then fails in a given way."""

    def __init__(self, fault):
        self.fault, self.calls, self.mended = fault, 0, False

    def __call__(self, observation):
        self.calls += 1
        if self.mended or self.calls < 45:
            return cart_pole(observation)
        return self.fault(observation)


def _raises(observation):
    raise RuntimeError("the pilot has left")


FAULTS = {
    "raises": (_raises, "RuntimeError: the pilot has left"),
    "shape": (lambda observation: np.zeros((len(observation), 2), np.int64), r"shape \(\d, 2\) instead of"),
    "nan": (lambda observation: np.full(len(observation), np.nan), "dtype float64 instead of integers"),
    "outside": (lambda observation: np.full(len(observation), 2), r"action 2 is not in Discrete\(2\)"),
}


@pytest.mark.grid(every=4)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_within_a_round_loses_no_data(tmp_path, fault):
    broken, text = FAULTS[fault]
    whole, module, _ = run(tmp_path / "whole", expert=cart_pole, steps_per_round=90, episodes_per_round=None)
    expert = Unreliable(broken)
    settings = {"steps_per_round": 90, "episodes_per_round": None, "expert": expert}
    with pytest.raises(ExpertError, match=rf"round [12], step \d+: .*{text}"):
        run(tmp_path / "cut", **settings)
    partial_file = next((tmp_path / "cut" / "dataset").glob("partial_*.npz"))
    assert len(np.load(partial_file)["actions"]) > 0
    expert.mended = True
    resumed, again, _ = run(tmp_path / "cut", **settings, ckpt_path=last(tmp_path / "cut"))
    assert resumed.history.records == whole.history.records
    for name, value in module.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], value), name
    assert not list((tmp_path / "cut" / "dataset").glob("partial_*"))
    for file in (tmp_path / "whole" / "dataset").iterdir():
        theirs = np.load(tmp_path / "cut" / "dataset" / file.name)
        mine = np.load(file)
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine if key != "metadata")


@pytest.mark.slow
def test_nan_action_of_expert_is_an_error(tmp_path):
    data = {"env_id": "Pendulum-v1"}
    datamodule = DemonstrationDataModule("Pendulum-v1", expert="scripted", num_trajectories=2, num_envs=2, seed=0)
    callback = DAggerCallback(expert=lambda o: np.full((len(o), 1), np.nan), rounds=1, epochs_per_round=1)
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    with pytest.raises(ExpertError, match=r"round 1, step 0: .*row 0, action \[nan\] is not in Box"):
        trainer.fit(BC(policy=partial(GaussianPolicy, hidden_sizes=[8])), datamodule=datamodule)
    assert data


@pytest.mark.parametrize(
    "log", ["flights.npz", "flights.hdf5", "minari:D4RL/x", "hf:somebody/flights", "npz:log.npz", ""], ids=repr
)
def test_recorded_demonstrations_cannot_label(tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    data = DemonstrationDataModule("CartPole-v1", expert="scripted", num_trajectories=1, seed=0)
    data.setup("fit")
    np.savez("log.npz", observations=data.train.observation.numpy())
    with pytest.raises(ConfigError, match=r"DAgger needs an expert that can be asked.*clone it"):
        run(
            tmp_path,
            expert=log,
            data=None if log else {"expert": "", "demonstrations": data.train, "num_trajectories": None},
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"steps_per_round": 10}, "episodes_per_round or steps_per_round, not both"),
        ({"beta": 1.5}, r"beta is 1.5 in round 1"),
        ({"beta": lambda i: 1.0 - i}, r"beta is -1.0 in round 2"),
        ({"uncertainty_threshold": -1.0}, "uncertainty_threshold is -1.0"),
        ({"epochs_per_round": 3}, "check_val_every_n_epoch is 2 .*a divisor of 3"),
        (
            {"expert": 3},
            "expert is 3; it must be a HumanLabels or a mapping or text or an object with act or a f",
        ),
        ({"data": {"eval_episodes": 0}}, "data.eval_episodes is 0"),
        ({"expert": HumanLabels(), "beta": 0.5}, r"cannot act in it, but beta is \[0.5, 0.5\]"),
        ({"callbacks": [EarlyStopping("val/loss")]}, "EarlyStopping can end a round at any epoch"),
        ({"epochs_per_round": None, "trainer": {"max_epochs": -1}}, "nothing ends a round"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_invalid_settings_are_refused_before_training(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **settings)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_data_of_an_earlier_run_are_moved_away(tmp_path):
    run(tmp_path, rounds=1)
    held = {file.name: file.read_bytes() for file in (tmp_path / "dataset").iterdir()}
    run(tmp_path, rounds=1, initial_episodes=1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "dataset-1").iterdir()} == held


# Human labels


def fill_in(directory):
    """Fill in the controller's actions."""
    observation = np.load(directory / "states.npz")["observations"]
    rows = [["row", "action"], *([i, action] for i, action in enumerate(cart_pole(observation)))]
    with (directory / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.slow
def test_human_labels_equal_to_experts_give_same_policy(tmp_path, capsys):
    sync = {"backend": "sync"}  # rendering needs this backend
    whole, module, _ = run(tmp_path / "asked", expert=cart_pole, data=sync)
    directory = tmp_path / "person"
    for i in (1, 2):
        path = last(directory) if i > 1 else None
        paused, _, _ = run(directory, expert=HumanLabels(), ckpt_path=path, data=sync)
        waiting = directory / "to_label" / f"round_{i:03d}"
        line = capsys.readouterr().out.strip().splitlines()[-1]  # earlier lines show the demonstrations' progress
        assert str(waiting / "labels.csv") in line
        assert "--ckpt_path last" in line
        assert paused.paused
        with pytest.raises(DemonstrationError, match=r"labels\.csv"):
            run(directory, expert=HumanLabels(), ckpt_path=last(directory), data=sync)
        fill_in(waiting)
    resumed, again, _ = run(directory, expert=HumanLabels(), ckpt_path=last(directory), data=sync)
    assert not resumed.paused
    assert resumed.history.records == whole.history.records
    for name, value in module.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], value), name


# From the command line


@pytest.mark.slow
def test_command_line_run_pauses_and_summarizes(tmp_path, capsys):
    arguments = [
        "fit", "--model=lit_imitation.BC", "--data=lit_imitation.DemonstrationDataModule", "--data.env_id=CartPole-v1",
        "--data.expert=scripted", "--data.num_trajectories=2", "--data.num_envs=2", "--data.eval_episodes=2",
        "--data.test_episodes=3", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        "--trainer.callbacks=lit_imitation.DAggerCallback", "--trainer.callbacks.rounds=2",
        "--trainer.callbacks.epochs_per_round=1",
    ]  # fmt: skip
    main([*arguments, f"--trainer.default_root_dir={tmp_path / 'a'}", "--trainer.callbacks.beta=0.5"])
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["method"] == "dagger"
    assert summary["episodes"] == 3
    assert summary["checkpoint"] == "checkpoints/best.ckpt"
    assert summary["expert_queries"] == summary["rounds"][-1]["expert_queries"]
    assert [record["beta"] for record in summary["rounds"]] == [1.0, 0.5, 0.5]
    assert all(record["return_mean"] is not None for record in summary["rounds"])
    with (tmp_path / "a" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dagger/round"]]
    assert [float(row["dagger/round"]) for row in rows] == [0, 1, 2]
    for record, row in zip(summary["rounds"], rows, strict=True):
        for name, value in record.items():
            assert (
                (row[f"dagger/{name}"] == "") if value is None else float(row[f"dagger/{name}"]) == pytest.approx(value)
            )

    capsys.readouterr()
    human = [*arguments, f"--trainer.default_root_dir={tmp_path / 'b'}"]
    human += ["--trainer.callbacks.expert=lit_imitation.HumanLabels"]
    main(human)
    out = capsys.readouterr().out.strip().splitlines()
    assert len(out) == 1
    with pytest.raises(SystemExit):
        main([*human, "--ckpt_path=last"])
    assert "labels.csv" in capsys.readouterr().err
    fill_in(tmp_path / "b" / "to_label" / "round_001")
    main([*human, "--ckpt_path=last"])
    assert (tmp_path / "b" / "to_label" / "round_002" / "labels.csv").exists()


def test_return_of_zero_can_be_best(tmp_path):
    """A later round replaces it only with a higher return."""

    class Judge(Callback):
        def on_validation_end(self, trainer, pl_module):
            pl_module.evaluation = {"return_mean": next(returns)}

    returns = iter([-3.0, 0.0, -1.0])
    dagger, _, _ = run(tmp_path, callbacks=[Judge()])
    assert [record["return_mean"] for record in dagger.history.records] == [-3.0, 0.0, -1.0]
    assert dagger.history.best_round == 1


def test_demonstrations_on_disk_are_refused():
    data = DemonstrationDataModule("Pendulum-v1", demonstrations="large.hdf5")
    data.stored = SimpleNamespace(nbytes=10**10)
    with pytest.raises(ConfigError, match=r"but 10 GB of observations are read from disk, and .* set data.memory"):
        check_components(BC(), data)
