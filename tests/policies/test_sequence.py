"""Policies that plan chunks: what all heads have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from heads import ARM, HEADS, MATRIX, UNBOUNDED, VECTOR, make_chunks, make_head, trajectories
from torch.func import functional_call

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.methods.bc import CloningLoss
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import FlowPolicy, MixturePolicy, load_policy
from lit_imitation.policies.checkpoints import describe
from lit_imitation.policies.sequence import mean_over_steps
from lit_imitation.utils.spaces import FlatBox
from lit_imitation.windows import WindowedTransitions

WINDOWS = {"n_obs_steps": 2, "horizon": 5, "n_action_steps": 3}
OBSERVATIONS = {
    "vector": VECTOR,
    "matrix": Box(-1, 1, (2, 3), np.float32),
    "discrete": Discrete(6, start=-2),
    "image": Box(0, 255, (32, 30, 3), np.uint8),
}
ACTIONS = {"arm": ARM, "matrix": MATRIX, "unbounded": UNBOUNDED, "scalar": Box(-2, 1, (), np.float32)}


def loss(policy, *given, seed=0):
    torch.manual_seed(seed)
    return policy.loss(*given)


# Plans.


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("space_name", ACTIONS)
def test_plans_lie_in_box(name, space_name):
    policy = make_head(name, ACTIONS[space_name], **WINDOWS)
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    for deterministic in (True, False):
        for rows in (observation, 50 * observation, observation[:0]):
            plan = policy.plan(rows, deterministic)
            assert plan.shape == (len(rows), 5, *policy.action_space.shape)
            assert plan.dtype == torch.float32
            assert all(policy.action_space.contains(np.asarray(one)) for chunk in plan.numpy() for one in chunk)


@pytest.mark.parametrize("name", HEADS)
def test_deterministic_plans_repeat_and_samples_differ(name):
    policy = make_head(name, UNBOUNDED, **WINDOWS)
    observation, _ = make_chunks(policy)
    assert torch.equal(policy.plan(observation), policy.plan(observation))
    first, second = policy.plan(observation, False), policy.plan(observation, False)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.manual_seed(3)
    first = policy.plan(observation, False)
    torch.manual_seed(3)
    assert torch.equal(first, policy.plan(observation, False))


@pytest.mark.parametrize("name", HEADS)
def test_row_of_plan_does_not_depend_on_batch(name):
    policy = make_head(name, MATRIX, **WINDOWS)
    observation, _ = make_chunks(policy)
    torch.testing.assert_close(policy.plan(observation[3:4]), policy.plan(observation)[3:4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_every_step_of_window_matters(name):
    policy = make_head(name, **WINDOWS)
    observation, _ = make_chunks(policy)
    observation = observation.clamp(-3, 3)
    condition = policy.condition(observation)
    assert condition.shape == (40, 8)
    for step in range(2):
        changed = observation.clone()
        changed[:, step] += 0.5
        assert torch.equal(policy.condition(changed)[:, 4 * (1 - step)], condition[:, 4 * (1 - step)])
        assert not torch.equal(policy.condition(changed), condition)


def test_executed_actions_begin_at_last_observation():
    policy = make_head("flow", **WINDOWS)
    assert list(range(5))[policy.executed] == [1, 2, 3]
    assert list(range(1))[make_head("flow").executed] == [0]
    observation, _ = make_chunks(policy)
    assert torch.equal(policy.act(observation), policy.plan(observation)[:, 1])


# As an ordinary policy.


@pytest.mark.grid
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("space_name", OBSERVATIONS)
def test_single_step_head_is_an_ordinary_policy(name, space_name):
    policy = make_head(name, MATRIX, OBSERVATIONS[space_name], dropout=0.2)
    observation, action = (one.squeeze(1) for one in make_chunks(policy, 6))
    policy.fit_normalizer(observation, action)
    acted = policy(observation.numpy())
    assert acted.shape == (6, 2, 3)
    assert acted.dtype == np.float32
    assert policy.training
    np.testing.assert_allclose(policy(observation[2].numpy()), acted[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy.actor().act(observation.numpy()), acted, rtol=1e-5, atol=1e-6)
    assert policy.actor().memoryless
    policy.eval()
    torch.testing.assert_close(policy.plan(observation.unsqueeze(1))[:, 0], policy.act(observation))
    np.testing.assert_allclose(policy.act(observation).detach(), acted, rtol=1e-5, atol=1e-6)
    torch.manual_seed(4)
    sampled = policy(observation.numpy(), deterministic=False)
    torch.manual_seed(4)
    np.testing.assert_allclose(policy.actor(deterministic=False).act(observation.numpy()), sampled)


@pytest.mark.parametrize("name", HEADS)
def test_single_step_loss_equals_loss_of_windows(name):
    policy = make_head(name, MATRIX)
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    of_windows = loss(policy, observation, action)
    assert of_windows.shape == (40,)
    assert torch.equal(loss(policy, observation.squeeze(1), action.squeeze(1)), of_windows)
    torch.manual_seed(0)
    assert torch.equal(policy.mean_loss(observation.squeeze(1), action.squeeze(1)), of_windows.mean())
    assert is_traceable(CloningLoss(policy, 0.0, 0.0))


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_no_entropy(name):
    with pytest.raises(TypeError, match="has no distribution, so no entropy"):
        make_head(name).entropy(torch.zeros(2, 4))


# Losses.


@pytest.mark.parametrize("name", HEADS)
def test_padding_does_not_enter_the_loss(name):
    policy = make_head(name, **WINDOWS)
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    mask = torch.ones(40, 5, dtype=torch.bool)
    assert torch.equal(loss(policy, observation, action, mask), loss(policy, observation, action))
    mask[:20, 3:] = False
    changed = action.clone()
    changed[:20, 3:] = 0.5 * changed[:20, 3:] + 0.1
    before, after = (loss(policy, observation, one, mask) for one in (action, changed))
    if name.startswith(("flow", "diffusion")):
        # The network sees the noisy padding, which its targets do not count.
        assert torch.equal(before[20:], after[20:])
        wrong = torch.full((40, 5, 3), 7.0)
        assert torch.equal(mean_over_steps(wrong, mask), mask.sum(1) * 21.0 / 5)
    else:
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)
    unmasked = loss(policy, observation, action)
    assert (unmasked[:20] != before[:20]).all()
    torch.testing.assert_close(unmasked[20:], before[20:])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("windows", [{}, WINDOWS], ids=["single", "windows"])
def test_gradients_match_finite_differences(name, windows):
    policy = make_head(name, activation="tanh", hidden_sizes=(4, 4), **windows).double()
    observation, action = make_chunks(policy, 6)
    policy.fit_normalizer(observation, action)
    action = action.double()
    names, values = zip(*policy.named_parameters(), strict=True)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in values]
    module = CloningLoss(policy, 0.0, 0.0)

    def mean_loss(step):
        moved = {f"policy.{n}": v + step * d for n, v, d in zip(names, values, directions, strict=True)}
        torch.manual_seed(0)
        return functional_call(module, moved, (observation, action))[0]

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mean_loss(step), step)
    h = 1e-7
    wanted = float((mean_loss(h) - mean_loss(-h)).detach()) / (2 * h)
    assert float(slope.detach()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_has_a_gradient(name):
    policy = make_head(name, **WINDOWS)
    observation, action = make_chunks(policy, 200)
    policy.fit_normalizer(observation, action)
    policy.mean_loss(observation, action).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_dropout_is_active_only_in_training(name):
    policy = make_head(name, dropout=0.5, **WINDOWS)
    observation, action = make_chunks(policy)
    trained = loss(policy, observation, action)
    policy.eval()
    assert not torch.equal(trained, loss(policy, observation, action))


@pytest.mark.parametrize("name", HEADS)
def test_loss_does_not_depend_on_units_of_observation(name):
    policy, other = make_head(name, **WINDOWS), make_head(name, **WINDOWS)
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    other.fit_normalizer(1000 * observation + 5, action)
    torch.testing.assert_close(
        loss(policy, observation, action), loss(other, 1000 * observation + 5, action), rtol=1e-3, atol=1e-3
    )


# Normalizer and checkpoints.


@pytest.mark.parametrize("name", HEADS)
def test_fit_accepts_windows_and_single_steps(name):
    policies = make_head(name), make_head(name)
    observation, action = make_chunks(policies[0])
    policies[0].fit_normalizer(observation, action)
    policies[1].fit_normalizer(observation.squeeze(1), action.squeeze(1))
    states = [policy.state_dict() for policy in policies]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("windows", [{}, WINDOWS], ids=["single", "windows"])
def test_refit_does_not_change_the_function(name, windows):
    policy = make_head(name, UNBOUNDED, **windows)
    observation, action = make_chunks(policy, 200)
    policy.fit_normalizer(observation, action)
    before, losses = policy.plan(observation), loss(policy, observation, action)
    condition = policy.condition(observation)
    policy.refit_normalizer(1.5 + 2.0 * observation)
    assert not torch.allclose(policy.condition(observation), condition, atol=0.1)
    torch.testing.assert_close(policy.plan(observation), before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss(policy, observation, action), losses, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["mixture", "cvae", "flow"])
def test_refit_converts_adam_moments(name):
    """At learning rate 0 both gradients are at the same point, so autograd gives them before and after."""
    policy = make_head(name, **WINDOWS)
    observation, action = make_chunks(policy, 200)
    policy.fit_normalizer(observation, action)
    descent = Descent(CloningLoss(policy, 0.0, 0.0), policy.parameters(), 0.0)
    torch.manual_seed(0)
    descent.step(observation, action)
    policy.refit_normalizer(1.5 + 2.0 * observation, descent.moments)
    policy.zero_grad()
    torch.manual_seed(0)
    policy.mean_loss(observation, action).backward()
    assert len(policy.observation_layers) == (3 if name == "cvae" else 1)
    for layer in policy.observation_layers:
        for parameter in layer:
            moment = descent.moments(parameter)[0]
            torch.testing.assert_close(moment, 0.1 * parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_checkpoint_restores_policy(name, tmp_path):
    policy = make_head(name, **WINDOWS)
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    state = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"policy": describe(policy), "state_dict": state}, tmp_path / "last.ckpt")
    loaded = load_policy(tmp_path / "last.ckpt")
    assert type(loaded) is type(policy)
    assert loaded.arguments == policy.arguments
    assert torch.equal(loaded.plan(observation), policy.eval().plan(observation))
    assert torch.equal(loss(loaded, observation, action), loss(policy, observation, action))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mixture", {"components": 10**6}),
        ("quantized", {"codes": 10**4, "levels": 10**4}),
        ("cvae", {"latent_size": 10**9}),
        ("diffusion", {"noise_levels": 10**9}),
        ("flow", {"horizon": 10**9}),
    ],
)
def test_oversized_description_is_refused(name, sizes, tmp_path):
    policy = make_head(name)
    description = describe(policy)
    description["arguments"] |= sizes
    state = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"policy": description, "state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="more than the file has bytes; it is damaged"):
        load_policy(tmp_path / "last.ckpt")


# Mistakes.


def test_wrong_shapes_raise():
    policy = make_head("mixture", **WINDOWS)
    observation, action = make_chunks(policy)
    for wrong in (observation[:, 0], observation[:, :1], observation[..., :3]):
        with pytest.raises(ValueError, match=r"observation has shape .*; expected \[B, 2, 4\]"):
            policy.loss(wrong, action)
    for wrong in (action[:, 0], action[:, :4], action[..., :2]):
        with pytest.raises(ValueError, match=r"action has shape .*; expected \[B, 5, 3\]"):
            policy.loss(observation, wrong)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ({"horizon": 0}, r"horizon is 0; it must be at least 1"),
        ({"n_obs_steps": 0}, r"n_obs_steps is 0; it must be at least 1"),
        ({"horizon": 4, "n_action_steps": 5}, r"n_action_steps is 5; .* must be at most .* = 4"),
        ({"n_obs_steps": 2, "horizon": 4, "n_action_steps": 4}, r"must be at most horizon - n_obs_steps \+ 1 = 3"),
        ({"n_obs_steps": 2}, r"must be at most .* = 0"),
    ],
)
def test_steps_out_of_range_raise(steps, text):
    with pytest.raises(ConfigError, match=text):
        make_head("flow", **steps)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("mixture", {"components": 0}, "components is 0"),
        ("mixture", {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ("quantized", {"codes": 0}, "codes is 0"),
        ("quantized", {"focal_gamma": -1.0}, "focal_gamma is -1.0"),
        ("cvae", {"latent_size": 0}, "latent_size is 0"),
        ("cvae", {"kl_weight": -0.1}, "kl_weight is -0.1"),
        ("diffusion", {"noise_levels": 3}, "steps is 4; it must be at most noise_levels, which is 3"),
        ("diffusion", {"prediction": "x"}, "choose epsilon or v"),
        ("flow", {"steps": 0}, "steps is 0"),
        ("flow", {"solver": "heun"}, "choose euler or midpoint"),
        ("flow", {"backbone": "lstm"}, "choose one of mlp, unet, transformer"),
        ("flow", {"hidden_size": 3}, "did you mean hidden_sizes"),
    ],
)
def test_invalid_arguments_raise(name, arguments, text):
    with pytest.raises(ConfigError, match=text):
        make_head(name, **arguments)


def test_heads_need_a_box():
    for cls in (MixturePolicy, FlowPolicy):
        with pytest.raises(UnsupportedSpaceError, match=rf"{cls.__name__} needs a Box action space.*Discrete\(3\)"):
            cls(VECTOR, Discrete(3))


# Actions measured from an observed position.

PLAIN_HEADS = [name for name in HEADS if name != "mixture-censored"]


@pytest.mark.parametrize("name", PLAIN_HEADS)
def test_relative_head_is_a_head_of_displacements(name):
    plain = make_head(name, UNBOUNDED, **WINDOWS)
    policy = make_head(name, Box(-4, 4, (2,), np.float32), relative_to=[3, 1], **WINDOWS)
    observation, displacement = make_chunks(plain)
    observation = observation.clamp(-3, 3)
    position = observation[:, -1, [3, 1]].unsqueeze(1)
    for one in (plain, policy):
        one.fit_normalizer(observation, displacement)
    mask = torch.rand(displacement.shape[:2]) < 0.8
    torch.testing.assert_close(
        loss(policy, observation, position + displacement, mask), loss(plain, observation, displacement, mask)
    )
    for deterministic in (True, False):
        torch.manual_seed(1)
        planned = policy.plan(observation, deterministic)
        torch.manual_seed(1)
        expected = (position + plain.plan(observation, deterministic)).clamp(-4, 4)
        torch.testing.assert_close(planned, expected, rtol=1e-4, atol=1e-5)
        assert (planned.abs() < 4).any()


@pytest.mark.parametrize("size", [{}, WINDOWS])
def test_demonstrated_displacements_begin_at_last_observation(size):
    data = trajectories([6, 9])
    policy = make_head("flow", Box(-99, 99, (1,), np.float32), Box(-99, 99, (2,), np.float32), relative_to=[1], **size)
    windows = WindowedTransitions(data, policy.window)
    whole = windows[torch.arange(len(windows))]
    expected = whole.action - whole.observation[:, -1:, 1:]
    for observation in (data.observation, data.observation.split(4)):
        assert torch.equal(policy.demonstrated(data, observation), expected if size else expected[:, 0])


@pytest.mark.parametrize("relative_to", [[0], [0, 4], [0, -1], [0, 1, 2]])
def test_relative_to_must_name_a_number_for_each_action(relative_to):
    with pytest.raises(ConfigError, match=r"relative_to is .* of the observation, 0 to 3, for each of the 2"):
        make_head("flow", UNBOUNDED, relative_to=relative_to)


def test_relative_to_needs_a_vector():
    with pytest.raises(ConfigError, match="needs observations that are one vector"):
        make_head("flow", UNBOUNDED, OBSERVATIONS["image"], relative_to=[0, 1])


def test_relative_to_needs_one_encoder():
    pair = FlatBox(Dict({"arm": VECTOR, "hand": VECTOR}))
    with pytest.raises(ConfigError, match="needs one encoder for the whole vector"):
        make_head("flow", UNBOUNDED, pair, relative_to=[0, 1], encoder={"arm": "vector"})


def test_positions_keep_their_precision_beside_rounded_features():
    policy = make_head("flow", Box(0, 512, (2,), np.float32), relative_to=[0, 1])
    observation = torch.tensor([[[300.3, 401.7, 0.0, 0.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(policy.head(observation)[:, -2:].float(), observation[:, 0, :2])


def test_censored_mixture_is_not_relative():
    with pytest.raises(ConfigError, match="displacements have no bounds"):
        make_head("mixture-censored", UNBOUNDED, relative_to=[0, 1])
