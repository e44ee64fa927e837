"""Ensembles against single policies with the same weights, and disagreement against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from torch.distributions import Categorical

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.mlp import MLP, EnsembleMLP
from lit_imitation.policies import CategoricalPolicy, DeterministicPolicy, EnsemblePolicy, load_policy
from lit_imitation.policies.checkpoints import describe

VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
IMAGE = Box(0, 255, (12, 10, 3), np.uint8)
ACTIONS = {
    "discrete": Discrete(3),
    "discrete-start": Discrete(5, start=-2),
    "box": Box(np.float32([-0.5, 2.0, -7.0]), np.float32([3.0, 2.5, -1.0])),
    "matrix": Box(-2, 1, (2, 3), np.float32),
    "scalar": Box(-2, 1, (), np.float32),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
    "half-bounded": Box(np.float32([0, -np.inf, -1]), np.float32([np.inf, 0.2, 1])),
}
DISCRETE = ["discrete", "discrete-start"]
CONTINUOUS = [name for name in ACTIONS if name not in DISCRETE]
MEMBERS = 3


def build(name, observation_space=VECTOR, **more):
    torch.manual_seed(0)
    arguments = {"members": MEMBERS, "hidden_sizes": (16, 8), "activation": "tanh"} | more
    policy = EnsemblePolicy(observation_space, ACTIONS[name], **arguments)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    if observation_space == VECTOR:
        policy.fit_normalizer(torch.randn(50, 4) * 3 + 1)
    return policy


def split_members(ensemble):
    """Single policies, one with the weights of each member."""
    cls = CategoricalPolicy if isinstance(ensemble.action_space, Discrete) else DeterministicPolicy
    policies = []
    for m in range(ensemble.members):
        arguments = {key: value for key, value in ensemble.arguments.items() if key != "members"}
        policy = cls(ensemble.observation_space, ensemble.action_space, **arguments)
        policy = policy.to(next(ensemble.parameters()).dtype)
        policy.encoder.load_state_dict(ensemble.encoder.state_dict())
        with torch.no_grad():
            for layer, weight, bias in zip(
                policy.network.layers, ensemble.network.weights, ensemble.network.biases, strict=True
            ):
                layer.weight.copy_(weight[m])
                layer.bias.copy_(bias[m])
        policies.append(policy)
    return policies


def sample(space, n=9):
    space.seed(1)
    return torch.from_numpy(np.stack([space.sample() for _ in range(n)]))


def probabilities(ensemble, observation):
    """Action probabilities `[M, B, n]` of the members."""
    return torch.stack([policy.head(observation).softmax(-1) for policy in split_members(ensemble)]).detach()


# Single policies with the same weights.


@pytest.mark.parametrize(
    "observation_space", [VECTOR, Discrete(6, start=-2), IMAGE], ids=["vector", "one-hot", "image"]
)
@pytest.mark.parametrize("name", ACTIONS)
def test_loss_is_mean_over_members(name, observation_space):
    ensemble = build(name, observation_space)
    x, a = sample(observation_space), sample(ACTIONS[name])
    wanted = torch.stack([policy.loss(x, a) for policy in split_members(ensemble)]).mean(0)
    assert wanted.shape == (9,)
    torch.testing.assert_close(ensemble.loss(x, a), wanted)
    torch.testing.assert_close(ensemble.mean_loss(x, a), wanted.mean())


@pytest.mark.parametrize("name", ACTIONS)
def test_gradients_match_single_policies(name):
    ensemble = build(name).double()
    x, a = sample(VECTOR).double(), sample(ACTIONS[name])
    ensemble.mean_loss(x, a).backward()
    for m, policy in enumerate(split_members(ensemble)):
        (policy.mean_loss(x, a) / MEMBERS).backward()
        for layer, weight, bias in zip(
            policy.network.layers, ensemble.network.weights, ensemble.network.biases, strict=True
        ):
            torch.testing.assert_close(weight.grad[m], layer.weight.grad)
            torch.testing.assert_close(bias.grad[m], layer.bias.grad)


@pytest.mark.parametrize("name", ["discrete", "box"])
def test_training_matches_single_policies(name):
    """Long enough to show a wrong gradient; Adam's steps do not depend on the factor 1/M."""
    ensemble = build(name).double()
    policies = split_members(ensemble)
    x, a = sample(VECTOR, 30).double(), sample(ACTIONS[name], 30)
    for policy in (ensemble, *policies):
        optimizer = torch.optim.Adam(policy.parameters(), 1e-2, eps=1e-20)
        for _ in range(20):
            optimizer.zero_grad()
            policy.mean_loss(x, a).backward()
            optimizer.step()
    for single, trained in zip(split_members(ensemble), policies, strict=True):
        torch.testing.assert_close(single.head(x), trained.head(x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_ensemble_averages_probabilities(name):
    ensemble = build(name)
    start = int(ACTIONS[name].start)
    x, a = sample(VECTOR, 200), sample(ACTIONS[name], 200)
    mean = Categorical(probs=probabilities(ensemble, x).mean(0))
    action = ensemble.act(x)
    assert action.dtype == torch.int64
    assert torch.equal(action, mean.probs.argmax(-1) + start)
    votes = torch.stack([policy.act(x) for policy in split_members(ensemble)])
    assert (action != votes.mode(0).values).any()  # a majority vote would differ
    torch.testing.assert_close(ensemble.log_prob(x, a), mean.log_prob(a - start))
    torch.testing.assert_close(ensemble.entropy(x), mean.entropy())

    samples = ensemble.act(x[:1].expand(20_000, -1), deterministic=False) - start
    expected = 20_000 * mean.probs[0].double()
    assert ((samples.bincount(minlength=len(expected)) - expected) ** 2 / expected).sum() < 24  # χ², below 1 in 10⁴


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_ensemble_averages_actions(name):
    ensemble = build(name)
    x = sample(VECTOR)
    with torch.no_grad():
        each = torch.stack([policy.act(x) for policy in split_members(ensemble)])
    action = ensemble.act(x)
    assert action.shape == (9, *ACTIONS[name].shape)
    torch.testing.assert_close(action, each.mean(0))
    assert torch.equal(ensemble.act(x, deterministic=False), action)
    if name == "half-bounded":  # members are clipped before they are averaged
        assert (action[:, 1] < 0.2).any()
        assert (each[:, :, 1] == np.float32(0.2)).any()
    for method in (lambda: ensemble.log_prob(x, action), lambda: ensemble.entropy(x)):
        with pytest.raises(TypeError, match="EnsemblePolicy has no"):
            method()


@pytest.mark.parametrize("members", [3, 5, 7])
def test_mean_of_bound_actions_stays_in_box(members):
    """The float32 mean of equal numbers may be the next larger number."""
    rng = np.random.default_rng(0)
    high = rng.uniform(0.1, 3, 200).astype(np.float32)
    space = Box(-high, high)
    policy = EnsemblePolicy(VECTOR, space, members=members, hidden_sizes=())
    for sign in (-1, 1):
        with torch.no_grad():
            policy.network.biases[0].fill_(sign * 100.0)
        assert space.contains(policy(np.zeros(4, np.float32)))


# Disagreement.


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_disagreement_is_jensen_shannon(name):
    """Computed differently: the mean Kullback–Leibler divergence from the members to their mean."""
    ensemble = build(name)
    x = sample(VECTOR)
    p = probabilities(ensemble, x).double()
    wanted = (p * (p / p.mean(0)).log()).sum(-1).mean(0)
    assert wanted.max() > 0.05
    torch.testing.assert_close(ensemble.disagreement(x).double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_disagreement_is_standard_deviation(name):
    ensemble = build(name)
    x = sample(VECTOR)
    each = np.stack([policy(x).numpy().reshape(9, -1) for policy in split_members(ensemble)])
    wanted = np.sqrt(each.var(axis=0).mean(axis=1))
    assert wanted.max() > 0.01
    np.testing.assert_allclose(ensemble.disagreement(x).detach(), wanted, rtol=1e-4, atol=1e-6)


def set_member_outputs(policy, heads):
    """Make member m output `heads[m]` for every observation."""
    with torch.no_grad():
        policy.network.weights[-1].zero_()
        policy.network.biases[-1].copy_(torch.tensor(heads))


def test_disagreement_matches_closed_form():
    x = sample(VECTOR)
    two = EnsemblePolicy(VECTOR, Discrete(3), members=2, hidden_sizes=(8,))
    set_member_outputs(two, [[500.0, 0, 0], [0, 500.0, 0]])  # certain of different actions, where log 0 occurs
    torch.testing.assert_close(two.disagreement(x), torch.full((9,), math.log(2)))
    set_member_outputs(two, [[0.0, 0, 0], [7.0, 7, 7]])  # both uniform
    assert two.disagreement(x).abs().max() < 1e-6
    set_member_outputs(two, [[0.0, 0, 0], [500.0, 0, 0]])  # uniform and certain: H(2/3, 1/6, 1/6) − ½ log 3
    wanted = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 6)) - math.log(3) / 2
    torch.testing.assert_close(two.disagreement(x), torch.full((9,), wanted))

    three = EnsemblePolicy(VECTOR, ACTIONS["box"], members=3, hidden_sizes=(8,))
    set_member_outputs(
        three, [[50.0, -50, 0], [-50.0, -50, 0], [50.0, -50, 0]]
    )  # 3, −0.5 and 3 in one of three dimensions
    torch.testing.assert_close(three.disagreement(x), torch.full((9,), 3.5 * math.sqrt(2 / 9 / 3)))


@pytest.mark.parametrize("name", ACTIONS)
def test_equal_members_agree(name):
    policy = build(name)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())
    disagreement = policy.disagreement(sample(VECTOR, 500))
    assert (disagreement >= 0).all()
    assert disagreement.max() < 1e-5


