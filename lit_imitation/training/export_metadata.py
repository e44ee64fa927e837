"""What an exported file says about itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Dict, Discrete, MultiDiscrete, Tuple, flatdim

from lit_imitation.policies.checkpoints import describe_checkpoint
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.training.export_graphs import ExportGraph, PolicyGraph, Signature
from lit_imitation.utils.files import replace_nonfinite
from lit_imitation.utils.spaces import FlatBox, space_to_dict
from lit_imitation.utils.versions import installed_version, versions

FORMAT_VERSION = 1
"""Version of the metadata; it rises when a field changes its meaning."""
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def describe_export(graph: ExportGraph, checkpoint: dict[str, Any], file: Path) -> dict[str, Any]:
    """Metadata of an exported policy or reward, as plain data for JSON; infinite bounds are None.

    Args:
        graph: What is exported.
        checkpoint: Checkpoint that it came from.
        file: The checkpoint's file.
    """
    part: Any = graph.policy if isinstance(graph, PolicyGraph) else graph.model
    name, output = graph.output
    kind = "policy" if isinstance(graph, PolicyGraph) else "reward"
    arguments = checkpoint.get("method", {}).get("arguments", {})
    decay = ema_decay(arguments, kind)
    found: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "trained": describe_checkpoint(checkpoint),
        "method": str(checkpoint.get("method", {}).get("class", "")).rpartition(".")[2],
        f"{kind}_class": type(part).__name__,
        "env_id": checkpoint.get("env_id", ""),
        "inputs": {name: _signature(one) for name, one in graph.inputs.items()},
        "outputs": {name: _signature(output)},
        "observation_space": space_to_dict(part.observation_space),
        "action_space": space_to_dict(part.action_space),
    }
    if isinstance(part.observation_space, FlatBox) and "observation" in graph.inputs:
        found["observation_layout"] = flat_layout(part.observation_space.original)
    if isinstance(graph, PolicyGraph):
        found |= _describe_playing(graph)
    found["weights"] = "last" if decay is None else f"exponential moving average with decay {decay}"
    found["checkpoint"] = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "epoch": checkpoint.get("epoch"),
        "global_step": checkpoint.get("global_step"),
        "evaluation": checkpoint.get("evaluation"),
    }
    of_export = {name: installed_version(name) for name in EXPORT_PACKAGES}
    found["versions"] = versions() | {name: number for name, number in of_export.items() if number}
    plain: dict[str, Any] = replace_nonfinite(found)
    return plain


def _describe_playing(graph: PolicyGraph) -> dict[str, Any]:
    """How the actions are executed."""
    policy, window = graph.policy, graph.policy.window
    first = window.observations - 1
    found: dict[str, Any] = {
        "deterministic": not graph.stochastic,
        "n_obs_steps": window.observations,
        "horizon": window.horizon,
        "n_action_steps": window.actions,
        "executed": {"first": first, "stop": first + window.actions},
        "history": "none: the observation is the current one",
        "queue": "none: the action is for the current step",
        "temporal_ensembling": None,
    }
    if not graph.planned:
        return found
    found["history"] = (
        f"the last {window.observations} observations, oldest first; at the start of an episode, the first observation "
        "stands for those before it"
    )
    decay = policy.ensemble_decay if isinstance(policy, SequencePolicy) else None
    if decay is None:
        found["queue"] = (
            f"execute the actions {first} to {first + window.actions - 1} of a chunk, one a step, then plan again; "
            "empty the queue when an episode starts"
        )
        return found
    found["queue"] = "none: plan at every step"
    found["temporal_ensembling"] = {
        "decay": decay,
        "rule": f"the action of a step is the mean of what all plans since the start of the episode say about it, with "
        f"weight exp(-decay * i) for the i-th oldest of them, from i = 0; action {first} of a chunk is for the step in "
        "which it was planned",
    }
    return found


def ema_decay(arguments: dict[str, Any], kind: str) -> float | None:
    """Decay of the moving average that a checkpoint holds as the weights of its policy or reward; None for none.

    Args:
        arguments: Arguments of the checkpoint's method, as it describes them.
        kind: `policy` or `reward`.
    """
    learner = (arguments.get("learner") or {}).get("arguments", {})
    if kind == "policy":
        held = [arguments.get("optimization"), learner.get("optimization")]
    else:
        held = [arguments.get(f"{name}optimization") for name in ("discriminator_", "reward_", "")]
    for one in held:
        if one and (decay := one["arguments"].get("ema_decay")) is not None:
            return float(decay)
    return None


def flat_layout(space: Space[Any], name: str = "", start: int = 0) -> list[dict[str, Any]]:
    """Where the parts of a Dict or Tuple are in its flat vector, in the order of `gymnasium.spaces.flatten`.

    Args:
        space: The space, or a part of it.
        name: Name of the part; `/` separates levels.
        start: Index of its first number.
    """
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        found = []
        for key, inner in parts:
            found += flat_layout(inner, f"{name}/{key}".strip("/"), start)
            start += flatdim(inner)
        return found
    part = {"key": name, "start": start, "stop": start + flatdim(space), "shape": list(space.shape or ())}
    if isinstance(space, Discrete | MultiDiscrete):
        counts = space.nvec if isinstance(space, MultiDiscrete) else space.n
        first = np.asarray(space.start).reshape(-1).tolist()
        part["one_hot"] = {"counts": np.asarray(counts).reshape(-1).tolist(), "first": first}
    return [part]


def _signature(one: Signature) -> dict[str, Any]:
    return {"shape": ["batch", *one.shape], "dtype": one.dtype, "meaning": one.meaning}
