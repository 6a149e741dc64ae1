"""From the mask of a layer's neurons in one domain to waves: which lane computes what, how long.

Output-stationary: a lane owns one neuron until its K multiply-accumulates are done. All that
follows from the holes of the mask is counted from the mask itself.

`systolic_os`: rows are positions, columns are channels, operands are skewed; a wave takes
ceil(K / macs_per_cycle) + rows + columns - 2 cycles and holds whatever of its rows x columns block
lies in the domain. The drain hides behind the next wave.

`broadcast`: a column works on one channel, and its rows on that channel's neurons, closed up within
a window of positions. A wider window fills more lanes, but its waves hold more distinct positions,
each of which needs its own operand from the input buffer. The window that takes the fewest cycles
is chosen for each layer and domain. Channels with similar numbers of neurons share a group.
Fully connected layers broadcast the input to all lanes, and each lane streams its own weights; in
a global pooling each lane streams its own inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import ArrayConfig
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.workload.layer import Kind, Layer

WIDEST_WINDOW_IN_ROWS = 16

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class WavePlan:
    """The waves of one layer on one array.

    The arrays are windows x groups x chunks: wave (w, g, i) computes the i-th `rows` neurons of
    each channel of group g within window w. `neurons` is 0 where there is no such wave.
    `channel_order` lists the channels in the order in which groups of `group_size` take them; in a
    fully connected layer or a global pooling a "channel" is one neuron and a group fills all lanes.
    """

    layer: Layer
    domain: str
    array: ArrayConfig
    systolic: bool
    window: int
    rows: int
    group_size: int
    channel_order: NDArray[np.int64]
    neurons: Counts
    activation_streams: Counts
    weight_streams: Counts
    cycles: Counts

    @property
    def waves(self) -> int:
        """Number of waves."""
        return int(np.count_nonzero(self.neurons))

    @property
    def idle_lane_cycles(self) -> int:
        """Cycles of lanes without a neuron while their array computes."""
        return int(((self.array.lanes - self.neurons) * self.cycles).sum())

    @property
    def activation_reads(self) -> int:
        """Words read from the input buffer, repeats of temporal schemes included."""
        return self._reads(self.activation_streams)

    @property
    def weight_reads(self) -> int:
        """Words read from the weight buffer, repeats of temporal schemes included."""
        return self._reads(self.weight_streams)

    def _reads(self, streams: Counts) -> int:
        repeats = ARRAY_SCHEMES[self.array.scheme].repeats
        return int(streams.sum()) * self.layer.reduction_length * repeats

    def group_channels(self, group: int) -> NDArray[np.int64]:
        """Return the channels of a group, one a column."""
        return self.channel_order[group * self.group_size : (group + 1) * self.group_size]

    def range_cycles(self, wave: tuple[int, int, int], length: int, last: bool) -> int:
        """Return the cycles of `length` of a wave's K multiply-accumulates."""
        activations, weights = self.activation_streams[wave], self.weight_streams[wave]
        cycles = _wave_cycles(
            self.array, self.systolic, length, np.asarray(activations), np.asarray(weights)
        )
        fill = _fill_cycles(self.array, self.systolic)
        repeats = ARRAY_SCHEMES[self.array.scheme].repeats
        return int(cycles + (fill if last else 0)) * repeats


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
    domain: str,
    mask: NDArray[np.bool_],
    array: ArrayConfig,
    dataflow: str,
    fits: Callable[[int], bool] = lambda _: True,
) -> WavePlan | None:
    """Plan the waves of the neurons in `mask` (the layer's shape); None if there are none.

    `fits` tells whether the inputs of any window of so many positions fit the input buffer; wider
    windows are not considered. Of windows that take equally many cycles, the narrowest is taken.
    """
    rows_of_channels = channel_rows(layer, mask, dataflow)
    if not rows_of_channels.any():
        return None
    if dataflow == "systolic_os":
        return _plan_systolic(layer, domain, rows_of_channels, array)
    if layer.kind is not Kind.CONV2D:
        return _plan_broadcast(layer, domain, rows_of_channels, array, window=1)
    positions = rows_of_channels.shape[1]
    windows = [array.rows]
    while windows[-1] < min(positions, WIDEST_WINDOW_IN_ROWS * array.rows):
        windows.append(2 * windows[-1])
    windows = [window for window in windows if fits(window)] or windows[:1]
    plans = [_plan_broadcast(layer, domain, rows_of_channels, array, window) for window in windows]
    return min(plans, key=lambda plan: int(plan.cycles.sum()))


