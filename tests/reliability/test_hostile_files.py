"""Files that try to run code, read other files, or reach the network; each file is one trial.

A trial holds if no code chosen by the file ran (no marker exists), no process was started and no socket opened, the
secret outside was not read, and the result was one message of this package, or the file was harmless data.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_formats
import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hostile import (
    ACTIONS,
    OBSERVATIONS,
    SECRET,
    Stage,
    flip_bit,
    good_columns,
    make_special,
    make_stage,
    rewrite_archive,
)

from lit_imitation import load_policy, load_reward
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import read_demonstrations
from lit_imitation.data.trajectories import read_trajectories
from lit_imitation.errors import LitImitationError, MissingExtraError
from lit_imitation.experts import load_expert
from lit_imitation.methods import BC
from lit_imitation.methods.dagger.human_labels import HumanLabels
from lit_imitation.training.checkpoint_io import AtomicCheckpointIO
from lit_imitation.training.repeat import _read_summary
from lit_imitation.transitions import Transitions

Attempt = Callable[[], Any]
TRIALS: dict[str, Callable[[Stage], Attempt]] = {}
NAMES: list[str] = []
"""Parameters of all `TRIALS`, filled below before pytest collects them."""
HARMLESS: set[str] = set()
"""Trials whose file is accepted as harmless data."""


def add(name: str, trial: Callable[[Stage], Attempt], harmless: bool = False) -> None:
    assert name not in TRIALS, name
    TRIALS[name] = trial
    if harmless:
        HARMLESS.add(name)


@pytest.mark.integration
@pytest.mark.grid(kinds=3)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_file(name, tmp_path, monkeypatch, capsys):
    stage = make_stage(tmp_path, monkeypatch)
    attempt = TRIALS[name](stage)
    before = set(tmp_path.rglob("*"))
    message, result = "", None
    try:
        result = attempt()
    except MissingExtraError as error:
        pytest.skip(str(error))
    except LitImitationError as error:
        message = str(error)
    except SystemExit:
        message = capsys.readouterr().err.rpartition("error: ")[2]  # skip lines about the cache
        assert "Traceback" not in message
    assert not stage.marker.exists(), "it ran"
    assert stage.events == [], "it started a process or opened a socket"
    seen = repr(result) + message + "".join(capsys.readouterr())
    assert str(SECRET) not in seen, "the secret arrived"
    if isinstance(result, Transitions):
        assert not (result.observation == SECRET).any(), "the secret arrived"
    assert (name in HARMLESS) != bool(message), f"answer: {message!r}"
    assert len(message.strip().splitlines()) <= 2, message
    assert len(message) < 1500, message
    written = {path for path in tmp_path.rglob("*") if stage.inside not in path.parents} - before
    assert not written, "it wrote outside"


def expert(spec: str) -> Any:
    return load_expert(spec, "any", OBSERVATIONS, ACTIONS)


def run_command(path: Path, command: str = "test", *more: str) -> Attempt:
    return lambda: main([command, "--ckpt_path", str(path), *more])


# Configurations inside checkpoints.


def set_model(**arguments: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["model"]["init_args"].update(arguments)


def set_data(**arguments: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["data"]["init_args"].update(arguments)


def without_environment(**arguments: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["data"].update(init_args={"demonstrations": "x.npz", **arguments})


def set_class(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[part].update(class_path=name)


POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "marker"]}}
CONFIGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "model": set_class("model", "hostile_module.Policy"),
    "data": set_class("data", "hostile_module.Policy"),
    "model of the standard library": set_class("model", "subprocess.Popen"),
    "a private class": set_class("model", "lit_imitation.training.lightning_cli.CLI"),
    "a function of this package": set_class("model", "lit_imitation.cli.main"),
    "a module through this package": set_class("model", "lit_imitation.cli.os.system"),
    "policy": set_model(policy={"class_path": "hostile_module.Policy"}),
    "policy in short": set_model(policy="hostile_module.Policy"),
    "policy by a function": set_model(policy="hostile_module.factory"),
    "policy of torch": set_model(policy={"class_path": "torch.nn.Linear"}),
    "policy by eval": set_model(policy="builtins.eval"),
    "policy in a list": set_model(policy=[{"class_path": "hostile_module.Policy"}]),
    "policy deep below": set_model(policy={"class_path": "lit_imitation.CategoricalPolicy",
                                           "init_args": {"activation": {"class_path": "hostile_module.Policy"}}}),
    "policy by dict_kwargs": set_model(policy={"class_path": "lit_imitation.CategoricalPolicy",
                                               "dict_kwargs": {"activation": "hostile_module.act"}}),
    "YAML in text": set_model(policy="{class_path: hostile_module.Policy}"),
    "YAML in a path": set_data(demonstrations="{class_path: hostile_module.Policy}"),
    "dotted key": lambda config: config["model"].update({"init_args.policy": "hostile_module.Policy"}),
    "key of a path": lambda config: config["model"].update({"__path__": "policy.yaml"}),
    "appending key": lambda config: config["model"]["init_args"].update({"policy+": "hostile_module.Policy"}),
    "model as text": lambda config: config.update(model="hostile_module.Policy"),
    "data as a URL": lambda config: config.update(data="http://127.0.0.1:9/data.yaml"),
    "model as a URL": lambda config: config.update(model="https://127.0.0.1:9/model.yaml"),
    "seed as a class": lambda config: config.update(seed_everything=POPEN),
    "environment of a module": set_data(env_id="hostile_module:Env-v0"),
    "expert of a module": set_data(expert="hostile_module:act"),
    "expert of the system": set_data(expert="os:system"),
    "expert is our command line": set_data(expert="lit_imitation.cli:main"),
    "expert by URL": set_data(expert="npz:http://127.0.0.1:9/x.npz"),
    "start by URL": set_model(start="s3://bucket/run"),
    "demonstrations by http": set_data(demonstrations="http://127.0.0.1:9/x.npz"),
    "demonstrations by s3": set_data(demonstrations="s3://bucket/x.npz"),
    "demonstrations by memory": set_data(demonstrations="memory://x.npz"),
    "demonstrations by file": set_data(demonstrations="file:///etc/passwd"),
    "demonstrations from the hub": set_data(demonstrations="hf:user/dataset"),
    "environment that reads a file": set_data(env_kwargs={"xml_file": "/etc/passwd"}),
    "environment that reads a parent": set_data(env_kwargs={"map": ["../../secret.txt"]}),
    "space of a class": without_environment(action_space=POPEN),
    "space of a class with a type": without_environment(action_space={"type": "Box", **POPEN}),
    "space of a class in its folder": without_environment(observation_space={"class_path": "hostile_module.Policy"}),
    "space as text": without_environment(action_space="hostile_module.Policy"),
    "space of a file": without_environment(action_space={"type": "/etc/passwd"}),
    "space with bounds in a file": without_environment(action_space={"type": "Box", "low": "../secret.txt"}),
    "space of a dtype of objects": without_environment(observation_space={"type": "Box", "shape": [3], "dtype": "O"}),
    "enormous number of choices": without_environment(action_space={"type": "Discrete", "n": 10**12}),
    "enormous observations": without_environment(observation_space={"type": "Box", "shape": [10**6, 10**6]}),
    "demonstrations by http, without an environment": without_environment(demonstrations="http://127.0.0.1:9/x.npz"),
    "aliases": lambda config: config["data"]["init_args"].update(bomb()),
}  # fmt: skip


def bomb() -> dict[str, Any]:
    value: Any = ["x"] * 10
    for _ in range(12):
        value = [value] * 10
    return {"env_kwargs": {"a": value}}


for _name, _change in CONFIGS.items():
    add(f"checkpoint_config-{_name}", lambda stage, change=_change: run_command(stage.checkpoint_with(change)))
for _command in ("validate", "predict"):
    add(
        f"checkpoint_config-policy, {_command}",
        lambda stage, command=_command: run_command(stage.checkpoint_with(CONFIGS["policy"]), command),
    )


def _module_in_folder(name: str, key: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        (stage.inside / name).write_text("class_path: hostile_module.Policy\n")
        change = (set_data if key in ("demonstrations", "env_id", "expert") else set_model)(**{key: name})
        return run_command(stage.checkpoint_with(change))

    return trial


for _key in ("policy", "start", "reward", "demonstrations", "env_id", "expert"):
    add(f"checkpoint_config-{_key} is a recipe in its folder", _module_in_folder("other.yaml", _key))
add("checkpoint_config-a word is a recipe in its folder", _module_in_folder("other", "policy"))
add(
    "checkpoint_config-its own name allows it",
    lambda stage: run_command(stage.checkpoint("hostile_module.Policy", config=yaml_of(CONFIGS["policy in short"]))),
)
CONFIG_TEXTS: dict[str, Any] = {
    "python tag": "model: !!python/object/apply:os.system ['touch marker']",
    "python name": "model: !!python/name:os.system",
    "no YAML": "model: [",
    "a list": "[1, 2]",
    "nested": "[" * 5000,
    "huge": "a: " + "x" * 2**21,
    "bytes": b"model: x",
    "number": 7,
    "list": ["model"],
    "none": None,
}


def yaml_of(change: Callable[[dict[str, Any]], None]) -> str:
    import yaml
    from hostile import good_config

    config = good_config()
    change(config)
    return yaml.safe_dump(config)


for _name, _text in CONFIG_TEXTS.items():
    add(
        f"checkpoint_config-{_name}",
        lambda stage, text=_text: run_command(stage.checkpoint(**{"config": 0} | {"config": text or 0})),
    )
add(
    "checkpoint_config-class in the environment's arguments",
    lambda stage: run_command(stage.checkpoint_with(set_data(env_kwargs={"a": POPEN}))),
)
add(
    "checkpoint_config-it vouches for its own zip",
    lambda stage: run_command(stage.checkpoint_with(set_data(expert=f"sb3:{sb3_zip(stage)}", trust=True)), "validate"),
)

for _name, _space in {"a tensor": {"n": torch.ones(())}, "text": {"n": "os.system"}, "a list": {"n": [2, "a"]}}.items():
    add(
        f"checkpoint_config-choices of the policy are {_name}",
        lambda stage, space=_space: run_command(
            stage.checkpoint(
                policy={"action_space": {"type": "Discrete", **space}}, config=yaml_of(without_environment())
            )
        ),
    )

# Pickles inside checkpoints.

PLACES: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "an extra entry": lambda stage: {"extra": stage.harm},
    "the configuration": lambda stage: {"config": stage.harm},
    "the policy": lambda stage: {"policy": stage.harm},
    "its class": lambda stage: {"policy": {"class": stage.harm}},
    "a weight": lambda stage: {"state_dict": {"policy.low": stage.harm}},
    "callbacks": lambda stage: {"callbacks": {"x": stage.harm}},
    "optimizers": lambda stage: {"optimizer_states": [stage.harm]},
    "hyper-parameters": lambda stage: {"hyper_parameters": {"policy": stage.harm}},
}
for _name, _place in PLACES.items():
    add(
        f"checkpoint_pickle-{_name}",
        lambda stage, place=_place: lambda: load_policy(stage.checkpoint(**place(stage))),
    )
add(
    "checkpoint_pickle-through Lightning",
    lambda stage: lambda: AtomicCheckpointIO().load_checkpoint(
        stage.checkpoint(x=stage.harm), weights_only=False
    ),
)  # fmt: skip


def raw_pickle(stage: Stage) -> Attempt:
    path = stage.inside / "x.ckpt"
    path.write_bytes(pickle.dumps({"policy": stage.harm}))
    return lambda: load_policy(path)


def old_format(stage: Stage) -> Attempt:
    path = stage.inside / "x.ckpt"
    torch.save({"policy": stage.harm}, path, _use_new_zipfile_serialization=False)
    return lambda: load_policy(path)


add("checkpoint_pickle-a raw pickle", raw_pickle)
add("checkpoint_pickle-of torch's old format", old_format)

# Classes named by checkpoints.

CLASSES: dict[str, Any] = {
    "a module in its folder": "hostile_module.Policy",
    "a function": "os.system",
    "of torch": "torch.nn.modules.linear.Linear",
    "a reward": "lit_imitation.rewards.guided_cost.GuidedCost",
    "a private one": "lit_imitation.policies.continuous._ContinuousPolicy",
    "a method": "lit_imitation.methods.bc.BC",
    "of the main module": "__main__.Policy",
    "without a name": "",
    "a number": 7,
    "a list": ["lit_imitation.policies.categorical.CategoricalPolicy"],
    "none": None,
}


def described(stage: Stage, name: Any) -> Path:
    policy = torch.load(stage.checkpoint(), weights_only=True)["policy"]
    return stage.checkpoint(policy={**policy, "class": name}, reward={**policy, "class": name})


for _name, _class in CLASSES.items():
    add(f"checkpoint_class-{_name}", lambda stage, name=_class: lambda: load_policy(described(stage, name)))
for _loader in (load_reward, BC.load_from_checkpoint):
    add(
        f"checkpoint_class-a module in its folder, {_loader.__name__}",
        lambda stage, load=_loader: lambda: load(described(stage, "hostile_module.Policy")),
    )
add(
    "checkpoint_class-through an expert",
    lambda stage: (
        lambda: load_expert(f"checkpoint:{described(stage, 'hostile_module.Policy')}", "any", OBSERVATIONS, ACTIONS)
    ),
)
for _key in ("hyper_parameters", "hparams", "module_arguments"):
    add(
        f"checkpoint_class-instantiator in {_key}",
        lambda stage, key=_key: (
            lambda: BC.load_from_checkpoint(stage.checkpoint(**{key: {"_instantiator": "hostile_module.factory"}}))
        ),
    )
for _name, _arguments in {
    "strange argument": {"nonsense": 1},
    "absurd size": {"hidden_sizes": [10**15]},
    "endless size": {"hidden_sizes": [10**40]},
    "activation of torch": {"activation": "hub"},
    "negative size": {"hidden_sizes": [-5]},
    "absurd encoder": {"encoder": {"kind": "mlp", "hidden_sizes": [10**7, 10**7]}},
    "absurd encoder of a part": {"encoder": {"camera": {"kind": "resnet18", "features": 10**12}}},
    "encoder of a class": {"encoder": {"kind": "subprocess.Popen"}},
}.items():
    add(
        f"checkpoint_class-{_name}",
        lambda stage, arguments=_arguments: (
            lambda: load_policy(
                stage.checkpoint(
                    policy={**torch.load(stage.checkpoint(), weights_only=True)["policy"], "arguments": arguments}
                )
            )
        ),
    )

# Descriptions of methods inside checkpoints, the input of `decode`.

KIND = "__kind__"
SYSTEM = {KIND: "function", "module": "torch", "name": "os.system"}
HOSTILE_CLASS = {KIND: "class", "class": "hostile_module.Policy"}
POLICY = "lit_imitation.policies.categorical.CategoricalPolicy"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {KIND: "class", "class": POLICY}
    for _ in range(depth):
        value = {KIND: "partial", "of": value, "args": [], "keywords": {}}
    return value


DESCRIPTIONS: dict[str, Any] = {
    "a function of a module in its folder": {KIND: "function", "module": "hostile_module", "name": "act"},
    "a function of the system": {KIND: "function", "module": "os", "name": "system"},
    "the system through torch": SYSTEM,
    "eval through torch": {KIND: "function", "module": "torch", "name": "builtins.eval"},
    "a file through torch": {KIND: "function", "module": "torch", "name": "from_file"},
    "the hub through torch": {KIND: "function", "module": "torch", "name": "hub.load"},
    "a module of torch": {KIND: "function", "module": "torch.nn.functional", "name": "torch"},
    "a class of a module in its folder": HOSTILE_CLASS,
    "a class of the system": {KIND: "class", "class": "subprocess.Popen"},
    "a class that is a number": {KIND: "class", "class": 7},
    "an object of a module in its folder": {KIND: "object", "class": "hostile_module.Policy", "arguments": {}},
    "an object of the system": {KIND: "object", "class": "subprocess.Popen", "arguments": {"args": ["touch", "x"]}},
    "an object of torch": {KIND: "object", "class": "torch.nn.modules.linear.Linear", "arguments": {}},
    "not a schedule": {KIND: "object", "class": "lit_imitation.methods.dagger.schedules.Path", "arguments": {}},
    "a factory of a module in its folder": {KIND: "factory", "class": "hostile_module.Policy", "arguments": {}},
    "a factory of a private class": {
        KIND: "factory", "class": "lit_imitation.policies.continuous._ContinuousPolicy", "arguments": {},
    },
    "a factory with a system call": {KIND: "factory", "class": POLICY, "arguments": {"activation": SYSTEM}},
    "a factory of a hostile class": {KIND: "factory", "class": POLICY, "arguments": {"activation": HOSTILE_CLASS}},
    "a partial of the system": {KIND: "partial", "of": SYSTEM, "args": ["touch marker"], "keywords": {}},
    "a partial of torch": {
        KIND: "partial", "of": {KIND: "class", "class": "torch.nn.modules.linear.Linear"}, "args": [], "keywords": {},
    },
    "endless partials": nested(3000),
    "an unknown kind": {KIND: "reduce", "class": "os.system", "text": "touch marker"},
    "an unknown kind that is a list": {KIND: ["object"], "class": "os.system"},
    "an object that was not described": {KIND: "unknown", "class": "os.system", "text": "x"},
    "an array of objects": {KIND: "array", "dtype": "O", "shape": [1], "values": [SYSTEM]},
    "an array of another shape": {KIND: "array", "dtype": "<f4", "shape": [10**12], "values": [1.0]},
    "an array of unknown type": {KIND: "array", "dtype": "hostile_module", "shape": [1], "values": [1.0]},
    "a space of unknown kind": {KIND: "space", "space": {"type": "hostile_module.Policy"}},
    "a set of lists": {KIND: "set", "values": [[1]]},
    "a dictionary of lists": {KIND: "dict", "values": [[[1], 2]]},
    "a path out": {KIND: "path", "path": "../outside/secret.npz"},
    "text": "hostile_module.Policy",
}  # fmt: skip


def method(stage: Stage, description: Any, argument: str = "policy") -> Path:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**5)  # allows writing data nested too deeply to be read
    try:
        return stage.checkpoint(method={"class": "lit_imitation.methods.bc.BC", "arguments": {argument: description}})
    finally:
        sys.setrecursionlimit(limit)


for _name, _description in DESCRIPTIONS.items():
    for _argument in ("policy", "loss"):
        add(
            f"checkpoint_description-{_name}, as {_argument}",
            lambda stage, description=_description, argument=_argument: (
                lambda: BC.load_from_checkpoint(method(stage, description, argument))
            ),
        )
for _name, _method in {
    "of a module in its folder": {"class": "hostile_module.Policy", "arguments": {}},
    "of the system": {"class": "subprocess.Popen", "arguments": {"args": ["touch", "marker"]}},
    "that is a policy": {"class": POLICY, "arguments": {}},
    "without arguments": {"class": "lit_imitation.methods.bc.BC"},
    "with arguments that are a list": {"class": "lit_imitation.methods.bc.BC", "arguments": [SYSTEM]},
    "with a strange argument": {"class": "lit_imitation.methods.bc.BC", "arguments": {"nonsense": 1}},
    "with text for a number": {"class": "lit_imitation.methods.bc.BC", "arguments": {"learning_rate": "import os"}},
    "that is text": "lit_imitation.methods.bc.BC",
    "that is nothing": None,
}.items():
    add(
        f"checkpoint_description-a method {_name}",
        lambda stage, described=_method: lambda: BC.load_from_checkpoint(stage.checkpoint(method=described)),
    )
    add(
        f"checkpoint_description-a method {_name}, tested",
        lambda stage, described=_method: run_command(stage.checkpoint(method=described)),
    )

# Damaged archives.

for _member in ("data.pkl", "version", "data/0", "data/1", "data/2", "data/3"):
    for _bit in (0, 7):
        add(
            f"checkpoint_bit_flip-{_member}, bit {_bit}",
            lambda stage, member=_member, bit=_bit: lambda: load_policy(flip_bit(stage.checkpoint(), member, bit)),
        )
add(
    "checkpoint_bit_flip-through Lightning",
    lambda stage: lambda: AtomicCheckpointIO().load_checkpoint(flip_bit(stage.checkpoint(), "data/1", 3)),
)
add(
    "checkpoint_bit_flip-through the command line",
    lambda stage: run_command(flip_bit(stage.checkpoint(), "data/1", 3)),
)
add(
    "checkpoint_bit_flip-load_from_checkpoint",
    lambda stage: lambda: BC.load_from_checkpoint(flip_bit(stage.checkpoint(), "data/1", 3)),
)


def truncate(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


for _share in (0.01, 0.5, 0.9, 0.999):
    add(
        f"checkpoint_archive-cut at {_share}",
        lambda stage, at=_share: lambda: load_policy(truncate(stage.checkpoint(), at)),
    )


def compress_members(members: list[Any]) -> None:
    members[:] = [(name, content, zipfile.ZIP_DEFLATED) for name, content, _ in members]


def add_bomb(members: list[Any]) -> None:
    members[-1] = (members[-1][0], bytes(2**24), zipfile.ZIP_DEFLATED)


def duplicate_member(members: list[Any]) -> None:
    members.append(members[0])


def add_traversal(members: list[Any]) -> None:
    members.append(("../../outside/written", b"x", zipfile.ZIP_STORED))


add(
    "checkpoint_archive-compressed",
    lambda stage: lambda: load_policy(rewrite_archive(stage.checkpoint(), compress_members)),
)
add("checkpoint_archive-a bomb", lambda stage: lambda: load_policy(rewrite_archive(stage.checkpoint(), add_bomb)))
add(
    "checkpoint_archive-a member outside",
    lambda stage: lambda: load_policy(rewrite_archive(stage.checkpoint(), add_traversal)),
)
for _kind in ("directory", "fifo", "socket", "device", "loop", "empty"):
    add(
        f"checkpoint_special-{_kind}",
        lambda stage, kind=_kind: lambda: load_policy(make_special(stage.inside / "x.ckpt", kind)),
    )
add(
    "checkpoint_special-fifo in a run",
    lambda stage: (
        lambda: load_policy(
            make_special(Path(os.makedirs("run/checkpoints") or "run/checkpoints/best.ckpt"), "fifo").parent.parent
        )
    ),
)
for _url in (
    "http://127.0.0.1:9/x",
    "https://127.0.0.1:9/x",
    "s3://b/x",
    "memory://x",
    "ftp://h/x",
    "file:///x",
    "hf://x",
):
    add(f"url-checkpoint, {_url[:6]}", lambda stage, url=_url: lambda: load_policy(url))
    add(f"url-demonstrations, {_url[:6]}", lambda stage, url=_url: lambda: read(url))
    add(
        f"url-expert, {_url[:6]}", lambda stage, url=_url: lambda: load_expert(f"npz:{url}", "a", OBSERVATIONS, ACTIONS)
    )
    add(f"url-ckpt_path, {_url[:6]}", lambda stage, url=_url: lambda: main(["test", "--ckpt_path", url]))
for _option in ("--config", "--data", "--model", "--model.policy", "--data.demonstrations"):
    add(
        f"url-{_option[2:]}",
        lambda stage, option=_option: lambda: main(["fit", f"{option}=http://127.0.0.1:9/x.yaml"]),
    )

# Weight values.


def weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Stage], Path]:
    def make(stage: Stage) -> Path:
        state = torch.load(stage.checkpoint(), weights_only=True)["state_dict"]
        change(state)
        return stage.checkpoint(state_dict=state)

    return make


W = "policy.network.layers.0.weight"


def one(value: float) -> Callable[[dict[str, Any]], None]:
    return lambda state: state[W].view(-1)[3:4].fill_(value) and None


WEIGHTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "NaN": one(float("nan")),
    "infinity": one(float("inf")),
    "minus infinity": one(float("-inf")),
    "complex": lambda state: state.update({W: state[W].to(torch.complex64)}),
    "integers": lambda state: state.update({W: state[W].to(torch.int64)}),
    "booleans": lambda state: state.update({W: state[W] > 0}),
    "another shape": lambda state: state.update({W: state[W][:, :1]}),
    "an absurd shape": lambda state: state.update({W: torch.zeros(1).expand(10**9, 10**9)}),
    "sparse": lambda state: state.update({W: state[W].to_sparse()}),
    "a list": lambda state: state.update({W: state[W].tolist()}),
    "a number": lambda state: state.update({W: 7}),
    "nothing": lambda state: state.clear(),
    "NaN in a statistic": lambda state: next(v for k, v in state.items() if k.endswith("inverse_std")).fill_(
        float("nan")
    ),
}
for _name, _change in WEIGHTS.items():
    add(f"checkpoint_weights-{_name}", lambda stage, change=_change: lambda: load_policy(weights(change)(stage)))
for _name in ("NaN", "complex", "infinity"):
    add(
        f"checkpoint_weights-{_name}, load_from_checkpoint",
        lambda stage, change=WEIGHTS[_name]: lambda: BC.load_from_checkpoint(weights(change)(stage)),
    )
FIELDS: dict[str, dict[str, Any]] = {
    "no epoch": {"epoch": None},
    "steps as text": {"env_steps": "many"},
    "steps below 0": {"env_steps": -1},
    "endless steps": {"global_step": 10**40},
    "evaluation of lists": {"evaluation": {"return_mean": [1]}},
    "random states of another kind": {"random_states": [1]},
    "weights as a list": {"state_dict": [1]},
    "policy as text": {"policy": "x"},
}
for _name, _fields in FIELDS.items():
    add(
        f"checkpoint_fields-{_name}",
        lambda stage, fields=_fields: lambda: BC.load_from_checkpoint(stage.checkpoint(**fields)),
    )

STATES: dict[str, dict[str, Any]] = {
    "NaN in an optimizer": {"optimizer_states": [{"state": {0: {"exp_avg": torch.full((2,), float("nan"))}}}]},
    "complex optimizer": {"optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2, dtype=torch.complex64)}}}]},
    "loops as a list": {"loops": [1]},
    "callbacks as text": {"callbacks": "x"},
    "clock as text": {"callbacks": {"RunDirectory": "x"}},
}
for _name, _fields in STATES.items():
    add(f"checkpoint_resume-{_name}", lambda stage, fields=_fields: resume(stage.checkpoint(**fields)))
MOMENTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "moment as text": lambda state: state["state"][0].update(exp_avg="import os"),
    "moment as a list": lambda state: state["state"][0].update(exp_avg=[1.0]),
    "moment of another shape": lambda state: state["state"][0].update(exp_avg=torch.zeros(3)),
    "moment that is missing": lambda state: state["state"][0].pop("exp_avg_sq"),
    "steps as text": lambda state: state["state"][0].update(step="many"),
    "rate as text": lambda state: state["param_groups"][0].update(lr="fast"),
    "betas as a number": lambda state: state["param_groups"][0].update(betas=1),
    "state as text": lambda state: state.update(state="x"),
}
REFERENCE = {"mean": 1.0, "error": None, "episodes": 0}
STATE = {"expert_return": None, "expert_return_of": "", "eval_deterministic": None}
for _name, _value in {
    "text": "x",
    "NaN": float("nan"),
    "a list": [1],
    "NaN inside": {**REFERENCE, "mean": float("nan")},
}.items():
    add(
        f"checkpoint_data-expert's return is {_name}",
        lambda stage, value=_value: run_command(
            stage.checkpoint(DemonstrationDataModule={**STATE, "expert_return": value})
        ),
    )
add("checkpoint_resume-NaN", lambda stage: resume(weights(one(float("nan")))(stage)))
add("checkpoint_resume-bit flip", lambda stage: resume(flip_bit(stage.checkpoint(), "data/2")))


def change_moments(stage: Stage, change: Callable[[dict[str, Any]], None]) -> Attempt:
    """Resume a run of one epoch whose optimizer state was changed."""
    recipe = trained_recipe(stage.inside)
    main([*recipe, "--trainer.max_epochs=1"])
    held = torch.load(stage.inside / "out/checkpoints/last.ckpt", weights_only=True)
    change(held["optimizer_states"][0])
    path = stage.inside / "x.ckpt"
    torch.save(held, path)
    return lambda: main([*recipe, "--trainer.max_epochs=2", f"--ckpt_path={path}"])


for _name, _change in MOMENTS.items():
    add(f"checkpoint_resume-{_name}", lambda stage, change=_change: change_moments(stage, change))


def resume(path: Path) -> Attempt:
    """Resume a run as a user would, with their own recipe."""
    return lambda: main([*trained_recipe(path.parent), "--trainer.max_epochs=2", f"--ckpt_path={path}"])


def trained_recipe(directory: Path) -> list[str]:
    """Start of a command that trains a small clone."""
    recipe = "model: lit_imitation.BC\ndata: " + DATA % ", expert_trajectories: 1, eval_episodes: 1, num_envs: 1"
    (directory / "r.yaml").write_text(recipe)
    more = ["--trainer.accelerator=cpu", "--trainer.default_root_dir=out"]
    more += ["--model.policy=lit_imitation.CategoricalPolicy", "--model.policy.hidden_sizes=[8]"]
    return ["fit", "--config=r.yaml", *more]


# Recipes.


def recipe(text: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        (stage.inside / "r.yaml").write_text(text)
        return lambda: main(["fit", "--config", "r.yaml"])

    return trial


DATA = "{class_path: lit_imitation.DemonstrationDataModule, init_args: {env_id: CartPole-v1, expert: scripted%s}}"
RECIPES = {
    "class in the environment's arguments": f"model: lit_imitation.BC\ndata: {DATA}\n"
    % ", env_kwargs: {a: {class_path: subprocess.Popen, init_args: {args: [touch, marker]}}}",
    "module in the environment's arguments": f"model: lit_imitation.BC\ndata: {DATA}\n"
    % ", env_kwargs: {a: [{class_path: hostile_module.Policy}]}",
    "data by URL": "model: lit_imitation.BC\ndata: http://127.0.0.1:9/data.yaml\n",
    "model by URL": f"model: s3://bucket/model.yaml\ndata: {DATA}\n" % "",
    "policy by URL": f"model: {{class_path: lit_imitation.BC, init_args: {{policy: 'https://127.0.0.1:9/p'}}}}\n"
    f"data: {DATA}\n" % "",
    "demonstrations by URL": f"model: lit_imitation.BC\ndata: {DATA}\n" % ", demonstrations: 'http://127.0.0.1:9/x'",
    "python tag": "model: !!python/object/apply:os.system ['touch marker']\n",
}
for _name, _text in RECIPES.items():
    add(f"recipe-{_name}", recipe(_text))
add("recipe-fifo", lambda stage: lambda: main(["fit", "--config", str(make_special(stage.inside / "r.yaml", "fifo"))]))

# Demonstrations: npz and npy.


def read(source: str | Path) -> Transitions:
    return read_demonstrations(str(source), OBSERVATIONS, ACTIONS).transitions


def columns(suffix: str = ".npz", **changes: Any) -> Callable[[Stage], Attempt]:
    return lambda stage: lambda: read(stage.demonstrations(f"x{suffix}", **changes))


def objects(stage: Stage) -> np.ndarray[Any, Any]:
    array = np.empty(4, object)
    array[:] = [stage.harm] * 4
    return array


for _key in ("observations", "actions", "rewards", "terminals", "metadata", "weights", "episode_returns"):
    add(f"npz-pickle in {_key}", lambda stage, key=_key: lambda: read(stage.demonstrations(**{key: objects(stage)})))


def header(text: bytes, size: int = 100) -> bytes:
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(size)


def member(content: bytes, key: str = "observations", method: int = zipfile.ZIP_STORED) -> Callable[[Stage], Path]:
    def make(stage: Stage) -> Path:
        def change(members: list[Any]) -> None:
            members[:] = [one for one in members if one[0] != f"{key}.npy"] + [(f"{key}.npy", content, method)]

        return rewrite_archive(stage.demonstrations(), change)

    return make


NPY = {
    "absurd shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"),
    "endless shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1" + b"0" * 40 + b",), }"),
    "negative shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3), }"),
    "code in the header": header(b"{'descr': __import__('os').system('touch marker'), 'shape': (4,)}"),
    "pickle in the header": header(b"{'descr': 'O', 'fortran_order': False, 'shape': (4,), }"),
    "cut header": b"\x93NUMPY\x01\x00\xff\xff{'descr'",
    "unknown version": b"\x93NUMPY\x09\x00" + bytes(100),
    "other bytes": b"hello",
    "nothing": b"",
}
for _name, _content in NPY.items():
    add(f"npz-{_name}", lambda stage, content=_content: lambda: read(member(content)(stage)))


def declare_size(stage: Stage, size: int) -> Path:
    """Archive whose directory declares `size` bytes for a member."""
    path = member(NPY["absurd shape"], method=zipfile.ZIP_DEFLATED)(stage)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"observations.npy"))
    content[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(bytes(content))
    return path


add("npz-declared size of 4 GB", lambda stage: lambda: read(declare_size(stage, 2**32 - 2)))
add("npz-bit flip", lambda stage: lambda: read(flip_bit(stage.demonstrations(), "observations.npy")))
add("npz-cut", lambda stage: lambda: read(truncate(stage.demonstrations(), 0.7)))
add(
    "npz-a member outside",
    lambda stage: lambda: read(rewrite_archive(stage.demonstrations(), add_traversal)),
    harmless=True,
)
add("npz-metadata that is code", columns(metadata=np.array("__import__('os').system('touch marker')")))
add("npz-metadata nested", columns(metadata=np.array("[" * 100_000)))
for _kind in ("directory", "fifo", "socket", "device", "loop", "empty"):
    add(f"npz-{_kind}", lambda stage, kind=_kind: lambda: read(make_special(stage.inside / "x.npz", kind)))
    add(
        f"npz-{_kind} as an expert",
        lambda stage, kind=_kind: (
            lambda: load_expert(f"npz:{make_special(stage.inside / 'x.npz', kind)}", "any", OBSERVATIONS, ACTIONS)
        ),
    )
add(
    "npz-fifo as trajectories",
    lambda stage: lambda: read_trajectories(str(make_special(stage.inside / "x.npz", "fifo"))),
)


def linked_folder(suffix: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        (stage.inside / "dataset").mkdir()
        (stage.inside / f"dataset/round_000{suffix}").symlink_to(stage.outside / f"secret{suffix}")
        return lambda: read(stage.inside / "dataset")

    return trial


add("npz-link out of a folder", linked_folder(".npz"))
add("hdf5-link out of a folder", linked_folder(".hdf5"))


def expert_arrays(content: Callable[[Stage], Any]) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        np.savez(
            stage.inside / "e.npz", W0=content(stage), b0=np.zeros(2), n_layers=1, activation="tanh", output="argmax"
        )
        return lambda: load_expert(f"npz:{stage.inside / 'e.npz'}", "any", OBSERVATIONS, ACTIONS)

    return trial


add("npz-pickle in an expert", expert_arrays(objects))
add("npz-complex weights of an expert", expert_arrays(lambda stage: np.zeros((3, 2), complex)))
add("npz-NaN in an expert", expert_arrays(lambda stage: np.full((3, 2), np.nan)))


def flip_expert(stage: Stage) -> Attempt:
    attempt = expert_arrays(lambda _: np.zeros((3, 2)))(stage)
    flip_bit(stage.inside / "e.npz", "W0.npy")
    return attempt


add("npz-bit flip of an expert", flip_expert)


def alone(content: Callable[[Stage], bytes], name: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        (stage.inside / name).write_bytes(content(stage))
        return lambda: read(stage.inside / name)

    return trial


for _suffix in ("npz", "hdf5"):
    add(f"npy-in an {_suffix}", alone(lambda stage: NPY["pickle in the header"], f"x.{_suffix}"))
    add(f"npy-pickle in an {_suffix}", alone(lambda stage: pickle.dumps(stage.harm), f"x.{_suffix}"))
    add(f"npy-text in an {_suffix}", alone(lambda stage: b"hello", f"x.{_suffix}"))
add("npy-under its own name", alone(lambda stage: NPY["pickle in the header"], "x.npy"))
add("npy-pickle under its own name", alone(lambda stage: pickle.dumps(stage.harm), "x.pkl"))

# Demonstrations: HDF5.


def virtual(file: Any, name: str, other: Path, key: str = "observations", shape: tuple[int, ...] = (4, 3)) -> None:
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[:] = h5py.VirtualSource(str(other), key, shape=shape)
    file.create_virtual_dataset(name, layout)


def external(file: Any, name: str, other: Path, shape: tuple[int, ...] = (4, 3)) -> None:
    file.create_dataset(name, shape, "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


FOREIGN: dict[str, Callable[[Stage, Any, str], None]] = {
    "external_link": lambda stage, file, name: file.__setitem__(
        name, h5py.ExternalLink(str(stage.outside / "secret.hdf5"), "/observations")
    ),
    "external_link by ../": lambda stage, file, name: file.__setitem__(
        name, h5py.ExternalLink("../outside/secret.hdf5", "/observations")
    ),
    "external_link to nothing": lambda stage, file, name: file.__setitem__(name, h5py.ExternalLink("no.hdf5", "/x")),
    "soft_link": lambda stage, file, name: file.__setitem__(name, h5py.SoftLink("/actions")),
    "soft_link to nothing": lambda stage, file, name: file.__setitem__(name, h5py.SoftLink("/nothing")),
    "soft_link to itself": lambda stage, file, name: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
    "virtual_dataset": lambda stage, file, name: virtual(file, name, stage.outside / "secret.hdf5"),
    "virtual_dataset by ../": lambda stage, file, name: virtual(file, name, Path("../outside/secret.hdf5")),
    "external_storage": lambda stage, file, name: external(file, name, stage.outside / "secret.bin"),
    "external_storage by ../": lambda stage, file, name: external(file, name, Path("../outside/secret.bin")),
    "external_storage of the system": lambda stage, file, name: external(file, name, Path("/etc/passwd")),
    "absurd shape": lambda stage, file, name: (
        file.create_dataset(name, (10**9, 10**6), "f4", chunks=(1000, 3)) and None
    ),
    "objects": lambda stage, file, name: file.create_dataset(name, data=["a"] * 4, dtype=h5py.string_dtype()) and None,
    "references": lambda stage, file, name: file.create_dataset(name, (4,), h5py.ref_dtype) and None,
    "a type": lambda stage, file, name: file.__setitem__(name, np.dtype("f4")),
    "a group": lambda stage, file, name: file.create_group(name) and None,
    "without a shape": lambda stage, file, name: file.__setitem__(name, h5py.Empty("f4")),
}


def hdf5(plant: Callable[[Stage, Any, str], None], key: str = "observations") -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        path = stage.demonstrations("x.hdf5", **{key: None})
        with h5py.File(path, "a") as file:
            plant(stage, file, key)
        return lambda: read(path)

    return trial


for _name, _plant in FOREIGN.items():
    add(f"hdf5-{_name}", hdf5(_plant))
for _name in ("external_link", "virtual_dataset", "external_storage"):
    add(f"hdf5-{_name} for next_observations", hdf5(FOREIGN[_name], "next_observations"))
add("hdf5-cut", lambda stage: lambda: read(truncate(stage.demonstrations("x.hdf5"), 0.6)))
for _kind in ("fifo", "device", "socket", "empty"):
    add(f"hdf5-{_kind}", lambda stage, kind=_kind: lambda: read(make_special(stage.inside / "x.hdf5", kind)))

# Zips of Stable-Baselines3.


def sb3_zip(stage: Stage, **members: bytes) -> Path:
    data = {"policy_class": {"__module__": "stable_baselines3.ppo.policies", ":serialized:": ""}, "clip_range": 0}
    path = stage.inside / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"data": json.dumps(data).encode(), **members}.items():
            archive.writestr(name, content)
        archive.writestr("policy.pth", pickle.dumps(stage.harm))
    return path


OF_OS = b'{"policy_class": {"__module__": "os"}}'


def sb3(path: Path, trust: bool = False) -> Attempt:
    return lambda: load_expert(f"sb3:{path}", "any", OBSERVATIONS, ACTIONS, trust=trust)


add("zip-pickles, not trusted", lambda stage: sb3(sb3_zip(stage)))
add(
    "zip-another class, trusted",
    lambda stage: sb3(sb3_zip(stage, data=b'{"policy_class": {"__module__": "os"}}'), True),
)
add("zip-no JSON, trusted", lambda stage: sb3(sb3_zip(stage, data=b"hello"), True))
add("zip-nested JSON, trusted", lambda stage: sb3(sb3_zip(stage, data=b"[" * 100_000), True))
add("zip-bomb, trusted", lambda stage: sb3(sb3_zip(stage, data=bytes(2**26 + 1)), True))
add("zip-a member outside, not trusted", lambda stage: sb3(sb3_zip(stage, **{"../../outside/written": b"x"})))
for _kind in ("directory", "fifo", "device", "empty"):
    add(f"zip-{_kind}, trusted", lambda stage, kind=_kind: sb3(make_special(stage.inside / "m.zip", kind), True))

# Minari.


def minari(change: Callable[[Stage, Path, dict[str, Any]], None]) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        data = stage.inside / "set/data"
        data.mkdir(parents=True)
        with h5py.File(data / "main_data.hdf5", "w") as file:
            episode = file.create_group("episode_0")
            episode["observations"] = np.zeros((5, 3), np.float32)
            episode["actions"] = np.zeros(4, np.int64)
            episode["rewards"] = np.zeros(4)
            episode["terminations"] = np.arange(4) == 3
            episode["truncations"] = np.zeros(4, bool)
            episode.attrs["id"], episode.attrs["total_steps"] = 0, 4
        box = {"type": "Box", "dtype": "float32", "shape": [3], "low": [-1e6] * 3, "high": [1e6] * 3}
        discrete = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}
        spec = {"entry_point": "hostile_module:Policy", "kwargs": {}, "id": "Hostile-v0", "additional_wrappers": []}
        metadata = {
            "observation_space": json.dumps(box),
            "action_space": json.dumps(discrete),
            "env_spec": json.dumps(spec),
            "data_format": "hdf5",
            "total_episodes": 1,
            "total_steps": 4,
            "dataset_id": "made/up-v0",
            "minari_version": pytest.importorskip("minari").__version__,
        }
        change(stage, data, metadata)
        if not (data / "metadata.json").is_symlink() and not (data / "metadata.json").exists():
            (data / "metadata.json").write_text(json.dumps(metadata))
        return lambda: read(f"minari:{stage.inside / 'set'}")

    return trial


def plant_link(name: str, key: str = "observations") -> Callable[[Stage, Path, dict[str, Any]], None]:
    def change(stage: Stage, data: Path, metadata: dict[str, Any]) -> None:
        with h5py.File(data / "main_data.hdf5", "a") as file:
            del file["episode_0"][key]
            FOREIGN[name](stage, file["episode_0"], key)

    return change


def move_file(stage: Stage, data: Path, metadata: dict[str, Any]) -> None:
    (data / "main_data.hdf5").rename(stage.outside / "main_data.hdf5")
    (data / "main_data.hdf5").symlink_to(stage.outside / "main_data.hdf5")


def set_metadata(**changes: Any) -> Callable[[Stage, Path, dict[str, Any]], None]:
    def change(stage: Stage, data: Path, metadata: dict[str, Any]) -> None:
        metadata.update(changes)
        for key, value in changes.items():
            if value is None:
                del metadata[key]

    return change


def metadata_text(text: str) -> Callable[[Stage, Path, dict[str, Any]], None]:
    return lambda stage, data, metadata: (data / "metadata.json").write_text(text) and None


add("minari-an environment that is code", minari(set_metadata()), harmless=True)
for _name in ("external_link", "virtual_dataset", "external_storage", "soft_link", "absurd shape"):
    add(f"minari-{_name}", minari(plant_link(_name)))
add("minari-link for the file", minari(move_file))
add("minari-no action space", minari(set_metadata(action_space=None)))
add("minari-no observation space", minari(set_metadata(observation_space=None)))
add(
    "minari-a space of an unknown type",
    minari(set_metadata(action_space=json.dumps({"type": "hostile_module.Policy"}))),
)
add("minari-an endless space", minari(set_metadata(observation_space='{"type": "Tuple", "subspaces": [' * 5000)))
add("minari-a format that is a path", minari(set_metadata(data_format="../../outside")))
add("minari-an unknown version", minari(set_metadata(minari_version="hostile")))
add("minari-endless episodes", minari(set_metadata(total_episodes=10**12)))
add("minari-episodes below 0", minari(set_metadata(total_episodes=-1)))
add("minari-metadata nested", minari(metadata_text("[" * 100_000)))
add("minari-metadata no JSON", minari(metadata_text("hello")))
add(
    "minari-metadata fifo",
    minari(lambda stage, data, metadata: make_special(data / "metadata.json", "fifo") and None),
)

# Hugging Face.


def hugging_face(change: Callable[[Stage, Path, dict[str, Any]], None]) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        for place, value in ((stage.inside / "hf", 0.0), (stage.outside / "hf", SECRET)):
            held = {"obs": [[[value] * 3] * 5], "acts": [[0] * 4], "rews": [[1.0] * 4], "terminal": [True]}
            datasets.Dataset.from_dict(held).save_to_disk(str(place))
        state = json.loads((stage.inside / "hf/state.json").read_text())
        (name,) = (one["filename"] for one in state["_data_files"])
        (stage.outside / "hf" / name).rename(stage.outside / "secret.arrow")
        change(stage, stage.inside / "hf" / name, state)
        if (stage.inside / "hf/state.json").is_file():
            (stage.inside / "hf/state.json").write_text(json.dumps(state))
        return lambda: read(f"hf:{stage.inside / 'hf'}")

    return trial


def data_file(name: Any) -> Callable[[Stage, Path, dict[str, Any]], None]:
    def change(stage: Stage, arrow: Path, state: dict[str, Any]) -> None:
        state["_data_files"] = [{"filename": name(stage) if callable(name) else name}]

    return change


def link_arrow(stage: Stage, arrow: Path, state: dict[str, Any]) -> None:
    arrow.unlink()
    arrow.symlink_to(stage.outside / "secret.arrow")


def script(stage: Stage, arrow: Path, state: dict[str, Any]) -> None:
    (stage.inside / "hf/hf.py").write_text((stage.inside / "hostile_module.py").read_text())


add("hf-a script in its folder", hugging_face(script), harmless=True)
add("hf-../ in state.json", hugging_face(data_file("../../outside/secret.arrow")))
add("hf-a path in state.json", hugging_face(data_file(lambda stage: str(stage.outside / "secret.arrow"))))
add("hf-a URL in state.json", hugging_face(data_file("http://127.0.0.1:9/x.arrow")))
add("hf-a number in state.json", hugging_face(data_file(7)))
add("hf-link for the file", hugging_face(link_arrow))
add("hf-fifo for the file", hugging_face(lambda stage, arrow, state: make_special(arrow, "fifo") and None))
add("hf-no format", hugging_face(lambda stage, arrow, state: state.update(_format_type="hostile_module")))
add(
    "hf-state.json a fifo",
    hugging_face(lambda stage, arrow, state: make_special(stage.inside / "hf/state.json", "fifo") and None),
)
for _file in ("state.json", "dataset_info.json"):
    for _name, _text in {"no JSON": "hello", "nested": "[" * 100_000, "a list": "[]"}.items():
        add(
            f"hf-{_file} is {_name}",
            lambda stage, file=_file, text=_text: overwrite(stage, file, text),
        )


def overwrite(stage: Stage, file: str, text: str) -> Attempt:
    attempt = hugging_face(lambda *_: None)(stage)
    (stage.inside / "hf" / file).write_text(text)
    return attempt


def splits(name: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        attempt = hugging_face(lambda *_: None)(stage)
        (stage.inside / "hf/dataset_dict.json").write_text(json.dumps({"splits": [name]}))
        return attempt

    return trial


add("hf-../ for a split", splits("../../outside/hf"))
add("hf-a path for a split", splits("/etc"))
add("hf-the name of a file", lambda stage: lambda: read("hf:hostile_module.py"))
add("hf-a name with ../", lambda stage: lambda: read("hf:../outside/none"))

# robomimic, zarr, LeRobot, and several observations. The expected observations `[T, 3]` are `object` of each.


def structured(
    write: Callable[[Path], Path], key: str, change: Callable[[Stage, Path], None], name: str = "set"
) -> Callable[[Stage], Attempt]:
    """Read the observation `key` of a recording that `write` wrote and `change` changed."""

    def trial(stage: Stage) -> Attempt:
        path = write(stage.inside / name)
        change(stage, path)
        return lambda: (
            read_demonstrations(
                str(path), OBSERVATIONS, Box(-1, 1, (2,), np.float32), observation_keys=[key]
            ).transitions
        )

    return trial


def planted(name: str, place: str) -> Callable[[Stage, Path], None]:
    def change(stage: Stage, path: Path) -> None:
        with h5py.File(path, "a") as file:
            if place in file:
                del file[place]
            group, _, key = place.rpartition("/")
            FOREIGN[name](stage, file[group or "/"], key)

    return change


def hdf5_link_to_itself(stage: Stage, path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/loop"] = file["data/demo_0/obs"]


def hdf5_fan(stage: Stage, path: Path) -> None:
    with h5py.File(path, "a") as file:
        for number in range(9):
            file[f"data/demo_0/obs/loop{number}"] = file["data/demo_0/obs"]


def large_together(stage: Stage, path: Path) -> None:
    with h5py.File(path, "a") as file:
        for number in range(8):
            file.create_dataset(f"data/demo_0/obs/k{number}", (2, 2**27), "u1", chunks=(1, 2**20))


ROBOMIMIC_PLACES = ("data/demo_1/obs/object", "data/demo_1/actions", "data/demo_1", "data/demo_1/rewards", "mask/train")
for _place in ROBOMIMIC_PLACES:
    for _name in ("external_link", "soft_link", "virtual_dataset", "external_storage", "absurd shape", "a type"):
        add(
            f"robomimic-{_name} for {_place}",
            structured(foreign_formats.write_robomimic, "object", planted(_name, _place), "a.hdf5"),
        )
for _name in ("objects", "references", "without a shape"):
    add(
        f"robomimic-{_name}",
        structured(foreign_formats.write_robomimic, "object", planted(_name, "data/demo_1/obs/object"), "a.hdf5"),
    )
add("robomimic-a group in itself", structured(foreign_formats.write_robomimic, "object", hdf5_link_to_itself, "a.hdf5"))
add("robomimic-a group in itself nine times", structured(foreign_formats.write_robomimic, "object", hdf5_fan, "a.hdf5"))
add("robomimic-large together", structured(foreign_formats.write_robomimic, "object", large_together, "a.hdf5"))
add(
    "robomimic-cut",
    structured(foreign_formats.write_robomimic, "object", lambda stage, path: truncate(path, 0.7) and None, "a.hdf5"),
)


def environment(text: Any) -> Callable[[Stage, Path], None]:
    def change(stage: Stage, path: Path) -> None:
        with h5py.File(path, "a") as file:
            file["data"].attrs["env_args"] = text

    return change


ENVIRONMENTS = {"code": "__import__('os').system('touch marker')", "nested": "[" * 60_000, "a number": 7}
for _name, _text in ENVIRONMENTS.items():
    add(
        f"robomimic-env_args is {_name}",
        structured(foreign_formats.write_robomimic, "object", environment(_text), "a.hdf5"),
        harmless=True,
    )


def write_keyed(path: Path) -> Path:
    made = foreign_formats.episodes((4,))[0]
    with h5py.File(path, "w") as file:
        file["observations/object"], file["actions"] = made["object"], made["action"]
        file["terminals"], file["timeouts"] = np.arange(4) == 3, np.zeros(4, bool)
    return path


for _name in FOREIGN:
    add(f"keyed-{_name}", structured(write_keyed, "object", planted(_name, "observations/object"), "a.hdf5"))
for _name in ("external_link", "virtual_dataset", "external_storage", "a type"):
    add(f"keyed-{_name} for observations", structured(write_keyed, "object", planted(_name, "observations"), "a.hdf5"))


def keyed_pickle(stage: Stage) -> Attempt:
    columns = {key: value for key, value in good_columns().items() if key != "observations"}
    np.savez(stage.inside / "a.npz", **columns, **{"observations/object": objects(stage)})
    return lambda: read(stage.inside / "a.npz")


add("keyed-pickle in an npz", keyed_pickle)


def write_zarr(path: Path) -> Path:
    pytest.importorskip("zarr")
    return foreign_formats.write_zarr(path)


def array_json(key: str, **changes: Any) -> Callable[[Stage, Path], None]:
    def change(stage: Stage, path: Path) -> None:
        file = path / key / ".zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def linked(name: str, target: str = "secret.txt") -> Callable[[Stage, Path], None]:
    """Replace a file or folder inside by a link to one outside."""

    def change(stage: Stage, path: Path) -> None:
        place = path / name
        place.rename(stage.outside / f"moved {place.name}")
        place.symlink_to(stage.outside / (target if (stage.outside / target).exists() else f"moved {place.name}"))

    return change


def special(name: str, kind: str) -> Callable[[Stage, Path], None]:
    return lambda stage, path: make_special(path / name, kind) and None


def blosc_bomb(stage: Stage, path: Path) -> None:
    chunk = path / "data/keypoint/0.0.0"
    content = bytearray(chunk.read_bytes())
    content[4:8] = struct.pack("<I", 2**31 - 1)
    chunk.write_bytes(bytes(content))


PICKLED = [{"id": "pickle", "protocol": 5}]
ZARR: dict[str, Callable[[Stage, Path], None]] = {
    "pickle filter": array_json("data/keypoint", filters=PICKLED, dtype="|O"),
    "pickle codec": array_json("data/keypoint", compressor=PICKLED[0]),
    "objects": array_json("data/keypoint", dtype="|O"),
    "fields": array_json("data/keypoint", dtype=[["a", "<f4"]]),
    "code in the type": array_json("data/keypoint", dtype="__import__('os').system('touch marker')"),
    "absurd shape": array_json("data/keypoint", shape=[10**12, 3, 2]),
    "absurd chunks": array_json("data/keypoint", chunks=[10**9, 3, 2]),
    "negative shape": array_json("data/keypoint", shape=[-9, 3, 2]),
    "chunks of 0": array_json("data/keypoint", chunks=[0, 3, 2]),
    "a number for the shape": array_json("data/keypoint", shape=9),
    "blosc bomb": blosc_bomb,
    "nested": lambda stage, path: (path / "data/keypoint/.zarray").write_text("[" * 100_000) and None,
    "endless ends": array_json("meta/episode_ends", shape=[10**13]),
    "link for a chunk": linked("data/keypoint/0.0.0"),
    "link for an array": linked("data/keypoint"),
    "link for meta": linked("meta"),
    "fifo for a chunk": special("data/keypoint/0.0.0", "fifo"),
    "device for a chunk": special("data/keypoint/0.0.0", "device"),
    "fifo for .zarray": special("data/keypoint/.zarray", "fifo"),
    "empty chunk": special("data/keypoint/0.0.0", "empty"),
}
for _name, _change in ZARR.items():
    add(f"zarr-{_name}", structured(write_zarr, "keypoint", _change))


def zarr_zip(change: Callable[[list[Any]], None]) -> Callable[[Stage], Attempt]:
    return structured(write_zarr, "keypoint", lambda stage, path: rewrite_archive(path, change) and None, "a.zarr.zip")


def zip_bomb(members: list[Any]) -> None:
    members.append(("data/keypoint/9.0.0", bytes(2**30 + 2**20), zipfile.ZIP_DEFLATED))


add("zarr-cut zip", structured(write_zarr, "keypoint", lambda stage, path: truncate(path, 0.9) and None, "a.zarr.zip"))
add("zarr-compression bomb in a zip", zarr_zip(zip_bomb))


def write_lerobot(version: int, video: bool = False) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        pytest.importorskip("pyarrow")
        if video:
            pytest.importorskip("av")
        return {2: foreign_formats.write_lerobot_2, 3: foreign_formats.write_lerobot_3}[version](path, video=video)

    return write


def information(**changes: Any) -> Callable[[Stage, Path], None]:
    def change(stage: Stage, path: Path) -> None:
        file = path / "meta/info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def information_text(text: str) -> Callable[[Stage, Path], None]:
    return lambda stage, path: (path / "meta/info.json").write_text(text) and None


def secret_parquet(stage: Stage, path: Path) -> None:
    """A template that leads to a file outside, which exists."""
    file = sorted((path / "data").rglob("*.parquet"))[0]
    (stage.outside / "secret.parquet").write_bytes(file.read_bytes())
    information(data_path="../../outside/secret.parquet")(stage, path)


LEROBOT: dict[str, Callable[[Stage, Path], None]] = {
    "../ in the template": secret_parquet,
    "a path as template": information(data_path="/etc/passwd"),
    "home as template": information(data_path="~/x.parquet"),
    "a URL as template": information(data_path="http://127.0.0.1:9/x.parquet"),
    "an attribute in the template": information(data_path="data/{episode_index.__class__.__mro__}"),
    "an index in the template": information(data_path="data/{video_key[0]}"),
    "an endless width": information(data_path="data/{episode_index:0999999999d}"),
    "template of another kind": information(data_path=["data"]),
    "info nested": information_text("[" * 100_000),
    "info a list": information_text("[]"),
    "info no JSON": information_text("hello"),
    "features a list": information(features=[]),
    "features of text": information(features={"action": "x"}),
    "version of another kind": information(codebase_version=["v2.1"]),
    "chunks of 0": information(chunks_size=0, data_path="none-{chunk_index:03d}-{episode_chunk:03d}"),
    "link for info.json": linked("meta/info.json"),
    "link for the folder data": linked("data"),
    "fifo for info.json": special("meta/info.json", "fifo"),
    "device for info.json": special("meta/info.json", "device"),
}
for _version in (2, 3):
    for _name, _change in LEROBOT.items():
        add(
            f"lerobot{_version}-{_name}",
            structured(write_lerobot(_version), "observation.environment_state", _change),
        )
DATA_FILES = {2: "data/chunk-000/episode_000001.parquet", 3: "data/chunk-000/file-000.parquet"}
EPISODE_FILES = {2: "meta/episodes.jsonl", 3: "meta/episodes/chunk-000/file-000.parquet"}
VIDEO_FILES = {
    2: "videos/chunk-000/observation.image/episode_000001.mp4",
    3: "videos/observation.image/chunk-000/file-000.mp4",
}
for _version in (2, 3):
    for _what, _files in {"data": DATA_FILES, "episodes": EPISODE_FILES}.items():
        for _name, _change in {
            "link": linked(_files[_version]),
            "fifo": special(_files[_version], "fifo"),
            "device": special(_files[_version], "device"),
            "empty file": special(_files[_version], "empty"),
            "other bytes": lambda stage, path, file=_files[_version]: (path / file).write_bytes(b"hello" * 99) and None,
            "half": lambda stage, path, file=_files[_version]: truncate(path / file, 0.5) and None,
            "a pickle": lambda stage, path, file=_files[_version]: (
                (path / file).write_bytes(pickle.dumps(stage.harm)) and None
            ),
        }.items():
            add(
                f"lerobot{_version}-{_name} for {_what}",
                structured(write_lerobot(_version), "observation.environment_state", _change),
            )


def video_trial(version: int, change: Callable[[Stage, Path], None]) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        path = write_lerobot(version, video=True)(stage.inside / "set")
        change(stage, path)
        spaces = Box(0, 255, (8, 6, 3), np.uint8), Box(-1, 1, (2,), np.float32)
        return lambda: read_demonstrations(str(path), *spaces, observation_keys=["observation.image"]).transitions

    return trial


PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
for _version in (2, 3):
    for _name, _change in {
        "link": linked(VIDEO_FILES[_version]),
        "fifo": special(VIDEO_FILES[_version], "fifo"),
        "device": special(VIDEO_FILES[_version], "device"),
        "empty file": special(VIDEO_FILES[_version], "empty"),
        "playlist": lambda stage, path, file=VIDEO_FILES[_version]: (path / file).write_bytes(PLAYLIST) and None,
        "list of files": lambda stage, path, file=VIDEO_FILES[_version]: (
            (path / file).write_text(f"ffconcat version 1.0\nfile {stage.outside / 'secret.txt'}\n") and None
        ),
        "half": lambda stage, path, file=VIDEO_FILES[_version]: truncate(path / file, 0.5) and None,
        "camera outside": information(video_path="../{video_key}.mp4"),
        "endless fps": information(fps=float("inf")),
        "fps of 0": information(fps=0),
    }.items():
        add(f"lerobot{_version}-{_name} for a video", video_trial(_version, _change))


def image_bytes(make: Callable[[Stage], Any]) -> Callable[[Stage], Attempt]:
    """An image column whose content is that of `make`, `{bytes, path}`."""

    def change(stage: Stage, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = path / DATA_FILES[2]
        table = pq.read_table(file)
        kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
        images = pa.array([make(stage)] * len(table), kind)
        place = table.column_names.index("observation.image")
        pq.write_table(table.set_column(place, "observation.image", images), file)

    def trial(stage: Stage) -> Attempt:
        path = write_lerobot(2)(stage.inside / "set")
        change(stage, path)
        spaces = Box(0, 255, (8, 6, 3), np.uint8), Box(-1, 1, (2,), np.float32)
        return lambda: read_demonstrations(str(path), *spaces, observation_keys=["observation.image"]).transitions

    return trial


def large_png(stage: Stage) -> dict[str, Any]:
    from PIL import Image

    Image.new("1", (30_000, 30_000)).save(stage.inside / "large.png")
    return {"bytes": (stage.inside / "large.png").read_bytes(), "path": None}


IMAGE_CONTENTS: dict[str, Callable[[Stage], Any]] = {
    "path of a file": lambda stage: {"bytes": None, "path": str(stage.outside / "secret.txt")},
    "path by URL": lambda stage: {"bytes": None, "path": "http://127.0.0.1:9/x.png"},
    "pickle": lambda stage: {"bytes": pickle.dumps(stage.harm), "path": None},
    "PostScript": lambda stage: {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n", "path": None},
    "null": lambda stage: None,
    "900 million pixels": large_png,
}
for _name, _make in IMAGE_CONTENTS.items():
    add(f"lerobot2-{_name} for an image", image_bytes(_make))

# Human labels.


def labels(change: Callable[[Stage, Path], None]) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        states = read(stage.demonstrations("states.npz"))
        folder = stage.inside / "to_label/round_001"
        HumanLabels().write(folder, states, {"env_id": "x"})
        (folder / "labels.csv").write_text("row,action\n0,1\n1,0\n2,1\n3,0\n")
        change(stage, folder)
        return lambda: HumanLabels().read(folder, OBSERVATIONS, ACTIONS)

    return trial


def states(**changes: Any) -> Callable[[Stage, Path], None]:
    def change(stage: Stage, folder: Path) -> None:
        with np.load(folder / "states.npz") as held:
            np.savez(folder / "states.npz", **{**held, **changes})

    return change


def table(text: str) -> Callable[[Stage, Path], None]:
    return lambda stage, folder: (folder / "labels.csv").write_text(text) and None


def linked_states(stage: Stage, folder: Path) -> None:
    (folder / "states.npz").unlink()
    (folder / "states.npz").symlink_to(stage.outside / "secret.npz")


def linked_table(stage: Stage, folder: Path) -> None:
    (folder / "labels.csv").unlink()
    (folder / "labels.csv").symlink_to(stage.outside / "secret.txt")


LABELS: dict[str, Callable[[Stage, Path], None]] = {
    "other states": states(observations=np.ones((4, 3), np.float32)),
    "NaN in the states": states(observations=np.full((4, 3), np.nan, np.float32)),
    "states of another shape": states(observations=np.zeros((4, 2), np.float32)),
    "fewer states": states(
        **{key: value[:1] if key != "terminals" else value[3:] for key, value in good_columns().items()}
    ),
    "other rewards": states(rewards=np.zeros(4, np.float32)),
    "other actions": states(actions=np.ones(4, np.int64)),
    "states without a digest": states(metadata=np.array("{}")),
    "a pickle for states": lambda stage, folder: states(observations=objects(stage))(stage, folder),
    "link for the states": linked_states,
    "link for the table": linked_table,
    "fifo for the states": lambda stage, folder: make_special(folder / "states.npz", "fifo") and None,
    "fifo for the table": lambda stage, folder: make_special(folder / "labels.csv", "fifo") and None,
    "device for the table": lambda stage, folder: make_special(folder / "labels.csv", "device") and None,
    "directory for the table": lambda stage, folder: make_special(folder / "labels.csv", "directory") and None,
    "a formula": table("row,action\n0,=cmd|'/c calc'!A1\n1,0\n2,1\n3,0\n"),
    "code": table("row,action\n0,__import__('os').system('touch marker')\n1,0\n2,1\n3,0\n"),
    "an endless number": table(f"row,action\n0,{'9' * 5000}\n1,0\n2,1\n3,0\n"),
    "a row far away": table("row,action\n99999999999999999999,1\n"),
    "null bytes": table("row,action\n0,\x00\n"),
}
for _name, _change in LABELS.items():
    add(f"labels-{_name}", labels(_change))

# Summaries.

GOOD = {"method": "bc", "env_id": "x", "seed": 0, "return_mean": 1.0, "return_iqm": 1.0, "normalized_score": None}
SUMMARIES: dict[str, str] = {
    "a huge number": json.dumps({**GOOD, "return_mean": 10**400}),
    "a huge float": json.dumps({**GOOD, "return_mean": 1e308}),
    "NaN": json.dumps({**GOOD, "return_mean": float("nan")}),
    "infinity": json.dumps({**GOOD, "return_iqm": float("inf")}),
    "a list": json.dumps({**GOOD, "return_mean": [[1.0]]}),
    "text": json.dumps({**GOOD, "return_mean": "1.0"}),
    "a bool": json.dumps({**GOOD, "return_mean": True}),
    "another seed": json.dumps({**GOOD, "seed": 0.0}),
    "no seed": json.dumps({key: value for key, value in GOOD.items() if key != "seed"}),
    "no method": json.dumps({**GOOD, "method": None}),
    "method as a list": json.dumps({**GOOD, "method": ["bc"]}),
    "versions as a list": json.dumps({**GOOD, "versions": ["x"]}),
    "nested": "[" * 100_000,
    "endless digits": '{"return_mean": ' + "9" * 10_000 + "}",
    "no JSON": "hello",
    "a list of them": json.dumps([GOOD]),
    "large": json.dumps({**GOOD, "more": "x" * 2**24}),
}


def summary(text: str) -> Callable[[Stage], Attempt]:
    def trial(stage: Stage) -> Attempt:
        (stage.inside / "summary.json").write_text(text)
        return lambda: _read_summary(stage.inside, 0)

    return trial


for _name, _text in SUMMARIES.items():
    add(f"summary-{_name}", summary(_text))
for _kind in ("fifo", "device", "directory", "empty"):
    add(
        f"summary-{_kind}",
        lambda stage, kind=_kind: lambda: _read_summary(make_special(stage.inside / "summary.json", kind).parent, 0),
    )

NAMES.extend(TRIALS)


def test_traps_detect_harm(tmp_path, monkeypatch):
    """The traps detect unpickling, importing, connecting and starting a process."""
    import socket
    import subprocess

    stage = make_stage(tmp_path, monkeypatch)
    pickle.loads(pickle.dumps(stage.harm))
    assert stage.marker.exists()
    stage.marker.unlink()
    monkeypatch.delitem(__import__("sys").modules, "hostile_module", raising=False)
    __import__("hostile_module")
    assert stage.marker.exists()
    for attempt in (
        lambda: socket.socket().connect(("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("localhost", 9),
        lambda: subprocess.Popen(["true"]),
        lambda: os.system("true"),
    ):
        with pytest.raises(OSError, match="is closed"):
            attempt()
    assert len(stage.events) == 4
    assert read(stage.outside / "secret.npz").observation[0, 0] == SECRET
    assert read(stage.outside / "secret.hdf5").observation[0, 0] == SECRET
