"""Tiles: waves, or a range of K of one wave, whose operands sit in the local buffers together.

A tile is the unit in which the controller issues work. Its waves are a rectangle of windows and
groups of channels. Of the two loop orders, windows inside groups (weights stay, inputs are read
again for each tile of groups) and groups inside windows (inputs stay, weights are read again for
each tile of windows), the one that moves fewer bytes is taken. Where even one wave's operands do
not fit, a tile holds a range of its K, and the sums stay in the lanes until the last range.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import BufferConfig
from nce_sim.errors import InputError
from nce_sim.schedule.footprint import Footprint, InputDemand
from nce_sim.schedule.waves import WavePlan
from nce_sim.workload.layer import Layer

Range = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """One tile: which waves (or part of one) it computes and what it moves.

    `chunk` is None if all chunks of the rectangle are computed. Bytes are 0 where the operands of
    the tile before are used again (`keeps_inputs`, `keeps_weights`) and, for `output_bytes`, until
    the last range of K.
    """

    windows: Range
    groups: Range
    chunk: int | None
    reduction: Range
    cycles: int
    neurons: int
    own_input_bytes: int
    foreign_input_bytes: int
    weight_bytes: int
    output_bytes: int
    keeps_inputs: bool = False
    keeps_weights: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes loaded into the input buffer."""
        return self.own_input_bytes + self.foreign_input_bytes


def tile_plan(
    plan: WavePlan,
    mask: NDArray[np.bool_],
    footprint: Footprint,
    buffers: BufferConfig,
    element_bytes: int,
) -> list[Tile]:
    """Cut a plan into tiles that fit the buffers, in the order in which they are issued.

    Raises InputError if a single step of K does not fit: demand, bound, gap and what to change.
    """
    return _Tiler(plan, mask, footprint, buffers, element_bytes).tiles()


