"""Guided cost learning: weighted episodes, sampling policies, rewards of the learner, and invalid settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from short_runs import column, fails, run

from lit_imitation import GCL, CategoricalPolicy, GaussianPolicy, GuidedCost, load_policy, load_reward
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.methods import density
from lit_imitation.methods.density import MIN_STD, fit_density
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.rewards.guided_cost import STATISTICS
from lit_imitation.rewards.paths import Paths, log_mixture
from lit_imitation.rollout import Round, collect
from lit_imitation.transitions import Transitions


@pytest.fixture(autouse=True)
def _short_fit_of_the_density(monkeypatch, request):
    """A thousand steps would take most of the time of a run."""
    if request.node.originalname != "test_density_of_demonstrations_uses_weights":
        monkeypatch.setattr(density, "STEPS", 50)


def rollout(done, valid):
    """A round `[time, env]` whose observations count the rows of each environment: 100 · env + time."""
    done, valid = (torch.tensor(rows, dtype=torch.bool).T for rows in (done, valid))
    time, envs = done.shape
    observation = (torch.arange(time)[:, None] + 100.0 * torch.arange(envs))[..., None]
    transitions = Transitions(
        observation=observation,
        action=observation + 0.5,
        reward=torch.zeros(time, envs),
        terminated=done & False,
        truncated=done,
        next_observation=observation + 1,
        batch_size=[time, envs],
    )
    return Round(transitions, valid, [])


def test_only_whole_episodes_are_weighted():
    yes, done = [1] * 6, [[0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    batch = rollout(done, [yes, [1, 1, 1, 0, 1, 1], yes])  # the second environment has an invalid reset step
    paths = Paths.within_round(batch, torch.tensor([True, True, True]))
    steps = [one[alive].flatten().tolist() for one, alive in zip(paths.observation, paths.alive, strict=True)]
    assert steps == [[0, 1], [2, 3, 4], [100, 101, 102]]
    assert paths.action[1].flatten().tolist() == [2.5, 3.5, 4.5]
    cut = Paths.within_round(batch, torch.tensor([False, False, False]))
    assert [one[alive].flatten().tolist() for one, alive in zip(cut.observation, cut.alive, strict=True)] == [[2, 3, 4]]
    assert Paths.within_round(rollout([done[2]], [yes]), torch.tensor([True])) is None


def test_invalid_steps_are_not_weighted():
    batch = rollout([[0, 1, 0, 0, 1]], [[1, 1, 0, 1, 1]])
    paths = Paths.within_round(batch, torch.tensor([True]))
    assert [one[alive].flatten().tolist() for one, alive in zip(paths.observation, paths.alive, strict=True)] == [
        [0, 1],
        [3, 4],
    ]


def test_trajectory_density_is_product_of_played_actions():
    policy = GaussianPolicy(Box(-1, 1, (1,)), Box(-2, 2, (1,)))
    one, other = (rollout([[0] * (n - 1) + [1]], [[1] * n]) for n in (2, 4))
    fresh = torch.tensor([True])
    paths = Paths.concatenate([Paths.within_round(one, fresh), Paths.within_round(other, fresh)])
    assert paths.alive.tolist() == [[True, True, False, False], [True] * 4]
    for k, steps in enumerate((2, 4)):
        observation = torch.arange(float(steps))[:, None]
        expected = policy.executed_log_prob(policy.head(observation), observation + 0.5).sum()
        torch.testing.assert_close(paths.log_prob(policy)[k], expected.detach())


@pytest.fixture
def watched(monkeypatch):
    """Records trained modules, weighted minibatches, and the learner's rewards with those of the model."""
    modules, weighed, paid = [], [], []
    improve, relabel = GCL.update_reward, GCL.relabel_rewards

    def improving(self):
        modules.append(self)
        step = self.reward_descent.step_mean
        self.reward_descent.step_mean = lambda minibatches: (weighed.extend(minibatches), step(minibatches))[1]
        logged = improve(self)
        self.reward_descent.step_mean = step
        return logged

    def rewarding(self, batch):
        after = relabel(self, batch)
        model = self.guided_cost.reward(batch.rollout).detach()
        paid.append((batch, after.rollout.reward, model, self.policy.head(batch.rollout.observation.flatten(0, 1))))
        return after

    monkeypatch.setattr(GCL, "update_reward", improving)
    monkeypatch.setattr(GCL, "relabel_rewards", rewarding)
    return modules, weighed, paid


