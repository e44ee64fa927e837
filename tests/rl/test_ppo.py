"""PPO: its loss against formulas and finite differences, and the effects of a round."""

from __future__ import annotations

import math
from copy import deepcopy

import multi_discrete
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch.distributions import Categorical, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from lit_imitation import PPO, CategoricalPolicy, DeterministicPolicy, GaussianPolicy, MultiCategoricalPolicy
from lit_imitation.envs import make
from lit_imitation.errors import ConfigError
from lit_imitation.optim.optimization import Optimization
from lit_imitation.rollout import Round, collect, rounds
from lit_imitation.transitions import Transitions

OBSERVATION = Box(-np.inf, np.inf, (3,))
ACTIONS = {"discrete": Discrete(4, start=2), "continuous": Box(np.float32([-1, -2]), np.float32([1, 6]))}
EVERY = ACTIONS | {"several": MultiDiscrete([2, 3], start=[1, -1])}


def batch(policy, n=12, seed=0):
    """Arguments of `PPO.forward`, with ratios on both sides of the clip range."""
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
    return PPO(OBSERVATION, EVERY[kind], policy, hidden_sizes=[8], **settings).double()


def reference(learner, columns, clip, value_clip, c_entropy, c_value):
    """The formulas of the class's docstring, in NumPy."""
    log_prob, advantage, target, old_value, weight = (c.numpy() for c in columns[2:])
    with torch.no_grad():
        head, value = learner.policy.head(columns[0]), learner.value(columns[0]).numpy()
        if isinstance(learner.policy, CategoricalPolicy):
            distribution = Categorical(logits=head)
            new, entropy = distribution.log_prob(columns[1] - 2).numpy(), distribution.entropy().numpy()
        elif isinstance(learner.policy, MultiCategoricalPolicy):
            parts = [Categorical(logits=logits) for logits in (head[:, :2], head[:, 2:])]
            index = columns[1] - torch.tensor([1, -1])
            new = sum(part.log_prob(index[:, i]) for i, part in enumerate(parts)).numpy()
            entropy = sum(part.entropy() for part in parts).numpy()
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
@pytest.mark.parametrize("kind", sorted(EVERY))
def test_loss_matches_formula_and_finite_differences(kind, value_clip):
    learner = ppo(
        kind, value_clip_range=value_clip, entropy_coefficient=0.3, value_coefficient=0.7, optimization=Optimization()
    )
    learner.policy.network.init_orthogonal(0.7)
    learner.optimizers()
    columns = batch(learner.policy)
    loss, _ = learner(*columns)
    assert float(loss.detach()) == pytest.approx(reference(learner, columns, 0.2, value_clip, 0.3, 0.7), rel=1e-5)
    gradient, _ = learner.descent.gradient(*columns)
    rng = np.random.default_rng(0)
    for i in rng.choice(len(gradient), 25, replace=False):
        values = []
        for sign in (1, -1):
            learner.descent.vector.data[i] += sign * 1e-4
            values.append(float(learner(*columns)[0].detach()))
            learner.descent.vector.data[i] -= sign * 1e-4
        # The encoder's float32 leaves some noise.
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(float(gradient[i]), abs=2e-3)


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_rows_of_zero_weight_leave_gradient_unchanged(kind):
    learner = ppo(kind)
    learner.optimizers()
    columns = batch(learner.policy)
    other = [column.clone() for column in columns]
    dead = columns[-1] == 0
    assert 0 < dead.sum() < len(dead)
    for column in (*other[:1], *other[2:6]):
        column[dead] = 3.0
    for mine, theirs in zip(learner.descent.gradient(*columns), learner.descent.gradient(*other), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_divergence_matches_torch_distributions():
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
def test_gaussian_density_integrates_to_one(std):
    """The density is per unit of the environment's actions; a density over scaled actions would be off by the scale."""
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


def round_of(learner, kind, steps=32, envs=4, seed=0):
    torch.manual_seed(seed)
    observation = 5.0 + 3.0 * torch.randn(steps, envs, 3)
    with torch.no_grad():
        action = learner.policy.sample(learner.policy.head(observation.flatten(0, 1)))
    flags = torch.rand(2, steps, envs) < 0.1
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


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_ratio_is_one_at_first_step_of_a_round(kind):
    torch.manual_seed(0)
    learner = PPO(OBSERVATION, EVERY[kind], hidden_sizes=[8], epochs=2, batch_size=32)
    learner.optimizers()
    seen = []
    steps = learner.descent.steps

    def record_and_step(*columns, **kwargs):
        seen.extend(learner(*minibatch)[1][3:5] for minibatch in zip(*columns, strict=True))
        return steps(*columns, **kwargs)

    learner.descent.steps = record_and_step
    for number in range(3):
        seen.clear()
        learner.update(round_of(learner, kind, seed=number), 0.0)
        torch.testing.assert_close(seen[0].detach(), torch.zeros(2), atol=1e-5, rtol=0)
        assert len(seen) == 2 * 4
        assert float(seen[-1][0]) > 1e-7


def test_advantages_are_standardized_over_valid_steps():
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    one = round_of(learner, "continuous")
    columns, _ = learner.prepare(one)
    advantage = columns[3][one.valid.flatten()]
    assert float(advantage.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(advantage.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_observations_are_standardized_by_running_statistics():
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=1)
    learner.optimizers()
    seen = []
    for number in range(3):
        one = round_of(learner, "continuous", seed=number)
        seen.append(one.rollout.observation[one.valid])
        learner.update(one, 0.0)
    x = torch.cat(seen).double()
    for encoder in (learner.policy.encoder, learner.value.encoder):
        torch.testing.assert_close(encoder.standardize.mean, x.mean(0).float())
        torch.testing.assert_close(encoder.standardize.inverse_std, (1 / x.std(0, correction=0)).float())


def test_warm_up_trains_only_the_value_function():
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    policy.fit_normalizer(7.0 + torch.randn(100, 3))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    learner = PPO(OBSERVATION, ACTIONS["continuous"], policy, warmup_rounds=2, epochs=2, kl_coefficient=0.5)
    learner.optimizers()
    learned = sum(p.numel() for part in (policy, learner.value) for p in part.parameters())
    assert learner.descent.vector.numel() == learned  # without the starting policy
    value = learner.value(torch.ones(1, 3)).detach()
    for number in range(2):
        learner.update(round_of(learner, "continuous", seed=number), 0.0)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert not torch.equal(learner.value(torch.ones(1, 3)), value)
    learner.update(round_of(learner, "continuous", seed=2), 0.0)
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert "log_std" in changed
    assert not any("standardize" in name for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in learner.start.state_dict().items())


def test_learning_rate_anneals_and_target_kl_ends_epochs():
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=20, batch_size=32, target_kl=1e-6)
    (optimizer,) = learner.optimizers()
    learner.update(round_of(learner, "continuous"), 0.75)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * 3e-4)
    assert learner.gradient_steps < 20 * 4


