"""A layer as the machine sees it: shapes, reduction length and where its neurons are."""

from dataclasses import dataclass
from enum import StrEnum
from math import prod

INPUT = "input"
"""Name of the network's input wherever a layer names its source."""

Shape = tuple[int, ...]
"""(channels, height, width) of a map, or (features,) of a vector."""


class Kind(StrEnum):
    """What a layer computes."""

    CONV2D = "conv2d"
    LINEAR = "linear"
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"
    ADD = "add"
    FLATTEN = "flatten"


@dataclass(frozen=True)
class Layer:
    """One layer of a network, with its non-linearity but without its parameters.

    `has_neurons` marks the layers whose outputs are neurons: convolutions and fully connected
    layers, after their non-linearity and before pooling, and a global average pooling that forms
    the network's output. Pooling anywhere else, adding and flattening only carry neurons on.
    `others` are the further sources of an addition, each a map of in_shape. `bias` tells whether
    each channel has one. Pairs are (vertical, horizontal), in elements.
    """

    name: str
    kind: Kind
    source: str
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    relu: bool = False
    has_neurons: bool = False
    bias: bool = False
    others: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """All layers that this one reads."""
        return (self.source, *self.others)

    @property
    def channels(self) -> int:
        """Output channels, or output features."""
        return self.out_shape[0]

    @property
    def positions(self) -> int:
        """Positions of one output map; 1 for a vector."""
        return prod(self.out_shape[1:])

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return prod(self.out_shape)

    @property
    def neurons(self) -> int:
        """Neurons of this layer; 0 where it only carries those of others on."""
        return self.outputs if self.has_neurons else 0

    @property
    def window(self) -> int:
        """Elements of the kernel's window."""
        return prod(self.kernel)

    @property
    def reduction_length(self) -> int:
        """K: the multiply-accumulates of one neuron, padding positions included."""
        if self.kind is Kind.AVERAGE_POOL:
            return self.window
        return self.in_shape[0] // self.groups * self.window

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all neurons of this layer, padding positions included."""
        return self.neurons * self.reduction_length

    @property
    def weights(self) -> int:
        """Elements of the weight tensor; pooling has none."""
        if self.kind in (Kind.CONV2D, Kind.LINEAR):
            return self.channels * self.reduction_length
        return 0
