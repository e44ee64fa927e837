"""Policies and rewards as functions of named tensors, with all random numbers among their inputs."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import Encoder, SplitEncoder
from lit_imitation.policies.base import Policy
from lit_imitation.policies.continuous import BoxActions
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.rewards.base import LearnableReward
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.utils.spaces import example_element, float32_bounds
from lit_imitation.windows import WindowSize

TYPICAL = 3.0
"""Bound, in units of 1 or of a standard deviation, of random observations where their space has none."""


class Signature(NamedTuple):
    """An input or output of an exported graph."""

    shape: tuple[int, ...]
    """Shape without the batch dimension, which comes first."""
    dtype: str
    """Name of the NumPy dtype."""
    meaning: str
    """One phrase for the metadata."""


class ExportGraph(nn.Module, ABC):
    """Function of named tensors `[B, …]` that can be exported."""

    inputs: dict[str, Signature]
    """Inputs of `forward`, in its order."""
    output: tuple[str, Signature]
    """Name and signature of the output."""

    @abstractmethod
    def examples(self, count: int, seed: int) -> dict[str, Tensor]:
        """Random inputs `[count, …]`."""

    @abstractmethod
    def reference(self, **inputs: Tensor) -> Tensor:
        """What the package itself computes from these inputs."""

    @abstractmethod
    def scale(self, reference: Tensor) -> Tensor:
        """Size of one unit of the output, which broadcasts against `reference`."""


def nest(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a graph from named inputs: `observation/camera` becomes the entry `camera` of `observation`."""
    nested: dict[str, Any] = {}
    for name, one in inputs.items():
        argument, slash, path = name.partition("/")
        if slash:
            nested.setdefault(argument, {})[path] = one
        else:
            nested[argument] = one
    return nested