def test_warmup_raises_rate_within_a_round():
    """Step i of the training has (i + 1) / (warmup_steps + 1) of the rate."""
    warm = Optimization(warmup_steps=99)
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=2, batch_size=32, optimization=warm)
    (optimizer,) = learner.optimizers()
    for _ in range(2):
        learner.update(round_of(learner, "continuous"), 0.0)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learner.gradient_steps / 100 * 3e-4)


def weights_after(one, kind, **settings):
    """State and metrics of a learner after two updates."""
    torch.manual_seed(0)
    learner = PPO(OBSERVATION, EVERY[kind], hidden_sizes=[8], epochs=2, **settings)
    learner.optimizers()
    logged = [learner.update(one, 0.0) for _ in range(2)]
    return learner.state_dict() | {f"logged {name} {i}": value for i in (0, 1) for name, value in logged[i].items()}


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_content_of_invalid_rows_has_no_effect(kind):
    """Invalid rows as in `NEXT_STEP` environments: one after each end, without an end of its own and without reward."""
    torch.manual_seed(0)
    one = round_of(PPO(OBSERVATION, EVERY[kind], hidden_sizes=[8]), kind)
    rollout, valid = one.rollout, torch.ones(32, 4, dtype=torch.bool)
    for t in range(1, 32):
        valid[t] = ~(rollout.done[t - 1] & valid[t - 1])
    for flags in (rollout.terminated, rollout.truncated):
        flags &= valid
    rollout.reward *= valid
    assert 5 < int((~valid).sum()) < 40
    expected = weights_after(one._replace(valid=valid), kind)
    other = round_of(PPO(OBSERVATION, EVERY[kind], hidden_sizes=[8]), kind, seed=9).rollout
    changed = rollout.clone()
    for name in ("observation", "next_observation", "action", "reward"):
        getattr(changed, name)[~valid] = (3 * getattr(other, name) if name != "action" else other.action)[~valid]
    for name, value in weights_after(one._replace(rollout=changed, valid=valid), kind).items():
        # Rounding in matrix products depends on all rows of a batch.
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)
    valid[3] = False  # shows that the comparison above can fail
    assert not torch.equal(
        weights_after(one._replace(valid=valid), kind)["value.network.layers.0.weight"],
        expected["value.network.layers.0.weight"],
    )


