"""File formats of exported graphs: ONNX, and `torch.export`'s own."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_imitation.training.export_graphs import ExportGraph, export_program, nest, quiet

METADATA_KEY = "lit_imitation"
"""Key of the metadata, as JSON, among an ONNX model's metadata properties."""
METADATA_FILE = "lit_imitation.json"
"""Name of the metadata among the extra files of a `.pt2`."""
Runtime = Callable[[dict[str, Tensor]], Tensor]
"""Function of named inputs to the output of a graph."""


class Format(ABC):
    """A graph in one file format.

    Args:
        graph: Graph to convert.
    """

    suffix: ClassVar[str]
    """Suffix of its files."""
    runtime_name: ClassVar[str]
    """What runs its files."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `onnx` that it needs."""

    @abstractmethod
    def __init__(self, graph: ExportGraph) -> None: ...

    @abstractmethod
    def to_bytes(self, metadata: str) -> bytes:
        """Content of the file.

        Args:
            metadata: JSON that the file keeps.
        """

    @staticmethod
    @abstractmethod
    def run(content: bytes) -> Runtime:
        """What the content of a file computes, in its own runtime on one thread."""


class Onnx(Format):
    """ONNX, for onnxruntime and others: `policy.onnx`, with the metadata as the property `lit_imitation`."""

    suffix, runtime_name = ".onnx", "onnxruntime"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def __init__(self, graph: ExportGraph) -> None:
        with quiet():
            program = torch.onnx.export(
                export_program(graph),
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=[graph.output[0]],
                external_data=False,
                verbose=False,
            )
        assert program is not None
        self.model = program.model
        for node in self.model.graph.all_nodes():
            node.metadata_props.clear()  # lines of source code, with the paths of this machine

    def to_bytes(self, metadata: str) -> bytes:
        """Content of the file."""
        from onnxscript import ir

        self.model.metadata_props[METADATA_KEY] = metadata
        content: bytes = ir.to_proto(self.model).SerializeToString()
        return content

    @staticmethod
    def run(content: bytes) -> Runtime:
        """What the content of a file computes in onnxruntime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        def run(inputs: dict[str, Tensor]) -> Tensor:
            (output,) = session.run(None, {name: one.numpy() for name, one in inputs.items()})
            return torch.from_numpy(output)

        return run


class TorchExport(Format):
    """The format of `torch.export.save`, for torch alone: `policy.pt2`, with the metadata as an extra file."""

    suffix, runtime_name = ".pt2", "torch.export"

    def __init__(self, graph: ExportGraph) -> None:
        self.program = export_program(graph)

    def to_bytes(self, metadata: str) -> bytes:
        """Content of the file."""
        buffer = io.BytesIO()
        with quiet():
            torch.export.save(self.program, buffer, extra_files={METADATA_FILE: metadata})
        return buffer.getvalue()

    @staticmethod
    def run(content: bytes) -> Runtime:
        """What the content of a file computes in torch."""
        with quiet():
            module: Any = torch.export.load(io.BytesIO(content)).module()

        def run(inputs: dict[str, Tensor]) -> Tensor:
            with torch.no_grad():
                output: Tensor = module(**nest(inputs))
            return output

        return run


FORMATS: dict[str, type[Format]] = {"onnx": Onnx, "torch_export": TorchExport}
"""Formats by their names on the command line."""
