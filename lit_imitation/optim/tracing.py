"""Traces of gradients: the same kernels without Python and autograd around them, where there is no time to compile."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter
from torch.fx.experimental.proxy_tensor import make_fx

MASKED_KERNELS = (
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.native_group_norm_backward.default,
    torch.ops.aten.native_layer_norm_backward.default,
)
"""Kernels whose last argument tells which of their results are wanted."""
_numbers, _units = itertools.count(), list[torch.jit.CompilationUnit]()
Gradient = Callable[[Tensor, dict[str, Tensor], tuple[Tensor, ...]], tuple[Tensor, Tensor]]


class Traced:
    """Calls a function of tensors by a trace of its kernels, made at the first call for each kind of arguments.

    A trace takes a third of a second to make, where compiled code takes 20, and leaves about a third of the time of an
    eager step away. The function must not branch on the values of its arguments; shapes, types, autocast and the
    `mode` may choose what it does.

    Args:
        function: `(vector, constants, *minibatch)` to gradient and statistics.
        mode: Tells what else the function depends on, such as whether its module trains.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, Tensor]], mode: Callable[[], Any]) -> None:
        self.function, self.mode = function, mode
        self._traces: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {}

    def __call__(
        self, vector: Tensor, constants: Mapping[str, Tensor], *minibatch: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """The function at these arguments; None if it cannot be traced."""
        autocast = torch.is_autocast_enabled(vector.device.type)
        key = (self.mode(), autocast, *((one.shape, one.dtype) for one in minibatch))
        if key not in self._traces:
            try:
                self._traces[key] = self._trace(vector, constants, minibatch)
            except Exception:  # an error of the function itself comes up again in the eager step that follows
                return None
        return self._traces[key](vector, *constants.values(), *minibatch)

    def _trace(
        self, vector: Tensor, constants: Mapping[str, Tensor], minibatch: tuple[Tensor, ...]
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        names = list(constants)

        def flat(vector: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            return self.function(vector, dict(zip(names, tensors, strict=False)), *tensors[len(names) :])

        given = (vector, *constants.values(), *minibatch)
        trace: Callable[..., tuple[Tensor, Tensor]] = trace_kernels(flat, given)
        return trace


def trace_kernels(function: Callable[..., Any], given: tuple[Tensor | list[Tensor], ...]) -> Any:
    """Trace the kernels that a function of tensors calls; what it draws and writes here is a rehearsal.

    Args:
        function: Function of tensors and lists of tensors alone.
        given: Arguments like those of later calls; copies are used.
    """
    state = torch.random.get_rng_state()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            kernels = _Kernels(make_fx(function)(*_copies(given)))
            return torch.jit.trace(kernels.run, _copies(given), check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        torch.random.set_rng_state(state)


class _Kernels(Interpreter):
    """Runs a graph of kernels so that `torch.jit.trace` can follow.

    Its tracer knows no arrays of booleans, by which the backward kernels of convolutions and normalizations are told
    which gradients to compute. TorchScript does, so these are called from scripts.
    """

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the kernel `target` returns; None in place of gradients that are not computed."""
        if target not in MASKED_KERNELS:
            return super().call_function(target, args, kwargs)
        mask, tensors = args[-1], [one for one in args if isinstance(one, Tensor)]
        names = iter(f"x{i}" for i in range(len(tensors)))
        values = [next(names) if isinstance(one, Tensor) else repr(one) for one in args]
        computed = ", ".join(f"y{i}" for i, wanted in enumerate(mask) if wanted)
        found = _script(
            f"({', '.join(f'x{i}' for i in range(len(tensors)))}):\n"
            f"    {', '.join(f'y{i}' for i in range(len(mask)))} = torch.ops.aten.{target.overloadpacket.__name__}"
            f"({', '.join(values)})\n"
            f"    return {computed}\n"
        )(*tensors)
        given = iter(found if isinstance(found, tuple) else (found,))
        return tuple(next(given) if wanted else None for wanted in mask)


@cache
def _script(rest: str) -> Callable[..., Any]:
    """A function in TorchScript from its arguments and body; kept, because a trace does not keep what it calls."""
    name = f"kernel_{next(_numbers)}"
    unit = torch.jit.CompilationUnit(f"def {name}{rest}")
    _units.append(unit)
    function: Callable[..., Any] = getattr(unit, name)
    return function


def _copies(given: tuple[Tensor | list[Tensor], ...]) -> tuple[Tensor | list[Tensor], ...]:
    return tuple(one.clone() if isinstance(one, Tensor) else [part.clone() for part in one] for one in given)


def is_traceable(module: nn.Module) -> bool:
    """Whether all parts of a loss are of this package or of torch, none of which branches on values."""
    return all(type(one).__module__.startswith(("lit_imitation.", "torch.nn.")) for one in module.modules())
