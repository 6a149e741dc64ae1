"""Run a captured network layer by layer, in float32 or bfloat16, without touching its module."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.errors import InputError
from nce_sim.workload.graph import Parameters, Workload
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.layout import fast_layout

Precision = str
PRECISIONS = ("float32", "bfloat16")

OutputHook = Callable[[Layer, Tensor, Tensor], Tensor]
"""Receives each neuron layer with its inputs and its output (images x the layer's shapes); returns
the output that goes on. It may overwrite the output that it gets, but not the inputs."""


def has_fast_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 matrices in hardware (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Executable:
    """A network with its parameters laid out for one precision and device."""

    network: Workload
    dtype: torch.dtype
    device: torch.device
    parameters: Mapping[str, Parameters]

    def images(self, images: Tensor) -> Tensor:
        """Return images in this executable's precision, device and memory format."""
        return fast_layout(images.to(self.device, self.dtype))


def prepare(network: Workload, precision: Precision, device: str = "cpu") -> Executable:
    """Lay the parameters of `network` out for `precision` ("float32" or "bfloat16")."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    target = torch.device(device)

    def convert(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else fast_layout(tensor.to(target, dtype))

    laid_out = {}
    for name, parameters in network.parameters.items():
        weight = convert(parameters.weight)
        assert weight is not None
        laid_out[name] = Parameters(weight, convert(parameters.bias))
    return Executable(network, dtype, target, laid_out)


def run_layer(layer: Layer, parameters: Parameters | None, inputs: Tensor) -> Tensor:
    """Return the outputs of one layer, its non-linearity included."""
    match layer.kind:
        case Kind.CONV2D | Kind.LINEAR:
            assert parameters is not None
            outputs = linear_part(layer, parameters.weight, parameters.bias, inputs)
            return functional.relu_(outputs) if layer.relu else outputs
        case Kind.MAX_POOL:
            return functional.max_pool2d(inputs, layer.kernel, layer.stride, layer.padding)
        case Kind.AVERAGE_POOL:
            pooled = functional.avg_pool2d(inputs, layer.kernel, layer.stride)
            return pooled.flatten(1) if len(layer.out_shape) == 1 else pooled
        case Kind.FLATTEN:
            return inputs.flatten(1)
        case Kind.ADD:
            raise InputError(f"layer {layer.name}: additions are scheduled, but not executed yet")


def linear_part(layer: Layer, weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    """Return weight * inputs + bias of a convolution or a fully connected layer."""
    if layer.kind is Kind.LINEAR:
        return functional.linear(inputs, weight, bias)
    return functional.conv2d(
        inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def forward(
    executable: Executable,
    inputs: Tensor,
    layers: Iterable[Layer] | None = None,
    hook: OutputHook | None = None,
) -> Tensor:
    """Run `layers` (all, if not given) on `inputs` and return the last one's output.

    `inputs` is what the first of the layers reads, in the layout of `Executable.images`. Outputs
    are let go as soon as their last reader has run.
    """
    network = executable.network
    todo = list(network.layers if layers is None else layers)
    values = {todo[0].source: inputs}
    readers = {layer.source: position for position, layer in enumerate(todo)}
    for position, layer in enumerate(todo):
        inputs = values[layer.source]
        output = run_layer(layer, executable.parameters.get(layer.name), inputs)
        if readers[layer.source] == position:
            del values[layer.source]
        if hook is not None and layer.has_neurons:
            output = hook(layer, inputs, output)
        values[layer.name] = output
    return values[todo[-1].name]


def all_outputs(executable: Executable, inputs: Tensor) -> dict[str, Tensor]:
    """Return every layer's output by name, and the input under its own."""
    values = {INPUT: inputs}
    for layer in executable.network.layers:
        parameters = executable.parameters.get(layer.name)
        values[layer.name] = run_layer(layer, parameters, values[layer.source])
    return values


def block_length(network: Workload, most: int = 64) -> int:
    """Images in a block of inference: `most`, fewer for networks of very many neurons.

    A property of the network alone, so that no result depends on workers or memory.
    """
    return max(1, min(most, 2**25 // network.neurons))


def blocks(count: int, length: int) -> Iterator[slice]:
    """Cut `count` images into blocks of `length`; the last may be shorter."""
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def pad_block(tensor: Tensor, length: int) -> Tensor:
    """Repeat the last element until the block has its full length.

    Kernels of another batch size may round differently: blocks of one size make an image's result
    independent of the images that happen to stand beside it.
    """
    missing = length - len(tensor)
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def check_device(device: str) -> None:
    """Raise InputError unless torch can compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as reason:
        raise InputError(
            f"device '{device}' cannot be used here ({str(reason).splitlines()[0]}): try cpu"
        ) from reason
