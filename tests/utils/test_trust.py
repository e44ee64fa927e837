"""Code that files may name, and permissions of the user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from gymnasium.spaces import Box, Discrete

from lit_imitation import load_policy
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.policies.checkpoints import describe
from lit_imitation.training.foreign import read_config
from lit_imitation.utils.seeding import get_states
from lit_imitation.utils.trust import is_trusted, trust_scope

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*/*.yaml"))
OWN = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
from lit_imitation.policies import CategoricalPolicy
class MyPolicy(CategoricalPolicy): pass
gymnasium.register("Mine-v0", CartPoleEnv, max_episode_steps=30)
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_classes_are_accepted_from_checkpoint(path):
    recipe = yaml.safe_load(path.read_text())
    expected = {key: recipe[key] for key in ("seed_everything", "model", "data") if key in recipe}
    for part in ("model", "data"):
        if isinstance(expected.get(part), str):  # a run expands it
            expected[part] = {"class_path": expected[part]}
    assert read_config(yaml.safe_dump(expected), "x.ckpt") == expected


@pytest.fixture
def user_checkpoint(tmp_path, monkeypatch):
    """Checkpoint of a policy class and an environment from a module in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    (tmp_path / "own_module.py").write_text(OWN)
    policy = CategoricalPolicy(Box(-1, 1, (4,)), Discrete(2), hidden_sizes=[8])
    model = {"policy": {"class_path": "own_module.MyPolicy", "init_args": {"hidden_sizes": [8]}}}
    data = {"env_id": "own_module:Mine-v0", "expert": "own_module:act", "test_episodes": 2, "eval_episodes": 0}
    config = {
        "model": {"class_path": "lit_imitation.BC", "init_args": model},
        "data": {
            "class_path": "lit_imitation.RolloutDataModule",
            "init_args": {key: value for key, value in data.items() if key != "expert"},
        },
    }
    held = {
        "pytorch-lightning_version": "2.6.6",
        "epoch": 1,
        "global_step": 3,
        "state_dict": {f"policy.{key}": value for key, value in policy.state_dict().items()},
        "method": {"class": "lit_imitation.methods.bc.BC", "arguments": {}},
        "policy": describe(policy) | {"class": "own_module.MyPolicy"},
        "env_id": "own_module:Mine-v0",
        "env_steps": 0,
        "gradient_steps": 3,
        "evaluation": {},
        "random_states": get_states(),
        "config": yaml.safe_dump(config),
        "RolloutDataModule": {"expert_return": None, "expert_return_of": "", "eval_deterministic": None},
    }
    torch.save(held, tmp_path / "own.ckpt")
    return tmp_path / "own.ckpt"


def test_trusted_user_classes_load_in_python(user_checkpoint):
    with pytest.raises(
        ConfigError, match=r"own\.ckpt names own_module\.MyPolicy, which is not part of this package.*trust=T"
    ):
        load_policy(user_checkpoint)
    assert "own_module" not in sys.modules
    assert type(load_policy(user_checkpoint, trust=True)).__name__ == "MyPolicy"


@pytest.mark.integration
def test_user_classes_need_trust_or_explicit_name(user_checkpoint, capsys):
    command = ["test", f"--ckpt_path={user_checkpoint}", "--trainer.accelerator=cpu", "--trainer.default_root_dir=out"]
    with pytest.raises(SystemExit):
        main(command)
    error = capsys.readouterr().err
    assert "own.ckpt names own_module.MyPolicy (model.policy), which is not part of this package" in error
    assert "if you trust the file, add --trust true" in error
    assert "own_module" not in sys.modules
    with pytest.raises(SystemExit):
        main([*command, "--model.policy=own_module.MyPolicy"])
    assert "names own_module:Mine-v0 (data.env_id)" in capsys.readouterr().err
    main([*command, "--trust", "true"])
    main([*command, "--model.policy=own_module.MyPolicy", "--data.env_id=own_module:Mine-v0"])


@pytest.mark.parametrize("command", ["fit", "test", "collect", "repeat"])
def test_trust_option_accepts_true_or_false(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--trust", "maybe"])
    assert "true" in capsys.readouterr().err


def test_trust_ends_with_its_block():
    with trust_scope(False, ["a.B"]):
        assert is_trusted("a.B")
        assert not is_trusted("a.C")
        with trust_scope(True):
            assert is_trusted()
        assert not is_trusted()
    assert not is_trusted("a.B")
