"""The network as a graph of layers, with the parameters that its torch module holds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import networkx
import numpy as np
import torch
from torch import Tensor, nn

from nce_sim.errors import InputError
from nce_sim.workload.images import Images
from nce_sim.workload.layer import INPUT, Kind, Layer, Shape
from nce_sim.workload.steps import finished_by, machine_steps


@dataclass(frozen=True)
class Parameters:
    """Weight and bias of a layer in float32, BatchNorm folded in.

    The weight is outputs x inputs/groups x kh x kw, or outputs x inputs; the bias has one element
    for each output channel.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Workload:
    """A captured network: `layers` in topological order, `parameters` by layer name."""

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    parameters: Mapping[str, Parameters]

    def __post_init__(self) -> None:
        if not any(layer.has_neurons for layer in self.layers):
            raise InputError(f"network '{self.name}' has no convolution and no linear layer")

    @staticmethod
    def from_module(
        module: nn.Module, example_input: Tensor, name: str | None = None
    ) -> "Workload":
        """Capture any torch module that torch.export traces; see `nce_sim.workload.capture`."""
        from nce_sim.workload.capture import capture

        return capture(module, example_input, name or type(module).__name__)

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """Layers by name (attribute `layer`), with an edge from each source to its consumer."""
        graph = networkx.DiGraph()
        graph.add_node(INPUT)
        for layer in self.layers:
            graph.add_node(layer.name, layer=layer)
            graph.add_edges_from((source, layer.name) for source in layer.sources)
        return graph

    @cached_property
    def is_chain(self) -> bool:
        """Whether each layer reads the one before, and ends with ReLU if with any non-linearity."""
        before = INPUT
        for layer in self.layers:
            alone = layer.kind in (Kind.PAD, Kind.ACTIVATION)
            if layer.sources != (before,) or layer.activation is not None or alone:
                return False
            before = layer.name
        return True

    @cached_property
    def signed(self) -> frozenset[str]:
        """The layers whose outputs can be below zero, and the input."""
        found = {INPUT}
        for layer in self.layers:
            own = layer.may_be_negative
            if own or (own is None and not found.isdisjoint(layer.sources)):
                found.add(layer.name)
        return frozenset(found)

    @cached_property
    def in_steps(self) -> "Workload":
        """The same network as the machine takes it: see `nce_sim.workload.steps`.

        Of a layer that closes a residual block its outputs are the sums that its lanes store.
        """
        if not self.finished_by:
            return self
        return replace(self, layers=machine_steps(self.layers))

    @cached_property
    def finished_by(self) -> Mapping[str, str]:
        """The step that finishes the neurons of each layer that closes a block, by names."""
        return finished_by(self.layers)

    @cached_property
    def neuron_layers(self) -> tuple[Layer, ...]:
        """The layers that have neurons, in order."""
        return tuple(layer for layer in self.layers if layer.has_neurons)

    @property
    def output(self) -> Layer:
        """The last layer."""
        return self.layers[-1]

    @property
    def neurons(self) -> int:
        """Number of neurons of the network."""
        return sum(layer.neurons for layer in self.neuron_layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, padding positions included."""
        return sum(layer.macs for layer in self.neuron_layers)

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Index of each neuron layer's first neuron in the order of the network."""
        sizes = [layer.neurons for layer in self.neuron_layers]
        starts = np.cumsum([0, *sizes[:-1]])
        names = (layer.name for layer in self.neuron_layers)
        return dict(zip(names, starts.tolist(), strict=True))

    @cached_property
    def identity(self) -> str:
        """SHA-256 of structure and parameters: equal for equal networks, whatever their names."""
        digest = sha256(repr((self.input_shape, self.layers)).encode())
        for layer in self.layers:
            if layer.activation is not None or any(layer.margins):
                digest.update(repr((layer.name, layer.activation, layer.margins)).encode())
        for layer_name in sorted(self.parameters):
            parameters = self.parameters[layer_name]
            digest.update(layer_name.encode())
            for tensor in (parameters.weight, parameters.bias):
                if tensor is not None:
                    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_images(self, images: Images) -> None:
        """Raise InputError unless `images` are finite, float32, N x `input_shape`.

        Lazy images stay unread: they check their values when they are.
        """
        if not isinstance(images, Images) or images.dtype is not torch.float32:
            given = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"images must be a float32 tensor, not {given}")
        if tuple(images.shape[1:]) != self.input_shape or len(images) == 0:
            raise InputError(
                f"images have shape {tuple(images.shape)}; network '{self.name}' reads "
                f"N x {' x '.join(map(str, self.input_shape))} with N at least 1"
            )
        if isinstance(images, Tensor) and not torch.stack(images.aminmax()).isfinite().all():
            raise InputError("images hold NaN or infinity")

    def check_labels(self, images: Images, labels: Tensor) -> None:
        """Raise InputError unless `labels` holds one class index for each image."""
        if not isinstance(labels, Tensor) or labels.dtype is not torch.int64:
            given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise InputError(f"labels must be an int64 tensor, not {given}")
        if labels.shape != images.shape[:1]:
            raise InputError(f"{len(images)} images need as many labels, not {list(labels.shape)}")
        if int(labels.min()) < 0 or int(labels.max()) >= self.output.outputs:
            raise InputError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; network "
                f"'{self.name}' has classes 0 to {self.output.outputs - 1}"
            )
