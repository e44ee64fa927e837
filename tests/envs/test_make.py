"""`make`: choice of the backend, results and errors."""

from __future__ import annotations

import importlib.util
import json
import sys

import counting
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from lit_imitation.envs import episode_limit, make, make_single
from lit_imitation.errors import ConfigError, MissingExtraError, UnsupportedSpaceError
from lit_imitation.policies import CategoricalPolicy, default_policy
from lit_imitation.rollout import collect
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.spaces import FlatBox, PackedBox, check_spaces

IMAGE = spaces.Box(0, 255, (12, 12, 3), np.uint8)


@pytest.fixture
def no_envpool(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "envpool" else find_spec(name, *a)
    )


def backend_of(envs):
    name = type(envs.unwrapped).__name__
    envs.close()
    return name


# Backends.


def test_auto_prefers_batched_version():
    assert backend_of(make("CartPole-v1", 2, 0)) == "CartPoleVectorEnv"
    assert backend_of(make("CartPole-v1", 2, 0, sutton_barto_reward=True)) == "CartPoleVectorEnv"
    assert backend_of(make("gymnasium:CartPole-v1", 2, 0)) == "CartPoleVectorEnv"


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "Pendulum-v1", "gymnasium.envs.classic_control:Pendulum-v1"])
def test_auto_uses_envpool_if_installed(env_id):
    pytest.importorskip("envpool")
    pytest.importorskip("Box2D")
    assert backend_of(make(env_id, 2, 0)) == "EnvPoolVectorEnv"


def test_auto_uses_sync_without_envpool(no_envpool):
    pytest.importorskip("Box2D")
    assert backend_of(make("LunarLander-v3", 2, 0)) == "SyncVectorEnv"


def test_auto_uses_sync_if_envpool_is_broken(monkeypatch):
    if importlib.util.find_spec("envpool") is None:
        pytest.skip("envpool is not installed, so it cannot break")
    monkeypatch.delitem(sys.modules, "lit_imitation.envs.envpool", raising=False)
    monkeypatch.setitem(sys.modules, "envpool", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: name == "envpool" or real(name, *a))
    assert backend_of(make("Pendulum-v1", 2, 0)) == "SyncVectorEnv"


def test_auto_uses_sync_for_gymnasium_only_features():
    assert backend_of(make("Spaces-v0", 2, 0)) == "SyncVectorEnv"
    assert backend_of(make("Pendulum-v1", 2, 0, g=5.0)) == "SyncVectorEnv"


@pytest.mark.parametrize(("backend", "cls"), [("sync", SyncVectorEnv), ("async", AsyncVectorEnv)])
def test_requested_backend_is_used(backend, cls):
    envs = make("CartPole-v1", 2, 0, backend)
    assert isinstance(envs, cls)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.num_envs == 2
    envs.close()


def test_requested_envpool_is_used():
    pytest.importorskip("envpool")
    envs = make("CartPole-v1", 3, 0, "envpool")
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    observation, _ = envs.reset(seed=1)
    again, _ = envs.reset(seed=1)
    other, _ = envs.reset(seed=2)
    unseeded, _ = envs.reset()
    listed, _ = envs.reset(seed=[5, 5, 6])
    envs.close()
    assert observation.shape == (3, 4)
    np.testing.assert_array_equal(observation, again)
    assert not np.array_equal(observation, other)
    assert not np.array_equal(unseeded, other)
    np.testing.assert_array_equal(listed[0], listed[1])
    assert not np.array_equal(listed[0], listed[2])


@pytest.mark.parametrize("backend", ["auto", "vector", "sync", "async"])
def test_make_seeds_first_reset(backend):
    def first_moves(seed):
        envs = make("CartPole-v1", 3, seed, backend)
        moves = [envs.step(np.ones(3, np.int64))[0] for _ in range(3)]
        envs.close()
        return np.stack(moves)

    np.testing.assert_array_equal(first_moves(4), first_moves(4))
    assert not np.array_equal(first_moves(4), first_moves(5))


