"""SAC: its losses against plain loops and finite differences, and the effects of a round."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from counting import ACTIONS as COUNTING_ACTIONS
from gymnasium.spaces import Box, Discrete

from lit_imitation import (
    SAC,
    CategoricalPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    RewardModel,
    SquashedGaussianPolicy,
)
from lit_imitation.cli import main
from lit_imitation.envs import make
from lit_imitation.errors import ConfigError
from lit_imitation.optim.optimization import Optimization
from lit_imitation.rl.sac import CriticLoss, PolicyLoss
from lit_imitation.rollout import Round, rounds
from lit_imitation.transitions import Transitions

OBSERVATION = Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = {"discrete": Discrete(4, start=2), "continuous": Box(np.float32([-1, -2]), np.float32([1, 6]))}
KINDS = sorted(ACTIONS)
N = 12


def sac(kind, policy=None, **settings):
    torch.manual_seed(0)
    settings = {"hidden_sizes": [8], "activation": "tanh", "batch_size": 16, "learning_starts": 0} | settings
    return SAC(OBSERVATION, ACTIONS[kind], policy, **settings)


def with_different_targets(learner):
    """Give target networks and temperature values that differ from their initial ones."""
    for parameter in learner.target.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    learner.temperature.log_alpha.data.fill_(-0.4)
    learner.double().optimizers()
    return learner


def batch(learner, n=N):
    observation, next_observation = torch.randn(2, n, 3).double()
    noise, reward = torch.randn(n, learner.act_dim).double(), torch.randn(n).double()
    terminated = torch.arange(n) % 3 == 0
    return observation, learner.random_action(n), reward, next_observation, terminated, noise


def round_of(kind, steps=16, envs=2, seed=0):
    torch.manual_seed(seed)
    valid = torch.ones(steps, envs, dtype=torch.bool)
    valid[3, 0] = False
    action = torch.randint(2, 6, (steps, envs)) if kind == "discrete" else torch.rand(steps, envs, 2)
    rollout = Transitions(
        observation=torch.randn(steps, envs, 3),
        action=action,
        reward=torch.randn(steps, envs),
        terminated=torch.rand(steps, envs) < 0.1,
        truncated=torch.rand(steps, envs) < 0.1,
        next_observation=torch.randn(steps, envs, 3),
        batch_size=(steps, envs),
    )
    return Round(rollout, valid, [])


def q_values(critic, x, a=None):
    """Each Q-function on one row, computed layer by layer: `[M, outputs]`."""
    values = []
    for m in range(critic.network.members):
        h = torch.as_tensor(x if a is None else torch.cat([x, a]))
        layers = list(zip(critic.network.weights, critic.network.biases, strict=True))
        for i, (weight, bias) in enumerate(layers):
            h = weight[m] @ h + bias[m]
            h = h.tanh() if i < len(layers) - 1 else h
        values.append(h)
    return torch.stack(values)


def soft_value_by_hand(learner, critic, x, noise):
    """E[min Q] and E[log π] of one row; continuous actions and densities are in units of half the range."""
    head = learner.policy.head(x[None])[0]
    if learner.act_dim == 0:
        prob = head.softmax(-1)
        q = sum(prob[a] * q_values(critic, x)[:, a].min() for a in range(4))
        return q, sum(prob[a] * prob[a].log() for a in range(4))
    mean, log_std = (part[0] for part in learner.policy.mean_and_log_std(head[None]))
    u = mean + log_std.exp() * noise
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
    return q_values(critic, x, u.tanh()).min(), (normal - (1 - u.tanh() ** 2).log()).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_critic_loss_matches_a_plain_loop(kind):
    learner = with_different_targets(sac(kind))
    x, a, r, following, terminated, noise = batch(learner)
    assert 0 < terminated.sum() < N
    expected, alpha = 0.0, math.exp(-0.4)
    for i in range(N):
        q, log_prob = soft_value_by_hand(learner, learner.target, following[i], noise[i])
        target = r[i] + (0.0 if terminated[i] else 0.99 * (q - alpha * log_prob))
        own = (
            q_values(learner.critic, x[i])[:, int(a[i]) - 2]
            if kind == "discrete"
            else q_values(learner.critic, x[i], (a[i] - torch.tensor([0.0, 2.0])) / torch.tensor([1.0, 4.0]))[:, 0]
        )
        expected += float(0.5 * ((own - target.detach()) ** 2).sum()) / N
    statistics = learner.critic_descent.gradient(x, a, r, following, terminated, noise)[1]
    assert float(statistics[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_policy_loss_matches_a_plain_loop(kind, kl_coefficient):
    policy = sac(kind).policy
    learner = sac(kind, policy, kl_coefficient=kl_coefficient)
    for parameter in learner.policy.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    with_different_targets(learner)
    x, *_, noise = batch(learner)
    values = [soft_value_by_hand(learner, learner.critic, x[i], noise[i]) for i in range(N)]
    expected = sum(float(math.exp(-0.4) * log_prob - q) for q, log_prob in values) / N
    if kl_coefficient:
        heads = learner.policy.head(x), learner.start.head(x)
        divergence = learner.policy.head_kl(heads[0], learner.start, heads[1]).mean()
        assert divergence > 0.01
        expected += kl_coefficient * float(divergence)
    _, policy_loss, entropy, alpha, _ = learner.policy_descent.gradient(x, noise)[1].tolist()
    assert policy_loss == pytest.approx(expected, rel=1e-5)
    assert entropy == pytest.approx(-sum(float(log_prob) for _, log_prob in values) / N, rel=1e-5)
    assert alpha == pytest.approx(math.exp(-0.4), rel=1e-6)


@pytest.mark.parametrize("which", ["critic", "policy"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(kind, which):
    learner = with_different_targets(sac(kind))
    x, *rest, noise = batch(learner)
    descent, columns = {
        "critic": (learner.critic_descent, (x, *rest, noise)),
        "policy": (learner.policy_descent, (x, noise)),
    }[which]
    gradient, _ = descent.gradient(*columns)
    functional, _ = descent.loss_gradient.functional(descent.vector.detach(), descent.loss_gradient.constants, *columns)
    torch.testing.assert_close(gradient, functional)
    # The temperature is a constant in the policy's term, so finite differences of that term do not give its gradient.
    layout = descent.layout
    alpha = sum(layout.sizes[: layout.names.index("temperature.log_alpha")]) if which == "policy" else -1
    for i in range(0, len(gradient), 3):
        if i == alpha:
            continue
        values = []
        for sign in (1, -1):
            descent.vector.data[i] += sign * 1e-6
            loss = descent.loss_gradient.module(*columns)
            # The entropy is a constant in the temperature's term, so only the policy's term is differenced.
            values.append(float(loss[1][0] if which == "policy" else loss[0]))
            descent.vector.data[i] -= sign * 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(gradient[i]), abs=1e-6, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_gradient_is_entropy_minus_target(kind):
    learner = with_different_targets(sac(kind, target_entropy=0.25))
    x, *_, noise = batch(learner)
    gradient, statistics = learner.policy_descent.gradient(x, noise)
    layout = learner.policy_descent.layout
    at = sum(layout.sizes[: layout.names.index("temperature.log_alpha")])
    if kind == "discrete":  # exact, not sampled
        entropy = torch.distributions.Categorical(logits=learner.policy.head(x)).entropy().mean()
    else:
        _, log_prob = learner.policy.rsample_with_log_prob(learner.policy.head(x), noise)
        entropy = -(log_prob + math.log(1.0 * 4.0)).mean()
    assert float(gradient[at]) == pytest.approx(float(entropy) - 0.25, rel=1e-5)
    assert float(statistics[2]) == pytest.approx(float(entropy), rel=1e-5)
    before = learner.temperature().item()
    learner.policy_descent.step(x, noise)
    assert (learner.temperature().item() < before) == (float(entropy) > 0.25)


def test_default_target_entropies():
    assert sac("continuous").target_entropy == -2.0
    assert sac("discrete").target_entropy == pytest.approx(0.98 * math.log(4))


@pytest.mark.parametrize("kind", KINDS)
def test_target_networks_are_polyak_averages(kind):
    learner = sac(kind, tau=0.1, learning_rate=0.01)
    learner.optimizers()
    expected = [parameter.detach().clone() for parameter in learner.target.parameters()]
    step = learner.critic_descent.step

    def step_and_average(*args, **kwargs):
        result = step(*args, **kwargs)
        for average, parameter in zip(expected, learner.critic.parameters(), strict=True):
            average += 0.1 * (parameter.detach() - average)
        return result

    learner.critic_descent.step = step_and_average
    learner.update(round_of(kind), 0.0)
    assert learner.gradient_steps == 31
    for average, parameter, own in zip(expected, learner.target.parameters(), learner.critic.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), average)
        assert not torch.allclose(parameter, own)


@pytest.mark.integration
def test_replay_holds_true_successors_of_valid_rows():
    """Observations of this environment number the step, so replayed transitions can be compared with what happened."""
    for backend in ("vector", "sync", "async"):
        envs = make("Counting-v0", 3, 0, backend)
        space, actions = envs.single_observation_space, envs.single_action_space
        assert int(actions.n) == COUNTING_ACTIONS
        learner = SAC(space, actions, hidden_sizes=[4], batch_size=8, learning_starts=10_000, random_steps=0)
        learner.optimizers()
        explorer = learner.explorer()
        seen = 0
        for one in rounds(envs, explorer, explorer.drawn, 20, 3, 0):
            learner.update(one, 0.0)
            seen += int(one.valid.sum())
        envs.close()
        assert learner.env_steps == len(learner.replay) == seen
        assert (seen < 180) == (backend == "vector")  # the others reset within the last step of an episode
        rows = learner.replay.rows(torch.arange(seen))
        tag, episode, t, _, _ = rows.observation.T
        next_tag, next_episode, next_t, last, over = rows.next_observation.T
        assert torch.equal(tag, next_tag)
        assert torch.equal(episode, next_episode)
        assert torch.equal(t + 1, next_t)
        assert torch.equal(last.long(), rows.action)
        torch.testing.assert_close(rows.reward, 100 * episode + t + rows.action / 8)
        assert rows.terminated.sum() < over.sum()  # the remaining episodes were truncated


@pytest.mark.integration
@pytest.mark.parametrize(("per_step", "expected"), [(1.0, [0, 24, 31]), (0.3, [0, 7, 9]), (4.0, [0, 96, 124])])
def test_gradient_steps_follow_environment_steps(per_step, expected):
    learner = sac("continuous", updates_per_step=per_step, learning_starts=38)
    learner.optimizers()
    taken = []
    for seed in range(3):
        before = learner.gradient_steps
        logged = learner.update(round_of("continuous", seed=seed), 0.0)
        taken.append(learner.gradient_steps - before)
        assert bool(logged) == (taken[-1] > 0)
    assert learner.env_steps == 93
    assert sum(taken) == int(per_step * (93 - 38) + 1e-9)
    assert [abs(a - b) <= 1 for a, b in zip(taken, expected, strict=True)] == [True] * 3


def test_random_steps_come_first_for_fresh_policies():
    learner = sac("continuous", learning_starts=40)
    learner.optimizers()
    learner.policy.network.layers[-1].bias.data[:] = torch.tensor([20.0, 20.0, -20.0, -20.0])  # mode: one corner
    explorer = learner.explorer()
    actions = np.concatenate([explorer.act(np.zeros((50, 3), np.float32)) for _ in range(20)])
    np.testing.assert_allclose(actions.mean(0), [0, 2], atol=0.3)
    np.testing.assert_allclose(actions.min(0), [-1, -2], atol=0.05)
    np.testing.assert_allclose(actions.max(0), [1, 6], atol=0.05)
    assert len(explorer.drawn) == 20
    learner.update(round_of("continuous"), 0.0)
    assert learner.env_steps == 31
    assert explorer.act(np.zeros((50, 3), np.float32)).std() > 1
    learner.update(round_of("continuous"), 0.0)
    torch.testing.assert_close(explorer.act(np.zeros((5, 3), np.float32)), np.float32([[1, 6]] * 5), atol=0.01, rtol=0)
    assert sac("continuous", learner.policy, learning_starts=40).random_steps == 0
    discrete = sac("discrete", learning_starts=40).explorer().act(np.zeros((4000, 3), np.float32))
    np.testing.assert_allclose(np.bincount(discrete, minlength=6), [0, 0, 1000, 1000, 1000, 1000], atol=120)


def test_gaussian_sample_has_its_density_and_gradient():
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8]).double()
    policy.log_std.data = torch.tensor([-0.3, 0.4]).double()
    head, noise = policy.head(torch.randn(6, 3).double()), torch.randn(6, 2).double()
    action, log_prob = policy.rsample_with_log_prob(head, noise)
    torch.testing.assert_close(log_prob, policy.head_log_prob(head, action))
    (slope,) = torch.autograd.grad(action.sum(), policy.log_std)
    torch.testing.assert_close(slope, (policy.scale * policy.log_std.exp() * noise).sum(0))


@pytest.mark.slow
def test_gaussian_policy_is_improved_without_squashing():
    """The policy starts at actions of low reward. Q sees clipped actions, so it is flat outside the box."""
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], activation="tanh")
    policy.log_std.data.fill_(-1.0)
    learner = sac("continuous", policy, learning_rate=2e-2, gamma=0.0, updates_per_step=2.0, batch_size=64)
    learner.optimizers()
    middle = policy(np.zeros((1, 3), np.float32))[0]
    for _ in range(20):
        one = round_of("continuous")
        played = policy.clip(one.rollout.action.view(-1, 2)).view_as(one.rollout.action)
        one.rollout.reward = (played * torch.tensor([2.0, -1.0])).sum(-1)
        learner.update(one, 0.0)
        one.rollout.action = policy.sample(policy.head(one.rollout.observation.view(-1, 3))).view(16, 2, 2).detach()
    first, second = policy(np.zeros((1, 3), np.float32))[0]
    assert first > middle[0] + 0.3
    assert second < middle[1] - 0.5
    inside, outside = torch.tensor([[1.0, 6.0]]), torch.tensor([[3.0, 9.0]])
    values = [
        learner.critic_descent.loss_gradient.module(
            torch.zeros(1, 3), a, torch.zeros(1), torch.zeros(1, 3), torch.ones(1, dtype=torch.bool), torch.zeros(1, 2)
        )[1]
        for a in (inside, outside)
    ]
    torch.testing.assert_close(*values)


def test_warm_up_trains_only_the_critics():
    policy = SquashedGaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    policy.encoder.fit(4 + 2 * torch.randn(100, 3))
    learner = sac("continuous", policy, warmup_steps=31, normalize_observations=True)
    learner.optimizers()
    before = [vector.clone() for vector in (learner.policy_descent.vector, learner.critic_descent.vector)]
    logged = learner.update(round_of("continuous"), 0.0)
    assert torch.equal(learner.policy_descent.vector, before[0])
    assert not torch.equal(learner.critic_descent.vector, before[1])
    assert "policy_loss" not in logged
    logged = learner.update(round_of("continuous"), 0.0)
    assert not torch.equal(learner.policy_descent.vector, before[0])
    assert "policy_loss" in logged
    for network in (learner.critic, learner.target):  # the clone's standardization, unchanged
        assert torch.equal(network.encoder.standardize.mean, policy.encoder.standardize.mean)
    assert abs(float(policy.encoder.standardize.mean.mean()) - 4) < 1


def test_observations_are_standardized_when_requested():
    learner = sac("continuous", normalize_observations=True)
    learner.optimizers()
    one = round_of("continuous")
    learner.update(one, 0.0)
    seen = one.rollout.observation[one.valid]
    for network in (learner.policy, learner.critic, learner.target):
        torch.testing.assert_close(network.encoder.standardize.mean, seen.mean(0))
        torch.testing.assert_close(1 / network.encoder.standardize.inverse_std, seen.std(0, unbiased=False))


class ChangingReward(RewardModel):
    """A reward model whose output the test changes."""

    def __init__(self):
        super().__init__()
        self.value, self.asked = 0.0, []

    def reward(self, transitions):
        self.asked.append(transitions.batch_size)
        return transitions.observation[..., 0] + self.value


@pytest.mark.integration
def test_replayed_rewards_come_from_current_reward_model():
    learner, model = sac("continuous"), ChangingReward()
    learner.optimizers()
    learner.reward = model.reward
    seen = []
    step = learner.critic_descent.step
    learner.critic_descent.step = lambda *args: (seen.append(args), step(*args))[1]
    for model.value in (0.0, 10.0):
        seen.clear()
        learner.update(round_of("continuous"), 0.0)
        for observation, _, reward, *_ in seen:
            torch.testing.assert_close(reward, observation[:, 0] + model.value)
    assert set(model.asked) == {(16,)}


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modeled", [False, True])
def test_demonstrations_fill_half_of_each_minibatch(kind, modeled):
    """Sampled by weight, with their own rewards even if a model rewards the learner's transitions."""
    learner, model = sac(kind, batch_size=17), ChangingReward()
    learner.optimizers()
    learner.reward = model.reward if modeled else None
    learner.demonstrations = round_of(kind, seed=1).rollout.reshape(32)
    learner.demonstrations.reward = torch.arange(100.0, 132.0)
    learner.demonstrations.weight = torch.arange(32) % 2 * 1.0
    seen = []
    step = learner.critic_descent.step
    learner.critic_descent.step = lambda *args: (seen.append(args), step(*args))[1]
    experience = round_of(kind)
    learner.update(experience, 0.0)
    assert len(seen) > 10
    drawn = set()
    for observation, action, reward, next_observation, terminated, _ in seen:
        own, rows = reward[:9], (reward[9:] - 100).long()
        assert len(rows) == 8
        drawn |= set(rows.tolist())
        expert = learner.demonstrations[rows]
        for mine, its in (
            (observation, expert.observation),
            (action, expert.action),
            (next_observation, expert.next_observation),
            (terminated, expert.terminated),
        ):
            assert torch.equal(mine[9:], its)
        if modeled:
            assert torch.equal(own, observation[:9, 0])
        else:
            assert torch.isin(own, experience.rollout.reward).all()
    assert drawn == set(range(1, 32, 2))  # the rows of weight 1
    assert len(learner.replay) == int(experience.valid.sum())  # the buffer stores no demonstrations


