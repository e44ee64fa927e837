"""VQ-BeT's two phases: an autoencoder that stays as it is, and a policy over its codes."""

from __future__ import annotations

import math

import pytest
import torch
from heads import MATRIX, make_chunks, make_head

from lit_imitation.optim.descent import Descent
from lit_imitation.policies import load_policy
from lit_imitation.policies.checkpoints import describe


def fitted(**arguments):
    policy = make_head("vq-bet", MATRIX, horizon=3, **arguments)
    observation, action = make_chunks(policy, 30)
    policy.fit_normalizer(observation, action)
    return policy, observation, action


def test_loss_matches_plain_loop():
    policy, observation, action = fitted(secondary_weight=0.3, offset_weight=5.0)
    mask = torch.ones(30, 3)
    mask[10:, 2] = 0.0
    losses = policy.loss(observation, action, mask).tolist()
    log_prob, offsets = policy.codes_and_offsets(policy.head(observation))
    u = policy.units(action)
    for i in range(30):
        seen = u[i].clone()
        if i >= 10:
            seen[2] = seen[1]  # padding
        codes = policy.quantizer.codes(seen[None])[0]
        total = 0.0
        for level, code in enumerate(codes.tolist()):
            p = math.exp(log_prob[i, level, code])
            total -= (0.3 if level else 1.0) * (1 - p) ** 2 * math.log(p)
        offset = sum(offsets[i, level, code] for level, code in enumerate(codes.tolist())).view(3, 6)
        left = (u[i] - policy.quantizer.reconstruct(codes[None])[0] - offset).abs().sum(-1)
        total += 5.0 / 3 * float((left * mask[i]).sum())
        assert losses[i] == pytest.approx(total, rel=1e-4)


def test_plan_is_the_decoded_codes_and_their_offset():
    policy, observation, _ = fitted()
    log_prob, offsets = policy.codes_and_offsets(policy.head(observation))
    codes = log_prob.argmax(-1)
    for i in range(30):
        chunk = policy.quantizer.reconstruct(codes[i : i + 1])[0]
        chunk = chunk + sum(offsets[i, level, code] for level, code in enumerate(codes[i])).view(3, 6)
        expected = policy.to_box(chunk).view(3, 2, 3)
        torch.testing.assert_close(policy.plan(observation[i : i + 1])[0], expected)


def test_training_leaves_the_autoencoder_as_it_is():
    policy, observation, action = fitted()
    before = {name: one.clone() for name, one in policy.state_dict().items()}

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.policy = policy

        def forward(self, observation, action):
            return policy.mean_loss(observation, action), torch.zeros(0)

    Descent(Loss(), policy.parameters(), 1e-2).steps(observation[None], action[None])
    for name, one in policy.state_dict().items():
        assert torch.equal(one, before[name]) == (not name.startswith("network.")), name


def test_fit_depends_on_the_demonstrations_alone():
    (one, _, _), (other, _, _) = fitted(seed=0), fitted(seed=1)
    for name, value in one.quantizer.state_dict().items():
        assert torch.equal(value, other.quantizer.state_dict()[name]), name


def test_checkpoint_holds_the_autoencoder(tmp_path):
    policy, observation, _ = fitted()
    state = {f"policy.{name}": one for name, one in policy.state_dict().items()}
    torch.save({"policy": describe(policy), "state_dict": state}, tmp_path / "a.ckpt")
    loaded = load_policy(tmp_path / "a.ckpt")
    assert loaded.arguments == policy.arguments
    assert torch.equal(loaded.plan(observation), policy.eval().plan(observation))


def test_constant_actions_have_a_finite_loss():
    policy = make_head("vq-bet", horizon=3)
    observation, action = make_chunks(policy)
    action = action[:1, :1].expand_as(action).clone()
    policy.fit_normalizer(observation, action)
    loss = policy.mean_loss(observation, action)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())
