"""From the mask of a layer's neurons in one domain to waves: which lane computes what, how long.

Output-stationary: a lane owns one neuron until its K multiply-accumulates are done. All that
follows from the holes of the mask is counted from the mask itself.

`systolic_os`: rows are positions, columns are channels, operands are skewed; a wave takes
ceil(K / macs_per_cycle) + rows + columns - 2 cycles and holds whatever of its rows x columns block
lies in the domain. The drain hides behind the next wave.

`broadcast`: a column works on one channel, and its rows on that channel's neurons, closed up within
a window of positions. A wider window fills more lanes, but its waves hold more distinct positions,
each of which needs its own operand from the input buffer. The window is widened as long as that
saves cycles, for each layer and domain. Channels with similar numbers of neurons share a group;
those of one family (a group of a grouped convolution) stay together, for they read the same inputs.
Fully connected layers broadcast the input to all lanes, and each lane streams its own weights; a
batch may share them, with one image a row. In a global pooling each lane streams its own inputs.

Where a row of checksum lanes checks the others (`schedule/checksum.py`) nothing is closed up: rows
share positions across columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import ArrayConfig
from nce_sim.protection.schemes import ARRAY_SCHEMES, ArrayScheme
from nce_sim.schedule.checksum import ChecksumWork, of_columns, of_whole_waves, with_holes
from nce_sim.schedule.compaction import (
    Counts,
    Words,
    distinct_positions,
    neurons_by_window,
    pack_windows,
    wave_sizes,
)
from nce_sim.workload.layer import Kind, Layer

WIDEST_WINDOW_IN_ROWS = 16

Wave = tuple[int, int, int]
"""Window, group, chunk."""


@dataclass(frozen=True)
class Array:
    """The lanes that a plan is made for.

    `fill_cycles` are spent once a wave: the pipeline's depth, or the skew of a systolic array, and
    the codecs of the buffers that feed it.
    """

    config: ArrayConfig
    scheme: ArrayScheme
    systolic: bool
    fill_cycles: int

    @property
    def in_place(self) -> bool:
        """Whether rows share positions across columns, so that nothing is closed up."""
        return self.systolic or self.scheme.checksum_row

    @property
    def repeats(self) -> int:
        """How often a temporal scheme runs each wave."""
        return self.scheme.repeats

    @staticmethod
    def create(
        config: ArrayConfig, dataflow: str, codec_cycles: int, scheme: ArrayScheme | None = None
    ) -> "Array":
        """Return the array of a domain whose buffers have codecs of that latency.

        `scheme` is that of its lanes; the bundled one of the name in `config` if not given.
        """
        systolic = dataflow == "systolic_os"
        scheme = scheme or ARRAY_SCHEMES[config.scheme]
        rows = config.rows + scheme.checksum_row  # operands are skewed over the checksum row, too
        fill = rows + config.columns - 2 if systolic else config.pipeline_cycles
        return Array(config, scheme, systolic, fill + codec_cycles)

    def mac_cycles(self, length: int) -> int:
        """Return the cycles of `length` multiply-accumulates of every lane, fully fed."""
        return -(-length // self.config.macs_per_cycle)

    def fed_cycles(self, length: int, activations: Counts, weights: Counts) -> Counts:
        """Return the cycles of `length` steps that need so many words from each buffer a step."""
        compute = np.full_like(activations, self.mac_cycles(length))
        if self.systolic:
            return compute
        activation_cycles = -(-length * activations // self.config.activation_words)
        weight_cycles = -(-length * weights // self.config.weight_words)
        return np.maximum(compute, np.maximum(activation_cycles, weight_cycles))


@dataclass(frozen=True)
class WavePlan:
    """The waves of one layer on one array.

    The arrays are windows x groups x chunks: wave (w, g, i) computes the i-th `rows` neurons of
    each channel of group g within window w. `neurons` is 0 where there is no such wave.
    `channel_order` lists the channels in the order in which groups of `group_size` take them; in a
    fully connected layer or a global pooling a "channel" is one neuron and a group fills all lanes.
    `image_rows` says that the positions are the images of a batch. `cycles` include the fill and
    the repeats of temporal schemes. `checksums` is the work of a checksum row, if there is one.
    """

    layer: Layer
    array: Array
    window: int
    rows: int
    group_size: int
    channel_order: NDArray[np.int64]
    neurons: Counts
    activation_streams: Counts
    weight_streams: Counts
    cycles: Counts
    image_rows: bool = False
    checksums: ChecksumWork | None = None

    @property
    def computing_lanes(self) -> Counts:
        """Lanes that compute by wave: those with neurons, and holes that a checksum needs."""
        return self.neurons if self.checksums is None else self.checksums.lanes

    @property
    def is_vector(self) -> bool:
        """Whether each lane has a neuron of its own channel, whatever its row and column."""
        return not (self.array.systolic or self.image_rows or self.layer.kind is Kind.CONV2D)

    @cached_property
    def waves(self) -> int:
        """Number of waves."""
        return int(np.count_nonzero(self.neurons))

    @cached_property
    def total_cycles(self) -> int:
        """Cycles of all waves."""
        return int(self.cycles.sum())

    def batch_cycles(self, batch: int) -> int:
        """Return the cycles of all waves of all images."""
        return self.total_cycles * (1 if self.image_rows else batch)

    @property
    def fill_cycles(self) -> int:
        """Cycles of all waves in which the pipeline fills."""
        return self.waves * self.array.fill_cycles * self.array.repeats

    @property
    def port_cycles(self) -> int:
        """Cycles of all waves in which lanes wait for the ports of the operand buffers."""
        macs = self.array.mac_cycles(self.layer.reduction_length) * self.array.repeats
        return self.total_cycles - self.fill_cycles - self.waves * macs

    @property
    def idle_lane_cycles_by_wave(self) -> Counts:
        """Cycles of lanes that compute nothing while their array does, by wave."""
        return (self.array.config.lanes - self.computing_lanes) * self.cycles

    def group_channels(self, group: int) -> NDArray[np.int64]:
        """Return the channels of a group, one a column."""
        return self.channel_order[group * self.group_size : (group + 1) * self.group_size]

    def range_cycles(self, wave: Wave, length: int, last: bool) -> int:
        """Return the cycles of `length` of a wave's K multiply-accumulates."""
        activations, weights = self.activation_streams[wave], self.weight_streams[wave]
        cycles = self.array.fed_cycles(length, np.asarray(activations), np.asarray(weights))
        return int(cycles + (self.array.fill_cycles if last else 0)) * self.array.repeats


