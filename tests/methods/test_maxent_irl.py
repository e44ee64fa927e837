"""MaxEntIRL: what it recovers, what is shared out, where it stops, and what it says when it cannot go on."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from lightning import Trainer

from lit_imitation import (
    BC,
    ConvolutionalReward,
    ExpectedValueDifference,
    GridWorld,
    LinearReward,
    MaxEntIRL,
    MLPReward,
    TabularDataModule,
    TabularMDP,
    load_policy,
    load_reward,
)
from lit_imitation.callbacks import RunDirectory
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.metrics.epic import EPIC
from lit_imitation.metrics.reward_recovery import expected_value, reward_function, some_transitions
from lit_imitation.tabular import BinaryWorld, Planning, RewardTable, solve
from lit_imitation.tabular.trajectories import sample_trajectories


def fit(model, data, tmp_path, epochs=1, **more):
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"num_sanity_val_steps": 0, "enable_checkpointing": False, "default_root_dir": tmp_path}
    trainer = Trainer(max_epochs=epochs, **settings, **more)
    trainer.fit(model, data)
    return trainer


def module(world, trajectories="", **more):
    return TabularDataModule(
        world=world, demonstrations=trajectories, **{"eval_episodes": 0, "passes_per_epoch": 50, "seed": 0, **more}
    )


def as_lists(found):
    """Trajectories as a user would have them."""
    parts = [x.split(found.length.tolist()) for x in (found.state, found.next_state, found.action)]
    return [(np.append(s, z[-1]), np.asarray(a)) for s, z, a in zip(*parts, strict=True)]


def test_the_true_reward_comes_back_from_an_expert_of_the_assumed_kind(tmp_path):
    """Up to a constant, which no demonstration of one length tells."""
    world, planning = GridWorld(5, seed=2), Planning(10, 1.0)
    policy = solve(world, world.reward, planning).policy
    drawn = sample_trajectories(world, policy, 3000, 10, torch.Generator().manual_seed(0), "soft")
    model = MaxEntIRL(horizon=10, gamma=1.0, learning_rate=0.1)
    trainer = fit(model, module(world, as_lists(drawn), passes_per_epoch=400), tmp_path)
    assert trainer.global_step < 400  # by the gap
    weights = model.reward.weights[0].detach().squeeze(-1)
    truth = torch.tensor(GridWorld.REWARDS, dtype=torch.float32)
    torch.testing.assert_close(weights - weights.mean(), truth - truth.mean(), rtol=0, atol=0.1)
    assert model.recovery["value_share"] > 0.999
    assert model.recovery["reward_correlation"] > 0.99
    assert model.recovery["epic_distance"] < 0.05


@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("entropy", ["causal", "trajectory"])
def test_every_kind_of_reward_raises_the_likelihood(inputs, entropy, tmp_path):
    world = GridWorld(4)
    factories = [LinearReward, MLPReward] + ([ConvolutionalReward] if inputs != "transition" else [])
    for factory in factories:
        torch.manual_seed(0)
        model = MaxEntIRL(
            lambda *given, factory=factory: factory(*given, inputs=inputs), entropy, 8, 1.0, learning_rate=0.01
        )
        data = module(world, expert_trajectories=20, steps_per_trajectory=8, passes_per_epoch=30)
        losses = []
        step = model.training_step
        model.training_step = lambda *given, step=step, losses=losses: losses.append(step(*given)) or losses[-1]
        fit(model, data, tmp_path)
        assert losses[-1] < losses[0] - 0.1


def test_a_step_on_many_is_the_mean_of_steps_on_their_parts(tmp_path):
    """Which is what makes several processes compute what one does; two worlds, trajectories of different lengths."""
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
        model.training_step(ids, 0).backward()
        grads.append(model.reward.weights[0].grad.clone())
    torch.testing.assert_close(grads[0], (grads[1] + grads[2]) / 2)
    assert not torch.allclose(grads[1], grads[2])


def test_what_is_learnt_is_read_again(tmp_path):
    world = GridWorld(4)
    model = MaxEntIRL(lambda *given: MLPReward(*given, hidden_sizes=[8]), gamma=0.8)
    trainer = fit(model, module(world), tmp_path, callbacks=[RunDirectory("{}")])
    trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    transitions = some_transitions(world)
    reward = load_reward(tmp_path)
    table = model.reward.table(world).values.detach()
    torch.testing.assert_close(reward.reward(transitions), table[transitions.observation])
    policy = load_policy(tmp_path)
    soft = solve(world, RewardTable(table.double()), model.planning).policy
    found = policy.head(torch.arange(16)).softmax(-1)
    torch.testing.assert_close(found.double(), soft, rtol=1e-3, atol=1e-4)
    again = MaxEntIRL.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(again.reward.table(world).values, table)


def test_other_methods_run_on_a_world_and_on_what_was_recovered_in_it(tmp_path):
    env = ["--data.env_id=lit_imitation/GridWorld-v0", "--data.env_kwargs={size: 4, max_episode_steps: 20}"]
    small = ["--trainer.max_epochs=1", "--data.eval_episodes=2", "--data.test_episodes=4", "--trainer.accelerator=cpu"]
    world, irl, rl = ["--data=lit_imitation.TabularDataModule"], tmp_path / "irl", tmp_path / "rl"
    main(["fit", "--model=lit_imitation.MaxEntIRL", *world, *env, *small, f"--trainer.default_root_dir={irl}"])
    rounds = ["--data=lit_imitation.RolloutDataModule", "--data.rounds_per_epoch=2", "--data.steps_per_round=16"]
    ppo = ["--model=lit_imitation.RL", "--model.generator=lit_imitation.PPO", f"--model.reward={irl}"]
    main(["fit", *ppo, *rounds, *env, *small, f"--trainer.default_root_dir={rl}"])
    expert = ["--data=lit_imitation.DemonstrationDataModule", f"--data.expert=checkpoint:{irl}"]
    main(["fit", "--model=lit_imitation.BC", *expert, *env, *small, f"--trainer.default_root_dir={tmp_path / 'bc'}"])
    for directory in (irl, rl, tmp_path / "bc"):
        assert json.loads((directory / "summary.json").read_text())["episodes"] == 4
    # As it was trained, from the checkpoint alone.
    main(["test", f"--ckpt_path={irl}", f"--trainer.default_root_dir={tmp_path / 'test'}", "--trainer.accelerator=cpu"])
    figures = [json.loads((at / "summary.json").read_text())["value_share"] for at in (irl, tmp_path / "test")]
    assert figures[0] == figures[1] > 0


def test_demonstrations_stand_in_a_recipe(tmp_path, capsys):
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


def test_states_alone_do_where_the_reward_is_theirs(tmp_path):
    p = np.zeros((3, 2, 3))
    p[:, 0, [1, 2, 0]] = np.eye(3)
    p[:, 1, [1, 2, 0]] = np.eye(3)  # either action does the same: nobody can tell which
    world = TabularMDP(p)
    fit(MaxEntIRL(), module(world, [[0, 1, 2], [1, 2]], passes_per_epoch=2), tmp_path)
    model = MaxEntIRL(lambda *given: LinearReward(*given, inputs="state_action"))
    with pytest.raises(Exception, match="trajectory 0, step 0: several actions lead from state 0 to 1"):
        fit(model, module(world, [[0, 1, 2], [1, 2]]), tmp_path)


def test_a_reward_that_diverges_stops_before_it_reaches_a_checkpoint(tmp_path):
    model = MaxEntIRL(learning_rate=1e30, gap_tolerance=0.0, gamma=0.9)
    with pytest.raises(TrainingError, match=r"has diverged at step \d+ .* model.l2_coefficient above 0"):
        fit(model, module(GridWorld(4)), tmp_path)


@pytest.mark.parametrize(
    ("model", "data", "text"),
    [
        (lambda: BC(), lambda: module(GridWorld(3)), "BC learns from demonstrations; TabularDataModule holds none"),
        (lambda: MaxEntIRL(MLPReward), lambda: TabularDataModule("FrozenLake-v1"), "MLPReward reads features"),
        (
            lambda: MaxEntIRL(ConvolutionalReward),
            lambda: module(TabularMDP(np.full((4, 2, 4), 0.25), features=np.eye(4), reward=np.ones(4))),
            "needs a world whose states are the cells of a grid",
        ),
        (
            lambda: MaxEntIRL(),
            lambda: module(TabularMDP(np.full((4, 2, 4), 0.25))),
            "the true reward of this world is not known, so nobody can demonstrate",
        ),
        (lambda: MaxEntIRL(gamma=1.0), None, r"model.gamma is 1\.0"),
        (lambda: MaxEntIRL(entropy="none"), None, "model.entropy none gives no likelihood"),
        (lambda: MaxEntIRL(learning_rate=0.0), None, r"model.learning_rate is 0\.0"),
        (None, lambda: TabularDataModule(), "either data.env_id or data.world says which world"),
        (None, lambda: TabularDataModule("FrozenLake-v1", fresh_worlds=-1), "data.fresh_worlds is -1"),
        (None, lambda: module(GridWorld(3), expert="sofft"), "data.expert is 'sofft'; choose optimal or soft"),
        (lambda: MaxEntIRL(entropy="causl"), None, "model.entropy is 'causl'; choose one of causal, trajectory"),
        (None, lambda: module(GridWorld(3), num_worlds=2), "data.num_worlds above 1 asks .* data.world is one"),
        (None, lambda: module(GridWorld(3), fresh_worlds=1), "data.fresh_worlds above 0 asks .* data.world is one"),
        (
            None,
            lambda: TabularDataModule("lit_imitation/Tabular-v0", env_kwargs={"world": GridWorld(3)}, fresh_worlds=1),
            "data.fresh_worlds above 0 asks",
        ),
        (
            lambda: MaxEntIRL(),
            lambda: TabularDataModule("FrozenLake-v1", fresh_worlds=1, eval_episodes=0),
            "data.fresh_worlds above 0 asks .* world_seed; FrozenLake-v1 has none",
        ),
    ],
)
def test_what_cannot_work_is_said(model, data, text, tmp_path):
    def run():
        built = model() if model else None
        if data:
            given = data()
            fit(built, given, tmp_path) if built else None

    with pytest.raises(ConfigError, match=text):
        run()


# Metrics


def test_the_difference_of_expected_values():
    world, planning = GridWorld(4, seed=1), Planning(gamma=0.9, tolerance=1e-9)
    metric = ExpectedValueDifference(planning)
    metric.update(world, RewardTable(3 * world.reward.values + 2))  # the same, said otherwise
    assert float(metric.compute()["expected_value_difference"]) == pytest.approx(0, abs=1e-5)
    metric.reset()
    metric.update(world, RewardTable(-world.reward.values))
    worst = solve(world, RewardTable(-world.reward.values), Planning(gamma=0.9, tolerance=1e-9, entropy="none"))
    best = solve(world, world.reward, Planning(gamma=0.9, tolerance=1e-9, entropy="none"))
    expected = world.start @ (best.value + worst.value)
    assert float(metric.compute()["expected_value_difference"]) == pytest.approx(float(expected), abs=1e-5)
    assert float(expected_value(world, best.policy, planning)) == pytest.approx(
        float(world.start @ best.value), abs=1e-6
    )
    with pytest.raises(ValueError, match="the true reward of this world is not known"):
        metric.update(TabularMDP(np.full((2, 1, 2), 0.5)), RewardTable(torch.zeros(2)))


def test_a_potential_leaves_the_distance_zero_and_the_ranking_of_rewards_as_it_was():
    world, gamma = BinaryWorld(6, seed=0), 0.9
    generator = torch.Generator().manual_seed(0)

    def potential():
        phi = torch.randn(world.num_states, generator=generator).double()
        return lambda t: gamma * phi[t.next_observation] - phi[t.observation]

    truth = reward_function(world, world.reward)
    noise = torch.randn(world.num_states, generator=generator).double()
    recovered = [
        reward_function(world, RewardTable(world.reward.values + size * noise)) for size in (0.0, 0.3, 1.0, 4.0)
    ]

    def distances(shape):
        found = []
        for reward in recovered:
            phi = potential()
            shaped = (lambda t, reward=reward, phi=phi: 2 * reward(t) + phi(t)) if shape else reward
            epic = EPIC(truth, shaped, gamma, samples=32)
            epic.update(some_transitions(world))
            found.append(float(epic.compute()))
        return found

    plain, shaped = distances(False), distances(True)
    np.testing.assert_allclose(shaped, plain, atol=1e-6)
    assert plain[0] == pytest.approx(0, abs=1e-6)
    assert plain == sorted(plain)


def test_table_and_function_agree_on_transitions():
    p = np.array([[[0.5, 0.5, 0]], [[0, 0, 1]], [[0, 0, 0]]])
    world = TabularMDP(p, terminal=[False, False, True], reward=np.arange(9.0).reshape(3, 1, 3))
    transitions = some_transitions(world)
    s, z = transitions.observation, transitions.next_observation
    torch.testing.assert_close(reward_function(world, world.reward)(transitions), (3 * s + z).double())
    paid = reward_function(world, RewardTable(torch.tensor([1.0, 2.0, 10.0]).double()))(transitions)
    torch.testing.assert_close(paid, torch.where(z == 2, 12.0, 1.0).double())
    assert re.match(r"TabularMDP\(3 states, 1 actions, 3 transitions", repr(world))
