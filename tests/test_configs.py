"""Every recipe runs."""

from __future__ import annotations

import inspect
import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from lit_imitation import PPO, SAC
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.rollout import collect, reference

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs").glob("[!t]*/*.yaml"))
OVERLAYS = sorted((ROOT / "configs" / "trainer").glob("*.yaml"))
TASKS = {
    "cartpole", "pendulum", "mountain_car", "mountain_car_continuous", "acrobot", "lunar_lander",
    "lunar_lander_continuous", "hopper", "half_cheetah", "walker2d", "ant", "swimmer", "reacher",
}  # fmt: skip
MORE_TASKS = {"bipedal_walker", "inverted_double_pendulum"}
GUIDED = {"navigation", "pendulum", "reacher"}
WORLDS = {"grid_world", "object_world", "binary_world", "frozen_lake", "taxi"}
SIMULATED = {
    "Box2D": ("LunarLander", "BipedalWalker"),
    "mujoco": ("Hopper", "HalfCheetah", "Walker2d", "Ant", "Swimmer", "Reacher", "InvertedDoublePendulum"),
}
"""What tasks need that is not always installed, by the beginnings of their ids."""
SHIPPED = {"lunar_lander_shipped", "lunar_lander_continuous_shipped"}


def random_demonstrations(env_id: str, path: Path) -> None:
    envs = make(env_id, 2, seed=0)
    envs.action_space.seed(0)
    transitions = collect(envs, lambda observation: np.asarray(envs.action_space.sample()), 4, seed=0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": env_id}))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_runs(recipe, tmp_path, monkeypatch):
    # Episodes of the larger tasks take most of a second each, and how many there are is not what is tested.
    monkeypatch.setattr(reference, "EPISODES", 4)
    config = yaml.safe_load(recipe.read_text())
    data = config["data"]["init_args"]
    needed = next((module for module, ids in SIMULATED.items() if data["env_id"].startswith(ids)), None)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{data['env_id']} needs {needed}")
    more = ["--data.test_episodes=4"]
    if needed is not None and recipe.parent.name != "gcl":  # nor how long they are, but GCL's have to fit its rounds
        shorter = data.get("env_kwargs", {}) | {"max_episode_steps": 50}
        more += [f"--data.env_kwargs={json.dumps(shorter)}"]
    if recipe.parent.name in ("bc", "dagger", "gail", "airl", "gcl") and data.get("expert_trajectories", 25) > 4:
        more += ["--data.expert_trajectories=4"]
    if str(data.get("demonstrations", "")).startswith("minari:"):  # a download; the recipe around it is what is tested
        random_demonstrations(data["env_id"], tmp_path / "random.npz")
        more += [f"--data.demonstrations={tmp_path / 'random.npz'}"]
    if "learner" in config["model"].get("init_args", {}):  # to compile it would take longer than all the rest
        more += ["--model.learner.compile=false"]
    main(["fit", f"--config={recipe}", "--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}", *more])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_says_what_it_does_how_long_it_takes_and_what_it_scores(recipe):
    comment = " ".join(line[1:].strip() for line in recipe.read_text().splitlines() if line.startswith("#"))
    assert "2 cores" in comment
    # Of imitation it is the share of the expert's score, of learning from a reward there is no expert to compare with.
    assert ("return" if recipe.parent.name in ("ppo", "sac") else "normalized score") in comment
    known = {"maxent_irl": WORLDS, "gcl": GUIDED}.get(recipe.parent.name, TASKS | MORE_TASKS | SHIPPED)
    assert recipe.stem.removesuffix("_planner") in known
    if recipe.parent.name == "dagger":
        interval = r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]"
        assert re.search(rf"return {interval} .* behavioral cloning on as many: return {interval}", comment)


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_what_a_recipe_does_not_say_is_its_own_learners_default(kind, capsys):
    """And not that of another one, whose arguments have the same names."""
    for recipe in (path for path in RECIPES if path.parent.name == kind):
        with pytest.raises(SystemExit):
            main(["fit", f"--config={recipe}", "--print_config"])
        found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["learner"]
        said = yaml.safe_load(recipe.read_text())["model"]["init_args"]["learner"].get("init_args", {})
        cls = {"ppo": PPO, "sac": SAC}[kind]
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and name not in said:
                value, default = found["init_args"][name], parameter.default
                assert (tuple(value) if isinstance(value, list) else value) == default, (recipe, name)


def test_every_world_has_its_recipe():
    assert {path.stem for path in RECIPES if path.parent.name == "maxent_irl"} == WORLDS


def test_the_guided_cost_learning_recipes():
    assert {path.stem for path in RECIPES if path.parent.name == "gcl"} == GUIDED


def test_every_task_has_its_behavioral_cloning_recipe():
    assert {path.stem for path in RECIPES if path.parent.name == "bc"} == TASKS | MORE_TASKS | SHIPPED


def test_the_dagger_recipes():
    named = {"cartpole", "pendulum", "mountain_car_continuous", "lunar_lander", "lunar_lander_continuous"}
    recipes = {path.stem for path in RECIPES if path.parent.name == "dagger"}
    assert named < recipes
    assert any(name.endswith("_planner") for name in recipes)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_stack(overlay, tmp_path, capsys):
    recipe = ROOT / "configs" / "bc" / "cartpole.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={recipe}", f"--config={overlay}", "--print_config"])
    assert stop.value.code == 0
    merged = yaml.safe_load(capsys.readouterr().out)
    assert merged["data"]["init_args"]["env_id"] == "CartPole-v1"
    added = yaml.safe_load(overlay.read_text())["trainer"]
    for key, value in added.items():
        if key.endswith("+"):
            names = [callback["class_path"].rpartition(".")[2] for callback in merged["trainer"][key[:-1]]]
            assert names[:2] == ["EarlyStopping", "ModelCheckpoint"]
            assert names[2:] == [callback["class_path"].rpartition(".")[2] for callback in value]
        elif not isinstance(value, dict):
            assert merged["trainer"][key] == value
