"""Experts that are an MLP as plain arrays in an `.npz`, evaluated in NumPy without the library that trained them.

Keys of the file, with n = `n_layers`:

- `W0, b0, … W{n-1}, b{n-1}`: weights `[in, out]` and biases `[out]`.
- `activation`: function between layers, `tanh`, `relu`, `lrelu` (slope 0.01) or `identity`.
- `output`: meaning of the last layer, `linear` (clipped to the action box), `tanh` (squashed to the box), `tanh_hard2`
  (clipped to ±2, then squashed) or `argmax` (discrete).
- `obs_mean, obs_std, obs_clip`, optional: the network reads clip((observation − mean) / std, ±clip).
- `log_std: [act_dim]`, optional: logarithms of the Gaussian's standard deviations, before squashing.

Other keys are notes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import Space, spaces

from lit_imitation.errors import ExpertError, UnsupportedSpaceError
from lit_imitation.experts.base import Array
from lit_imitation.rollout import Actor, FunctionActor
from lit_imitation.utils.files import atomic_write, expand_user
from lit_imitation.utils.integrity import check_file, check_npz
from lit_imitation.utils.spaces import float32_bounds

if TYPE_CHECKING:
    from lit_imitation.policies import Policy

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "lrelu": lambda x: np.where(x > 0, x, 0.01 * x),
    "identity": lambda x: x,
}
OUTPUTS = ("linear", "tanh", "tanh_hard2", "argmax")


def load_arrays(
    path: str | Path, observation_space: Space[Any], action_space: Space[Any], *, deterministic: bool = True
) -> Actor:
    """Load the expert in a file; it computes in float64.

    Args:
        path: The `.npz` file, opened with `allow_pickle=False`.
        observation_space: A Box, whose observations are flattened.
        action_space: Discrete for `argmax`, else a Box.
        deterministic: Whether to take the mean or the largest logit instead of drawing from the Gaussian of `log_std`
            or the softmax of the logits, by NumPy's global stream (`np.random.seed`).

    Raises:
        ExpertError: The file cannot be read, a key is missing or wrong, or the network does not fit the spaces. The
            message names file and key.
        UnsupportedSpaceError: The observations are not a Box.
    """
    if not isinstance(observation_space, spaces.Box):
        raise UnsupportedSpaceError(f"expert npz:{path} reads Box observations, not {observation_space}")
    file = _Arrays(path)
    layers = file.layers(prod(observation_space.shape))
    activation = ACTIVATIONS[file.choice("activation", tuple(ACTIVATIONS))]
    output = file.choice("output", OUTPUTS)
    normalize = file.normalizer(prod(observation_space.shape))
    outputs = layers[-1][1].size

    def network(observation: Array) -> Array:
        x = normalize(observation.reshape(len(observation), -1).astype(np.float64))
        for weight, bias in layers[:-1]:
            x = activation(x @ weight + bias)
        weight, bias = layers[-1]
        return cast(Array, x @ weight + bias)

    if output == "argmax":
        if not isinstance(action_space, spaces.Discrete):
            raise file.misfit("output", f"is argmax, but the action space is {action_space}")
        if outputs != action_space.n:
            raise file.misfit(f"b{len(layers) - 1}", f"gives {outputs} logits for {action_space.n} actions")
        first = int(action_space.start)

        def choose(observation: Array) -> Array:
            logits = network(observation)
            if not deterministic:  # the largest of logits + Gumbel noise is a draw from their softmax
                logits = logits + np.random.gumbel(size=logits.shape)  # noqa: NPY002 - the stream that callers seed
            return cast(Array, logits.argmax(axis=-1).astype(np.int64) + first)

        return FunctionActor(choose)

    if not isinstance(action_space, spaces.Box):
        raise file.misfit("output", f"is {output}, but the action space is {action_space}")
    size = prod(action_space.shape)
    if outputs != size:
        raise file.misfit(f"b{len(layers) - 1}", f"gives {outputs} numbers for an action of {size}")
    low, high = action_space.low.reshape(-1).astype(np.float64), action_space.high.reshape(-1).astype(np.float64)
    if output != "linear" and not (np.isfinite(low) & np.isfinite(high)).all():
        raise file.error("output", f"is {output}, which needs a bounded action space, not {action_space}")
    if not deterministic and "log_std" not in file:
        raise file.error("log_std", "is missing, so there is no distribution to sample; ask for deterministic actions")
    bounds = [bound.reshape(-1) for bound in float32_bounds(action_space)]
    std = 0.0 if deterministic else np.exp(file.vector("log_std", size))

    def act(observation: Array) -> Array:
        x = network(observation)
        if output == "tanh_hard2":
            x = np.clip(x, -2, 2)
        if not deterministic:
            x = x + std * np.random.standard_normal(x.shape)  # noqa: NPY002 - the stream that callers seed
        if output != "linear":
            x = low + (np.tanh(x) + 1) / 2 * (high - low)
        return np.clip(x.astype(np.float32), *bounds).reshape(-1, *action_space.shape)

    return FunctionActor(act)


def save_arrays(policy: Policy, path: str | Path, **notes: str | float) -> None:
    """Write a trained policy in this format.

    Args:
        policy: Categorical, deterministic, squashed or free-σ Gaussian policy of one MLP on vector observations. Of a
            squashed Gaussian, only its deterministic actions are written.
        path: The `.npz` file to write.
        notes: Further keys, such as the origin of the policy.

    Raises:
        ExpertError: The policy is of another kind.
    """
    import torch

    from lit_imitation.networks.mlp import MLP
    from lit_imitation.policies import CategoricalPolicy, DeterministicPolicy, GaussianPolicy, SquashedGaussianPolicy

    network, standardize = policy.network, policy.encoder.standardize
    if not isinstance(network, MLP) or standardize is None or network.activation not in ("tanh", "relu"):
        raise ExpertError(
            f"{path}: only a policy of one tanh or relu MLP on vector observations can be written as arrays"
        )
    arrays: dict[str, Any] = {"n_layers": len(network.layers), "activation": network.activation}
    weights = [(layer.weight.detach().T, layer.bias.detach()) for layer in network.layers]  # type: ignore[operator]
    if isinstance(policy, CategoricalPolicy):
        arrays["output"] = "argmax"
    elif isinstance(policy, SquashedGaussianPolicy):
        if not (policy.to_box(torch.ones(policy.act_dim)) == policy.high).all():
            raise ExpertError(f"{path}: actions of which only a part of their box is used cannot be written as arrays")
        arrays["output"] = "tanh"
        weight, bias = weights[-1]
        weights[-1] = weight[:, : policy.act_dim], bias[: policy.act_dim]  # the rest of the head is log σ
    elif isinstance(policy, GaussianPolicy | DeterministicPolicy):
        squashed = isinstance(policy, DeterministicPolicy) and bool(policy.bounded.all())
        if isinstance(policy, DeterministicPolicy) and not squashed and policy.bounded.any():
            raise ExpertError(f"{path}: actions of which only some have bounds cannot be written as arrays")
        arrays["output"] = "tanh" if squashed else "linear"
        if isinstance(policy, GaussianPolicy):
            if policy.log_std is None:
                raise ExpertError(f"{path}: a σ that depends on the state cannot be written as arrays")
            arrays["log_std"] = (policy.free_log_std() + policy.scale.log()).detach().numpy()
        if not squashed:  # the format's last layer gives actions in the environment's units
            weight, bias = weights[-1]
            weights[-1] = weight * policy.scale, bias * policy.scale + policy.center
    else:
        raise ExpertError(f"{path}: a {type(policy).__name__} cannot be written as arrays")
    for i, (weight, bias) in enumerate(weights):
        arrays[f"W{i}"], arrays[f"b{i}"] = weight.numpy(), bias.numpy()
    arrays["obs_mean"] = standardize.mean.numpy()
    arrays["obs_std"] = (1.0 / standardize.inverse_std).numpy()
    if standardize.fitted:
        arrays["obs_clip"] = float(standardize.limit)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **notes)  # type: ignore[arg-type]
    atomic_write(expand_user(path), buffer.getvalue())


class _Arrays:
    """The arrays of one file, each checked when it is read."""

    def __init__(self, path: str | Path) -> None:
        self.path = expand_user(path)
        self._arrays: dict[str, Array] = {}
        key = "(the file)"
        try:
            check_npz(check_file(self.path, ExpertError), None, ExpertError)
            with self.path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
                for key in archive.files:
                    self._arrays[key] = archive[key]
        except ExpertError:
            raise
        except Exception as error:  # NumPy and zipfile raise a different one for each way a file can be bad
            raise self.error(key, f"cannot be read as an array without pickles ({error})") from error

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def error(self, key: str, what: str) -> ExpertError:
        return ExpertError(f"{self.path}: {key} {what}")

    def misfit(self, key: str, what: str) -> ExpertError:
        """Error for a network made for other spaces; names the file's own environment if the file has it."""
        env_id = str(self["env_id"]) if "env_id" in self else ""
        return self.error(key, what + (f"; the file's env_id is {env_id}" if env_id else ""))

    def __getitem__(self, key: str) -> Array:
        if key not in self:
            raise self.error(key, f"is missing; the file has {', '.join(sorted(self._arrays)) or 'nothing'}")
        return self._arrays[key]

    def numbers(self, key: str, shape: tuple[int | None, ...]) -> Array:
        """The finite array `key` as float64. None in `shape` allows any size."""
        array = self[key]
        if array.dtype.kind not in "fiu":
            raise self.error(key, f"has dtype {array.dtype}, not numbers")
        if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            wanted = str(list(shape)).replace("None", "any")
            raise self.error(key, f"has shape {list(array.shape)} instead of {wanted}")
        if not np.isfinite(array).all():
            raise self.error(key, "holds NaN or infinity")
        return array.astype(np.float64)

    def vector(self, key: str, size: int) -> Array:
        return self.numbers(key, (size,))

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = str(self[key])
        if value not in choices:
            raise self.error(key, f"is {value!r}, not one of {', '.join(choices)}")
        return value

    def layers(self, inputs: int) -> list[tuple[Array, Array]]:
        """Weights and biases of all layers, for observations of `inputs` numbers."""
        count = int(self.numbers("n_layers", ()))
        if count < 1:
            raise self.error("n_layers", f"is {count}; at least 1 is needed")
        layers = []
        for i in range(count):
            weight = self.numbers(f"W{i}", (None, None))
            if len(weight) != inputs:
                error, source = (self.error, f"W{i - 1}") if i else (self.misfit, "the environment's observation")
                raise error(f"W{i}", f"reads {len(weight)} numbers, but {source} has {inputs}")
            inputs = weight.shape[1]
            layers.append((weight, self.vector(f"b{i}", inputs)))
        return layers

    def normalizer(self, inputs: int) -> Callable[[Array], Array]:
        """Function that normalizes observations `[B, inputs]`."""
        mean = self.vector("obs_mean", inputs) if "obs_mean" in self else np.zeros(inputs)
        std = self.vector("obs_std", inputs) if "obs_std" in self else np.ones(inputs)
        clip = float(self.numbers("obs_clip", ())) if "obs_clip" in self else np.inf
        if (std <= 0).any():
            raise self.error("obs_std", f"is not positive at index {int(np.argmax(std <= 0))}")
        if clip <= 0:
            raise self.error("obs_clip", f"is {clip}; a positive bound is needed")
        return lambda x: np.clip((x - mean) / std, -clip, clip)
