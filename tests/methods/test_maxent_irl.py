"""MaxEntIRL: recovered rewards, several processes, convergence, and errors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from lit_imitation import (
    BC,
    ConvolutionalReward,
    GridWorld,
    LinearReward,
    MaxEntIRL,
    MLPReward,
    TabularDataModule,
    TabularMDP,
    load_policy,
    load_reward,
)
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.metrics.reward_recovery import expected_value, sample_transitions
from lit_imitation.optim.optimization import Optimization
from lit_imitation.tabular import Planning, RewardTable, solve
from lit_imitation.tabular.trajectories import sample_trajectories
from lit_imitation.training.run import RunDirectory

pytestmark = pytest.mark.integration


def fit(model, data, tmp_path, epochs=1, **more):
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"num_sanity_val_steps": 0, "enable_checkpointing": False, "default_root_dir": tmp_path}
    trainer = Trainer(max_epochs=epochs, **(settings | more))
    trainer.fit(model, data)
    return trainer


def module(world, trajectories="", **more):
    return TabularDataModule(
        world=world, demonstrations=trajectories, **{"eval_episodes": 0, "passes_per_epoch": 50, "seed": 0, **more}
    )


def as_lists(found):
    """Trajectories as lists of states and actions."""
    parts = [x.split(found.length.tolist()) for x in (found.state, found.next_state, found.action)]
    return [(np.append(s, z[-1]), np.asarray(a)) for s, z, a in zip(*parts, strict=True)]


@pytest.mark.slow
def test_true_reward_is_recovered_from_soft_expert(tmp_path):
    """Recovered up to a constant, which demonstrations of one length do not determine."""
    world, planning = GridWorld(5, seed=2), Planning(10, 1.0)
    policy = solve(world, world.reward, planning).policy
    drawn = sample_trajectories(world, policy, 3000, 10, torch.Generator().manual_seed(0), "soft")
    model = MaxEntIRL(horizon=10, gamma=1.0, learning_rate=0.1)
    trainer = fit(model, module(world, as_lists(drawn), passes_per_epoch=400), tmp_path)
    assert trainer.global_step < 400  # stopped by the gap
    weights = model.reward.weights[0].detach().squeeze(-1)
    truth = torch.tensor(GridWorld.REWARDS, dtype=torch.float32)
    torch.testing.assert_close(weights - weights.mean(), truth - truth.mean(), rtol=0, atol=0.1)
    assert model.recovery["value_share"] > 0.999
    assert model.recovery["reward_correlation"] > 0.99
    assert model.recovery["epic_distance"] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("entropy", ["causal", "trajectory"])
def test_every_reward_model_raises_the_likelihood(inputs, entropy, tmp_path):
    world = GridWorld(4)
    factories = [LinearReward, MLPReward] + ([ConvolutionalReward] if inputs != "transition" else [])
    for factory in factories:
        torch.manual_seed(0)
        model = MaxEntIRL(
            lambda *given, factory=factory: factory(*given, inputs=inputs), entropy, 8, 1.0, learning_rate=0.01
        )
        data = module(world, expert_trajectories=20, steps_per_trajectory=8, passes_per_epoch=30)
        losses = []
        loss = model.loss

        def noting(numbers, loss=loss, losses=losses):
            found = loss(numbers)
            losses.append(float(found[0]))
            return found

        model.loss = noting
        fit(model, data, tmp_path)
        assert losses[-1] < losses[0] - 0.1


def test_step_on_all_data_is_mean_of_steps_on_parts(tmp_path):
    """Several processes rely on this. Two worlds, with trajectories of different lengths."""
    data = TabularDataModule(
        "lit_imitation/GridWorld-v0",
        env_kwargs={"size": 4},
        num_worlds=2,
        expert_trajectories=6,
        steps_per_trajectory=7,
        eval_episodes=0,
        passes_per_epoch=1,
        seed=0,
    )
    model = MaxEntIRL(gap_tolerance=0.0)
    fit(model, data, tmp_path, barebones=False)
    grads = []
    for ids in (torch.arange(12), torch.tensor([0, 3, 4, 8, 9, 1]), torch.tensor([2, 5, 6, 7, 10, 11])):
        model.zero_grad()
        model.loss(ids)[0].backward()
        grads.append(model.reward.weights[0].grad.clone())
    torch.testing.assert_close(grads[0], (grads[1] + grads[2]) / 2)
    assert not torch.allclose(grads[1], grads[2])


def test_convergence_is_logged(tmp_path):
    """Likelihood and gap match their definitions, at a step that the logging interval would skip."""
    world = GridWorld(4, slip=0.0, seed=1)  # without slip, the likelihood is that of the actions
    data = module(world, expert_trajectories=50, steps_per_trajectory=6, passes_per_epoch=400)
    model = MaxEntIRL(horizon=6, gamma=1.0, learning_rate=0.1, gap_tolerance=0.05)
    steps = []
    loss = model.loss
    model.loss = lambda numbers: steps.append(model.reward.table(model.on_device(world)).values) or loss(numbers)
    logger = CSVLogger(tmp_path)
    trainer = fit(model, data, tmp_path, logger=logger, log_every_n_steps=1000)
    assert 1 < trainer.global_step < 400
    (shown,) = data.trajectories
    policy = solve(world, RewardTable(steps[-1].double()), model.planning).policy
    time = torch.cat([torch.arange(int(count)) for count in shown.length])
    likelihood = policy[time, shown.state, shown.action].log().mean()
    assert model.summary_figures()["log_likelihood"] == pytest.approx(float(likelihood), abs=1e-3)
    assert float(trainer.callback_metrics["train/log_likelihood"]) == pytest.approx(float(likelihood), abs=1e-3)
    assert 0 < trainer.callback_metrics["train/feature_gap"] <= 0.05
    assert float(trainer.callback_metrics["train/uniform_log_likelihood"]) == pytest.approx(-np.log(5))
    assert model.summary_figures()["uniform_log_likelihood"] == pytest.approx(-np.log(5))
    assert model.summary_figures()["markov_log_likelihood"] > likelihood
    logger.save()
    header = (Path(logger.log_dir) / "metrics.csv").read_text()
    for name in ("feature_gap", "uniform_log_likelihood", "markov_log_likelihood"):
        assert f"train/{name}" in header


BOUTS = [680, 50, 300, 120, 80, 200, 61, 500]


def bouts(world, seed=0, gamma=0.95):
    """Demonstrations of a soft expert, in trajectories of very different lengths."""
    policy = solve(world, world.reward, Planning(gamma=gamma)).policy
    generator = torch.Generator().manual_seed(seed)
    return [as_lists(sample_trajectories(world, policy, 1, steps, generator, "soft"))[0] for steps in BOUTS]


@pytest.mark.slow
def test_long_trajectories_recover_reward_better_than_baselines(tmp_path):
    """680 steps at γ 0.95: every step has weight, and held-out data are more likely than under action frequencies."""
    world = GridWorld(5, seed=2)
    model = MaxEntIRL(gamma=0.95)
    logger = CSVLogger(tmp_path)
    data = module(world, bouts(world), passes_per_epoch=200, val_fraction=0.25)
    trainer = fit(model, data, tmp_path, logger=logger)
    weights = model.reward.weights[0].detach().squeeze(-1)
    truth = torch.tensor(GridWorld.REWARDS, dtype=torch.float32)
    torch.testing.assert_close(weights - weights.mean(), truth - truth.mean(), rtol=0, atol=0.25)
    found = model.summary_figures()
    (held,), (train,) = data.held_out, data.trajectories
    assert len(held.length) == 2
    assert sorted(held.length.tolist() + train.length.tolist()) == sorted(BOUTS)
    policy = solve(world, RewardTable(model.reward.table(world).values.detach().double()), model.planning).policy
    assert found["held_out_log_likelihood"] == pytest.approx(
        float(policy[held.state, held.action].log().mean()), abs=1e-3
    )
    counts = np.ones((25, 5))
    np.add.at(counts, (train.state.numpy(), train.action.numpy()), 1)
    markov = np.log(counts / counts.sum(1, keepdims=True))[held.state, held.action].mean()
    assert found["held_out_markov_log_likelihood"] == pytest.approx(float(markov))
    assert found["held_out_uniform_log_likelihood"] == pytest.approx(-np.log(5))
    assert found["held_out_log_likelihood"] > found["held_out_markov_log_likelihood"] > -np.log(5)
    for name in ("log_likelihood", "uniform_log_likelihood", "markov_log_likelihood"):
        assert float(trainer.callback_metrics[f"val/{name}"]) == pytest.approx(found[f"held_out_{name}"], abs=1e-6)


@pytest.mark.slow
def test_late_steps_weigh_as_much_as_early_steps(tmp_path):
    """The gradient equals that of the same steps split into trajectories of one step."""
    world = GridWorld(4, seed=1)
    whole = bouts(world)[1:2]
    states, actions = whole[0]
    cut = [(states[t : t + 2], actions[t : t + 1]) for t in range(len(actions))]
    grads = []
    for given in (whole, cut):
        model = MaxEntIRL(gamma=0.9, gap_tolerance=0.0, tolerance=1e-9)
        fit(model, module(world, given, passes_per_epoch=1), tmp_path, precision="64-true")
        model.zero_grad()
        model.loss(torch.arange(len(given)))[0].backward()
        grads.append(model.reward.weights[0].grad.clone())
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "warns"), [(680, True), (30, False)])
def test_small_discounted_weight_warns(steps, warns, tmp_path):
    """The likelihood per step is logged in addition to the objective."""
    world = GridWorld(4)
    shown = [(states[: steps + 1], actions[:steps]) for states, actions in bouts(world)[:1]]
    model = MaxEntIRL(gamma=0.95, step_weights="discounted")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, module(world, shown, passes_per_epoch=2), tmp_path)
    texts = [str(one.message) for one in caught if "step_weights discounted" in str(one.message)]
    assert len(texts) == warns
    if warns:
        assert "the weights of the 680 demonstrated steps sum to 20, 2.9% of them" in texts[0]
    (one,) = model.demonstrations
    policy = solve(world, RewardTable(model.reward.table(world).values.detach().double()), model.planning).policy
    expected = float(policy[one.state, one.action].log().mean())
    found = model.summary_figures()
    assert found["log_likelihood"] == pytest.approx(expected, abs=1e-3)
    assert found["discounted_log_likelihood"] < found["log_likelihood"]


@pytest.mark.slow
def test_reward_worse_than_zero_reward_warns(tmp_path):
    world = GridWorld(4)

    class Wrong(LinearReward):
        def table(self, mdp):
            found = super().table(mdp)
            return found._replace(values=found.values * 0 - 5 * mdp.reward.values.to(found.values))

    with pytest.warns(UserWarning, match=r"explains the demonstrated actions worse than a uniform policy does: -\d"):
        fit(MaxEntIRL(Wrong), module(world, bouts(world), passes_per_epoch=1), tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(MaxEntIRL(), module(world, bouts(world), passes_per_epoch=20), tmp_path)
    assert not [one for one in caught if "worse than a uniform" in str(one.message)]


def test_unavailable_actions_do_not_disturb_learning(tmp_path):
    """The expert's reward is recovered in a world where half of the states lack the third action."""
    rng = np.random.default_rng(0)
    available = np.ones((8, 3), bool)
    available[::2, 2] = False
    p = rng.dirichlet(np.full(8, 0.5), (8, 3))
    world = TabularMDP(p, reward=rng.normal(size=8), features=np.eye(8), available=available)
    policy = solve(world, world.reward, Planning(gamma=0.8)).policy
    drawn = sample_trajectories(world, policy, 20, 500, torch.Generator().manual_seed(0), "soft")
    model = MaxEntIRL(gamma=0.8, learning_rate=0.1)
    fit(model, module(world, as_lists(drawn), passes_per_epoch=300), tmp_path)
    weights = model.reward.weights[0].detach().squeeze(-1).numpy()
    assert np.corrcoef(weights, world.reward.values)[0, 1] > 0.9
    assert model.likelihoods["uniform_log_likelihood"] > -np.log(3)
    chosen = model.policy.head(torch.arange(8)).argmax(-1).numpy()
    assert available[np.arange(8), chosen].all()