@pytest.mark.parametrize("backend", ["vector", "sync", "async"])
def test_arguments_reach_environment(backend):
    def reward(**kwargs):
        envs = make("CartPole-v1", 2, 0, backend, **kwargs)
        given = envs.step(np.zeros(2, np.int64))[1]
        envs.close()
        return given.tolist()

    assert reward() == [1, 1]
    assert reward(sutton_barto_reward=True) == [0, 0]


def test_arguments_reach_single_environment():
    assert make_single("Pendulum-v1", g=5.0).unwrapped.g == 5.0
    assert make("Pendulum-v1", 1, 0, "sync", max_episode_steps=7).envs[0].spec.max_episode_steps == 7


# Observations.


def test_dict_and_tuple_observations_are_flattened():
    nested = spaces.Dict(
        a=spaces.Box(-1, 1, (2, 3), np.float32),
        b=spaces.Tuple([spaces.Discrete(4), spaces.Box(0, 9, (1,), np.float32)]),
    )
    envs = make("Spaces-v0", 3, 0, observation_space=nested)
    assert envs.single_observation_space == make_single("Spaces-v0", observation_space=nested).observation_space
    assert envs.single_observation_space.shape == (6 + 4 + 1,)
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (3, 11)
    np.testing.assert_array_equal(observation[:, 6:10].sum(1), 1)  # the one-hot Discrete part
    record = collect(envs, default_policy(envs.single_observation_space, envs.single_action_space).actor(), 4, 0)
    assert record.observation.shape == (12, 11)
    assert record.observation.dtype == torch.float32


def test_batched_dict_observations_are_flattened():
    env_id = "BatchedNextStep-v0"
    nested = spaces.Dict(a=spaces.Box(-1, 1, (2,), np.float32), b=spaces.Discrete(3))
    envs = make(env_id, 2, 0, "vector", observation_space=nested)
    assert envs.single_observation_space == make_single(env_id, observation_space=nested).observation_space
    record = collect(envs, lambda observation: np.zeros(len(observation), np.int64), 4, 0)
    envs.close()
    assert record.observation.shape == record.next_observation.shape == (12, 5)
    for observation in (record.observation, record.next_observation):
        np.testing.assert_array_equal(observation[:, 2:].sum(1), 1)
    inside = ~record.done[:-1]
    assert torch.equal(record.next_observation[:-1][inside], record.observation[1:][inside])
    assert not (record.next_observation[:-1][~inside] == record.observation[1:][~inside]).all(1).any()
    with pytest.raises(UnsupportedSpaceError, match="observation space"):
        make(env_id, 2, 0, "vector", observation_space=spaces.Dict(a=ODD["Sequence"]))
    with pytest.raises(ConfigError, match=r"BatchedSameStep-v0: the observations Dict.*choose backend sync"):
        make("BatchedSameStep-v0", 2, 0, observation_space=nested)
    assert make("BatchedSameStep-v0", 2, 0, "sync", observation_space=nested).single_observation_space.shape == (5,)


@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
def test_discrete_observations(backend):
    """FrozenLake: the cells on a path to the goal are known."""
    fixed = {} if backend == "auto" else {"is_slippery": False}
    envs = make("FrozenLake-v1", 2, 0, backend, **fixed)
    space = envs.single_observation_space
    assert isinstance(space, spaces.Discrete)
    assert space.n == 16
    if backend != "auto":
        down_down_right = {0: 1, 4: 1, 8: 2, 9: 2, 10: 1, 14: 2}
        record = collect(envs, lambda o: np.array([down_down_right[cell] for cell in o.tolist()]), 3, 0)
        assert record.observation.tolist() == [0, 4, 8, 9, 10, 14] * 3
        assert record.next_observation.tolist() == [4, 8, 9, 10, 14, 15] * 3
        assert record.episode_returns().tolist() == [1, 1, 1]
        assert record.terminated.sum() == 3
    policy = CategoricalPolicy(space, envs.single_action_space)
    record = collect(envs, policy.actor(deterministic=False), 5, 0)
    envs.close()
    assert record.observation.dtype == torch.int64
    assert record.observation.ndim == 1
    assert record.action.dtype == torch.int64
    assert policy.loss(record.observation, record.action).shape == (len(record),)


