"""Location, keys and invalidation of the cache."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

from lit_imitation import DemonstrationDataModule
from lit_imitation.envs.key import environment_key
from lit_imitation.errors import ConfigError, DemonstrationError, TrainingError
from lit_imitation.experts import add_expert
from lit_imitation.rollout import reference
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.cache import Key, Store, cache_dir, load_or_make

SPACE = gymnasium.spaces.Discrete(2)


def test_cache_dir_precedence(monkeypatch, tmp_path):
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("LIT_IMITATION_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "lit_imitation"
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert cache_dir() == Path.home() / ".cache" / "lit_imitation"


def test_tilde_in_cache_variable_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIT_IMITATION_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"
    monkeypatch.setenv("LIT_IMITATION_CACHE", "s3://bucket/own")  # would become a folder of that name
    with pytest.raises(ConfigError, match="LIT_IMITATION_CACHE s3://bucket/own: only local"):
        cache_dir()


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Function that writes a module into the working directory and reimports it if it was imported."""
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # bytecode would hide a change of equal size within a second
    monkeypatch.setattr(reference, "EPISODES", 4)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        forget()

    def forget() -> None:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or tmp_path).startswith(str(tmp_path)):
                del sys.modules[name]
        importlib.invalidate_caches()

    yield write
    forget()


def digest(expert: str) -> str:
    key = Key()
    add_expert(key, expert, "CartPole-v1", SPACE)
    return key.unreadable or key.digest()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("spec", "files", "changed"),
    [
        ("own_a:act", {"own_a.py": "def act(o): return o"}, "own_a.py"),
        ("own_b:act", {"own_b.py": "import own_c\ndef act(o): return o", "own_c.py": "import own_d"}, "own_d.py"),
        ("own_e:act", {"own_e.py": "def act(o): return open('w.txt').read()"}, "w.txt"),
        ("own_p.a:act", {"own_p/__init__.py": "", "own_p/a.py": "def act(o): return o"}, "own_p/b.py"),
        ("own_n.a:act", {"own_n/a.py": "def act(o): return open('w.txt').read()"}, "own_n/w.txt"),
    ],
    ids=["itself", "what it imports", "data in the folder", "its package", "data next to it"],
)
def test_expert_key_follows_every_source(write_module, spec, files, changed):
    for name, text in {changed: "", **files}.items():
        write_module(name, text)
    before = digest(spec)
    assert digest(spec) == before
    write_module(changed, files.get(changed, "") + "\nnew = 1")
    assert digest(spec) != before
    assert "cannot" not in before


def test_declared_cache_key_enables_caching(write_module):
    text = "class Act:\n cache_key = {}\n def __call__(self, o): return o\nact = Act()"
    found = []
    for value in ("'one'", "'two'", "lambda self: 'one'"):
        write_module("own_key.py", text.format(value))
        found.append(digest("own_key:act"))
    assert len(set(found)) == 3  # the sources differ too, so only the declared value may count
    values = []
    for state in ("one", "two"):
        key, act = Key(), lambda o: o
        act.cache_key = lambda state=state: state
        add_expert(key, act, "CartPole-v1", SPACE)
        assert not key.unreadable
        values.append(key.digest())
    assert values[0] != values[1]


def test_unreadable_sources_are_not_cached(write_module, capsys):
    write_module("own_c.py", "import math\nact = math.floor\nexec('def made(o): return o')")
    assert "cannot be read" in digest("own_c:act")
    assert "cannot be read" in digest("own_c:made")
    state = 3
    for function in (lambda o: o + state, np.negative, SimpleNamespace(act=1)):
        key = Key()
        add_expert(key, function, "CartPole-v1", SPACE)
        assert key.unreadable
    made = []
    store = Store("things", lambda entry, value: {"value": value}, lambda entry, held: held["value"])
    for _ in range(2):
        load_or_make(store, "a", key, lambda: made.append(1), what="a thing")
    assert len(made) == 2
    assert not cache_dir().exists()
    assert "a thing: not cached" in capsys.readouterr().err


def test_source_edited_after_import_is_not_cached(write_module, tmp_path):
    write_module("own_old.py", "def act(o): return o")
    assert "edited" not in digest("own_old:act")
    (tmp_path / "own_old.py").write_text("def act(o): return o + 1")  # the imported function is still the old one
    assert "was edited after it was imported" in digest("own_old:act")
    importlib.reload(sys.modules["own_old"])
    assert "edited" not in digest("own_old:act")


