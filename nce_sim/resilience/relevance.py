"""Layer-wise relevance propagation: from the label's output back to every neuron.

`nce_sim.resilience.rules` has the rules for linear layers. Max pooling hands relevance to the
winner, the first of equals.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.errors import InputError
from nce_sim.resilience.rules import Epsilon, Gamma, Rule, ZPlus
from nce_sim.workload.execute import all_outputs, prepare, run_layer
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Layer

RULES: Mapping[str, Rule] = {"lrp": ZPlus(), "lrp-epsilon": Epsilon(), "lrp-gamma": Gamma()}
"""The rule of each ranking by relevance. "lrp" is that of Schorn et al. (DATE 2018, eq. 2)."""

LINEAR_KINDS = (Kind.CONV2D, Kind.LINEAR, Kind.AVERAGE_POOL)


class RelevancePropagation:
    """The relevance of every neuron for blocks of images; weights are split once, at the start.

    `precision` "float32" computes all in float32; "mixed" runs the network in float32 and the
    passes through the rule's weights in bfloat16. With the z+ rule the order of the neurons is the
    same but for noise far below that of the choice of images.
    """

    def __init__(
        self,
        network: Workload,
        rule: Rule,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.network, self.rule = network, rule
        self.clean = prepare(network, "float32", device)
        back = prepare(network, "bfloat16" if precision == "mixed" else "float32", device)
        self.dtype = back.dtype
        self.steps = {
            layer.name: rule.step(
                layer, back.parameters.get(layer.name), may_be_negative(network, layer.source)
            )
            for layer in network.layers
            if layer.kind in LINEAR_KINDS and layer.source != INPUT
        }

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's relevance, images x the layer's shape, signed.

        The type is float32, or bfloat16 in mixed precision.

        `images` is a block in the layout of `Executable.images`, `labels` holds class indices.
        """
        with torch.no_grad():
            outputs = all_outputs(self.clean, images)
        last = outputs[self.network.output.name]
        one_hot = functional.one_hot(labels, self.network.output.outputs).to(self.dtype)
        relevance = self.rule.start(last.flatten(1).to(self.dtype), one_hot).reshape(last.shape)
        found: dict[str, Tensor] = {}
        for layer in reversed(self.network.layers):
            if layer.has_neurons:
                found[layer.name] = relevance
            if layer.source == INPUT:
                break
            relevance = self._step_back(layer, outputs, relevance)
        return found

    def _step_back(self, layer: Layer, outputs: Mapping[str, Tensor], relevance: Tensor) -> Tensor:
        """Return the relevance of a layer's inputs from that of its outputs."""
        inputs = outputs[layer.source].to(self.dtype)
        match layer.kind:
            case Kind.ADD:
                raise InputError(f"layer {layer.name}: additions are not ranked yet")
            case Kind.FLATTEN:
                return relevance.reshape(inputs.shape)
            case Kind.MAX_POOL:
                return _pull_back(lambda y: run_layer(layer, None, y), inputs, relevance)
            case Kind.CONV2D | Kind.LINEAR | Kind.AVERAGE_POOL:
                return self.steps[layer.name](inputs, outputs[layer.name], relevance)


def _pull_back(step: Callable[[Tensor], Tensor], inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the vector-Jacobian product of `step` at `inputs` with `relevance`."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        output = step(inputs)
    return torch.autograd.grad(output, inputs, relevance)[0]


def may_be_negative(network: Workload, name: str) -> bool:
    """Tell whether the output called `name` can hold negative values."""
    layer: Mapping = network.graph.nodes[name]
    if name == INPUT:
        return True
    producer: Layer = layer["layer"]
    if producer.kind in (Kind.CONV2D, Kind.LINEAR):
        return not producer.relu
    return may_be_negative(network, producer.source)
