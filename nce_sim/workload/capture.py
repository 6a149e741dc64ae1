"""From a torch module to a `Workload`, through the graph that torch.export traces.

The module is the only description of a network: shapes, strides and the place of the neurons are
read from its traced operations, whether it calls layers or functions. Whatever is not supported is
refused by name, with the line of the user's source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from nce_sim.errors import InputError
from nce_sim.workload.graph import Parameters, Workload
from nce_sim.workload.layer import INPUT, Kind, Layer, Shape

aten = torch.ops.aten


@dataclass
class _Trace:
    """State of one capture: what each traced node stands for."""

    network: str
    tensors: dict[str, Tensor]
    layers: dict[str, Layer] = field(default_factory=dict)
    parameters: dict[str, Parameters] = field(default_factory=dict)
    standing_for: dict[str, str] = field(default_factory=dict)

    def source(self, node: Node) -> str:
        """Return the layer (or the input) whose output `node` is."""
        if node.name not in self.standing_for:
            raise self.refuse(node, f"a layer that reads '{node.name}' instead of the input")
        return self.standing_for[node.name]

    def tensor(self, node: Node) -> Tensor:
        """Return the parameter or buffer that `node` is."""
        if node.name not in self.tensors:
            raise self.refuse(node, f"'{node.name}' as a parameter, which depends on the input")
        return self.tensors[node.name]

    def add(self, node: Node, layer: Layer) -> None:
        self.layers[layer.name] = layer
        self.standing_for[node.name] = layer.name

    def refuse(self, node: Node, why: str) -> InputError:
        place = (node.meta.get("stack_trace") or "").strip().splitlines()
        return InputError(
            f"network '{self.network}': {why}" + (f"\n  at {place[-2].strip()}: "
            f"{place[-1].strip()}" if len(place) > 1 else "")
        )  # fmt: skip


def capture(module: nn.Module, example_input: Tensor, name: str) -> Workload:
    """Trace `module` on `example_input` (1 x the input's shape) and return its `Workload`.

    The module itself is not changed: it is traced in evaluation mode and put back.
    Layers that the output does not depend on are left out.
    Raises InputError for a module that torch.export cannot trace, for unsupported operations and
    for more than one output.
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
            f"{tuple(example_input.shape)}: {reason}"
        ) from reason
    finally:
        for part, training in was_training.items():
            part.training = training

    signature = exported.graph_signature
    held = {**exported.state_dict, **exported.constants}
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    trace = _Trace(name, {node: held[target].detach() for node, target in targets.items()})
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            trace.standing_for[node.name] = INPUT
        elif node.op == "call_function":
            _capture_operation(trace, node)
    _keep_path_to_output(trace, signature.user_outputs)
    _mark_pooled_output(trace)
    biased = {key for key, held in trace.parameters.items() if held.bias is not None}
    layers = tuple(replace(layer, bias=layer.name in biased) for layer in trace.layers.values())
    return Workload(name, tuple(example_input.shape[1:]), layers, trace.parameters)


def _keep_path_to_output(trace: _Trace, outputs: Sequence[Any]) -> None:
    """Drop the layers that the one output does not depend on."""
    if len(outputs) != 1 or outputs[0] not in trace.standing_for:
        raise InputError(
            f"network '{trace.network}' returns {len(outputs)} values "
            f"({', '.join(map(str, outputs))}): it must return one tensor that its layers compute"
        )
    needed, name = set(), trace.standing_for[outputs[0]]
    while name != INPUT:
        needed.add(name)
        name = trace.layers[name].source
    trace.layers = {name: layer for name, layer in trace.layers.items() if name in needed}
    trace.parameters = {name: held for name, held in trace.parameters.items() if name in needed}


def _capture_operation(trace: _Trace, node: Node) -> None:
    """Turn one traced operation into a layer, or into a part of the layer before it."""
    handler = _HANDLERS.get(node.target)
    if handler is None:
        known = ", ".join(sorted({str(target).split(".")[1] for target in _HANDLERS}))
        raise trace.refuse(node, f"operation {node.target} is not supported; supported are {known}")
    handler(trace, node)


def _arguments(node: Node, **defaults: Any) -> dict[str, Any]:
    """Return the node's arguments by name; `defaults` lists all names in order."""
    given = dict(zip(defaults, node.args, strict=False))
    return {**defaults, **given, **node.kwargs}


def _shape(node: Node) -> Shape:
    """Return the shape of one image's share of a traced value."""
    return tuple(int(size) for size in node.meta["val"].shape[1:])


