"""Ground truth for rankings: strike every neuron in turn, in every image, and see what changes.

The fault strikes one neuron alone; everything behind its layer is computed anew. The work is
neurons x images x (one for dropout, 2 x `nodes` for noise) inferences from the struck layer on: a
matter of seconds for a network of 2,000 neurons, and of weeks for one of 400,000.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, get_args

import networkx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nce_sim.accuracy.half_normal import MOST_POINTS, half_normal_rule
from nce_sim.accuracy.workers import in_order
from nce_sim.errors import InputError
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise, check_layers, check_whole
from nce_sim.resilience.damage import margins
from nce_sim.resilience.ranking import Origin, Ranking
from nce_sim.workload.execute import (
    Executable,
    all_outputs,
    block_length,
    blocks,
    check_device,
    forward,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layer import INPUT, Layer
from nce_sim.workload.layout import fast_layout

ROWS = 256
"""Inferences that are computed together, at most."""

NODES = 3
"""Displacements of noise on each side of zero, where the caller asks for no other number."""

Measure = Literal["loss", "margin", "wrong"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

Progress = Callable[[int, int], None]
"""Told (injections done, injections in all), one being a neuron, an image and a displacement."""


@dataclass(frozen=True)
class ExhaustiveDamage:
    """What the fault of each neuron alone does on average over the images.

    Each measure maps a layer's name to a float64 array of the layer's shape. `loss` is the expected
    change of the cross-entropy, which may be negative; `margin` that of the magnitude of the
    margin's change, the margin being the label's output less the largest other; `wrong` the
    expected share of all images that are classified rightly without the fault and wrongly with it.
    """

    origin: Origin
    loss: Mapping[str, NDArray[np.float64]]
    margin: Mapping[str, NDArray[np.float64]]
    wrong: Mapping[str, NDArray[np.float64]]

    def ranking(self, measure: Measure = "loss") -> Ranking:
        """Return the ranking by one measure: most harmful, that is least resilient, first.

        Raises InputError for an unknown measure.
        """
        if measure not in MEASURES:
            raise InputError(f"unknown measure '{measure}': known are {', '.join(MEASURES)}")
        scores: Mapping[str, NDArray[np.float64]] = getattr(self, measure)
        return Ranking(replace(self.origin, method=f"exhaustive {measure}"), scores, {})


def exhaustive_damage(
    network: Workload,
    images: Images,
    labels: Tensor,
    fault: FaultModel,
    *,
    nodes: int | None = None,
    device: str = "cpu",
    data: str = "given by the caller",
    progress: Progress | None = None,
) -> ExhaustiveDamage:
    """Measure the damage of `fault` in every single neuron of `network`, in float32.

    Dropout displaces a neuron's output y by -y with probability p: every measure is p times what
    the displacement does, and one inference an image says that. Gaussian noise displaces it by
    s|Z| and by -s|Z|, equally often, with s = sigma x the layer's mean: the expectation is taken by
    Gauss's quadrature for |Z| with `nodes` points (`NODES` if not given; noise only), used on both
    sides. That is exact for whatever is a polynomial in the displacement, up to degree
    2 x `nodes` - 1, on each side of zero, even with the kink at zero that the margin's magnitude
    has, where the usual rule of Gauss and Hermite converges slowly. No number is drawn. `wrong`
    jumps where an answer tips: for one image it is then known to about a node's weight.

    `images` is float32 N x the network's input shape, `labels` int64 N. Rows are computed in padded
    blocks of a size that follows from the network alone, each by one thread, so that no result
    depends on the number of threads.
    Raises InputError for input that does not fit.
    """
    network.check_images(images)
    network.check_labels(images, labels)
    check_device(device)
    displacements = _displacements(network, fault, nodes)
    executable = prepare(network, "float32", device)
    sums = {layer.name: np.zeros((len(MEASURES), layer.neurons)) for layer in network.neuron_layers}
    done, total = 0, network.neurons * len(images) * len(displacements)
    for block in blocks(len(images), block_length(network, ROWS)):
        struck = _StruckImages(executable, images[block], labels[block])
        for layer in network.neuron_layers:
            for displacement in displacements:
                sums[layer.name] += displacement.weight * struck.damage(layer, displacement)
                done += layer.neurons * (block.stop - block.start)
                if progress is not None:
                    progress(done, total)
    loss, margin, wrong = (
        {
            layer.name: (sums[layer.name][row] / len(images)).reshape(layer.out_shape)
            for layer in network.neuron_layers
        }
        for row in range(len(MEASURES))
    )
    origin = Origin(
        method="exhaustive", network=network.name, network_identity=network.identity, data=data,
        images=len(images), seed=None, precision="float32", stability=None, fault=str(fault),
    )  # fmt: skip
    return ExhaustiveDamage(origin, loss, margin, wrong)


@dataclass(frozen=True)
class _Displacement:
    """One of the displacements of a fault, with its weight in the expectation.

    `of` gives it for a layer's name and its outputs, in their shape.
    """

    weight: float
    of: Callable[[str, Tensor], Tensor]


def _displacements(network: Workload, fault: FaultModel, nodes: int | None) -> list[_Displacement]:
    if isinstance(fault, Dropout):
        if nodes is not None:
            raise InputError("nodes goes with GaussianNoise: dropout has one displacement")
        return [_Displacement(fault.probability, lambda _, outputs: -outputs)]
    if not isinstance(fault, GaussianNoise):
        raise InputError(f"the fault must be Dropout or GaussianNoise, not {fault!r}")
    means, sigma = fault.mean_activation, fault.sigma
    names = [layer.name for layer in network.neuron_layers]
    check_layers(means, names, "GaussianNoise: mean_activation")
    nodes = NODES if nodes is None else nodes
    check_whole(nodes, "nodes", 1, MOST_POINTS)

    def by(deviations: float) -> Callable[[str, Tensor], Tensor]:
        return lambda layer, outputs: torch.full_like(outputs, deviations * sigma * means[layer])

    return [
        _Displacement(float(weight) / 2, by(sign * float(node)))
        for node, weight in zip(*half_normal_rule(nodes), strict=True)
        for sign in (-1, 1)
    ]


@dataclass(frozen=True)
class _Rows:
    """Inferences to compute: in `image` (place in the block), `neuron` puts out `value`."""

    image: Tensor
    neuron: Tensor
    value: Tensor


class _StruckImages:
    """One block of images, with every output without faults, in which neurons are struck."""

    def __init__(self, executable: Executable, images: Tensor, labels: Tensor) -> None:
        self.executable = executable
        self.length = block_length(executable.network, ROWS)
        self.count = len(images)
        layers = executable.network.layers
        self.shapes = {layer.name: layer.out_shape for layer in layers}
        self.shapes[INPUT] = executable.network.input_shape
        device = executable.device
        self.labels = pad_block(labels, self.length).to(device)
        with torch.inference_mode():
            inputs = executable.images(pad_block(images, self.length))
            outputs = all_outputs(executable, inputs)
            self.outputs = {name: values.flatten(1) for name, values in outputs.items()}
            last = self.outputs[executable.network.output.name]
            self.clean = _judge(last, self.labels)

    def damage(self, layer: Layer, displacement: _Displacement) -> NDArray[np.float64]:
        """Return what a displacement of each of a layer's neurons does, summed over the images.

        MEASURES x neurons.
        """
        found = np.zeros((len(MEASURES), layer.neurons))
        network = self.executable.network
        reached = networkx.descendants(network.graph, layer.name)
        behind = [each for each in network.layers if each.name in reached]

        def strike(rows: _Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            return rows.neuron.cpu().numpy(), self._changes(layer, behind, rows).cpu().numpy()

        rows = self._rows(layer, displacement)
        with closing(in_order(strike, rows, self.executable.device.type)) as struck:
            for neuron, changes in struck:
                for measure, values in enumerate(changes):
                    found[measure] += np.bincount(neuron, values, layer.neurons)
        return found

    def _map(self, name: str, outputs: Tensor) -> Tensor:
        """Return rows of a layer's outputs, or of the input, as maps."""
        return fast_layout(outputs.reshape(-1, *self.shapes[name]))

    def _rows(self, layer: Layer, displacement: _Displacement) -> Iterator[_Rows]:
        """Cut into blocks what has to be computed: where nothing is displaced, nothing is."""
        outputs = self.outputs[layer.name][: self.count]
        by = displacement.of(layer.name, outputs)
        image, neuron = by.nonzero(as_tuple=True)
        value = (outputs + by)[image, neuron]
        for part in blocks(len(image), self.length):
            yield _Rows(image[part], neuron[part], value[part])

    def _changes(self, layer: Layer, behind: Sequence[Layer], rows: _Rows) -> Tensor:
        """Return MEASURES x rows, float64: with the fault, less without it."""
        image, neuron, value = (
            pad_block(each, self.length) for each in (rows.image, rows.neuron, rows.value)
        )
        with torch.inference_mode():
            outputs = self.outputs[layer.name][image]
            outputs[torch.arange(len(image), device=image.device), neuron] = value
            if behind:
                read = {source for each in behind for source in each.sources}
                read -= {each.name for each in behind}
                values = {name: self._map(name, self.outputs[name][image]) for name in read}
                values[layer.name] = self._map(layer.name, outputs)
                first = values[behind[0].source]
                outputs = forward(self.executable, first, behind, known=values).flatten(1)
            faulty, clean = _judge(outputs, self.labels[image]), self.clean[:, image]
            loss = faulty[0] - clean[0]
            margin = (faulty[1] - clean[1]).abs()
            tipped = clean[2] * (1 - faulty[2])
            return torch.stack([loss, margin, tipped])[:, : len(rows.image)]


def _judge(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return loss, margin, and whether the answer is right (1 or 0): 3 x images, float64."""
    outputs = outputs.double()
    loss = functional.cross_entropy(outputs, labels, reduction="none")
    right = (outputs.argmax(1) == labels).double()
    return torch.stack([loss, margins(outputs, labels), right])
