"""Every recipe runs, and its comment has the measured results."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import asdict, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import lightning.pytorch
import numpy as np
import pytest
import yaml
from suites import RECORDED

from lit_imitation import PPO, SAC
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.rollout import collect, reference
from lit_imitation.utils.arguments import constructor_signature

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs").glob("[!t]*/*.yaml"))
OVERLAYS = sorted((ROOT / "configs" / "trainer").glob("*.yaml"))
TASKS = {
    "cartpole", "pendulum", "mountain_car", "mountain_car_continuous", "acrobot", "lunar_lander",
    "lunar_lander_continuous", "hopper", "half_cheetah", "walker2d", "ant", "swimmer", "reacher",
}  # fmt: skip
MORE_TASKS = {"bipedal_walker", "inverted_double_pendulum"}
GUIDED = {"navigation", "pendulum", "reacher"}
HEADS = {name: {"fork"} for name in ("mdn", "quantized", "cvae", "diffusion")} | {"flow": {"fork", "push_t"}}
"""Tasks of policies that plan ahead."""
WORLDS = {"grid_world", "object_world", "binary_world", "frozen_lake", "taxi"}
SIMULATED = {
    "Box2D": ("LunarLander", "BipedalWalker"),
    "mujoco": ("Hopper", "HalfCheetah", "Walker2d", "Ant", "Swimmer", "Reacher", "InvertedDoublePendulum"),
}
"""Optional packages that tasks need, by prefixes of their ids."""
OWN = RECIPES[0].parents[1] / "bc" / "from_file.yaml"
"""Recipe for a file of the user, without an environment and therefore without a score."""
SHIPPED = {"lunar_lander_shipped", "lunar_lander_continuous_shipped"}


SMOKE = {
    "bc/cartpole", "bc/from_file", "dagger/cartpole", "gail/cartpole", "airl/hopper", "gcl/navigation",
    "maxent_irl/frozen_lake", "ppo/cartpole", "sac/pendulum",
    "mdn/fork", "quantized/fork", "cvae/fork", "diffusion/fork", "flow/fork",
}  # fmt: skip
"""Recipes, at least one of each method, that run in the fast tiers; the others are only read."""


def name_of(recipe: Path) -> str:
    return f"{recipe.parent.name}/{recipe.stem}"


def test_every_method_has_a_smoke_test():
    assert {name.partition("/")[0] for name in SMOKE} == {recipe.parent.name for recipe in RECIPES}
    assert {name_of(recipe) for recipe in RECIPES} >= SMOKE


def check_classes(given: object) -> None:
    """Check that the classes in part of a recipe exist and take the arguments that it gives them."""
    for value in given.values() if isinstance(given, dict) else given if isinstance(given, list) else ():
        check_classes(value)
    if isinstance(given, dict) and "class_path" in given:
        module, _, name = given["class_path"].rpartition(".")
        constructor_signature(getattr(import_module(module), name)).bind_partial(None, **given.get("init_args", {}))


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_recipe_names_classes_and_their_arguments(recipe):
    config = yaml.safe_load(recipe.read_text())
    assert {"model", "data", "trainer"} <= set(config)
    check_classes(config)
    inspect.signature(lightning.pytorch.Trainer).bind(**config["trainer"])


def random_demonstrations(env_id: str, path: Path) -> None:
    envs = make(env_id, 2, seed=0)
    envs.action_space.seed(0)
    transitions = collect(envs, lambda observation: np.asarray(envs.action_space.sample()), 4, seed=0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": env_id}))


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, marks=pytest.mark.integration if name_of(path) in SMOKE else pytest.mark.slow)
        for path in RECIPES
    ],
    ids=name_of,
)
def test_recipe_runs(recipe, tmp_path, monkeypatch):
    # Episodes of the larger tasks take almost a second each, and their number does not matter here.
    monkeypatch.setattr(reference, "EPISODES", 4)
    config = yaml.safe_load(recipe.read_text())
    data = config["data"]["init_args"]
    needed = next((module for module, ids in SIMULATED.items() if data.get("env_id", "").startswith(ids)), None)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{data['env_id']} needs {needed}")
    more = [f"--data.demonstrations={RECORDED}"] if recipe == OWN else ["--data.test_episodes=4"]
    if needed is not None and recipe.parent.name != "gcl":  # GCL's episodes must fit its rounds
        shorter = data.get("env_kwargs", {}) | {"max_episode_steps": 50}
        more += [f"--data.env_kwargs={json.dumps(shorter)}"]
    by_expert = recipe.parent.name in ("bc", "dagger", "gail", "airl", "gcl") and recipe != OWN
    if by_expert and data.get("expert_trajectories", 25) > 4:
        more += ["--data.expert_trajectories=4"]
    if data.get("demonstrations") and recipe != OWN:  # a download, or a file to make first
        random_demonstrations(data["env_id"], tmp_path / "random.npz")
        more += [f"--data.demonstrations={tmp_path / 'random.npz'}"]
    if "learner" in config["model"].get("init_args", {}):  # compiling would take most of the time
        more += ["--model.learner.compile=false"]
    main(["fit", f"--config={recipe}", "--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}", *more])


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != OWN], ids=name_of)
def test_recipe_comment_has_time_and_score(recipe):
    comment = " ".join(line[1:].strip() for line in recipe.read_text().splitlines() if line.startswith("#"))
    assert "2 cores" in comment
    # Imitation reports the normalized score; reinforcement learning has no expert to compare with.
    assert ("return" if recipe.parent.name in ("ppo", "sac") else "normalized score") in comment
    known = {"maxent_irl": WORLDS, "gcl": GUIDED, **HEADS}.get(recipe.parent.name, TASKS | MORE_TASKS | SHIPPED)
    assert recipe.stem.removesuffix("_planner") in known
    if recipe.parent.name == "dagger":
        interval = r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]"
        assert re.search(rf"return {interval} .* behavioral cloning on as many: return {interval}", comment)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_omitted_options_are_defaults_of_the_learner(kind, capsys):
    """The learners' arguments share names but not defaults."""
    recipe = next(path for path in RECIPES if path.parent.name == kind)
    with pytest.raises(SystemExit):
        main(["fit", f"--config={recipe}", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["learner"]
    said = yaml.safe_load(recipe.read_text())["model"]["init_args"]["learner"].get("init_args", {})
    cls = {"ppo": PPO, "sac": SAC}[kind]
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in said:
            value, default = found["init_args"][name], parameter.default
            default = asdict(default) if is_dataclass(default) else default
            assert (tuple(value) if isinstance(value, list) else value) == default, (recipe, name)


def test_every_world_has_a_recipe():
    assert {path.stem for path in RECIPES if path.parent.name == "maxent_irl"} == WORLDS


def test_every_guided_cost_learning_task_has_a_recipe():
    assert {path.stem for path in RECIPES if path.parent.name == "gcl"} == GUIDED


def test_every_task_has_a_cloning_recipe():
    assert {path.stem for path in RECIPES if path.parent.name == "bc"} == TASKS | MORE_TASKS | SHIPPED | {OWN.stem}


def test_dagger_recipes_include_scripted_tasks_and_planner():
    named = {"cartpole", "pendulum", "mountain_car_continuous", "lunar_lander", "lunar_lander_continuous"}
    recipes = {path.stem for path in RECIPES if path.parent.name == "dagger"}
    assert named < recipes
    assert any(name.endswith("_planner") for name in recipes)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_adds_to_recipe(overlay, tmp_path, capsys):
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