def _map_shape(trace: _Trace, node: Node, reader: Node) -> Shape:
    """Return channels, height and width of `node`, which `reader` reads as a map."""
    shape = _shape(node)
    if len(shape) != 3:
        raise trace.refuse(
            reader, f"{reader.target} on values of {len(shape) + 1} dimensions, the batch's "
            f"included: maps have 4, N x C x H x W",
        )  # fmt: skip
    return shape


def _pair(value: Any) -> tuple[int, int]:
    """Return (vertical, horizontal) from a number or a list of one or two."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (int(values[0]), int(values[-1]))


def _next_name(trace: _Trace, kind: str) -> str:
    """Return "conv1", "conv2" ... in the order of the network."""
    return f"{kind}{1 + sum(name.rstrip('0123456789') == kind for name in trace.layers)}"


def _convolution(trace: _Trace, node: Node) -> None:
    options = _arguments(
        node, input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    weight = trace.tensor(options["weight"])
    kernel, dilation = _pair(list(weight.shape[2:])), _pair(options["dilation"])
    padding = options["padding"]
    if padding == "same":
        spans = [reach * (size - 1) for reach, size in zip(dilation, kernel, strict=True)]
        if any(span % 2 for span in spans):
            raise trace.refuse(node, "asymmetric padding ('same' with an even kernel)")
        padding = [span // 2 for span in spans]
    elif padding == "valid":
        padding = 0
    layer = Layer(
        name=_next_name(trace, "conv"),
        kind=Kind.CONV2D,
        source=trace.source(options["input"]),
        in_shape=_map_shape(trace, options["input"], node),
        out_shape=_shape(node),
        kernel=kernel,
        stride=_pair(options["stride"]),
        padding=_pair(padding),
        dilation=dilation,
        groups=int(options["groups"]),
        has_neurons=True,
    )
    _add_with_parameters(trace, node, layer, weight, options["bias"])


def _linear(trace: _Trace, node: Node) -> None:
    options = _arguments(node, input=None, weight=None, bias=None)
    if len(_shape(options["input"])) != 1:
        raise trace.refuse(node, "a linear layer on more than one vector an image")
    layer = Layer(
        name=_next_name(trace, "fc"),
        kind=Kind.LINEAR,
        source=trace.source(options["input"]),
        in_shape=_shape(options["input"]),
        out_shape=_shape(node),
        has_neurons=True,
    )
    weight = trace.tensor(options["weight"])
    _add_with_parameters(trace, node, layer, weight, options["bias"])


def _add_with_parameters(
    trace: _Trace, node: Node, layer: Layer, weight: Tensor, bias: Node | None
) -> None:
    trace.add(node, layer)
    trace.parameters[layer.name] = Parameters(
        weight.float(), None if bias is None else trace.tensor(bias).float()
    )


def _absorbing_layer(trace: _Trace, node: Node, operation: str) -> Layer:
    """Return the convolution or linear layer that absorbs `node`, which must be its only reader."""
    source = node.args[0]
    assert isinstance(source, Node)
    layer = trace.layers.get(trace.source(source))
    absorbs = layer is not None and layer.kind in (Kind.CONV2D, Kind.LINEAR) and not layer.relu
    if layer is None or not absorbs or not _is_only_reader(trace, source):
        raise trace.refuse(
            node, f"{operation} that does not directly follow a convolution or linear layer"
        )
    return layer


def _is_only_reader(trace: _Trace, source: Node) -> bool:
    """Tell whether neither `source` nor what it stands for, back to its layer, is read twice."""
    layer = trace.source(source)
    while trace.standing_for.get(source.name) == layer:
        if len(source.users) > 1:
            return False
        before = source.args[0]
        assert isinstance(before, Node)
        source = before
    return True


def _batch_norm(trace: _Trace, node: Node) -> None:
    """Fold y = (x - mean) / sqrt(variance + eps) * scale + shift into the layer before it."""
    options = _arguments(
        node, input=None, scale=None, shift=None, mean=None, variance=None, training=False,
        momentum=0.1, eps=1e-5, cudnn=False,
    )  # fmt: skip
    layer = _absorbing_layer(trace, node, "BatchNorm")
    if options["training"] or options["mean"] is None or options["variance"] is None:
        raise trace.refuse(node, "BatchNorm with the statistics of the batch: it needs stored ones")

    def tensor(key: str, default: float) -> Tensor:
        if options[key] is None:
            return torch.full((layer.channels,), default)
        return trace.tensor(options[key]).float()

    factor = tensor("scale", 1.0) / torch.sqrt(tensor("variance", 1.0) + options["eps"])
    old = trace.parameters[layer.name]
    bias = torch.zeros(layer.channels) if old.bias is None else old.bias
    trace.parameters[layer.name] = Parameters(
        old.weight * factor.view(-1, *[1] * (old.weight.dim() - 1)),
        (bias - tensor("mean", 0.0)) * factor + tensor("shift", 0.0),
    )
    trace.standing_for[node.name] = layer.name


def _relu(trace: _Trace, node: Node) -> None:
    layer = _absorbing_layer(trace, node, "ReLU")
    trace.layers[layer.name] = replace(layer, relu=True)
    trace.standing_for[node.name] = layer.name


def _pool(trace: _Trace, node: Node) -> None:
    options = _arguments(
        node, input=None, kernel=None, stride=None, padding=0, a=None, b=None, c=None
    )
    maximum = node.target is aten.max_pool2d.default
    usual = (
        options["a"] in (None, 1, [1, 1]) and not options["b"]  # dilation, ceil_mode
        if maximum
        else not options["a"] and options["b"] in (None, True) and options["c"] is None
    )
    padding = _pair(options["padding"])
    if not usual or (not maximum and padding != (0, 0)):
        raise trace.refuse(node, f"{node.target} with dilation, ceil_mode or counted padding")
    kernel = _pair(options["kernel"])
    stride = _pair(options["stride"]) if options["stride"] else kernel
    _add_pool(trace, node, Kind.MAX_POOL if maximum else Kind.AVERAGE_POOL, kernel, stride, padding)


def _global_pool(trace: _Trace, node: Node) -> None:
    """Adaptive average pooling that divides its input evenly, or a mean over both axes."""
    source = node.args[0]
    assert isinstance(source, Node)
    _, height, width = _map_shape(trace, source, node)
    if node.target is aten.mean.dim:
        axes = node.args[1] if isinstance(node.args[1], list | tuple) else ()
        if {int(str(axis)) % 4 for axis in axes} != {2, 3}:
            raise trace.refuse(node, "a mean over other axes than height and width")
        rows, columns = 1, 1
    else:
        rows, columns = _pair(node.args[1])
    if height % rows or width % columns:
        raise trace.refuse(node, f"adaptive pooling of {height}x{width} to {rows}x{columns}")
    kernel = (height // rows, width // columns)
    if kernel == (1, 1) and _shape(node) == _shape(source):
        trace.standing_for[node.name] = trace.source(source)
    else:
        _add_pool(trace, node, Kind.AVERAGE_POOL, kernel, kernel, (0, 0))


def _add_pool(
    trace: _Trace, node: Node, kind: Kind, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:  # fmt: skip
    source = node.args[0]
    assert isinstance(source, Node)
    in_shape, out_shape = _map_shape(trace, source, node), _shape(node)
    trace.add(
        node,
        Layer(
            name=_next_name(trace, "pool"),
            kind=kind,
            source=trace.source(source),
            in_shape=in_shape,
            out_shape=out_shape,
            kernel=kernel,
            stride=stride,
            padding=padding,
            groups=in_shape[0],
        ),
    )


def _flatten(trace: _Trace, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    in_shape, out_shape = _shape(source), _shape(node)
    if out_shape != (prod(in_shape),):
        raise trace.refuse(node, f"a reshape from {in_shape} to {out_shape}")
    if in_shape == out_shape:
        trace.standing_for[node.name] = trace.source(source)
        return
    name = _next_name(trace, "flatten")
    trace.add(node, Layer(name, Kind.FLATTEN, trace.source(source), in_shape, out_shape))


def _identity(trace: _Trace, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    trace.standing_for[node.name] = trace.source(source)


def _dropout(trace: _Trace, node: Node) -> None:
    options = _arguments(node, input=None, probability=0.5, training=True)
    if options["training"] and options["probability"] > 0:
        raise trace.refuse(node, "dropout that stays active in evaluation mode")
    _identity(trace, node)


def _mark_pooled_output(trace: _Trace) -> None:
    """Give neurons to a global average pooling whose output is the network's."""
    last = next(reversed(trace.layers.values()), None)
    if last is not None and last.kind is Kind.FLATTEN:
        last = trace.layers.get(last.source)
    if last is None or last.kind is not Kind.AVERAGE_POOL:
        return
    if last.kernel == last.in_shape[1:]:
        trace.layers[last.name] = replace(last, has_neurons=True)


_HANDLERS: dict[Any, Callable[[_Trace, Node], None]] = {
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.max_pool2d.default: _pool,
    aten.avg_pool2d.default: _pool,
    aten.adaptive_avg_pool2d.default: _global_pool,
    aten.mean.dim: _global_pool,
    aten.flatten.using_ints: _flatten,
    aten.view.default: _flatten,
    aten.reshape.default: _flatten,
    aten.dropout.default: _dropout,
    aten.dropout_.default: _dropout,
    aten.contiguous.default: _identity,
}