class CountedDraws(TorchFunctionMode):
    """Context that lists how many numbers each draw takes for one row, while a function runs on a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        drawn = function(*args, **(kwargs or {}))
        if function in (torch.randn_like, torch.multinomial):
            self.sizes.append(drawn.numel())
        return drawn


class GivenDraws(TorchFunctionMode):
    """Context that takes draws from standard normal numbers instead of the generator.

    `randn_like` takes the next of them as they are. A draw of `multinomial` takes one number z per distribution, and
    its value is the least index i with p_0 + … + p_i ≥ Φ(z): with z ~ N(0, 1), Φ(z) is uniform.

    Args:
        noise: Numbers `[B, Σ sizes]`.
        sizes: Numbers that each draw takes for one row.
    """

    def __init__(self, noise: Tensor, sizes: Sequence[int]) -> None:
        super().__init__()
        self.parts = list(torch.split(noise, list(sizes), -1))

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.randn_like:
            return self.parts.pop(0).reshape(args[0].shape)
        if function is torch.multinomial:
            probability: Tensor = args[0]
            place = 0.5 * (1.0 + torch.erf(self.parts.pop(0).reshape(-1, 1) / math.sqrt(2.0)))
            below = probability.cumsum(-1) < place * probability.sum(-1, keepdim=True)
            return below.sum(-1, keepdim=True).clamp(max=probability.shape[-1] - 1)
        return function(*args, **(kwargs or {}))


class PolicyGraph(ExportGraph):
    """Actions, or chunks of them, from observations; noise is a second input if the actions are drawn.

    Args:
        policy: Trained policy.
        stochastic: Whether actions are drawn, by the input `noise`, instead of chosen deterministically.

    Raises:
        ConfigError: `stochastic` is set for a policy that draws nothing.
    """

    def __init__(self, policy: Policy, stochastic: bool = False) -> None:
        super().__init__()
        self.policy, self.stochastic = policy.requires_grad_(False).eval(), stochastic
        self.planned = isinstance(policy, SequencePolicy) and policy.window != WindowSize()
        split = policy.encoder.encode
        self.split = split if isinstance(split, SplitEncoder) else None
        window, self.steps = policy.window, (policy.window.observations,) if self.planned else ()
        meaning = "observation as the environment gives it; standardized inside"
        if self.planned:
            meaning = "last observations as the environment gives them, the current one at the end"
        self.inputs = {
            name: Signature((*self.steps, *(space.shape or ())), _dtype(space), meaning)
            for name, space in self._observations().items()
        }
        self.draws = self._count_draws() if stochastic else []
        if stochastic:
            if not self.draws:
                raise ConfigError(
                    f"--stochastic: {type(policy).__name__} draws nothing, so its actions need no noise; leave it out"
                )
            self.inputs["noise"] = Signature((sum(self.draws),), "float32", "independent draws from N(0, 1)")
        shape = policy.action_space.shape or ()
        meaning = "action to execute, in the environment's own units"
        if self.planned:
            shape = (window.horizon, *shape)
            meaning = "planned actions in the environment's own units, the first at the first of the observations"
        dtype = "float32" if isinstance(policy.action_space, Box) else "int64"
        self.output = "action", Signature(shape, dtype, meaning)

    def _observations(self) -> dict[str, Space[Any]]:
        """Space of each input with observations: of one step, `observation`, or a part of it, `observation/camera`."""
        if self.split is None:
            return {"observation": self.policy.observation_space}
        return {f"observation/{part.path}": self.split.space_of(part) for part in self.split.parts}

    def forward(self, observation: Tensor | dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Actions `[B, *act]`, or chunks `[B, H, *act]`.

        Args:
            observation: `[B, *obs]`, or windows `[B, n, *obs]` for chunks; or a dictionary of such parts by path.
            noise: Standard normal numbers `[B, d]`, if the graph is stochastic.
        """
        head = self._head(observation)
        if noise is None:
            return self._decode(head, True)
        with GivenDraws(noise, self.draws):
            return self._decode(head, False)

    def _head(self, observation: Tensor | dict[str, Tensor]) -> Tensor:
        if self.split is None or isinstance(observation, Tensor):
            return self.policy.head(observation)  # type: ignore[arg-type]
        parts = {path: one.flatten(0, 1) if self.planned else one for path, one in observation.items()}
        features = self.split.encode_parts(parts)
        if isinstance(self.policy, SequencePolicy):
            return features.reshape(-1, self.policy.n_obs_steps * self.split.out_features)
        head: Tensor = self.policy.network(features)
        return head

    def _decode(self, head: Tensor, deterministic: bool) -> Tensor:
        if self.planned:
            chunk: Tensor = self.policy.decode_chunk(head, deterministic)  # type: ignore[operator]
            return chunk
        return self.policy.decode(head, deterministic)

    @torch.no_grad()
    def _count_draws(self) -> list[int]:
        head = self._head(nest(self.examples(1, 0))["observation"])
        state = torch.get_rng_state()
        counted = CountedDraws()
        with counted:
            self._decode(head, False)
        torch.set_rng_state(state)
        return counted.sizes

    def examples(self, count: int, seed: int) -> dict[str, Tensor]:
        """Random observations of the size that the policy is used to, and noise if it is an input."""
        generator = np.random.default_rng(seed)
        each = [self.policy.encoder] if self.split is None else self.split.each()
        given = {
            name: random_elements(space, (count, *self.steps), generator, encoder)
            for (name, space), encoder in zip(self._observations().items(), each, strict=True)
        }
        if "noise" in self.inputs:
            numbers = generator.standard_normal((count, *self.inputs["noise"].shape), np.float32)
            given["noise"] = torch.from_numpy(numbers)
        return given

    @torch.no_grad()
    def reference(self, **inputs: Tensor) -> Tensor:
        """`Policy.act` or `SequencePolicy.plan`, for a deterministic graph; otherwise the graph before its export."""
        if "noise" in inputs:
            drawn: Tensor = self(**nest(inputs))
            return drawn
        act = self.policy.plan if self.planned else self.policy.act
        return act(inputs["observation"] if self.split is None else self._rows(inputs))  # type: ignore[operator]

    def _rows(self, inputs: dict[str, Tensor]) -> Tensor:
        """Flat rows of the parts, as the package's own rollouts have them."""
        assert self.split is not None
        space = self.policy.observation_space
        first = next(iter(inputs.values()))
        rows = np.zeros((*first.shape[: 1 + len(self.steps)], *(space.shape or ())), space.dtype)
        for part in self.split.parts:
            values = inputs[f"observation/{part.path}"].numpy()
            packed = part.to_bytes(values) if self.split.packed else values.reshape(*rows.shape[:-1], -1)
            rows[..., part.start : part.stop] = packed
        return torch.from_numpy(rows)

    def scale(self, reference: Tensor) -> Tensor:
        """Units of the action space, half the range of an action."""
        if isinstance(self.policy, BoxActions) and isinstance(self.policy.action_space, Box):
            return self.policy.scale.view(self.policy.action_space.shape)
        return torch.ones(())


