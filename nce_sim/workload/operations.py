"""How each operation that torch.export traces becomes a layer, or a part of the layer before it."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nce_sim.workload.activations import Activation, Curve
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import Kind, Layer
from nce_sim.workload.trace import Trace, arguments, map_shape, pair, shape_of

aten = torch.ops.aten

Handler = Callable[[Trace, Node], None]


def _convolution(trace: Trace, node: Node) -> None:
    options = arguments(
        node, input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    weight = trace.tensor(options["weight"], node)
    source = trace.source(options["input"], node)
    in_shape = map_shape(trace, options["input"], node)
    kernel, dilation = pair(list(weight.shape[2:])), pair(options["dilation"])
    padding = options["padding"]
    if padding == "same":
        spans = [reach * (size - 1) for reach, size in zip(dilation, kernel, strict=True)]
        padding = [span // 2 for span in spans]
        if any(span % 2 for span in spans):
            # As torch has it, the odd row and column of zeros come last.
            (above, left), (down, across) = padding, spans
            margins = (above, down - above, left, across - left)
            source = _add_padding(trace, node, source, in_shape, margins)
            in_shape, padding = trace.layers[source].out_shape, 0
    elif padding == "valid":
        padding = 0
    padding = pair(padding)
    before = trace.layers.get(source)
    if before is not None and before.kind is Kind.PAD and _is_even(before.margins):
        padding = (padding[0] + before.margins[0], padding[1] + before.margins[2])
        source, in_shape = before.source, before.in_shape
    layer = Layer(
        name=trace.next_name("conv"),
        kind=Kind.CONV2D,
        source=source,
        in_shape=in_shape,
        out_shape=shape_of(node),
        kernel=kernel,
        stride=pair(options["stride"]),
        padding=padding,
        dilation=dilation,
        groups=int(options["groups"]),
        has_neurons=True,
    )
    _add_with_parameters(trace, node, layer, weight, options["bias"])


def _is_even(margins: tuple[int, int, int, int]) -> bool:
    top, bottom, left, right = margins
    return top == bottom >= 0 and left == right >= 0


def _linear(trace: Trace, node: Node) -> None:
    options = arguments(node, input=None, weight=None, bias=None)
    if len(shape_of(options["input"])) != 1:
        raise trace.refuse(node, "a linear layer on more than one vector an image")
    layer = Layer(
        name=trace.next_name("fc"),
        kind=Kind.LINEAR,
        source=trace.source(options["input"], node),
        in_shape=shape_of(options["input"]),
        out_shape=shape_of(node),
        has_neurons=True,
    )
    weight = trace.tensor(options["weight"], node)
    _add_with_parameters(trace, node, layer, weight, options["bias"])


def _add_with_parameters(
    trace: Trace, node: Node, layer: Layer, weight: Tensor, bias: Node | None
) -> None:
    trace.add(node, layer)
    trace.parameters[layer.name] = Parameters(
        weight.float(), None if bias is None else trace.tensor(bias, node).float()
    )


def _ends_in_sums(trace: Trace, node: Node) -> bool:
    """Tell whether `node` is the sums of a layer with weights that nothing else reads."""
    layer = trace.layers.get(trace.standing_for[node.name])
    return (
        layer is not None
        and layer.is_linear
        and not layer.relu
        and layer.activation is None
        and trace.is_only_reader(node)
    )


def _batch_norm(trace: Trace, node: Node) -> None:
    """Fold y = (x - mean) / sqrt(variance + eps) * scale + shift into the layer before it."""
    options = arguments(
        node, input=None, scale=None, shift=None, mean=None, variance=None, training=False,
        momentum=0.1, eps=1e-5, cudnn=False,
    )  # fmt: skip
    source = trace.source(options["input"], node)
    if not _ends_in_sums(trace, options["input"]) or trace.layers[source].others:
        raise trace.refuse(
            node, "BatchNorm that does not directly follow a convolution or linear layer, which "
            "nothing else reads"
        )  # fmt: skip
    layer = trace.layers[source]
    if options["training"] or options["mean"] is None or options["variance"] is None:
        raise trace.refuse(node, "BatchNorm with the statistics of the batch: it needs stored ones")

    old = trace.parameters[layer.name]

    def tensor(key: str, default: float) -> Tensor:
        if options[key] is None:
            return old.weight.new_full((layer.channels,), default)
        return trace.tensor(options[key], node).float()

    factor = tensor("scale", 1.0) / torch.sqrt(tensor("variance", 1.0) + options["eps"])
    bias = old.weight.new_zeros(layer.channels) if old.bias is None else old.bias
    trace.parameters[layer.name] = Parameters(
        old.weight * factor.view(-1, *[1] * (old.weight.dim() - 1)),
        (bias - tensor("mean", 0.0)) * factor + tensor("shift", 0.0),
    )
    trace.standing_for[node.name] = layer.name


def _relu(trace: Trace, node: Node) -> None:
    _activate(trace, node, Activation(Curve.RELU))


def _relu6(trace: Trace, node: Node) -> None:
    _activate(trace, node, Activation(Curve.RELU6))


def _silu(trace: Trace, node: Node) -> None:
    _activate(trace, node, Activation(Curve.SILU))


def _leaky_relu(trace: Trace, node: Node) -> None:
    slope = float(arguments(node, input=None, slope=0.01)["slope"])
    _activate(trace, node, Activation(Curve.LEAKY_RELU, slope))


def _gelu(trace: Trace, node: Node) -> None:
    exact = arguments(node, input=None, approximate="none")["approximate"] == "none"
    _activate(trace, node, Activation(Curve.GELU if exact else Curve.GELU_TANH))


def _clamp(trace: Trace, node: Node) -> None:
    """Take a clamp for what it is: ReLU from 0 on, ReLU6 from 0 to 6."""
    low, high = (-1.0, 1.0) if "hardtanh" in str(node.target) else (None, None)
    options = arguments(node, input=None, low=low, high=high)
    low = options.get("min", options.get("min_val", options["low"]))
    high = options.get("max", options.get("max_val", options["high"]))
    bounds = (-inf if low is None else low, inf if high is None else high)
    curves = {(0, inf): Curve.RELU, (0, 6): Curve.RELU6}
    if bounds not in curves:
        raise trace.refuse(node, f"{node.target} from {low} to {high}: only ReLU and ReLU6 clamp")
    _activate(trace, node, Activation(curves[bounds]))


def _activate(trace: Trace, node: Node, activation: Activation) -> None:
    """End the layer before `node` with a non-linearity; if that cannot be, make it a layer.

    One that never falls may as well come before a max pooling as after it.
    """
    source = node.args[0]
    name = trace.source(source, node)
    place: Any = source
    while activation.rises and _is_pooled_alone(trace, place):
        place = trace.made_by[trace.standing_for[place.name]].args[0]
    target = trace.layers.get(trace.standing_for[place.name])
    ends: dict[str, Any] = (
        {"relu": True} if activation.curve is Curve.RELU else {"activation": activation}
    )
    if target is not None and (_ends_in_sums(trace, place) or _is_sum(trace, place)):
        trace.layers[target.name] = replace(target, **ends)
        trace.standing_for[node.name] = name
    elif activation.curve is Curve.RELU and not trace.is_signed(name):
        trace.standing_for[node.name] = name
    else:
        shape, own = shape_of(node), trace.next_name("activation")
        layer = Layer(own, Kind.ACTIVATION, name, shape, shape, **ends)
        trace.add(node, layer)


def _is_pooled_alone(trace: Trace, node: Node) -> bool:
    layer = trace.layers.get(trace.standing_for[node.name])
    return layer is not None and layer.kind is Kind.MAX_POOL and trace.is_only_reader(node)


def _is_sum(trace: Trace, node: Node) -> bool:
    """Tell whether `node` is an addition of its own that has no non-linearity yet."""
    layer = trace.layers[trace.standing_for[node.name]]
    plain = layer.kind is Kind.ADD and not layer.relu and layer.activation is None
    return plain and trace.is_only_reader(node)


def _max_pool(trace: Trace, node: Node) -> None:
    options = arguments(
        node, input=None, kernel=None, stride=None, padding=0, dilation=1, ceil_mode=False
    )
    if pair(options["dilation"]) != (1, 1):
        raise trace.refuse(node, f"{node.target} with dilation")
    _pool(trace, node, Kind.MAX_POOL, options)


def _average_pool(trace: Trace, node: Node) -> None:
    options = arguments(
        node, input=None, kernel=None, stride=None, padding=0, ceil_mode=False, counted=True,
        divisor=None,
    )  # fmt: skip
    options["counted"] = options.get("count_include_pad", options["counted"])
    options["divisor"] = options.get("divisor_override", options["divisor"])
    if options["divisor"] is not None or (
        not options["counted"] and pair(options["padding"]) != (0, 0)
    ):
        raise trace.refuse(
            node, f"{node.target} that divides by another number than its window's elements"
        )
    _pool(trace, node, Kind.AVERAGE_POOL, options)


def _pool(trace: Trace, node: Node, kind: Kind, options: Mapping[str, Any]) -> None:
    kernel = pair(options.get("kernel_size", options["kernel"]))
    stride = pair(options["stride"]) if options["stride"] else kernel
    padding = pair(options["padding"])
    sizes = map_shape(trace, options["input"], node)[1:]
    whole = tuple(
        (size + 2 * zeros - tall) // step + 1
        for size, zeros, tall, step in zip(sizes, padding, kernel, stride, strict=True)
    )
    if whole != shape_of(node)[1:]:
        raise trace.refuse(node, f"{node.target} with ceil_mode, whose last windows are cut off")
    _add_pool(trace, node, kind, kernel, stride, padding)


def _adaptive_pool(trace: Trace, node: Node) -> None:
    """Adaptive pooling that divides its input evenly."""
    rows, columns = pair(node.args[1])
    maximum = node.target is aten.adaptive_max_pool2d.default
    _pool_to(trace, node, rows, columns, Kind.MAX_POOL if maximum else Kind.AVERAGE_POOL)


def _mean(trace: Trace, node: Node) -> None:
    """Return the mean over height and width: global average pooling."""
    axes = node.args[1] if isinstance(node.args[1], list | tuple) else ()
    if {int(str(axis)) % 4 for axis in axes} != {2, 3}:
        raise trace.refuse(node, "a mean over other axes than height and width")
    _pool_to(trace, node, 1, 1, Kind.AVERAGE_POOL)


def _pool_to(trace: Trace, node: Node, rows: int, columns: int, kind: Kind) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    in_shape = map_shape(trace, source, node)
    _, height, width = in_shape
    if height % rows or width % columns:
        raise trace.refuse(node, f"adaptive pooling of {height}x{width} to {rows}x{columns}")
    kernel = (height // rows, width // columns)
    if kernel == (1, 1) and isinstance(node.meta["val"], Tensor) and shape_of(node) == in_shape:
        trace.standing_for[node.name] = trace.source(source, node)
    else:
        _add_pool(trace, node, kind, kernel, kernel, (0, 0))


def _add_pool(
    trace: Trace, node: Node, kind: Kind, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:  # fmt: skip
    source = node.args[0]
    assert isinstance(source, Node)
    in_shape = map_shape(trace, source, node)
    both = node.meta["val"]
    values = both if isinstance(both, Tensor) else both[0]
    trace.add(
        node,
        Layer(
            name=trace.next_name("pool"),
            kind=kind,
            source=trace.source(source, node),
            in_shape=in_shape,
            out_shape=tuple(int(size) for size in values.shape[1:]),
            kernel=kernel,
            stride=stride,
            padding=padding,
            groups=in_shape[0],
        ),
    )


def _first_of(trace: Trace, node: Node) -> None:
    """Take the values of what returns values and their places."""
    if node.args[1] != 0:
        raise trace.refuse(node, "the places of the largest values")
    _identity(trace, node)


def _add(trace: Trace, node: Node) -> None:
    """Add two branches; the convolution or linear layer that closes the block takes the rest in.

    Of two that could, it is the one farther from the input, of equally far ones the first: a
    projection shortcut keeps neurons of its own.
    """
    options = arguments(node, input=None, other=None, alpha=1)
    branches = [options["input"], options["other"]]
    names = [trace.source(branch, node) for branch in branches]
    if options["alpha"] != 1:
        raise trace.refuse(node, f"an addition with a factor (alpha={options['alpha']})")
    if any(shape_of(branch) != shape_of(node) for branch in branches):
        shapes = " and ".join(str(shape_of(branch)) for branch in branches)
        raise trace.refuse(node, f"an addition of unlike shapes ({shapes})")
    able = [
        place for place in (0, 1) if names[0] != names[1] and _ends_in_sums(trace, branches[place])
    ]
    if not able:
        shape, own = shape_of(node), trace.next_name("add")
        trace.add(
            node,
            Layer(
                own, Kind.ADD, names[0], shape, shape, groups=shape[0], others=(names[1],)
            ),
        )  # fmt: skip
        return
    closing = max(able, key=lambda place: trace.depth(names[place]))
    layer = trace.layers.pop(names[closing])
    trace.add(node, replace(layer, others=(*layer.others, names[1 - closing])))


def _concatenate(trace: Trace, node: Node) -> None:
    options = arguments(node, tensors=(), dim=0)
    branches = list(options["tensors"])
    names = [trace.source(branch, node) for branch in branches]
    if int(options["dim"]) % (len(shape_of(node)) + 1) != 1:
        raise trace.refuse(node, f"concatenation along axis {options['dim']}: only along channels")
    if len(branches) == 1:
        trace.standing_for[node.name] = names[0]
        return
    layer = Layer(
        name=trace.next_name("concat"),
        kind=Kind.CONCAT,
        source=names[0],
        in_shape=shape_of(branches[0]),
        out_shape=shape_of(node),
        others=tuple(names[1:]),
    )
    trace.add(node, layer)


def _pad(trace: Trace, node: Node) -> None:
    options = arguments(node, input=None, pad=(), mode="constant", value=None)
    if options["mode"] != "constant" or options["value"] not in (None, 0, 0.0):
        raise trace.refuse(
            node, f"{node.target} with {options['mode']} {options['value'] or ''}: only with zeros"
        )
    in_shape = map_shape(trace, options["input"], node)
    sizes = [int(size) for size in options["pad"]]
    if any(sizes[4:]):
        raise trace.refuse(node, "padding of channels")
    left, right, top, bottom = (sizes + [0] * 4)[:4]
    source = trace.source(options["input"], node)
    name = _add_padding(trace, node, source, in_shape, (top, bottom, left, right))
    trace.standing_for[node.name] = name


def _add_padding(
    trace: Trace, node: Node, source: str, in_shape: tuple[int, ...],
    margins: tuple[int, int, int, int],
) -> str:  # fmt: skip
    """Add a layer of zeros around `source` and return its name."""
    top, bottom, left, right = margins
    channels, height, width = in_shape
    out_shape = (channels, height + top + bottom, width + left + right)
    layer = Layer(
        trace.next_name("pad"), Kind.PAD, source, in_shape, out_shape, groups=channels,
        margins=margins,
    )  # fmt: skip
    trace.add(node, layer)
    return layer.name


def _reshape(trace: Trace, node: Node) -> None:
    """Give a map or a vector another shape; its elements keep their order."""
    source = node.args[0]
    assert isinstance(source, Node)
    name = trace.source(source, node)
    _add_reshape(trace, node, name, shape_of(source))


def _add_reshape(trace: Trace, node: Node, source: str, in_shape: tuple[int, ...]) -> None:
    out_shape = shape_of(node)
    if prod(in_shape) != prod(out_shape) or not 1 <= len(out_shape) <= 3:
        raise trace.refuse(node, f"a reshape from {in_shape} to {out_shape}")
    before = trace.layers.get(source)
    if before is not None and before.kind is Kind.FLATTEN:
        source, in_shape = before.source, before.in_shape
    if in_shape == out_shape:
        trace.standing_for[node.name] = source
        return
    name = trace.next_name("flatten")
    trace.add(node, Layer(name, Kind.FLATTEN, source, in_shape, out_shape))


def _permute(trace: Trace, node: Node) -> None:
    """Note the order of axes; one that comes back, or moves axes of one element, does nothing."""
    source = node.args[0]
    assert isinstance(source, Node)
    if source.name not in trace.standing_for:
        trace.source(source, node)
    size = len(source.meta["val"].shape)
    axes: Any = node.args[1] if node.target is aten.permute.default else node.args[1:3]
    order = [int(axis) % size for axis in axes]
    if node.target is aten.transpose.int:
        one, other = order
        order = list(range(size))
        order[one], order[other] = order[other], order[one]
    before = trace.orders.get(source.name, tuple(range(size)))
    after = tuple(before[axis] for axis in order)
    name = trace.standing_for[source.name]
    trace.standing_for[node.name] = name
    shape = node.meta["val"].shape
    moved = [axis for place, axis in enumerate(after) if place == 0 or shape[place] != 1]
    if after == tuple(range(size)):
        return
    if after[0] == 0 and moved == sorted(moved):
        in_shape = [0] * size
        for place, axis in enumerate(after):
            in_shape[axis] = int(shape[place])
        _add_reshape(trace, node, name, tuple(in_shape[1:]))
    else:
        trace.orders[node.name] = after


def _identity(trace: Trace, node: Node) -> None:
    trace.standing_for[node.name] = trace.source(node.args[0], node)


def _number_of_images(trace: Trace, node: Node) -> None:
    """Leave out the only size that may be dynamic: what a reshape reads of it changes nothing."""


def _to(trace: Trace, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    if source.meta["val"].dtype is not node.meta["val"].dtype:
        raise trace.refuse(node, f"a conversion to {node.meta['val'].dtype}")
    _identity(trace, node)


def _dropout(trace: Trace, node: Node) -> None:
    options = arguments(node, input=None, probability=0.5, training=True)
    if options["training"] and options["probability"] > 0:
        raise trace.refuse(node, "dropout that stays active in evaluation mode")
    _identity(trace, node)


RESHAPES = (
    aten.flatten.using_ints, aten.unflatten.int, aten.view.default, aten.reshape.default,
    aten._unsafe_view.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default,
)  # fmt: skip
PERMUTATIONS = (aten.permute.default, aten.transpose.int)
DROPOUTS = (
    aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default,
    aten.feature_dropout_.default, aten.alpha_dropout.default,
)  # fmt: skip
IDENTITIES = (
    aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default,
    aten.detach_.default,
)  # fmt: skip

VIEWS = frozenset((*RESHAPES, *PERMUTATIONS, *DROPOUTS, *IDENTITIES))
"""Operations whose result may lie where their input does."""

HANDLERS: Mapping[Any, Handler] = {
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.relu6.default: _relu6,
    aten.relu6_.default: _relu6,
    aten.hardtanh.default: _clamp,
    aten.hardtanh_.default: _clamp,
    aten.clamp.default: _clamp,
    aten.clamp_.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_min_.default: _clamp,
    aten.leaky_relu.default: _leaky_relu,
    aten.leaky_relu_.default: _leaky_relu,
    aten.silu.default: _silu,
    aten.silu_.default: _silu,
    aten.gelu.default: _gelu,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.adaptive_max_pool2d.default: _adaptive_pool,
    aten.mean.dim: _mean,
    operator.getitem: _first_of,
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add,
    aten.cat.default: _concatenate,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.to.dtype: _to,
    aten.sym_size.int: _number_of_images,
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(PERMUTATIONS, _permute),
    **dict.fromkeys(DROPOUTS, _dropout),
    **dict.fromkeys(IDENTITIES, _identity),
}
"""What turns each operation into a layer, or into a part of the one before it."""