@pytest.mark.parametrize("shape", [(28, 30, 3), (3, 28, 30), (84, 84, 1)])
def test_uint8_images_reach_the_convolutions(shape):
    envs = make("Spaces-v0", 2, 0, observation_space=spaces.Box(0, 255, shape, np.uint8))
    policy = CategoricalPolicy(envs.single_observation_space, envs.single_action_space)
    assert any(isinstance(module, torch.nn.Conv2d) for module in policy.modules())
    record = collect(envs, policy.actor(deterministic=False), 3, 0)
    envs.close()
    assert record.observation.dtype == torch.uint8
    assert record.next_observation.dtype == torch.uint8
    assert record.observation.shape == (9, *shape)
    policy.loss(record.observation, record.action).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.encoder.parameters())


def test_recipe_spaces_agree_across_backends():
    """A policy trained on one backend has to work on another."""
    pytest.importorskip("envpool")
    for env_id in (
        "CartPole-v1",
        "Pendulum-v1",
        "MountainCar-v0",
        "Acrobot-v1",
        "LunarLander-v3",
        "Hopper-v5",
        "Ant-v5",
    ):
        if env_id.startswith(("Lunar", "Hopper", "Ant")):
            pytest.importorskip("Box2D" if env_id.startswith("Lunar") else "mujoco")
        single, envs = make_single(env_id), make(env_id, 2, 0, "envpool")
        single_space, batched_space = single.observation_space, envs.single_observation_space
        assert (single_space.shape, single_space.dtype) == (batched_space.shape, batched_space.dtype), env_id
        assert envs.reset(seed=0)[0].dtype == single_space.dtype, env_id
        single_space, batched_space = single.action_space, envs.single_action_space
        assert single_space == batched_space or (
            np.array_equal(single_space.low, batched_space.low)
            and np.array_equal(single_space.high, batched_space.high)  # float64 there
        ), env_id
        envs.close()
        single.close()


# Errors.

ODD = {
    "Text": spaces.Text(5),
    "Sequence": spaces.Sequence(spaces.Discrete(3)),
    "Graph": spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)),
    "OneOf": spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1)]),
}


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("name", [*ODD, "Dict of Sequence"])
def test_unsupported_observations_raise(name, backend):
    space = spaces.Dict(a=ODD["Sequence"]) if name == "Dict of Sequence" else ODD[name]
    with pytest.raises(UnsupportedSpaceError, match=rf"Spaces-v0: the observation space .*{name.split()[-1]}"):
        make("Spaces-v0", 2, 0, backend, observation_space=space)


@pytest.mark.parametrize("name", [*ODD, "Dict", "Tuple", "MultiBinary", "MultiDiscrete"])
def test_unsupported_actions_raise(name):
    more = {"Dict": spaces.Dict(a=spaces.Discrete(2)), "Tuple": spaces.Tuple([spaces.Discrete(2)])}
    more["MultiBinary"] = spaces.MultiBinary(3)
    more["MultiDiscrete"] = spaces.MultiDiscrete([[2, 3], [4, 5]])  # only vectors are supported
    with pytest.raises(UnsupportedSpaceError, match=rf"Spaces-v0: the action space {name}"):
        make("Spaces-v0", 2, 0, action_space=(ODD | more)[name])


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", ["Blackjack-v1", "FrozenLake-v1", "CartPole-v1"])
def test_observation_space_agrees_across_backends(env_id):
    single = make_single(env_id)
    for backend in ("auto", "sync", "async"):
        envs = make(env_id, 2, 0, backend)
        assert envs.single_observation_space == single.observation_space, backend
        assert envs.reset(seed=0)[0].shape == (2, *single.observation_space.shape)
        envs.close()


def test_envpool_with_other_observations_is_not_used():
    pytest.importorskip("envpool")
    assert backend_of(make("Blackjack-v1", 2, 0)) == "SyncVectorEnv"
    with pytest.raises(ConfigError, match=r"Blackjack-v1: EnvPool's observations are .*use backend sync"):
        make("Blackjack-v1", 2, 0, "envpool")