class Rows(NamedTuple):
    """Transitions `[B]` while a reward is traced: a TensorClass would fix the size of the batch."""

    observation: Tensor
    action: Tensor
    next_observation: Tensor
    terminated: Tensor
    log_prob: None = None

    @property
    def batch_size(self) -> torch.Size:
        """`[B]`."""
        return self.terminated.shape

    def reshape(self, *shape: int) -> Rows:
        """The rows, which are flat already."""
        return self


class RewardGraph(ExportGraph):
    """Learned reward of transitions, of as many of their parts as it depends on.

    Args:
        model: Learned reward; `recovered_reward` is exported.
    """

    def __init__(self, model: LearnableReward | TabularReward) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.observation_space, self.action_space = model.observation_space, model.action_space
        observation = Signature(self.observation_space.shape or (), _dtype(self.observation_space), "s")
        self.inputs = {
            "observation": observation._replace(meaning="observation before the action"),
            "action": Signature(
                self.action_space.shape or (),
                "float32" if isinstance(self.action_space, Box) else "int64",
                "action in the environment's own units",
            ),
            "next_observation": observation._replace(meaning="observation after the action"),
            "terminated": Signature((), "bool", "whether the observation after the action is terminal"),
        }
        self.inputs = {name: self.inputs[name] for name in self._used()}
        self.output = "reward", Signature((), "float32", "learned reward of the step")

    def forward(
        self,
        observation: Tensor | None = None,
        action: Tensor | None = None,
        next_observation: Tensor | None = None,
        terminated: Tensor | None = None,
    ) -> Tensor:
        """Rewards `[B]`.

        Args:
            observation: `[B, *obs]`, if it is among the `inputs`, and so on.
            action: `[B, *act]`.
            next_observation: `[B, *obs]`.
            terminated: `[B]` bool.
        """
        given = (observation, action, next_observation, terminated)
        parts = {name: one for name, one in zip(Rows._fields, given, strict=False) if one is not None}
        rewards: Tensor = self.model.recovered_reward(self._rows(parts))  # type: ignore[arg-type]
        return rewards

    def _rows(self, parts: dict[str, Tensor]) -> Rows:
        """The transitions, with placeholders for the parts that do not count."""
        first = next(iter(parts.values()))
        for name, space in (("observation", self.observation_space), ("action", self.action_space)):
            if name not in parts:
                example = torch.from_numpy(np.asarray(example_element(space)))
                parts[name] = example.expand(first.shape[0], *example.shape)
        parts.setdefault("next_observation", parts["observation"])
        parts.setdefault("terminated", torch.zeros(first.shape[0], dtype=torch.bool))
        return Rows(parts["observation"], parts["action"], parts["next_observation"], parts["terminated"])

    def _used(self) -> list[str]:
        """Names of the inputs whose values the reward reads, found in its graph."""
        program = export_program(self)
        graph = program.graph_module.graph
        read, names = [graph.output_node()], set[str]()
        while read:
            node = read.pop()
            if node.name not in names and node.target is not torch.ops.aten.zeros_like.default:
                names.add(node.name)
                read += node.all_input_nodes
        placeholders = zip(self.inputs, program.graph_signature.user_inputs, strict=True)
        return [name for name, placeholder in placeholders if placeholder in names]

    def examples(self, count: int, seed: int) -> dict[str, Tensor]:
        """Random parts of transitions; every third is terminal."""
        generator = np.random.default_rng(seed)
        encoder = self.model.features.encoder if isinstance(self.model, LearnableReward) else None
        given = {
            "observation": random_elements(self.observation_space, (count,), generator, encoder),
            "action": random_elements(self.action_space, (count,), generator),
            "next_observation": random_elements(self.observation_space, (count,), generator, encoder),
            "terminated": torch.arange(count) % 3 == 2,
        }
        return {name: given[name] for name in self.inputs}

    @torch.no_grad()
    def reference(self, **inputs: Tensor) -> Tensor:
        """`recovered_reward` of the transitions."""
        return self(**inputs)  # type: ignore[no-any-return]

    def scale(self, reference: Tensor) -> Tensor:
        """1, or the reward itself where it is larger."""
        return reference.abs().clamp(min=1.0)


