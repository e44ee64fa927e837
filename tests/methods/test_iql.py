"""Implicit Q-learning against plain loops and closed forms, and a whole run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import MultiDiscrete
from offline import ACTIONS, CENTER, LINE, OBSERVATION, SCALE, fit, make_batch, walk

import lit_imitation
from lit_imitation import IQL, CategoricalPolicy, GaussianPolicy, MixturePolicy, OfflineDataModule
from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.methods.iql import STATISTICS, IQLLoss, expectile_loss
from lit_imitation.networks.critic import Value
from lit_imitation.optim import gradients
from lit_imitation.rl.action_values import make_q_functions
from lit_imitation.transitions import Transitions


def make_loss(kind: str, **more: float) -> IQLLoss:
    torch.manual_seed(0)
    space = ACTIONS[kind]
    policy = (GaussianPolicy if kind == "continuous" else CategoricalPolicy)(OBSERVATION, space, hidden_sizes=[8])
    critic, target = (make_q_functions(OBSERVATION, space, [8], "tanh") for _ in range(2))
    given = {"gamma": 0.9, "expectile": 0.8, "inverse_temperature": 2.0, "max_weight": 1.3} | more
    return IQLLoss(policy, Value(OBSERVATION, [8], "tanh"), critic, target, **given)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_minimizer_of_expectile_loss_is_the_expectile(expectile):
    """That of U(0, 1) is √τ / (√τ + √(1 − τ))."""
    sample = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    places = torch.linspace(0, 1, 2001, dtype=torch.float64)
    losses = torch.stack([expectile_loss(sample - place, expectile).mean() for place in places])
    root, other = math.sqrt(expectile), math.sqrt(1 - expectile)
    assert float(places[losses.argmin()]) == pytest.approx(root / (root + other), abs=6e-4)


@pytest.mark.parametrize("kind", ACTIONS)
def test_loss_matches_plain_loop(kind):
    loss, batch = make_loss(kind), make_batch(kind)
    found, statistics = loss(*batch)
    value_loss = critic_loss = policy_loss = 0.0
    with torch.no_grad():
        for observation, action, reward, following, terminated in zip(*batch, strict=True):
            s, a, after = observation[None], action[None], following[None]
            if kind == "continuous":
                u = (a - CENTER) / SCALE
                q, target_q = (net(s, u)[:, 0, 0].tolist() for net in (loss.critic, loss.target))
            else:
                q, target_q = (net(s)[:, 0, int(action) + 1].tolist() for net in (loss.critic, loss.target))
            advantage = min(target_q) - float(loss.value(s))
            value_loss += abs(0.8 - (advantage < 0)) * advantage**2
            y = float(reward) + (0.0 if terminated else 0.9 * float(loss.value(after)))
            critic_loss += sum((one - y) ** 2 for one in q)
            policy_loss += min(math.exp(2 * advantage), 1.3) * float(loss.policy.loss(s, a))
    expected = [one / 20 for one in (value_loss, critic_loss, policy_loss)]
    assert statistics[:3].tolist() == pytest.approx(expected, rel=1e-4)
    assert float(found) == pytest.approx(sum(expected), rel=1e-4)
    assert len(statistics) == len(STATISTICS)


@pytest.mark.parametrize("kind", ACTIONS)
def test_each_loss_moves_its_own_network_alone(kind):
    """By finite differences: the joint gradient is that of each loss by its own parameters."""
    loss, batch = (
        make_loss(kind).double(),
        [one.double() if one.is_floating_point() else one for one in make_batch(kind)],
    )
    total, _ = loss(*batch)
    for number, network in enumerate((loss.value, loss.critic, loss.policy)):
        parameter = next(iter(network.parameters()))
        (gradient,) = torch.autograd.grad(total, parameter, retain_graph=True)
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                moved = loss(*batch)[1]
                parameter.sub_(direction, alpha=step)
            values.append(float(moved[number]))
        assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_inverse_temperature_of_zero_clones():
    loss, (s, a, r, after, over) = make_loss("continuous", inverse_temperature=0.0), make_batch("continuous")
    assert float(loss(s, a, r, after, over)[1][2]) == pytest.approx(float(loss.policy.loss(s, a).mean()), rel=1e-6)


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_values_and_actions_of_the_best_policy_are_found_in_poor_data(tmp_path):
    """Two of three actions go left. V is the fixed point of the expectile of two values, which has a closed form."""
    model = IQL(
        lambda *spaces: CategoricalPolicy(*spaces, hidden_sizes=[32]),
        expectile=0.95, inverse_temperature=50.0, hidden_sizes=[32, 32], learning_rate=3e-3, gamma=0.9, tau=0.05,
    )  # fmt: skip
    fit(model, OfflineDataModule(demonstrations=walk(300, 1 / 3), batch_size=64, **LINE), tmp_path, 40)
    places = torch.arange(5)
    assert model.policy.act(places).tolist() == [1] * 5
    value, right, left = torch.zeros(5), 0.95 / 3, 0.05 * 2 / 3
    for _ in range(200):
        after_right, after_left = torch.cat([0.9 * value[1:], torch.ones(1)]), 0.9 * value[[0, 0, 1, 2, 3]]
        value = (right * after_right + left * after_left) / (right + left)
    torch.testing.assert_close(model.value(places).detach(), value, atol=0.03, rtol=0)
    cloned = IQL(lambda *spaces: CategoricalPolicy(*spaces, hidden_sizes=[32]), inverse_temperature=0.0)
    fit(cloned, OfflineDataModule(demonstrations=walk(300, 1 / 3), batch_size=64, **LINE), tmp_path, 5)
    assert cloned.policy.act(places).tolist() == [0] * 5


@pytest.mark.integration
@pytest.mark.parametrize("traced", [True, False])
def test_target_follows_the_critic(traced, tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "TRACE_AFTER", 1 if traced else 10**9)
    model, data = IQL(hidden_sizes=[8], tau=0.3), walk(40, 0.5)
    fit(model, OfflineDataModule(demonstrations=data, batch_size=64, **LINE), tmp_path, 3)
    assert bool(model.descent.block.loops) is traced
    assert not torch.equal(model.target.network.weights[0], model.critic.network.weights[0])
    before = model.target.network.weights[1].detach().clone()
    batch = data[:8]
    model.descent.step(batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated)
    expected = before + 0.3 * (model.critic.network.weights[1].detach() - before)
    torch.testing.assert_close(model.target.network.weights[1].detach(), expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"expectile": 1.0}, "model.expectile is 1.0; it must lie between 0 and 1"),
        ({"inverse_temperature": -1.0}, "model.inverse_temperature is -1.0"),
        ({"max_weight": 0.0}, "model.max_weight is 0.0"),
        ({"gamma": 1.5}, "model.gamma is 1.5"),
        ({"hidden_sizes": [4, 0]}, r"model.hidden_sizes\[1\] is 0"),
        ({"optimization": lit_imitation.Optimization(accumulate_batches=2)}, "IQL takes a step per minibatch"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, text):
    with pytest.raises(ConfigError, match=text):
        IQL(**arguments)


@pytest.mark.integration
def test_other_data_and_plans_are_refused(tmp_path):
    data = walk(20, 0.5)
    with pytest.raises(ConfigError, match=r"use lit_imitation\.OfflineDataModule, not DemonstrationDataModule"):
        fit(IQL(), lit_imitation.DemonstrationDataModule(demonstrations=data, **LINE), tmp_path, 1)
    with pytest.raises(UnsupportedSpaceError, match="Discrete or Box"):
        make_q_functions(OBSERVATION, MultiDiscrete([2, 3]), [8], "relu")
    chunks = Transitions.from_numpy(
        {
            "observation": np.zeros((9, 3)), "action": np.eye(9, 2), "reward": np.ones(9),
            "terminated": np.zeros(9, bool), "truncated": np.arange(9) == 8,
        }
    )  # fmt: skip
    model = IQL(lambda *spaces: MixturePolicy(*spaces, horizon=4, n_action_steps=2))
    with pytest.raises(ConfigError, match=r"IQL values single actions, but model\.policy plans 4"):
        fit(model, OfflineDataModule(demonstrations=chunks), tmp_path, 1)
