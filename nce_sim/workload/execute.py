"""Run a captured network layer by layer, in a machine's number format, without touching its module.

A layer's outputs follow from its lanes' sums (accumulators): `Executable.finish` says how.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nce_sim.errors import InputError
from nce_sim.workload.activations import Curve
from nce_sim.workload.formats import FORMATS, NumberFormat, Sums
from nce_sim.workload.graph import Parameters, Workload
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.layout import fast_layout

if TYPE_CHECKING:
    from nce_sim.workload.calibration import Calibration

Precision = str
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
PRECISION_OF_FORMAT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
"""The precision in which a network runs in the number format of a machine."""

OutputHook = Callable[[Layer, Tensor, Tensor], Tensor]
"""Receives each neuron layer with its inputs (those of its first source) and its output (images x
the layer's shapes); returns the output that goes on. It may overwrite the output that it gets, but
not the inputs."""


def has_fast_bfloat16() -> bool:
    """Tell whether this processor has instructions for products of bfloat16.

    AMX multiplies whole matrices; AVX-512 BF16 does two products where float32 does one.
    """
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True)
class Executable:
    """A network with its parameters laid out for one precision and device.

    Tensors have type `dtype` and hold values of `format`: float32 and bfloat16 here;
    `nce_sim.workload.quantised` has the executables of float16 and int8, both in float32 tensors.
    Only in int8 are stored outputs in other units than the network's: `step` has their size.
    """

    network: Workload
    dtype: torch.dtype
    device: torch.device
    parameters: Mapping[str, Parameters]
    precision: Precision

    @property
    def format(self) -> NumberFormat:
        """The number format of operands, outputs and sums."""
        names = {precision: name for name, precision in PRECISION_OF_FORMAT.items()}
        return FORMATS[names[self.precision]]

    @property
    def in_steps(self) -> "Executable":
        """The same network, with its layers as the machine takes them: `Workload.in_steps`."""
        return replace(self, network=self.network.in_steps)

    def images(self, images: Tensor) -> Tensor:
        """Return images in this executable's precision, device and memory format."""
        return fast_layout(images.to(self.device, self.dtype))

    def run_layer(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Return the stored outputs of one layer (images x its shape) from those of its sources.

        One that closes a residual block stores its sums before the other branches are added.
        """
        if not layer.closes_block:
            return self.run_part(layer, *inputs)
        sums, addition = layer.parts
        return self.run_part(addition, self.run_part(sums, inputs[0]), *inputs[1:])

    def run_part(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Do `run_layer` for a layer that closes no residual block."""
        return run_layer(layer, self.parameters.get(layer.name), *inputs)

    def step(self, name: str) -> float:  # noqa: ARG002
        """Return what one unit of the stored outputs of a layer, or of the input, stands for."""
        return 1.0

    def is_read_out(self, layer: Layer) -> bool:  # noqa: ARG002
        """Tell whether a layer's outputs are its sums as real numbers, not words of the format."""
        return False

    def stored(self, layer: Layer, values: Tensor) -> Tensor:  # noqa: ARG002
        """Return what `layer`'s outputs become when `values`, in their units, are stored."""
        return values

    def lane_weights(self, layer: Layer) -> NDArray[np.float32] | None:
        """Return the weights channels x K on the format's grid; None for a layer without any.

        A channel's K weights are in the order in which its lanes meet them: input channel within
        the group, row, column of the kernel.
        """
        if layer.name not in self.parameters:
            return None
        return self.parameters[layer.name].weight.float().flatten(1).cpu().numpy()

    def lane_bias(self, layer: Layer) -> Sums:
        """Return what the sum of a lane starts from, for each channel, of the sums' type."""
        held = self.parameters.get(layer.name)
        if held is None or held.bias is None:
            return self.format.as_sums(np.zeros(layer.channels))
        return self.format.as_sums(held.bias.double().cpu().numpy())

    def finish(
        self, layer: Layer, sums: Sums, channels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Return the stored outputs of neurons whose lanes end with `sums`.

        `layer` is a convolution, a linear layer or an average pooling. `sums` is of the sums'
        type, any shape; `channels`, the output channel of each, is of the same shape.
        """
        with torch.inference_mode():
            ends = torch.from_numpy(self.format.as_sums(sums)).to(self.device)
            places = torch.from_numpy(np.array(channels, np.int64)).to(self.device)
            outputs = self.finish_sums(layer, ends, places)
        return outputs.float().cpu().numpy()

    def finish_sums(
        self,
        layer: Layer,
        sums: Tensor,
        channels: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Do `finish` on tensors, maybe in place.

        Without `channels`, `sums` are all of the layer's: images x its shape.
        """
        means = sums / layer.window if layer.kind is Kind.AVERAGE_POOL else sums
        return rectify(layer, means.to(self.dtype))


def prepare(
    network: Workload,
    precision: Precision,
    device: str = "cpu",
    calibration: "Calibration | None" = None,
) -> Executable:
    """Lay the parameters of `network` out for `precision`, one of PRECISIONS.

    "float64", which no machine has, is for checks of what is computed in float32.
    "int8" needs a calibration; the others leave it unused.
    Raises InputError if it is missing or another network's, and for weights beyond float16.
    """
    if calibration is not None:
        calibration.check(network)
    target = torch.device(device)
    if precision in ("float16", "int8"):
        from nce_sim.workload.quantised import prepare_float16, prepare_int8

        if precision == "float16":
            return prepare_float16(network, target)
        return prepare_int8(network, target, calibration)
    dtype = {
        "float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64,
    }[precision]  # fmt: skip

    def convert(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else fast_layout(tensor.to(target, dtype))

    laid_out = {}
    for name, parameters in network.parameters.items():
        weight = convert(parameters.weight)
        assert weight is not None
        laid_out[name] = Parameters(weight, convert(parameters.bias))
    return Executable(network, dtype, target, laid_out, precision)


def run_layer(layer: Layer, parameters: Parameters | None, *inputs: Tensor) -> Tensor:
    """Return the outputs of one layer, its non-linearity included; not one that closes a block."""
    first = inputs[0]
    match layer.kind:
        case Kind.CONV2D | Kind.LINEAR:
            assert parameters is not None
            return rectify(layer, linear_part(layer, parameters.weight, parameters.bias, first))
        case Kind.MAX_POOL:
            return functional.max_pool2d(first, layer.kernel, layer.stride, layer.padding)
        case Kind.AVERAGE_POOL:
            pooled = functional.avg_pool2d(first, layer.kernel, layer.stride, layer.padding)
            return pooled.flatten(1) if len(layer.out_shape) == 1 else pooled
        case Kind.FLATTEN:
            return first.reshape(len(first), *layer.out_shape)
        case Kind.ADD:
            return rectify(layer, sum(inputs[2:], first + inputs[1]))
        case Kind.CONCAT:
            return torch.cat(inputs, 1)
        case Kind.PAD:
            top, bottom, left, right = layer.margins
            return functional.pad(first, (left, right, top, bottom))
        case Kind.ACTIVATION:
            return rectify(layer, first.clone())


def rectify(layer: Layer, outputs: Tensor) -> Tensor:
    """Apply the layer's non-linearity, maybe in place."""
    if layer.activation is not None:
        return _CURVES[layer.activation.curve](outputs, layer.activation.slope)
    return functional.relu_(outputs) if layer.relu else outputs


_CURVES: Mapping[Curve, Callable[[Tensor, float], Tensor]] = {
    Curve.RELU: lambda values, _: functional.relu(values),
    Curve.RELU6: lambda values, _: functional.relu6(values),
    Curve.LEAKY_RELU: functional.leaky_relu,
    Curve.SILU: lambda values, _: functional.silu(values),
    Curve.GELU: lambda values, _: functional.gelu(values),
    Curve.GELU_TANH: lambda values, _: functional.gelu(values, approximate="tanh"),
}


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
    known: Mapping[str, Tensor] | None = None,
    hooked: Container[str] | None = None,
) -> Tensor:
    """Run `layers` (all, if not given) on `inputs` and return the last one's output.

    `inputs` is what the first of the layers reads first, in the layout of `Executable.images`;
    `known` has what else they read of before, by name. Outputs are let go as soon as their last
    reader has run. The hook is given the layers with neurons, or those `hooked`, by name.
    """
    network = executable.network
    todo = list(network.layers if layers is None else layers)
    values = {**(known or {}), todo[0].source: inputs}
    readers = {source: position for position, layer in enumerate(todo) for source in layer.sources}
    for position, layer in enumerate(todo):
        read = [values[source] for source in layer.sources]
        output = executable.run_layer(layer, *read)
        for source in set(layer.sources):
            if readers[source] == position:
                del values[source]
        is_hooked = layer.has_neurons if hooked is None else layer.name in hooked
        if hook is not None and is_hooked:
            output = hook(layer, read[0], output)
        values[layer.name] = output
    return values[todo[-1].name]


def all_outputs(executable: Executable, inputs: Tensor) -> dict[str, Tensor]:
    """Return every layer's output by name, and the input under its own."""
    values = {INPUT: inputs}
    for layer in executable.network.layers:
        read = [values[source] for source in layer.sources]
        values[layer.name] = executable.run_layer(layer, *read)
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


def pad_places(places: Sequence[int], length: int) -> list[int]:
    """Repeat the last place as `pad_block` repeats its image."""
    return [*places, *[places[-1]] * (length - len(places))]


def check_device(device: str) -> None:
    """Raise InputError unless torch can compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as reason:
        raise InputError(
            f"device '{device}' cannot be used here ({str(reason).splitlines()[0]}): try cpu"
        ) from reason
