"""Guided cost learning: likelihood, gradient and regularizers, by hand and against exact values."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lit_imitation import GCL, CategoricalPolicy, GuidedCost, TabularMDP
from lit_imitation.errors import ConfigError
from lit_imitation.methods.density import fit_density
from lit_imitation.optim.optimization import Optimization
from lit_imitation.rewards.guided_cost import (
    STATISTICS,
    effective_sample_size,
    local_constancy,
    log_partition_estimate,
    monotonicity,
    tempering_exponent,
)
from lit_imitation.rewards.paths import Paths, log_mixture
from lit_imitation.tabular import Planning, RewardTable, log_partition
from lit_imitation.transitions import Transitions

STATES, ACTIONS, HORIZON = 5, 3, 4


def paths(count, length, seed):
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(count, length, 3, generator=generator)
    action = torch.randn(count, length, 2, generator=generator)
    alive = torch.arange(length) < torch.randint(2, length + 1, (count, 1), generator=generator)
    return Paths(observation, action, alive)


def model(**arguments):
    torch.manual_seed(0)
    return GuidedCost(Box(-np.inf, np.inf, (3,)), Box(-1, 1, (2,)), **{"hidden_sizes": [8], **arguments})


def compute_by_hand(reward, one):
    """Cost of each existing state and R(τ), by plain loops."""
    costs, returns = [], []
    for observation, action, alive in zip(*one, strict=True):
        states = observation[alive]
        hidden = torch.tanh(reward.network.layers[0](reward.features.encoder(states)))
        cost = (hidden @ reward.network.layers[1].weight.T + reward.network.layers[1].bias).pow(2).sum(-1)
        costs.append(cost)
        effort = reward.action_weight**2 * action[alive].clamp(-1, 1).pow(2).sum(-1)
        returns.append(-(cost + effort).sum())
    return costs, torch.stack(returns)


def test_loss_and_gradient_match_closed_form():
    reward, expert, samples = model(min_share=0.0), paths(4, 6, 1), paths(7, 5, 2)
    log_q = torch.linspace(-6.0, 1.0, 7)
    loss, statistics = reward(*expert, *samples, log_q)
    (_, of_expert), (_, of_samples) = compute_by_hand(reward, expert), compute_by_hand(reward, samples)
    z = 1.0 / log_q.exp()
    expected = -of_expert.mean() + torch.log((z * of_samples.exp()).mean())
    torch.testing.assert_close(loss, expected)
    found = dict(zip(STATISTICS, statistics.tolist(), strict=True))
    assert found["weight_exponent"] == 1.0
    assert found["reward_expert"] == pytest.approx(float(of_expert.mean().detach()), rel=1e-5)
    gradient = torch.autograd.grad(loss, list(reward.parameters()))
    weight = (z * of_samples.exp()).detach()
    learner = ((weight / weight.sum()) * of_samples).sum() - of_expert.mean()
    for one, other in zip(gradient, torch.autograd.grad(learner, list(reward.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_regularizers_match_paper():
    expert, samples = paths(4, 6, 1), paths(7, 5, 2)
    log_q = torch.zeros(7)
    reward = model(local_constancy=0.3, monotonicity=0.7)
    with torch.no_grad():
        for layer in reward.network.layers:
            layer.weight *= 4.0  # makes some costs rise by more than 1
    loss, _ = reward(*expert, *samples, log_q)
    costs = [cost.tolist() for cost in compute_by_hand(reward, expert)[0]]
    sampled = [cost.tolist() for cost in compute_by_hand(reward, samples)[0]]
    constant = [sum((c[t + 1] - 2 * c[t] + c[t - 1]) ** 2 for t in range(1, len(c) - 1)) for c in costs + sampled]
    monotone = [sum(max(0.0, c[t] - c[t - 1] - 1.0) ** 2 for t in range(1, len(c))) for c in costs]
    assert min(np.mean(constant), np.mean(monotone)) > 0
    reward.local_constancy = reward.monotonicity = 0.0
    bare, _ = reward(*expert, *samples, log_q)
    assert float((loss - bare).detach()) == pytest.approx(0.3 * np.mean(constant) + 0.7 * np.mean(monotone), rel=1e-3)
    straight = torch.arange(5.0)[None]
    alive = torch.ones(1, 5, dtype=torch.bool)
    assert not local_constancy(straight, alive).any()
    assert not monotonicity(straight, alive).any()
    assert monotonicity(torch.tensor([[0.0, 3.0, 0.0]]), alive[:, :3]).item() == 4.0
    assert local_constancy(torch.tensor([[0.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).item() == 0.0


def test_tempering_keeps_effective_sample_size():
    weight = torch.tensor([1.0, 2.0, 5.0, 0.1])
    expected = weight.sum() ** 2 / weight.pow(2).sum()
    torch.testing.assert_close(effective_sample_size(weight.log() + 300.0), expected, rtol=1e-4, atol=0.0)
    assert effective_sample_size(torch.zeros(9)).item() == pytest.approx(9.0)
    assert effective_sample_size(torch.tensor([0.0, -1e4, -1e4])).item() == pytest.approx(1.0)
    assert tempering_exponent(weight.log(), 0.3) == 1.0  # no tempering needed
    log_weight = 50.0 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    exponent = tempering_exponent(log_weight, 0.25)
    assert 0.0 < exponent < 1.0
    assert effective_sample_size(exponent * log_weight).item() == pytest.approx(10.0, rel=1e-3)


def test_tempered_estimate_is_lower_bound():
    log_weight = 3.0 * torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bounds = [float(log_partition_estimate(log_weight, exponent)) for exponent in (1e-7, 0.1, 0.5, 1.0)]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(float(log_weight.mean()), abs=1e-4)
    assert bounds[-1] == pytest.approx(math.log(float(log_weight.exp().mean())))


def test_mixture_is_weighted_by_sample_counts():
    log_prob = torch.tensor([[-1.0, -2.0], [-30.0, -0.5]])
    expected = (0.25 * log_prob[:, 0].exp() + 0.75 * log_prob[:, 1].exp()).log()
    torch.testing.assert_close(log_mixture(log_prob, torch.tensor([5.0, 15.0])), expected)


def world():
    """Stochastic world with one start state and no terminal state."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(STATES), (STATES, ACTIONS)), np.eye(STATES)[0]