def channel_rows(layer: Layer, mask: NDArray[np.bool_], dataflow: str) -> NDArray[np.bool_]:
    """Return the mask as channels x positions, as the dataflow sees them."""
    if layer.kind is Kind.CONV2D or dataflow == "systolic_os":
        return mask.reshape(layer.channels, -1)
    return mask.reshape(-1, 1)


def _plan_systolic(
    layer: Layer, domain: str, mask: NDArray[np.bool_], array: ArrayConfig
) -> WavePlan:
    """Cut channels x positions into blocks of columns x rows; empty blocks are skipped."""
    blocks = _padded(mask, array.columns, array.rows)  # groups, columns, windows, rows
    neurons = blocks.sum(axis=(1, 3)).T[:, :, None]
    distinct = blocks.any(axis=1).sum(axis=-1).T[:, :, None]
    columns = blocks.any(axis=3).sum(axis=1).T[:, :, None]
    return WavePlan(
        layer=layer,
        domain=domain,
        array=array,
        systolic=True,
        window=array.rows,
        rows=array.rows,
        group_size=array.columns,
        channel_order=np.arange(len(mask)),
        neurons=neurons,
        activation_streams=distinct * _operand_sets(layer, columns),
        weight_streams=columns if layer.weights else np.zeros_like(columns),
        cycles=_plan_cycles(layer, array, True, neurons, distinct, columns),
    )


