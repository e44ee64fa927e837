"""Discriminators: signs, losses, penalties and the absorbing state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from lit_imitation import AIRLDiscriminator, Discriminator, Transitions
from lit_imitation.errors import ConfigError
from lit_imitation.optim.descent import Descent
from lit_imitation.rewards.features import Samples
from lit_imitation.rewards.losses import STATISTICS

STATE, ARM, BUTTONS = Box(-np.inf, np.inf, (3,)), Box(-2.0, 2.0, (2,)), Discrete(4)


def transitions(n=6, discrete=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Transitions(
        observation=torch.randn(n, 3, generator=g),
        action=torch.randint(4, (n,), generator=g) if discrete else 4 * torch.rand(n, 2, generator=g) - 2,
        reward=torch.zeros(n),
        terminated=torch.arange(n) % 3 == 2,
        truncated=torch.arange(n) == n - 1,
        next_observation=torch.randn(n, 3, generator=g),
        batch_size=[n],
    )


def columns(n=6, seed=0, **more):
    """Expert and learner samples, log π and positions, as `forward` takes them."""
    both = Samples.concatenate(
        [
            Samples.from_transitions(transitions(n, seed=seed, **more)),
            Samples.from_transitions(transitions(n, seed=seed + 1, **more)),
        ]
    )
    g = torch.Generator().manual_seed(seed + 2)
    return [*both, torch.randn(2 * n, generator=g), torch.rand(n, generator=g)]


def build(cls=Discriminator, action=ARM, **arguments):
    torch.manual_seed(3)
    return cls(STATE, action, **arguments)


def test_reward_signs():
    """With D = σ(ℓ) the probability of the expert, each reward increases in ℓ and has the sign of its name."""
    data = transitions()
    model = build()
    d = torch.sigmoid(model.logit(Samples.from_transitions(data)).double())
    torch.testing.assert_close(model.reward(data).double(), -torch.log(1 - d), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(build(reward="negative").reward(data).double(), torch.log(d), rtol=1e-5, atol=1e-6)
    logit = build(reward="logit").reward(data).double()
    torch.testing.assert_close(logit, torch.log(d) - torch.log(1 - d), rtol=1e-4, atol=1e-5)
    assert (model.reward(data) > 0).all()
    assert (build(reward="negative").reward(data) < 0).all()


@pytest.mark.parametrize("cls", [Discriminator, AIRLDiscriminator])
def test_rewards_are_finite_for_extreme_logits(cls):
    data = transitions()
    model = build(cls)
    for network in model.modules():
        if isinstance(network, torch.nn.Linear):
            network.weight.data *= 1e4
    assert model.reward(data).isfinite().all()
    loss, statistics = model(*columns())
    assert loss.isfinite()
    assert statistics.isfinite().all()


@pytest.mark.integration
def test_training_recovers_occupancy_ratio():
    """Two states with expert frequencies ¾, ¼ and learner frequencies ½, ½: ℓ* = log(3/2) and log(1/2)."""
    torch.manual_seed(0)
    space = Discrete(2)
    model = Discriminator(space, BUTTONS, inputs="state", hidden_sizes=(16,))
    descent = Descent(model, model.parameters(), 0.02)
    expert, learner = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    state = torch.cat([expert, learner])
    no = torch.zeros(8, dtype=torch.bool)
    for _ in range(400):
        statistics = descent.step(state, state, state, no, no, torch.zeros(8), torch.rand(4))
    ell = model.logit(Samples(*(torch.tensor([0, 1]),) * 3, *(torch.zeros(2, dtype=torch.bool),) * 2))
    torch.testing.assert_close(ell, torch.log(torch.tensor([1.5, 0.5])), rtol=1e-3, atol=1e-3)
    # log 2 − L is then their Jensen–Shannon divergence.
    p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    m = (p + q) / 2
    js = 0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()
    assert float(statistics[1 + STATISTICS.index("jensen_shannon")]) == pytest.approx(float(js), abs=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_matches_torch(smoothing):
    model = build(label_smoothing=smoothing)
    given = columns()
    logit = model.logit(Samples(*given[:5]))
    label = torch.cat([torch.full((6,), 1.0 - smoothing), torch.full((6,), smoothing)])
    torch.testing.assert_close(model(*given)[0], F.binary_cross_entropy_with_logits(logit, label))


def test_wasserstein_loss_needs_logit_reward():
    model = build(loss="wasserstein", reward="logit", spectral_norm=True)
    given = columns()
    logit = model.logit(Samples(*given[:5]))
    torch.testing.assert_close(model(*given)[0], logit[6:].mean() - logit[:6].mean())
    with pytest.raises(ConfigError, match=r"needs discriminator\.reward logit"):
        build(loss="wasserstein")


def test_accuracies_count_each_side_separately():
    model = build()
    logit = model.logit(Samples(*columns()[:-2])).detach().numpy()
    found = dict(zip(STATISTICS, model(*columns())[1].tolist(), strict=True))
    assert found["discriminator_accuracy_expert"] == pytest.approx((logit[:6] > 0).mean())
    assert found["discriminator_accuracy_learner"] == pytest.approx((logit[6:] < 0).mean())
    for parameter in model.parameters():
        parameter.data.zero_()
    found = dict(zip(STATISTICS, model(*columns())[1].tolist(), strict=True))
    assert found["discriminator_accuracy_expert"] == found["discriminator_accuracy_learner"] == 0.0


@pytest.mark.parametrize("cls", [Discriminator, AIRLDiscriminator])
def test_gradient_penalty_is_taken_between_pairs(cls):
    """Compared with autograd at one given point on each line."""
    model = build(cls, gradient_penalty=3.0)
    given = columns()
    features = model.score_inputs(Samples(*given[:5]))
    place = given[6][:, None]
    x = (place * features[:6] + (1 - place) * features[6:]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.score(x).sum(), x, create_graph=True)
    if cls is AIRLDiscriminator:  # without the last column, the future flag
        slope = slope[:, :-1]
    penalty = (slope.norm(dim=1) - 1).square().mean()
    loss, statistics = model(*given)
    plain, _ = build(cls)(*given)
    torch.testing.assert_close(statistics[-1], penalty.detach())
    torch.testing.assert_close(loss, plain + 3.0 * penalty)


@pytest.mark.parametrize("arguments", [{"gradient_penalty": 3.0}, {"spectral_norm": True}, {"max_logit": 1.0}])
def test_gradients_agree_with_finite_differences(arguments):
    model = build(**arguments).double()
    given = [x.double() if x.is_floating_point() else x for x in columns()]
    descent = Descent(model, model.parameters(), 0.01)
    eager, _ = descent.gradient(*given)
    functional, _ = descent.loss_gradient.functional(descent.vector.detach(), descent.loss_gradient.constants, *given)
    torch.testing.assert_close(eager, functional)
    for i in range(0, len(eager), 400):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                descent.vector[i] += sign * 1e-6
            values.append(model(*given)[0].item())
            with torch.no_grad():
                descent.vector[i] -= sign * 1e-6
        assert float(eager[i]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-8)


@pytest.mark.grid
@pytest.mark.integration
@pytest.mark.parametrize("learning_rate", [3e-4, 0.05])
@pytest.mark.parametrize("by", ["step", "steps"])
def test_spectral_norms_stay_one_during_training(learning_rate, by):
    """Singular values of the effective weights after a hundred steps."""
    model = build(spectral_norm=True, hidden_sizes=(64, 64))
    descent = Descent(model, model.parameters(), learning_rate)
    given = columns(64)
    before = descent.vector.detach().clone()
    if by == "step":
        for _ in range(100):
            descent.step(*given)
    else:
        descent.steps(*(torch.stack([column] * 100) for column in given))
    assert float((descent.vector.detach() - before).abs().max()) > 5 * learning_rate
    for i in range(3):
        assert float(torch.linalg.matrix_norm(model.network._weight(i), 2)) == pytest.approx(1.0, abs=0.02)
    x, y = torch.randn(2, 500, 5)
    slope = (model.score(x) - model.score(y)).abs() / (x - y).norm(dim=1)
    assert float(slope.max()) <= 1.02


@pytest.mark.parametrize("cure", [{"gradient_penalty": 10.0}, {"spectral_norm": True}])
def test_wasserstein_without_bounded_slope_raises(cure):
    with pytest.raises(ConfigError, match=r"set discriminator.gradient_penalty .* or discriminator.spectral_norm true"):
        build(loss="wasserstein", reward="logit", max_logit=2.0)
    build(loss="wasserstein", reward="logit", **cure)


def test_rewards_under_autocast_match_float32():
    data = transitions(64)
    data.log_prob = torch.randn(64)
    for model in (build(), build(spectral_norm=True, reward="logit"), build(AIRLDiscriminator, absorbing=True)):
        plain, recovered = model.reward(data), model.recovered_reward(data)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.reward(data), plain)
            assert torch.equal(model.recovered_reward(data), recovered)


@pytest.mark.parametrize("loss", ["cross_entropy", "wasserstein"])
def test_max_logit_stops_gradient_of_correct_pairs_only(loss):
    model = build(max_logit=2.0, loss=loss, reward="logit", spectral_norm=True)
    given = columns()
    for values, moves in (((3.0, -3.0), False), ((1.0, -1.0), True), ((-3.0, 3.0), True)):
        logit = torch.tensor([values[0]] * 6 + [values[1]] * 6, requires_grad=True)
        model.logit = lambda samples, log_prob, logit=logit: logit
        model(*given)[0].backward()
        push = torch.tensor([1.0] * 6 + [-1.0] * 6)  # expert logits up, learner logits down
        assert ((-logit.grad * push > 0) == moves).all()


@pytest.mark.parametrize("discrete", [False, True])
def test_terminal_step_receives_absorbing_reward(discrete):
    model = build(action=BUTTONS if discrete else ARM, absorbing=True, gamma=0.9, reward="logit")
    data = transitions(discrete=discrete)
    after = Samples.from_transitions(data, absorbing=True)
    forever = model.logit(after)[-1].item()  # the absorbing row
    plain = model.logit(Samples.from_transitions(data))
    rewards = model.reward(data)
    # γ r + γ² r + …, from the step after the last one.
    expected = plain + data.terminated * sum(0.9**k * forever for k in range(1, 400))
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [Discriminator, AIRLDiscriminator])
@pytest.mark.parametrize("action", [Discrete(3, start=1), MultiDiscrete([2, 3], start=[1, 4]), ARM])
def test_absorbing_state_works_for_shifted_discrete_spaces(cls, action):
    space = Discrete(4, start=2)
    model = cls(space, action, absorbing=True)
    arms = torch.as_tensor(np.stack([action.sample() for _ in range(5)]))
    at = torch.randint(2, 6, (5,))
    ends = torch.tensor([False, True, False, True, True])
    data = Transitions(at, arms, torch.zeros(5), ends, ~ends, at, batch_size=[5])
    data.log_prob = torch.zeros(5)
    rows = Samples.from_transitions(data, absorbing=True)
    logit = model.logit(rows)
    assert rows.absorbing.tolist() == [False] * 5 + [True] * 3
    # The same state for every last observation and action.
    torch.testing.assert_close(logit[5:], model.logit(model.absorbing_state()).expand(3))
    assert model.reward(data).isfinite().all()


def test_airl_ignores_action_in_absorbing_state():
    """The policy never acts there, so ℓ is f; the recovered reward adds its value at the end."""
    model = build(AIRLDiscriminator, absorbing=True, gamma=0.9)
    data = transitions()
    samples = Samples.from_transitions(data, absorbing=True)
    log_prob = torch.randn(len(samples.absorbing))
    f, logit = model.logit(samples), model.logit(samples, log_prob)
    torch.testing.assert_close(logit[:6], f[:6] - log_prob[:6])
    torch.testing.assert_close(logit[6:], f[6:])
    assert len(f) > 6
    own, after = (model.reward_network(model.features(x)).squeeze(-1) for x in (samples.rows(torch.arange(6)), samples))
    expected = own + data.terminated * 0.9 / (1 - 0.9) * after[-1]
    torch.testing.assert_close(model.recovered_reward(data), expected)


def test_airl_logit_matches_definition():
    """ℓ = r(s) + γ Φ(s′) − Φ(s) − log π, without Φ(s′) at terminal states."""
    model = build(AIRLDiscriminator, gamma=0.9)
    data = transitions()
    log_prob = torch.randn(6)
    r = model.reward_network(data.observation).squeeze(-1)
    phi, following = (model.potential(x).squeeze(-1) for x in (data.observation, data.next_observation))
    f = r + 0.9 * following * ~data.terminated - phi
    data.log_prob = log_prob
    torch.testing.assert_close(model.reward(data), f - log_prob)
    data.log_prob = None
    torch.testing.assert_close(model.reward(data), f)  # for a learner with its own entropy bonus
    torch.testing.assert_close(model.recovered_reward(data), r)
    by_action = build(AIRLDiscriminator, state_only=False)
    moved = data.clone()
    moved.action = -moved.action
    assert not torch.allclose(by_action.recovered_reward(data), by_action.recovered_reward(moved))
    assert torch.equal(model.recovered_reward(data), model.recovered_reward(moved))


def test_entropy_weight_changes_reward_only():
    """The discriminator still classifies by f − log π."""
    data, given, weighted = transitions(), columns(), build(AIRLDiscriminator, absorbing=True, entropy_weight=0.1)
    data.log_prob = torch.randn(6)
    before, plain = data.log_prob.clone(), build(AIRLDiscriminator, absorbing=True)
    torch.testing.assert_close(weighted.reward(data), plain.reward(data) + 0.9 * data.log_prob)
    assert torch.equal(data.log_prob, before)
    torch.testing.assert_close(weighted(*given)[0], plain(*given)[0])
    with pytest.raises(ConfigError, match="entropy_weight is nan"):
        build(AIRLDiscriminator, entropy_weight=float("nan"))


def test_reward_decay_covers_reward_weights_only():
    model, given = build(AIRLDiscriminator, reward_decay=0.1), columns()
    plain, _ = build(AIRLDiscriminator)(*given)
    squares = sum(layer.weight.square().sum() for layer in model.reward_network.layers)
    torch.testing.assert_close(model(*given)[0], plain + 0.1 * squares)
    with pytest.raises(ConfigError, match="reward_decay is -1"):
        build(AIRLDiscriminator, reward_decay=-1.0)


def test_airl_probability_matches_paper():
    model = build(AIRLDiscriminator, action=BUTTONS)
    data = transitions(discrete=True)
    log_prob = torch.randn(6)
    samples = Samples.from_transitions(data)
    f = model.logit(samples).exp()
    torch.testing.assert_close(torch.sigmoid(model.logit(samples, log_prob)), f / (f + log_prob.exp()))


def test_reward_shapes_match_transitions():
    data = transitions().view(2, 3)
    for cls in (Discriminator, AIRLDiscriminator):
        assert build(cls).reward(data).shape == (2, 3)
        torch.testing.assert_close(build(cls).reward(data).flatten(), build(cls).reward(data.view(-1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_logit": 0.0}, "max_logit is 0.0"),
        ({"gradient_penalty": -1.0}, "gradient_penalty is -1.0"),
        ({"label_smoothing": 0.6}, "label_smoothing is 0.6"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"absorbing": True, "gamma": 1.0}, "never ends"),
    ],
)
def test_invalid_options_raise(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)
