"""Layer-wise relevance propagation: from the label's output back to every neuron.

`nce_sim.resilience.rules` has the rules for linear layers and for additions. Max pooling hands
relevance to the winner, the first of equals; a joining hands each branch its channels'; a
non-linearity hands on what it gets.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.resilience.rules import Epsilon, Gamma, Rule, ZPlus
from nce_sim.workload.execute import all_outputs, prepare, run_layer
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Layer

RULES: Mapping[str, Rule] = {"lrp": ZPlus(), "lrp-epsilon": Epsilon(), "lrp-gamma": Gamma()}
"""The rule of each ranking by relevance. "lrp" is that of Schorn et al. (DATE 2018, eq. 2)."""


class RelevancePropagation:
    """The relevance of every neuron for blocks of images; weights are split once, at the start.

    `precision` "float32" computes all in float32; "mixed" runs the network in float32 and the
    passes through the rule's weights in bfloat16. With the z+ rule the order of the neurons is the
    same but for noise far below that of the choice of images. "float64" is for checks.
    """

    def __init__(
        self,
        network: Workload,
        rule: Rule,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.network, self.rule = network, rule
        self.clean = prepare(network, "float32" if precision == "mixed" else precision, device)
        back = prepare(network, "bfloat16" if precision == "mixed" else precision, device)
        self.dtype = back.dtype
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
        with torch.no_grad():
            outputs = all_outputs(self.clean, images)
        last = outputs[self.network.output.name]
        one_hot = functional.one_hot(labels, self.network.output.outputs).to(self.dtype)
        start = self.rule.start(last.flatten(1).to(self.dtype), one_hot).reshape(last.shape)
        waiting: dict[str, Tensor] = {self.network.output.name: start}
        found: dict[str, Tensor] = {}
        branches = not self.network.is_chain
        for layer in reversed(self.network.layers):
            relevance = waiting[layer.name]
            if layer.has_neurons:
                found[layer.name] = relevance
                if branches:
                    self.crossing[layer.name] = _held(waiting)
            del waiting[layer.name]
            for source, part in self._step_back(layer, outputs, relevance):
                waiting[source] = waiting[source] + part if source in waiting else part
        return found

    def _step_back(
        self, layer: Layer, outputs: Mapping[str, Tensor], relevance: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the relevance of each source of a layer from that of its outputs.

        Of pixels only what they hold together counts: images x 1.
        """
        if layer.closes_block:
            sums, _ = layer.parts
            with torch.no_grad():
                own = self.clean.run_part(sums, outputs[layer.source]).to(self.dtype)
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
            case Kind.MAX_POOL | Kind.PAD:
                return _pull_back(lambda y: run_layer(layer, None, y), inputs, relevance)
            case _:
                return self.steps[layer.name](inputs, own, relevance)


def _pixels(source: str, relevance: Tensor) -> Tensor:
    """Sum what pixels get, each image's, and leave what layers get as it is."""
    return relevance.flatten(1).sum(1, keepdim=True) if source == INPUT else relevance


def _held(waiting: Mapping[str, Tensor]) -> Tensor:
    """Return each image's relevance in all of `waiting`."""
    sums = [part.flatten(1).float().sum(1) for part in waiting.values()]
    return sum(sums[1:], sums[0])


def _pull_back(step: Callable[[Tensor], Tensor], inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the vector-Jacobian product of `step` at `inputs` with `relevance`."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        output = step(inputs)
    return torch.autograd.grad(output, inputs, relevance)[0]