def sample_paths(policy, dynamics, count, rng):
    """Sample `count` trajectories of a policy in the world."""
    probability = policy.head(torch.arange(STATES)).softmax(-1).detach().double().numpy().cumsum(-1)
    state, columns = np.zeros(count, np.int64), []
    for _ in range(HORIZON):
        action = (rng.random((count, 1)) > probability[state]).sum(1).clip(max=ACTIONS - 1)
        columns.append((state, action))
        successor = dynamics.cumsum(-1)[state, action]
        state = (rng.random((count, 1)) > successor).sum(1).clip(max=STATES - 1)
    observation, action = (torch.from_numpy(np.stack(one, 1)) for one in zip(*columns, strict=True))
    return Paths(observation, action, torch.ones(count, HORIZON, dtype=torch.bool))


def sampler(seed):
    torch.manual_seed(seed)
    policy = CategoricalPolicy(Discrete(STATES), Discrete(ACTIONS), hidden_sizes=[8])
    with torch.no_grad():
        policy.network.layers[-1].weight *= 4.0
    return policy


@pytest.fixture(scope="module")
def exact_gradient():
    """Reward with its exact log Z and the gradient of log Z."""
    dynamics, start = world()
    torch.manual_seed(3)
    reward = GuidedCost(
        Discrete(STATES), Discrete(ACTIONS), inputs="state_action", hidden_sizes=[8], outputs=4, min_share=0.0
    )
    state, action = torch.meshgrid(torch.arange(STATES), torch.arange(ACTIONS), indexing="ij")
    table = reward.costs(state.flatten(), action.flatten())[1].view(STATES, ACTIONS)
    mdp = TabularMDP(dynamics, start=start)
    planning = Planning(horizon=HORIZON, gamma=1.0, entropy="trajectory")
    value, _ = log_partition(
        mdp, RewardTable(table, "state_action"), {0: torch.from_numpy(start).to(table.dtype)}, planning
    )
    return reward, value.detach(), flat(torch.autograd.grad(value, list(reward.parameters())))


def flat(gradient):
    return torch.cat([one.flatten() for one in gradient])


def estimate(reward, samples, log_q):
    """Estimated log Z and its gradient from samples, the part of `forward` besides the demonstrations' mean."""
    value = log_partition_estimate(reward.trajectory_costs(*samples)[1] - log_q)
    return value.detach(), flat(torch.autograd.grad(value, list(reward.parameters())))


def sample_mixture(dynamics, policies, each, seed):
    rng = np.random.default_rng(seed)
    samples = Paths.concatenate([sample_paths(one, dynamics, each, rng) for one in policies])
    return samples, torch.stack([samples.log_prob(one) for one in policies], 1)