@pytest.mark.slow
@pytest.mark.integration
def test_past_samples_keep_their_policies(watched, tmp_path):
    modules, weighed, _ = watched
    run("gcl-continuous", tmp_path, "--data.rounds_per_epoch=5", "--model.replay_rounds=2")
    module = modules[0]
    assert len(module.paths) == len(module.samplers) == 4  # the demonstrations and three rounds
    assert [len(one.alive) for one in module.paths[1:]] == [2 * 3] * 3  # two episodes of 12 in 24 steps, 3 environments
    for row, paths in zip(module.log_prob, module.paths, strict=True):
        for found, policy in zip(row, module.samplers, strict=True):
            torch.testing.assert_close(found, paths.log_prob(policy))
    newest, before = module.samplers[-1], module.samplers[-2]
    own, others = (module.paths[-1].log_prob(one) for one in (newest, before))
    assert not torch.equal(own, others)
    *_, alive, log_q = weighed[-1]
    assert alive.shape == (16, 12)  # as many demonstrations as samples
    counts = torch.tensor([18.0, 6.0, 6.0, 6.0])
    expected = log_mixture(torch.cat([torch.stack(row, 1) for row in module.log_prob]), counts)
    demonstrations = len(module.paths[0].alive)
    assert set(log_q[:8].tolist()) <= set(expected[:demonstrations].tolist())
    assert set(log_q[8:].tolist()) <= set(expected[demonstrations:].tolist())
    assert float(module.samplers[0].log_std.exp().min()) >= MIN_STD - 1e-6


@pytest.mark.integration
@pytest.mark.grid(every=2)
@pytest.mark.parametrize(("method", "entropy"), [("gcl-continuous", True), ("gcl-by-sac", False)])
def test_learner_gets_reward_and_entropy(watched, tmp_path, method, entropy):
    _, _, paid = watched
    run(method, tmp_path)
    batch, reward, model, head = paid[0]
    if entropy:
        policy = watched[0][0].samplers[1]  # the policy of the first round
        head = policy.head(batch.rollout.observation.flatten(0, 1))
        log_prob = policy.executed_log_prob(head, batch.rollout.action.flatten(0, 1))
        torch.testing.assert_close(reward, model - log_prob.view_as(reward), rtol=1e-4, atol=1e-4)
    else:  # SAC calls the reward itself and has its own temperature
        assert torch.equal(reward, batch.rollout.reward)


@pytest.mark.slow
def test_rounds_of_random_actions_are_not_samples(watched, tmp_path):
    modules, weighed, _ = watched
    run("gcl-by-sac", tmp_path, "--model.learner.learning_starts=144", "--data.rounds_per_epoch=3")
    assert len(modules[0].samplers) == 2  # the actions of the first two rounds were random
    assert len(weighed) == 3


@pytest.mark.integration
def test_every_round_logs_diagnostics(tmp_path):
    run("gcl-continuous", tmp_path)
    for name in (*STATISTICS, "reward_loss", "reward_grad_norm", "effective_sample_size", "samples", "approx_kl"):
        assert len(column(tmp_path, f"train/{name}")) == 3, name
    samples = column(tmp_path, "train/effective_sample_size")
    assert all(1.0 <= size <= 20.0 for size in samples)
    assert all(0.0 < exponent <= 1.0 for exponent in column(tmp_path, "train/weight_exponent"))


