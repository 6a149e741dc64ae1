"""Layer-wise relevance propagation: from the label's output back to every neuron.

`nce_sim.resilience.rules` has the rules for linear layers and for additions. Max pooling hands
relevance to the winner, the first of equals; a joining hands each branch its channels'; a
non-linearity hands on what it gets.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.resilience.linear_map import linear_map
from nce_sim.resilience.rules import Epsilon, Gamma, Rule, ZPlus
from nce_sim.workload.execute import pad_block, prepare, rectify, run_layer
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Kind, Layer

PRECISIONS = ("float32", "mixed", "bf16")
"""Precisions of propagation."""

Take = Callable[[int, str, Tensor, Tensor | None], None]
"""Receives the place of a pass's first image, a layer's name, the relevance of its neurons in each
image, and where the network branches what crosses the cut of the graph behind the layer."""

_PASSES = {
    "float32": ("float32", "float32"),
    "mixed": ("float32", "bfloat16"),
    "bf16": ("bfloat16", "bfloat16"),
    "float64": ("float64", "float64"),
}
"""In what the network runs, and in what relevance goes back."""

WIDE = 2**22
"""A fully connected layer with more weights does not stay in a cache from one pass to the next."""

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
        wide = (at for at, layer in enumerate(network.layers) if _weights(layer) > WIDE)
        front = next(wide, len(network.layers))
        self._front, self._tail = network.layers[:front], network.layers[front:]
        self.crossing: dict[str, Tensor] = {}

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's relevance, images x the layer's shape, signed.

        The type is that of the passes back: float32, bfloat16 or float64.

        `images` is a block in the layout of `Executable.images`, `labels` holds class indices.
        Of a network that branches, `crossing` has afterwards, for each neuron layer, the relevance
        of each image that crosses the cut of the graph behind that layer: all that its layers and
        those before it hold, pixels included.
        """
        found: dict[str, Tensor] = {}

        def take(_: int, layer: str, relevance: Tensor, crossing: Tensor | None) -> None:
            found[layer] = relevance
            if crossing is not None:
                self.crossing[layer] = crossing

        self.propagate(images, labels, len(images), len(images), take)
        return found

    @torch.inference_mode()
    def propagate(
        self, images: Tensor, labels: Tensor, counted: int, length: int, take: Take
    ) -> None:
        """Hand the relevance of a block's first `counted` images to `take`, layer by layer.

        Images go through the network `length` at a time, so that the maps stay in a cache. From the
        first wide fully connected layer on the whole block goes at once: these are bound by reading
        their weights. `images` and `labels` are as when called, of a whole block.
        """
        whole = self.clean.images(images)
        together = len(whole) if self._tail else length
        for first in range(0, counted, together):
            some = slice(first, first + together)
            self._propagate(whole[some], labels[some], counted - first, length, first, take)

    def _propagate(
        self, images: Tensor, labels: Tensor, counted: int, length: int, first: int, take: Take
    ) -> None:
        """Do so for images, the first of them at `first`, that go through wide layers at once."""
        starts = range(0, min(counted, len(images)), length)
        passes = [_Values({INPUT: images[at : at + length]}, {}) for at in starts]
        for values in passes:
            self._run(self._front, values)
        read = {source for layer in self._tail for source in layer.sources}
        joined = _join(passes, read | {self.network.output.name})
        tail = _Values({name: pad_block(each, len(images)) for name, each in joined.items()}, {})
        self._run(self._tail, tail)
        waiting = self._start(tail.outputs[self.network.output.name], labels)
        self._go_back(self._tail, tail, waiting, lambda *found: take(first, *found))
        for at, values in zip(starts, passes, strict=True):
            some = {name: each[at : at + length] for name, each in waiting.items()}
            self._go_back(self._front, values, some, lambda *found, at=at: take(first + at, *found))

    def _start(self, last: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the relevance that the network's outputs start from."""
        one_hot = functional.one_hot(labels, self.network.output.outputs).to(self.dtype)
        start = self.rule.start(last.flatten(1).to(self.dtype), one_hot).reshape(last.shape)
        return {self.network.output.name: start}

    def _go_back(
        self, layers: Sequence[Layer], values: "_Values", waiting: dict[str, Tensor],
        take: Callable[[str, Tensor, Tensor | None], None],
    ) -> None:  # fmt: skip
        """Take relevance from the outputs of `layers`, in `waiting`, back to what they read."""
        branches = not self.network.is_chain
        for layer in reversed(layers):
            relevance = waiting[layer.name]
            if layer.has_neurons:
                take(layer.name, relevance, _held(waiting) if branches else None)
            del waiting[layer.name]
            for source, part in self._step_back(layer, values, relevance):
                waiting[source] = waiting[source] + part if source in waiting else part

    def _run(self, layers: Sequence[Layer], values: "_Values") -> None:
        """Compute the outputs of `layers`."""
        outputs, kept = values.outputs, values.kept
        for layer in layers:
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

    def _step_back(
        self, layer: Layer, values: "_Values", relevance: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the relevance of each source of a layer from that of its outputs.

        Of pixels only what they hold together counts: images x 1, and in a chain not even that.
        """
        outputs, kept = values.outputs, values.kept
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
            if not self.network.is_chain:
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


@dataclass(frozen=True)
class _Values:
    """What a pass of images made of the network: `outputs` of layers, and the input.

    `kept` is what else the way back needs: the places of a max pooling's winners, and the sums of a
    layer that closes a residual block.
    """

    outputs: dict[str, Tensor]
    kept: dict[str, Tensor]


def _weights(layer: Layer) -> int:
    """Return how many weights a fully connected layer has, 0 for any other."""
    return layer.outputs * layer.reduction_length if layer.kind is Kind.LINEAR else 0


def _join(passes: Sequence[_Values], names: Collection[str]) -> dict[str, Tensor]:
    """Return those outputs of all passes that have one of `names`, each as one tensor."""
    return {
        name: torch.cat([values.outputs[name] for values in passes])
        for name in passes[0].outputs
        if name in names
    }


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