def test_invalid_arguments_are_refused():
    with pytest.raises(ConfigError, match="SquashedGaussianPolicy, not a DeterministicPolicy"):
        sac("continuous", DeterministicPolicy(OBSERVATION, ACTIONS["continuous"]))
    for name, value in (
        ("gamma", 1.5),
        ("tau", -0.1),
        ("batch_size", 0),
        ("updates_per_step", 0.0),
        ("temperature", 0),
    ):
        with pytest.raises(ConfigError, match=rf"learner.{name} is {value}"):
            sac("continuous", **{name: value})
    learner = sac("continuous")
    with pytest.raises(ConfigError, match="replay buffers of 2 processes"):
        learner.load_state(learner.state() | {"replay": [learner.replay.state()] * 2})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_update_equals_eager_update(kind):
    """Compares one whole update, as recipes run it."""
    results = []
    for compiled in (False, True):
        learner = sac(kind, compile=compiled)
        learner.optimizers()
        learner.update(round_of(kind), 0.0)
        results.append([descent.vector for descent in (learner.critic_descent, learner.policy_descent)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, atol=1e-4, rtol=1e-3)


def test_constant_temperature_stays():
    assert {CriticLoss, PolicyLoss} == {type(d.loss_gradient.module) for d in _descents(sac("discrete"))}
    learner = sac("continuous", learn_temperature=False)
    learner.optimizers()
    learner.update(round_of("continuous"), 0.0)
    assert learner.temperature().item() == 1.0
    assert isinstance(sac("discrete").policy, CategoricalPolicy)


def _descents(learner):
    learner.optimizers()
    return learner.critic_descent, learner.policy_descent


@pytest.mark.slow
def test_pendulum_is_learned_in_10000_steps(tmp_path):
    main(
        [
            "fit",
            "--model=lit_imitation.RL",
            "--model.learner=lit_imitation.SAC",
            "--model.learner.learning_rate=1e-3",
            "--data=lit_imitation.RolloutDataModule",
            "--data.env_id=Pendulum-v1",
            "--data.env_steps=10000",
            "--data.num_envs=1",
            "--data.steps_per_round=50",
            "--data.rounds_per_epoch=40",
            "--data.eval_episodes=10",
            "--data.test_episodes=20",
            "--trainer.accelerator=cpu",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["random_return"] < -1000
    assert summary["return_mean"] > -400


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast_leaves_updates_in_float32(kind):
    ends = []
    for enabled in (False, True):
        learner = sac(kind, normalize_observations=True)
        learner.critic.network.biases[-1].data.fill_(200.0)  # large values with small differences
        learner.optimizers()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logged = learner.update(round_of(kind), 0.0)
        assert logged["q"].dtype == torch.float32
        ends.append(torch.cat([learner.critic_descent.vector, learner.policy_descent.vector]).detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("fresh", [True, False])
def test_fresh_policy_has_no_warm_up_or_divergence(fresh):
    policy = SquashedGaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    policy.fresh = fresh
    learner = sac("continuous", policy, learning_starts=40, warmup_steps=31, kl_coefficient=0.5)
    assert learner.random_steps == (40 if fresh else 0)
    assert learner.warmup_steps == (0 if fresh else 31)
    assert (learner.start is None) == fresh


def test_optimization_schedules_and_clips_both_optimizers():
    learner = sac("continuous", optimization=Optimization(schedule="linear", max_grad_norm=1e-3))
    optimizers = learner.optimizers()
    learner.update(round_of("continuous"), 0.75)
    assert [one.param_groups[0]["lr"] for one in optimizers] == [pytest.approx(0.25 * 3e-4)] * 2
    for descent in learner.descents:
        assert 0.5e-3 < descent.vector.grad.norm() <= 1e-3


def test_sac_refuses_accumulation():
    with pytest.raises(ConfigError, match="accumulate_batches is 2; SAC takes a step per minibatch"):
        sac("discrete", optimization=Optimization(accumulate_batches=2))
