import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import lit_imitation.envs  # noqa: F401 - registers our own environments
from lit_imitation.errors import ExpertError
from lit_imitation.experts import CONTROLLERS, load_expert

EXTRA = {"LunarLander-v3": "Box2D", "LunarLanderContinuous-v3": "Box2D"}
# Slightly below the mean return of each and well above the solved threshold, so a controller that got worse fails.
LEVEL = {
    "Acrobot-v1": -83,
    "CartPole-v1": 499.9,
    "LunarLander-v3": 265,
    "LunarLanderContinuous-v3": 282,
    "MountainCar-v0": -103,
    "MountainCarContinuous-v0": 97,
    "Pendulum-v1": -150,
    "lit_imitation/Corridor-v0": 0,
    "lit_imitation/LaneKeeping-v0": 0,
    "lit_imitation/PointMass-v0": -7,
}


def first_returns(env_id, expert, episodes, seed):
    """The return of the first episode in each of `episodes` environments."""
    envs = gym.vector.SyncVectorEnv([lambda: gym.make(env_id)] * episodes)
    observation, _ = envs.reset(seed=seed)
    returns, over = np.zeros(episodes), np.zeros(episodes, bool)
    while not over.all():
        observation, reward, terminated, truncated, _ = envs.step(expert.act(observation))
        returns += np.where(over, 0, reward)
        over |= terminated | truncated
    envs.close()
    return returns


def spaces_of(env_id):
    if env_id in EXTRA:
        pytest.importorskip(EXTRA[env_id])
    with gym.make(env_id) as env:
        return env.observation_space, env.action_space


def test_every_controller_has_a_level():
    assert set(LEVEL) == set(CONTROLLERS)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", sorted(CONTROLLERS))
def test_return_is_above_the_solved_threshold(env_id):
    expert = load_expert("scripted", env_id, *spaces_of(env_id))
    mean = first_returns(env_id, expert, episodes=100, seed=1).mean()
    assert mean >= (gym.spec(env_id).reward_threshold or -np.inf)
    assert mean >= LEVEL[env_id]


@pytest.mark.parametrize("env_id", sorted(CONTROLLERS))
def test_rows_are_independent_and_inside_the_space(env_id):
    observation_space, action_space = spaces_of(env_id)
    if isinstance(observation_space, spaces.Discrete):
        observation = np.random.default_rng(0).integers(observation_space.n, size=200)
    else:
        width = np.minimum(observation_space.high, 10.0)  # far outside of what episodes visit, as DAgger may ask
        observation = np.random.default_rng(0).uniform(-width, width, (200, *observation_space.shape))
        observation = observation.astype(np.float32)
    if env_id in EXTRA:
        observation[:, 6:] = observation[:, 6:] > 0.5
    expert = load_expert("scripted", env_id, observation_space, action_space)
    action = expert.act(observation)
    assert action.dtype == (np.int64 if isinstance(action_space, spaces.Discrete) else np.float32)
    assert action.shape == (200, *action_space.shape)
    assert all(action_space.contains(a) for a in action)
    assert len(np.unique(action, axis=0)) > 1
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(expert.act(observation[order]), action[order])
    np.testing.assert_allclose(np.concatenate([expert.act(row[None]) for row in observation]), action, atol=1e-6)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_continuous_controllers_are_continuous(env_id):
    rng = np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (5000, *spaces_of(env_id)[0].shape))
    nearby = observation + 1e-6 * rng.standard_normal(observation.shape)
    assert np.abs(CONTROLLERS[env_id](nearby) - CONTROLLERS[env_id](observation)).max() < 1e-3


def test_mirrored_states_get_mirrored_actions():
    mirror = np.array([-1, 1, -1, 1, -1, -1], np.float32)
    observation = np.random.default_rng(0).uniform(-1, 1, (500, 8)).astype(np.float32)
    observation[:, 6:] = observation[:, 6:] > 0
    mirrored = np.concatenate([observation[:, :6] * mirror, observation[:, [7, 6]]], axis=1)
    swap = np.array([0, 3, 2, 1])
    left, right = (CONTROLLERS["LunarLander-v3"](o) for o in (observation, mirrored))
    np.testing.assert_array_equal(swap[left], right)
    left, right = (CONTROLLERS["LunarLanderContinuous-v3"](o) for o in (observation, mirrored))
    np.testing.assert_allclose(left * [1, -1], right, atol=1e-6)


def test_environment_without_controller_lists_the_others():
    with pytest.raises(ExpertError, match=r"no scripted expert for Taxi-v3.*Acrobot-v1.*Pendulum-v1"):
        load_expert("scripted", "Taxi-v3", spaces.Discrete(500), spaces.Discrete(6))


def test_other_spaces_under_a_known_id_are_refused():
    observation_space, action_space = spaces_of("CartPole-v1")
    with pytest.raises(ExpertError, match="does not read observations"):
        load_expert("scripted", "CartPole-v1", spaces.Box(-1, 1, (7,)), action_space)
    with pytest.raises(ExpertError, match=r"scripted returned shape \(1,\) instead of shape \(1, 1\)"):
        load_expert("scripted", "CartPole-v1", observation_space, spaces.Box(-1, 1, (1,)))
