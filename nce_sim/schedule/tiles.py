"""Tiles: waves, or a range of K of one wave, whose operands sit in the local buffers together.

A tile is the unit in which the controller issues work. Its waves are a rectangle of windows and
groups of channels. Of the two loop orders, windows inside groups (weights stay, inputs are read
again for each tile of groups) and groups inside windows (inputs stay, weights are read again for
each tile of windows), the one that moves fewer bytes is taken. Where even one wave's operands do
not fit, a tile holds a range of its K, and the sums stay in the lanes until the last range.
The images of a batch follow one another while the weights stay.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import BufferConfig
from nce_sim.errors import InputError
from nce_sim.schedule.domains import FOREIGN
from nce_sim.schedule.footprint import Footprint, InputDemand, Needed, dilate, dilate_range
from nce_sim.schedule.layout import Demand, Region, StoredMap, rows_opened
from nce_sim.schedule.waves import Wave, WavePlan, families_of
from nce_sim.workload.layer import Kind, Layer

Range = tuple[int, int]

BIAS_BYTES = 4
"""A bias is a start value of the 32-bit sums."""

WEIGHTS, INPUTS, CROSSINGS, OUTPUTS = "weights", "inputs", "crossings", "outputs"
"""What a stream carries. Crossings are inputs that the other domain holds."""


class Stream(NamedTuple):
    """Data that move for one tile.

    `domain` holds the data: in its region of the external memory, or on the chip in its resident
    buffer. `moved_bytes` and `rows_opened` are as in `Demand`.
    """

    what: str
    domain: str
    external: bool
    data_bytes: int
    moved_bytes: int
    rows_opened: int


class Tile(NamedTuple):
    """One tile: which waves (or part of one) of which image it computes and what it moves.

    `chunk` is None if all chunks of the rectangle are computed; `image` is None if its rows are the
    images. There are no streams where the operands of the tile before are used again
    (`keeps_inputs`, `keeps_weights`), and none of outputs until the last range of K.
    """

    image: int | None
    windows: Range
    groups: Range
    chunk: int | None
    reduction: Range
    cycles: int
    neurons: int
    loads: tuple[Stream, ...]
    stores: tuple[Stream, ...]
    keeps_inputs: bool = False
    keeps_weights: bool = False

    def data_bytes(self, what: str) -> int:
        """Return the bytes of data that it loads or stores of one kind."""
        streams = self.stores if what == OUTPUTS else self.loads
        return sum(stream.data_bytes for stream in streams if stream.what == what)

    @property
    def input_bytes(self) -> int:
        """Bytes loaded into the input buffer."""
        return self.data_bytes(INPUTS) + self.data_bytes(CROSSINGS)

    @property
    def moved_bytes(self) -> int:
        """Bytes that all its loads move."""
        return sum(stream.moved_bytes for stream in self.loads)


@dataclass(frozen=True)
class WeightStore:
    """Where an array's weights come from.

    In schedule order a tile's weights are one segment; in the order of another array's schedule,
    each channel's are.
    """

    domain: str
    region: Region
    schedule_order: bool

    def stream(self, channels: int, bytes_of_channel: int) -> Stream:
        """Return the stream of so many channels' weights."""
        data = channels * bytes_of_channel
        segments, size = (1, data) if self.schedule_order else (channels, bytes_of_channel)
        each = self.region.segment(size)
        return Stream(
            WEIGHTS,
            self.domain,
            True,
            data,
            segments * each.moved_bytes,
            segments * each.rows_opened,
        )


@dataclass(frozen=True)
class Ends:
    """Where the streams of one domain's neurons in one layer begin and end.

    `array` is the domain of the lanes, `domain` that of the neurons; they differ where PPEs compute
    unprotected neurons.
    """

    array: str
    domain: str
    footprint: Footprint
    outputs: StoredMap
    weights: WeightStore

    @property
    def outputs_external(self) -> bool:
        """Whether the outputs go to external memory."""
        return self.outputs.is_external(self.domain)


