"""Policies in checkpoints: round trips, broken files and malicious files."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from lit_imitation.errors import ConfigError, LitImitationError
from lit_imitation.policies import (
    CategoricalPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    Policy,
    load_policy,
)
from lit_imitation.policies.checkpoints import build, describe, find_checkpoint, read_checkpoint

VECTOR = Box(np.float32([-1, -np.inf]), np.float32([0.1, np.inf]))
POLICIES = {
    "categorical": lambda: CategoricalPolicy(
        Box(0, 255, (9, 9, 3), np.uint8), Discrete(3, start=2), hidden_sizes=[5], activation="gelu", dropout=0.25
    ),
    "multi-categorical": lambda: MultiCategoricalPolicy(VECTOR, MultiDiscrete([2, 5], start=[0, -3]), hidden_sizes=[5]),
    "categorical-defaults": lambda: CategoricalPolicy(Discrete(4, start=-1), Discrete(2)),
    "gaussian": lambda: GaussianPolicy(VECTOR, Box(-2, 3, (2, 3), np.float64), std="state", hidden_sizes=(4, 3)),
    "gaussian-free": lambda: GaussianPolicy(VECTOR, Box(-np.inf, np.inf, (1,), np.float32), activation="tanh"),
    "deterministic": lambda: DeterministicPolicy(
        VECTOR, Box(-1, 1, (2,), np.float32), regression="huber", huber_delta=0.7, hidden_sizes=()
    ),
}


class OwnPolicy(DeterministicPolicy):
    """User-defined policy with an additional hyper-parameter."""

    def __init__(self, observation_space, action_space, *, shift=0.0, **arguments):
        super().__init__(observation_space, action_space, **arguments)
        self.shift = shift

    def decode(self, head, deterministic):
        return super().decode(head + self.shift, deterministic)


def save(policy, path, /, **more):
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"policy": describe(policy), "state_dict": state | {"other": torch.ones(1)}} | more, path)
    return path


def sample(space, n=6):
    space.seed(0)
    return np.stack([space.sample() for _ in range(n)])


@pytest.mark.parametrize("name", POLICIES)
def test_round_trip(name, tmp_path):
    policy = POLICIES[name]()
    x = sample(policy.observation_space, 30)
    policy.fit_normalizer(torch.from_numpy(x))
    loaded = load_policy(save(policy, tmp_path / "p.ckpt"))
    assert type(loaded) is type(policy)
    assert not loaded.training
    assert loaded.observation_space == policy.observation_space
    assert loaded.action_space == policy.action_space
    np.testing.assert_array_equal(loaded(x), policy(x))
    torch.manual_seed(0)
    sampled = policy(x, deterministic=False)
    torch.manual_seed(0)
    np.testing.assert_array_equal(loaded(x, deterministic=False), sampled)
    action = torch.from_numpy(sample(policy.action_space, 30)).to(torch.from_numpy(sampled).dtype)
    x = torch.from_numpy(x)
    assert torch.equal(loaded.loss(x, action), policy.eval().loss(x, action))
    assert describe(loaded) == describe(policy)
    assert loaded.network.dropout == policy.network.dropout


def test_array_layer_sizes_round_trip(tmp_path):
    policy = CategoricalPolicy(VECTOR, Discrete(3), hidden_sizes=np.array([5, 6]))
    loaded = load_policy(save(policy, tmp_path / "p.ckpt"))
    assert [layer.out_features for layer in loaded.network.layers] == [5, 6, 3]


@pytest.mark.parametrize("name", POLICIES)
def test_descriptions_are_primitives(name):
    json.dumps(describe(POLICIES[name]()))


def test_build_gives_fresh_weights():
    policy = POLICIES["deterministic"]()
    again = build(describe(policy), Policy)
    assert again.huber_delta == 0.7
    assert not torch.equal(again.network.layers[0].weight, policy.network.layers[0].weight)


def test_trusted_user_class_round_trips(tmp_path):
    policy = OwnPolicy(VECTOR, Box(-1, 1, (2,), np.float32), shift=0.3, hidden_sizes=(4,))
    path = save(policy, tmp_path / "p.ckpt")
    with pytest.raises(ConfigError, match=r"names .*OwnPolicy, which is not part of this package.*trust=True"):
        load_policy(path)
    loaded = load_policy(path, trust=True)
    assert type(loaded) is OwnPolicy
    x = sample(VECTOR)
    np.testing.assert_array_equal(loaded(x), policy(x))


# Choice of the file.


def test_run_directory_gives_best_last_then_newest(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for age, name in enumerate(["b.ckpt", "a.ckpt", "c.ckpt"]):
        (folder / name).touch()
        os.utime(folder / name, (1000, 1000 - age if name != "a.ckpt" else 2000))
    assert find_checkpoint(tmp_path).name == "a.ckpt"
    (folder / "last.ckpt").touch()
    os.utime(folder / "last.ckpt", (10, 10))
    assert find_checkpoint(str(tmp_path)).name == "last.ckpt"
    (folder / "best.ckpt").touch()
    os.utime(folder / "best.ckpt", (5, 5))
    assert find_checkpoint(tmp_path).name == "best.ckpt"
    assert find_checkpoint(folder / "c.ckpt").name == "c.ckpt"


def test_policy_loads_from_run_directory(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    policy = POLICIES["gaussian"]()
    save(policy, tmp_path / "checkpoints" / "best.ckpt")
    x = sample(VECTOR)
    np.testing.assert_array_equal(load_policy(tmp_path)(x), policy(x))


def test_missing_checkpoint_raises(tmp_path):
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"contains no checkpoints/\*\.ckpt"):
        load_policy(tmp_path)


# Broken files.


def broken_files():
    whole = POLICIES["gaussian"]()
    good = {"policy": describe(whole), "state_dict": {f"policy.{k}": v for k, v in whole.state_dict().items()}}

    def changed(**changes):
        return {**good, "policy": {**good["policy"], **changes}}

    return {
        "list": [1, 2],
        "tensor": torch.ones(3),
        "no policy": {"state_dict": good["state_dict"]},
        "no state": {"policy": good["policy"]},
        "empty state": {**good, "state_dict": {}},
        "other sizes": {**good, "state_dict": {k: v[..., :1] for k, v in good["state_dict"].items()}},
        "policy is a number": {**good, "policy": 3},
        "no class": {**good, "policy": {"arguments": {}}},
        "no spaces": {**good, "policy": {"class": good["policy"]["class"], "arguments": {}}},
        "strange argument": changed(arguments={"nonsense": 1}),
        "strange activation": changed(arguments={"activation": "no_such_function"}),
        "strange space": changed(observation_space={"type": "Box"}),
        "wrong action space": changed(action_space={"type": "Discrete", "n": 2, "start": 0}),
        "abstract class": changed(**{"class": "lit_imitation.policies.continuous._ContinuousPolicy"}),
    }


@pytest.mark.parametrize("case", list(broken_files()))
def test_broken_checkpoint_raises_config_error(case, tmp_path):
    torch.save(broken_files()[case], tmp_path / "broken.ckpt")
    with pytest.raises(LitImitationError) as caught:
        load_policy(tmp_path / "broken.ckpt")
    assert case == "wrong action space" or "broken.ckpt" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a checkpoint\n", b"PK\x03\x04 cut"], ids=range(4))
def test_other_file_raises_config_error(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.ckpt cannot be read as a checkpoint"):
        load_policy(tmp_path / "x.ckpt")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_truncated_checkpoint_raises_config_error(fraction, tmp_path):
    path = save(POLICIES["gaussian"](), tmp_path / "x.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(ConfigError, match=r"x\.ckpt cannot be read as a checkpoint"):
        load_policy(path)


# Malicious files.


class Harm:
    """Object that creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("place", ["whole", "policy", "class", "arguments", "state", "raw pickle"])