@pytest.mark.slow
@pytest.mark.integration
def test_reward_is_saved_and_reused(tmp_path, capsys):
    run("gcl-continuous", tmp_path / "gcl", "--model.learner.hidden_sizes=[64,64]")  # saved in the checkpoint
    model = load_reward(tmp_path / "gcl").model
    assert isinstance(model, GuidedCost)
    checkpoint = read_checkpoint(tmp_path / "gcl" / "checkpoints" / "best.ckpt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"reward.{name}"])
    assert model.local_constancy == 0.1
    run("ppo-continuous", tmp_path / "ppo", f"--model.reward={tmp_path / 'gcl'}")
    load_policy(tmp_path / "ppo")
    assert "was made for Box" in fails(capsys, "ppo-discrete", tmp_path / "other", f"--model.reward={tmp_path / 'gcl'}")
    module = GCL.load_from_checkpoint(tmp_path / "gcl" / "checkpoints" / "best.ckpt")
    for name, value in model.state_dict().items():
        assert torch.equal(module.guided_cost.state_dict()[name], value)


@pytest.mark.slow
def test_invalid_settings_are_refused_before_training(capsys, tmp_path):
    for argument, message in (
        ("--data.subsample=2", "GCL weighs whole trajectories; data.subsample 2 leaves holes"),
        ("--data.steps_per_round=11", "the shortest demonstration takes 12 steps"),
        ("--model.reward_batch_size=1", "model.reward_batch_size is 1"),
        ("--model.reward_steps=-1", "model.reward_steps is -1"),
        ("--model.replay_rounds=-1", "model.replay_rounds is -1"),
        ("--model.reward_learning_rate=0", "model.reward_learning_rate is 0"),
    ):
        assert message in fails(capsys, "gcl-continuous", tmp_path, argument), argument
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.integration
def test_rounds_without_whole_episodes_are_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Paths, "within_round", lambda batch, starts: None)
    said = fails(capsys, "gcl-continuous", tmp_path)
    assert "no episode began and ended within a round" in said
    assert "at most 12 here" in said


@pytest.mark.slow
@pytest.mark.integration
def test_diverged_reward_stops_run_and_keeps_checkpoint(capsys, tmp_path, monkeypatch):
    count = []
    forward = GuidedCost.forward

    def breaking(self, *columns):
        loss, statistics = forward(self, *columns)
        count.append(1)
        return (loss * float("nan") if len(count) > 12 else loss), statistics

    monkeypatch.setattr(GuidedCost, "forward", breaking)
    said = fails(capsys, "gcl-continuous", tmp_path, "--trainer.max_epochs=3")
    assert "the reward loss is nan after round 5" in said
    assert "last good checkpoint" in said
    assert load_reward(tmp_path).model.network.layers[0].weight.isfinite().all()


def trajectories(lengths):
    """Demonstrations whose observations hold the number of their trajectory."""
    rows = sum(lengths)
    episode = torch.repeat_interleave(torch.arange(float(len(lengths))), torch.tensor(lengths))
    return Transitions(
        observation=episode[:, None],
        action=torch.zeros(rows, 1),
        reward=torch.zeros(rows),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=torch.isin(torch.arange(rows), torch.tensor(lengths).cumsum(0) - 1),
        batch_size=[rows],
    )


def bare_module(monkeypatch, weight=None, played=6, **settings):
    """A module between two rounds, with demonstrations and samples of known densities and a reward of 0."""
    module, minibatches = GCL(**{"reward_batch_size": 512, "reward_steps": 2, **settings}), []
    spaces = Box(-1, 1, (1,)), Box(-2, 2, (1,))
    module.reward, module.policy = GuidedCost(*spaces, hidden_sizes=[4]), GaussianPolicy(*spaces, hidden_sizes=[4])
    for parameter in module.reward.parameters():
        parameter.data.zero_()
    module.paths = [Paths.from_transitions(trajectories([2, 3, 2])), Paths.from_transitions(trajectories([3] * played))]
    generator = torch.Generator().manual_seed(0)
    module.samplers = [module.policy, module.policy]
    module.log_prob = [[torch.randn(len(one.alive), generator=generator) for _ in range(2)] for one in module.paths]
    module.weight = weight

    class Step:
        optimization = Optimization()

        def step_mean(self, given):
            minibatches.extend(given)
            return torch.zeros(2 + len(STATISTICS))

    module.reward_descent = Step()
    return module, minibatches


