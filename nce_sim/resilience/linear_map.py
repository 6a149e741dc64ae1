"""Linear layers as maps that go both ways: from inputs to sums, and from sums back to inputs.

Propagation of relevance runs the same weights over every block of images. On a processor the
weights of convolutions are therefore laid out once, in the order that oneDNN's kernels read, by the
operators that torch's own compiler calls for a frozen network: no compiler is needed, and the
kernels, and so the results, are those of a plain convolution. Where torch has no such operators,
or on another device, a map falls back on torch's public functions; sums then may differ in their
last bits.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.workload.execute import linear_part, run_layer
from nce_sim.workload.layer import Kind, Layer


class LinearMap(Protocol):
    """A linear layer for inputs and weights of one type and device."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sums of all outputs, images x the layer's outputs, in memory of their own."""

    def back(self, factors: Tensor, inputs: Tensor) -> Tensor:
        """Return for each input the sum over outputs of weight x factor, in memory of its own.

        `factors` are images x the layer's outputs; the result is like `inputs`, whose values are
        not looked at.
        """


def linear_map(
    layer: Layer, weight: Tensor | None, bias: Tensor | None = None, rectified: bool = False
) -> LinearMap:
    """Return the map of a convolution, of a fully connected layer, or, without weights, of a mean.

    `weight` and `bias` have the map's type and device. The layer's non-linearity and its other
    branches take no part, but for a ReLU if the sums are asked for `rectified`.
    """
    if weight is None:
        return Means(layer)
    if layer.kind is Kind.LINEAR:
        return Dense(weight, bias, rectified)
    if _can_lay_out(weight):
        return LaidOutConvolution(layer, weight, bias, rectified)
    return Convolution(layer, weight, bias, rectified)


class Means:
    """Average pooling."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the means of all windows."""
        return run_layer(self.layer, None, inputs)

    def back(self, factors: Tensor, inputs: Tensor) -> Tensor:
        """Return for each input the factors of its windows, divided by their size."""
        layer = self.layer
        return torch.ops.aten.avg_pool2d_backward(
            factors.reshape(len(factors), layer.channels, *_grid(layer)), inputs,
            layer.kernel, layer.stride, layer.padding, False, True, None,
        )  # fmt: skip


class Dense:
    """A fully connected layer."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rectified: bool = False) -> None:
        self.weight, self.bias, self.rectified = weight, bias, rectified

    def forward(self, inputs: Tensor) -> Tensor:
        """Return weight x inputs + bias, rectified if so asked."""
        sums = functional.linear(inputs, self.weight, self.bias)
        return sums.relu_() if self.rectified else sums

    def back(self, factors: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Return the transposed weight x factors."""
        return factors @ self.weight


class Convolution:
    """A convolution by torch's public functions."""

    def __init__(
        self, layer: Layer, weight: Tensor, bias: Tensor | None, rectified: bool = False
    ) -> None:
        self.layer, self.weight, self.bias, self.rectified = layer, weight, bias, rectified

    def forward(self, inputs: Tensor) -> Tensor:
        """Return weight * inputs + bias, rectified if so asked."""
        sums = linear_part(self.layer, self.weight, self.bias, inputs)
        return sums.relu_() if self.rectified else sums

    def back(self, factors: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Return the transposed convolution of the factors."""
        layer = self.layer
        return functional.conv_transpose2d(
            factors, self.weight, None, layer.stride, layer.padding, _beyond(layer), layer.groups,
            layer.dilation,
        )  # fmt: skip


class LaidOutConvolution:
    """A convolution whose weights lie as oneDNN's kernels read them, in each direction.

    They are laid out when a direction is first used, for blocks of the length met then; blocks of
    other lengths are computed as well, if slower.
    """

    def __init__(
        self, layer: Layer, weight: Tensor, bias: Tensor | None, rectified: bool = False
    ) -> None:
        self.layer, self.weight, self.bias, self.rectified = layer, weight, bias, rectified
        self._there: Callable[[Tensor], Tensor] | None = None
        self._back: Callable[[Tensor], Tensor] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return weight * inputs + bias, rectified if so asked."""
        if self._there is None:
            self._there = self._lay_out(inputs)
        return self._there(inputs)

    def back(self, factors: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Return the transposed convolution of the factors."""
        if self._back is None:
            self._back = self._lay_out_transposed(factors)
        return self._back(factors)

    def _lay_out(self, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        layer, bias = self.layer, self.bias
        place = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight, *place, list(inputs.shape)
        )
        run = torch.ops.mkldnn._convolution_pointwise.default
        after = "relu" if self.rectified else "none"
        return lambda values: run(values, weight, bias, *place, after, [], "")

    def _lay_out_transposed(self, factors: Tensor) -> Callable[[Tensor], Tensor]:
        layer = self.layer
        place = (
            list(layer.padding), list(_beyond(layer)), list(layer.stride), list(layer.dilation),
            layer.groups,
        )  # fmt: skip
        weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            self.weight, *place, list(factors.shape)
        )
        run = torch.ops.mkldnn._convolution_transpose_pointwise.default
        return lambda values: run(values, weight, None, *place, "none", [], "")


def _can_lay_out(weight: Tensor) -> bool:
    """Tell whether this torch has operators for weights laid out for oneDNN, for such weights."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32 and all(
        hasattr(torch.ops.mkldnn, name)
        for name in (
            "_reorder_convolution_weight", "_convolution_pointwise",
            "_reorder_convolution_transpose_weight", "_convolution_transpose_pointwise",
        )
    )  # fmt: skip


def _grid(layer: Layer) -> tuple[int, int]:
    """Return rows and columns of outputs, also where they are flattened."""
    _, height, width = layer.in_shape
    rows, columns = (
        (size + 2 * padding - reach) // stride + 1
        for size, padding, reach, stride in zip(
            (height, width), layer.padding, layer.kernel, layer.stride, strict=True
        )
    )
    return rows, columns


def _beyond(layer: Layer) -> tuple[int, int]:
    """Return how many last rows and columns of the inputs no window of the kernel reaches."""
    _, height, width = layer.in_shape
    _, rows, columns = layer.out_shape
    below, right = (
        size + 2 * padding - dilation * (kernel - 1) - 1 - (count - 1) * stride
        for size, count, padding, dilation, kernel, stride in zip(
            (height, width), (rows, columns), layer.padding, layer.dilation, layer.kernel,
            layer.stride, strict=True,
        )
    )  # fmt: skip
    return below, right