def _plan_broadcast(
    layer: Layer, domain: str, mask: NDArray[np.bool_], array: ArrayConfig, window: int
) -> WavePlan:
    """Close up each channel's neurons within windows of positions; group similar channels."""
    is_map = layer.kind is Kind.CONV2D
    rows = array.rows if is_map else 1
    group_size = array.columns if is_map else array.lanes
    by_channel = mask.sum(axis=1)
    order = np.argsort(-by_channel, kind="stable")
    order = order[: np.count_nonzero(by_channel)]
    blocks = _padded(mask[order], group_size, window)  # groups, columns, windows, window
    counts = blocks.sum(axis=3)
    chunks = -(-int(counts.max()) // rows)
    starts = np.arange(chunks) * rows
    in_chunk = np.clip(counts[..., None] - starts, 0, rows)  # groups, columns, windows, chunks
    neurons = in_chunk.sum(axis=1).transpose(1, 0, 2)
    columns = (in_chunk > 0).sum(axis=1).transpose(1, 0, 2)
    distinct = _distinct_positions(blocks, rows, chunks)
    if layer.kind is Kind.LINEAR:
        activations, weights = (neurons > 0).astype(np.int64), neurons
    elif layer.kind is Kind.AVERAGE_POOL:
        activations, weights = neurons, np.zeros_like(neurons)
    else:
        activations, weights = distinct * _operand_sets(layer, columns), columns
    return WavePlan(
        layer=layer,
        domain=domain,
        array=array,
        systolic=False,
        window=window,
        rows=rows,
        group_size=group_size,
        channel_order=order,
        neurons=neurons,
        activation_streams=activations,
        weight_streams=weights,
        cycles=_plan_cycles(layer, array, False, neurons, activations, weights),
    )


def _padded(mask: NDArray[np.bool_], group_size: int, window: int) -> NDArray[np.bool_]:
    """Return channels x positions as groups x columns x windows x positions, padded by False."""
    channels, positions = mask.shape
    groups, windows = -(-channels // group_size), -(-positions // window)
    padded = np.zeros((groups * group_size, windows * window), bool)
    padded[:channels, :positions] = mask
    return padded.reshape(groups, group_size, windows, window)


def _distinct_positions(blocks: NDArray[np.bool_], rows: int, chunks: int) -> Counts:
    """Count the positions that each wave touches; windows x groups x chunks."""
    groups, _, windows, window = blocks.shape
    found = np.empty((windows, groups, chunks), np.int64)
    if chunks == 1:
        found[:, :, 0] = blocks.any(axis=1).sum(axis=-1).T
        return found
    narrow = np.int16 if window <= np.iinfo(np.int16).max else np.int32
    chunk_of = (np.cumsum(blocks, axis=3, dtype=narrow) - 1) // rows
    for group in range(groups):
        _, window_index, position = np.nonzero(blocks[group])
        touched = np.zeros((windows, chunks, window), bool)
        touched[window_index, chunk_of[group][blocks[group]], position] = True
        found[:, group] = touched.sum(axis=2)
    return found


def _operand_sets(layer: Layer, columns: Counts) -> Counts:
    """Return how many different inputs a position's columns need: one for each group of channels.

    Columns of a grouped convolution that read the same group could share its operands; the count
    is the upper bound that assumes as many groups in a wave as it has columns.
    """
    return np.minimum(columns, layer.groups)


def _fill_cycles(array: ArrayConfig, systolic: bool) -> int:
    return array.rows + array.columns - 2 if systolic else array.pipeline_cycles


def _wave_cycles(
    array: ArrayConfig, systolic: bool, length: int, activations: Counts, weights: Counts
) -> Counts:
    """Return the cycles of `length` multiply-accumulates, without filling the pipeline."""
    compute = -(-length // array.macs_per_cycle)
    if systolic:
        return np.full_like(activations, compute)
    activation_cycles = -(-length * activations // array.activation_words)
    fed = np.maximum(activation_cycles, -(-length * weights // array.weight_words))
    return np.maximum(compute, fed)


def _plan_cycles(
    layer: Layer, array: ArrayConfig, systolic: bool, neurons: Counts, activations: Counts,
    weights: Counts,
) -> Counts:  # fmt: skip
    cycles = _wave_cycles(array, systolic, layer.reduction_length, activations, weights)
    cycles = (cycles + _fill_cycles(array, systolic)) * ARRAY_SCHEMES[array.scheme].repeats
    return np.where(neurons > 0, cycles, 0)


def place_neurons(plan: WavePlan, mask: NDArray[np.bool_]) -> Placement:
    """Return wave and lane of every neuron in `mask`, the mask that the plan was made from."""
    dataflow = "systolic_os" if plan.systolic else "broadcast"
    by_channel = channel_rows(plan.layer, mask, dataflow)
    channel, position = np.nonzero(by_channel)
    place_in_order = np.empty(len(by_channel), np.int64)
    place_in_order[plan.channel_order] = np.arange(len(plan.channel_order))
    place = place_in_order[channel]
    window = position // plan.window
    if plan.systolic:
        row, chunk = position % plan.rows, np.zeros_like(position)
    else:
        padded = _padded(by_channel, 1, plan.window)[:, 0]
        before = np.cumsum(padded, axis=2) - 1
        rank_in_window = before[channel, window, position % plan.window]
        chunk, row = np.divmod(rank_in_window, plan.rows)
    column = place % plan.group_size
    if plan.group_size == plan.array.lanes and not plan.systolic:
        row, column = np.divmod(column, plan.array.columns)
    return Placement(
        neuron=channel * by_channel.shape[1] + position,
        window=window,
        group=place // plan.group_size,
        chunk=chunk,
        row=row,
        column=column,
    )