def test_fresh_worlds_differ(tmp_path):
    """The logged value is that of the recovered reward, computed from sums over the fresh worlds."""
    data = TabularDataModule(
        "lit_imitation/GridWorld-v0", env_kwargs={"size": 4}, fresh_worlds=2, expert_trajectories=20, eval_episodes=0
    )
    model = MaxEntIRL(gamma=0.9)
    fit(model, data, tmp_path)
    assert len({tuple(world.features.argmax(1).tolist()) for world in [*data.worlds, *data.fresh]}) == 3
    exact = Planning(gamma=0.9, tolerance=1e-9, entropy="none")
    values = []
    for world in data.fresh:
        table = model.reward.table(world.to(dtype=torch.float32))
        recovered = solve(world, table._replace(values=table.values.detach().double()), exact).policy
        values.append([expected_value(world, p, exact) for p in (recovered, solve(world, world.reward, exact).policy)])
    reached, best = torch.tensor(values).sum(0)
    assert model.recovery["fresh_value_share"] == pytest.approx(float(reached / best), abs=1e-3)
    assert model.recovery["fresh_expected_value_difference"] == pytest.approx(float(best - reached) / 2, abs=1e-3)


@pytest.mark.slow
def test_potential_in_true_reward_changes_nothing_recovered(tmp_path):
    """The expert's behavior is the same, and epic_distance is undefined for rewards of transitions."""
    world, gamma = GridWorld(4, seed=1), 0.9
    phi = torch.randn(16, generator=torch.Generator().manual_seed(0)).double()
    p, paid = torch.zeros(2, 16, world.num_actions, 16).double()
    state, action, following = world.row % 16, world.row // 16, world.successor.long()
    p[state, action, following] = world.probability
    paid[state, action, following] = world.reward.values[state] + gamma * phi[following] - phi[state]
    shaped = TabularMDP(p.numpy(), world.start.numpy(), reward=paid.numpy(), features=world.features.numpy())
    found = []
    for truth in (world, shaped):
        data = module(truth, expert="soft", expert_gamma=gamma, expert_trajectories=50)
        found.append(MaxEntIRL(gamma=gamma))
        fit(found[-1], data, tmp_path)
    torch.testing.assert_close(*(model.reward.weights[0] for model in found))
    plain, other = (model.recovery for model in found)
    assert plain["reward_correlation"] > 0.5 > other["reward_correlation"]
    assert "epic_distance" in plain
    assert "epic_distance" not in other