def test_explained_variance_ignores_invalid_rows():
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    one = round_of(learner, "continuous")
    (_, _, _, _, target, value, _), logged = learner.prepare(one)
    target, value = (x[one.valid.flatten()] for x in (target, value))
    assert float(logged["explained_variance"]) == pytest.approx(float(1 - (target - value).var() / target.var()))


def test_dropout_stays_off_in_train_mode():
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], dropout=0.5)
    learner = PPO(OBSERVATION, ACTIONS["continuous"], policy, kl_coefficient=0.1).train()
    x = torch.randn(20, 3)
    for one in (learner.policy, learner.start):
        assert torch.equal(one.head(x), one.head(x))


def test_only_trained_policy_keeps_its_normalizer():
    def normalizer_moves(policy, **settings):
        learner = PPO(OBSERVATION, ACTIONS["continuous"], policy, epochs=1, **settings)
        learner.optimizers()
        mean = policy.encoder.standardize.mean.clone()
        learner.update(round_of(learner, "continuous"), 0.0)
        assert torch.equal(policy.encoder.standardize.mean, learner.value.encoder.standardize.mean)
        return not torch.equal(policy.encoder.standardize.mean, mean)

    def fresh():
        return GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])

    assert normalizer_moves(fresh())  # for example of a user's class
    assert not normalizer_moves(fresh(), normalize_observations=False)
    fitted = fresh()
    fitted.fit_normalizer(7.0 + torch.randn(100, 3))
    assert not normalizer_moves(fitted)
    loaded = fresh()
    loaded.trained = True  # trained on raw observations
    assert not normalizer_moves(loaded)