def test_changed_input_file_invalidates_entry(write_module, tmp_path, capsys):
    """No source names this file, so only recording opened files finds it."""
    (tmp_path / "weights.bin").write_text("1")
    store = Store("things", lambda entry, value: {"value": value}, lambda entry, held: held["value"])

    def result() -> str:
        return load_or_make(store, "a", Key(x=1), (tmp_path / "weights.bin").read_text, what="a thing")

    assert [result(), result()] == ["1", "1"]
    (path,) = cache_dir().rglob("*.json")
    assert f"a thing: from the cache, {path} (renew it with --data.refresh true)" in capsys.readouterr().err
    (tmp_path / "weights.bin").write_text("2")
    assert [result(), result()] == ["2", "2"]
    assert "weights.bin has changed" in capsys.readouterr().err
    path.write_text(path.read_text()[:-30])  # damaged
    assert result() == "2"
    assert "cannot be used" in capsys.readouterr().err


@pytest.mark.integration
def test_key_distinguishes_settings_by_content():
    values = [1, 1.5, "a", None, (1, 2), [1, 2], {"a": 1}, np.zeros(2000), np.eye(50)[:40].ravel(), torch.zeros(2000)]
    digests = [Key(value=value).digest() for value in values]
    assert len(set(digests)) == len(values)
    assert digests == [Key(value=value).digest() for value in values]
    one, other = np.zeros(5000), np.zeros(5000)  # equal as text
    other[2500] = 1e-9
    assert Key(value=one).digest() != Key(value=other).digest()
    assert Key(value=lambda: 0).unreadable


ENVIRONMENT = """
import gymnasium, numpy as np
from own_base import Base
class Env(Base):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None): self.t = 0; return np.zeros(2, np.float32), {}
    def step(self, action): self.t += 1; return np.zeros(2, np.float32), self.reward, self.t == 5, False, {}
gymnasium.register("Own-v0", "own_env:Env")
"""


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*Overriding environment")
def test_changed_environment_source_invalidates_entry(write_module, capsys):
    write_module("own_base.py", "import gymnasium\nclass Base(gymnasium.Env): reward = 1.0")
    write_module("own_env.py", ENVIRONMENT)
    assert [random_return("own_env:Own-v0") for _ in range(2)] == [5.0, 5.0]
    assert capsys.readouterr().err.count("from the cache") == 1
    write_module(
        "own_base.py", "import gymnasium\nclass Base(gymnasium.Env): reward = 2.0"
    )  # base class in another module
    assert random_return("own_env:Own-v0") == 10.0
    write_module("own_base.py", "import gymnasium\nclass Base(gymnasium.Env): reward = float('nan')")
    with pytest.raises(TrainingError, match="not finite"):
        random_return("own_env:Own-v0")
    assert len(list(cache_dir().rglob("*.json"))) == 2


def test_environment_key_covers_wrappers_and_registration():
    clip = gymnasium.envs.registration.WrapperSpec("Clip", "gymnasium.wrappers:ClipReward", {"min_reward": 0.0})
    digests = set()
    for more in (
        {},
        {"max_episode_steps": 7},
        {"additional_wrappers": (clip,)},
        {"kwargs": {"sutton_barto_reward": 1}},
    ):
        gymnasium.register("Registered-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", **more)
        digests.add(environment_key("Registered-v0", "sync", {}).digest())
        assert not environment_key("Registered-v0", "sync", {}).unreadable
        gymnasium.registry.pop("Registered-v0")
    assert len(digests) == 4


@pytest.mark.integration
def test_demonstrations_are_checked_before_they_are_cached(write_module):
    write_module("own_base.py", "import gymnasium\nclass Base(gymnasium.Env): reward = 1e39")
    write_module("own_env.py", ENVIRONMENT)
    write_module("own_act.py", "import numpy as np\ndef act(o): return np.zeros(len(o), np.int64)")
    data = DemonstrationDataModule("own_env:Own-v0", expert="own_act:act", num_trajectories=2, eval_episodes=0)
    with pytest.raises(DemonstrationError, match=r"demonstrations of the expert own_act:act.*'reward', row 0 is inf"):
        data.prepare_data()
    assert not list(cache_dir().rglob("*.npz"))  # 1e39 overflows the float32 of a record


@pytest.mark.integration
def test_refresh_makes_result_again(write_module):
    write_module("own_act.py", "import numpy as np\ndef act(o): return np.zeros(len(o), np.int64)")

    def touched(**more: bool) -> list[str]:
        """Results that a run loaded from the cache."""
        for path in cache_dir().rglob("*.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "touched": True}))
        data = DemonstrationDataModule("CartPole-v1", expert="own_act:act", num_trajectories=2, eval_episodes=1, **more)
        data.prepare_data()
        data.setup("fit")
        return sorted(path.parent.name for path in cache_dir().rglob("*.json") if "touched" in path.read_text())

    assert touched() == []
    assert touched() == ["demonstrations", "expert_returns", "random_returns"]
    assert touched(refresh=True) == []


def test_unwritable_cache_does_not_stop_run(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "file" / "below"))
    store = Store("things", lambda entry, value: {"value": value}, lambda entry, held: held["value"])
    assert load_or_make(store, "a", Key(), lambda: 3, what="a thing") == 3
    assert "a thing: not cached" in capsys.readouterr().err