@pytest.mark.integration
def test_flattened_space_remembers_original():
    original = spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(-1, 1, (2,), np.float32))
    for backend in ("sync", "async"):
        envs = make("Spaces-v0", 2, 0, backend, observation_space=original)
        space = envs.single_observation_space
        assert isinstance(space, FlatBox)
        assert space.original == original
        assert space == spaces.flatten_space(original)
        envs.close()


@pytest.mark.integration
def test_observations_with_an_image_are_packed():
    original = spaces.Dict(
        camera=spaces.Box(0, 255, (5, 4, 3), np.uint8), kind=spaces.Discrete(3), state=spaces.Box(-1, 1, (2,))
    )
    raw = gymnasium.make("Spaces-v0", observation_space=original)
    seen = raw.reset(seed=0)[0]
    for backend in ("sync", "async"):
        envs = make("Spaces-v0", 2, 0, backend, observation_space=original)
        space = envs.single_observation_space
        assert space == PackedBox(original)
        observation, _ = envs.reset(seed=0)
        np.testing.assert_array_equal(observation[0], space.flatten(seen))
        while True:  # into the next episode
            observation, _, terminated, truncated, info = envs.step(envs.action_space.sample())
            if (terminated | truncated).any():
                break
        final = info["final_obs"][np.flatnonzero(terminated | truncated)[0]]
        assert final.shape == space.shape
        envs.close()


