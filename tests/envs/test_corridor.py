"""Corridor against a plain loop over its rules, and the closed forms of the cost of errors."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from lit_imitation.envs import make, make_single
from lit_imitation.envs.corridor import COMMON, OFF, RARE, RETURN, CorridorVectorEnv
from lit_imitation.errors import ConfigError
from lit_imitation.experts import CONTROLLERS
from lit_imitation.rollout import collect

ENV = "lit_imitation/Corridor-v0"
RIGHT = {0: 4, 1: 0, 2: 1, 3: 2, 4: 3, 5: 1, 6: 2, 7: 3}  # observation to action, with 6 rare situations
expert = CONTROLLERS[ENV]


def situation(uniform, situations, probability):
    return 2 + int(uniform / probability * situations) if uniform < probability else 1


def step_plain_loop(seed, actions, horizon, situations, probability, recoverable):
    """Observation, reward, truncated and next observation of every step of one copy, with resets between episodes."""
    rng, rows, actions = np.random.default_rng(seed), [], list(actions)
    while True:
        state = situation(rng.random(), situations, probability)
        for t in range(horizon):
            if not actions:
                return rows
            action, fresh = actions.pop(0), situation(rng.random(), situations, probability)
            back = action == RIGHT[state] or (recoverable and state == 0)
            rows.append((state, 0.0 if back else -1.0, t == horizon - 1, fresh if back else 0))
            state = rows[-1][3]


@pytest.mark.slow
@pytest.mark.grid
@pytest.mark.integration
@pytest.mark.parametrize("recoverable", [False, True])
@pytest.mark.parametrize("backend", ["vector", "sync", "single"])
def test_steps_match_plain_loop(backend, recoverable):
    rules = {"horizon": 7, "situations": 6, "probability": 0.4, "recoverable": recoverable}
    actions = np.random.default_rng(1).choice(5, 3000, p=[0.4, 0.15, 0.15, 0.15, 0.15])
    wanted = step_plain_loop(5, actions, **rules)
    assert {row[0] for row in wanted} == set(range(8))
    assert {row[1] for row in wanted} == {0.0, -1.0}
    single = make_single(ENV, **rules)
    if backend == "single":
        state, _ = single.reset(seed=5)
        for action, row in zip(actions, wanted, strict=True):
            following, reward, terminated, truncated, _ = single.step(action)
            assert (state, reward, truncated, following) == row
            assert not terminated
            state = single.reset()[0] if truncated else following
        return
    played = iter(actions)
    envs = make(ENV, 1, 0, backend, **rules)
    dead = envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP

    steps, previous = 0, False

    def actor(observation):
        nonlocal steps, previous
        if dead and previous:
            previous = False
            return np.array([3])
        steps += 1
        previous = steps % 7 == 0
        return np.array([next(played)])

    record = collect(envs, actor, 3000 // 7, seed=5)
    for i, row in enumerate(wanted[: len(record)]):
        assert (
            int(record.observation[i]),
            float(record.reward[i]),
            bool(record.truncated[i]),
            int(record.next_observation[i]),
        ) == row
    assert len(record) == 3000 // 7 * 7
    assert not record.terminated.any()


def test_copies_in_a_batch_are_independent():
    envs = make(ENV, 400, 0, horizon=9, situations=6, probability=0.5)
    assert type(envs.unwrapped) is CorridorVectorEnv
    rng = np.random.default_rng(0)
    acting = rng.integers(5, size=(9, 400))
    observation, _ = envs.reset(seed=2)
    for t, action in enumerate(acting):
        wanted = np.array([RIGHT[state] for state in observation.tolist()])
        following, reward, terminated, truncated, _ = envs.step(action)
        np.testing.assert_array_equal(following == OFF, action != wanted)
        np.testing.assert_array_equal(reward, np.where(action == wanted, 0, -1))
        assert not terminated.any()
        assert (truncated == (t == 8)).all()
        observation = following
    observation, reward, _, truncated, _ = envs.step(acting[0])  # starts the next episodes
    assert (observation != OFF).all()
    assert not reward.any()
    assert not truncated.any()


def test_situations_are_independent_with_stated_probabilities():
    envs = make(ENV, 1000, 0, horizon=1000, situations=4, probability=0.2)
    observation, _ = envs.reset(seed=0)
    seen = [observation]
    for _ in range(200):
        observation = envs.step(expert(observation))[0]
        seen.append(observation)
    states = np.array(seen)
    frequency = np.bincount(states.ravel(), minlength=6) / states.size
    np.testing.assert_allclose(frequency, [0, 0.8, 0.05, 0.05, 0.05, 0.05], atol=5 * np.sqrt(0.2 * 0.8 / states.size))
    rare = states >= RARE
    both = (rare[1:] & rare[:-1]).mean()
    assert both == pytest.approx(0.04, abs=5 * np.sqrt(0.04 / states.size))
    assert (make(ENV, 50, 0, probability=0.0).reset(seed=0)[0] == COMMON).all()


@pytest.mark.integration
@pytest.mark.parametrize(("returns", "recoverable"), [(False, False), (False, True), (True, False)])
def test_cost_of_errors_matches_closed_form(returns, recoverable):
    """A learner that knows three in four rare situations, by the law of the two-state chain."""
    horizon, epsilon = 40, 0.08 / 4
    envs = make(ENV, 20_000, 0, horizon=horizon, situations=4, probability=0.08, recoverable=recoverable)

    def learner(observation):
        action = expert(observation)
        action[observation == RARE] = 0
        return action if returns else np.where(observation == OFF, 0, action)

    off, wanted = 0.0, 0.0
    for _ in range(horizon):
        stays = off * (not (returns or recoverable))
        off = stays + epsilon * (1 - off)
        wanted += off
    if not (returns or recoverable):
        assert wanted == pytest.approx(sum(1 - (1 - epsilon) ** t for t in range(1, horizon + 1)))
    costs = -collect(envs, learner, 20_000, seed=3).episode_returns().numpy()
    assert costs.mean() == pytest.approx(wanted, abs=5 * costs.std() / np.sqrt(20_000))


def test_expert_never_leaves_corridor():
    record = collect(make(ENV, 50, 0, probability=0.5), expert, 100, seed=0)
    assert not record.reward.any()
    assert not (record.action == RETURN).any()
    assert set(record.action.unique().tolist()) == {0, 1, 2, 3}


def test_gymnasium_checks_pass():
    check_env(make_single(ENV).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"horizon": 0}, "horizon is 0"), ({"situations": 0}, "situations is 0"), ({"probability": 1.5}, "lie in")],
)
def test_invalid_corridor_arguments_are_rejected(arguments, text):
    with pytest.raises(ConfigError, match=text):
        make(ENV, 2, 0, **arguments)


@pytest.mark.slow
@pytest.mark.integration
def test_registration_imports_no_environment():
    code = (
        "import sys, lit_imitation.envs, gymnasium; gymnasium.spec('lit_imitation/Corridor-v0'); "
        "gymnasium.spec('lit_imitation/LaneKeeping-v0'); "
        "sys.exit(any(f'lit_imitation.envs.{name}' in sys.modules for name in ('corridor', 'lane_keeping')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert gymnasium.spec(ENV).vector_entry_point is not None
