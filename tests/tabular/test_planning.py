"""Planning against enumeration of all trajectories, and gradients against finite differences."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from lit_imitation.errors import ConfigError
from lit_imitation.tabular import Planning, RewardTable, TabularMDP, Trajectories, log_partition, occupancy, solve

HORIZON = 4
TERMINAL = [False, False, False, True]


def world(ends=True, deterministic=False, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 0.7), size=(4, 2))
    p[p < 0.1] = 0  # sparse
    if deterministic:
        p = np.eye(4)[p.argmax(-1)]
    p /= p.sum(-1, keepdims=True)
    return TabularMDP(p, [0.6, 0.4, 0, 0], terminal=TERMINAL if ends else None)


def table(mdp, inputs, seed=0):
    shape = {"state": (4,), "state_action": (4, 2), "transition": (len(mdp.successor),)}[inputs]
    generator = torch.Generator().manual_seed(seed)
    return RewardTable(torch.randn(shape, generator=generator, dtype=torch.float64), inputs)


@functools.cache
def transitions(mdp):
    """Map from (s, a, s′) to (index, probability)."""
    columns = (mdp.row % 4, mdp.row // 4, mdp.successor, torch.arange(len(mdp.row)), mdp.probability)
    return {(s, a, z): (n, p) for s, a, z, n, p in zip(*(x.tolist() for x in columns), strict=True)}


def probability(mdp, s, a, z):
    return transitions(mdp).get((s, a, z), (0, 0.0))[1]


def step_reward(mdp, reward, s, a, z):
    """Reward of one step; for a terminal state (a = z = None) its reward, received once."""
    if reward.inputs == "state":
        return float(reward.values[s])
    if a is None:
        return 0.0
    if reward.inputs == "state_action":
        return float(reward.values[s, a])
    return float(reward.values[transitions(mdp)[s, a, z][0]])


def trajectories(mdp, start, steps):
    """All trajectories from `start`: lists of (s, a, s′), ending in (s, None, None) at a terminal state."""
    if steps == 0:
        yield []
    elif mdp.terminal[start]:
        yield [(start, None, None)]
    else:
        for a, z in itertools.product(range(2), range(4)):
            if probability(mdp, start, a, z):
                for rest in trajectories(mdp, z, steps - 1):
                    yield [(start, a, z), *rest]


def dynamics_probability(mdp, one):
    return math.prod(probability(mdp, *step) for step in one if step[1] is not None)


@pytest.mark.integration
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("ends", [False, True])
def test_trajectory_entropy_matches_enumeration(inputs, ends):
    mdp = world(ends)
    reward, planning = table(mdp, inputs), Planning(HORIZON, 1.0, entropy="trajectory")
    solution = solve(mdp, reward, planning)
    visits = torch.zeros(4, 2, dtype=torch.float64)
    for start in range(4):
        every = list(trajectories(mdp, start, HORIZON))
        weights = [
            dynamics_probability(mdp, one) * math.exp(sum(step_reward(mdp, reward, *step) for step in one))
            for one in every
        ]
        z = sum(weights)
        assert float(solution.value[0, start]) == pytest.approx(math.log(z), rel=1e-12)
        if not mdp.terminal[start]:
            first = [sum(w for w, one in zip(weights, every, strict=True) if one[0][1] == a) / z for a in range(2)]
            np.testing.assert_allclose(solution.policy[0, start], first, rtol=1e-12)
        for weight, one in zip(weights, every, strict=True):
            for s, a, _ in one:
                visits[s, a or 0] += float(mdp.start[start]) * weight / z
    _, found = log_partition(mdp, reward, {0: mdp.start}, planning)
    torch.testing.assert_close(found, visits, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.grid
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("ends", [False, True])
def test_causal_policy_maximizes_return_plus_entropy(inputs, ends):
    """V_0 is the value of the policy, by enumeration of all trajectories, and no other policy has a larger one."""
    mdp, gamma = world(ends), 0.9
    reward, planning = table(mdp, inputs), Planning(HORIZON, gamma)
    solution = solve(mdp, reward, planning)

    def objective(policy, start):
        total = 0.0
        for one in trajectories(mdp, start, HORIZON):
            p = dynamics_probability(mdp, one) * math.prod(
                float(policy[t, s, a]) for t, (s, a, _) in enumerate(one) if a is not None
            )
            for t, (s, a, z) in enumerate(one):
                surprise = 0.0 if a is None else -math.log(float(policy[t, s, a]))
                total += p * gamma**t * (step_reward(mdp, reward, s, a, z) + surprise)
        return total

    for start in range(4):
        best = objective(solution.policy, start)
        assert best == pytest.approx(float(solution.value[0, start]), rel=1e-12)
        for seed in range(5):
            noise = torch.randn(solution.policy.shape, generator=torch.Generator().manual_seed(seed)).double()
            other = (solution.policy.clamp(min=1e-300).log() + 0.3 * noise).softmax(-1)
            assert objective(other, start) < best + 1e-12 if mdp.terminal[start] else objective(other, start) < best


@pytest.mark.integration
@pytest.mark.parametrize("ends", [False, True])
def test_occupancy_matches_enumeration(ends):
    mdp, gamma = world(ends), 0.8
    planning = Planning(HORIZON, gamma)
    policy = solve(mdp, table(mdp, "state"), planning).policy
    visits = torch.zeros(4, 2, dtype=torch.float64)
    for start in range(4):
        for one in trajectories(mdp, start, HORIZON):
            p = float(mdp.start[start]) * dynamics_probability(mdp, one)
            p *= math.prod(float(policy[t, s, a]) for t, (s, a, _) in enumerate(one) if a is not None)
            for t, (s, a, _) in enumerate(one):
                visits[s, a or 0] += gamma**t * p
    torch.testing.assert_close(occupancy(mdp, policy, {0: mdp.start}, planning), visits, rtol=1e-12, atol=1e-14)


def test_entropies_agree_only_for_deterministic_dynamics():
    for deterministic in (True, False):
        mdp = world(deterministic=deterministic)
        reward = table(mdp, "state_action")
        policies = [solve(mdp, reward, Planning(HORIZON, 1.0, entropy=e)).policy for e in ("causal", "trajectory")]
        assert torch.allclose(*policies, atol=1e-12) == deterministic


@pytest.mark.parametrize("ends", [False, True])
def test_infinite_horizon_values_are_fixed_point(ends):
    mdp = world(ends)
    reward, planning = table(mdp, "state"), Planning(gamma=0.9, tolerance=1e-5)
    value, policy = solve(mdp, reward, planning)
    exact = solve(mdp, reward, Planning(1000, 0.9)).value[0]  # 0.9¹⁰⁰⁰ vanishes in float64
    assert float((value - exact).abs().max()) < 1e-5
    flow = occupancy(mdp, policy, {0: mdp.start}, planning)
    # Linear algebra: d = start + γ Pᵀ d under the policy; terminal states have no successors.
    dense = torch.zeros(4, 4, dtype=torch.float64)
    for s, a, z in itertools.product(range(4), range(2), range(4)):
        dense[s, z] += policy[s, a] * probability(mdp, s, a, z)
    state = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - 0.9 * dense.T, mdp.start)
    assert float((flow.sum(1) - state).abs().sum()) < 1e-5


def test_optimal_policy_beats_all_policies():
    mdp, gamma = world(), 0.9
    reward = table(mdp, "state_action")
    value, policy = solve(mdp, reward, Planning(gamma=gamma, tolerance=1e-10, entropy="none"))
    best = torch.full((4,), -math.inf, dtype=torch.float64)
    for actions in itertools.product(range(2), repeat=4):
        dense = torch.tensor(
            [[probability(mdp, s, a, z) for z in range(4)] for s, a in enumerate(actions)], dtype=torch.float64
        )
        pay = [0.0 if mdp.terminal[s] else float(reward.values[s, a]) for s, a in enumerate(actions)]
        best = torch.maximum(
            best, torch.linalg.solve(torch.eye(4).double() - gamma * dense, torch.tensor(pay, dtype=torch.float64))
        )
    torch.testing.assert_close(value, best, rtol=0, atol=1e-9)
    assert (policy.max(-1).values == 1).all()


# Likelihood.


def demonstrations(length, ends):
    """Two demonstrations, the second cut after `length` steps; one ends in a terminal state if the world has one."""
    states = np.array([0, 1, 2, 0, 1, 2, 3, 1, 0])
    return Trajectories.from_arrays(
        [(states[: HORIZON + 1], np.ones(HORIZON, int)), (states[: length + 1], np.zeros(length, int))]
        + [([0, 2, 3], [0, 1])] * ends
    )


def uniform_start(ends):
    p = np.random.default_rng(1).dirichlet(np.ones(4), size=(4, 2))
    return TabularMDP(p, terminal=TERMINAL if ends else None)


def likelihood(mdp, values, inputs, chosen, planning):
    reward = RewardTable(values, inputs)
    partition, _ = log_partition(mdp, reward, chosen.inflow(mdp, planning), planning)
    return ((chosen.visits(mdp, inputs, planning.gamma) * values).sum() - partition) / len(chosen.length)


@pytest.mark.integration
@pytest.mark.grid
@pytest.mark.parametrize(
    "planning",
    [Planning(HORIZON, 0.9), Planning(HORIZON, 1.0, entropy="trajectory"), Planning(gamma=0.8, tolerance=1e-12)],
)
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("ends", [False, True])
def test_gradient_matches_finite_differences(planning, inputs, ends):
    mdp = uniform_start(ends)
    values = table(mdp, inputs).values.requires_grad_()
    chosen = demonstrations(2, ends).check(mdp, inputs, planning.horizon)
    assert torch.autograd.gradcheck(
        lambda x: likelihood(mdp, x, inputs, chosen, planning), (values,), eps=1e-6, atol=1e-8, rtol=1e-6
    )


@pytest.mark.grid
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [1, 3, HORIZON])
def test_trajectory_likelihood_matches_enumeration(length, ends, inputs):
    """Log P(ζ | s_0) of Ziebart et al. (2008), summed over continuations of a cut trajectory, without the dynamics."""
    mdp, planning = uniform_start(ends), Planning(HORIZON, 1.0, entropy="trajectory")
    reward = table(mdp, inputs)
    chosen = demonstrations(length, ends).check(mdp, inputs, HORIZON)
    total, count = 0.0, len(chosen.length)
    for number in range(count):
        rows = chosen.number == number
        demonstrated = list(zip(*(x[rows].tolist() for x in chosen[:3]), strict=True))
        every = list(trajectories(mdp, demonstrated[0][0], HORIZON))
        weights = [
            dynamics_probability(mdp, one) * math.exp(sum(step_reward(mdp, reward, *step) for step in one))
            for one in every
        ]
        same = sum(w for w, one in zip(weights, every, strict=True) if one[: len(demonstrated)] == demonstrated)
        total += math.log(same / sum(weights)) - math.log(dynamics_probability(mdp, demonstrated))
    found = float(likelihood(mdp, reward.values, inputs, chosen, planning))
    assert found == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("planning", [Planning(HORIZON, 0.9), Planning(gamma=0.9, tolerance=1e-13)])
def test_causal_likelihood_matches_action_likelihood(planning):
    p = np.zeros((4, 2, 4))
    p[np.arange(4), 0, [1, 2, 3, 0]] = p[np.arange(4), 1, [2, 3, 0, 1]] = 1
    mdp = TabularMDP(p)
    reward = table(mdp, "state_action")
    states = [0, 1, 3, 0]
    chosen = Trajectories.from_arrays([states, [2, 3]]).check(mdp, "state_action", planning.horizon)
    assert chosen.action.tolist() == [0, 1, 0, 0]
    policy = solve(mdp, reward, planning).policy
    total = 0.0
    for s, a, t in zip(chosen.state, chosen.action, chosen.step, strict=True):
        total += 0.9 ** int(t) * float((policy if policy.ndim == 2 else policy[t])[s, a].log())
    assert float(likelihood(mdp, reward.values, "state_action", chosen, planning)) == pytest.approx(total / 2, rel=1e-9)


@pytest.mark.integration
def test_causal_gradient_matches_expected_likelihood():
    """Over all trajectories of an expert, weighted by probability; by finite differences of Σ γᵗ log π_t."""
    mdp, planning = world(False), Planning(3, 0.9)
    expert = solve(mdp, table(mdp, "state_action", seed=5), planning).policy
    values = table(mdp, "state_action").values

    def expected(x):
        policy, total = solve(mdp, RewardTable(x, "state_action"), planning).policy, 0.0
        for start in range(2):
            for one in trajectories(mdp, start, 3):
                p = float(mdp.start[start]) * dynamics_probability(mdp, one)
                p *= math.prod(float(expert[t, s, a]) for t, (s, a, _) in enumerate(one))
                total += p * sum(0.9**t * float(policy[t, s, a].log()) for t, (s, a, _) in enumerate(one))
        return total

    demonstrated = occupancy(mdp, expert, {0: mdp.start}, planning)
    _, learner = log_partition(mdp, RewardTable(values, "state_action"), {0: mdp.start}, planning)
    for s, a in itertools.product(range(4), range(2)):
        step = torch.zeros_like(values)
        step[s, a] = 1e-5
        slope = (expected(values + step) - expected(values - step)) / 2e-5
        assert slope == pytest.approx(float(demonstrated[s, a] - learner[s, a]), abs=1e-7)


def test_potential_shaping_does_not_change_policies():
    mdp, gamma = world(False), 0.9
    reward = table(mdp, "transition")
    potential = torch.randn(4, generator=torch.Generator().manual_seed(3)).double() * 5
    state, following = mdp.row % 4, mdp.successor.long()
    shaped = RewardTable(reward.values + gamma * potential[following] - potential[state], "transition")
    for entropy in ("none", "causal"):
        planning = Planning(gamma=gamma, tolerance=1e-12, entropy=entropy)
        (value, policy), (shaped_value, same) = (solve(mdp, r, planning) for r in (reward, shaped))
        torch.testing.assert_close(same, policy, rtol=0, atol=1e-10)
        torch.testing.assert_close(shaped_value, value - potential, rtol=0, atol=1e-10)


def test_torch_and_scipy_operations_agree(monkeypatch):
    mdp = world()
    value, flow = (torch.randn(shape, dtype=torch.float64) for shape in ((4,), (2, 4)))
    expected = mdp.expectation(value), mdp.push(flow)
    monkeypatch.setattr(TabularMDP, "_on_host", False)
    torch.testing.assert_close((mdp.expectation(value), mdp.push(flow)), expected, rtol=0, atol=1e-14)


def test_extreme_rewards_neither_overflow_nor_vanish():
    mdp = world().to(dtype=torch.float32)
    for size in (1e3, 1e6):
        reward = RewardTable(torch.tensor([size, -size, size / 2, 0.0]))
        for planning in (Planning(HORIZON, 1.0), Planning(HORIZON, 1.0, entropy="trajectory")):
            partition, flow = log_partition(mdp, reward, {0: mdp.start}, planning)
            assert partition.isfinite()
            assert flow.isfinite().all()
            assert partition.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"horizon": 0}, "model.horizon is 0"),
        ({"gamma": 1.0}, "model.gamma is 1.0; it must lie in"),
        ({"gamma": 0.0}, "model.gamma is 0.0"),
        ({"tolerance": 0.0}, "model.tolerance is 0.0"),
        ({"entropy": "causl"}, "model.entropy is 'causl'; choose one of causal, trajectory, none"),
        ({"entropy": "trajectory"}, "set model.horizon, and model.gamma to 1"),
        ({"entropy": "trajectory", "horizon": 3, "gamma": 0.9}, "set model.horizon, and model.gamma to 1"),
    ],
)
def test_invalid_planning_raises(arguments, text):
    with pytest.raises(ConfigError, match=text):
        Planning(**arguments)


@pytest.mark.parametrize("entropy", ["causal", "trajectory", "none"])
def test_large_world_recomputes_q(monkeypatch, entropy):
    """Storing Q for small worlds must only save time."""
    mdp, planning = world(), Planning(HORIZON, 1.0, entropy=entropy)
    reward = table(mdp, "transition")
    small, of_small = solve(mdp, reward, planning), log_partition(mdp, reward, {0: mdp.start}, planning)
    monkeypatch.setattr("lit_imitation.tabular.planning.MAX_CACHED_Q", HORIZON * 4 * 2 - 1)
    large, of_large = solve(mdp, reward, planning), log_partition(mdp, reward, {0: mdp.start}, planning)
    for one, other in zip((*small, *of_small), (*large, *of_large), strict=True):
        assert torch.equal(one, other)