@pytest.mark.integration
def test_gradient_from_several_policies_converges_to_exact(exact_gradient):
    reward, value, gradient = exact_gradient
    dynamics, _ = world()
    policies, errors = [sampler(seed) for seed in (0, 1, 2)], []
    for each in (100, 1600, 25600):
        found = []
        for seed in range(4):
            samples, log_prob = sample_mixture(dynamics, policies, each, seed)
            estimated, its_gradient = estimate(reward, samples, log_mixture(log_prob, torch.full((3,), float(each))))
            found.append(float((its_gradient - gradient).norm() / gradient.norm()))
        errors.append(np.mean(found))
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]  # 16 times the samples, a quarter of the error in expectation
    assert errors[2] < 0.02
    assert float(estimated) == pytest.approx(float(value), abs=0.01)


@pytest.mark.integration
def test_gradient_without_mixture_weights_is_biased(exact_gradient):
    reward, _, gradient = exact_gradient
    dynamics, _ = world()
    samples, log_prob = sample_mixture(dynamics, [sampler(seed) for seed in (0, 1, 2)], 25600, 0)

    def error(log_q):
        return float((estimate(reward, samples, log_q)[1] - gradient).norm() / gradient.norm())

    assert error(log_mixture(log_prob, torch.ones(3))) < 0.02
    _, total = reward.trajectory_costs(*samples)
    assert error(total.detach()) > 0.1  # uniform weights
    assert error(torch.zeros(len(total))) > 0.1  # no z
    assert error(log_prob[:, 0]) > 0.1


@pytest.mark.slow
@pytest.mark.integration
def test_gradient_with_fused_demonstrations_is_exact(exact_gradient):
    reward, _, gradient = exact_gradient
    dynamics, _ = world()
    expert, learner = sampler(7), sampler(1)
    rng = np.random.default_rng(0)
    demonstrations, samples = sample_paths(expert, dynamics, 5_000, rng), sample_paths(learner, dynamics, 5_000, rng)
    module, minibatches = GCL(reward_batch_size=20_000, reward_steps=1), []
    module.reward, module.policy = reward, learner
    record = Transitions(
        observation=demonstrations.observation.flatten(),
        action=demonstrations.action.flatten(),
        reward=torch.zeros(5_000 * HORIZON),
        terminated=torch.zeros(5_000 * HORIZON, dtype=torch.bool),
        truncated=torch.arange(5_000 * HORIZON) % HORIZON == HORIZON - 1,
        batch_size=[5_000 * HORIZON],
    )
    module.paths, module.samplers = [demonstrations, samples], [fit_density(record, learner, 0), learner]
    module.log_prob = [[one.log_prob(policy) for policy in module.samplers] for one in module.paths]
    nothing = torch.zeros(2 + len(STATISTICS))
    module.reward_descent = SimpleNamespace(
        step_mean=lambda given: (minibatches.extend(given), nothing)[1], optimization=Optimization()
    )
    torch.manual_seed(0)
    module.update_reward()
    (columns,) = minibatches
    expected = gradient - flat(
        torch.autograd.grad(reward.trajectory_costs(*columns[:3])[1].mean(), list(reward.parameters()))
    )

    def error(log_q):
        loss, _ = reward(*columns[:6], log_q)
        found = flat(torch.autograd.grad(loss, list(reward.parameters())))
        return float((found - expected).norm() / gradient.norm())

    weighed = Paths(*columns[3:6])
    assert error(columns[6]) < 0.03
    assert error(weighed.log_prob(learner)) > 0.1  # treats demonstrations as the learner's samples
    assert error(weighed.log_prob(module.samplers[0])) > 0.1
    first, second = columns[6].split(20_000)
    assert error(torch.cat([first + 2.0, second])) > 0.1  # unequal weights for the halves


def test_transition_rewards_sum_to_trajectory_rewards():
    reward, one = model(), paths(3, 4, 0)
    total = reward.trajectory_costs(*one)[1]
    steps = Transitions(
        observation=one.observation,
        action=one.action,
        reward=torch.zeros(3, 4),
        terminated=torch.zeros(3, 4, dtype=torch.bool),
        truncated=torch.zeros(3, 4, dtype=torch.bool),
        batch_size=[3, 4],
    )
    torch.testing.assert_close((reward.reward(steps) * one.alive).sum(1), total)
    assert torch.equal(reward.recovered_reward(steps), reward.reward(steps))
    outside = steps.clone()
    outside.action = steps.action.sign() * 7.0
    steps.action = steps.action.sign()
    assert torch.equal(reward.reward(outside), reward.reward(steps))  # as executed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"min_share": 1.0}, "reward.min_share is 1.0"),
        ({"local_constancy": -1.0}, "reward.local_constancy is -1.0"),
        ({"monotonicity": math.inf}, "reward.monotonicity is inf"),
        ({"hidden_sizes": [64, 0]}, r"hidden_sizes is \[64, 0\]; each must be at least 1"),
    ],
)
def test_invalid_options_raise(arguments, text):
    with pytest.raises(ConfigError, match=text):
        model(**arguments)