def test_resumed_learner_continues_its_statistics():
    one, two = (PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=1) for _ in range(2))
    one.optimizers()
    one.update(round_of(one, "continuous"), 0.0)
    two.load_state_dict(one.state_dict())
    (mine,), (theirs,) = two.optimizers(), [one.descent.optimizer]
    mine.load_state_dict(deepcopy(theirs.state_dict()))
    two.rounds = one.rounds
    for learner in (one, two):
        learner.begin()
        again = round_of(learner, "continuous", seed=5)
        torch.manual_seed(1)
        learner.update(again, 0.5)
    for name, value in two.state_dict().items():
        assert torch.equal(value, one.state_dict()[name]), name


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("kind", sorted(EVERY))
def test_compiled_gradient_equals_eager_gradient(kind):
    torch.manual_seed(0)
    start = type(PPO(OBSERVATION, EVERY[kind]).policy)(OBSERVATION, EVERY[kind], hidden_sizes=[8])
    settings = {"value_clip_range": 0.3, "entropy_coefficient": 0.1, "kl_coefficient": 0.2}
    learner = PPO(OBSERVATION, EVERY[kind], start, hidden_sizes=[8], **settings, compile=True)
    learner.optimizers()
    columns = [c.float() if c.dtype == torch.float64 else c for c in batch(learner.policy.double(), 64)]
    learner.float()
    compiled = learner.descent.gradient(*columns)
    learner.descent.loss_gradient.compiled = None
    for mine, eager in zip(compiled, learner.descent.gradient(*columns), strict=True):
        torch.testing.assert_close(mine, eager, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_multi_discrete_actions_are_learned():
    envs = make("MatchTargets-v0", 8, 0, "sync")
    torch.manual_seed(0)
    settings = {"gamma": 0.0, "learning_rate": 3e-3, "batch_size": 128}
    learner = PPO(envs.single_observation_space, envs.single_action_space, hidden_sizes=[32], **settings)
    learner.optimizers()
    explorer = learner.policy.explorer()
    for one in rounds(envs, explorer, explorer.drawn, 64, 8, seed=0):
        learner.update(one, 0.0)
    record = collect(envs, learner.policy.actor(), 16, seed=1)
    envs.close()
    chance = np.mean([1 / n for n in multi_discrete.CHOICES])
    assert chance < 0.4
    assert float(record.reward.mean()) > 0.95


class HostReads(TorchDispatchMode):
    """Counts operations that copy a value from the device to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func.overloadpacket in (
            aten._local_scalar_dense,
            aten.is_nonzero,
            aten.nonzero,
            aten.masked_select,
        )
        # Selecting rows by a mask counts them first, and the host waits for the count.
        picked = args[1] if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) else []
        self.count += any(index is not None and index.dtype == torch.bool for index in picked)
        return func(*args, **(kwargs or {}))


def test_update_copies_nothing_to_the_host(monkeypatch):
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], epochs=2)
    learner.optimizers()
    one = round_of(learner, "continuous")
    for name in ("numpy", "cpu", "tolist", "item"):
        monkeypatch.setattr(torch.Tensor, name, lambda *args, **kwargs: pytest.fail("a tensor goes to the host"))
    with HostReads() as host_reads:
        learner.update(one, 0.0)
    assert host_reads.count == 0


def test_invalid_arguments_are_refused():
    with pytest.raises(ConfigError, match="distribution"):
        PPO(OBSERVATION, ACTIONS["continuous"], DeterministicPolicy(OBSERVATION, ACTIONS["continuous"]))
    with pytest.raises(ConfigError, match=r"learner.gamma is 1.5"):
        PPO(OBSERVATION, ACTIONS["continuous"], gamma=1.5)
    with pytest.raises(ConfigError, match=r"learner.epochs is 0"):
        PPO(OBSERVATION, ACTIONS["continuous"], epochs=0)
    with pytest.raises(ConfigError, match=r"learner.initial_std is 0.0"):
        PPO(OBSERVATION, ACTIONS["continuous"], initial_std=0.0)
    with pytest.raises(ConfigError, match="std: free"):
        PPO(OBSERVATION, ACTIONS["discrete"], initial_std=0.3)


def test_initial_std_sets_free_sigma():
    learner = PPO(OBSERVATION, ACTIONS["continuous"], initial_std=0.3)
    assert float(learner.policy.log_std.exp()[0]) == pytest.approx(0.3)
    assert math.isclose(float(learner.policy.head(torch.randn(50, 3)).abs().max()), 0.0, abs_tol=0.1)


def gae_by_loop(reward, value, next_value, terminated, done, gamma, lam):
    """Generalized advantages by a backward loop over steps and environments."""
    advantage = np.zeros_like(reward)
    for env in range(reward.shape[1]):
        following = 0.0
        for t in reversed(range(len(reward))):
            future = 0.0 if terminated[t, env] else gamma * next_value[t, env]
            delta = reward[t, env] + future - value[t, env]
            following = delta + (0.0 if done[t, env] else gamma * lam * following)
            advantage[t, env] = following
    return advantage


def test_prepare_matches_advantages_of_a_plain_loop():
    """Terminations differ from truncations, V(s') from V(s), and targets from advantages; rewards are unscaled."""
    settings = {"gamma": 0.9, "gae_lambda": 0.8, "normalize_rewards": False}
    learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], **settings)
    learner.value.network.init_orthogonal(3.0)
    one = round_of(learner, "continuous")
    rollout, valid = one.rollout, one.valid.flatten().numpy()
    assert int((rollout.terminated & ~rollout.truncated & one.valid).sum()) > 3
    assert int((rollout.truncated & ~rollout.terminated & one.valid).sum()) > 3
    with torch.no_grad():
        value, following = (learner.value(x.flatten(0, 1)).view(32, 4).double().numpy()
                            for x in (rollout.observation, rollout.next_observation))  # fmt: skip
        head = learner.policy.head(rollout.observation.flatten(0, 1))
        log_prob = learner.policy.head_log_prob(head, rollout.action.flatten(0, 1))
    assert np.abs(value - following).mean() > 0.3
    reward = rollout.reward.double().numpy()
    advantage = gae_by_loop(reward, value, following, rollout.terminated.numpy(), rollout.done.numpy(), 0.9, 0.8)
    (observation, action, found_log_prob, standardized, target, old_value, weight), _ = learner.prepare(one)
    np.testing.assert_allclose(target, (advantage + value).flatten(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(old_value, value.flatten(), rtol=1e-5, atol=1e-5)
    kept = advantage.flatten()[valid]
    np.testing.assert_allclose(standardized, (advantage.flatten() - kept.mean()) / kept.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(weight.bool(), valid)
    torch.testing.assert_close(found_log_prob, log_prob)
    assert torch.equal(observation, rollout.observation.flatten(0, 1))
    assert torch.equal(action, rollout.action.flatten(0, 1))


def test_rewards_are_scaled_only_with_normalize_rewards():
    one = round_of(PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8]), "continuous")
    one.rollout.reward *= 50.0
    spread = {}
    for scaled in (True, False):
        torch.manual_seed(0)
        learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8], normalize_rewards=scaled)
        spread[scaled] = float(learner.prepare(one)[0][4].std())
    assert spread[True] < 10 < 50 < spread[False]


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_log_probs_are_those_of_the_policy_that_acted(kind):
    """Holds in the first round too, before observation statistics exist."""
    torch.manual_seed(0)
    learner = PPO(OBSERVATION, EVERY[kind], hidden_sizes=[8], epochs=1, batch_size=128)
    learner.policy.network.init_orthogonal(1.0)
    learner.optimizers()
    columns = []
    prepare, steps = learner.prepare, learner.descent.steps
    learner.prepare = lambda one: columns.append(prepare(one)) or columns[-1]
    ratios = []

    def record_and_step(*columns, **kwargs):
        observation, action, log_prob = (column[0] for column in columns[:3])
        head = learner.policy.head(observation)
        ratios.append((learner.policy.head_log_prob(head, action) - log_prob).exp().detach())
        return steps(*columns, **kwargs)

    learner.descent.steps = record_and_step
    for number in range(3):
        one = round_of(learner, kind, seed=number)
        played = deepcopy(learner.policy)
        value = deepcopy(learner.value)
        before = len(ratios)
        learner.update(one, 0.0)
        x, a = one.rollout.observation.flatten(0, 1), one.rollout.action.flatten(0, 1)
        (_, _, log_prob, _, _, old_value, _), _ = columns[-1]
        torch.testing.assert_close(log_prob, played.head_log_prob(played.head(x), a).detach())
        torch.testing.assert_close(old_value, value(x).detach())
        torch.testing.assert_close(ratios[before], torch.ones_like(ratios[before]), rtol=1e-5, atol=1e-5)
        assert not torch.equal(played.encoder.standardize.mean, learner.policy.encoder.standardize.mean)