def export_program(graph: ExportGraph) -> torch.export.ExportedProgram:
    """The graph traced by `torch.export`, with a free batch dimension.

    Raises:
        torch.export's own errors: The graph depends on the values of its inputs, or on the size of the batch.
    """
    batch = torch.export.Dim("batch")
    # Two rows: a dimension of one would be taken for a constant.
    examples = graph.examples(2, 0)
    shapes = nest({name: {0: batch} for name in examples})
    with quiet():
        return torch.export.export(graph, (), nest(examples), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporters print, log and warn of: their internals, and packages that are not needed."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def random_elements(
    space: Space[Any], shape: tuple[int, ...], generator: np.random.Generator, encoder: Encoder | None = None
) -> Tensor:
    """Random elements `[*shape, *space]` in the dtype that `Transitions` have.

    Numbers come from the bounds of the space, or, where these are wide or missing, from the distribution by which an
    encoder standardizes its inputs.

    Args:
        space: Their space.
        shape: Leading dimensions.
        generator: Source of the numbers.
        encoder: Encoder that reads them.
    """
    if isinstance(space, Discrete | MultiDiscrete):
        counts = space.n if isinstance(space, Discrete) else space.nvec
        index = generator.integers(0, counts, (*shape, *(space.shape or ())))
        return torch.from_numpy(np.asarray(index + space.start))
    if not isinstance(space, Box):  # MultiBinary
        return torch.from_numpy(generator.integers(0, 2, (*shape, *(space.shape or ()))))
    if space.dtype == np.uint8:
        numbers = generator.integers(space.low, space.high, (*shape, *space.shape), np.uint8, endpoint=True)
        return torch.from_numpy(numbers)
    low, high = float32_bounds(space)
    middle, spread = np.zeros(space.shape), np.ones(space.shape)
    standardize = None if encoder is None else encoder.standardize
    if standardize is not None and standardize.fitted:
        middle = standardize.mean.numpy().reshape(space.shape)
        spread = 1.0 / standardize.inverse_std.numpy().reshape(space.shape)
    lowest, highest = np.maximum(low, middle - TYPICAL * spread), np.minimum(high, middle + TYPICAL * spread)
    place = generator.random((*shape, *space.shape))
    numbers = np.minimum(lowest, highest) + place * np.maximum(highest - lowest, 0.0)
    return torch.from_numpy(numbers.astype(np.float32).clip(low, high))


def _dtype(space: Space[Any]) -> str:
    """Name of the dtype of observations in `Transitions`."""
    if not isinstance(space, Box):
        return "int64"
    return "uint8" if space.dtype == np.uint8 else "float32"