@dataclass(frozen=True)
class Placement:
    """Where each of a domain's neurons of a layer is computed.

    One entry a neuron, in the order of their indices within the layer: the index itself, the wave
    as (window, group, chunk), and the lane as (row, column).
    """

    neuron: NDArray[np.int64]
    window: NDArray[np.int64]
    group: NDArray[np.int64]
    chunk: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def plan_waves(
    layer: Layer,
    mask: NDArray[np.bool_],
    array: Array,
    fits: Callable[[int], bool] = lambda _: True,
    batch: int = 1,
) -> WavePlan | None:
    """Plan the waves of the neurons in `mask` (the layer's shape); None if there are none.

    `fits` tells whether the inputs of any window of so many positions fit the input buffer; wider
    windows are not considered. The plan is one image's; but of a fully connected layer with a
    batch whose images share the rows, it is the whole batch's.
    """
    if not mask.any():
        return None
    if array.systolic:
        return _plan_systolic(layer, mask, array, batch)
    if layer.kind is Kind.CONV2D and array.in_place:
        by_channel = mask.reshape(layer.channels, -1)
        return _Compaction(layer, by_channel, array, array.config.rows).plan()
    if layer.kind is Kind.CONV2D:
        return _widen_window(layer, mask.reshape(layer.channels, -1), array, fits)
    single = _plan_vector(layer, mask.reshape(-1), array)
    if layer.kind is not Kind.LINEAR or batch == 1:
        return single
    by_image = _Compaction(layer, image_rows(mask, batch), array, array.config.rows)
    shared = by_image.plan(image_rows=True)
    return shared if shared.total_cycles <= batch * single.total_cycles else single