def tile_plan(
    plan: WavePlan,
    mask: NDArray[np.bool_],
    ends: Ends,
    buffers: BufferConfig,
    element_bytes: int,
    batch: int = 1,
) -> list[Tile]:
    """Cut a plan into tiles that fit the buffers, in the order in which they are issued.

    Raises InputError if a single step of K does not fit: demand, bound, gap and what to change.
    """
    return _Tiler(plan, mask, ends, buffers, element_bytes, batch).tiles()


def split_waves(plan: WavePlan, tiles: Iterable[Tile]) -> NDArray[np.bool_]:
    """Mark the waves (windows x groups x chunks) that run as ranges of K."""
    split = np.zeros(plan.neurons.shape, bool)
    for tile in tiles:
        if tile.chunk is not None:
            split[tile.windows[0], tile.groups[0], tile.chunk] = True
    return split


class _Tiler:
    """Works out the tiles of one layer on one array."""

    def __init__(
        self,
        plan: WavePlan,
        mask: NDArray[np.bool_],
        ends: Ends,
        buffers: BufferConfig,
        element_bytes: int,
        batch: int,
    ) -> None:
        self.plan, self.mask, self.ends, self.buffers = plan, mask, ends, buffers
        self.element_bytes = element_bytes
        self.layer: Layer = plan.layer
        self.is_map = len(self.layer.in_shape) == 3
        self.has_weights, self.length = self.layer.weights > 0, self.layer.reduction_length
        self.images: list[int | None] = [None] if plan.image_rows else list(range(batch))
        self.positions = batch if plan.image_rows else self.layer.positions
        self.windows, self.groups = plan.neurons.shape[:2]
        self.neurons = plan.neurons.sum(axis=2)
        self.neurons_up_to = _up_to(self.neurons)
        self.cycles_up_to = _up_to(plan.cycles.sum(axis=2))
        self._whole: dict[Range, Needed] = {}
        self._touched: dict[Range, tuple[NDArray[np.bool_], list[int]]] = {}
        touched = np.any(mask.reshape(self.layer.channels, -1), axis=1)
        self._is_held = touched[plan.channel_order]
        self._families = (
            families_of(self.layer, plan.channel_order) if self.layer.kind is Kind.CONV2D else None
        )
        self.channels_before = np.concatenate([[0], np.cumsum(self._is_held)]).tolist()

    def tiles(self) -> list[Tile]:
        """Return all tiles in order.

        Groups of waves that read other families of a grouped convolution are tiled apart where that
        loads less: their tiles hold the inputs of these families alone.
        """
        together = self._section((0, self.groups))
        sections = self._sections()
        if len(sections) == 1:
            return together
        apart = [tile for section in sections for tile in self._section(section)]
        return min(together, apart, key=lambda tiles: sum(tile.moved_bytes for tile in tiles))

    def _sections(self) -> list[Range]:
        """Cut the groups where the families that they read change."""
        starts, before = [0], frozenset[int]()
        for group in range(self.groups):
            families = self._families_read((group, group + 1))
            if before and families and families != before:
                starts.append(group)
            before = families or before
        return list(pairwise([*starts, self.groups]))

    def _families_read(self, groups: Range) -> frozenset[int]:
        """Return the families of the channels with neurons in a range of groups."""
        if self._families is None:
            return frozenset({0})
        channels = slice(groups[0] * self.plan.group_size, groups[1] * self.plan.group_size)
        return frozenset(self._families[channels][self._is_held[channels]].tolist())

    def _inputs_read(self, groups: Range) -> int:
        """Return the input channels (or features) that a range of groups reads."""
        inputs = self.layer.in_shape[0]
        if self._families is None:
            return inputs
        return inputs // self.layer.groups * len(self._families_read(groups))

    def _section(self, section: Range) -> list[Tile]:
        """Return the tiles of a range of groups."""
        first, last = section
        weights_of_group = max(self._weight_bytes((g, g + 1)) for g in range(first, last))
        groups_at_once = (
            last - first
            if weights_of_group == 0
            else min(last - first, self.buffers.weight_bytes // weights_of_group)
        )
        inputs = self._inputs_read(section)
        largest = self._largest_window_bytes(inputs)
        widest_output = int(self.neurons[:, first:last].max(initial=0)) * self.element_bytes
        if (
            groups_at_once == 0
            or largest > self.buffers.input_bytes
            or widest_output > self.buffers.output_bytes
        ):
            return [tile for image in self.images for tile in self._split_reduction(image, section)]
        group_tiles = _cut(section, groups_at_once)
        while groups_at_once > 1 and self._output_bytes_of_window(group_tiles) > (
            self.buffers.output_bytes
        ):
            groups_at_once -= 1
            group_tiles = _cut(section, groups_at_once)
        return self._cheaper_order(self._window_tiles(group_tiles, inputs), group_tiles)

    def _largest_window_bytes(self, inputs: int) -> int:
        if not self.is_map:
            images = min(self.plan.window, self.positions) if self.plan.image_rows else 1
            return images * inputs * self.element_bytes
        return largest_window_bytes(self.layer, self.plan.window, inputs, self.element_bytes)

    def _output_bytes_of_window(self, group_tiles: list[Range]) -> int:
        """Return the largest output of one window over tiles of groups."""
        sums = [self.neurons[:, a:b].sum(axis=1).max() for a, b in group_tiles]
        return int(max(sums)) * self.element_bytes

    def _window_tiles(self, group_tiles: list[Range], inputs: int) -> list[Range]:
        """Join windows while so many channels of inputs, and the outputs, fit."""
        table = self.neurons_up_to
        up_to = [[row[b] - row[a] for row in table] for a, b in group_tiles]
        most = self.buffers.output_bytes // self.element_bytes
        joined: list[Range] = []
        start = 0
        while start < self.windows:
            stop = min(bisect_right(held, held[start] + most) - 1 for held in up_to)
            stop = max(start + 1, min(stop, self.windows))
            guess = joined[-1][1] - joined[-1][0] if joined else 1
            stop = self._last_that_fits(start, stop, start + guess, inputs)
            joined.append((start, stop))
            start = stop
        return joined

    def _last_that_fits(self, start: int, stop: int, guess: int, inputs: int) -> int:
        """Return the end of the longest range of windows whose inputs fit, from a first guess."""
        room = self.buffers.input_bytes // (inputs * self.element_bytes)
        end = min(guess, stop)
        while end < stop and self._read_bound((start, end + 1)) <= room:
            end += 1
        while end > start + 1 and self._read_bound((start, end)) > room:
            end -= 1
        return end

    def _read_bound(self, windows: Range) -> int:
        """Return an upper bound of the positions (or images) that a range of windows reads."""
        start, stop = self.positions_of(windows)
        return stop - start if self.plan.image_rows else reach(self.layer, start, stop)

    def _cheaper_order(self, window_tiles: list[Range], group_tiles: list[Range]) -> list[Tile]:
        """Build the loop order with less traffic; of equals, the weights stay."""
        build = _Rectangles(self, window_tiles, group_tiles)
        places = [(image, w) for image in self.images for w in range(len(window_tiles))]
        several = len(places) > 1 and len(group_tiles) > 1
        if len(places) == 1 or (
            several and build.moved_if_inputs_stay() < build.moved_if_weights_stay()
        ):
            order = [(*place, g) for place in places for g in range(len(group_tiles))]
            return build.tiles(order, inputs_stay=True)
        order = [(*place, g) for g in range(len(group_tiles)) for place in places]
        return build.tiles(order, inputs_stay=False)

    @cached_property
    def _touched_by_group(self) -> NDArray[np.bool_]:
        size, order = self.plan.group_size, self.plan.channel_order
        by_channel = self.mask.reshape(self.layer.channels, -1)
        return np.stack(
            [
                np.any(by_channel[np.sort(order[g * size : (g + 1) * size])], axis=0)
                for g in range(self.groups)
            ]
        )

    def demands(self, tiles: list[tuple[Range, Range]]) -> list[InputDemand]:
        """Count the inputs of rectangles of windows and groups of waves."""
        if self.is_map and self.layer.groups == 1:
            return self.ends.footprint.of_positions(
                [self._needed(*self.positions_of(windows), groups) for windows, groups in tiles]
            )
        return [self._demand(windows, groups) for windows, groups in tiles]

    def _needed(self, start: int, stop: int, groups: Range) -> Needed:
        """Mark the inputs of a range of positions."""
        if groups not in self._touched:
            touched = np.any(self._touched_by_group[groups[0] : groups[1]], axis=0)
            self._touched[groups] = touched, np.concatenate([[0], np.cumsum(touched)]).tolist()
        touched, up_to = self._touched[groups]
        if up_to[stop] - up_to[start] < stop - start:
            rows, first = self._in_rows(touched[None, start:stop], start)
            needed, top = dilate(self.layer, rows, first)
            return Needed.of(top, needed[0])
        if (start, stop) not in self._whole:
            needed, top = dilate_range(self.layer, start, stop)
            self._whole[start, stop] = Needed.of(top, needed)
        return self._whole[start, stop]

    def _demand(self, windows: Range, groups: Range) -> InputDemand:
        start, stop = self.positions_of(windows)
        if self.is_map:
            return self._demand_of(self.group_channels(groups), start, stop)
        images = stop - start if self.plan.image_rows else 1
        return _times(self.ends.footprint.of_flat(0, self.layer.in_shape[0]), images)

    def group_channels(self, groups: Range) -> NDArray[np.int64]:
        """Return the channels of a range of groups, sorted."""
        size = self.plan.group_size
        return np.sort(self.plan.channel_order[groups[0] * size : groups[1] * size])

    def positions_of(self, windows: Range) -> Range:
        window = self.plan.window
        return windows[0] * window, min(windows[1] * window, self.positions)

    def _demand_of(
        self,
        channels: NDArray[np.int64],
        start: int,
        stop: int,
        inputs: slice | None = None,
        chosen: NDArray[np.bool_] | None = None,
    ) -> InputDemand:
        """Count the inputs of channels' neurons at positions start to stop (or `chosen` there)."""
        own = self.mask.reshape(self.layer.channels, -1)[channels, start:stop]
        rows, first = self._in_rows(own if chosen is None else chosen, start)
        return self.ends.footprint.of_neurons(rows, first, channels, inputs)

    def _in_rows(self, neurons: NDArray[np.bool_], start: int) -> tuple[NDArray[np.bool_], int]:
        """Return n x positions from `start` on as n x rows x width, and the first row."""
        width = self.layer.out_shape[2] if len(self.layer.out_shape) == 3 else 1
        stop = start + neurons.shape[1]
        first, last = start // width, (stop - 1) // width
        rows = np.zeros((len(neurons), (last - first + 1) * width), bool)
        rows[:, start - first * width : stop - first * width] = neurons
        return rows.reshape(len(neurons), -1, width), first

    def channels_in(self, groups: Range) -> int:
        """Return the number of channels with neurons in a range of groups."""
        size, last = self.plan.group_size, len(self.plan.channel_order)
        before = self.channels_before
        return int(before[min(groups[1] * size, last)] - before[groups[0] * size])

    def _weight_bytes(self, groups: Range) -> int:
        return self.channels_in(groups) * self._bytes_of_channel((0, self.length))

    def _bytes_of_channel(self, reduction: Range) -> int:
        """Return the bytes of one channel's weights for a range of K; the bias comes first."""
        if not self.has_weights:
            return 0
        bias = BIAS_BYTES if self.layer.bias and reduction[0] == 0 else 0
        return (reduction[1] - reduction[0]) * self.element_bytes + bias

    def weight_streams(self, groups: Range, reduction: Range) -> tuple[Stream, ...]:
        """Return the stream of the weights of groups for a range of K, if there are any."""
        weights = self._bytes_of_channel(reduction)
        if not weights:
            return ()
        return (self.ends.weights.stream(self.channels_in(groups), weights),)

    def input_streams(self, demand: InputDemand) -> tuple[Stream, ...]:
        """Return the streams of the inputs demanded, by the domain that holds them."""
        source, here = self.ends.footprint.source, self.ends.array
        return tuple(
            Stream(
                what, holder, source.is_external(holder), asked.elements * self.element_bytes,
                asked.moved_bytes, asked.rows_opened,
            )
            for what, holder, asked in (
                (INPUTS, here, demand.own),
                (CROSSINGS, FOREIGN[here], demand.foreign),
            )
            if asked.elements
        )  # fmt: skip

    def stores(self, neurons: int, moved_bytes: int, opened: int) -> tuple[Stream, ...]:
        """Return the stream of a tile's outputs."""
        data = neurons * self.element_bytes
        external = self.ends.outputs_external
        return (Stream(OUTPUTS, self.ends.domain, external, data, moved_bytes, opened),)

    def output_demands(
        self, window_tiles: list[Range], group_tiles: list[Range]
    ) -> NDArray[np.int64]:
        """Return what outputs move: (bytes, rows opened) x tiles of windows x tiles of groups."""
        if not self.ends.outputs_external:
            neurons = [
                [_rectangle(self.neurons_up_to, w, g) for g in group_tiles] for w in window_tiles
            ]
            moved = np.asarray(neurons, np.int64) * self.element_bytes
            return np.stack([moved, np.zeros_like(moved)])
        if len(self.layer.out_shape) == 1 or self.plan.image_rows:
            return self._vector_outputs(window_tiles, group_tiles)
        if self.ends.outputs.regions[self.ends.domain].holes:
            return self._outputs_with_holes(window_tiles, group_tiles)
        stored, domain = self.ends.outputs, self.ends.domain
        ranges = [self.positions_of(windows) for windows in window_tiles]
        up_to = group_tiles[-1][1] * self.plan.group_size
        bursts = _range_bursts(stored, domain, ranges)[self.plan.channel_order[:up_to]]
        bursts *= self._is_held[:up_to, None]
        starts = [g[0] * self.plan.group_size for g in group_tiles]
        moved = np.add.reduceat(bursts, starts, axis=0).T * stored.regions[domain].burst_bytes
        channels = np.add.reduceat(bursts > 0, starts, axis=0, dtype=np.int64).T
        opened = np.zeros_like(moved)
        for g, groups in enumerate(group_tiles):
            if not channels[:, g].any():
                continue
            first, last = self._rows_written(ranges, groups)
            for w in np.flatnonzero(channels[:, g]):
                opened[w, g] = rows_opened(
                    int(channels[w, g]), stored.height, int(first[w]), int(last[w]) + 1,
                    stored.width, stored.regions[domain],
                )  # fmt: skip
        return np.stack([moved, opened])

    def _rows_written(
        self, ranges: list[Range], groups: Range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and the last row of the map with neurons of groups, by range."""
        written = np.flatnonzero(np.any(self._touched_by_group[groups[0] : groups[1]], axis=0))
        starts, stops = np.asarray(ranges).T
        first = written[np.minimum(np.searchsorted(written, starts), len(written) - 1)]
        last = written[np.maximum(np.searchsorted(written, stops) - 1, 0)]
        return first // self.ends.outputs.width, last // self.ends.outputs.width

    def _outputs_with_holes(
        self, window_tiles: list[Range], group_tiles: list[Range]
    ) -> NDArray[np.int64]:
        """Count tile by tile: which bursts a piece of a row touches depends on its elements."""
        found = np.zeros((2, len(window_tiles), len(group_tiles)), np.int64)
        for g, groups in enumerate(group_tiles):
            channels = self.group_channels(groups)
            for w, windows in enumerate(window_tiles):
                start, stop = self.positions_of(windows)
                own = self.mask.reshape(self.layer.channels, -1)[channels, start:stop]
                written = self._written(channels, start, own)
                found[:, w, g] = written.moved_bytes, written.rows_opened
        return found

    def _vector_outputs(
        self, window_tiles: list[Range], group_tiles: list[Range]
    ) -> NDArray[np.int64]:
        """Outputs of a vector: one segment an image, cut by tiles."""
        found = np.zeros((2, len(window_tiles), len(group_tiles)), np.int64)
        region = self.ends.outputs.regions[self.ends.domain]
        for w, windows in enumerate(window_tiles):
            start, stop = self.positions_of(windows)
            images = stop - start if self.plan.image_rows else 1
            for g, groups in enumerate(group_tiles):
                neurons = _rectangle(self.neurons_up_to, windows, groups) // images
                each = region.segment(neurons * self.element_bytes)
                found[:, w, g] = images * each.moved_bytes, images * each.rows_opened
        return found

    def _split_reduction(self, image: int | None, section: Range) -> Iterator[Tile]:
        """Yield ranges of K, wave by wave."""
        for wave in np.argwhere(self.plan.neurons[:, slice(*section)] > 0):
            window, group, chunk = (int(index) for index in wave)
            yield from self._ranges_of_wave(image, (window, section[0] + group, chunk))

    def _ranges_of_wave(self, image: int | None, wave: Wave) -> Iterator[Tile]:
        window, group, chunk = wave
        neurons = int(self.plan.neurons[wave])
        taps = self.layer.window if self.is_map else 1
        length = self._range_length(wave, taps)
        for start, stop in _ranges(self.layer.reduction_length, length, taps):
            last = stop == self.layer.reduction_length
            demand = self._demand_of_range(wave, start, stop)
            yield Tile(
                image=image,
                windows=(window, window + 1),
                groups=(group, group + 1),
                chunk=chunk,
                reduction=(start, stop),
                cycles=self.plan.range_cycles(wave, stop - start, last),
                neurons=neurons if last else 0,
                loads=self.weight_streams((group, group + 1), (start, stop))
                + self.input_streams(demand),
                stores=self._stores_of_wave(wave) if last else (),
            )

    def _stores_of_wave(self, wave: Wave) -> tuple[Stream, ...]:
        neurons = int(self.plan.neurons[wave])
        if not self.ends.outputs_external:
            return self.stores(neurons, neurons * self.element_bytes, 0)
        if len(self.layer.out_shape) == 1 or self.plan.image_rows:
            window, group, _ = wave
            found = self._vector_outputs([(window, window + 1)], [(group, group + 1)])
            return self.stores(neurons, int(found[0, 0, 0]), int(found[1, 0, 0]))
        channels = self.plan.group_channels(wave[1])
        start = self.positions_of((wave[0], wave[0] + 1))[0]
        demand = self._written(channels, start, self._chosen(channels, wave[0], wave[2]))
        return self.stores(neurons, demand.moved_bytes, demand.rows_opened)

    def _written(
        self, channels: NDArray[np.int64], start: int, neurons: NDArray[np.bool_]
    ) -> Demand:
        """Return what writing neurons (channels x positions from `start` on) of a map moves."""
        rows, first = self._in_rows(neurons, start)
        return self.ends.outputs.read(first, rows, channels)[self.ends.domain]

    def _demand_of_range(self, wave: Wave, start: int, stop: int) -> InputDemand:
        """Count the inputs of a range of a wave's K; of a map, all taps of its input channels."""
        if not self.is_map:
            images = 1
            if self.plan.image_rows:
                here = self.positions_of((wave[0], wave[0] + 1))
                images = here[1] - here[0]
            return _times(self.ends.footprint.of_flat(start, stop), images)
        window, group, chunk = wave
        channels, taps = self.plan.group_channels(group), self.layer.window
        inputs = slice(start // taps, -(-stop // taps))
        chosen = self._chosen(channels, window, chunk)
        return self._demand_of(channels, *self.positions_of((window, window + 1)), inputs, chosen)

    def _chosen(self, channels: NDArray[np.int64], window: int, chunk: int) -> NDArray[np.bool_]:
        """Mark the neurons of one wave: channels x positions of the window."""
        start, stop = self.positions_of((window, window + 1))
        own = self.mask.reshape(self.layer.channels, -1)[channels, start:stop]
        if self.plan.array.systolic or self.plan.is_vector:
            return own
        return own & ((np.cumsum(own, axis=1) - 1) // self.plan.rows == chunk)

    def _range_length(self, wave: Wave, taps: int) -> int:
        """Return the longest range of K that fits, in whole input channels where possible."""
        groups = (wave[1], wave[1] + 1)
        channels = self.channels_in(groups) if self.layer.weights else 0
        step = self._demand_of_range(wave, 0, 1)
        step_inputs = step.elements * self.element_bytes
        outputs = int(self.plan.neurons[wave]) * self.element_bytes
        demands = {
            "weight": (channels * self._bytes_of_channel((0, 1)), self.buffers.weight_bytes),
            "input": (step_inputs, self.buffers.input_bytes),
            "output": (outputs, self.buffers.output_bytes),
        }
        for name, (demand, bound) in demands.items():
            if demand > bound:
                raise InputError(
                    f"layer {self.layer.name} does not fit the {self.ends.array} domain: one step "
                    f"of one wave needs {demand:,} bytes of the {name} buffer, which has {bound:,} "
                    f"({demand - bound:,} too few): enlarge buffers.{name}_bytes or take fewer "
                    f"lanes (array.rows, array.columns)"
                )
        length = self.layer.reduction_length
        if channels:
            bias = BIAS_BYTES if self.layer.bias else 0
            room = self.buffers.weight_bytes // channels - bias
            length = min(length, room // self.element_bytes)
        length = min(length, self.buffers.input_bytes // max(1, step_inputs) * taps)
        return length // taps * taps if length >= taps else length


class _Rectangles:
    """Builds the tiles of a loop order over rectangles of windows and groups."""

    def __init__(self, tiler: _Tiler, window_tiles: list[Range], group_tiles: list[Range]) -> None:
        self.tiler, self.window_tiles, self.group_tiles = tiler, window_tiles, group_tiles
        self.every = (group_tiles[0][0], group_tiles[-1][1])
        self.moved, self.opened = tiler.output_demands(window_tiles, group_tiles).tolist()
        self.reduction = (0, tiler.layer.reduction_length)
        self.weights = [tiler.weight_streams(groups, self.reduction) for groups in group_tiles]
        self._inputs: dict[tuple[int, Range], tuple[Stream, ...]] = {}

    def moved_if_weights_stay(self) -> int:
        """Return the bytes loaded if each tile of groups reads the inputs again."""
        inputs = self._inputs_moved(self.group_tiles)
        return len(self.tiler.images) * inputs + sum(map(_moved, self.weights))

    def moved_if_inputs_stay(self) -> int:
        """Return the bytes loaded if each tile of windows reads the weights again."""
        inputs = self._inputs_moved([self.every])
        weights = len(self.window_tiles) * sum(map(_moved, self.weights))
        return len(self.tiler.images) * (inputs + weights)

    def _inputs_moved(self, groups: list[Range]) -> int:
        self._count_inputs(groups)
        places = range(len(self.window_tiles))
        return sum(_moved(self._inputs[place, each]) for place in places for each in groups)

    def _count_inputs(self, groups: list[Range]) -> None:
        """Count the inputs of all tiles of windows with some ranges of groups, all at once."""
        tiler = self.tiler
        places = [
            (w, each) for w in range(len(self.window_tiles)) for each in groups
            if (w, each) not in self._inputs
        ]  # fmt: skip
        held = [
            (w, each) for w, each in places
            if _rectangle(tiler.neurons_up_to, self.window_tiles[w], each)
        ]  # fmt: skip
        self._inputs.update(dict.fromkeys(places, ()))
        demands = tiler.demands([(self.window_tiles[w], each) for w, each in held])
        streams = {demand: tiler.input_streams(demand) for demand in set(demands)}
        self._inputs.update(
            {place: streams[demand] for place, demand in zip(held, demands, strict=True)}
        )

    def tiles(self, order: list[tuple[int | None, int, int]], inputs_stay: bool) -> list[Tile]:
        """Return the tiles of an order of (image, window tile, group tile).

        Operands of the tile before are not loaded again. Where inputs stay, the first tile loads
        what all groups read.
        """
        tiler = self.tiler
        self._count_inputs([self.every] if inputs_stay else self.group_tiles)
        tiles: list[Tile] = []
        before: tuple[int | None, int, int] = (None, -1, -1)
        for image, w, g in order:
            windows, groups = self.window_tiles[w], self.group_tiles[g]
            neurons = _rectangle(tiler.neurons_up_to, windows, groups)
            if neurons == 0:
                continue
            keeps_inputs = inputs_stay and before[:2] == (image, w)
            keeps_weights = before[2] == g
            loads = () if keeps_weights else self.weights[g]
            if not keeps_inputs:
                loads += self._inputs[w, self.every if inputs_stay else groups]
            tiles.append(
                Tile(
                    image=image,
                    windows=windows,
                    groups=groups,
                    chunk=None,
                    reduction=self.reduction,
                    cycles=_rectangle(tiler.cycles_up_to, windows, groups),
                    neurons=neurons,
                    loads=loads,
                    stores=tiler.stores(neurons, self.moved[w][g], self.opened[w][g]),
                    keeps_inputs=keeps_inputs,
                    keeps_weights=keeps_weights,
                )
            )
            before = (image, w, g)
        return tiles


def _moved(streams: tuple[Stream, ...]) -> int:
    return sum(stream.moved_bytes for stream in streams)


def _times(demand: InputDemand, images: int) -> InputDemand:
    """Return the demand of several images alike."""
    if images == 1:
        return demand
    return InputDemand(*(Demand(*(images * figure for figure in each)) for each in demand))


def _up_to(table: NDArray[np.int64]) -> list[list[int]]:
    """Return sums over all rectangles from the corner, one row and column more."""
    sums = np.zeros((table.shape[0] + 1, table.shape[1] + 1), np.int64)
    sums[1:, 1:] = table.cumsum(axis=0).cumsum(axis=1)
    return sums.tolist()


def _rectangle(up_to: list[list[int]], rows: Range, columns: Range) -> int:
    (top, bottom), (left, right) = rows, columns
    low, high = up_to[top], up_to[bottom]
    return high[right] - high[left] - low[right] + low[left]


def _range_bursts(stored: StoredMap, domain: str, ranges: list[Range]) -> NDArray[np.int64]:
    """Return the bursts of a part's ranges of positions: channels x ranges."""
    width = stored.width
    starts, stops = (np.asarray(ends, np.int64) for ends in zip(*ranges, strict=True))
    first, last = starts // width, (stops - 1) // width
    head, tail = starts - first * width, stops - last * width
    channels = np.arange(stored.channels)[:, None]
    one_row = first == last
    zeros = np.zeros_like(tail)
    bursts = stored.spans(channels, first, head, np.where(one_row, tail, width))[domain]
    bursts = bursts + stored.spans(channels, last, zeros, np.where(one_row, 0, tail))[domain]
    above = np.zeros((stored.channels, stored.height + 1), np.int64)
    np.cumsum(stored.bursts_by_row(domain), axis=1, out=above[:, 1:])
    between = above[:, np.maximum(last, first + 1)] - above[:, first + 1]
    return bursts + np.where(one_row, 0, between)


def _cut(whole: Range, length: int) -> list[Range]:
    return [(start, min(start + length, whole[1])) for start in range(*whole, length)]


def _ranges(reduction: int, length: int, taps: int) -> Iterator[Range]:
    """Cut K into ranges of `length`; those shorter than an input channel's taps stay within it."""
    block = taps if length < taps else reduction
    for first in range(0, reduction, block):
        end = min(first + block, reduction)
        for start in range(first, end, length):
            yield start, min(start + length, end)


def largest_window_bytes(layer: Layer, window: int, channels: int, element_bytes: int) -> int:
    """Return an upper bound of the bytes of `channels` inputs that any window of positions reads.

    How many depends on the column at which a window begins.
    """
    width = layer.out_shape[2] if len(layer.out_shape) == 3 else 1
    starts = range(0, layer.positions, window)
    of_column = {start % width: start for start in reversed(starts[:-1])}
    ranges = [(start, start + window) for start in of_column.values()]
    ranges.append((starts[-1], layer.positions))
    most = max(reach(layer, start, stop) for start, stop in ranges)
    return most * channels * element_bytes


def reach(layer: Layer, start: int, stop: int) -> int:
    """Return an upper bound of the input positions that outputs start to stop read."""
    if len(layer.in_shape) != 3:
        return 1
    height, width = layer.in_shape[1:]
    out_width = layer.out_shape[2] if len(layer.out_shape) == 3 else 1
    tall = (layer.kernel[0] - 1) * layer.dilation[0] + 1
    wide = (layer.kernel[1] - 1) * layer.dilation[1] + 1
    first, last = start // out_width, (stop - 1) // out_width
    full = min(height, (last - first) * layer.stride[0] + tall) * width
    if last > first + 1:
        return full

    def piece(columns: int) -> int:
        """Return the inputs of so many positions of one row."""
        return min(height, tall) * min(width, (columns - 1) * layer.stride[1] + wide)

    if last == first:
        return piece(stop - start)
    return min(full, piece((first + 1) * out_width - start) + piece(stop - last * out_width))
