"""From a torch module to a `Workload`, through the graph that torch.export traces.

The module is the only description of a network: shapes, strides and the place of the neurons are
read from its traced operations, whether it calls layers or functions. Whatever is not supported is
refused by name, with the line of the user's source.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from nce_sim.errors import InputError
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Shape
from nce_sim.workload.operations import HANDLERS, VIEWS
from nce_sim.workload.trace import Trace
from nce_sim.workload.users_code import place_of


def capture(module: nn.Module, example_input: Tensor, name: str) -> Workload:
    """Trace `module` on `example_input` (1 x the input's shape) and return its `Workload`.

    The module itself is not changed: it is traced in evaluation mode and put back.
    Layers that the output does not depend on are left out.
    Raises InputError for a module that torch.export cannot trace, for unsupported operations and
    for more than one input or output.
    """
    if not isinstance(module, nn.Module) or not isinstance(example_input, Tensor):
        raise InputError(
            f"network '{name}' is captured from a torch module and an example input, a tensor of "
            f"1 x the input's shape; not from {type(module).__name__} and "
            f"{type(example_input).__name__}"
        )
    was_training = {part: part.training for part in module.modules()}
    try:
        exported = torch.export.export(module.eval(), (example_input,))
    except Exception as reason:
        raise InputError(
            f"network '{name}' cannot be traced with an input of shape "
            f"{tuple(example_input.shape)}: {reason}{place_of(reason)}"
        ) from reason
    finally:
        for part, training in was_training.items():
            part.training = training

    return capture_program(exported, name)


def capture_program(exported: ExportedProgram, name: str) -> Workload:
    """Return the `Workload` of a program that torch.export made, in evaluation mode.

    Its input is images, N x what it reads; N may be any number, and may be dynamic.
    Raises InputError for unsupported operations and for more than one input or output.
    """
    signature = exported.graph_signature
    in_shape = _input_shape(exported, name)
    held = {**exported.state_dict, **exported.constants}
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    trace = Trace(name, {node: held[target].detach() for node, target in targets.items()})
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            trace.standing_for[node.name] = INPUT
        elif node.op == "call_function":
            _capture_operation(trace, node)
    _keep_path_to_output(trace, signature.user_outputs)
    _mark_pooled_output(trace)
    biased = {key for key, held in trace.parameters.items() if held.bias is not None}
    layers = tuple(replace(layer, bias=layer.name in biased) for layer in trace.layers.values())
    return Workload(name, in_shape, layers, trace.parameters)


def _input_shape(exported: ExportedProgram, name: str) -> Shape:
    """Return the shape of one image that a program reads."""
    read = set(exported.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in exported.graph.nodes if node.name in read]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise InputError(
            f"network '{name}' reads {len(inputs)} inputs: it must read one, a tensor of images"
        )
    shape = tuple(inputs[0].shape[1:])
    if not shape or not all(isinstance(size, int) for size in shape):
        raise InputError(
            f"network '{name}' reads images of shape {shape}: all sizes but the number of images "
            f"must be fixed when it is exported"
        )
    return shape


def _capture_operation(trace: Trace, node: Node) -> None:
    """Turn one traced operation into a layer, or into a part of the layer before it."""
    overwrites = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    if overwrites:
        _check_overwriting(trace, node)
    elif not node.users:
        return
    handler = HANDLERS.get(node.target)
    if handler is None:
        names = {str(each).split(".")[1] for each in HANDLERS if each is not operator.getitem}
        known = ", ".join(sorted(names))
        raise trace.refuse(node, f"operation {node.target} is not supported; supported are {known}")
    handler(trace, node)


def _check_overwriting(trace: Trace, node: Node) -> None:
    """Refuse an operation in place whose input is read elsewhere: the trace has both as values."""
    source = node.args[0]
    while isinstance(source, Node):
        if len(source.users) > 1:
            raise trace.refuse(node, f"{node.target} overwrites a value that is read elsewhere too")
        if source.target not in VIEWS:
            return
        source = source.args[0]


def _keep_path_to_output(trace: Trace, outputs: Sequence[Any]) -> None:
    """Drop the layers that the one output does not depend on."""
    if len(outputs) != 1 or outputs[0] not in trace.standing_for or outputs[0] in trace.orders:
        raise InputError(
            f"network '{trace.network}' returns {len(outputs)} values "
            f"({', '.join(map(str, outputs))}): it must return one tensor that its layers compute, "
            f"images x classes"
        )
    needed: set[str] = set()
    waiting = [trace.standing_for[outputs[0]]]
    while waiting:
        name = waiting.pop()
        if name != INPUT and name not in needed:
            needed.add(name)
            waiting += trace.layers[name].sources
    trace.layers = {name: layer for name, layer in trace.layers.items() if name in needed}
    trace.parameters = {name: held for name, held in trace.parameters.items() if name in needed}


def _mark_pooled_output(trace: Trace) -> None:
    """Give neurons to a global average pooling whose output is the network's."""
    last = next(reversed(trace.layers.values()), None)
    while last is not None and last.kind is Kind.FLATTEN:
        last = trace.layers.get(last.source)
    if last is None or last.kernel != last.in_shape[1:]:
        return
    if last.kind is Kind.MAX_POOL:
        raise trace.refuse(
            trace.made_by[last.name], "a global max pooling as the network's output: its outputs "
            "would be neurons, which the lanes cannot compute"
        )  # fmt: skip
    if last.kind is Kind.AVERAGE_POOL:
        trace.layers[last.name] = replace(last, has_neurons=True)