@pytest.mark.parametrize("weight", [None, torch.tensor([0.3, 2.4, 0.3])])
def test_effective_sample_size_weights_both_halves_equally(monkeypatch, weight):
    """Importance weights p / q computed by hand; three demonstrations weigh as much as six samples."""
    module, _ = bare_module(monkeypatch, weight)
    logged = module.update_reward()
    log_prob = torch.cat([torch.stack(row, 1) for row in module.log_prob]).double().numpy()
    q = 0.5 * np.exp(log_prob[:, 0]) + 0.5 * np.exp(log_prob[:, 1])
    importance = 1.0 / q
    importance[:3] *= 6 / 3 * (1.0 if weight is None else weight.numpy())
    expected = importance.sum() ** 2 / (importance**2).sum()
    assert float(logged["effective_sample_size"]) == pytest.approx(expected, rel=1e-4)
    assert int(logged["samples"]) == 12


def test_demonstrations_are_sampled_by_weight_in_both_halves(monkeypatch):
    torch.manual_seed(0)
    module, minibatches = bare_module(monkeypatch, torch.tensor([0.3, 2.4, 0.3]))
    module.update_reward()
    for columns in minibatches:
        for drawn in (columns[0], columns[3][:512]):  # those of the likelihood, and those added to the samples
            share = np.bincount(drawn[:, 0, 0].long(), minlength=3) / 512
            np.testing.assert_allclose(share, [0.1, 0.8, 0.1], atol=0.06)
        share = np.bincount(columns[3][512:, 0, 0].long(), minlength=6) / 512
        np.testing.assert_allclose(share, 1 / 6, atol=0.08)


def test_processes_sample_different_demonstrations(monkeypatch):
    """The processes share a random stream, and each takes its part."""
    from lit_imitation.utils import sampling

    drawn = []
    for rank in range(2):
        monkeypatch.setattr(sampling, "world_size", lambda: 2)
        monkeypatch.setattr(sampling, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        module, minibatches = bare_module(monkeypatch, reward_batch_size=64)
        module.update_reward()
        drawn.append([columns[i][:, 0, 0] for columns in minibatches for i in (0, 3)])
    for mine, others in zip(*drawn, strict=True):
        assert not torch.equal(mine, others)


@pytest.mark.integration
def test_density_of_demonstrations_uses_weights(monkeypatch):
    """Three quarters of the rows have the first action; weights reduce it to a quarter."""
    monkeypatch.setattr(density, "STEPS", 300)
    policy = CategoricalPolicy(Box(-1, 1, (1,)), Discrete(2))
    rows = 40
    action = (torch.arange(rows) % 4 == 3).long()
    data = Transitions(
        observation=torch.zeros(rows, 1),
        action=action,
        reward=torch.zeros(rows),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=torch.arange(rows) % 10 == 9,
        weight=torch.where(action == 1, 9.0, 1.0),
        batch_size=[rows],
    )
    probability = fit_density(data, policy, 0).head(torch.zeros(1, 1)).softmax(-1)
    torch.testing.assert_close(probability, torch.tensor([[0.25, 0.75]]), atol=0.05, rtol=0)


@pytest.mark.slow
def test_rounds_shorter_than_demonstrations_warn(tmp_path, recwarn):
    path = tmp_path / "some.npz"
    envs = make("Pendulum-v1", 1, 0)
    record = collect(envs, lambda observation: np.zeros((1, 1), np.float32), 2, 0)
    envs.close()
    rows = torch.zeros(400, dtype=torch.bool)
    rows[:12] = rows[200:230] = True
    record = record.keep(rows)
    write_demonstrations(path, Demonstrations(record, record.episode_returns(), {"env_id": "Pendulum-v1"}))
    run("gcl-continuous", tmp_path / "run", f"--data.demonstrations={path}", "--data.val_fraction=0")
    (said,) = [str(one.message) for one in recwarn if "among the samples" in str(one.message)]
    assert "data.steps_per_round is 24, and the longest demonstration takes 30 steps" in said


@pytest.mark.slow
@pytest.mark.integration
def test_accumulation_and_schedule_of_the_reward_apply(watched, tmp_path):
    modules, weighed, _ = watched
    options = "{accumulate_batches: 2, schedule: linear}"
    run("gcl-continuous", tmp_path, f"--model.reward_optimization={options}", "--trainer.max_epochs=1")
    module = modules[-1]
    assert len(weighed) == 2 * module.reward_descent.adam_steps > 0
    assert 0 < module.reward_descent.optimizer.param_groups[0]["lr"] < module.reward_learning_rate
