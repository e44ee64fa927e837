"""Actors that remember observations and execute planned chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from lit_imitation import FlowPolicy
from lit_imitation.errors import ConfigError
from lit_imitation.policies.chunk_actor import ChunkActor
from lit_imitation.windows import WindowSize

OBSERVATION, ACTION = Box(-np.inf, np.inf, (3,), np.float32), Box(-1, 1, (2,), np.float32)


def policy(**settings):
    torch.manual_seed(0)
    return FlowPolicy(OBSERVATION, ACTION, hidden_sizes=[16, 16], **settings)


SETTINGS = {
    "history": {"n_obs_steps": 3, "horizon": 3},
    "chunk": {"horizon": 4, "n_action_steps": 4},
    "both": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 5},
    "ensemble": {"n_obs_steps": 2, "horizon": 6, "ensemble_decay": 0.1},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_many_environments_act_as_each_alone(settings):
    """Environments whose episodes start at different times."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(30, 4, 3)).astype(np.float32)
    starts = rng.random((30, 4)) < 0.15
    starts[0] = True
    together = policy(**settings).actor()
    alone = [policy(**settings).actor() for _ in range(4)]
    for observation, start in zip(observations, starts, strict=True):
        if start.any():
            together.reset(start)
        found = together.act(observation)
        for env, actor in enumerate(alone):
            if start[env]:
                actor.reset(np.ones(1, dtype=np.bool_))
            np.testing.assert_allclose(found[env], actor.act(observation[env : env + 1])[0], atol=1e-6)


def counting_plan(horizon):
    """A plan whose action h of the k-th plan is 100 k + h, and the windows it saw."""
    seen = []

    def plan(window):
        seen.append(window)
        steps = torch.arange(float(horizon)).expand(len(window), horizon)
        return (100.0 * len(seen) + steps)[..., None]

    return plan, seen


def test_chunks_are_executed_from_the_current_step_on():
    plan, seen = counting_plan(5)
    actor = ChunkActor(plan, WindowSize(2, 5, 3), torch.device("cpu"))
    actor.reset(np.ones(1, dtype=np.bool_))
    played = [float(actor.act(np.full((1, 1), t, np.float32))[0, 0]) for t in range(7)]
    assert played == [101, 102, 103, 201, 202, 203, 301]
    # The first observation stands for those before the episode.
    assert [window[0, :, 0].tolist() for window in seen] == [[0, 0], [2, 3], [5, 6]]


def test_ensembled_action_is_the_weighted_mean_of_plans():
    plan, _ = counting_plan(3)
    actor = ChunkActor(plan, WindowSize(1, 3, 1), torch.device("cpu"), ensemble_decay=0.5)
    played = [float(actor.act(np.zeros((1, 1), np.float32))[0, 0]) for _ in range(4)]
    w = [math.exp(-0.5 * i) for i in range(3)]
    assert played[0] == 100
    assert played[1] == pytest.approx((w[0] * 101 + w[1] * 200) / (w[0] + w[1]))
    for t in (2, 3):  # three plans say something about each step, the oldest of which counts most
        expected = sum(wi * (100 * (t - 1 + i) + 2 - i) for i, wi in enumerate(w)) / sum(w)
        assert played[t] == pytest.approx(expected)


def test_only_environments_without_actions_are_planned_for():
    plan, seen = counting_plan(4)
    actor = ChunkActor(plan, WindowSize(1, 4, 4), torch.device("cpu"))
    actor.reset(np.ones(3, dtype=np.bool_))
    observation = np.zeros((3, 1), np.float32)
    actor.act(observation)
    actor.reset(np.array([False, True, False]))
    assert actor.act(observation)[:, 0].tolist() == [101, 200, 101]
    assert [len(window) for window in seen] == [3, 1]


def test_actor_serves_another_number_of_environments():
    actor = policy(n_obs_steps=2, horizon=4, n_action_steps=2).actor()
    for count in (3, 3, 1, 5):
        assert actor.act(np.zeros((count, 3), np.float32)).shape == (count, 2)


def test_call_without_history_names_the_actor():
    with pytest.raises(ValueError, match=r"needs its last 2 observations: make an actor with policy.actor\(\)"):
        policy(n_obs_steps=2, horizon=2)(np.zeros(3, np.float32))


@pytest.mark.parametrize("decay", [-0.1, math.nan])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ConfigError, match="ensemble_decay"):
        policy(horizon=4, ensemble_decay=decay)