def test_first_observation_statistics_reset_adam():
    """Gradients on raw inputs are a thousand times larger and would shrink Adam's steps for many rounds."""
    torch.manual_seed(0)
    learner = PPO(
        OBSERVATION,
        ACTIONS["continuous"],
        hidden_sizes=[8],
        epochs=1,
        batch_size=128,
        optimization=Optimization(max_grad_norm=0.5),
    )
    (optimizer,) = learner.optimizers()
    for number in range(2):
        one = round_of(learner, "continuous", seed=number)
        one.rollout.observation *= 1000.0
        before = learner.descent.vector.detach().clone()
        learner.update(one, 0.0)
        moves = (learner.descent.vector.detach() - before).abs()
        assert float(moves.max()) == pytest.approx(3e-4, rel=1e-2), number
        assert bool(optimizer.state) == bool(number)


@pytest.mark.parametrize("settings", [{}, {"normalize_observations": False}])
def test_bf16_autocast_leaves_advantages_in_float32(settings):
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        learner = PPO(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[64, 64], gamma=0.999, epochs=1, **settings)
        learner.value.network.layers[-1].bias.data.fill_(200.0)  # large values with small differences
        learner.optimizers()
        one = round_of(learner, "continuous")
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            columns, _ = learner.prepare(one)
            torch.manual_seed(1)
            learner.update(one, 0.0)
        found.append((columns, learner.descent.vector.detach().clone()))
    (columns, weights), (half_columns, half_weights) = found
    for mine, theirs in zip(columns[2:], half_columns[2:], strict=True):
        assert theirs.dtype == torch.float32
        assert float(torch.corrcoef(torch.stack([mine, theirs]))[0, 1]) > 0.999
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(weights, half_weights)


@pytest.mark.parametrize("known_fresh", [True, False])
def test_warm_up_applies_to_started_policy_only(known_fresh):
    torch.manual_seed(0)
    policy = GaussianPolicy(OBSERVATION, ACTIONS["continuous"], hidden_sizes=[8])
    policy.fresh = known_fresh
    for given in (policy, None) if known_fresh else (policy,):
        learner = PPO(OBSERVATION, ACTIONS["continuous"], given, hidden_sizes=[8], warmup_rounds=2, epochs=1)
        learner.optimizers()
        before = [parameter.detach().clone() for parameter in learner.policy.parameters()]
        learner.update(round_of(learner, "continuous"), 0.0)
        pairs = zip(before, learner.policy.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs) == known_fresh
