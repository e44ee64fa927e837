import base64
import json
import os
import pickle
import sys
import textwrap
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from lit_imitation.errors import ExpertError, MissingExtraError, UnsupportedSpaceError
from lit_imitation.experts import add_expert, checked, load_expert
from lit_imitation.experts.base import space_mismatch
from lit_imitation.utils.cache import Key
from lit_imitation.utils.seeding import RandomStream

OBSERVATION, DISCRETE = spaces.Box(-np.inf, np.inf, (3,)), spaces.Discrete(4)
BOX = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 4], np.float32))


class Evil:
    """Creates a file when unpickled, as a trace that code ran."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


# --- any spec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["", "oracle", "npz:", "sb3:", "checkpoint:", "./my.npz", "a.b:", ":f", "zip:a/b.zip"])
def test_unknown_expert_lists_the_forms(spec):
    with pytest.raises(ExpertError, match=r"(?s)there is no expert.*scripted.*npz:PATH.*sb3:PATH.*module:function"):
        load_expert(spec, "CartPole-v1", OBSERVATION, DISCRETE)


def mine(expert, action_space):
    """Its checked `act`."""
    return checked(expert, OBSERVATION, action_space, "mine").act


# --- checked ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "answer", "message"),
    [
        (DISCRETE, np.array([[0], [1]]), r"mine returned shape \(2, 1\) instead of shape \(2,\)"),
        (DISCRETE, np.array(1), r"shape \(\) instead of shape \(2,\)"),
        (DISCRETE, np.array([0.0, 1.0]), "dtype float64 instead of integers"),
        (DISCRETE, np.array([0, 4]), r"row 1, action 4 is not in Discrete\(4\)"),
        (DISCRETE, np.array([-1, 4]), r"row 0, action -1"),
        (BOX, np.zeros((2, 3)), r"shape \(2, 3\) instead of shape \(2, 2\)"),
        (BOX, np.array([[0, 0], [0, np.nan]]), r"row 1, action \[0.0, nan\]"),
        (BOX, np.array([[0, 4], [0, 4.5]]), r"row 1, action \[0.0, 4.5\] is not in Box"),
        (BOX, np.array([["a", "b"], ["c", "d"]]), "dtype <U1 instead of numbers"),
        (BOX, None, "returned None"),
        (BOX, {"a": 1}, r"shape \(\)"),
    ],
)
def test_checked_names_the_fault_of_an_action(space, answer, message):
    with pytest.raises(ExpertError, match=message):
        mine(lambda observation: answer, space)(np.zeros((2, 3)))


def test_checked_converts_dtypes():
    shifted = spaces.Discrete(2, start=5)
    assert mine(lambda o: [5, 6], shifted)(np.zeros((2, 3))).dtype == np.int64
    answer = mine(lambda o: [[1, 4], [-1, -2]], BOX)(np.zeros((2, 3)))
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, [[1, 4], [-1, -2]])


def test_checked_accepts_multidiscrete_actions():
    several = spaces.MultiDiscrete([2, 3], start=[0, 5])
    answer = mine(lambda o: np.int32([[0, 5], [1, 7]]), several)(np.zeros((2, 3)))
    assert answer.dtype == np.int64
    with pytest.raises(ExpertError, match=r"row 1, action \[1, 8\] is not in MultiDiscrete"):
        mine(lambda o: np.array([[0, 5], [1, 8]]), several)(np.zeros((2, 3)))
    with pytest.raises(ExpertError, match=r"dtype float64 instead of integers"):
        mine(lambda o: np.array([[0.0, 5], [1, 7]]), several)(np.zeros((2, 3)))
    assert not space_mismatch(several, spaces.MultiDiscrete([2, 3], start=[0, 5]), bounds=True)
    for other in (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2], start=[0]), spaces.Discrete(2), BOX):
        assert space_mismatch(several, other, bounds=False)


@pytest.mark.parametrize("pack", [list, tuple, np.asarray, torch.tensor, lambda a: torch.tensor(a).requires_grad_()])
def test_checked_reads_arrays_lists_tensors_and_pairs(pack):
    wanted = [[1.0, 4.0], [-1.0, -2.0], [0.0, 0.5]]
    for given in (pack(wanted), (pack(wanted), None), [torch.tensor(row, requires_grad=True) for row in wanted]):
        answer = mine(lambda o, given=given: given, BOX)(np.zeros((3, 3)))
        assert type(answer) is np.ndarray
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, wanted)


def test_checked_reads_a_pair_of_two_actions_as_two_actions():
    np.testing.assert_array_equal(mine(lambda o: (1, 2), DISCRETE)(np.zeros((2, 3))), [1, 2])
    np.testing.assert_array_equal(mine(lambda o: ([1], None), DISCRETE)(np.zeros((1, 3))), [1])


def test_checked_refuses_a_returned_state():
    for state in (np.zeros((1, 2, 8)), (np.zeros(3), np.zeros(3)), {}):
        with pytest.raises(ExpertError, match=r"expert mine returned a pair; .* clears it in reset"):
            mine(lambda o, state=state: (np.zeros(3, int), state), DISCRETE)(np.zeros((3, 3)))


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(0), RuntimeError(), IndexError("4")])
def test_checked_names_an_expert_that_raises(error):
    def expert(observation):
        raise error

    with pytest.raises(ExpertError, match=rf"expert mine failed at observations \[2, 3\]: {type(error).__name__}"):
        mine(expert, DISCRETE)(np.zeros((2, 3)))


@pytest.mark.parametrize("answer", [[[1, 2], [3]], object(), "ab", {"action": 1}, iter([1, 2]), [None, None]])
def test_checked_names_an_expert_that_returns_nonsense(answer):
    with pytest.raises(ExpertError, match=r"^expert mine returned"):
        mine(lambda o: answer, BOX)(np.zeros((2, 3)))


@pytest.mark.parametrize("expert", [None, 3, "scripted", np.zeros(2), type("Mine", (), {})])
def test_checked_refuses_objects_that_cannot_act(expert):
    with pytest.raises(ExpertError, match=r"expert mine: a .* cannot act|expert mine is a class, not an instance"):
        mine(expert, DISCRETE)


def test_checked_refuses_unsupported_action_space():
    with pytest.raises(UnsupportedSpaceError, match="MultiBinary"):
        mine(lambda o: o, spaces.MultiBinary(3))


# --- npz --------------------------------------------------------------------------------------------------------------


def network(outputs, output, **other):
    rng = np.random.default_rng(0)
    arrays = {"W0": rng.standard_normal((3, 5)), "b0": rng.standard_normal(5), "W1": rng.standard_normal((5, outputs))}
    return {**arrays, "b1": rng.standard_normal(outputs), "n_layers": 2, "activation": "tanh", "output": output} | other


def load_npz(path, arrays, action_space, **options):
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return load_expert(f"npz:{path}", "any", OBSERVATION, action_space, **options)


@pytest.fixture
def observation():
    return np.random.default_rng(2).standard_normal((6, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", np.tanh),
        ("relu", lambda x: x * (x > 0)),
        ("lrelu", lambda x: np.maximum(x, x / 100)),
        ("identity", lambda x: x),
    ],
)
def test_npz_computes_the_network_row_by_row(tmp_path, observation, activation, function):
    a = network(2, "linear", activation=activation)
    a |= {"obs_mean": np.array([0.5, -1, 0]), "obs_std": np.array([2, 0.5, 1]), "obs_clip": 1.0}
    action = load_npz(tmp_path / "e.npz", a, BOX).act(observation)
    assert action.dtype == np.float32
    for row, x in zip(action, observation, strict=True):
        x = np.clip((x - a["obs_mean"]) / a["obs_std"], -1, 1)
        out = function(x @ a["W0"] + a["b0"]) @ a["W1"] + a["b1"]
        np.testing.assert_allclose(row, np.clip(out, BOX.low, BOX.high), rtol=1e-6)


def test_npz_output_kinds(tmp_path, observation):
    raw_box = spaces.Box(-np.inf, np.inf, (2,))
    raw = load_npz(tmp_path / "raw.npz", network(2, "linear"), raw_box).act(observation).astype(np.float64)
    middle, half = np.array([0, 1]), np.array([1, 3])
    squashed = load_npz(tmp_path / "tanh.npz", network(2, "tanh"), BOX).act(observation)
    np.testing.assert_allclose(squashed, middle + half * np.tanh(raw), rtol=1e-5)
    assert np.abs(raw).max() > 2, "nothing to clip, so the next check could not fail"
    hard = load_npz(tmp_path / "hard.npz", network(2, "tanh_hard2"), BOX).act(observation)
    np.testing.assert_allclose(hard, middle + half * np.tanh(np.clip(raw, -2, 2)), rtol=1e-5)
    choice = load_npz(tmp_path / "argmax.npz", network(2, "argmax"), spaces.Discrete(2, start=3)).act(observation)
    assert choice.dtype == np.int64
    np.testing.assert_array_equal(choice, 3 + raw.argmax(axis=1))


def test_npz_draws_its_gaussian_from_numpys_global_stream(tmp_path):
    wide = spaces.Box(-1000, 1000, (2,))
    arrays = network(2, "linear", log_std=np.log([0.5, 2.0]))
    mean = load_npz(tmp_path / "e.npz", arrays, wide)
    draw = load_npz(tmp_path / "e.npz", arrays, wide, deterministic=False)
    same = np.ones((20_000, 3), np.float32)
    with RandomStream(7):
        first = draw.act(same)
    with RandomStream(7):
        np.testing.assert_array_equal(draw.act(same), first)
    noise = first - mean.act(same)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(noise.std(axis=0), [0.5, 2.0], rtol=0.03)
    assert BOX.contains(load_npz(tmp_path / "e.npz", arrays, BOX, deterministic=False).act(same).max(axis=0))


def test_npz_draws_from_the_softmax_of_its_logits(tmp_path):
    logits = np.log([0.1, 0.2, 0.3, 0.4])
    arrays = network(4, "argmax", W1=np.zeros((5, 4)), b1=logits)
    expert = load_npz(tmp_path / "e.npz", arrays, DISCRETE, deterministic=False)
    with RandomStream(0):
        action = expert.act(np.zeros((40_000, 3)))
    np.testing.assert_allclose(np.bincount(action) / 40_000, [0.1, 0.2, 0.3, 0.4], atol=0.012)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W1": None}, "W1 is missing"),
        ({"b0": None}, "b0 is missing"),
        ({"activation": None}, "activation is missing"),
        ({"n_layers": None}, "n_layers is missing"),
        ({"activation": "swish"}, "activation is 'swish', not one of tanh, relu"),
        ({"output": "softmax"}, "output is 'softmax', not one of linear"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": 3}, "W2 is missing"),
        ({"W0": np.zeros((9, 5))}, "W0 reads 9 numbers, but the environment's observation has 3"),
        ({"W0": np.zeros(5)}, r"W0 has shape \[5\] instead of \[any, any\]"),
        ({"W1": np.zeros((4, 2))}, "W1 reads 4 numbers, but W0 has 5"),
        ({"b0": np.zeros(4)}, r"b0 has shape \[4\] instead of \[5\]"),
        ({"b0": np.array(list("abcde"))}, "b0 has dtype <U1"),
        ({"b0": np.array([0, 0, np.nan, 0, 0])}, "b0 holds NaN"),
        ({"W1": np.zeros((5, 7)), "b1": np.zeros(7)}, "b1 gives 7 numbers for an action of 2"),
        ({"output": "argmax"}, "output is argmax, but the action space is Box"),
        ({"obs_mean": np.zeros(2)}, r"obs_mean has shape \[2\] instead of \[3\]"),
        ({"obs_std": np.array([1.0, 0.0, 1.0])}, "obs_std is not positive at index 1"),
        ({"obs_clip": -1.0}, "obs_clip is -1"),
    ],
)
def test_npz_faults_name_file_and_key(tmp_path, change, message):
    with pytest.raises(ExpertError, match=rf"bad\.npz: {message}"):
        load_npz(tmp_path / "bad.npz", network(2, "linear") | change, BOX)


def test_npz_for_other_spaces_is_refused(tmp_path):
    path = tmp_path / "e.npz"
    with pytest.raises(ExpertError, match=r"b1 gives 2 logits for 4 actions"):
        load_npz(path, network(2, "argmax"), DISCRETE)
    with pytest.raises(ExpertError, match=r"output is linear, but the action space is Discrete"):
        load_npz(path, network(4, "linear"), DISCRETE)
    with pytest.raises(ExpertError, match=r"output is tanh, which needs a bounded action space"):
        load_npz(path, network(2, "tanh"), spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ExpertError, match=r"log_std is missing"):
        load_npz(path, network(2, "tanh"), BOX, deterministic=False)
    with pytest.raises(ExpertError, match=r"log_std has shape \[3\] instead of \[2\]"):
        load_npz(path, network(2, "tanh", log_std=np.zeros(3)), BOX, deterministic=False)
    with pytest.raises(UnsupportedSpaceError, match=r"not Discrete\(5\)"):
        load_expert(f"npz:{path}", "any", spaces.Discrete(5), BOX)


def test_npz_for_other_spaces_names_its_own_env_id(tmp_path):
    path = tmp_path / "e.npz"
    load_npz(path, network(2, "linear", env_id="Humanoid-v4"), BOX)
    with pytest.raises(ExpertError, match=r"W0 reads 3 numbers, .* has 4; the file's env_id is Humanoid-v4$"):
        load_expert(f"npz:{path}", "Humanoid-v5", spaces.Box(-1, 1, (4,)), BOX)
    for action_space in (DISCRETE, spaces.Box(-1, 1, (5,))):
        with pytest.raises(ExpertError, match=r"the file's env_id is Humanoid-v4$"):
            load_expert(f"npz:{path}", "Humanoid-v5", OBSERVATION, action_space)


def test_unreadable_npz_is_named(tmp_path):
    path = tmp_path / "e.npz"
    with pytest.raises(ExpertError, match=r"e\.npz: no such file"):
        load_expert(f"npz:{path}", "any", OBSERVATION, BOX)
    load_npz(path, network(2, "linear"), BOX)
    whole = path.read_bytes()
    contents = [b"", b"not a zip", whole[: len(whole) // 2], whole[:-1]]
    contents.append(whole[:80] + bytes([whole[80] ^ 255]) + whole[81:])  # one byte wrong: the checksum tells
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ExpertError, match=r"e\.npz: .* cannot be read"):
            load_expert(f"npz:{path}", "any", OBSERVATION, BOX)


def test_npz_never_executes_a_pickle(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.npz"
    with pytest.raises(ExpertError, match=r"evil\.npz: W0 cannot be read as an array without pickles"):
        load_npz(path, network(2, "linear", W0=np.array([Evil(trace)], dtype=object)), BOX)
    raw = pickle.dumps(Evil(trace))
    path.write_bytes(raw)
    with pytest.raises(ExpertError, match="cannot be read as an array without pickles"):
        load_expert(f"npz:{path}", "any", OBSERVATION, BOX)
    assert not trace.exists()
    pickle.loads(raw)
    assert trace.exists(), "the trap does not work, so the test shows nothing"


# --- experts made by others -------------------------------------------------------------------------------------------

OTHERS = Path(os.environ.get("LIT_IMITATION_EXPERTS", Path(__file__).parents[3] / "shared" / "experts"))


@pytest.mark.skipif(
    not OTHERS.is_dir(), reason=f"no {OTHERS.name} folder beside the repository, $LIT_IMITATION_EXPERTS"
)
@pytest.mark.parametrize(
    ("file", "env_id", "module", "expected", "tolerance"),
    [  # returns of five deterministic episodes, seeds 0 to 4, as published with the files
        ("CartPole-v1-ppo", "CartPole-v1", None, 500, 0),
        ("Acrobot-v1-ppo", "Acrobot-v1", None, -70, 0.5),
        ("MountainCar-v0-dqn", "MountainCar-v0", None, -102, 0.5),
        ("MountainCarContinuous-v0-sac", "MountainCarContinuous-v0", None, 94.5, 0.05),
        ("Pendulum-v1-sac", "Pendulum-v1", None, -145, 0.5),
        ("LunarLander-v3-ppo", "LunarLander-v3", "Box2D", 228, 1),
        ("LunarLanderContinuous-v3-ppo", "LunarLanderContinuous-v3", "Box2D", 257, 1),
        ("Reacher-v4-trpo", "Reacher-v4", "mujoco", -4.2, 0.05),
        ("InvertedPendulum-v4-trpo", "InvertedPendulum-v4", "mujoco", 1000, 0),
        ("Hopper-v4-trpo", "Hopper-v4", "mujoco", 3728, 5),
        ("Swimmer-v4-trpo", "Swimmer-v4", "mujoco", 358, 1),
        ("HalfCheetah-v4-trpo", "HalfCheetah-v4", "mujoco", 4177, 60),
        ("Ant-v4-trpo", "Ant-v4", "mujoco", 4683, 80),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_npz_experts_reach_their_published_returns(file, env_id, module, expected, tolerance):
    if module:
        pytest.importorskip(module)
    with gym.make(env_id) as env:
        path = OTHERS / "policies" / f"{file}.npz"
        expert = load_expert(f"npz:{path}", env_id, env.observation_space, env.action_space)
        returns = []
        for seed in range(5):
            observation, _ = env.reset(seed=seed)
            returns.append(0.0)
            over = False
            while not over:
                observation, reward, terminated, truncated, _ = env.step(expert.act(observation[None])[0])
                returns[-1] += float(reward)
                over = terminated or truncated
    assert np.mean(returns) == pytest.approx(expected, abs=tolerance)


# --- checkpoint -------------------------------------------------------------------------------------------------------


def test_checkpoint_gives_the_policys_actor_if_spaces_fit(monkeypatch):
    policies = pytest.importorskip("lit_imitation.policies")

    class Stub:
        observation_space, action_space, source = OBSERVATION, BOX, "x.ckpt is of a test"

        def actor(self, deterministic):
            return "actor", deterministic

    monkeypatch.setattr(policies, "load_policy", lambda path, trust: Stub() if path == "runs/x" else None)
    assert load_expert("checkpoint:runs/x", "any", OBSERVATION, BOX, deterministic=False) == ("actor", False)
    with pytest.raises(ExpertError, match=r"runs/x reads Box\(.*\(3,\).*environment gives Box\(.*\(4,\)"):
        load_expert("checkpoint:runs/x", "any", spaces.Box(-1, 1, (4,)), BOX)
    for other in (DISCRETE, spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (3,))):
        with pytest.raises(ExpertError, match=r"runs/x acts in Box.*the environment in"):
            load_expert("checkpoint:runs/x", "any", OBSERVATION, other)


# --- Stable-Baselines3 ------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "DQN", "SAC", "TD3", "DDPG"])
def test_sb3_acts_like_the_model(tmp_path, algorithm):
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("CartPole-v1" if algorithm in ("A2C", "DQN") else "Pendulum-v1")
    brief = {"n_steps": 16, "batch_size": 16} if algorithm == "PPO" else {}
    off_policy = {"learning_starts": 8, "buffer_size": 100} if algorithm in ("DQN", "SAC", "TD3", "DDPG") else {}
    arguments = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"} | brief | off_policy
    model = getattr(sb3, algorithm)("MlpPolicy", env, **arguments).learn(32)
    model.save(tmp_path / "model.zip")
    spec = f"sb3:{tmp_path / 'model.zip'}"
    expert = load_expert(spec, env.spec.id, env.observation_space, env.action_space, trust=True)
    observation = np.stack([env.observation_space.sample() for _ in range(20)])
    action = expert.act(observation)
    np.testing.assert_array_equal(action, model.predict(observation, deterministic=True)[0])
    assert action.dtype == (np.float32 if isinstance(env.action_space, spaces.Box) else np.int64)
    with pytest.raises(ExpertError, match=r"model\.zip acts in"):
        load_expert(spec, "any", env.observation_space, spaces.Discrete(7), trust=True)
    with pytest.raises(ExpertError, match=r"model\.zip reads Box.*the environment gives Box"):
        load_expert(spec, "any", spaces.Box(-1, 1, (9,)), env.action_space, trust=True)
    if algorithm == "PPO":
        draw = load_expert(spec, "any", env.observation_space, env.action_space, trust=True, deterministic=False)
        assert (draw.act(observation) != action).any()


class Own(gym.Env):
    """Observes a dictionary, or its vector."""

    action_space = spaces.Discrete(2)
    room = spaces.Dict(place=spaces.Box(-1, 1, (2,), np.float32), kind=spaces.Discrete(3))

    def __init__(self, flat):
        self.observation_space = spaces.flatten_space(self.room) if flat else self.room


def test_sb3_reads_flattened_dicts_and_any_policy_class(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.policies import MultiInputActorCriticPolicy

    class Mine(MultiInputActorCriticPolicy):
        pass

    path, flat = tmp_path / "model.zip", spaces.flatten_space(Own.room)
    for policy, algorithm in (("MultiInputPolicy", "A2C"), (Mine, "PPO"), (Mine, "A2C")):
        model = getattr(sb3, algorithm)(policy, Own(flat=False), device="cpu", seed=0)
        model.save(path)
        expert = load_expert(f"sb3:{path}", "any", flat, Own.action_space, trust=True)
        seen = [Own.room.sample() for _ in range(20)]
        batch = {"place": np.stack([s["place"] for s in seen]), "kind": np.array([s["kind"] for s in seen])}
        answer = expert.act(np.stack([spaces.flatten(Own.room, s) for s in seen]))
        np.testing.assert_array_equal(answer, model.predict(batch, deterministic=True)[0])
        with pytest.raises(ExpertError, match=r"model\.zip reads Dict.*the environment gives Box"):
            load_expert(f"sb3:{path}", "any", spaces.Box(-1, 1, flat.shape), Own.action_space, trust=True)


def test_recurrent_sb3_model_is_refused(tmp_path, monkeypatch):
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("CartPole-v1")
    sb3.PPO("MlpPolicy", env, device="cpu").save(tmp_path / "model.zip")
    monkeypatch.setattr(sb3.PPO, "predict", lambda self, o, deterministic: (np.zeros(len(o), int), np.zeros(4)))
    with pytest.raises(ExpertError, match=r"model\.zip is recurrent"):
        load_expert(f"sb3:{tmp_path / 'model.zip'}", "any", env.observation_space, env.action_space, trust=True)


def evil_zip(path, trace, module="stable_baselines3.common.policies"):
    serialized = base64.b64encode(pickle.dumps(Evil(trace))).decode()
    space = {":type:": "Box", ":serialized:": serialized}
    data = {"policy_class": {"__module__": module}, "clip_range": 0.2, "observation_space": space}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))


def test_sb3_executes_nothing_without_trust(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.zip"
    evil_zip(path, trace)
    with pytest.raises(ExpertError, match=r"executes the code.*--trust true.*data\.trust: true"):
        load_expert(f"sb3:{path}", "any", OBSERVATION, BOX)
    assert not trace.exists()
    pytest.importorskip("stable_baselines3")
    with pytest.raises(ExpertError, match="cannot be loaded"):
        load_expert(f"sb3:{path}", "any", OBSERVATION, BOX, trust=True)
    assert trace.exists(), "the trap does not work, so the test shows nothing"


def test_faulty_sb3_file_is_named(tmp_path):
    pytest.importorskip("stable_baselines3")
    path = tmp_path / "model.zip"

    def load():
        load_expert(f"sb3:{path}", "any", OBSERVATION, BOX, trust=True)

    with pytest.raises(ExpertError, match=r"model\.zip: no such file"):
        load()
    path.write_bytes(b"something else")
    with pytest.raises(ExpertError, match=r"model\.zip is not a Stable-Baselines3 zip"):
        load()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "empty")
    with pytest.raises(ExpertError, match=r"model\.zip is not a Stable-Baselines3 zip"):
        load()
    evil_zip(path, tmp_path / "trace", module="sb3_contrib.tqc.policies")
    with pytest.raises(ExpertError, match=r"module sb3_contrib\.tqc\.policies; supported are PPO"):
        load()
    assert not (tmp_path / "trace").exists()


def test_missing_sb3_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(MissingExtraError, match=r"lit-imitation\[sb3\]"):
        load_expert(f"sb3:{tmp_path / 'model.zip'}", "any", OBSERVATION, BOX, trust=True)


# --- functions of the user --------------------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Write a module into the working directory, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name, code):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(textwrap.dedent(code))

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_function_in_the_working_directory(beside):
    beside(
        "own_package/own_expert.py",
        """
        import numpy as np

        def right(observation):
            return np.full(len(observation), 3, np.int32)

        def wrong(observation):
            return np.full(len(observation), 9)

        constant = 3
        """,
    )
    path = list(sys.path)
    expert = load_expert("own_package.own_expert:right", "any", OBSERVATION, DISCRETE)
    action = expert.act(np.zeros((5, 3)))
    assert action.dtype == np.int64
    assert action.tolist() == [3] * 5
    assert sys.path == path
    with pytest.raises(ExpertError, match=r"own_package\.own_expert:wrong: row 0, action 9"):
        load_expert("own_package.own_expert:wrong", "any", OBSERVATION, DISCRETE).act(np.zeros((5, 3)))
    with pytest.raises(ExpertError, match="constant: a int cannot act"):
        load_expert("own_package.own_expert:constant", "any", OBSERVATION, DISCRETE)
    with pytest.raises(ExpertError, match=r"cannot be imported: AttributeError: .*absent"):
        load_expert("own_package.own_expert:absent", "any", OBSERVATION, DISCRETE)


def test_failed_import_names_the_reason(beside):
    path = list(sys.path)
    with pytest.raises(ExpertError, match="cannot be imported: ModuleNotFoundError: No module named 'own_absent'"):
        load_expert("own_absent:f", "any", OBSERVATION, DISCRETE)
    beside("own_broken.py", "def f(:")
    with pytest.raises(ExpertError, match="own_broken:f cannot be imported: SyntaxError"):
        load_expert("own_broken:f", "any", OBSERVATION, DISCRETE)
    assert sys.path == path


def expert_digest(spec: str) -> str:
    key = Key()
    add_expert(key, spec, "CartPole-v1", DISCRETE)
    return key.unreadable or key.digest()


def test_expert_key_follows_file_content(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert expert_digest("scripted") == expert_digest("scripted") != expert_digest("shipped")
    for name in ("a.npz", "somebodys_expert.py"):
        (tmp_path / name).write_text("def act(observation): return observation\n")
    specs = (f"npz:{tmp_path}/a.npz", f"sb3:{tmp_path}/a.npz")
    before = [expert_digest(spec) for spec in specs]
    assert before == [expert_digest(spec) for spec in specs]
    assert expert_digest("somebodys_expert:act") == expert_digest("somebodys_expert:act")
    (tmp_path / "a.npz").write_text("other")
    assert all(expert_digest(spec) != old for spec, old in zip(specs, before, strict=True))
    with pytest.raises(ExpertError, match="nobodys_expert"):
        expert_digest("nobodys_expert:act")


@pytest.mark.parametrize("spec", ["scripted", "shipped", "lit_imitation.experts.scripted:pendulum"])
def test_loaded_expert_is_called_as_it_acts(spec):
    env_id = "Hopper-v5" if spec == "shipped" else "Pendulum-v1"
    env = gym.make(env_id)
    expert = load_expert(spec, env_id, env.observation_space, env.action_space)
    observation = np.random.default_rng(0).normal(size=(5, *env.observation_space.shape)).astype(np.float32)
    np.testing.assert_array_equal(expert(observation), expert.act(observation))