# Construction.


def test_members_start_with_different_weights():
    torch.manual_seed(5)
    ensemble = EnsembleMLP(4, [3, 16, 8, 2], "gelu")
    torch.manual_seed(5)
    singles = [MLP([3, 16, 8, 2], "gelu") for _ in range(4)]
    x = torch.randn(6, 3)
    torch.testing.assert_close(ensemble(x), torch.stack([single(x) for single in singles]))
    for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
        for parameter in (weight, bias):
            assert parameter.requires_grad
            assert len({tuple(member.flatten().tolist()) for member in parameter}) == 4


def test_invalid_ensembles_raise():
    with pytest.raises(ConfigError, match="members is 1"):
        EnsemblePolicy(VECTOR, Discrete(2), members=1)
    with pytest.raises(UnsupportedSpaceError, match=r"MultiBinary\(3\)"):
        EnsemblePolicy(VECTOR, MultiBinary(3))


# Interfaces.


@pytest.mark.grid
@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "draw"])
@pytest.mark.parametrize("observation_space", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("name", ACTIONS)
def test_actor_matches_act(name, observation_space, deterministic):
    policy = build(name, observation_space, dropout=0.5)
    actor = policy.actor(deterministic)
    x = sample(observation_space)
    for _ in range(2):
        torch.manual_seed(3)
        wanted = policy(x, deterministic).numpy()
        torch.manual_seed(3)
        got = actor.act(x.numpy())
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        with torch.no_grad():  # later updates have to be visible
            for parameter in policy.network.parameters():
                parameter.mul_(-1.5)
    assert policy(x[:0]).shape == (0, *ACTIONS[name].shape)
    assert policy(x[0]).shape == ACTIONS[name].shape


def test_members_have_separate_dropout():
    network = EnsembleMLP(2, [4, 400, 400], dropout=0.5)
    with torch.no_grad():
        network.weights[0].zero_()
        network.biases[0].fill_(1.0)
        network.weights[1].copy_(torch.eye(400).expand(2, -1, -1))
        network.biases[1].zero_()
    first, second = network(torch.zeros(1, 4))[:, 0]
    assert 140 < int((first == 2).sum()) < 260
    assert not torch.equal(first, second)
    assert (network.eval()(torch.zeros(1, 4)) == 1).all()


@pytest.mark.parametrize("name", ACTIONS)
def test_checkpoint_round_trip(name, tmp_path):
    policy = build(name)
    state = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"policy": describe(policy), "state_dict": state}, tmp_path / "p.ckpt")
    loaded = load_policy(tmp_path / "p.ckpt")
    assert type(loaded) is EnsemblePolicy
    assert describe(loaded) == describe(policy)
    x, a = sample(VECTOR), sample(ACTIONS[name])
    assert torch.equal(loaded.loss(x, a), policy.loss(x, a))
    assert torch.equal(loaded.disagreement(x), policy.disagreement(x))
    np.testing.assert_array_equal(loaded(x), policy(x))
