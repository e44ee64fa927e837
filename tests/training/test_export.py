"""Exported policies and rewards compute what the package computes, and say how to use them."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from heads import ARM, HEADS, VECTOR, make_head
from short_runs import run
from test_readme import python_block

import lit_imitation.policies
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError
from lit_imitation.policies import (
    CategoricalPolicy,
    DeterministicPolicy,
    EnsemblePolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    Policy,
    SequencePolicy,
    SquashedGaussianPolicy,
)
from lit_imitation.policies.checkpoints import describe
from lit_imitation.rewards import (
    AIRLDiscriminator,
    ConvolutionalReward,
    Discriminator,
    GuidedCost,
    LinearReward,
    MLPReward,
)
from lit_imitation.training.export import ExportError, check_parity, export
from lit_imitation.training.export_formats import FORMATS
from lit_imitation.training.export_graphs import GivenDraws, PolicyGraph, RewardGraph
from lit_imitation.training.export_metadata import ema_decay, flat_layout
from lit_imitation.transitions import Transitions
from lit_imitation.utils.spaces import FlatBox, PackedBox

onnxruntime = pytest.importorskip("onnxruntime")

CHUNKS = {"n_obs_steps": 2, "horizon": 5, "n_action_steps": 2}
CAMERAS = Dict(
    {"position": Box(-2, 2, (3,)), "camera": Box(0, 255, (28, 30, 3), np.uint8), "tool": Discrete(3, start=1)}
)
IMAGES, CODES = Box(0, 255, (28, 30, 3), np.uint8), MultiDiscrete([2, 3], start=[1, -2])
SINGLE = {
    "gaussian": (GaussianPolicy, VECTOR, ARM, {"std": "state"}),
    "squashed": (SquashedGaussianPolicy, VECTOR, ARM, {}),
    "deterministic": (DeterministicPolicy, CODES, Box(-2, 1, (2, 3), np.float32), {}),
    "ensemble": (EnsemblePolicy, VECTOR, ARM, {"members": 3}),
    "ensemble-discrete": (EnsemblePolicy, VECTOR, Discrete(3, start=2), {"members": 3}),
    "categorical": (CategoricalPolicy, IMAGES, Discrete(3, start=-1), {}),
    "multi-categorical": (MultiCategoricalPolicy, Discrete(4, start=2), CODES, {}),
}
NO_NOISE = {"deterministic", "ensemble"}
STATES, MOVES = Discrete(6), Discrete(3, start=1)
PLANE = Box(-2, 2, (2,), np.float32)
REWARDS = {
    "gail": (lambda: Discriminator(VECTOR, PLANE), ["observation", "action"]),
    "gail-state": (lambda: Discriminator(VECTOR, MOVES, inputs="state", spectral_norm=True), ["observation"]),
    "gail-absorbing": (
        lambda: Discriminator(VECTOR, PLANE, inputs="transition", absorbing=True, reward="negative"),
        ["observation", "next_observation", "terminated"],
    ),
    "airl": (lambda: AIRLDiscriminator(VECTOR, PLANE), ["observation"]),
    "airl-absorbing": (
        lambda: AIRLDiscriminator(VECTOR, MOVES, state_only=False, absorbing=True),
        ["observation", "action", "terminated"],
    ),
    "gcl": (lambda: GuidedCost(VECTOR, PLANE), ["observation", "action"]),
    "maxent-linear": (lambda: LinearReward(STATES, MOVES, 0, inputs="transition"), ["observation", "next_observation"]),
    "maxent-mlp": (lambda: MLPReward(STATES, MOVES, 3), ["observation", "next_observation", "terminated"]),
    "maxent-convolutional": (
        lambda: ConvolutionalReward(STATES, Discrete(3), 2, (2, 3), inputs="state_action"),
        ["observation", "action"],
    ),
}


def make_policy(name):
    if name in HEADS:
        policy = make_head(name, **CHUNKS)
    else:
        cls, observations, actions, arguments = SINGLE[name]
        torch.manual_seed(0)
        policy = cls(observations, actions, hidden_sizes=(8, 8), **arguments)
    if policy.encoder.standardize is not None:
        policy.encoder.standardize.set_statistics(torch.full((4,), 7.0), torch.full((4,), 3.0))
    return policy


def make_reward(name):
    torch.manual_seed(0)
    model = REWARDS[name][0]()
    with torch.no_grad():
        for parameter in [*model.parameters(), *([model.features] if name.startswith("maxent-") else [])]:
            if parameter.is_floating_point():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def checkpoint_of(policy, path, env_id="Task-v0", **method):
    """A checkpoint with what a run writes about its policy."""
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    described = {"class": "lit_imitation.methods.bc.BC", "arguments": method}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"policy": describe(policy), "state_dict": state, "method": described, "env_id": env_id}, path)
    return path


def in_onnxruntime(path, **inputs):
    session = onnxruntime.InferenceSession(path)
    (output,) = session.run(None, {name: np.asarray(one) for name, one in inputs.items()})
    return output


ABOUT = {"kind": "policy", "trained": "a test"}


def cases(names, fast):
    """Names as parameters: those in `fast` are integration tests, and the others slow, at 2 to 30 seconds each."""
    marks = {True: pytest.mark.integration, False: pytest.mark.slow}
    return [pytest.param(name, marks=marks[name in fast]) for name in names]


EVERY = [f"{kind}-{name}" for kind in FORMATS for name in (*SINGLE, *HEADS)]


@pytest.mark.parametrize("case", cases(EVERY, {"onnx-categorical", "onnx-flow", "torch_export-mixture"}))
def test_exported_policy_acts_as_the_policy(case, tmp_path):
    kind, _, name = case.partition("-")
    policy = make_policy(name)
    graph = PolicyGraph(policy)
    export(graph, ABOUT, tmp_path / "policy", FORMATS[kind])
    for count in (1, 3, 17):
        given = graph.examples(count, 10 + count)
        observation = given["observation"]
        if kind == "onnx":
            found = in_onnxruntime(tmp_path / "policy.onnx", **given)
        else:
            found = torch.export.load(tmp_path / "policy.pt2").module()(**given).numpy()
        expected = policy.plan(observation) if name in HEADS else policy(observation)
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-3 if name == "diffusion-epsilon" else 3e-5)


@pytest.mark.parametrize("name", cases([name for name in (*SINGLE, *HEADS) if name not in NO_NOISE], {"mixture"}))
def test_stochastic_export_needs_nothing_but_its_noise(name, tmp_path):
    graph = PolicyGraph(make_policy(name), stochastic=True)
    export(graph, ABOUT, tmp_path / "policy", FORMATS["onnx"])
    given = graph.examples(17, 3)
    found = in_onnxruntime(tmp_path / "policy.onnx", **given)
    np.testing.assert_allclose(found, graph.reference(**given), atol=1e-3 if name == "diffusion-epsilon" else 3e-5)
    assert np.abs(found - in_onnxruntime(tmp_path / "policy.onnx", **given | {"noise": -given["noise"]})).max() > 0.01


def test_every_policy_class_is_exported():
    classes = {getattr(lit_imitation.policies, name) for name in lit_imitation.policies.__all__}
    tested = {cls for cls, *_ in [*HEADS.values(), *SINGLE.values()]}
    assert {one for one in classes if isinstance(one, type) and issubclass(one, Policy)} == tested | {
        Policy,
        SequencePolicy,
    }


@pytest.mark.parametrize("name", cases(REWARDS, {"gail"}))
def test_exported_reward_needs_what_it_depends_on(name, tmp_path):
    model = make_reward(name)
    graph = RewardGraph(model)
    assert list(graph.inputs) == REWARDS[name][1]
    export(graph, ABOUT, tmp_path / "reward", FORMATS["onnx"])
    for count in (1, 3, 17):
        given = graph.examples(count, 10 + count)
        nothing = torch.zeros(count, dtype=torch.bool)
        spaces = dict.fromkeys(("observation", "next_observation"), model.observation_space)
        spaces["action"] = model.action_space
        others = {name: torch.from_numpy(np.array([of.sample() for _ in nothing])) for name, of in spaces.items()}
        parts = {"reward": torch.zeros(count), "terminated": nothing, "truncated": nothing} | others | given
        with torch.no_grad():
            expected = model.recovered_reward(Transitions(**parts, batch_size=[count]))
        np.testing.assert_allclose(in_onnxruntime(tmp_path / "reward.onnx", **given), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", cases(FORMATS, {"torch_export"}))
@pytest.mark.parametrize("planned", [False, True])
def test_parts_of_an_observation_are_inputs(kind, planned, tmp_path):
    space = PackedBox(CAMERAS)
    torch.manual_seed(0)
    if planned:
        policy = make_head("mixture", observation_space=space, **CHUNKS)
    else:
        policy = CategoricalPolicy(space, Discrete(3), hidden_sizes=(8,))
    graph = PolicyGraph(policy)
    export(graph, ABOUT, tmp_path / "policy", FORMATS[kind])
    assert {name: one.dtype for name, one in graph.inputs.items()} == {
        "observation/position": "float32",
        "observation/camera": "uint8",
        "observation/tool": "int64",
    }
    steps = (2,) if planned else ()
    for count in (1, 17):
        samples = [CAMERAS.sample() for _ in range(count * math.prod(steps))]
        parts = {key: np.stack([np.asarray(one[key]) for one in samples]) for key in CAMERAS}
        rows = torch.from_numpy(space.flatten(parts)).view(count, *steps, -1)
        expected = policy.plan(rows) if planned else policy.act(rows)
        given = {f"observation/{key}": one.reshape(count, *steps, *one.shape[1:]) for key, one in parts.items()}
        if kind == "onnx":
            found = in_onnxruntime(tmp_path / "policy.onnx", **given)
        else:
            tensors = {name.partition("/")[2]: torch.from_numpy(one) for name, one in given.items()}
            found = torch.export.load(tmp_path / "policy.pt2").module()(observation=tensors)
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_draws_from_noise_have_their_distribution():
    probability = torch.tensor([0.5, 0.0, 0.2, 0.3])
    noise = torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)[:, None]
    with GivenDraws(noise, [1]):
        drawn = torch.multinomial(probability.expand(1000, 4), 1)
    assert torch.bincount(drawn.flatten(), minlength=4).tolist() == [500, 0, 200, 300]
    with GivenDraws(noise.view(500, 2), [2]):
        several = torch.multinomial(probability.expand(1000, 4), 1)
    torch.testing.assert_close(several, drawn)


def test_gaussian_noise_is_in_standard_deviations():
    graph = PolicyGraph(make_policy("gaussian"), stochastic=True)
    observation = graph.examples(4, 0)["observation"]
    policy = graph.policy
    mean, log_std = policy.mean_and_log_std(policy.head(observation))
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    torch.testing.assert_close(graph(observation, noise), policy.to_action(mean + log_std.exp() * noise))


@pytest.mark.parametrize("name", sorted(NO_NOISE))
def test_policy_that_draws_nothing_takes_no_noise(name):
    with pytest.raises(ConfigError, match="draws nothing"):
        PolicyGraph(make_policy(name), stochastic=True)


@pytest.mark.parametrize("kind", cases(FORMATS, {"torch_export"}))
def test_changed_weight_fails_and_leaves_no_file(kind, tmp_path):
    class Mutating(FORMATS[kind]):
        def __init__(self, graph):
            super().__init__(copy.deepcopy(graph))
            with torch.no_grad():
                graph.policy.network.layers[-1].weight[0, 0] += 1e-2

    # The package now has another weight than the file.
    graph = PolicyGraph(make_policy("gaussian"))
    with pytest.raises(ExportError, match=r"differs from the package by .* no file was written"):
        export(graph, ABOUT, tmp_path / "policy", Mutating)
    assert not list(tmp_path.iterdir())


def test_parity_fails_for_numbers_that_are_none():
    graph = PolicyGraph(make_policy("gaussian"))
    assert check_parity(graph, lambda inputs: graph(**inputs), "itself").largest_difference == 0.0
    with pytest.raises(ExportError, match="differs"):
        check_parity(graph, lambda inputs: graph(**inputs) * torch.nan, "something")
    with pytest.raises(ExportError, match="returns"):
        check_parity(graph, lambda inputs: graph(**inputs)[:, :1], "something")


@pytest.mark.integration
def test_metadata_is_the_same_in_all_places(tmp_path, capsys):
    checkpoint_of(make_head("flow", **CHUNKS, ensemble_decay=0.1), tmp_path / "run" / "checkpoints" / "best.ckpt")
    folder = tmp_path / "run" / "export"
    main(["export", str(tmp_path / "run")])
    assert "parity: largest difference" in (out := capsys.readouterr().out)
    assert "onnxruntime 0." in out
    beside = json.loads((folder / "policy.json").read_text())
    inside = onnxruntime.InferenceSession(folder / "policy.onnx").get_modelmeta().custom_metadata_map["lit_imitation"]
    assert json.loads(inside) == beside
    assert str(Path.cwd()).encode() not in (folder / "policy.onnx").read_bytes()
    assert (beside["policy_class"], beside["method"], beside["weights"]) == ("FlowPolicy", "BC", "last")
    assert beside["inputs"]["observation"]["shape"] == ["batch", 2, 4]
    assert beside["outputs"]["action"]["shape"] == ["batch", 5, 3]
    assert beside["executed"] == {"first": 1, "stop": 3}
    assert beside["temporal_ensembling"]["decay"] == 0.1
    assert beside["observation_space"]["low"] == [None] * 4
    main(["export", str(tmp_path / "run"), "--format", "torch_export", "--overwrite"])
    extra = {"lit_imitation.json": ""}
    torch.export.load(folder / "policy.pt2", extra_files=extra)
    assert json.loads(extra["lit_imitation.json"]) == json.loads((folder / "policy.json").read_text())


def test_layout_of_flat_dictionaries():
    space = Dict({"b": Box(-1, 1, (2, 3)), "a": Discrete(4, start=1), "c": Dict({"d": Box(0, 1, (1,))})})
    layout = {part["key"]: part for part in flat_layout(FlatBox(space).original)}
    sample = space.sample()
    vector = FlatBox(space).flatten(sample)
    for key, value in (("b", sample["b"]), ("c/d", sample["c"]["d"])):
        part = layout[key]
        np.testing.assert_array_equal(vector[part["start"] : part["stop"]].reshape(part["shape"]), value)
    part = layout["a"]
    assert part["one_hot"] == {"counts": [4], "first": [1]}
    assert vector[part["start"] : part["stop"]].argmax() + 1 == sample["a"]


def test_moving_average_is_told():
    averaged = {"class": "Optimization", "arguments": {"ema_decay": 0.99}}
    assert ema_decay({"optimization": averaged}, "policy") == 0.99
    assert ema_decay({"learner": {"class": "PPO", "arguments": {"optimization": averaged}}}, "policy") == 0.99
    assert ema_decay({"discriminator_optimization": averaged, "learner": None}, "policy") is None
    assert ema_decay({"discriminator_optimization": averaged}, "reward") == 0.99


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = checkpoint_of(make_policy("deterministic"), tmp_path / "policy.ckpt")
    assert "does not exist" in fails(capsys, tmp_path / "none")
    assert "draws nothing" in fails(capsys, file, "--stochastic")
    assert "contains no learned reward" in fails(capsys, file, "--part", "reward")
    assert "--out" in fails(capsys, file, "--out", "s3://bucket/x")
    (tmp_path / "export" / "policy.json").write_text("{}")
    assert "--overwrite" in fails(capsys, file)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "lit-imitation[onnx]" in fails(capsys, file, "--overwrite")


class BranchingPolicy(DeterministicPolicy):
    """Reads the values of its observations, which a graph cannot."""

    def decode(self, head, deterministic):
        return super().decode(head if head.sum() > 0 else -head, deterministic)


def test_policy_that_cannot_be_traced_is_one_line(tmp_path, capsys):
    file = checkpoint_of(BranchingPolicy(VECTOR, ARM), tmp_path / "policy.ckpt")
    error = fails(capsys, file, "--trust", "true", "--format", "torch_export")
    assert "the policy of BC with BranchingPolicy on Task-v0 cannot be exported" in error
    assert not list((tmp_path / "export").iterdir())


@pytest.mark.parametrize("env_id", cases(["Pendulum-v1", "CartPole-v1"], {"Pendulum-v1"}))
def test_program_on_the_page_plays_as_the_actor(env_id, tmp_path, capsys):
    env = gymnasium.make(env_id)
    if env_id == "Pendulum-v1":
        policy = make_head("mixture", env.action_space, env.observation_space, **CHUNKS)
    else:
        policy = CategoricalPolicy(env.observation_space, env.action_space, hidden_sizes=(8,))
    file = checkpoint_of(policy, tmp_path / "policy.ckpt", env_id)
    main(["export", str(file), "--out", str(tmp_path)])
    actor, total, done = policy.actor(), 0.0, False
    actor.reset(np.array([True]))
    observation, _ = env.reset(seed=0)
    while not done:
        observation, reward, terminated, truncated, _ = env.step(actor.act(observation[None])[0])
        total, done = total + reward, terminated or truncated
    page = {}
    exec(python_block("docs/export.md", "onnxruntime").replace("policy.onnx", str(tmp_path / "policy.onnx")), page)
    assert page["total"] == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gail-continuous", "airl-discrete", "gcl-continuous", "maxent-irl"])
def test_run_exports_policy_and_reward(method, tmp_path, capsys):
    run(method, tmp_path)
    main(["export", str(tmp_path)])
    assert {file.name for file in (tmp_path / "export").iterdir()} == {
        "policy.onnx",
        "policy.json",
        "reward.onnx",
        "reward.json",
    }


@pytest.mark.slow
def test_moving_average_is_exported(tmp_path, capsys):
    run("bc-continuous", tmp_path, "--model.optimization.ema_decay=0.9")
    main(["export", str(tmp_path), "--format", "torch_export"])
    assert json.loads((tmp_path / "export" / "policy.json").read_text())["weights"].endswith("with decay 0.9")
