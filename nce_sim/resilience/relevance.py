"""Layer-wise relevance propagation with the z+ rule: eq. 2 of Schorn et al. (DATE 2018).

    R_j = y_j * sum_k  w+_jk / (sum_j' y_j' w+_j'k)  R_k        w+ = max(0, w)

started from the one-hot label. Biases take no part. Where a denominator is zero its relevance is
lost; nothing is added to keep it away from zero. The rule is one step back through a linear map f
with the weights w+: R = y * grad(f)(y)[R_k / f(y)], so that convolutions, fully connected layers
and average pooling share one function. Max pooling hands relevance to the winner, the first of
equals. Where inputs may be negative, contributions are max(0, y w) = y+ w+ + y- w-.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.errors import InputError
from nce_sim.workload.execute import Executable, all_outputs, linear_part, prepare, run_layer
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Layer

SMALLEST_DENOMINATOR = 1e-30


@dataclass(frozen=True)
class SignedWeights:
    """The positive part of a layer's weights, and the negative one where it is needed."""

    positive: Tensor
    negative: Tensor | None


class RelevancePropagation:
    """The relevance of every neuron for blocks of images; weights are split once, at the start.

    `precision` "float32" computes all in float32; "mixed" runs the network in float32 and the
    passes through the split weights in bfloat16. The order of the neurons is the same but for
    noise far below that of the choice of images.
    """

    def __init__(self, network: Workload, precision: str = "float32", device: str = "cpu") -> None:
        self.network = network
        self.clean = prepare(network, "float32", device)
        back = prepare(network, "bfloat16" if precision == "mixed" else "float32", device)
        self.dtype = back.dtype
        self.weights = {
            layer.name: _signed_weights(network, back, layer)
            for layer in network.layers
            if layer.name in back.parameters and layer.source != INPUT
        }

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's relevance, images x the layer's shape.

        The type is float32, or bfloat16 in mixed precision.

        `images` is a block in the layout of `Executable.images`, `labels` holds class indices.
        """
        with torch.no_grad():
            outputs = all_outputs(self.clean, images)
        relevance = functional.one_hot(labels, self.network.output.outputs).to(self.dtype)
        relevance = relevance.reshape(outputs[self.network.output.name].shape)
        found: dict[str, Tensor] = {}
        for layer in reversed(self.network.layers):
            if layer.has_neurons:
                found[layer.name] = relevance
            if layer.source == INPUT:
                break
            relevance = self._step_back(layer, outputs[layer.source], relevance)
        return found

    def _step_back(self, layer: Layer, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance of a layer's inputs from that of its outputs."""
        inputs = inputs.to(self.dtype)
        match layer.kind:
            case Kind.ADD:
                raise InputError(f"layer {layer.name}: additions are not ranked yet")
            case Kind.FLATTEN:
                return relevance.reshape(inputs.shape)
            case Kind.MAX_POOL:
                return _pull_back(lambda y: run_layer(layer, None, y), inputs, relevance)
            case Kind.AVERAGE_POOL:
                return share(
                    inputs.clamp_min(0), None, lambda y, _: run_layer(layer, None, y), relevance
                )
            case Kind.CONV2D | Kind.LINEAR:
                weights = self.weights[layer.name]
                return share(
                    inputs if weights.negative is None else inputs.clamp_min(0),
                    None if weights.negative is None else inputs.clamp_max(0),
                    lambda y, sign: linear_part(
                        layer,
                        weights.positive if sign > 0 or weights.negative is None
                        else weights.negative,
                        None, y,
                    ),
                    relevance,
                )  # fmt: skip


def share(
    positive: Tensor,
    negative: Tensor | None,
    linear_map: Callable[[Tensor, int], Tensor],
    relevance: Tensor,
) -> Tensor:
    """Share `relevance` among the inputs in proportion to their positive contributions.

    `linear_map(y, sign)` applies the weights of that sign. `negative` is None where inputs are
    never negative. Returns relevance in the shape and type of the inputs.
    """
    parts = [(positive, 1)] if negative is None else [(positive, 1), (negative, -1)]
    inputs = [part.detach().requires_grad_() for part, _ in parts]
    with torch.enable_grad():
        maps = [linear_map(y, sign) for y, (_, sign) in zip(inputs, parts, strict=True)]
        total = sum(maps[1:], maps[0])
    # Where a denominator is 0, every contribution to it is 0 too, whatever it is divided by: any
    # finite stand-in loses that relevance exactly, and costs less than choosing element by element.
    # Kernels of other devices may transform their operands, so that zeros do not stay exact there.
    with torch.no_grad():
        if total.device.type == "cpu":
            scale = relevance / total.clamp_min(SMALLEST_DENOMINATOR)
        else:
            scale = torch.where(total > 0, relevance / total, 0)
    gradients = torch.autograd.grad(total, inputs, scale)
    with torch.no_grad():
        shares = [y * gradient for y, gradient in zip(inputs, gradients, strict=True)]
        return sum(shares[1:], shares[0])


def _pull_back(step: Callable[[Tensor], Tensor], inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the vector-Jacobian product of `step` at `inputs` with `relevance`."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        output = step(inputs)
    return torch.autograd.grad(output, inputs, relevance)[0]


def _signed_weights(network: Workload, executable: Executable, layer: Layer) -> SignedWeights:
    weight = executable.parameters[layer.name].weight
    negative = weight.clamp_max(0) if may_be_negative(network, layer.source) else None
    return SignedWeights(weight.clamp_min(0), negative)


def may_be_negative(network: Workload, name: str) -> bool:
    """Tell whether the output called `name` can hold negative values."""
    layer: Mapping = network.graph.nodes[name]
    if name == INPUT:
        return True
    producer: Layer = layer["layer"]
    if producer.kind in (Kind.CONV2D, Kind.LINEAR):
        return not producer.relu
    return may_be_negative(network, producer.source)