def test_integer_box_actions_are_rejected():
    with pytest.raises(UnsupportedSpaceError, match="Box of int64, which is not supported"):
        check_spaces(counting.OBSERVATIONS, spaces.Box(0, 3, (2,), np.int64), "X-v0")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("NoSuchThing-v0", "NoSuchThing"),
        ("LunarLander-v99", "v99"),
        ("LunarLander", "LunarLander"),
        ("nowhere_at_all:X-v0", "nowhere_at_all"),
        ("NoSpace/Pong-v5", "NoSpace"),
        ("not an id", "Malformed"),
        ("", "Malformed"),
        ("Hopper-v2", "gymnasium-robotics"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_unknown_ids_raise(env_id, message):
    if env_id.startswith("Hopper"):
        pytest.importorskip("mujoco")
    with pytest.raises(ConfigError, match=message):
        make(env_id, 2, 0)


def test_invalid_settings_raise():
    with pytest.raises(ConfigError, match="num_envs is 0"):
        make("CartPole-v1", 0, 0)
    with pytest.raises(ConfigError, match="MountainCar-v0 has no batched version"):
        make("MountainCar-v0", 2, 0, "vector")
    with pytest.raises(ConfigError, match=r"'multi'.*sync, async"):
        make("CartPole-v1", 2, 0, "multi")
    with pytest.raises(ConfigError, match="seed is -1"):
        make("CartPole-v1", 2, -1)
    for backend in ("vector", "sync", "async"):
        with pytest.raises(ConfigError, match=r"CartPole-v1 cannot be made with the arguments \{'gravity': 3\}"):
            make("CartPole-v1", 2, 0, backend, gravity=3)


def test_unsupported_envpool_settings_raise():
    pytest.importorskip("envpool")
    with pytest.raises(ConfigError, match=r"Spaces-v0: EnvPool .* has no environment with this id; choose another"):
        make("Spaces-v0", 2, 0, "envpool")
    with pytest.raises(ConfigError, match=r"EnvPool does not accept the arguments \['g'\]"):
        make("Pendulum-v1", 2, 0, "envpool", g=5.0)


@pytest.mark.parametrize(
    ("module", "env_id", "extra"),
    [("Box2D", "LunarLander-v3", "box2d"), ("mujoco", "Hopper-v5", "mujoco"), ("Box2D", "BipedalWalker-v3", "box2d")],
)
def test_missing_extra_error_gives_pip_command(monkeypatch, module, env_id, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for build in (lambda: make(env_id, 2, 0), lambda: make(env_id, 2, 0, "async"), lambda: make_single(env_id)):
        with pytest.raises(MissingExtraError) as caught:
            build()
        text = str(caught.value)
        assert f'pip install "lit-imitation[{extra}]"' in text
        assert env_id in text
        assert "\n" not in text


def test_missing_envpool_error_gives_pip_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_imitation.envs.envpool", raising=False)
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lit-imitation\[envpool\]"'):
        make("CartPole-v1", 2, 0, "envpool")


# Return of random actions.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path))
    return tmp_path


def test_random_return_is_measured_once(cache, monkeypatch):
    # Published estimates are close to 22; 4 standard errors of 100 episodes with standard deviation 12.
    value = random_return("CartPole-v1")
    assert value == pytest.approx(22.2, abs=4 * 1.2)
    (file,) = cache.rglob("*.json")
    assert json.loads(file.read_text())["return_mean"] == value

    def broken(*args, **kwargs):
        raise AssertionError("stepped again")

    with monkeypatch.context() as patch:
        module = importlib.import_module(
            "lit_imitation.rollout.random_return"
        )  # the function of this name in the package
        patch.setattr(module, "make", broken)
        assert random_return("CartPole-v1") == value
        with pytest.raises(AssertionError):  # another environment needs another measurement
            random_return("CartPole-v1", sutton_barto_reward=True)
    file.unlink()
    torch.manual_seed(5)
    np.random.seed(5)
    assert random_return("CartPole-v1") == value


def test_random_return_depends_on_arguments(cache):
    assert -1.0 <= random_return("CartPole-v1", sutton_barto_reward=True) <= 0
    assert len(list(cache.rglob("*.json"))) == 1


def test_random_return_matches_independent_measurement(cache):
    env, returns = gymnasium.make("CartPole-v1"), []
    env.action_space.seed(1)
    for episode in range(300):
        env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + reward, terminated or truncated
        returns.append(total)
    error = np.std(returns) * np.sqrt(1 / 300 + 1 / 100)
    assert abs(random_return("CartPole-v1") - np.mean(returns)) < 4 * error


# Ids.


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("env_id", "observation", "limit"), [("Catch-v0", (10, 5), None), ("CartpoleBalance-v1", (5,), 1000)]
)
def test_envpool_only_id(env_id, observation, limit, tmp_path, monkeypatch):
    envpool = pytest.importorskip("envpool")
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path))
    pool = envpool.make_gymnasium(env_id, num_envs=3, seed=5)
    first, _ = pool.reset()
    if isinstance(first, dict):
        first = np.concatenate([first[key].reshape(3, -1) for key in pool.observation_space], axis=1)
    pool.close()
    for backend in ("auto", "envpool"):
        envs = make(env_id, 3, 5, backend)
        assert envs.single_observation_space.shape == observation
        got, _ = envs.reset(seed=5)
        assert got.shape == (3, *observation)
        np.testing.assert_allclose(got, first, rtol=1e-6)
        assert envs.step(envs.action_space.sample())[0].shape == (3, *observation)
        envs.close()
    assert episode_limit(env_id) == limit
    for backend in ("sync", "async", "vector"):
        with pytest.raises(ConfigError, match=f"only EnvPool provides {env_id}, so backend {backend} cannot"):
            make(env_id, 3, 5, backend)
    with pytest.raises(ConfigError, match=f"only EnvPool provides {env_id}, and only as a batch"):
        make_single(env_id)
    if env_id == "Catch-v0":  # short episodes of return -1 or 1
        assert -1 < random_return(env_id) < 1


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("Hoper-v5", "Hopper-v5"),
        ("Hopper", "Hopper-v5"),
        ("CartPole-v7", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("lit_imitation/Coridor-v0", "lit_imitation/Corridor-v0"),
        ("Coridor-v0", None),
    ],
)
def test_unknown_id_error_suggests_similar_ids(env_id, near):
    with pytest.raises(ConfigError, match=f"env_id '{env_id}'.*{f'did you mean.* {near}' if near else ''}") as error:
        make(env_id, 1, 0)
    assert "\n" not in str(error.value)