class _Tiler:
    """Works out the tiles of one layer on one array."""

    def __init__(
        self,
        plan: WavePlan,
        mask: NDArray[np.bool_],
        footprint: Footprint,
        buffers: BufferConfig,
        element_bytes: int,
    ) -> None:
        self.plan, self.mask, self.footprint = plan, mask, footprint
        self.buffers, self.element_bytes = buffers, element_bytes
        self.layer: Layer = plan.layer
        self.windows, self.groups = plan.neurons.shape[:2]
        self.neurons = plan.neurons.sum(axis=2)
        self.cycles = plan.cycles.sum(axis=2)
        touched = np.any(mask.reshape(self.layer.channels, -1), axis=1)[plan.channel_order]
        self.channels_before = np.concatenate([[0], np.cumsum(touched)])

    def tiles(self) -> list[Tile]:
        """Return all tiles in order."""
        reduction = self.layer.reduction_length
        weights_of_group = max(
            self._weight_bytes((g, g + 1), reduction) for g in range(self.groups)
        )
        groups_at_once = (
            self.groups
            if weights_of_group == 0
            else min(self.groups, self.buffers.weight_bytes // weights_of_group)
        )
        largest = largest_window_bytes(self.layer, self.plan.window, self.element_bytes)
        widest_output = self.neurons.max(initial=0) * self.element_bytes
        if (
            groups_at_once == 0
            or largest > self.buffers.input_bytes
            or widest_output > self.buffers.output_bytes
        ):
            return list(self._split_reduction())
        while groups_at_once > 1 and self._output_bytes_of_window(groups_at_once) > (
            self.buffers.output_bytes
        ):
            groups_at_once -= 1
        group_tiles = _cut(self.groups, groups_at_once)
        window_tiles = self._window_tiles(groups_at_once)
        return self._cheaper_order(window_tiles, group_tiles)

    def _output_bytes_of_window(self, groups: int) -> int:
        """Return the largest output of one window over tiles of `groups` groups."""
        sums = [self.neurons[:, a:b].sum(axis=1).max() for a, b in _cut(self.groups, groups)]
        return int(max(sums)) * self.element_bytes

    def _window_tiles(self, groups_at_once: int) -> list[Range]:
        """Join windows while their inputs and outputs fit."""
        by_tile = np.stack(
            [self.neurons[:, a:b].sum(axis=1) for a, b in _cut(self.groups, groups_at_once)]
        )
        joined: list[Range] = []
        start = 0
        outputs = by_tile[:, 0].copy()
        for window in range(1, self.windows):
            outputs += by_tile[:, window]
            fits = (
                int(outputs.max()) * self.element_bytes <= self.buffers.output_bytes
                and self._input_bound((start, window + 1)) <= self.buffers.input_bytes
            )
            if not fits:
                joined.append((start, window))
                start, outputs = window, by_tile[:, window].copy()
        return [*joined, (start, self.windows)]

    def _cheaper_order(self, window_tiles: list[Range], group_tiles: list[Range]) -> list[Tile]:
        """Build both loop orders and return the one with less traffic; ties go to the first."""
        weights_stay = [(w, g) for g in group_tiles for w in window_tiles]
        inputs_stay = [(w, g) for w in window_tiles for g in group_tiles]
        orders = [self._rectangles(weights_stay)]
        if len(window_tiles) > 1 and len(group_tiles) > 1:
            orders.append(self._rectangles(inputs_stay))
        return min(orders, key=lambda tiles: sum(t.input_bytes + t.weight_bytes for t in tiles))

    def _rectangles(self, order: list[tuple[Range, Range]]) -> list[Tile]:
        """Build the tiles of a loop order; operands of the tile before are not loaded again."""
        tiles: list[Tile] = []
        before: tuple[Range, Range] | None = None
        # Where consecutive tiles share their windows, the first loads what all groups read.
        inputs_stay = len(order) > 1 and order[0][0] == order[1][0]
        reduction = self.layer.reduction_length
        for windows, groups in order:
            part = (slice(*windows), slice(*groups))
            neurons = int(self.neurons[part].sum())
            if neurons == 0:
                continue
            keeps_inputs = inputs_stay and before is not None and before[0] == windows
            keeps_weights = before is not None and before[1] == groups
            demand = (
                InputDemand(0, 0)
                if keeps_inputs
                else self._demand(windows, (0, self.groups) if inputs_stay else groups)
            )
            tiles.append(
                Tile(
                    windows=windows,
                    groups=groups,
                    chunk=None,
                    reduction=(0, reduction),
                    cycles=int(self.cycles[part].sum()),
                    neurons=neurons,
                    own_input_bytes=demand.own * self.element_bytes,
                    foreign_input_bytes=demand.foreign * self.element_bytes,
                    weight_bytes=0 if keeps_weights else self._weight_bytes(groups, reduction),
                    output_bytes=neurons * self.element_bytes,
                    keeps_inputs=keeps_inputs,
                    keeps_weights=keeps_weights,
                )
            )
            before = (windows, groups)
        return tiles

    def _demand(self, windows: Range, groups: Range) -> InputDemand:
        """Count the inputs of a rectangle of waves."""
        if not self.footprint.is_map:
            return self.footprint.of_vector(0, self.layer.in_shape[0])
        channels = np.sort(
            self.plan.channel_order[
                groups[0] * self.plan.group_size : groups[1] * self.plan.group_size
            ]
        )
        return self._demand_of(channels, *self._positions(windows))

    def _positions(self, windows: Range) -> Range:
        window = self.plan.window
        return windows[0] * window, min(windows[1] * window, self.layer.positions)

    def _demand_of(
        self,
        channels: NDArray[np.int64],
        start: int,
        stop: int,
        inputs: slice | None = None,
        chosen: NDArray[np.bool_] | None = None,
    ) -> InputDemand:
        """Count the inputs of channels' neurons at positions start to stop (or `chosen` there)."""
        width = self.layer.out_shape[2] if len(self.layer.out_shape) == 3 else 1
        first, last = start // width, (stop - 1) // width
        neurons = np.zeros((len(channels), (last - first + 1) * width), bool)
        offset = first * width
        flat = self.mask.reshape(self.layer.channels, -1)
        neurons[:, start - offset : stop - offset] = (
            flat[channels, start:stop] if chosen is None else chosen
        )
        shaped = neurons.reshape(len(channels), -1, width)
        return self.footprint.of_neurons(shaped, first, channels, inputs)

    def _weight_bytes(self, groups: Range, reduction: int) -> int:
        """Return the weights of the channels with neurons in groups, for `reduction` steps of K."""
        if self.layer.weights == 0:
            return 0
        size, last = self.plan.group_size, len(self.plan.channel_order)
        before = self.channels_before
        channels = before[min(groups[1] * size, last)] - before[groups[0] * size]
        return int(channels) * reduction * self.element_bytes

    def _input_bound(self, windows: Range) -> int:
        """Return an upper bound of the bytes that a range of windows reads."""
        return input_bound_bytes(self.layer, *self._positions(windows), self.element_bytes)

    def _split_reduction(self) -> Iterator[Tile]:
        """Yield ranges of K, wave by wave."""
        for wave in np.argwhere(self.plan.neurons > 0):
            window, group, chunk = (int(index) for index in wave)
            yield from self._ranges_of_wave(window, group, chunk)

    def _ranges_of_wave(self, window: int, group: int, chunk: int) -> Iterator[Tile]:
        wave = (window, group, chunk)
        neurons = int(self.plan.neurons[wave])
        taps = self.layer.window if self.footprint.is_map else 1
        length = self._range_length(wave, taps)
        for start, stop in _ranges(self.layer.reduction_length, length, taps):
            last = stop == self.layer.reduction_length
            demand = self._demand_of_range(wave, start, stop)
            weights = self._weight_bytes((group, group + 1), stop - start)
            yield Tile(
                windows=(window, window + 1),
                groups=(group, group + 1),
                chunk=chunk,
                reduction=(start, stop),
                cycles=self.plan.range_cycles(wave, stop - start, last),
                neurons=neurons if last else 0,
                own_input_bytes=demand.own * self.element_bytes,
                foreign_input_bytes=demand.foreign * self.element_bytes,
                weight_bytes=weights,
                output_bytes=neurons * self.element_bytes if last else 0,
            )

    def _demand_of_range(self, wave: tuple[int, int, int], start: int, stop: int) -> InputDemand:
        """Count the inputs of a range of a wave's K; of a map, all taps of its input channels."""
        if not self.footprint.is_map:
            return self.footprint.of_vector(start, stop)
        window, group, chunk = wave
        channels, taps = self.plan.group_channels(group), self.layer.window
        inputs = slice(start // taps, -(-stop // taps))
        chosen = self._chosen(channels, window, chunk)
        return self._demand_of(channels, *self._positions((window, window + 1)), inputs, chosen)

    def _chosen(self, channels: NDArray[np.int64], window: int, chunk: int) -> NDArray[np.bool_]:
        """Mark the neurons of one wave: channels x positions of the window."""
        start, stop = self._positions((window, window + 1))
        own = self.mask.reshape(self.layer.channels, -1)[channels, start:stop]
        if self.plan.systolic:
            return own
        return own & ((np.cumsum(own, axis=1) - 1) // self.plan.rows == chunk)

    def _range_length(self, wave: tuple[int, int, int], taps: int) -> int:
        """Return the longest range of K that fits, in whole input channels where possible."""
        step_weights = self._weight_bytes((wave[1], wave[1] + 1), 1)
        step = self._demand_of_range(wave, 0, 1)
        step_inputs = (step.own + step.foreign) * self.element_bytes
        outputs = int(self.plan.neurons[wave]) * self.element_bytes
        demands = {
            "weight": (step_weights, self.buffers.weight_bytes),
            "input": (step_inputs, self.buffers.input_bytes),
            "output": (outputs, self.buffers.output_bytes),
        }
        for name, (demand, bound) in demands.items():
            if demand > bound:
                raise InputError(
                    f"layer {self.layer.name} does not fit the {self.plan.domain} domain: one step "
                    f"of one wave needs {demand:,} bytes of the {name} buffer, which has {bound:,} "
                    f"({demand - bound:,} too few): enlarge buffers.{name}_bytes or take fewer "
                    f"lanes (array.rows, array.columns)"
                )
        by_weights = self.buffers.weight_bytes // max(1, step_weights)
        by_inputs = self.buffers.input_bytes // max(1, step_inputs) * taps
        length = min(by_weights, by_inputs, self.layer.reduction_length)
        return length // taps * taps if length >= taps else length


def _cut(count: int, length: int) -> list[Range]:
    return [(start, min(start + length, count)) for start in range(0, count, length)]


def _ranges(reduction: int, length: int, taps: int) -> Iterator[Range]:
    """Cut K into ranges of `length`; those shorter than an input channel's taps stay within it."""
    block = taps if length < taps else reduction
    for first in range(0, reduction, block):
        end = min(first + block, reduction)
        for start in range(first, end, length):
            yield start, min(start + length, end)


def largest_window_bytes(layer: Layer, window: int, element_bytes: int) -> int:
    """Return an upper bound of the bytes that any window of so many positions reads."""
    return max(
        input_bound_bytes(layer, start, min(start + window, layer.positions), element_bytes)
        for start in range(0, layer.positions, window)
    )


def input_bound_bytes(layer: Layer, start: int, stop: int, element_bytes: int) -> int:
    """Return an upper bound of the bytes that output positions start to stop read."""
    return reach(layer, start, stop) * layer.in_shape[0] * element_bytes


def reach(layer: Layer, start: int, stop: int) -> int:
    """Return an upper bound of the input positions that outputs start to stop read."""
    if len(layer.in_shape) != 3:
        return 1
    height, width = layer.in_shape[1:]
    out_width = layer.out_shape[2] if len(layer.out_shape) == 3 else 1
    tall, wide = ((layer.kernel[axis] - 1) * layer.dilation[axis] + 1 for axis in range(2))
    first, last = start // out_width, (stop - 1) // out_width
    full = min(height, (last - first) * layer.stride[0] + tall) * width

    def piece(columns: int) -> int:
        return min(height, tall) * min(width, (columns - 1) * layer.stride[1] + wide)

    if last == first:
        return piece(stop - start)
    if last == first + 1:
        head, tail = (first + 1) * out_width - start, stop - last * out_width
        return min(full, piece(head) + piece(tail))
    return full
