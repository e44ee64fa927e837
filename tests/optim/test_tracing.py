"""Traces give the gradients of eager steps, for every loss of the package."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import nn

from lit_imitation import (
    PPO,
    SAC,
    AIRLDiscriminator,
    CategoricalPolicy,
    CVAEPolicy,
    DeterministicPolicy,
    DiffusionPolicy,
    Discriminator,
    EnsemblePolicy,
    FlowPolicy,
    GaussianPolicy,
    MixturePolicy,
    MultiCategoricalPolicy,
    QuantizedPolicy,
    SequencePolicy,
    SquashedGaussianPolicy,
    VQBeTPolicy,
)
from lit_imitation.methods.bc import CloningLoss
from lit_imitation.optim import gradients
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import Traced, is_traceable
from lit_imitation.rewards.features import Samples
from lit_imitation.utils import interruption

pytestmark = pytest.mark.integration

OBSERVATION, ACTION = Box(-np.inf, np.inf, (3,), np.float32), Box(-1, 1, (2,), np.float32)
POLICIES = {
    "categorical": (CategoricalPolicy, Discrete(4), {}),
    "multi": (MultiCategoricalPolicy, MultiDiscrete([2, 3]), {}),
    "gaussian": (GaussianPolicy, ACTION, {}),
    "gaussian state": (GaussianPolicy, ACTION, {"std": "state"}),
    "squashed": (SquashedGaussianPolicy, ACTION, {}),
    "deterministic": (DeterministicPolicy, ACTION, {"regression": "huber"}),
    "ensemble": (EnsemblePolicy, ACTION, {"members": 3}),
    "mixture": (MixturePolicy, ACTION, {"components": 3, "censored": True}),
    "quantized": (QuantizedPolicy, ACTION, {"codes": 4, "levels": 2, "focal_gamma": 2.0}),
    "cvae": (CVAEPolicy, ACTION, {"reconstruction": "gaussian"}),
    "diffusion": (DiffusionPolicy, ACTION, {}),
    "flow": (FlowPolicy, ACTION, {}),
    "flow, convolutions": (FlowPolicy, ACTION, {"backbone": "unet"}),
    "flow, normalized layers": (FlowPolicy, ACTION, {"backbone": "transformer"}),
    "vq-bet": (VQBeTPolicy, ACTION, {"codes": 4, "latent_size": 3}),
}


def actions(space, *shape):
    if isinstance(space, Box):
        return torch.rand(*shape, 2) * 1.8 - 0.9
    high = torch.tensor(space.nvec if isinstance(space, MultiDiscrete) else [space.n])
    found = (torch.rand(*shape, len(high)) * high).long()
    return found if isinstance(space, MultiDiscrete) else found.squeeze(-1)


def assert_traced_is_eager(module, parameters, columns, monkeypatch):
    """A few steps, eager, and from the third on with traces of gradients alone and of whole steps."""
    monkeypatch.setattr(gradients, "TRACE_AFTER", 2)
    names = {name for name, one in module.named_parameters() if any(one is p for p in parameters)}
    copies = {kind: deepcopy(module) for kind in ("eager", "gradients", "steps")}
    found = {}
    for kind, one in copies.items():
        chosen = [parameter for name, parameter in one.named_parameters() if name in names]
        descent = Descent(one, chosen, 1e-2, traced=kind != "eager")
        if kind == "gradients":
            descent.block = None
        torch.manual_seed(1)
        found[kind] = (descent.steps(*columns), descent)
    rows, eager = found.pop("eager")
    for kind, (traced, descent) in found.items():
        loss, block = descent.loss_gradient, descent.block
        assert loss.traced is not None
        assert loss.traced._traces if block is None else block.loops and not loss.traced._traces, kind
        torch.testing.assert_close(traced, rows, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(descent.vector, eager.vector, rtol=1e-4, atol=1e-5)
        assert descent.adam_steps == eager.adam_steps == int(descent.optimizer.state[descent.vector]["step"])


@pytest.mark.grid
@pytest.mark.parametrize("entropy", [0.0, 0.1])
@pytest.mark.parametrize("name", POLICIES)
def test_cloning_loss(name, entropy, monkeypatch):
    cls, space, more = POLICIES[name]
    if entropy and (name in ("deterministic", "ensemble") or issubclass(cls, SequencePolicy)):
        pytest.skip("no entropy")
    torch.manual_seed(0)
    policy = cls(OBSERVATION, space, hidden_sizes=[8], **more)
    policy.fit_normalizer(3 * torch.randn(50, 3) + 1)
    loss = CloningLoss(policy, entropy, 0.01)
    assert is_traceable(loss)
    columns = torch.randn(6, 16, 3), actions(space, 6, 16), torch.rand(6, 16)
    assert_traced_is_eager(loss, list(policy.parameters()), columns, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_ppo_loss(kind, monkeypatch):
    _, space, _ = POLICIES[kind]
    torch.manual_seed(0)
    ppo = PPO(OBSERVATION, space, hidden_sizes=[8], entropy_coefficient=0.1, value_clip_range=0.2)
    columns = (torch.randn(6, 16, 3), actions(space, 6, 16), *torch.randn(4, 6, 16), torch.ones(6, 16))
    assert_traced_is_eager(ppo, [*ppo.policy.parameters(), *ppo.value.parameters()], columns, monkeypatch)


@pytest.mark.grid(every=2)
@pytest.mark.parametrize(
    ("cls", "more"),
    [
        (Discriminator, {}),
        (Discriminator, {"gradient_penalty": 1.0}),
        (Discriminator, {"spectral_norm": True}),  # which sets the norm after each step: no whole steps are traced
        (AIRLDiscriminator, {}),
    ],
)
def test_discriminator_loss(cls, more, monkeypatch):
    torch.manual_seed(0)
    model = cls(OBSERVATION, ACTION, hidden_sizes=[8], **more)
    rows = [torch.randn(6, 16, 3), actions(ACTION, 6, 16), torch.randn(6, 16, 3)]
    flags = [torch.zeros(6, 16, dtype=torch.bool) for _ in range(len(Samples._fields) - 3)]
    columns = [*rows, *flags, torch.randn(6, 16), torch.rand(6, 8)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert_traced_is_eager(model, parameters, columns, monkeypatch)


def test_sac_steps(monkeypatch):
    monkeypatch.setattr(gradients, "TRACE_AFTER", 2)
    found = []
    for traced in (False, True):
        torch.manual_seed(0)
        sac = SAC(OBSERVATION, ACTION, hidden_sizes=[8])
        sac.optimizers()
        if not traced:
            sac.critic_descent.loss_gradient.traced = sac.policy_descent.loss_gradient.traced = None
        torch.manual_seed(1)
        for _ in range(6):
            observation, following = torch.randn(2, 16, 3)
            end = torch.arange(16) % 3 == 0
            batch = (observation, actions(ACTION, 16), torch.randn(16), following, end)
            sac.critic_descent.step(*batch, torch.randn(16, 2))
            sac.policy_descent.step(observation, torch.randn(16, 2))
        found.append(torch.cat([sac.critic_descent.vector, sac.policy_descent.vector]).detach())
    assert sac.critic_descent.loss_gradient.traced._traces
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_trace_draws_dropout_anew():
    class Noisy(nn.Module):
        def forward(self, x):
            return torch.nn.functional.dropout(x, 0.5).sum()

    traced = Traced(lambda vector, constants, x: (Noisy()(vector * x), vector), lambda: True)
    one, x = torch.ones(100), torch.ones(100)
    torch.manual_seed(0)
    first = float(traced(one, {}, x)[0])
    assert len({float(traced(one, {}, x)[0]) for _ in range(5)}) > 1
    torch.manual_seed(0)
    assert float(traced(one, {}, x)[0]) == first  # tracing itself drew nothing from the stream


def test_shapes_and_modes_have_traces_of_their_own():
    mode = [True]
    traced = Traced(lambda vector, constants, x: (vector * (2.0 if mode[0] else 3.0) * len(x), x), lambda: mode[0])
    one = torch.ones(1)
    assert float(traced(one, {}, torch.ones(4))[0]) == 8.0
    assert float(traced(one, {}, torch.ones(5))[0]) == 10.0
    mode[0] = False
    assert float(traced(one, {}, torch.ones(5))[0]) == 15.0


def test_module_of_a_user_is_not_traced():
    class Mine(nn.Module):
        pass

    assert is_traceable(nn.Sequential(nn.Linear(1, 1)))
    assert not is_traceable(nn.Sequential(Mine()))


@pytest.mark.parametrize("space", [Discrete(5), MultiDiscrete([3, 4])], ids=str)
def test_one_hot_codes_are_traced(space, monkeypatch):
    torch.manual_seed(0)
    policy = CategoricalPolicy(space, Discrete(3), hidden_sizes=[8])
    columns = actions(space, 6, 16), torch.arange(96).view(6, 16) % 3
    assert_traced_is_eager(CloningLoss(policy, 0.0, 0.0), list(policy.parameters()), columns, monkeypatch)


@pytest.mark.parametrize(("cls", "more"), [(Discriminator, {"gradient_penalty": 1.0}), (AIRLDiscriminator, {})])
@pytest.mark.parametrize("space", [Discrete(4, start=2), MultiDiscrete([2, 3])], ids=str)
def test_discriminator_of_discrete_actions_is_traced(cls, more, space, monkeypatch):
    torch.manual_seed(0)
    model = cls(OBSERVATION, space, hidden_sizes=[8], **more)
    played = actions(space, 6, 16) + (2 if isinstance(space, Discrete) else 0)
    flags = torch.zeros(2, 6, 16, dtype=torch.bool)
    columns = [torch.randn(6, 16, 3), played, torch.randn(6, 16, 3), *flags, torch.randn(6, 16), torch.rand(6, 8)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert_traced_is_eager(model, parameters, columns, monkeypatch)


def test_loss_that_cannot_be_traced_stays_eager(monkeypatch):
    monkeypatch.setattr(gradients, "TRACE_AFTER", 1)

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            value = self.layer(x).square().mean()
            return (value if value < 1e3 else value.sqrt()), value.new_zeros(0)

    found = []
    for traced in (False, True):
        torch.manual_seed(0)
        loss = Branching()
        descent = Descent(loss, loss.parameters(), 1e-2, traced=traced)
        for _ in range(4):
            descent.step(torch.ones(8, 3))
        found.append(descent.vector.detach())
    assert descent.loss_gradient.traced is None
    assert torch.equal(*found)


def test_image_encoder_is_traced(monkeypatch):
    space = Box(0, 255, (36, 36, 3), np.uint8)
    torch.manual_seed(0)
    policy = CategoricalPolicy(space, Discrete(3), hidden_sizes=[8])
    columns = torch.randint(0, 256, (5, 8, 36, 36, 3), dtype=torch.uint8), torch.arange(40).view(5, 8) % 3
    assert_traced_is_eager(CloningLoss(policy, 0.0, 0.0), list(policy.parameters()), columns, monkeypatch)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_traced_steps_are_those_of_torch(decay, monkeypatch):
    """Rates of a schedule, clipping and decay; a block that begins before the first trace; and Adam's moments."""
    monkeypatch.setattr(gradients, "TRACE_AFTER", 3)
    settings = Optimization(weight_decay=decay, max_grad_norm=0.05)
    torch.manual_seed(0)
    x, y = torch.randn(90, 16, 3), torch.randint(0, 4, (90, 16))
    found = []
    for traced in (False, True):
        torch.manual_seed(0)
        policy = CategoricalPolicy(OBSERVATION, Discrete(4), hidden_sizes=[8])
        loss = CloningLoss(policy, 0.0, 0.0)
        descent = Descent(loss, policy.parameters(), 1e-2, eps=1e-3, optimization=settings, traced=traced)
        rates = [1e-2 / (i + 1) for i in range(90)]
        rows = torch.cat([descent.steps(x[:5], y[:5], rates=rates[:5]), descent.steps(x[5:], y[5:], rates=rates[5:])])
        found.append((rows, descent.vector.detach(), descent.moments(next(policy.parameters()))))
        assert descent.optimizer.param_groups[0]["lr"] == rates[-1]
    assert len(descent.block.loops) == 1
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)
    assert float(found[0][0][:, -1].max()) > 0.05  # something was clipped


def test_a_stop_request_is_heard_between_traced_steps(monkeypatch):
    monkeypatch.setattr(gradients, "TRACE_AFTER", 1)
    policy = CategoricalPolicy(OBSERVATION, Discrete(4), hidden_sizes=[8])
    descent = Descent(CloningLoss(policy, 0.0, 0.0), policy.parameters(), 1e-2, traced=True)
    x, y = torch.randn(200, 16, 3), torch.randint(0, 4, (200, 16))
    asked = []

    def stop(agreed):
        asked.append(agreed)
        if len(asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(interruption, "raise_if_stopped", stop)
    with pytest.raises(KeyboardInterrupt):
        descent.steps(x, y)
    taken = int(descent.optimizer.state[descent.vector]["step"])
    assert 0 < taken < 200
