"""Layer-wise relevance propagation: from the label's output back to every neuron.

`nce_sim.resilience.rules` has the rules for linear layers and for additions. Max pooling hands
relevance to the winner, the first of equals; a joining hands each branch its channels'; a
non-linearity hands on what it gets.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.resilience.linear_map import linear_map
from nce_sim.resilience.rules import Epsilon, Gamma, Rule, ZPlus
from nce_sim.workload.execute import prepare, rectify, run_layer
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Layer

PRECISIONS = ("float32", "mixed", "bf16")
"""Precisions of propagation."""

_PASSES = {
    "float32": ("float32", "float32"),
    "mixed": ("float32", "bfloat16"),
    "bf16": ("bfloat16", "bfloat16"),
    "float64": ("float64", "float64"),
}
"""In what the network runs, and in what relevance goes back."""

RULES: Mapping[str, Rule] = {"lrp": ZPlus(), "lrp-epsilon": Epsilon(), "lrp-gamma": Gamma()}
"""The rule of each ranking by relevance. "lrp" is that of Schorn et al. (DATE 2018, eq. 2)."""


class RelevancePropagation:
    """The relevance of every neuron for blocks of images; weights are split once, at the start.

    `precision` is one of `PRECISIONS`: "float32" computes all in float32, "bf16" all in bfloat16,
    and "mixed" runs the network in float32 and the passes through the rule's weights in bfloat16.
    With the z+ rule the order of the neurons in mixed precision is the same but for noise far below
    that of the choice of images. "float64" is for checks.
    """

    def __init__(
        self,
        network: Workload,
        rule: Rule,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.network, self.rule = network, rule
        forward, backward = _PASSES[precision]
        self.clean = prepare(network, forward, device)
        back = self.clean if backward == forward else prepare(network, backward, device)
        self.dtype = back.dtype
        self.maps = {
            layer.name: linear_map(
                layer, held.weight, held.bias, layer.relu and not layer.closes_block
            )
            for layer in network.layers
            if layer.is_linear
            for held in (self.clean.parameters[layer.name],)
        }
        self.steps = {
            layer.name: rule.step(
                layer.parts[0] if layer.closes_block else layer,
                back.parameters.get(layer.name),
                layer.source in network.signed,
            )
            for layer in network.layers
            if (layer.is_linear or layer.kind is Kind.AVERAGE_POOL) and layer.source != INPUT
        }
        self.crossing: dict[str, Tensor] = {}

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's relevance, images x the layer's shape, signed.

        The type is that of the passes: float32, bfloat16 in mixed precision, or float64.

        `images` is a block in the layout of `Executable.images`, `labels` holds class indices.
        Of a network that branches, `crossing` has afterwards, for each neuron layer, the relevance
        of each image that crosses the cut of the graph behind that layer: all that its layers and
        those before it hold, pixels included.
        """
        with torch.inference_mode():
            return self._propagate(images, labels)

    def _propagate(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs, kept = self._run(self.clean.images(images))
        last = outputs[self.network.output.name]
        one_hot = functional.one_hot(labels, self.network.output.outputs).to(self.dtype)
        start = self.rule.start(last.flatten(1).to(self.dtype), one_hot).reshape(last.shape)
        waiting: dict[str, Tensor] = {self.network.output.name: start}
        found: dict[str, Tensor] = {}
        branches = self.network.beyond_chain is not None
        for layer in reversed(self.network.layers):
            relevance = waiting[layer.name]
            if layer.has_neurons:
                found[layer.name] = relevance
                if branches:
                    self.crossing[layer.name] = _held(waiting)
            del waiting[layer.name]
            for source, part in self._step_back(layer, outputs, kept, relevance):
                waiting[source] = waiting[source] + part if source in waiting else part
        return found

    def _run(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return every layer's outputs, and what else the way back needs.

        That is the places of a max pooling's winners, and the sums of a layer that closes a block.
        """
        outputs: dict[str, Tensor] = {INPUT: images}
        kept: dict[str, Tensor] = {}
        for layer in self.network.layers:
            read = [outputs[source] for source in layer.sources]
            if layer.kind is Kind.MAX_POOL:
                outputs[layer.name], kept[layer.name] = functional.max_pool2d(
                    read[0], layer.kernel, layer.stride, layer.padding, return_indices=True
                )
            elif layer.closes_block:
                kept[layer.name] = self.maps[layer.name].forward(read[0])
                outputs[layer.name] = run_layer(layer.parts[1], None, kept[layer.name], *read[1:])
            elif layer.is_linear:
                sums = self.maps[layer.name].forward(read[0])
                outputs[layer.name] = sums if layer.relu else rectify(layer, sums)
            else:
                outputs[layer.name] = run_layer(layer, None, *read)
        return outputs, kept

    def _step_back(
        self, layer: Layer, outputs: Mapping[str, Tensor], kept: Mapping[str, Tensor],
        relevance: Tensor,
    ) -> Iterator[tuple[str, Tensor]]:  # fmt: skip
        """Yield the relevance of each source of a layer from that of its outputs.

        Of pixels only what they hold together counts: images x 1.
        """
        if layer.closes_block:
            own = kept[layer.name].to(self.dtype)
            others = [outputs[source].to(self.dtype) for source in layer.others]
            relevance, *rest = self.rule.among([own, *others], relevance)
            yield from zip(layer.others, map(_pixels, layer.others, rest), strict=True)
        else:
            own = outputs[layer.name]
        if layer.kind is Kind.ADD:
            terms = [outputs[source].to(self.dtype) for source in layer.sources]
            parts = self.rule.among(terms, relevance)
            yield from zip(layer.sources, map(_pixels, layer.sources, parts), strict=True)
        elif layer.kind is Kind.CONCAT:
            widths = [outputs[source].shape[1] for source in layer.sources]
            parts = list(relevance.split(widths, 1))
            yield from zip(layer.sources, map(_pixels, layer.sources, parts), strict=True)
        elif layer.source == INPUT:
            yield INPUT, _pixels(INPUT, relevance)
        elif layer.kind is Kind.MAX_POOL:
            inputs = outputs[layer.source].to(self.dtype)
            yield layer.source, _to_winners(layer, inputs, kept[layer.name], relevance)
        else:
            inputs = outputs[layer.source].to(self.dtype)
            yield layer.source, self._through(layer, inputs, own, relevance)

    def _through(self, layer: Layer, inputs: Tensor, own: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance of the inputs of a layer with one source; `own` are its outputs."""
        match layer.kind:
            case Kind.FLATTEN:
                return relevance.reshape(inputs.shape)
            case Kind.ACTIVATION:
                return relevance
            case Kind.PAD:
                top, bottom, left, right = layer.margins
                return functional.pad(relevance, (-left, -right, -top, -bottom))
            case _:
                return self.steps[layer.name](inputs, own, relevance)


def _pixels(source: str, relevance: Tensor) -> Tensor:
    """Sum what pixels get, each image's, and leave what layers get as it is."""
    return relevance.flatten(1).sum(1, keepdim=True) if source == INPUT else relevance


def _held(waiting: Mapping[str, Tensor]) -> Tensor:
    """Return each image's relevance in all of `waiting`."""
    sums = [part.flatten(1).float().sum(1) for part in waiting.values()]
    return sum(sums[1:], sums[0])


def _to_winners(layer: Layer, inputs: Tensor, winners: Tensor, relevance: Tensor) -> Tensor:
    """Return the relevance of the inputs of a max pooling: each window's goes to its winner."""
    return torch.ops.aten.max_pool2d_with_indices_backward(
        relevance, inputs, layer.kernel, layer.stride, layer.padding, (1, 1), False, winners
    )
