"""PPO's loss against formulas and finite differences, and what a round does to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.distributions import Categorical, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from lit_imitation import PPO, CategoricalPolicy, DeterministicPolicy, GaussianPolicy
from lit_imitation.errors import ConfigError
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions

OBSERVATION = Box(-np.inf, np.inf, (3,))
ACTIONS = {"discrete": Discrete(4, start=2), "continuous": Box(np.float32([-1, -2]), np.float32([1, 6]))}


def batch(policy, n=12, seed=0):
    """Columns as `PPO.forward` reads them, with ratios on both sides of the clip."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        head = policy.head(observation)
        action = policy.sample(head)
        log_prob = policy.head_log_prob(head, action) + 0.4 * torch.randn(n, generator=generator)
    advantage, target, value = torch.randn(3, n, generator=generator, dtype=torch.float64)
    weight = (torch.rand(n, generator=generator) < 0.8).double()
    return observation, action, log_prob.double(), advantage, target, value, weight


def ppo(kind, policy=None, **settings):
    torch.manual_seed(0)
    return PPO(OBSERVATION, ACTIONS[kind], policy, hidden_sizes=[8], **settings).double()


def reference(generator, columns, clip, value_clip, c_entropy, c_value):
    """The formulas of the class's docstring, in NumPy."""
    log_prob, advantage, target, old_value, weight = (c.numpy() for c in columns[2:])
    with torch.no_grad():
        head, value = generator.policy.head(columns[0]), generator.value(columns[0]).numpy()
        if isinstance(generator.policy, CategoricalPolicy):
            distribution = Categorical(logits=head)
            new, entropy = distribution.log_prob(columns[1] - 2).numpy(), distribution.entropy().numpy()
        else:
            distribution = Normal(head * torch.tensor([1.0, 4.0]) + torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0]))
            new, entropy = distribution.log_prob(columns[1]).sum(-1).numpy(), distribution.entropy().sum(-1).numpy()
    ratio = np.exp(new - log_prob)
    objective = np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)
    error = (value - target) ** 2
    if value_clip is not None:
        error = np.maximum(error, (old_value + np.clip(value - old_value, -value_clip, value_clip) - target) ** 2)
    mean = lambda x: (x * weight).sum() / weight.sum()  # noqa: E731
    return -mean(objective) - c_entropy * mean(entropy) + c_value * mean(error)


@pytest.mark.parametrize("value_clip", [None, 0.3])
@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_the_loss_is_the_formula_and_its_gradient_the_difference_quotient(kind, value_clip):
    generator = ppo(
        kind, value_clip_range=value_clip, entropy_coefficient=0.3, value_coefficient=0.7, max_grad_norm=1e9
    )
    generator.policy.network.orthogonal(0.7)
    generator.optimizers()
    columns = batch(generator.policy)
    loss, _ = generator(*columns)
    assert float(loss.detach()) == pytest.approx(reference(generator, columns, 0.2, value_clip, 0.3, 0.7), rel=1e-5)
    gradient, _ = generator.descent.gradient(*columns)
    rng = np.random.default_rng(0)
    for i in rng.choice(len(gradient), 25, replace=False):
        values = []
        for sign in (1, -1):
            generator.descent.vector.data[i] += sign * 1e-4
            values.append(float(generator(*columns)[0].detach()))
            generator.descent.vector.data[i] -= sign * 1e-4
        # The encoder's float32 leaves some noise.
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(float(gradient[i]), abs=2e-3)


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_steps_that_are_none_count_for_nothing(kind):
    generator = ppo(kind)
    generator.optimizers()
    columns = batch(generator.policy)
    other = [column.clone() for column in columns]
    dead = columns[-1] == 0
    assert 0 < dead.sum() < len(dead)
    for column in (*other[:1], *other[2:6]):
        column[dead] = 3.0
    for mine, theirs in zip(generator.descent.gradient(*columns), generator.descent.gradient(*other), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_divergence_from_the_start():
    torch.manual_seed(0)
    a, b = (GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8]) for _ in range(2))
    b.log_std.data.fill_(-0.7)
    x = torch.randn(20, 3)
    heads = a.head(x), b.head(x)
    normals = [Normal(head, policy.log_std.exp()) for head, policy in zip(heads, (a, b), strict=True)]
    torch.testing.assert_close(a.head_kl(heads[0], b, heads[1]), kl_divergence(*normals).sum(-1))
    c, d = (CategoricalPolicy(OBSERVATION, ACTIONS["discrete"], hidden_sizes=[8]) for _ in range(2))
    heads = c.head(x), d.head(x)
    torch.testing.assert_close(c.head_kl(heads[0], d, heads[1]), kl_divergence(*(Categorical(logits=h) for h in heads)))


@pytest.mark.parametrize("std", ["free", "state"])
def test_densities_of_the_gaussian_add_up_to_one(std):
    """In the environment's own units, which a density over scaled actions would miss by the scale."""
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], std=std, hidden_sizes=[8])
    observation = torch.randn(1, 3)
    head = policy.head(observation)
    x, y = torch.linspace(-8, 8, 400), torch.linspace(-30, 34, 400)
    grid = torch.cartesian_prod(x, y)
    density = policy.head_log_prob(head.expand(len(grid), -1), grid).exp().sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert float(density.detach()) == pytest.approx(1.0, abs=2e-3)
    draws = policy.sample(head.expand(4000, -1))
    torch.testing.assert_close(
        -policy.head_log_prob(head, draws).mean(), policy.head_entropy(head)[0], rtol=0.05, atol=0
    )


