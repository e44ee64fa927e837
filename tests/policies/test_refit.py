"""Refitting the input standardization without changing the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from lit_imitation.methods.bc import CloningLoss
from lit_imitation.optim.descent import Descent
from lit_imitation.policies import CategoricalPolicy, DeterministicPolicy, EnsemblePolicy, GaussianPolicy
from lit_imitation.utils.spaces import PackedBox

SPACE, ARM, BUTTONS = Box(-np.inf, np.inf, (4,), np.float32), Box(-2.0, 2.0, (2,), np.float32), Discrete(3)
POLICIES = {
    "categorical": (CategoricalPolicy, BUTTONS, {}),
    "gaussian": (GaussianPolicy, ARM, {"std": "state"}),
    "deterministic": (DeterministicPolicy, ARM, {"activation": "tanh"}),
    "linear": (DeterministicPolicy, ARM, {"hidden_sizes": []}),
    "ensemble": (EnsemblePolicy, BUTTONS, {"members": 3}),
    "ensemble-continuous": (EnsemblePolicy, ARM, {"members": 2}),
}
SCALE = torch.tensor([1.0, 0.5, 5.0, 1.0])


@pytest.fixture(params=sorted(POLICIES))
def policy(request):
    torch.manual_seed(0)
    cls, actions, more = POLICIES[request.param]
    policy = cls(SPACE, actions, **{"hidden_sizes": [16, 16], **more})
    policy.fit_normalizer(3.0 + SCALE * torch.randn(200, 4))
    return policy


def new_statistics():
    return 5.0 + 2.0 * SCALE * torch.randn(300, 4)


def test_refit_does_not_change_the_function(policy):
    x, seen = 4.0 + SCALE * torch.randn(100, 4), new_statistics()
    before, standardized = policy.head(x).detach(), policy.encoder(x)
    policy.refit_normalizer(seen)
    torch.testing.assert_close(policy.head(x).detach(), before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(policy.encoder(x), standardized, atol=0.1)
    fitted = policy.encoder(seen)
    torch.testing.assert_close(fitted.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted.std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_refit_converts_adam_moments(policy):
    """At learning rate 0 both gradients are at the same point, so autograd gives them before and after."""
    x, action = 4.0 + SCALE * torch.randn(50, 4), torch.randint(3, (50,))
    if isinstance(policy.action_space, Box):
        action = torch.rand(50, 2) - 0.5
    descent = Descent(CloningLoss(policy, 0.0, 0.0), policy.parameters(), 0.0)
    descent.step(x, action)
    weight, bias = policy.network.first_layer
    shift = (
        (new_statistics().mean(0) - policy.encoder.standardize.mean) * policy.encoder.standardize.inverse_std
    ).abs()
    assert float(shift.min()) > 0.1
    policy.refit_normalizer(new_statistics(), descent.moments)
    first, second = (moment.clone() for moment in descent.moments(weight))
    of_bias = descent.moments(bias)[0].clone()
    policy.zero_grad()
    policy.mean_loss(x, action).backward()
    torch.testing.assert_close(first, 0.1 * weight.grad, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(of_bias, 0.1 * bias.grad, rtol=1e-3, atol=1e-6)
    assert (second >= (0.001 * weight.grad.square()) * 0.999).all()
    assert float(second.sqrt().mean()) < 10 * float((0.001**0.5) * weight.grad.abs().mean())


def test_refit_without_standardization_does_nothing():
    policy = CategoricalPolicy(Discrete(5), BUTTONS, hidden_sizes=[8])
    before = [parameter.clone() for parameter in policy.parameters()]
    policy.refit_normalizer(torch.arange(5))
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_refit_with_images_among_the_observations_does_not_change_the_function():
    """Standardized numbers feed the policy's first layer here, and the MLP of a part there."""
    space = PackedBox(
        Dict([("camera", Box(0, 255, (30, 30), np.uint8)), ("arm", SPACE), ("kind", BUTTONS), ("goal", SPACE)])
    )
    torch.manual_seed(0)
    policy = GaussianPolicy(space, ARM, hidden_sizes=[16], encoder={"goal": {"kind": "mlp", "features": 8}})
    rng = np.random.default_rng(0)

    def observe(count, mean):
        arm, goal = (rng.normal(mean, (1.0, 0.5, 5.0, 1.0), (count, 4)) for _ in range(2))
        camera = rng.integers(0, 256, (count, 30, 30)).astype(np.uint8)
        seen = {"camera": camera, "arm": arm, "kind": rng.integers(0, 3, count), "goal": goal}
        return torch.from_numpy(space.flatten(seen))

    policy.fit_normalizer(observe(200, 3.0))
    x, before = observe(50, 4.0), [one.standardize.mean.clone() for one in policy.encoder.inputs]
    wanted = policy.head(x).detach()
    policy.refit_normalizer(observe(300, 5.0))
    torch.testing.assert_close(policy.head(x).detach(), wanted, rtol=1e-4, atol=1e-4)
    for old, one in zip(before, policy.encoder.inputs, strict=True):
        assert not torch.allclose(old, one.standardize.mean, atol=1.0)
