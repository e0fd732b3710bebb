"""ONNX graphs in the making; onnx takes long to import, and serving needs none of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ml.onnx_model import INPUT

# What BigQuery ML imports (ONNX Runtime 1.12) is at most opset 17, ai.onnx.ml 3 and IR 8.
OPSETS = {"": 15, "ai.onnx.ml": 3}
IR_VERSION = 8


@dataclass
class Graph:
    """An ONNX graph in the making."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        domain = attributes.pop("domain", None)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name


def assemble(
    nodes: Sequence[Any],
    constants: Sequence[Any],
    *,
    inputs: int,
    outputs: Mapping[str, tuple[int, int | None]],
) -> Any:
    """Return a model of one float32 tensor ``features`` of shape (n, inputs).

    Parameters
    ----------
    nodes, constants : sequence
        ONNX's protocol buffers.
    inputs : int
        Number of features.
    outputs : Mapping
        From an output's name to its element type and its number of columns, None of a vector.
    """
    shapes: dict[str, list[str | int]] = {
        name: ["rows"] if columns is None else ["rows", columns]
        for name, (_, columns) in outputs.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "tapehouse",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", inputs])],
        [
            helper.make_tensor_value_info(name, kind, shapes[name])
            for name, (kind, _) in outputs.items()
        ],
        list(constants),
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, opset) for domain, opset in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="tapehouse",
    )