def round_of(generator, kind, steps=32, envs=4, seed=0):
    torch.manual_seed(seed)
    observation = 5.0 + 3.0 * torch.randn(steps, envs, 3)
    with torch.no_grad():
        action = generator.policy.sample(generator.policy.head(observation.flatten(0, 1)))
    flags = torch.rand(2, steps, envs) < 0.05
    rollout = Transitions(
        observation=observation,
        action=action.view(steps, envs, *action.shape[1:]),
        reward=torch.randn(steps, envs),
        terminated=flags[0],
        truncated=flags[1],
        next_observation=5.0 + 3.0 * torch.randn(steps, envs, 3),
        batch_size=[steps, envs],
    )
    return Round(rollout, torch.rand(steps, envs) < 0.9, [])


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_the_ratio_is_one_where_a_rounds_descent_begins(kind):
    torch.manual_seed(0)
    generator = PPO(OBSERVATION, ACTIONS[kind], hidden_sizes=[8], epochs=2, batch_size=32)
    generator.optimizers()
    seen = []
    step = generator.descent.step
    generator.descent.step = lambda *args, **kwargs: seen.append(generator(*args)[1][3:5]) or step(*args, **kwargs)
    for number in range(3):
        seen.clear()
        generator.update(round_of(generator, kind, seed=number), 0.0)
        torch.testing.assert_close(seen[0].detach(), torch.zeros(2), atol=1e-5, rtol=0)
        assert len(seen) == 2 * 4
        assert float(seen[-1][0]) > 1e-7


def test_advantages_are_standardised_over_the_steps_that_count():
    generator = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    one = round_of(generator, "continuous")
    columns, _ = generator.prepare(one)
    advantage = columns[3][one.valid.flatten()]
    assert float(advantage.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(advantage.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_observations_are_standardised_by_what_was_seen():
    generator = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=1)
    generator.optimizers()
    seen = []
    for number in range(3):
        one = round_of(generator, "continuous", seed=number)
        seen.append(one.rollout.observation[one.valid])
        generator.update(one, 0.0)
    x = torch.cat(seen).double()
    for encoder in (generator.policy.encoder, generator.value.encoder):
        torch.testing.assert_close(encoder.standardise.mean, x.mean(0).float())
        torch.testing.assert_close(encoder.standardise.inverse_std, (1 / x.std(0, correction=0)).float())


def test_warm_up_moves_the_value_alone_and_a_given_policy_keeps_its_standardisation():
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    policy.fit_normaliser(7.0 + torch.randn(100, 3))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    generator = PPO(OBSERVATION, ACTIONS["continuous"], policy, warmup_rounds=2, epochs=2, kl_coefficient=0.5)
    generator.optimizers()
    value = generator.value(torch.ones(1, 3)).detach()
    for number in range(2):
        generator.update(round_of(generator, "continuous", seed=number), 0.0)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert not torch.equal(generator.value(torch.ones(1, 3)), value)
    generator.update(round_of(generator, "continuous", seed=2), 0.0)
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert "log_std" in changed
    assert not any("standardise" in name for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in generator.start.state_dict().items())


def test_the_learning_rate_falls_and_epochs_end_at_the_target_divergence():
    generator = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=20, batch_size=32, target_kl=1e-6)
    (optimizer,) = generator.optimizers()
    generator.update(round_of(generator, "continuous"), 0.75)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * 3e-4)
    assert generator.gradient_steps < 20 * 4


class Reads(TorchDispatchMode):
    """Counts what takes a number from the device to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero)
        return func(*args, **(kwargs or {}))


def test_an_update_never_waits_for_a_number(monkeypatch):
    generator = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=2)
    generator.optimizers()
    one = round_of(generator, "continuous")
    for name in ("numpy", "cpu", "tolist", "item"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, **kwargs: pytest.fail("a tensor goes to the host"))
    with Reads() as reads:
        generator.update(one, 0.0)
    assert reads.count == 0


def test_what_cannot_work_is_said():
    with pytest.raises(ConfigError, match="distribution"):
        PPO(OBSERVATION, ACTIONS["continuous"], DeterministicPolicy(OBSERVATION, ACTIONS["continuous"]))
    with pytest.raises(ConfigError, match=r"generator.gamma is 1.5"):
        PPO(OBSERVATION, ACTIONS["continuous"], gamma=1.5)
    with pytest.raises(ConfigError, match=r"generator.epochs is 0"):
        PPO(OBSERVATION, ACTIONS["continuous"], epochs=0)
    with pytest.raises(ConfigError, match="std: free"):
        PPO(OBSERVATION, ACTIONS["discrete"], initial_std=0.3)


def test_initial_spread():
    generator = PPO(OBSERVATION, ACTIONS["continuous"], initial_std=0.3)
    assert float(generator.policy.log_std.exp()[0]) == pytest.approx(0.3)
    assert math.isclose(float(generator.policy.head(torch.randn(50, 3)).abs().max()), 0.0, abs_tol=0.1)
