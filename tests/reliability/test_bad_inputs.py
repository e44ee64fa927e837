"""Invalid inputs: each ends before training with one message that names the problem, without a traceback.

The cases are systematic: every typed constructor argument with out-of-range values and other types, every key of the
file formats missing or damaged in each way, environments and experts that violate their interface in each place, and
the options of the command line.
"""

from __future__ import annotations

import contextlib
import math
import sys
import textwrap
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import lit_imitation
from lit_imitation.cli import main
from lit_imitation.envs import make
from lit_imitation.errors import LitImitationError
from lit_imitation.experts import checked, load_expert
from lit_imitation.rollout import collect
from lit_imitation.training.video import VideoLogger
from lit_imitation.utils.arguments import constructor_signature

OBSERVATION, DISCRETE, BOX = spaces.Box(-1, 1, (3,)), spaces.Discrete(2), spaces.Box(-1, 1, (2,))


@contextlib.contextmanager
def raises_named(*named: str):
    """Context that expects an error of this package, at most two lines long, containing every one of `named`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LitImitationError) as caught:
            yield
    text = str(caught.value)
    assert 0 < len(text.splitlines()) <= 2, text
    for word in named:
        assert word in text, (word, text)


# --- arguments --------------------------------------------------------------------------------------------------------

SPACES = {"observation_space": OBSERVATION, "action_space": BOX}
WORKING: dict[str, dict[str, object]] = {
    "DemonstrationDataModule": {"env_id": "CartPole-v1", "expert": "scripted"},
    "ImitationDataModule": {"env_id": "CartPole-v1", "expert": "scripted"},
    "RolloutDataModule": {"env_id": "CartPole-v1"},
    "TabularDataModule": {"env_id": "FrozenLake-v1"},
    "BC": {},
    "RL": {},
    "GAIL": {},
    "AIRL": {},
    "GCL": {},
    "MaxEntIRL": {},
    "DAggerCallback": {},
    "VideoLogger": {},
    "LinearBeta": {"rounds": 3},
    "ExponentialBeta": {"p": 0.5},
    "GridWorld": {},
    "ObjectWorld": {},
    "BinaryWorld": {},
    "PPO": {**SPACES, "policy": None},
    "SAC": {**SPACES, "policy": None},
    "CategoricalPolicy": {"observation_space": OBSERVATION, "action_space": DISCRETE},
    "MultiCategoricalPolicy": {"observation_space": OBSERVATION, "action_space": spaces.MultiDiscrete([2, 3])},
    "GaussianPolicy": SPACES,
    "DeterministicPolicy": SPACES,
    "SquashedGaussianPolicy": SPACES,
    "EnsemblePolicy": SPACES,
    "MixturePolicy": SPACES,
    "QuantizedPolicy": SPACES,
    "CVAEPolicy": SPACES,
    "DiffusionPolicy": SPACES,
    "FlowPolicy": SPACES,
    "Discriminator": SPACES,
    "AIRLDiscriminator": SPACES,
    "GuidedCost": SPACES,
}
"""Valid arguments of each class; each case replaces one of them."""

BAD: dict[str, list[object]] = {
    "int": [-1, 1.5, math.nan, "x", None],
    "float": [math.nan, "x", None, [1.0]],
    "bool": ["x", None],
    "str": [3, None],
    "sizes": [[0], [-1], [1.5], "x", 3, ["a"], None],
    "other": ["nonsense", 3],
}
NOT_NEGATIVE = (
    "learning_rate",
    "coefficient",
    "gamma",
    "tau",
    "dropout",
    "fraction",
    "slip",
    "clip_range",
    "grad_norm",
)
PATHS = ("DAggerCallback.expert", "RL.reward", "RL.start", "DemonstrationDataModule.demonstrations")
PATHS += ("DemonstrationDataModule.expert", "ImitationDataModule.expert")
FINE = {(name, "nonsense") for name in (*PATHS, "ImitationDataModule.demonstrations")}
"""Arguments checked only when training starts: expert names and paths."""


def bad_arguments():
    for name, working in WORKING.items():
        cls = VideoLogger if name == "VideoLogger" else getattr(lit_imitation, name)
        for parameter in list(constructor_signature(cls).parameters.values())[1:]:
            hint = str(parameter.annotation)
            if "hidden_sizes" in parameter.name:
                kind = "sizes"
            else:
                kind = next((one for one in ("int", "float", "bool", "str") if hint.startswith(one)), "other")
            values = list(BAD[kind])
            if kind == "float" and any(word in parameter.name for word in NOT_NEGATIVE):
                values += [] if (name, parameter.name) == ("BC", "entropy_coefficient") else [-1.0]
            if "learning_rate" in parameter.name:
                values += [0.0, math.inf]
            for value in values:
                known = (f"{name}.{parameter.name}", value) if isinstance(value, str | int) else ()
                if (value is None and "None" in hint) or known in FINE:
                    continue
                yield pytest.param(
                    cls,
                    {**working, parameter.name: value},
                    parameter.name,
                    id=f"argument-{name}.{parameter.name}={value}",
                )


@pytest.mark.grid(every=8)
@pytest.mark.parametrize(("cls", "arguments", "name"), list(bad_arguments()))
def test_invalid_argument_raises(cls, arguments, name):
    with raises_named("hidden_sizes" if "hidden_sizes" in name else name):
        cls(**arguments)


def test_valid_arguments_work():
    for name, working in WORKING.items():
        (VideoLogger if name == "VideoLogger" else getattr(lit_imitation, name))(**working)


# --- demonstration files ----------------------------------------------------------------------------------------------

N = 6


def columns():
    ends = np.arange(N) % 3 == 2
    return {
        "observations": np.zeros((N, 4), np.float32),
        "actions": np.zeros(N, np.int64),
        "rewards": np.ones(N, np.float32),
        "terminals": ends,
        "timeouts": np.zeros(N, np.bool_),
        "next_observations": np.zeros((N, 4), np.float32),
        "weights": np.ones(N, np.float32),
        "episode_returns": np.full(2, 3.0),
    }


def damage(array, how):
    changed = array.astype(np.float64)
    if how == "short":
        return array[:-1]
    if how == "long":
        return np.concatenate([array, array[:1]])
    if how == "text":
        return np.full(array.shape, "a")
    if how == "complex":
        return array + 1j
    if how == "scalar":
        return np.float64(1)
    if how == "deep":
        return np.stack([array, array], -1) if array.ndim == 1 else array[..., None, None]
    if how == "empty":
        return array[:0]
    changed[1] = {"nan": np.nan, "infinite": np.inf, "seven": 7.5}[how]
    return changed


WAYS = ("short", "long", "text", "complex", "scalar", "deep", "empty", "nan", "infinite")
OPTIONAL = ("rewards", "next_observations", "weights", "episode_returns")


def bad_files():
    for key in columns():
        if key not in OPTIONAL:
            yield pytest.param(key, None, id=f"file-{key} missing")
        for how in (*WAYS, *(("seven",) if key in ("actions", "terminals", "timeouts") else ())):
            yield pytest.param(key, how, id=f"file-{key} {how}")


@pytest.mark.grid(every=4)
@pytest.mark.parametrize(("key", "how"), list(bad_files()))
def test_invalid_demonstration_file_raises(tmp_path, key, how):
    arrays = columns()
    if how is None:
        del arrays[key]
    else:
        arrays[key] = damage(arrays[key], how)
    np.savez(tmp_path / "d.npz", **arrays)
    source = str(tmp_path / "d.npz")
    names = ("d.npz",) if key in ("observations", "terminals", "timeouts") else ("d.npz", key)
    with raises_named(*names):
        lit_imitation.read_demonstrations(source, spaces.Box(-9, 9, (4,)), DISCRETE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(name, content, id=f"file-{what}")
        for what, name, content in (
            ("no such file", "d.npz", None),
            ("empty", "d.npz", b""),
            ("text", "d.npz", b"hello"),
            ("pickle", "d.npz", b"\x80\x04N."),
            ("half a zip", "d.npz", b"PK\x03\x04" + bytes(20)),
            ("unknown suffix", "d.csv", b"1,2"),
            ("no suffix", "d", b"1,2"),
            ("hdf5 that is text", "d.hdf5", b"hello"),
            ("empty hdf5", "d.hdf5", b""),
        )
    ],
)
def test_invalid_demonstration_source_raises(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with raises_named(name):
        lit_imitation.read_demonstrations(str(tmp_path / name), OBSERVATION, DISCRETE)


# --- experts ----------------------------------------------------------------------------------------------------------


def network():
    return {
        "n_layers": 2,
        "activation": "tanh",
        "output": "argmax",
        "W0": np.zeros((3, 5)),
        "b0": np.zeros(5),
        "W1": np.zeros((5, 2)),
        "b1": np.zeros(2),
        "obs_mean": np.zeros(3),
        "obs_std": np.ones(3),
        "obs_clip": 10.0,
    }


@pytest.mark.grid(every=4)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(pytest.param(key, None, id=f"expert-npz {key} missing") for key in list(network())[:7]),
        *(pytest.param(key, "text", id=f"expert-npz {key} text") for key in network()),
        *(pytest.param(key, np.zeros((2, 2, 2)), id=f"expert-npz {key} deep") for key in network()),
        *(
            pytest.param(key, value * np.nan, id=f"expert-npz {key} nan")
            for key, value in network().items()
            if isinstance(value, np.ndarray)
        ),
        pytest.param("n_layers", 0, id="expert-npz n_layers 0"),
        pytest.param("obs_std", np.zeros(3), id="expert-npz obs_std 0"),
        pytest.param("obs_clip", -1.0, id="expert-npz obs_clip -1"),
        pytest.param("W0", np.zeros((4, 5)), id="expert-npz W0 of another environment"),
        pytest.param("output", "linear", id="expert-npz output of another environment"),
    ],
)
def test_invalid_expert_file_raises(tmp_path, key, value):
    arrays = {name: array for name, array in {**network(), key: value}.items() if array is not None}
    np.savez(tmp_path / "e.npz", **arrays)
    with raises_named("e.npz", key):
        load_expert(f"npz:{tmp_path / 'e.npz'}", "any", OBSERVATION, DISCRETE)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        pytest.param(spec, named, id=f"expert-{spec or 'empty'}")
        for spec, named in (
            ("", "there is no expert"),
            ("oracle", "'oracle'"),
            ("./my.npz", "did you mean npz:./my.npz?"),
            ("my.zip", "did you mean sb3:my.zip?"),
            ("run.ckpt", "did you mean checkpoint:run.ckpt?"),
            ("npz:", "npz:"),
            ("npz:no.npz", "no.npz: no such file"),
            ("checkpoint:no", "no does not exist"),
            ("sb3:no.zip", "no.zip"),
            ("no_such_module:f", "no_such_module"),
            ("math:no_such_function", "no_such_function"),
            ("math:pi", "expert math:pi: a float cannot act"),
            ("fractions:Fraction", "expert fractions:Fraction is a class"),
            ("scripted", "no scripted expert for any"),
            ("shipped", "no expert for any is shipped"),
        )
    ],
)
def test_invalid_expert_name_raises(spec, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with raises_named(named):
        load_expert(spec, "any", OBSERVATION, DISCRETE)


def make_failing_expert(error):
    def expert(observation):
        raise error

    return expert


@pytest.mark.parametrize(
    "expert",
    [
        pytest.param(lambda o: None, id="expert-answers None"),
        pytest.param(lambda o: "left", id="expert-answers text"),
        pytest.param(lambda o: 0, id="expert-answers one number"),
        pytest.param(lambda o: np.zeros((len(o), 1), int), id="expert-answers columns"),
        pytest.param(lambda o: np.zeros(len(o) + 1, int), id="expert-answers a row too many"),
        pytest.param(lambda o: np.zeros(0, int), id="expert-answers nothing"),
        pytest.param(lambda o: np.full(len(o), 0.5), id="expert-answers fractions"),
        pytest.param(lambda o: np.full(len(o), 2), id="expert-answers outside the space"),
        pytest.param(lambda o: np.full(len(o), np.nan), id="expert-answers NaN"),
        pytest.param(lambda o: [[0, 1], [0]], id="expert-answers ragged rows"),
        pytest.param(lambda o: {"action": 0}, id="expert-answers a dict"),
        pytest.param(lambda o: (np.zeros(len(o), int), np.zeros(3)), id="expert-answers a state"),
        pytest.param(lambda o: (0, 1, 2, 3), id="expert-answers a long tuple"),
        pytest.param(make_failing_expert(ValueError("no")), id="expert-raises ValueError"),
        pytest.param(make_failing_expert(SystemExit(0)), id="expert-exits"),
        pytest.param(lambda: 0, id="expert-takes no observation"),
        pytest.param(3, id="expert-number"),
        pytest.param(dict, id="expert-class"),
    ],
)
def test_invalid_expert_action_raises(expert):
    with raises_named("expert mine"):
        checked(expert, OBSERVATION, DISCRETE, "mine").act(np.zeros((3, 3), np.float32))


# --- environments -----------------------------------------------------------------------------------------------------


class ValidEnv(gym.Env):
    """Valid environment; each case replaces one method."""

    observation_space, action_space = OBSERVATION, DISCRETE
    observation, reward, flags, info = np.zeros(3, np.float32), 1.0, (False, False), {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation, {}

    def step(self, action):
        self.t += 1
        terminated, truncated = self.flags
        return self.observation, self.reward, terminated or self.t > 4, truncated, self.info


def replace_methods(**replaced):
    return type("Bad", (ValidEnv,), {"__module__": "third_party", **replaced})


def raise_error(*args, **kwargs):
    raise ZeroDivisionError("division by zero")


ENVIRONMENTS = {
    "no observation space": (replace_methods(observation_space=None), "observation_space"),
    "no action space": (replace_methods(action_space=None), "action_space"),
    "unknown type of space": (replace_methods(observation_space=(3,)), "observation_space"),
    "text as observations": (replace_methods(observation_space=spaces.Text(3)), "Text"),
    "graphs as observations": (replace_methods(observation_space=spaces.Graph(OBSERVATION, None)), "Graph"),
    "dicts as actions": (replace_methods(action_space=spaces.Dict(a=DISCRETE)), "action space"),
    "constructor fails": (replace_methods(__init__=raise_error), "cannot be made"),
    "constructor takes an argument": (replace_methods(__init__=lambda self, size: None), "size"),
    "reset without seed": (replace_methods(reset=lambda self: (self.observation, {})), "reset() takes no seed"),
    "reset without options": (replace_methods(reset=lambda self, *, seed=None: (0, {})), "reset() takes no options"),
    "reset gives no info": (
        replace_methods(reset=lambda self, seed=None, options=None: self.observation),
        "reset() returned",
    ),
    "reset gives None": (replace_methods(reset=lambda self, seed=None, options=None: None), "reset() returned None"),
    "reset gives a list": (replace_methods(reset=lambda self, seed=None, options=None: [0, {}]), "reset() returned"),
    "reset fails": (
        replace_methods(reset=lambda self, seed=None, options=None: raise_error()),
        "failed at its first reset: ZeroDivisionError",
    ),
    "observation None": (replace_methods(observation=None), "reset() returned an observation"),
    "observation text": (replace_methods(observation="here"), "reset() returned an observation"),
    "observation too long": (replace_methods(observation=np.zeros(4)), "reset() returned an observation"),
    "observation a dict": (replace_methods(observation={"a": 1}), "reset() returned an observation"),
    "observation of complex numbers": (
        replace_methods(observation=np.zeros(3, complex)),
        "reset() returned an observation",
    ),
    "observation of objects": (replace_methods(observation=np.array([None] * 3)), "reset() returned an observation"),
    "floats for an image": (
        replace_methods(observation_space=spaces.Box(0, 255, (3,), np.uint8), observation=np.zeros(3)),
        "dtype float64",
    ),
    "state outside its space": (replace_methods(observation_space=spaces.Discrete(3), observation=3), "observation 3"),
    "keys missing": (
        replace_methods(observation_space=spaces.Dict(a=DISCRETE, b=DISCRETE), observation={"a": 0}),
        "reset() returned an observation that is a dict of ['a']",
    ),
    "part of a wrong shape": (
        replace_methods(observation_space=spaces.Dict(a=OBSERVATION), observation={"a": np.zeros(2)}),
        "whose 'a' is one",
    ),
    "old Gym": (
        replace_methods(step=lambda self, action: (self.observation, 1.0, False, {})),
        "step() returned a tuple of 4",
    ),
    "step gives None": (replace_methods(step=lambda self, action: None), "step() returned None"),
    "step gives a list": (replace_methods(step=lambda self, action: [0, 1, 2, 3, 4]), "step() returned a list"),
    "reward None": (replace_methods(reward=None), "None as reward"),
    "reward text": (replace_methods(reward="1.0"), "as reward"),
    "reward of several numbers": (replace_methods(reward=np.zeros(2)), "as reward"),
    "reward a dict": (replace_methods(reward={"a": 1}), "as reward"),
    "terminated text": (replace_methods(flags=("no", False)), "as terminated"),
    "truncated None": (replace_methods(flags=(False, None)), "None as truncated"),
    "truncated an array": (replace_methods(flags=(False, np.zeros(2, bool))), "as truncated"),
    "info None": (replace_methods(info=None), "None as info"),
    "info a list": (replace_methods(info=[]), "as info"),
}


@pytest.fixture
def register_env():
    """Function that registers environment classes under ids that are removed after the test."""
    ids = []

    def register(cls, vector=None):
        ids.append("Bad-v0")
        gym.register("Bad-v0", cls, vector_entry_point=vector)
        return "Bad-v0"

    yield register
    for one in ids:
        gym.registry.pop(one, None)


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("what", [pytest.param(what, id=f"environment-{what}") for what in ENVIRONMENTS])
@pytest.mark.filterwarnings("ignore")
def test_invalid_environment_raises(what, register_env):
    cls, named = ENVIRONMENTS[what]
    env_id = register_env(cls)
    with raises_named(*(() if what == "reset fails" else ("Bad-v0",)), named):
        collect(make(env_id, 2, 0), lambda observation: np.zeros(2, int), 2, 0)


def test_valid_environment_works(register_env):
    assert len(collect(make(register_env(replace_methods()), 2, 0), lambda observation: np.zeros(2, int), 2, 0)) == 10


class ValidVectorEnv(gym.vector.VectorEnv):
    """Valid vector environment; each case replaces one method."""

    single_observation_space, single_action_space = OBSERVATION, DISCRETE
    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012
    columns, reward, flags, count = 3, 1.0, False, 0

    def __init__(self, num_envs, **kwargs):
        self.num_envs = num_envs + self.count
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)

    def answer(self):
        return np.zeros((self.num_envs, self.columns), np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.answer(), {}

    def step(self, actions):
        self.t += 1
        over = np.full(self.num_envs, self.t % 5 == 0)
        reward = np.full(self.num_envs, self.reward) if np.isscalar(self.reward) else self.reward
        return self.answer(), reward, over if self.flags is False else self.flags, np.zeros(self.num_envs, bool), {}


def replace_vector_methods(**replaced):
    return type("BadVector", (ValidVectorEnv,), {"__module__": "third_party", **replaced})


VECTORS = {
    "no reset mode": (replace_vector_methods(metadata={}), "autoreset_mode"),
    "another number": (replace_vector_methods(count=1), "num_envs"),
    "no spaces": (
        replace_vector_methods(single_observation_space=OBSERVATION, single_action_space=3),
        "cannot be made",
    ),
    "observations too wide": (replace_vector_methods(columns=4), "reset() returned observations [2, 4]"),
    "one observation": (replace_vector_methods(answer=lambda self: np.zeros(3)), "reset() returned observations [3]"),
    "observations None": (replace_vector_methods(answer=lambda self: None), "reset() returned observations"),
    "rewards text": (replace_vector_methods(reward=np.array(["a", "b"])), "as reward"),
    "rewards too many": (replace_vector_methods(reward=np.zeros(3)), "as reward"),
    "flags text": (replace_vector_methods(flags=np.array(["a", "b"])), "as terminated"),
    "flags None": (replace_vector_methods(flags=None), "as terminated"),
    "old Gym": (
        replace_vector_methods(step=lambda self, actions: (self.answer(), 0, False, {})),
        "step() returned a tuple",
    ),
}


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("what", [pytest.param(what, id=f"batched environment-{what}") for what in VECTORS])
@pytest.mark.filterwarnings("ignore")
def test_invalid_vector_environment_raises(what, register_env):
    cls, named = VECTORS[what]
    env_id = register_env(ValidEnv, cls)
    with raises_named("Bad-v0", named):
        collect(make(env_id, 2, 0), lambda observation: np.zeros(2, int), 2, 0)


def test_valid_vector_environment_works(register_env):
    env_id = register_env(ValidEnv, replace_vector_methods())
    assert len(collect(make(env_id, 2, 0), lambda observation: np.zeros(2, int), 2, 0)) == 10


@pytest.mark.parametrize(
    ("env_id", "named"),
    [
        pytest.param(env_id, named, id=f"id-{env_id}")
        for env_id, named in (
            ("Hoper-v5", "did you mean Hopper-v5"),
            ("CartPole-v9", "CartPole-v1"),
            ("CartPole", "CartPole-v1"),
            ("", "env_id"),
            (" ", "env_id"),
            ("a b", "'a b'"),
            ("no_such_module:Id-v0", "no_such_module"),
            (":CartPole-v1", "env_id"),
            ("gymnasium:", "env_id"),
            ("ALE/Nothing-v5", "ALE"),
            (3, "env_id is 3"),
            (None, "env_id is None"),
        )
    ],
)
def test_invalid_environment_id_raises(env_id, named):
    with raises_named(named):
        make(env_id, 1, 0)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        pytest.param("import no_such_package", "no_such_package", id="module-import"),
        pytest.param("x = = 3", "SyntaxError", id="module-syntax"),
        pytest.param("raise SystemExit(0)", "SystemExit", id="module-exit"),
        pytest.param("1 / 0", "ZeroDivisionError", id="module-error"),
    ],
)
def test_failing_environment_module_raises(source, named, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bad_module_of_mine.py").write_text(source)
    sys.modules.pop("bad_module_of_mine", None)
    with raises_named(named):
        make("bad_module_of_mine:Id-v0", 1, 0)
    with raises_named("bad_module_of_mine:f", named):
        load_expert("bad_module_of_mine:f", "any", OBSERVATION, DISCRETE)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["load_policy", "load_reward"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(content, id=f"checkpoint-{what}")
        for what, content in (
            ("missing", None),
            ("empty", b""),
            ("text", b"hello"),
            ("pickle", b"\x80\x04N."),
            ("zip", b"PK\x05\x06" + bytes(18)),
        )
    ],
)
def test_invalid_checkpoint_raises(load, content, tmp_path):
    if content is not None:
        (tmp_path / "c.ckpt").write_bytes(content)
    with raises_named("c.ckpt"):
        getattr(lit_imitation, load)(tmp_path / "c.ckpt")


# --- command line -----------------------------------------------------------------------------------------------------

MODEL, DATA = ["--model", "BC"], ["--data", "DemonstrationDataModule", "--data.env_id", "CartPole-v1"]
EXPERT = ["--data.expert", "scripted"]
FIT = ["fit", *MODEL, *DATA, *EXPERT]
RL = ["fit", "--model", "RL", "--data", "RolloutDataModule", "--data.env_id", "CartPole-v1"]
OPTIONS = {
    "no model": (["fit", *DATA, *EXPERT], "model is missing"),
    "no data": (["fit", *MODEL], "data is missing"),
    "no env_id": (["fit", *MODEL, "--data", "DemonstrationDataModule"], "data.env_id: missing"),
    "misspelled class": (["fit", "--model", "BCC", *DATA], "did you mean BC?"),
    "class of another case": (["fit", "--model", "bc", *DATA], "did you mean BC?"),
    "misspelled data class": ([*MODEL, "--data", "DemonstrationDataModul"], "did you mean DemonstrationDataModule?"),
    "class without module": (["fit", "--model", "no_such_module.A", *DATA], "no module 'no_such_module'"),
    "class that is not in its module": (["fit", "--model", "lit_imitation.Nope", *DATA], "Nope"),
    "not a class": (["fit", "--model", "os.path", *DATA], "os.path"),
    "class of another kind": (["fit", "--model", "lit_imitation.PPO", *DATA], "lit_imitation.PPO"),
    "misspelled policy": ([*FIT, "--model.policy", "Gausian"], "model.policy: there is no class 'Gausian'"),
    "policy of another kind": ([*FIT, "--model.policy", "lit_imitation.BC"], "model.policy: lit_imitation.BC"),
    "policy that is abstract": (
        [*FIT, "--model.policy", "lit_imitation.policies.Policy"],
        "model.policy: Policy is abstract; name a subclass",
    ),
    "policy that is abstract, with its options": (
        [
            *(*FIT, "--model.policy", "lit_imitation.policies.Policy", "--model.policy.outputs", "2"),
            *("--model.policy.hidden_sizes", "[3]", "--model.policy.activation", "relu", "--model.policy.dropout", "0"),
        ],
        "Policy is abstract: it does not define decode, loss",
    ),
    "option of a policy without class": (
        [*FIT, "--model.policy.hidden_sizes", "[3]"],
        "model.policy.hidden_sizes: model.policy has no class yet",
    ),
    "option of a policy": ([*FIT, "--model.policy", "CategoricalPolicy", "--model.policy.hiden", "3"], "hidden_sizes?"),
    "type of a policy's option": (
        [*FIT, "--model.policy", "CategoricalPolicy", "--model.policy.hidden_sizes", "abc"],
        "model.policy.hidden_sizes is abc; it must be a list",
    ),
    "misspelled learner": ([*RL, "--model.learner", "PPOO"], "did you mean PPO?"),
    "option of a learner without class": (
        [*RL, "--model.learner.gamma", "1"],
        "--model.learner CLASS",
    ),
    "option of a learner": ([*RL, "--model.learner", "PPO", "--model.learner.gama", "1"], "did you mean gamma?"),
    "reward without class": ([*RL, "--model.reward.gamma", "1"], "model.reward"),
    "misspelled option": ([*FIT, "--model.learningrate", "1"], "did you mean learning_rate?"),
    "option without its prefix": ([*FIT, "--learning_rate", "1"], "did you mean model.learning_rate"),
    "data option without its prefix": ([*FIT, "--env_id", "X"], "did you mean data.env_id?"),
    "misspelled trainer option": ([*FIT, "--trainer.mx_epochs", "3"], "did you mean trainer.max_epochs?"),
    "abbreviated option": ([*FIT, "--trainer.max_epoch", "1"], "did you mean trainer.max_epochs?"),
    "unknown option": ([*FIT, "--qqqq", "3"], "there is no option qqqq"),
    "word without option": ([*FIT, "word"], "unexpected argument 'word'"),
    "option without value": ([*FIT, "--data.env_id"], "expected one argument"),
    "text for a number": ([*FIT, "--model.learning_rate", "abc"], "model.learning_rate is abc; it must be a number"),
    "fraction for a whole number": ([*FIT, "--data.num_envs", "1.5"], "data.num_envs is 1.5; it must be a whole"),
    "text for a flag": ([*FIT, "--data.expert_deterministic", "maybe"], "it must be true or false"),
    "text for a mapping": ([*FIT, "--data.env_kwargs", "abc"], "data.env_kwargs is abc; it must be a mapping"),
    "unknown choice": ([*FIT, "--data.backend", "warp"], "one of auto, vector, envpool, sync, async"),
    "text for epochs": ([*FIT, "--trainer.max_epochs", "x"], "trainer.max_epochs is x; it must be a whole number"),
    "unknown precision": ([*FIT, "--trainer.precision", "12"], "trainer.precision is 12; it must be one of 64"),
    "unknown accelerator": ([*FIT, "--trainer.accelerator", "tpuu"], "trainer: "),
    "unknown strategy": ([*FIT, "--trainer.strategy", "foo"], "strategy='foo'"),
    "unknown devices": ([*FIT, "--trainer.accelerator", "cpu", "--trainer.devices", "x"], "devices"),
    "misspelled callback": ([*FIT, "--trainer.callbacks", "EarlyStoping"], "did you mean EarlyStopping?"),
    "callback without required option": ([*FIT, "--trainer.callbacks", "EarlyStopping"], "callbacks.monitor: missing"),
    "logger that is near": ([*FIT, "--trainer.logger", "CSVLoger"], "did you mean CSVLogger?"),
    "seed that is text": ([*FIT, "--seed_everything", "x"], "seed_everything is x"),
    "seed below 0": ([*FIT, "--seed_everything", "-1"], "seed_everything is -1"),
    "missing checkpoint": ([*FIT, "--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt does not exist"),
    "home of unknown user": ([*FIT, "--trainer.default_root_dir=~nobody-here/x"], "~nobody-here/x"),
    "missing recipe": (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
    "recipe without name": (["fit", "--config"], "expected one argument"),
    "nothing": (["fit"], "fit needs a recipe"),
    "test without checkpoint": (["test"], "test needs a trained policy"),
    "test of missing run": (["test", "--ckpt_path", "nowhere"], "nowhere does not exist"),
    "collect into text": (["collect", "--env_id", "CartPole-v1", "--out", "x.txt"], "x.txt"),
    "collect no episodes": (["collect", "--env_id", "CartPole-v1", "--out", "x.npz", "--episodes", "0"], "--episodes"),
    "collect an unknown id": (["collect", "--env_id", "CartPol-v1", "--out", "x.npz"], "CartPole-v1"),
    "collect of an unknown expert": (["collect", "--env_id", "CartPole-v1", "--out", "x.npz", "--expert", "q"], "'q'"),
    "repeat no seeds": (["repeat", "--config", "bc/cartpole", "--seeds", "0"], "--seeds 0"),
    "repeat of what is not there": (["repeat", "--config", "nowhere.yaml", "--out", "out"], "nowhere.yaml"),
}


@pytest.mark.integration
@pytest.mark.grid(every=4)
@pytest.mark.parametrize("what", [pytest.param(what, id=f"option-{what}") for what in OPTIONS])
def test_invalid_option_ends_in_one_line(what, tmp_path, monkeypatch, capsys):
    arguments, named = OPTIONS[what]
    arguments = ["fit", *arguments] if arguments[0].startswith("-") else arguments
    assert_one_line_error(arguments, named, tmp_path, monkeypatch, capsys)


RECIPE = textwrap.dedent(
    """\
    model:
      class_path: BC
      init_args:
        learning_rate: 0.001
    data:
      class_path: DemonstrationDataModule
      init_args:
        env_id: CartPole-v1
        expert: scripted
    trainer:
      max_epochs: 1
    """
)
RECIPES = {
    "empty": ("", "recipe.yaml is empty"),
    "list": ("- 1\n- 2\n", "recipe.yaml is a list"),
    "text": ("just text\n", "recipe.yaml is a single value"),
    "tab": ("model: BC\n\tdata: 1\n", "recipe.yaml, line 2"),
    "colon": (RECIPE.replace("model:", "model: BC:"), "recipe.yaml, line 1"),
    "open bracket": ("model: [1\n", "recipe.yaml, line 2"),
    "binary": ("\x00\x01", "recipe.yaml"),
    "key twice": (RECIPE + "model: GAIL\n", "line 12: model is already set in line 1"),
    "inner key twice": (RECIPE + "  max_epochs: 2\n", "line 12: trainer.max_epochs is already set in line 11"),
    "unknown key": (RECIPE + "foo: 1\n", "there is no option foo"),
    "unknown trainer key": (
        RECIPE.replace("max_epochs", "max_epoch"),
        "trainer.max_epoch; did you mean trainer.max_ep",
    ),
    "unknown data key": (
        RECIPE.replace("env_id", "env_idd"),
        "data.env_idd: DemonstrationDataModule has no such option",
    ),
    "unknown model key": (RECIPE.replace("learning_rate", "rate"), "model.rate: BC has no such option"),
    "value of a wrong type": (RECIPE.replace("0.001", "fast"), "model.learning_rate is fast; it must be a number"),
    "epochs of a wrong type": (RECIPE.replace("epochs: 1", "epochs: x"), "trainer.max_epochs is x"),
    "class unknown": (RECIPE.replace("BC", "BD"), "model: there is no class 'BD'"),
    "class_path mistyped": (RECIPE.replace("class_path: BC", "class_pat: BC"), "model: class_path is missing"),
    "init_args a list": (RECIPE.replace("    learning_rate: 0.001", "    - 1"), "init_args must be a mapping"),
    "no model": (RECIPE.partition("data:")[1] + RECIPE.partition("data:")[2], "model is missing"),
    "keys under fit": ("fit:\n  model: BC\n", "fit.model"),
    "value out of range": (RECIPE.replace("0.001", "-1.0"), "model.learning_rate is -1.0"),
    "id unknown": (RECIPE.replace("CartPole", "CartPol"), "CartPole-v1"),
    "expert unknown": (RECIPE.replace("scripted", "scripte"), "'scripte'"),
}


@pytest.mark.integration
@pytest.mark.grid(every=4)
@pytest.mark.parametrize("what", [pytest.param(what, id=f"recipe-{what}") for what in RECIPES])
def test_invalid_recipe_ends_in_one_line(what, tmp_path, monkeypatch, capsys):
    content, named = RECIPES[what]
    (tmp_path / "recipe.yaml").write_text(content)
    assert_one_line_error(["fit", "--config", "recipe.yaml"], named, tmp_path, monkeypatch, capsys)


def assert_one_line_error(arguments, named, directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as stop:
            main(arguments)
    assert stop.value.code in (1, 2)
    text = capsys.readouterr().err
    message = text[text.rindex("error: ") :]
    assert len(message.splitlines()) <= 2, message
    assert named in message, message
    assert "Traceback" not in text
    assert not list(directory.rglob("*.ckpt")), "it trained"
