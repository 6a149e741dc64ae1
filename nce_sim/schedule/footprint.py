"""Which inputs a set of neurons reads: the dilation of their positions, counted by domain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.workload.layer import Kind, Layer


@dataclass(frozen=True)
class InputDemand:
    """Elements of the input map that are read, by the domain that holds them."""

    own: int
    foreign: int


class Footprint:
    """Counts the inputs of sets of neurons of one layer for one domain.

    `own` marks the elements of the layer's input map (its in_shape) that lie in that domain.
    """

    def __init__(self, layer: Layer, own: NDArray[np.bool_]) -> None:
        self.layer = layer
        self.is_map = len(layer.in_shape) == 3
        self.own = own
        if self.is_map:
            channels, height, width = layer.in_shape
            self.channels_by_group = channels // layer.groups
            self.own_by_group = own.reshape(layer.groups, self.channels_by_group, height, width)
            self.own_by_position = self.own_by_group.sum(axis=1)
        else:
            self.own_before = np.concatenate([[0], np.cumsum(own)])

    def of_vector(self, start: int, stop: int) -> InputDemand:
        """Return the demand for inputs start to stop of a vector."""
        own = int(self.own_before[stop] - self.own_before[start])
        return InputDemand(own, stop - start - own)

    def of_neurons(
        self,
        neurons: NDArray[np.bool_],
        first_row: int = 0,
        channels: NDArray[np.int64] | None = None,
        inputs: slice | None = None,
    ) -> InputDemand:
        """Return the demand of the marked neurons: channels x rows x width of the output map.

        `first_row` is the output row of the first row given, `channels` the output channels of
        the first axis (all, if not given). `inputs` restricts the input channels of each group to
        a range.
        """
        layer = self.layer
        if layer.groups == 1:
            touched: NDArray[np.bool_] = np.any(neurons, axis=0)[None]
            groups = np.zeros(1, np.int64)
        else:
            per_group = layer.channels // layer.groups
            of_channel = (np.arange(layer.channels) if channels is None else channels) // per_group
            groups, index = np.unique(of_channel, return_inverse=True)
            touched = np.zeros((len(groups), *neurons.shape[1:]), bool)
            np.logical_or.at(touched, index, neurons)
        needed, top = dilate(layer, touched, first_row)
        rows = slice(top, top + needed.shape[1])
        if inputs is None:
            own = self.own_by_position[groups, rows]
            total = int(needed.sum()) * self.channels_by_group
        else:
            own = self.own_by_group[groups, inputs, rows].sum(axis=1)
            total = int(needed.sum()) * (inputs.stop - inputs.start)
        own_needed = int(own[needed].sum())
        return InputDemand(own_needed, total - own_needed)


def dilate(
    layer: Layer, outputs: NDArray[np.bool_], first_row: int = 0
) -> tuple[NDArray[np.bool_], int]:
    """Mark the input positions that the marked output positions read.

    `outputs` is n x rows x width, its first row being output row `first_row`. Returns n x input
    rows x input width, cut to the map, and the input row at which it begins.
    """
    _, height, width = layer.in_shape
    count, rows, columns = outputs.shape
    (down, right), (reach_down, reach_right) = layer.stride, layer.dilation
    tall = (rows - 1) * down + (layer.kernel[0] - 1) * reach_down + 1
    wide = (columns - 1) * right + (layer.kernel[1] - 1) * reach_right + 1
    reached = np.zeros((count, tall, max(wide, width + 2 * layer.padding[1])), bool)
    for tap_row in range(0, layer.kernel[0] * reach_down, reach_down):
        for tap_column in range(0, layer.kernel[1] * reach_right, reach_right):
            reached[
                :,
                tap_row : tap_row + (rows - 1) * down + 1 : down,
                tap_column : tap_column + (columns - 1) * right + 1 : right,
            ] |= outputs
    top = first_row * down - layer.padding[0]
    cut = slice(max(0, -top), max(0, min(tall, height - top)))
    left = layer.padding[1]
    return reached[:, cut, left : left + width], max(0, top)


def padded_macs(layer: Layer, mask: NDArray[np.bool_]) -> int:
    """Count the multiply-accumulates of the neurons in `mask` whose input is padding."""
    if layer.kind is not Kind.CONV2D or layer.padding == (0, 0):
        return 0
    inside = []
    for axis in range(2):
        out = np.arange(layer.out_shape[1 + axis])[:, None] * layer.stride[axis]
        tap = np.arange(layer.kernel[axis])[None, :] * layer.dilation[axis]
        place = out + tap - layer.padding[axis]
        inside.append(((place >= 0) & (place < layer.in_shape[1 + axis])).sum(axis=1))
    valid = np.outer(*inside)
    neurons = mask.sum(axis=0)
    channels = layer.in_shape[0] // layer.groups
    return int((neurons * (layer.window - valid)).sum()) * channels
