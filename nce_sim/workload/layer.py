"""A layer as the machine sees it: shapes, reduction length and where its neurons are."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import prod

from nce_sim.workload.activations import Activation

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
    CONCAT = "concat"
    PAD = "pad"
    ACTIVATION = "activation"


@dataclass(frozen=True)
class Layer:
    """One layer of a network, with its non-linearity but without its parameters.

    `has_neurons` marks the layers whose outputs are neurons: convolutions and fully connected
    layers, after their non-linearity and before pooling, and a global average pooling that forms
    the network's output. Pooling anywhere else, adding, joining, padding and flattening only carry
    neurons on. Pairs are (vertical, horizontal), in elements. `bias` tells whether each channel has
    one.

    `others` are further sources. Those of an addition are maps of in_shape, those of a joining
    (Kind.CONCAT) have channels of their own. Those of a convolution or a linear layer, each of
    out_shape, are added to its sums before the non-linearity: it closes a residual block, and its
    neurons are the sums of the branches (see `parts`).

    `activation` is the non-linearity where it is not ReLU. `margins` are the zeros that a Kind.PAD
    adds, or takes away where negative: (top, bottom, left, right).
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
    activation: Activation | None = field(default=None, repr=False)
    margins: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), repr=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """All layers that this one reads."""
        return (self.source, *self.others)

    @property
    def is_linear(self) -> bool:
        """Whether it is a convolution or a fully connected layer: it has weights."""
        return self.kind in (Kind.CONV2D, Kind.LINEAR)

    @property
    def closes_block(self) -> bool:
        """Whether it adds other branches to its own sums."""
        return self.is_linear and bool(self.others)

    @cached_property
    def parts(self) -> tuple["Layer", "Layer"]:
        """The layer that closes a residual block as two: its sums, and the addition with the rest.

        The sums keep the layer's name and neurons; the addition has the non-linearity.
        """
        sums = replace(self, relu=False, activation=None, others=())
        addition = Layer(
            name=f"{self.name}.add",
            kind=Kind.ADD,
            source=self.name,
            in_shape=self.out_shape,
            out_shape=self.out_shape,
            groups=self.channels,
            relu=self.relu,
            others=self.others,
            activation=self.activation,
        )
        return sums, addition

    @property
    def may_be_negative(self) -> bool | None:
        """Whether outputs can be below zero; None if that depends on the sources."""
        if self.relu:
            return False
        if self.activation is not None:
            return self.activation.may_be_negative
        return True if self.is_linear else None

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
        return self.channels * self.reduction_length if self.is_linear else 0
