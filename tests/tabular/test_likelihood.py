"""Step likelihood and gradient, baselines and unavailable actions, against dense closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation.envs import make
from lit_imitation.errors import ConfigError, DemonstrationError
from lit_imitation.rollout.random_return import random_return
from lit_imitation.tabular import Planning, RewardTable, TabularMDP, Trajectories, log_partition, occupancy, solve
from lit_imitation.tabular.likelihood import action_log_likelihood, baselines
from lit_imitation.tabular.trajectories import UNKNOWN, sample_trajectories

STATES, ACTIONS = 6, 3
AVAILABLE = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)


def random_transitions(seed: int = 0) -> np.ndarray:
    """Random transition probabilities `[S, A, S]`."""
    p = np.random.default_rng(seed).dirichlet(np.ones(STATES), (STATES, ACTIONS))
    return np.where(p > 0.1, p, 0) / np.where(p > 0.1, p, 0).sum(-1, keepdims=True)


def world(masked: bool, ends: bool) -> TabularMDP:
    p, terminal = random_transitions(), np.arange(STATES) == STATES - 1
    if masked:
        p[~AVAILABLE] = 7.0  # rows that must not be read
    return TabularMDP(
        p,
        np.eye(STATES)[0] if ends else None,
        terminal=terminal if ends else None,
        available=AVAILABLE if masked else None,
    )


def soft_log_policy(p, reward, masked, ends, gamma, horizon):
    """Log-policy log π_t `[T, S, A]` in NumPy; 800 sweeps for an infinite horizon, where 0.95⁸⁰⁰ = 1e-18."""
    terminal = np.arange(STATES) == STATES - 1
    expected_reward = {
        1: lambda: reward[:, None].repeat(ACTIONS, 1),
        2: lambda: reward,
        3: lambda: (p * reward).sum(-1),
    }[reward.ndim]()
    value, found = np.zeros(STATES), []
    for _ in range(horizon or 800):
        q = expected_reward + gamma * p @ value
        if masked:
            q = np.where(AVAILABLE, q, -np.inf)
        if ends:
            at_end = reward[terminal] if reward.ndim == 1 else 0.0
            q[terminal] = -np.inf
            q[terminal, 0] = at_end
        largest = q.max(1)
        value = largest + np.log(np.exp(q - largest[:, None]).sum(1))
        found.append(q - value[:, None])
    return np.array(found[::-1]) if horizon else found[-1][None]


def sample_demonstrations(mdp: TabularMDP, lengths, seed: int = 0) -> Trajectories:
    policy = solve(mdp, RewardTable(torch.linspace(-1, 1, STATES).double()), Planning(gamma=0.9)).policy
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for length in lengths:
        one = sample_trajectories(mdp, policy, 1, length, generator, "expert")
        pairs.append((np.append(one.state, one.next_state[-1]), one.action.numpy()))
    return Trajectories.from_arrays(pairs)


@pytest.mark.grid
@pytest.mark.integration
@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize(("masked", "ends"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("horizon", [None, 700])
def test_step_likelihood_and_gradient_match_dense_form(inputs, masked, ends, horizon):
    """Trajectories of up to 680 steps; the gradient is compared with finite differences of Σ log π_t(a_t | s_t)."""
    mdp, gamma = world(masked, ends), 0.95
    planning = Planning(horizon, gamma, tolerance=1e-12)
    chosen = sample_demonstrations(mdp, [680, 50, 7]).check(mdp, inputs, horizon)
    p = np.zeros((STATES, ACTIONS, STATES))
    state, action, following = mdp.row.numpy() % STATES, mdp.row.numpy() // STATES, mdp.successor.numpy()
    p[state, action, following] = mdp.probability
    rng = np.random.default_rng(1)
    full = rng.normal(size={"state": (STATES,), "state_action": (STATES, ACTIONS), "transition": p.shape}[inputs])
    values = torch.from_numpy(full[state, action, following] if inputs == "transition" else full).requires_grad_()

    def likelihood(reward):
        policy = soft_log_policy(p, reward, masked, ends, gamma, horizon)
        t = chosen.step.numpy() if horizon else 0
        return policy[t, chosen.state, chosen.action].sum()

    table = RewardTable(values, inputs)
    partition, _ = log_partition(mdp, table, chosen.step_inflow(mdp, planning), planning)
    found = (chosen.step_visits(mdp, inputs) * values).sum() - partition
    assert float(found) == pytest.approx(likelihood(full), rel=1e-9)
    assert action_log_likelihood(mdp, RewardTable(values.detach(), inputs), chosen, planning) == pytest.approx(
        likelihood(full), rel=1e-9
    )
    (gradient,) = torch.autograd.grad(found, values)
    places = [tuple(at) for at in rng.permutation(np.argwhere(p > 0 if inputs == "transition" else full == full))[:4]]
    for at in places:
        step = np.zeros_like(full)
        step[at] = 1e-5
        slope = (likelihood(full + step) - likelihood(full - step)) / 2e-5
        if inputs == "transition":
            index = int(mdp.find(*(torch.tensor([int(i)]) for i in at)))
            assert float(gradient[index]) == pytest.approx(slope, abs=1e-3, rel=1e-5)
        else:
            assert float(gradient[at]) == pytest.approx(slope, abs=1e-3, rel=1e-5)


def test_unknown_action_counts_observed_state():
    p = np.zeros((3, 2, 3))
    p[:, :, [1, 2, 0]] = np.eye(3)[:, None].repeat(2, 1)  # both actions have the same effect
    mdp, planning = TabularMDP(p), Planning(gamma=0.5, tolerance=1e-12)
    chosen = Trajectories.from_arrays([[0, 1, 2]]).check(mdp, "state", None)
    assert (chosen.action == UNKNOWN).all()
    (inflow,) = chosen.step_inflow(mdp, planning).values()
    np.testing.assert_allclose(inflow, [1, 1 - 0.5, -0.5])
    assert baselines(mdp, chosen, chosen) == (0, 0, 0)


def test_baselines_match_counts():
    mdp = world(True, False)
    chosen = sample_demonstrations(mdp, [30, 20]).check(mdp, "state", None)
    fitted = sample_demonstrations(mdp, [40], seed=1).check(mdp, "state", None)
    uniform, markov = 0.0, 0.0
    pairs = list(zip(fitted.state.tolist(), fitted.action.tolist(), strict=True))
    for s, a in zip(chosen.state.tolist(), chosen.action.tolist(), strict=True):
        choices = AVAILABLE[s].sum()
        uniform -= np.log(choices)
        markov += np.log((pairs.count((s, a)) + 1) / (sum(one == s for one, _ in pairs) + choices))
    found = baselines(mdp, chosen, fitted)
    assert found.uniform == pytest.approx(uniform)
    assert found.markov == pytest.approx(markov)
    assert found.steps == 50


@pytest.mark.parametrize("entropy", ["causal", "trajectory", "none"])
@pytest.mark.parametrize("ends", [False, True])
def test_unavailable_actions_are_never_taken(entropy, ends):
    mdp = world(True, ends)
    assert mdp.count_actions().tolist() == [3, 2, 1, 2, 3, 1 if ends else 2]
    reward = RewardTable(
        torch.randn(STATES, ACTIONS, generator=torch.Generator().manual_seed(0)).double(), "state_action"
    )
    planning = Planning(10, 1.0, entropy=entropy)
    value, policy = solve(mdp, reward, planning)
    never = ~(mdp.available | mdp.terminal[:, None])
    assert (policy[:, never] == 0).all()
    torch.testing.assert_close(policy.sum(-1), torch.ones(10, STATES).double())
    assert value.isfinite().all()
    assert (occupancy(mdp, policy, {0: mdp.start}, planning)[never] == 0).all()
    if entropy != "none":
        table = RewardTable(reward.values.clone().requires_grad_(), "state_action")
        partition, _ = log_partition(mdp, table, {0: mdp.start}, planning)
        (gradient,) = torch.autograd.grad(partition, table.values)
        assert gradient.isfinite().all()
        assert (gradient[never] == 0).all()


@pytest.mark.integration
def test_random_actions_are_uniform_over_available():
    mdp = world(True, False)
    at = TabularMDP(random_transitions(), np.eye(STATES)[1], reward=np.arange(STATES), available=AVAILABLE)
    samples = sample_trajectories(
        mdp, torch.full((STATES, ACTIONS), 1 / 3), 2000, 3, torch.Generator().manual_seed(0), "x"
    )
    assert AVAILABLE[samples.state, samples.action].all()
    envs = make("lit_imitation/Tabular-v0", 4000, 0, world=at, max_episode_steps=1)
    envs.action_space.seed(0)
    state = envs.reset(seed=0)[0]
    after = envs.step(np.asarray(envs.action_space.sample()))[0]
    expected = random_transitions()[1, [0, 2]].mean(0)
    assert (state == 1).all()
    np.testing.assert_allclose(np.bincount(after, minlength=STATES) / 4000, expected, atol=0.04)
    chosen = envs.reset(seed=1)[0] * 0 + 2
    led = envs.step(chosen)[0]  # available actions are executed as given
    np.testing.assert_allclose(np.bincount(led, minlength=STATES) / 4000, random_transitions()[1, 2], atol=0.04)
    envs.close()
    assert np.isfinite(random_return("lit_imitation/Tabular-v0", world=at))


def test_missing_table_actions_are_unavailable():
    class Table:
        P = {0: {0: [(1.0, 1, 0.0, False)], 2: [(1.0, 0, 1.0, False)]}, 1: {1: [(1.0, 0, 0.0, False)], 2: []}}  # noqa: RUF012
        initial_state_distrib = np.array([1.0, 0.0])
        unwrapped = property(lambda self: self)

    mdp = TabularMDP.from_env(Table())
    assert mdp.available.tolist() == [[True, False, True], [False, True, False]]
    assert solve(mdp, mdp.reward, Planning(gamma=0.5, entropy="none")).policy.argmax(1).tolist() == [2, 1]


def test_invalid_availability_raises():
    p = random_transitions()
    with pytest.raises(ConfigError, match=r"available has shape \[6, 2\]; expected \[6, 3\]"):
        TabularMDP(p, available=AVAILABLE[:, :2])
    with pytest.raises(ConfigError, match="no action is available in state 3, which is not terminal"):
        TabularMDP(p, available=AVAILABLE & (np.arange(6) != 3)[:, None])
    p[1, 1] = 0
    TabularMDP(p, available=AVAILABLE)
    with pytest.raises(ConfigError, match=r"state 1, action 1 sum to 0; .* or the action is not available there"):
        TabularMDP(p)
    mdp = world(True, False)
    with pytest.raises(DemonstrationError, match="trajectory 0, step 1: action 1 is not available in state 1"):
        Trajectories.from_arrays([([0, 1, 2], [0, 1])]).check(mdp, "state", None)
    steps = [[(0, 0, 1), (1, 0, 2)], [(0, 1, 1), (1, 1, 0)]]
    with pytest.raises(ConfigError, match="trajectory 1, step 1: action 1 is not available in state 1"):
        TabularMDP.estimate(steps, num_states=6, num_actions=3, available=AVAILABLE)
    estimated = TabularMDP.estimate(steps[:1], num_states=6, num_actions=3, available=AVAILABLE)
    assert estimated.count_actions().tolist() == AVAILABLE.sum(1).tolist()
