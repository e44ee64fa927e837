import gymnasium as gym
import numpy as np
import pytest

from lit_imitation.experts import load_expert, planners, scripted
from lit_imitation.rollout import Episodes

ENV_ID = "Acrobot-v1"


def visited(count, seed):
    """States `[count, 4]` before the goal that episodes pass through, from hanging to swinging high."""
    generator = np.random.default_rng(seed)
    state = generator.uniform(-0.1, 0.1, (4, count))
    steps = generator.integers(60, size=count)
    for step in range(60):
        torque = scripted.acrobot(planners.acrobot_observation(state)) - 1
        torque[::2] = generator.choice([-1, 1], len(torque[::2]))
        following = planners.acrobot_step(state, torque)
        state = np.where((step < steps) & (planners.acrobot_height(following) <= 1), following, state)
    return state.T


@pytest.fixture
def env():
    with gym.make(ENV_ID) as env:
        env.reset(seed=0)
        yield env.unwrapped


def spaces():
    with gym.make(ENV_ID) as env:
        return env.observation_space, env.action_space


def test_the_model_steps_as_the_environment_does(env):
    generator = np.random.default_rng(0)
    states = generator.uniform(-1, 1, (500, 4)) * [np.pi, np.pi, 4 * np.pi, 9 * np.pi]
    actions = generator.integers(3, size=500)
    modelled = planners.acrobot_step(states.T, actions - 1)
    clipped = goals = 0
    for state, action, ours in zip(states, actions, modelled.T, strict=True):
        env.state = state
        observation, _, terminated, _, _ = env.step(action)
        np.testing.assert_allclose(planners.acrobot_observation(ours), observation, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours[2:], env.state[2:], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.exp(1j * ours[:2]), np.exp(1j * env.state[:2]), atol=1e-9)
        assert (planners.acrobot_height(ours) > 1) == terminated
        clipped += (np.abs(env.state[2:]) == [4 * np.pi, 9 * np.pi]).any()
        goals += terminated
    assert clipped > 10
    assert goals > 10


def arrival(env, state, side, first, second):
    """What a plan comes to in Gymnasium's environment: its first action, its steps and the height at their end."""
    env.state, steps, terminated, begun = state, 0, False, None
    while not terminated and steps < planners.HORIZON:
        if steps < first:
            action = 1 + side
        elif steps < first + second:
            action = 1 - side
        else:
            one, two, *speeds = env.state
            action = scripted.acrobot(np.array([[np.cos(one), np.sin(one), np.cos(two), np.sin(two), *speeds]]))[0]
        begun = action if begun is None else begun
        _, _, terminated, _, _ = env.step(action)
        steps += 1
    one, two, *_ = env.state
    return begun, steps, -np.cos(one) - np.cos(one + two)


@pytest.mark.parametrize(("longest", "count"), [(2, 10), (planners.LONGEST, 2)])
def test_the_choice_is_that_of_brute_force_in_the_environment(env, longest, count):
    states = visited(40, seed=longest)[:: 40 // count]
    observation = planners.acrobot_observation(states.T)
    torque, steps = planners.shortest_acrobot_plan(observation, planners.acrobot_plans(longest))
    for state, ours, length in zip(states, torque, steps, strict=True):
        every = [
            arrival(env, state, side, first, second)
            for side in (-1, 1)
            for first in range(longest + 1)
            for second in range(longest + 1)
        ]
        action, shortest, _ = min(every, key=lambda plan: (plan[1], -plan[2]))
        assert length == shortest
        assert ours + 1 == action
    if longest == planners.LONGEST:
        np.testing.assert_array_equal(planners.acrobot(observation), torque + 1)


def test_the_search_differs_from_the_law_it_improves():
    observation = planners.acrobot_observation(visited(60, seed=0).T)
    differs = planners.acrobot(observation) != scripted.acrobot(observation)
    assert 0.05 < differs.mean() < 0.6


def test_what_remains_of_a_plan_is_a_plan():
    plans = {tuple(plan) for plan in planners.acrobot_plans(3).tolist()}
    assert len(plans) == 2 * 3 * 3 + 2 * 3 + 1  # both torques, one alone, none
    assert (0,) * 6 in plans
    assert all((*plan[1:], 0) in plans for plan in plans)


def test_it_arrives_from_no_state_later_than_the_law_it_improves():
    lengths = {}
    for expert in (scripted.acrobot, planners.acrobot):
        envs = gym.make_vec(ENV_ID, num_envs=12, vectorization_mode="sync")
        lengths[expert] = [episode.length for episode in sorted(Episodes(envs, expert, 12, seed=0))]
        envs.close()
    assert np.all(np.array(lengths[planners.acrobot]) <= lengths[scripted.acrobot])
    assert np.mean(lengths[planners.acrobot]) < 63


def test_where_nothing_arrives_the_law_decides():
    observation = planners.acrobot_observation(visited(20, seed=0).T)
    torque, steps = planners.shortest_acrobot_plan(observation, planners.acrobot_plans(1), horizon=1)
    lost = steps == 2
    assert lost.sum() > 10
    np.testing.assert_array_equal(torque[lost] + 1, scripted.acrobot(observation[lost]))


def test_answers_each_row_alone_and_always_the_same():
    observation_space, action_space = spaces()
    expert = load_expert("lit_imitation.experts.planners:acrobot", ENV_ID, observation_space, action_space)
    generator = np.random.default_rng(0)
    anywhere = generator.uniform(observation_space.low, observation_space.high, (20, 6))  # DAgger may ask anywhere
    observation = np.concatenate([planners.acrobot_observation(visited(20, seed=1).T), anywhere]).astype(np.float32)
    action = expert(observation)
    assert action.dtype == np.int64
    assert set(action) == {0, 2}
    np.testing.assert_array_equal(expert(observation), action)
    order = generator.permutation(40)
    np.testing.assert_array_equal(expert(observation[order]), action[order])
    np.testing.assert_array_equal(np.concatenate([expert(row[None]) for row in observation]), action)