def test_malicious_checkpoint_runs_no_code(place, tmp_path):
    target, path = tmp_path / "executed", tmp_path / "harm.ckpt"
    harm, policy = Harm(target), POLICIES["gaussian"]()
    if place == "raw pickle":
        path.write_bytes(pickle.dumps({"policy": harm}))
    else:
        more = {
            "whole": {"extra": harm},
            "policy": {"policy": harm},
            "class": {"policy": describe(policy) | {"class": harm}},
            "arguments": {"policy": describe(policy) | {"arguments": {"dropout": harm}}},
            "state": {"state_dict": {"policy.low": harm}},
        }[place]
        save(policy, path, **more)
    for read in (load_policy, read_checkpoint):
        with pytest.raises(ConfigError, match=r"harm\.ckpt cannot be read as a checkpoint of tensors and primitives"):
            read(path)
    assert not target.exists()
    with contextlib.suppress(RuntimeError):  # loading may fail after the harm is done
        torch.load(path, weights_only=False)  # shows that the harm is real
    assert target.exists()


@pytest.mark.parametrize("name", ["sneaky_policies.Policy", "os.system", "torch.nn.modules.linear.Linear", ""])
def test_checkpoint_cannot_import_modules(name, tmp_path, monkeypatch):
    (tmp_path / "sneaky_policies.py").write_text(
        "import pathlib\n"
        "from lit_imitation.policies import GaussianPolicy\n"
        f"pathlib.Path({str(tmp_path / 'executed')!r}).touch()\n"
        "class Policy(GaussianPolicy): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    policy = POLICIES["gaussian"]()
    path = save(policy, tmp_path / "p.ckpt", policy=describe(policy) | {"class": name})
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=f"names {name}, which is not part of this package; if you trust"):
        load_policy(path)
    assert set(sys.modules) == before
    assert not (tmp_path / "executed").exists()


# Import time.

HEAVY = ("lightning", "pytorch_lightning", "lightning_fabric", "wandb", "matplotlib", "envpool", "stable_baselines3")


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    "code",
    [
        "import lit_imitation",
        "import lit_imitation; policy = lit_imitation.load_policy({path!r}); assert policy([0.0, 1.0]).shape == (2, 3)",
        pytest.param(
            "from lit_imitation import make, collect; collect(make('CartPole-v1', 2, 0), lambda o: o[:, 0] > 0, 1, 0)",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["package", "load_policy", "collect"],
)
def test_imports_stay_light(code, tmp_path):
    path = save(POLICIES["gaussian"](), tmp_path / "p.ckpt")
    code = code.format(path=str(path)) + f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
