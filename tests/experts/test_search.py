"""The planner: its model matches the environment, and its choice is the best candidate, never worse than its base."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest

from lit_imitation import collect, load_expert, make
from lit_imitation.experts import scripted
from lit_imitation.experts.search import (
    HORIZON,
    LONGEST,
    mountain_car,
    mountain_car_plans,
    mountain_car_step,
    shortest_mountain_car_plan,
)


def states(count, seed=0):
    """Observations from the whole state space."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-1.2, 0.49, count), rng.uniform(-0.07, 0.07, count)], axis=-1).astype(np.float32)


def simulate(state, plan):
    """The time of one plan, by a plain loop on the environment itself."""
    env = gymnasium.make("MountainCar-v0").unwrapped
    env.reset(seed=0)
    env.state = state.astype(np.float64)
    for step in range(HORIZON):
        before = float(env.state[0])
        law = int(scripted.mountain_car(np.array([env.state]))[0])
        action = law if step >= len(plan) or plan[step] == 0 else plan[step] + 1
        _, _, terminated, _, _ = env.step(action)
        if terminated:
            return step + (0.5 - before) / (float(env.state[0]) - before)
    return np.inf


def test_planner_model_matches_the_environment():
    env = gymnasium.make("MountainCar-v0").unwrapped
    env.reset(seed=0)
    edges = np.float32([[-1.2, -0.07], [-1.2, 0.0], [-1.19, -0.07], [0.59, 0.07]])
    for state, push in itertools.product(np.concatenate([states(200), edges]), (-1, 0, 1)):
        env.state = state.astype(np.float64)
        env.step(push + 1)
        following = mountain_car_step(state.astype(np.float64)[:, None], np.array([push]))[:, 0]
        np.testing.assert_allclose(following, np.array(env.state, np.float64), rtol=0, atol=1e-12)


def test_candidate_plans_are_complete_and_distinct():
    plans = mountain_car_plans(LONGEST)
    assert len(plans) == 81
    assert len(np.unique(plans, axis=0)) == 81
    assert not plans[0].any()  # the controller alone is a candidate
    for plan in plans:
        held = np.count_nonzero(plan)
        assert len(set(plan[:held].tolist())) <= 1
        assert not plan[held:].any()


@pytest.mark.slow
@pytest.mark.integration
def test_choice_matches_brute_force_on_the_environment():
    plans = mountain_car_plans(6)
    some = states(40, seed=1)
    push, time = shortest_mountain_car_plan(some, plans)
    for state, chosen, promised in zip(some, push, time, strict=True):
        times = np.array([simulate(state, plan) for plan in plans])
        assert promised == pytest.approx(times.min(), abs=1e-9)
        best = plans[times <= times.min() + 1e-9]
        law = scripted.mountain_car(state[None])[0] - 1
        assert chosen in np.where(best[:, 0] == 0, law, best[:, 0])


def test_planner_is_never_slower_than_the_controller():
    some = states(300, seed=2)
    _, best = shortest_mountain_car_plan(some, mountain_car_plans(LONGEST))
    _, base = shortest_mountain_car_plan(some, mountain_car_plans(0))
    assert (best <= base).all()
    assert (best < base - 1).mean() > 0.02


def test_batch_matches_single_rows_and_repeats():
    some = states(50, seed=3)
    together = mountain_car(some)
    np.testing.assert_array_equal(together, mountain_car(some))
    np.testing.assert_array_equal(together, np.concatenate([mountain_car(state[None]) for state in some]))
    assert together.dtype == np.int64
    assert set(together.tolist()) == {0, 2}


@pytest.mark.slow
@pytest.mark.integration
def test_planner_return_is_at_least_the_controllers():
    """Over the same ten episodes."""
    envs = make("MountainCar-v0", 5, 0)
    spaces = envs.single_observation_space, envs.single_action_space
    planner = load_expert("lit_imitation.experts.search:mountain_car", "MountainCar-v0", *spaces)
    returns = [collect(envs, actor, 10, 0).episode_returns() for actor in (planner, scripted.mountain_car)]
    envs.close()
    assert returns[0].mean() >= returns[1].mean() > -120
