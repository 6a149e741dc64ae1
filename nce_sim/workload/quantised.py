"""Networks in float16 and int8, in float32 tensors that hold values of those formats.

Both compute the sums of a layer first and then what is stored, by the one definition that a
single lane's sum meets too (`finish_sums`).

int8 is symmetric post-training quantisation with zero point 0: one step for each output channel's
weights and one for each layer's activations. Operands are whole numbers from -127 to 127 (a fault
may make -128), sums are int32 modulo 2^32, biases whole numbers of input step x weight step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx
import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.errors import InputError
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import Executable, linear_part, rectify, run_layer
from nce_sim.workload.graph import Parameters, Workload
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.layout import fast_layout

LARGEST = 127
"""Operands are rounded to -127..127."""

MOST = 128
"""Largest magnitude that a fault can give an int8 operand."""

EXACT = 2**24
"""Below it, float32 adds whole numbers exactly, whatever their order."""

LARGEST_BIAS = 2**22
"""Of a channel whose bias is larger in its units, the weights get a coarser step."""


@dataclass(frozen=True)
class SumsFirst(Executable):
    """An executable that turns a layer's sums into its outputs by `finish_sums`."""

    def run_part(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Return the stored outputs of one layer (images x its shape)."""
        match layer.kind:
            case Kind.CONV2D | Kind.LINEAR | Kind.AVERAGE_POOL:
                return self.finish_sums(layer, self.sums(layer, inputs[0]))
            case Kind.ADD | Kind.ACTIVATION:
                return self.stored(layer, run_layer(layer, None, *inputs))
            case _:
                return run_layer(layer, None, *inputs)

    def sums(self, layer: Layer, inputs: Tensor) -> Tensor:
        """Return the layer's sums in float32, the bias included (images x its shape)."""
        if layer.kind is Kind.AVERAGE_POOL:
            return window_sums(layer, inputs)
        held = self.parameters[layer.name]
        return linear_part(layer, held.weight, held.bias, inputs)


def window_sums(layer: Layer, inputs: Tensor) -> Tensor:
    """Return the sums over an average pooling's windows."""
    sums = functional.avg_pool2d(
        inputs, layer.kernel, layer.stride, layer.padding, divisor_override=1
    )
    return sums.flatten(1) if len(layer.out_shape) == 1 else sums


@dataclass(frozen=True)
class Float16Executable(SumsFirst):
    """Operands and outputs rounded to fp16, beyond 65504 to infinity; sums and biases in fp32."""

    def images(self, images: Tensor) -> Tensor:
        """Return images rounded to fp16, on this device and in its memory format."""
        return to_half(super().images(images))

    def finish_sums(self, layer: Layer, sums: Tensor, channels: Tensor | None = None) -> Tensor:
        """Divide by the window if pooling, rectify, round."""
        return to_half(super().finish_sums(layer, sums, channels))

    def stored(self, layer: Layer, values: Tensor) -> Tensor:  # noqa: ARG002
        """Return `values` rounded to fp16."""
        return to_half(values)


def to_half(values: Tensor) -> Tensor:
    """Round to fp16 and hold the result in float32."""
    return values.half().float()


def prepare_float16(network: Workload, device: torch.device) -> Float16Executable:
    """Round the weights to fp16; raise InputError if one lies beyond its range."""
    laid_out = {}
    for name, held in network.parameters.items():
        weight = to_half(held.weight)
        if not weight.isfinite().all():
            raise InputError(f"layer {name} has weights that float16 cannot hold (beyond 65504)")
        bias = None if held.bias is None else held.bias.to(device)
        laid_out[name] = Parameters(fast_layout(weight.to(device)), bias)
    return Float16Executable(network, torch.float32, device, laid_out, "float16")


@dataclass(frozen=True)
class Int8Executable(SumsFirst):
    """Whole numbers of steps; `steps` by name of step of the machine, and of the input.

    A layer that no other one with neurons depends on, as the last, is read out as the 32 bits of
    its sums: its outputs are real numbers, float32(sum) x input step x weight step (or / window),
    so that the argmax meets no ties that rounding to 8 bits would make. Its step is 1, and so are
    those of layers after it.
    `factors` turn a layer's sums into its steps, one for each channel; for pooling, one number
    turns means into steps. `source_steps` are those of what a layer reads, source by source.
    A layer's parameters are in float32 where all its sums are exact in it, else in float64.
    """

    steps: Mapping[str, float]
    source_steps: Mapping[str, tuple[float, ...]]
    factors: Mapping[str, Tensor]
    real: frozenset[str]

    def step(self, name: str) -> float:
        """Return what one unit of the stored outputs of a layer, or of the input, stands for."""
        return self.steps[self.network.finished_by.get(name, name)]

    def run_part(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Return the stored outputs of one layer (images x its shape).

        Branches are added as real numbers, float32(word) x step, before the non-linearity.
        """
        if layer.kind in (Kind.CONV2D, Kind.LINEAR, Kind.AVERAGE_POOL):
            return super().run_part(layer, *inputs)
        own, steps = self.steps[layer.name], self.source_steps[layer.name]
        if all(step == own for step in steps) and layer.kind not in (Kind.ADD, Kind.ACTIVATION):
            return run_layer(layer, None, *inputs)
        values = (each * step for each, step in zip(inputs, steps, strict=True))
        return self.stored(layer, run_layer(layer, None, *values).div_(own))

    def is_read_out(self, layer: Layer) -> bool:
        """Tell whether a layer's outputs are its sums as real numbers, not words of the format."""
        return layer.name in self.real

    def images(self, images: Tensor) -> Tensor:
        """Return images as whole numbers of the input's step."""
        return saturate(super().images(images) / self.steps[INPUT])

    def stored(self, layer: Layer, values: Tensor) -> Tensor:
        """Round and saturate, except for what is read out as a sum."""
        return values if layer.name in self.real else saturate(values)

    def sums(self, layer: Layer, inputs: Tensor) -> Tensor:
        """Return float32 of the layer's int32 sums."""
        if layer.source in self.real:
            return super().sums(layer, inputs)  # a pooling of what was read out
        if layer.kind is not Kind.AVERAGE_POOL:
            inputs = inputs.to(self.parameters[layer.name].weight.dtype)
        elif layer.window * MOST >= EXACT:
            inputs = inputs.double()
        sums = super().sums(layer, inputs)
        # In float64 sums are exact to 2^53; an int32 keeps their low 32 bits.
        return sums if sums.dtype is torch.float32 else sums.round().long().int().float()

    def finish_sums(self, layer: Layer, sums: Tensor, channels: Tensor | None = None) -> Tensor:
        """Requantise by the channel's float32 factor, rectify, round half to even, saturate."""
        factor = self.factors[layer.name]
        if factor.dim() > 0:
            by_channel = (-1, *[1] * (len(layer.out_shape) - 1))
            factor = factor.view(by_channel) if channels is None else factor[channels]
        if layer.activation is None:
            values = super().finish_sums(layer, sums, channels).mul_(factor)
        else:  # a curve bends at real numbers
            step = self.steps[layer.name]
            values = rectify(layer, sums.to(self.dtype) * (factor * step)) / step
        return values if layer.name in self.real else saturate(values)


def saturate(values: Tensor) -> Tensor:
    """Round to whole numbers from -127 to 127, in place."""
    return values.round_().clamp_(-LARGEST, LARGEST)


def sums_are_exact(bound: float, device: torch.device) -> bool:
    """Tell whether float32 adds whole numbers exactly whose magnitudes sum to `bound`.

    Below 2^24 any order of the additions is exact. Kernels that transform their operands first
    (Winograd's) are not; oneDNN's direct convolution on a CPU is.
    """
    return bound < EXACT and device.type == "cpu" and torch.backends.mkldnn.is_available()


def prepare_int8(
    network: Workload, device: torch.device, calibration: Calibration | None
) -> Int8Executable:
    """Quantise activations by `calibration`, and weights and biases; InputError without one."""
    if calibration is None:
        raise InputError(
            "precision int8 needs a calibration: make one with calibrate(network, images) on "
            "training images, and pass it as calibration=..."
        )
    real = read_out(network.in_steps)
    steps = activation_steps(network.in_steps, calibration, real)
    laid_out, factors, source_steps = {}, {}, {}
    for layer in network.in_steps.layers:
        source_steps[layer.name] = tuple(steps[source] for source in layer.sources)
        ratio = steps[layer.source] / steps[layer.name]
        if layer.name not in network.parameters:
            factors[layer.name] = torch.tensor(ratio, dtype=torch.float32, device=device)
            continue
        whole, weight_steps = quantise(network.parameters[layer.name], steps[layer.source])
        laid_out[layer.name] = lay_out(whole, device)
        factors[layer.name] = (weight_steps * ratio).to(device, torch.float32)
    return Int8Executable(
        network, torch.float32, device, laid_out, "int8", steps, source_steps, factors, real
    )  # fmt: skip


def activation_steps(
    network: Workload, calibration: Calibration, real: frozenset[str]
) -> dict[str, float]:
    """Return the steps of the input and of all layers of a network in steps.

    Layers with neurons and additions have steps of their own. Others keep their sources': what is
    joined needs one step, so that all that comes together there has that of the largest range.
    A layer that was always zero gets step 1.
    """
    alike = networkx.Graph()
    alike.add_nodes_from([INPUT, *(layer.name for layer in network.layers)])
    for layer in network.layers:
        if not (layer.has_neurons or layer.kind is Kind.ADD or layer.name in real):
            alike.add_edges_from((layer.name, source) for source in layer.sources)
    steps = dict.fromkeys(real, 1.0)
    for group in networkx.connected_components(alike):
        largest = max(calibration.ranges.get(name, 0.0) for name in group)
        steps |= dict.fromkeys(group - real, largest / LARGEST or 1.0)
    return steps


def read_out(network: Workload) -> frozenset[str]:
    """Return the layers of a network that no later layer with neurons depends on."""
    neurons = {layer.name for layer in network.neuron_layers}
    needed = {INPUT}.union(*(networkx.ancestors(network.graph, name) for name in neurons))
    return frozenset(layer.name for layer in network.layers if layer.name not in needed)


def quantise(held: Parameters, input_step: float) -> tuple[Parameters, Tensor]:
    """Return whole weights and biases, and each channel's weight step; all in float64.

    The step is the largest weight / 127, or coarser if the bias would exceed 2^22 units.
    """
    weight = held.weight.double().cpu()
    bias = torch.zeros(len(weight)) if held.bias is None else held.bias
    bias = bias.double().cpu() / input_step
    steps = torch.maximum(weight.flatten(1).abs().amax(1) / LARGEST, bias.abs() / LARGEST_BIAS)
    steps[steps == 0] = 1.0
    whole = (weight / steps.view(-1, *[1] * (weight.dim() - 1))).round_()
    return Parameters(whole, (bias / steps).round_()), steps


def lay_out(whole: Parameters, device: torch.device) -> Parameters:
    """Return the parameters in float32 if all of the layer's sums are exact in it, else float64."""
    assert whole.bias is not None
    bounds = whole.weight.flatten(1).abs().sum(1) * MOST + whole.bias.abs()
    dtype = torch.float32 if sums_are_exact(float(bounds.max()), device) else torch.float64
    return Parameters(
        fast_layout(whole.weight.to(device, dtype)), whole.bias.to(device, dtype)
    )  # fmt: skip
