"""Conservative Q-learning against closed forms and plain loops, and whole runs."""

from __future__ import annotations

import math

import pytest
import torch
from offline import ACTIONS, CENTER, LINE, OBSERVATION, ONE_ACTION, SCALE, bandit, fit, make_batch, walk

from lit_imitation import CQL, CategoricalPolicy, GaussianPolicy, OfflineDataModule, SquashedGaussianPolicy
from lit_imitation.errors import ConfigError
from lit_imitation.methods.cql import CriticLoss
from lit_imitation.rl.action_values import make_q_functions
from lit_imitation.rl.sac import Temperature

COUNT = 6


def make_loss(kind: str, gap_target: float | None = None) -> CriticLoss:
    torch.manual_seed(0)
    space = ACTIONS[kind]
    cls = SquashedGaussianPolicy if kind == "continuous" else CategoricalPolicy
    policy = cls(OBSERVATION, space, hidden_sizes=[8])
    critic, target = (make_q_functions(OBSERVATION, space, [8], "tanh") for _ in range(2))
    return CriticLoss(policy, critic, target, Temperature(0.7), 0.9, gap_target)


def make_draws(kind: str, size: int = 20, count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    act_dim = 2 if kind == "continuous" else 0
    generator = torch.Generator().manual_seed(2)
    uniform = 2 * torch.rand(size, count, act_dim, generator=generator) - 1
    return torch.randn(size, 1 + 2 * count, act_dim, generator=generator), uniform


class Linear(torch.nn.Module):
    """Q(s, a) = 2 a_1 − 3 a_2, twice."""

    def forward(self, observation, u):
        return (u @ torch.tensor([2.0, -3.0]))[None, :, None].expand(2, -1, 1)


def test_soft_maximum_of_a_linear_function_is_its_integral():
    """∫ exp(c u) du over [−1, 1] is 2 sinh(c) / c."""
    loss = make_loss("continuous")
    loss.critic = Linear()
    noise, uniform = make_draws("continuous", 4, 40_000)
    observation = make_batch("continuous", 4)[0]
    with torch.no_grad():
        found = loss.soft_maximum(observation, loss.policy.head(observation + 0.3), noise[:, 1:], uniform)
    expected = sum(math.log(2 * math.sinh(c) / c) for c in (2.0, 3.0))
    torch.testing.assert_close(found, torch.full_like(found, expected), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ACTIONS)
def test_loss_matches_plain_loop(kind):
    loss, batch, (noise, uniform) = make_loss(kind), make_batch(kind), make_draws(kind)
    found, statistics = loss(*batch, noise, uniform)
    bellman = gap = 0.0
    policy = loss.policy
    with torch.no_grad():
        for i, (s, a, r, after, over) in enumerate(zip(*(one.split(1) for one in batch), strict=True)):
            head, after_head = policy.head(s), policy.head(after)
            if kind == "discrete":
                prob = after_head.softmax(-1)
                value = float((prob * loss.target(after).amin(0)).sum())
                q = loss.critic(s)[:, 0]
                gap += float((q.exp().sum(-1).log() - q[:, int(a) + 1]).sum())
                own = q[:, int(a) + 1].tolist()
            else:
                drawn, _ = policy.rsample_with_log_prob(after_head, noise[i : i + 1, 0])
                value = float(loss.target(after, (drawn - CENTER) / SCALE).min())
                own = loss.critic(s, (a - CENTER) / SCALE)[:, 0, 0].tolist()
                ratios = []
                for j in range(COUNT):
                    ratios.append(loss.critic(s, uniform[i, j][None])[:, 0, 0].exp() / 0.25)
                    for k, of in enumerate((head, after_head)):
                        x, density = policy.rsample_with_log_prob(of, noise[i, 1 + k * COUNT + j][None])
                        q = loss.critic(s, (x - CENTER) / SCALE)[:, 0, 0]
                        ratios.append(q.exp() / (density.exp() * 4.0))  # per unit: a unit of the second is 4
                gap += float((torch.stack(ratios).mean(0).log() - torch.tensor(own)).sum())
            y = float(r) + (0.0 if over else 0.9 * value)
            bellman += 0.5 * sum((one - y) ** 2 for one in own)
    assert float(statistics[0]) == pytest.approx(bellman / 20, rel=1e-4)
    assert float(found) == pytest.approx((bellman + 0.7 * gap) / 20, rel=1e-4)
    assert float(statistics[2]) == pytest.approx(gap / 40, rel=1e-3)


@pytest.mark.parametrize(("gap_target", "sign"), [(-100.0, 1.0), (100.0, -1.0)])
def test_weight_grows_while_the_gap_is_above_its_target(gap_target, sign):
    loss = make_loss("continuous", gap_target)
    total, statistics = loss(*make_batch("continuous"), *make_draws("continuous"))
    (gradient,) = torch.autograd.grad(total, loss.weight.log_alpha)
    expected = -0.7 * 2 * (float(statistics[2]) - gap_target)
    assert float(gradient) == pytest.approx(expected, rel=1e-4)
    assert -math.copysign(1, float(gradient)) == sign


@pytest.mark.integration
def test_values_of_actions_that_were_not_recorded_stay_below(tmp_path):
    """The data never go right in place 0, whose value an ordinary Q-function could only guess."""
    model = CQL(
        lambda *spaces: CategoricalPolicy(*spaces, hidden_sizes=[32]),
        conservative_weight=1.0, hidden_sizes=[32, 32], learning_rate=3e-3, policy_learning_rate=3e-3, tau=0.05,
    )  # fmt: skip
    data = walk(300, 2 / 3)
    kept = ~((data.observation == 2) & (data.action == 0))
    fit(model, OfflineDataModule(demonstrations=data.keep(kept), batch_size=64, **LINE), tmp_path, 25)
    places = torch.arange(5)
    values = model.critic(places).amin(0)
    assert model.policy.act(places).tolist() == [1] * 5
    assert float(values[2, 1] - values[2, 0]) > 1.0
    assert float((values[[1, 3], 1] - values[[1, 3], 0]).max()) < float(values[2, 1] - values[2, 0])


@pytest.mark.integration
def test_policy_is_better_than_its_data_and_the_weight_holds_it(tmp_path):
    """Data around 0, best 0.6: the larger the weight, the nearer to the data; the Lagrange variant raises it."""
    chosen, weights = [], []
    for weight, gap_target in ((0.05, None), (3.0, None), (0.05, 0.1)):
        model = CQL(
            lambda *spaces: SquashedGaussianPolicy(*spaces, hidden_sizes=[32]),
            conservative_weight=weight, gap_target=gap_target, hidden_sizes=[32, 32], learning_rate=3e-3,
            policy_learning_rate=3e-3,
        )  # fmt: skip
        fit(model, OfflineDataModule(demonstrations=bandit(), **ONE_ACTION), tmp_path, 30)
        chosen.append(float(model.policy.act(torch.randn(200, 2)).mean()))
        weights.append(float(model.weight()))
    assert chosen[0] > 0.25
    assert abs(chosen[1]) < 0.15
    assert weights[:2] == pytest.approx([0.05, 3.0])
    assert weights[2] > 0.1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"samples": 0}, "model.samples is 0"),
        ({"conservative_weight": 0.0}, "model.conservative_weight is 0.0"),
        ({"gap_target": -1.0}, "model.gap_target is -1.0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, text):
    with pytest.raises(ConfigError, match=text):
        CQL(**arguments)


@pytest.mark.integration
def test_policy_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="CQL needs a SquashedGaussianPolicy, not a GaussianPolicy"):
        fit(CQL(GaussianPolicy), OfflineDataModule(demonstrations=bandit(50), **ONE_ACTION), tmp_path, 1)