def image_rows(mask: NDArray[np.bool_], batch: int) -> NDArray[np.bool_]:
    """Return features x images: every image of a batch has the same mask."""
    return np.repeat(mask.reshape(-1, 1), batch, axis=1)


def _widen_window(
    layer: Layer, mask: NDArray[np.bool_], array: Array, fits: Callable[[int], bool]
) -> WavePlan:
    """Double the window as long as that saves cycles.

    A window of no more positions than `activation_words` never waits for its port if all columns
    share operands, so those are compared by their waves alone, and the search does not end there.
    """
    rows = array.config.rows
    free = array.config.activation_words if layer.groups == 1 else rows
    windows = [rows]
    while windows[-1] < min(mask.shape[1], WIDEST_WINDOW_IN_ROWS * rows) and fits(2 * windows[-1]):
        windows.append(2 * windows[-1])
    candidates = [_Compaction(layer, mask, array, window) for window in windows if window <= free]
    candidates = candidates or [_Compaction(layer, mask, array, rows)]
    best = min(candidates, key=lambda each: each.least_cycles)
    plan = best.plan()
    for window in windows[len(candidates) :]:
        wider = _Compaction(layer, mask, array, window)
        if wider.least_cycles >= plan.total_cycles:
            continue
        wider_plan = wider.plan()
        if wider_plan.total_cycles >= plan.total_cycles:
            break
        plan = wider_plan
    return plan