def test_learned_reward_and_policy_are_loaded(tmp_path):
    world = GridWorld(4)
    model = MaxEntIRL(lambda *given: MLPReward(*given, hidden_sizes=[8]), gamma=0.8)
    trainer = fit(model, module(world), tmp_path, callbacks=[RunDirectory("{}")])
    trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    transitions = sample_transitions(world)
    reward = load_reward(tmp_path)
    table = model.reward.table(world).values.detach()
    torch.testing.assert_close(reward.reward(transitions), table[transitions.observation])
    policy = load_policy(tmp_path)
    soft = solve(world, RewardTable(table.double()), model.planning).policy
    found = policy.head(torch.arange(16)).softmax(-1)
    torch.testing.assert_close(found.double(), soft, rtol=1e-3, atol=1e-4)
    again = MaxEntIRL.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(again.reward.table(world).values, table)


@pytest.mark.slow
def test_other_methods_run_on_worlds_and_recovered_rewards(tmp_path):
    env = ["--data.env_id=lit_imitation/GridWorld-v0", "--data.env_kwargs={size: 4, max_episode_steps: 20}"]
    small = ["--trainer.max_epochs=1", "--data.eval_episodes=2", "--data.test_episodes=4", "--trainer.accelerator=cpu"]
    world, irl, rl = ["--data=lit_imitation.TabularDataModule"], tmp_path / "irl", tmp_path / "rl"
    main(["fit", "--model=lit_imitation.MaxEntIRL", *world, *env, *small, f"--trainer.default_root_dir={irl}"])
    rounds = ["--data=lit_imitation.RolloutDataModule", "--data.rounds_per_epoch=2", "--data.steps_per_round=16"]
    ppo = ["--model=lit_imitation.RL", "--model.learner=lit_imitation.PPO", f"--model.reward={irl}"]
    main(["fit", *ppo, *rounds, *env, *small, f"--trainer.default_root_dir={rl}"])
    expert = ["--data=lit_imitation.DemonstrationDataModule", f"--data.expert=checkpoint:{irl}"]
    main(["fit", "--model=lit_imitation.BC", *expert, *env, *small, f"--trainer.default_root_dir={tmp_path / 'bc'}"])
    for directory in (irl, rl, tmp_path / "bc"):
        assert json.loads((directory / "summary.json").read_text())["episodes"] == 4
    # Loaded from the checkpoint alone.
    main(["test", f"--ckpt_path={irl}", f"--trainer.default_root_dir={tmp_path / 'test'}", "--trainer.accelerator=cpu"])
    figures = [json.loads((at / "summary.json").read_text())["value_share"] for at in (irl, tmp_path / "test")]
    assert figures[0] == figures[1] > 0


