"""Experts that are classes of the user, with arguments from a recipe."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import counting
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from suites import arguments

from lit_imitation import DemonstrationDataModule, load_expert
from lit_imitation.cli import main
from lit_imitation.envs import make
from lit_imitation.errors import ConfigError, ExpertError
from lit_imitation.experts import add_expert, expert_name
from lit_imitation.rollout import collect, keeps_state
from lit_imitation.training.foreign import read_config
from lit_imitation.utils.cache import Key
from lit_imitation.utils.trust import trust_scope

OBSERVATION, DISCRETE = spaces.Box(-np.inf, np.inf, (3,)), spaces.Discrete(4)

CODE = """
import numpy as np


class Constant:
    def __init__(self, action=1):
        if action == 7:
            raise RuntimeError("no such action")
        self.action = action

    def act(self, observation):
        return np.full(len(observation), self.action)


class Callable(Constant):
    def __call__(self, observation):
        return np.full(len(observation), self.action)

    act = None


class Stateful(Constant):
    def reset(self, mask):
        self.mask = mask
        if self.action == 3:
            raise ValueError("cannot forget")


class Raw(Constant):
    raw_observation = True

    def act(self, observation):
        return observation["kind"] % 2


class Simulator(Stateful):
    needs_env = True

    def bind(self, envs):
        self.count = envs.num_envs

    def act(self, observation):
        return np.full(len(observation), self.count)


class Mute:
    needs_env = True


class Declared(Constant):
    def cache_key(self):
        return self.action % 2


def function(observation):
    return np.zeros(len(observation), int)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module in the working directory that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    yield name
    sys.modules.pop(name, None)


def spec(module, cls, **arguments):
    return {"class_path": f"{module}.{cls}"} | ({"init_args": arguments} if arguments else {})


def loaded(*args, **kwargs):
    return load_expert(spec(*args, **kwargs), "any", OBSERVATION, DISCRETE)


@pytest.mark.parametrize("cls", ["Constant", "Callable", "Stateful"])
def test_class_is_made_from_its_arguments(module, cls):
    expert = loaded(module, cls, action=2)
    action = expert.act(np.zeros((5, 3), np.float32))
    assert action.tolist() == [2] * 5
    assert action.dtype == np.int64
    assert keeps_state(expert) is (cls == "Stateful")
    assert loaded(module, cls).act(np.zeros((1, 3))).tolist() == [1]


def test_reset_reaches_the_object_of_the_class(module):
    expert = loaded(module, "Stateful")
    expert.reset(np.array([True, False]))
    assert expert.expert.mask.tolist() == [True, False]
    with pytest.raises(ExpertError, match=rf"expert {module}\.Stateful failed in reset: ValueError: cannot forget"):
        loaded(module, "Stateful", action=3).reset(np.array([True]))


def test_class_that_needs_the_environment_gets_it(module):
    envs = make("CartPole-v1", 1, 0)
    expert = load_expert(spec(module, "Simulator"), "any", envs.single_observation_space, envs.single_action_space)
    assert collect(envs, expert, 2, 0).action.unique().tolist() == [1]  # the number of environments
    envs.close()


def test_class_can_ask_for_the_raw_observation(module):
    room = spaces.Dict(kind=spaces.Discrete(3), place=spaces.Box(-1, 1, (2,), np.float32))
    envs = make("Spaces-v0", 2, 0, "sync", observation_space=room, action_space=spaces.Discrete(2))
    expert = load_expert(spec(module, "Raw"), "any", envs.single_observation_space, envs.single_action_space)
    record = collect(envs, expert, 6, 0)
    envs.close()
    kind = record.observation[:, :3].argmax(1)
    assert record.action.tolist() == (kind % 2).tolist()
    assert len(kind.unique()) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"class_path": "{m}.Constant", "arguments": {}},
            r"data\.expert has the key 'arguments'; .*class_path and init",
        ),
        ({"init_args": {}}, r"data\.expert\.class_path is None; write package\.module\.ClassName"),
        ({"class_path": "Constant"}, r"data\.expert\.class_path is 'Constant'; write"),
        ({"class_path": "{m}:Constant"}, r"data\.expert\.class_path is '.*:Constant'; write"),
        ({"class_path": "{m}.Constant", "init_args": [1]}, r"data\.expert\.init_args is a list; write the names"),
        ({"class_path": "own_absent.Expert"}, r"class_path own_absent\.Expert cannot be imported: ModuleNotFoundError"),
        ({"class_path": "{m}.Absent"}, r"data\.expert\.class_path .*Absent cannot be imported: AttributeError"),
        ({"class_path": "{m}.function"}, r"is a function, not a class; a function is given as expert: .*:function"),
        ({"class_path": "{m}.np"}, r"is a module, not a class$"),
        (
            {"class_path": "{m}.Constant", "init_args": {"gain": 1}},
            r"cannot be made with init_args \{'gain': 1\}: TypeE",
        ),
        ({"class_path": "{m}.Constant", "init_args": {"action": 7}}, r"init_args .*: RuntimeError: no such action"),
        ({"class_path": "{m}.Mute"}, r"Mute has neither a method act\(observation\) nor __call__"),
    ],
)
def test_faults_of_a_class_name_the_option(module, given, message):
    if "class_path" in given:
        given = given | {"class_path": given["class_path"].replace("{m}", module)}
    with pytest.raises(ExpertError, match=message):
        load_expert(given, "any", OBSERVATION, DISCRETE)