class _Compaction:
    """The waves of a map of channels x positions, closed up within windows of one width."""

    def __init__(self, layer: Layer, mask: NDArray[np.bool_], array: Array, window: int) -> None:
        self.layer, self.array, self.window = layer, array, window
        packed = pack_windows(mask, window)
        by_window = neurons_by_window(packed)
        self.chunks = -(-int(by_window.max()) // array.config.rows)
        by_channel = by_window.sum(axis=1)
        if array.systolic:
            self.order = np.arange(len(mask))
        else:
            order = _by_family(by_channel, families_of(layer, np.arange(len(mask))))
            self.order = order[by_channel[order] > 0]
        self.packed: Words = packed[self.order]
        self.neurons, self.columns = wave_sizes(
            by_window[self.order], array.config.rows, array.config.columns, self.chunks
        )

    @property
    def least_cycles(self) -> int:
        """Cycles of all waves if no port of the input buffer ever delays them."""
        one = np.minimum(self.columns, 1)
        return int(self._cycles(one, self.columns).sum())

    def plan(self, image_rows: bool = False) -> WavePlan:
        """Count the operands of each wave, and from them its cycles."""
        families = families_of(self.layer, self.order)
        columns = self.array.config.columns
        positions = distinct_positions(
            self.packed, self.array.config.rows, columns, self.chunks, families
        )
        checksums = None
        if self.array.scheme.checksum_row:
            checksums = of_columns(self.packed, columns, families)
        weights = self.columns if self.layer.weights else np.zeros_like(self.columns)
        return WavePlan(
            layer=self.layer,
            array=self.array,
            window=self.window,
            rows=self.array.config.rows,
            group_size=columns,
            channel_order=self.order,
            neurons=self.neurons,
            activation_streams=positions,
            weight_streams=weights,
            cycles=self._cycles(positions, weights),
            image_rows=image_rows,
            checksums=checksums,
        )

    def _cycles(self, activations: Counts, weights: Counts) -> Counts:
        return _plan_cycles(self.layer, self.array, self.neurons, activations, weights)


def _plan_systolic(layer: Layer, mask: NDArray[np.bool_], array: Array, batch: int) -> WavePlan:
    """Cut channels x positions into blocks of columns x rows; empty blocks are skipped."""
    shared = layer.kind is Kind.LINEAR and batch > 1
    by_channel = image_rows(mask, batch) if shared else mask.reshape(layer.channels, -1)
    return _Compaction(layer, by_channel, array, array.config.rows).plan(image_rows=shared)


def _plan_vector(layer: Layer, mask: NDArray[np.bool_], array: Array) -> WavePlan:
    """Give each lane one neuron of a fully connected layer or a global pooling."""
    lanes = array.config.lanes
    order = np.flatnonzero(mask)
    groups = -(-len(order) // lanes)
    neurons = np.full((1, groups, 1), lanes)
    neurons[0, -1, 0] = len(order) - lanes * (groups - 1)
    checked, streams_weights = array.scheme.checksum_row, layer.kind is Kind.LINEAR
    if streams_weights:  # and the checksum lane the sum of the others' weights
        activations, weights = np.ones_like(neurons), neurons + checked
    else:
        activations, weights = neurons, np.zeros_like(neurons)
    return WavePlan(
        layer=layer,
        array=array,
        window=1,
        rows=1,
        group_size=lanes,
        channel_order=order,
        neurons=neurons,
        activation_streams=activations,
        weight_streams=weights,
        cycles=_plan_cycles(layer, array, neurons, activations, weights),
        checksums=of_whole_waves(neurons, not streams_weights) if checked else None,
    )


def _by_family(neurons: Counts, families: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the channels by their numbers of neurons, those of a family side by side.

    Families follow one another by their own numbers of neurons, so that a wave holds channels of as
    few families and as similar numbers as can be.
    """
    if families is None:
        return np.argsort(-neurons, kind="stable")
    of_family = np.zeros(len(neurons), np.int64)
    np.add.at(of_family, families, neurons)
    return np.lexsort((-neurons, families, -of_family[families]))


def families_of(layer: Layer, channels: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the group of a grouped convolution that each channel belongs to; None: one for all."""
    return None if layer.groups == 1 else channels // (layer.channels // layer.groups)


def _plan_cycles(
    layer: Layer, array: Array, neurons: Counts, activations: Counts, weights: Counts
) -> Counts:
    cycles = array.fed_cycles(layer.reduction_length, activations, weights) + array.fill_cycles
    return np.where(neurons > 0, cycles * array.repeats, 0)


def place_neurons(plan: WavePlan, mask: NDArray[np.bool_]) -> Placement:
    """Return wave and lane of every neuron in `mask`, the mask that the plan was made from.

    Where the rows are the images of a batch, these are the neurons of its first image.
    """
    by_channel = _channel_rows(plan, mask)
    channel, position = np.nonzero(by_channel)
    place_in_order = np.empty(len(by_channel), np.int64)
    place_in_order[plan.channel_order] = np.arange(len(plan.channel_order))
    place = place_in_order[channel]
    window = position // plan.window
    if plan.array.in_place and not plan.is_vector:
        row, chunk = position % plan.rows, np.zeros_like(position)
    else:
        chunk, row = np.divmod(_ranks(by_channel, plan.window)[channel, position], plan.rows)
    column = place % plan.group_size
    if plan.is_vector:
        row, column = np.divmod(column, plan.array.config.columns)
    return Placement(
        neuron=channel * by_channel.shape[1] + position,
        window=window,
        group=place // plan.group_size,
        chunk=chunk,
        row=row,
        column=column,
    )


def holes(plan: WavePlan, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the neurons (the layer's shape) that lanes compute though they are not in `mask`.

    Only checksums need them; their places follow from `place_neurons`.
    """
    if plan.checksums is None or plan.is_vector or plan.image_rows:
        return np.zeros_like(mask)
    by_channel = _channel_rows(plan, mask)
    families = families_of(plan.layer, np.arange(len(by_channel)))
    computed = with_holes(by_channel, plan.channel_order, plan.group_size, plan.rows, families)
    return (computed & ~by_channel).reshape(mask.shape)


def _channel_rows(plan: WavePlan, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask as channels x positions, as the plan sees them."""
    if plan.layer.kind is Kind.CONV2D or plan.array.systolic:
        return mask.reshape(plan.layer.channels, -1)
    return mask.reshape(-1, 1)


def _ranks(mask: NDArray[np.bool_], window: int) -> NDArray[np.int64]:
    """Return the rank of each neuron among those of its channel and window."""
    before: Counts = np.cumsum(mask, axis=1, dtype=np.int64) - mask
    starts = np.arange(mask.shape[1]) // window * window
    return np.asarray(before - before[:, starts], np.int64)
