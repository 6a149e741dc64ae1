"""What is known of a network while the operations that torch.export traced are turned into layers.

Every traced value stands for the output of a layer, or for the network's input; several values may
stand for the same one, such as a convolution's, its BatchNorm's and its ReLU's.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nce_sim.errors import InputError
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import INPUT, Layer, Shape

FRAME = re.compile(r'File "(?P<file>.+)", line \d+.*\n *(?P<code>.+)')
TORCH = str(Path(torch.__file__).parent)


@dataclass
class Trace:
    """State of one capture.

    `standing_for` has the layer of each traced value, `made_by` the value that made each layer,
    `orders` the order of axes of those values whose axes were permuted.
    """

    network: str
    tensors: dict[str, Tensor]
    layers: dict[str, Layer] = field(default_factory=dict)
    parameters: dict[str, Parameters] = field(default_factory=dict)
    standing_for: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, Node] = field(default_factory=dict)
    orders: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def source(self, node: Any, reader: Node) -> str:
        """Return the layer (or the input) whose output `node` is, for `reader`.

        Raises InputError for values that are none, and for permuted ones.
        """
        if not isinstance(node, Node) or node.name not in self.standing_for:
            given = f"'{node.name}'" if isinstance(node, Node) else repr(node)
            raise self.refuse(
                reader, f"{reader.target} reads {given}, which is neither the input nor the output "
                f"of a layer"
            )  # fmt: skip
        if node.name in self.orders:
            raise self.refuse(
                reader, f"{reader.target} reads values with axes in the order "
                f"{self.orders[node.name]}: only N x C x H x W is known"
            )  # fmt: skip
        return self.standing_for[node.name]

    def tensor(self, node: Node, reader: Node) -> Tensor:
        """Return the parameter or buffer that `node` is."""
        if node.name not in self.tensors:
            raise self.refuse(reader, f"'{node.name}' as a parameter, which depends on the input")
        return self.tensors[node.name]

    def add(self, node: Node, layer: Layer) -> None:
        """Add the layer that makes `node`."""
        self.layers[layer.name] = layer
        self.standing_for[node.name] = layer.name
        self.made_by[layer.name] = node

    def next_name(self, kind: str) -> str:
        """Return "conv1", "conv2" ... in the order of the network."""
        return f"{kind}{1 + sum(name.rstrip('0123456789') == kind for name in self.layers)}"

    def is_only_reader(self, source: Node) -> bool:
        """Tell whether neither `source` nor what leads to it from its layer is read twice."""
        layer = self.standing_for[source.name]
        while self.standing_for.get(source.name) == layer:
            if len(source.users) > 1:
                return False
            if layer == INPUT or source is self.made_by[layer]:
                return True
            source = source.all_input_nodes[0]
        return True

    def is_signed(self, name: str) -> bool:
        """Tell whether the output called `name` can be below zero."""
        if name == INPUT:
            return True
        own = self.layers[name].may_be_negative
        if own is not None:
            return own
        return any(self.is_signed(source) for source in set(self.layers[name].sources))

    def depth(self, name: str) -> int:
        """Return the layers on the longest way from the input to `name`, itself included."""
        depths = {INPUT: 0}
        for layer in self.layers.values():
            depths[layer.name] = 1 + max(depths[source] for source in layer.sources)
        return depths[name]

    def refuse(self, node: Node, why: str) -> InputError:
        """Return the error for `node`: `why`, with the module and the line of the user's source."""
        frames = list(FRAME.finditer(node.meta.get("stack_trace") or ""))
        own = [frame for frame in frames if not frame["file"].startswith(TORCH)]
        message = f"network '{self.network}': {why}"
        if own:
            place, _, _ = own[-1][0].partition("\n")
            message += f"\n  at {place}: {own[-1]['code'].strip()}"
        modules = list((node.meta.get("nn_module_stack") or {}).values())
        if modules and modules[-1][0]:
            message += f"\n  in module '{modules[-1][0]}' ({modules[-1][1]})"
        return InputError(message)


def arguments(node: Node, **defaults: Any) -> dict[str, Any]:
    """Return the node's arguments by name; `defaults` lists all names in order."""
    given = dict(zip(defaults, node.args, strict=False))
    return {**defaults, **given, **node.kwargs}


def shape_of(node: Node) -> Shape:
    """Return the shape of one image's share of a traced value."""
    return tuple(int(size) for size in node.meta["val"].shape[1:])


def map_shape(trace: Trace, node: Node, reader: Node) -> Shape:
    """Return channels, height and width of `node`, which `reader` reads as a map."""
    shape = shape_of(node)
    if len(shape) != 3:
        raise trace.refuse(
            reader, f"{reader.target} on values of {len(shape) + 1} dimensions, the batch's "
            f"included: maps have 4, N x C x H x W",
        )  # fmt: skip
    return shape


def pair(value: Any) -> tuple[int, int]:
    """Return (vertical, horizontal) from a number or a list of one or two."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (int(values[0]), int(values[-1]))
