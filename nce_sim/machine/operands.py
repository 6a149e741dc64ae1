"""Who uses an operand: the neurons that one weight or one input of a layer takes part in."""

import numpy as np
from numpy.typing import NDArray

from nce_sim.workload.layer import Kind, Layer

Counts = NDArray[np.int64]


def users_of_weight(layer: Layer, place: int) -> tuple[Counts, Counts]:
    """Return the neurons that a weight (channel x K + step) belongs to, and its step of each."""
    channel, step = divmod(place, layer.reduction_length)
    neurons = channel * layer.positions + np.arange(layer.positions)
    return neurons, np.full(len(neurons), step)


def users_of_input(layer: Layer, place: int) -> tuple[Counts, Counts]:
    """Return the outputs that an input (place in the map) takes part in, and its step of each.

    Each output meets it at most once. Outputs are in rising order. Inputs of an addition are
    counted through its branches.
    """
    if layer.kind is Kind.LINEAR:
        return np.arange(layer.outputs), np.full(layer.outputs, place)
    if layer.kind is Kind.ADD:
        branch, output = divmod(place, layer.outputs)
        return np.array([output]), np.array([branch])
    channel, y, x = (int(each) for each in np.unravel_index(place, layer.in_shape))
    per_family = layer.in_shape[0] // layer.groups if layer.weights else 1
    family = layer.channels // layer.groups if layer.weights else 1
    shape = layer.out_shape if len(layer.out_shape) == 3 else (layer.channels, 1, 1)
    row, down = _taps(y, shape[1], layer, 0)
    column, across = _taps(x, shape[2], layer, 1)
    first = channel // per_family * family
    channels = np.arange(first, first + family)
    neurons = (channels[:, None, None] * shape[1] + row[:, None]) * shape[2] + column
    tap = down[:, None] * layer.kernel[1] + across
    steps = np.broadcast_to(channel % per_family * layer.window + tap, neurons.shape)
    return neurons.ravel(), steps.ravel()


def _taps(place: int, size: int, layer: Layer, axis: int) -> tuple[Counts, Counts]:
    """Return the output rows (axis 0) or columns that read one of the input, and by which tap."""
    offset = np.arange(layer.kernel[axis])[::-1]  # so that rows rise
    where = place + layer.padding[axis] - offset * layer.dilation[axis]
    row, rest = np.divmod(where, layer.stride[axis])
    inside = (rest == 0) & (row >= 0) & (row < size)
    return row[inside], offset[inside]
