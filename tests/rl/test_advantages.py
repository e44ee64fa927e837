"""Generalized advantages against plain loops and closed forms, on arrays and on rollouts of every backend."""

from __future__ import annotations

import counting
import numpy as np
import pytest
import torch
from counting import ACTIONS

from lit_imitation.envs import make
from lit_imitation.rl import advantages
from lit_imitation.rl.advantages import explained_variance, generalized_advantages, standardize_advantages
from lit_imitation.rollout import rounds


def by_definition(reward, value, next_value, terminated, done, gamma, lam):
    """The sum of the definition, term by term: Σ_k (γλ)^k δ_{t+k} up to the episode's end."""
    advantage = np.zeros_like(reward)
    steps, envs = reward.shape
    for env in range(envs):
        for t in range(steps):
            factor = 1.0
            for k in range(t, steps):
                future = 0.0 if terminated[k, env] else gamma * next_value[k, env]
                advantage[t, env] += factor * (reward[k, env] + future - value[k, env])
                if done[k, env]:
                    break
                factor *= gamma * lam
    return advantage


def random_round(seed=0, steps=40, envs=3):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, steps, envs))
    terminated, truncated = rng.random((2, steps, envs)) < 0.1
    return reward, value, next_value, terminated, terminated | truncated


@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_recursion_equals_definition(gamma, lam):
    arrays = random_round()
    advantage = generalized_advantages(*map(torch.from_numpy, arrays), gamma, lam)
    np.testing.assert_allclose(advantage.numpy(), by_definition(*arrays, gamma, lam), atol=1e-12)


def test_advantages_match_closed_forms():
    steps, gamma, lam = 50, 0.9, 0.8
    ones, zeros = torch.ones(steps, 1, dtype=torch.float64), torch.zeros(steps, 1, dtype=torch.float64)
    no, end = torch.zeros(steps, 1, dtype=torch.bool), torch.zeros(steps, 1, dtype=torch.bool)
    end[-1] = True
    # With V = 0 and λ = 1 the advantage is the discounted return to the end.
    left = torch.arange(steps, 0, -1, dtype=torch.float64)[:, None]
    returns = generalized_advantages(ones, zeros, zeros, end, end, gamma, 1.0)
    torch.testing.assert_close(returns, (1 - gamma**left) / (1 - gamma))
    # With the exact value of an infinite stream of rewards 1, truncated steps have no advantage; terminated ones do.
    exact = ones / (1 - gamma)
    truncated = generalized_advantages(ones, exact, exact, no, end, gamma, lam)
    torch.testing.assert_close(truncated, zeros, atol=1e-12, rtol=0)
    terminated = generalized_advantages(ones, exact, exact, end, end, gamma, lam)
    lost = -gamma / (1 - gamma) * (gamma * lam) ** (left - 1)
    torch.testing.assert_close(terminated, lost)


def value_of(observation):
    """A value that differs between all observations."""
    return torch.sin(observation.double() @ torch.tensor([0.3, 1.0, 2.0, 0.5, 5.0], dtype=torch.float64))


@pytest.mark.parametrize("backend", ["sync", "async", "vector"])
def test_rollout_advantages_match_those_of_single_episodes(backend):
    """Episodes end by termination, truncation, or both; the vector backend has invalid steps with poisoned values."""
    num_envs, steps, gamma, lam = 3, 60, 0.95, 0.9
    envs = make("Counting-v0", num_envs, 0, backend)
    drawn: list[torch.Tensor] = []

    def explorer(observation):
        action = counting.act(observation)
        drawn.append(torch.from_numpy(action))
        return action

    first, second = rounds(envs, explorer, drawn, steps, 2, seed=5)
    envs.close()
    rows_of = {}
    for one in (first, second):
        data = one.rollout
        advantage = generalized_advantages(
            data.reward.double(),
            value_of(data.observation),
            value_of(data.next_observation),
            data.terminated,
            data.done,
            gamma,
            lam,
        )
        assert advantage.isfinite().all()
        for env in range(num_envs):
            for t in range(steps):
                if one.valid[t, env]:
                    tag, episode, at = data.observation[t, env, :3].int().tolist()
                    rows_of.setdefault((env, tag, episode), {})[at] = (one, env, t, float(advantage[t, env]))
    complete = 0
    for (env, tag, episode), rows in rows_of.items():
        one, _, last, _ = rows[max(rows)]
        if not one.rollout.done[last, env] or len({id(r[0]) for r in rows.values()}) > 1:
            continue  # the episode continues after the rounds, or spans both
        complete += 1
        # The environment's own rules, without the rollout code.
        length = max(rows) + 1
        assert sorted(rows) == list(range(length))
        states = np.array([[tag, episode, t, -1 if t == 0 else 0, t == length] for t in range(length + 1)], np.float64)
        for t in range(length):
            states[t + 1, 3] = (tag + 2 * episode + 3 * t) % ACTIONS
        reward = 100 * episode + np.arange(length) + states[1:, 3] / 8
        value = value_of(torch.from_numpy(states)).numpy()
        over = np.zeros(length, bool)
        over[-1] = bool(one.rollout.terminated[last, env])
        ends = np.arange(length) == length - 1
        wanted = by_definition(*(x[:, None] for x in (reward, value[:-1], value[1:], over, ends)), gamma, lam)[:, 0]
        np.testing.assert_allclose([rows[t][3] for t in range(length)], wanted, rtol=1e-6)
    assert complete > 30


def test_standardization_counts_valid_steps_of_all_processes(monkeypatch):
    """The second process here has the round of the first, shifted by 3."""
    advantage = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = (torch.arange(60).view(20, 3) % 4 > 0).double()
    other = advantage + 3.0
    kept = advantage[weight.bool()]
    found = standardize_advantages(advantage, weight)[weight.bool()]
    torch.testing.assert_close(found, (kept - kept.mean()) / kept.std(correction=0))
    sums = torch.stack([weight.sum(), (weight * other).sum(), (weight * other.square()).sum()])
    monkeypatch.setattr(advantages, "all_reduce", lambda mine: mine + sums)
    both = torch.cat([kept, other[weight.bool()]])
    found = standardize_advantages(advantage, weight)[weight.bool()]
    torch.testing.assert_close(found, (kept - both.mean()) / both.std(correction=0))


def test_explained_variance_is_share_of_valid_targets():
    target, error = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    weight = (torch.arange(30) % 3 > 0).float()
    valid = weight.bool()
    expected = 1 - error[valid].var(correction=0) / target[valid].var(correction=0)
    torch.testing.assert_close(explained_variance(target + error, target, weight), expected)
    assert float(explained_variance(target, target, weight)) == 1.0
    assert float(explained_variance(torch.zeros(30), target, weight)) == pytest.approx(0.0, abs=1e-6)
