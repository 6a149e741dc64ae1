"""Which inputs a set of neurons reads: the dilation of their positions, counted by domain."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nce_sim.schedule.domains import FOREIGN
from nce_sim.schedule.layout import Demand, StoredMap
from nce_sim.workload.layer import Kind, Layer

Mask = NDArray[np.bool_]


class InputDemand(NamedTuple):
    """What is read of an input map, by the domain that holds it."""

    own: Demand
    foreign: Demand

    @property
    def elements(self) -> int:
        """Elements of both domains."""
        return self.own.elements + self.foreign.elements


class Needed(NamedTuple):
    """Positions of an input map: rows x width from row `top` on. `key` tells sets apart."""

    top: int
    rows: Mask
    key: bytes

    @staticmethod
    def of(top: int, rows: Mask) -> "Needed":
        """Return a set with its key."""
        return Needed(top, rows, top.to_bytes(4, "little") + np.packbits(rows).tobytes())


class Footprint:
    """Counts the inputs of sets of neurons of one layer, for the array of one domain."""

    def __init__(self, layer: Layer, source: StoredMap, domain: str) -> None:
        self.layer, self.source, self.domain = layer, source, domain
        self._counted: dict[bytes, InputDemand] = {}

    def of_flat(self, start: int, stop: int) -> InputDemand:
        """Return the demand for inputs start to stop of a vector."""
        return self._by_holder(self.source.read_flat(start, stop))

    def _by_holder(self, demands: Mapping[str, Demand]) -> InputDemand:
        return InputDemand(demands[self.domain], demands[FOREIGN[self.domain]])

    def of_neurons(
        self,
        neurons: Mask,
        first_row: int,
        channels: NDArray[np.int64],
        inputs: slice | None = None,
    ) -> InputDemand:
        """Return the demand of the marked neurons: channels x rows x width of the output map.

        `first_row` is the output row of the first row given, `channels` are the output channels.
        `inputs` restricts the input channels of each group to a range.
        """
        if self.layer.groups > 1:
            return self._of_groups(neurons, first_row, channels, inputs)
        touched: Mask = np.any(neurons, axis=0)
        needed, top = dilate(self.layer, touched[None], first_row)
        if inputs is None:
            return self.of_positions([Needed.of(top, needed[0])])[0]
        read = np.arange(inputs.start, inputs.stop)
        needed = np.broadcast_to(needed, (len(read), *needed.shape[1:]))
        return self._by_holder(self.source.read(top, needed, read))

    def of_positions(self, needed: Sequence[Needed]) -> list[InputDemand]:
        """Return the demands for sets of input positions of all channels.

        Many tiles need the same: each is counted once, and all new ones together.
        """
        new = {each.key: each for each in needed if each.key not in self._counted}
        if new:
            demands = self.source.read_all_channels(
                [each.top for each in new.values()], [each.rows for each in new.values()]
            )
            for key, demand in zip(new, demands, strict=True):
                self._counted[key] = self._by_holder(demand)
        return [self._counted[each.key] for each in needed]

    def _of_groups(
        self, neurons: Mask, first_row: int, channels: NDArray[np.int64], inputs: slice | None
    ) -> InputDemand:  # fmt: skip
        """Count the inputs of a grouped convolution: each group of channels reads its own."""
        layer = self.layer
        families, index = np.unique(
            channels // (layer.channels // layer.groups), return_inverse=True
        )
        touched = np.zeros((len(families), *neurons.shape[1:]), bool)
        np.logical_or.at(touched, index, neurons)
        needed, top = dilate(layer, touched, first_row)
        size = layer.in_shape[0] // layer.groups
        members = np.arange(size)[inputs if inputs is not None else slice(None)]
        read = (families[:, None] * size + members).reshape(-1)
        if len(members) > 1:
            needed = np.repeat(needed, len(members), axis=0)
        return self._by_holder(self.source.read(top, needed, read))


def dilate(layer: Layer, outputs: Mask, first_row: int = 0) -> tuple[Mask, int]:
    """Mark the input positions that the marked output positions read.

    `outputs` is n x rows x width, its first row being output row `first_row`. Returns n x input
    rows x input width, cut to the map, and the input row at which it begins.
    """
    _, height, width = layer.in_shape
    count, rows, columns = outputs.shape
    (down, right), (reach_down, reach_right) = layer.stride, layer.dilation
    wide = (columns - 1) * right + (layer.kernel[1] - 1) * reach_right + 1
    across = np.zeros((count, rows, max(wide, width + 2 * layer.padding[1])), bool)
    for tap in range(0, layer.kernel[1] * reach_right, reach_right):
        across[:, :, tap : tap + (columns - 1) * right + 1 : right] |= outputs
    across = across[:, :, layer.padding[1] : layer.padding[1] + width]
    tall = (rows - 1) * down + (layer.kernel[0] - 1) * reach_down + 1
    reached = np.zeros((count, tall, width), bool)
    for tap in range(0, layer.kernel[0] * reach_down, reach_down):
        reached[:, tap : tap + (rows - 1) * down + 1 : down] |= across
    top = first_row * down - layer.padding[0]
    return reached[:, max(0, -top) : max(0, min(tall, height - top))], max(0, top)


def dilate_range(layer: Layer, start: int, stop: int) -> tuple[Mask, int]:
    """Mark what output positions start to stop read: rows x width, and the row where they begin.

    Without gaps between the taps, the head of a row, the rows between and the tail read one
    rectangle each.
    """
    width = layer.out_shape[2] if len(layer.out_shape) == 3 else 1
    first, last = start // width, (stop - 1) // width
    has_gaps = layer.dilation != (1, 1) or any(
        step > size for step, size in zip(layer.stride, layer.kernel, strict=True)
    )
    if has_gaps:
        outputs = np.zeros((1, (last - first + 1) * width), bool)
        outputs[0, start - first * width : stop - first * width] = True
        needed, top = dilate(layer, outputs.reshape(1, -1, width), first)
        return needed[0], top
    head, tail = start - first * width, stop - last * width
    ends = [(first, last, head, tail)] if first == last else [
        (first, first, head, width), (first + 1, last - 1, 0, width), (last, last, 0, tail),
    ]  # fmt: skip
    top, bottom = _reach(layer, 0, first, last)
    needed = np.zeros((bottom - top, layer.in_shape[2]), bool)
    for row, last_row, column, end in ends:
        if last_row >= row:
            above, below = _reach(layer, 0, row, last_row)
            left, right = _reach(layer, 1, column, end - 1)
            needed[above - top : below - top, left:right] = True
    return needed, top


def _reach(layer: Layer, axis: int, first: int, last: int) -> tuple[int, int]:
    """Return the rows (axis 0) or columns that outputs first to last read, cut to the map."""
    low = first * layer.stride[axis] - layer.padding[axis]
    high = last * layer.stride[axis] - layer.padding[axis] + layer.kernel[axis]
    size = layer.in_shape[1 + axis]
    return min(max(0, low), size), max(0, min(high, size))


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
