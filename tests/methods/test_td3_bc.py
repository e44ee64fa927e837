"""TD3+BC and ReBRAC's penalty against plain loops, and whole runs."""

from __future__ import annotations

import pytest
import torch
from offline import BOX, CENTER, LINE, OBSERVATION, ONE_ACTION, SCALE, bandit, fit, make_batch, walk

from lit_imitation import TD3BC, DeterministicPolicy, GaussianPolicy, OfflineDataModule
from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.methods.td3_bc import CriticLoss, PolicyLoss
from lit_imitation.rl.action_values import make_q_functions


def make_parts():
    torch.manual_seed(0)
    policy = DeterministicPolicy(OBSERVATION, BOX, hidden_sizes=[8])
    return policy, *(make_q_functions(OBSERVATION, BOX, [8], "tanh") for _ in range(2))


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_critic_loss_matches_plain_loop(penalty):
    policy, critic, target = make_parts()
    with torch.no_grad():
        policy.network.layers[-1].bias.copy_(torch.tensor([3.0, 0.1]))  # near the bound, where noise is cut off
    loss, batch = CriticLoss(policy, critic, target, 0.9, 0.4, 0.5, penalty), make_batch("continuous")
    noise = 2 * torch.randn(20, 2)
    next_action, has_next = make_batch("continuous")[1].flip(0), (torch.rand(20) < 0.6).float()
    found, statistics = loss(*batch, noise, *((next_action, has_next) if penalty else ()))
    expected, cut = 0.0, 0
    with torch.no_grad():
        for i, (s, a, r, after, over) in enumerate(zip(*(one.split(1) for one in batch), strict=True)):
            raw = policy.head(after).tanh() + (0.4 * noise[i]).clamp(-0.5, 0.5)
            u = raw.clamp(-1, 1)
            cut += int((raw != u).any())
            value = float(target(after, u).min())
            u_next = (next_action[i] - CENTER) / SCALE
            value -= penalty * float(has_next[i]) * float((u - u_next).square().sum())
            y = float(r) + (0.0 if over else 0.9 * value)
            expected += sum((float(q) - y) ** 2 for q in critic(s, (a - CENTER) / SCALE)[:, 0, 0])
    assert cut > 3
    assert float(found) == pytest.approx(expected / 20, rel=1e-4)
    assert len(statistics) == 1


def test_policy_loss_matches_plain_loop_and_ignores_the_scale_of_values():
    policy, critic, _ = make_parts()
    s, a, *_ = make_batch("continuous")
    u = policy.head(s).tanh()
    q = critic(s, u)[0, :, 0]
    cloning = (u - (a - CENTER) / SCALE).square().sum(-1).mean()
    total, statistics = PolicyLoss(policy, critic, 0.3)(s, a)
    assert float(total) == pytest.approx(float(-q.mean() / q.abs().mean() + 0.3 * cloning), rel=1e-5)
    assert float(statistics[0]) == pytest.approx(float(cloning), rel=1e-5)
    parameter = policy.network.layers[0].weight
    (before,) = torch.autograd.grad(total, parameter)
    with torch.no_grad():
        critic.network.weights[-1].mul_(50)
        critic.network.biases[-1].mul_(50)
    (after,) = torch.autograd.grad(PolicyLoss(policy, critic, 0.3)(s, a)[0], parameter)
    torch.testing.assert_close(before, after)


@pytest.mark.integration
def test_policy_is_better_than_its_data_and_cloning_holds_it(tmp_path):
    """Data around 0, best 0.6: the more cloning, the nearer to the data."""
    chosen = []
    for coefficient in (0.3, 30.0):
        model = TD3BC(
            lambda *spaces: DeterministicPolicy(*spaces, hidden_sizes=[32]),
            cloning_coefficient=coefficient, hidden_sizes=[32, 32], learning_rate=3e-3,
        )  # fmt: skip
        fit(model, OfflineDataModule(demonstrations=bandit(), **ONE_ACTION), tmp_path, 40)
        chosen.append(float(model.policy.act(torch.randn(200, 2)).mean()))
    assert chosen[0] > 0.3
    assert abs(chosen[1]) < 0.1


@pytest.mark.integration
def test_policy_and_targets_move_once_a_period(tmp_path):
    model = TD3BC(hidden_sizes=[8], policy_period=3, critic_penalty=0.1, tau=0.3)
    data = OfflineDataModule(demonstrations=bandit(256 * 3), **ONE_ACTION)
    fit(model, data, tmp_path, 2)
    assert model.critic_descent.adam_steps == 6
    assert model.policy_descent.adam_steps == 2
    assert not torch.equal(model.target_policy.network.layers[0].weight, model.policy.network.layers[0].weight)


@pytest.mark.integration
def test_discrete_actions_and_other_policies_are_refused(tmp_path):
    with pytest.raises(UnsupportedSpaceError, match="DeterministicPolicy needs a Box action space"):
        fit(TD3BC(), OfflineDataModule(demonstrations=walk(20, 0.5), **LINE), tmp_path, 1)
    with pytest.raises(ConfigError, match="TD3BC needs a DeterministicPolicy, not a GaussianPolicy"):
        fit(TD3BC(GaussianPolicy), OfflineDataModule(demonstrations=bandit(50), **ONE_ACTION), tmp_path, 1)
    with pytest.raises(ConfigError, match=r"model\.policy_period is 0"):
        TD3BC(policy_period=0)