def test_string_that_names_a_class_says_how_to_write_it(module):
    with pytest.raises(ExpertError, match=rf"is a class, not an instance; .*class_path: {module}\.Constant, init_args"):
        load_expert(f"{module}:Constant", "any", OBSERVATION, DISCRETE)


def test_names_of_experts():
    assert expert_name("scripted") == "scripted"
    assert expert_name({"class_path": "a.B", "init_args": {"n": 1, "how": "x"}}) == "a.B(n=1, how='x')"
    assert expert_name({"class_path": "a.B"}) == "a.B()"
    assert expert_name(counting.act) == "act"


# Cache


def digest(given):
    key = Key()
    add_expert(key, given, "CartPole-v1", DISCRETE)
    return key.unreadable or key.digest()


@pytest.mark.integration
def test_cache_key_has_class_arguments_and_source(module, tmp_path):
    first = digest(spec(module, "Constant", action=1))
    assert first == digest(spec(module, "Constant", action=1))
    others = [
        spec(module, "Constant", action=2),
        spec(module, "Constant"),
        spec(module, "Stateful", action=1),
        f"{module}:function",
    ]
    assert len({first, *map(digest, others)}) == 5
    del sys.modules[module]
    (tmp_path / f"{module}.py").write_text(CODE + "\n# another\n")
    assert digest(spec(module, "Constant", action=1)) != first


def test_cache_key_asks_the_object_for_its_own(module):
    with_one, with_two = (spec(module, "Declared", action=action) for action in (1, 2))
    parts = []
    for given in (with_one, with_two):
        key = Key()
        add_expert(key, given, "CartPole-v1", DISCRETE)
        parts.append(key.parts["cache_key"])
    assert parts == [1, 0]


@pytest.mark.integration
def test_returns_and_demonstrations_are_cached_per_argument(module, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    found = []
    for action in (0, 1, 1):
        data = DemonstrationDataModule(
            "CartPole-v1", expert=spec(module, "Constant", action=action), num_trajectories=2, num_envs=2, seed=0
        )
        data.prepare_data()
        data.setup("fit")
        found.append(data.expert_reference)
        assert (data.train.action == action).all()
    assert found[1] == found[2]
    for kind in ("demonstrations", "expert_returns"):
        assert len(list((tmp_path / "cache" / kind).glob("*.json"))) == 2


# Recipes and the command line


@pytest.mark.slow
@pytest.mark.integration
def test_page_runs_as_written(tmp_path, monkeypatch, capsys):
    """The planner and the recipe of docs/experts.md, with fewer and shorter episodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    page = (Path(__file__).parents[2] / "docs" / "experts.md").read_text()
    code, recipe = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("python", "yaml"))
    Path("my_planner.py").write_text(code)
    Path("my_recipe.yaml").write_text(recipe)
    shorter = ["--data.expert_trajectories=3", "--data.env_kwargs.max_episode_steps=50", "--data.test_episodes=4"]
    more = ["--trainer.max_epochs=1", "--trainer.default_root_dir=run", "--trainer.accelerator=cpu"]
    main(["fit", "--config=my_recipe.yaml", *shorter, *more])
    sys.modules.pop("my_planner")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["expert_return"] == 50.0
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path=run"])
    assert "names my_planner.Lookahead (data.expert), which is not part of this package" in capsys.readouterr().err
    assert "my_planner" not in sys.modules
    main(["test", "--ckpt_path=run", "--trust=true"])
    sys.modules.pop("my_planner", None)
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert saved["data"]["init_args"]["expert"] == {"class_path": "my_planner.Lookahead", "init_args": {"steps": 10}}


@pytest.mark.integration
def test_command_line_names_a_class_with_arguments(module):
    given = json.dumps(spec(module, "Constant", action=0))
    quick = ["--trainer.fast_dev_run=true", "--data.expert_return=9", "--trainer.accelerator=cpu"]
    main([*arguments("bc-discrete", Path("run"), *quick), f"--data.expert={given}"])
    with pytest.raises(SystemExit):
        main([*arguments("bc-discrete", Path("run"), *quick), f"--data.expert={given.replace('act', 'art')}"])


@pytest.mark.slow
@pytest.mark.integration
def test_dagger_asks_a_class_of_its_own(module):
    expert = spec(module, "Stateful", action=0)
    callback = [
        "--trainer.callbacks+=lit_imitation.DAggerCallback",
        f"--trainer.callbacks.expert={json.dumps(expert)}",
        "--trainer.callbacks.rounds=1",
        "--trainer.callbacks.epochs_per_round=1",
    ]
    main([*arguments("bc-discrete", Path("run"), "--trainer.max_epochs=1", "--data.test_episodes=2"), *callback])
    (file,) = Path("run/dataset").glob("round_*1.npz")
    with np.load(file) as held:
        assert (held["actions"] == 0).all()
        assert json.loads(held["metadata"].item())["expert"] == f"{module}.Stateful(action=0)"


def untrusted(expert):
    data = {"class_path": "lit_imitation.DemonstrationDataModule", "init_args": {"env_id": "a", "expert": expert}}
    return yaml.safe_dump({"data": data})


def test_foreign_file_may_not_name_an_expert_class(module):
    expert = spec(module, "Constant", action=2)
    with pytest.raises(
        ConfigError, match=rf"theirs\.ckpt names {module}\.Constant \(data\.expert\), which is not part"
    ):
        read_config(untrusted(expert), "theirs.ckpt")
    assert module not in sys.modules
    for trust in ({"everything": True}, {"everything": False, "names": [f"{module}.Constant"]}):
        with trust_scope(**trust):
            assert read_config(untrusted(expert), "mine.ckpt")["data"]["init_args"]["expert"] == expert