def test_recipe_can_hold_demonstrations(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "model: lit_imitation.MaxEntIRL\n"
        "data:\n"
        "  class_path: lit_imitation.TabularDataModule\n"
        "  init_args:\n"
        "    env_id: lit_imitation/GridWorld-v0\n"
        "    env_kwargs: {size: 2, slip: 0.0}\n"
        "    demonstrations: [[[0, 1, 3], [2, 3]], [2, 3], [0, 1, 3, 9]]\n"
    )
    with pytest.raises(SystemExit):
        main(["fit", f"--config={recipe}", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"])
    assert "data.demonstrations, trajectory 2, step 2: next state 9 does not exist" in capsys.readouterr().err


def test_state_rewards_need_no_actions(tmp_path):
    p = np.zeros((3, 2, 3))
    p[:, 0, [1, 2, 0]] = np.eye(3)
    p[:, 1, [1, 2, 0]] = np.eye(3)  # both actions have the same effect and cannot be distinguished
    world = TabularMDP(p)
    fit(MaxEntIRL(), module(world, [[0, 1, 2], [1, 2]], passes_per_epoch=2), tmp_path)
    model = MaxEntIRL(lambda *given: LinearReward(*given, inputs="state_action"))
    with pytest.raises(Exception, match="trajectory 0, step 0: several actions lead from state 0 to 1"):
        fit(model, module(world, [[0, 1, 2], [1, 2]]), tmp_path)


def test_diverged_reward_reaches_no_checkpoint(tmp_path):
    """Every epoch has one step and a checkpoint; the last checkpoint is from before the divergence."""

    class Breaks(LinearReward):
        def table(self, mdp):
            found = super().table(mdp)
            return found._replace(values=found.values / 0.0) if broken else found

    broken = False
    model = MaxEntIRL(Breaks, gap_tolerance=0.0)
    data = module(GridWorld(4), passes_per_epoch=1)
    last = tmp_path / "last.ckpt"

    class Break(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            nonlocal broken
            broken = trainer.current_epoch == 3

        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(last)

    with pytest.raises(TrainingError, match=r"the reward has diverged at step 3 .* model.l2_coefficient above 0"):
        fit(model, data, tmp_path, epochs=5, enable_checkpointing=True, callbacks=[Break()])
    kept = torch.load(last, weights_only=True)
    assert kept["global_step"] == 3
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    again = MaxEntIRL.load_from_checkpoint(last, trust=True)
    assert again.reward.weights[0].isfinite().all()


@pytest.mark.parametrize(
    ("model", "data", "text"),
    [
        (lambda: BC(), lambda: module(GridWorld(3)), "BC learns from demonstrations; TabularDataModule holds none"),
        (lambda: MaxEntIRL(MLPReward), lambda: TabularDataModule("FrozenLake-v1"), "MLPReward needs features"),
        (
            lambda: MaxEntIRL(ConvolutionalReward),
            lambda: module(TabularMDP(np.full((4, 2, 4), 0.25), features=np.eye(4), reward=np.ones(4))),
            "needs a world whose states are the cells of a grid",
        ),
        (
            lambda: MaxEntIRL(),
            lambda: module(TabularMDP(np.full((4, 2, 4), 0.25))),
            "the true reward of this world is unknown, so there is no expert",
        ),
        (lambda: MaxEntIRL(gamma=1.0), None, r"model.gamma is 1\.0"),
        (lambda: MaxEntIRL(entropy="none"), None, "model.entropy none gives no likelihood"),
        (lambda: MaxEntIRL(step_weights="even"), None, "model.step_weights is 'even'; choose equal or discounted"),
        (None, lambda: module(GridWorld(3), val_fraction=1.0), r"data.val_fraction is 1.0; it must lie in \[0, 1\)"),
        (lambda: MaxEntIRL(learning_rate=0.0), None, r"model.learning_rate is 0\.0"),
        (None, lambda: TabularDataModule(), "set either data.env_id or data.world"),
        (None, lambda: TabularDataModule("FrozenLake-v1", fresh_worlds=-1), "data.fresh_worlds is -1"),
        (None, lambda: module(GridWorld(3), expert="sofft"), "data.expert is 'sofft'; choose optimal or soft"),
        (lambda: MaxEntIRL(entropy="causl"), None, "model.entropy is 'causl'; choose one of causal, trajectory"),
        (None, lambda: module(GridWorld(3), num_worlds=2), "data.num_worlds above 1 asks .* is a single one"),
        (None, lambda: module(GridWorld(3), fresh_worlds=1), "data.fresh_worlds above 0 asks .* is a single one"),
        (
            None,
            lambda: TabularDataModule("lit_imitation/Tabular-v0", env_kwargs={"world": GridWorld(3)}, fresh_worlds=1),
            "data.fresh_worlds above 0 asks",
        ),
        (
            lambda: MaxEntIRL(),
            lambda: TabularDataModule("FrozenLake-v1", fresh_worlds=1, eval_episodes=0),
            "data.fresh_worlds above 0 asks .* world_seed, but FrozenLake-v1 has none",
        ),
    ],
)
def test_invalid_settings_are_refused(model, data, text, tmp_path):
    def run():
        built = model() if model else None
        if data:
            given = data()
            fit(built, given, tmp_path) if built else None

    with pytest.raises(ConfigError, match=text):
        run()


def test_cache_is_not_shared_by_worlds_at_one_address(tmp_path):
    model = MaxEntIRL(horizon=5, gamma=1.0)
    world = GridWorld(3, seed=0)
    policy = solve(world, world.reward, Planning(5, 1.0)).policy
    drawn = sample_trajectories(world, policy, 4, 5, torch.Generator().manual_seed(0), "soft")
    fit(model, module(world, as_lists(drawn)), tmp_path)
    for seed in range(1, 40):
        gone = GridWorld(3, seed=seed)
        found = model.on_device(gone).reward.values
        torch.testing.assert_close(found, gone.reward.values.to(found.dtype))
        del gone


@pytest.mark.parametrize("gamma", [-0.1, 0.0, 1.0])
def test_expert_discount_out_of_range_is_refused(gamma):
    with pytest.raises(ConfigError, match=r"data.expert_gamma is .*; it must lie in \(0, 1\)"):
        module(GridWorld(3, seed=0), expert_gamma=gamma)


def test_expert_demonstrates_100_steps_without_time_limit(monkeypatch):
    monkeypatch.setattr("lit_imitation.data.tabular_module.episode_limit", lambda *given, **more: None)
    world = TabularMDP(np.eye(2)[:, None], reward=[1.0, 1.0])  # states never change
    data = module(world, expert_trajectories=1)
    data.prepare_data()
    data.setup("fit")
    assert data.trajectories[0].length.tolist() == [100]


def test_accumulated_batches_are_one_step(tmp_path):
    data = module(GridWorld(4), expert_trajectories=4, steps_per_trajectory=6, passes_per_epoch=6)
    model = MaxEntIRL(gap_tolerance=0.0, optimization=Optimization(accumulate_batches=2))
    assert fit(model, data, tmp_path).global_step == 3
