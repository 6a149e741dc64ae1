"""What every tile computes and moves, counted neuron by neuron and element by element.

Of a run, only the controller's decisions are taken: the order of tiles and what they keep, windows
and the order of channels, which maps stay on the chip, which neurons PPEs take over, which waves
run again. Nothing is shared with the simulator's own counting.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

from reference.layers import (
    Lanes,
    carried,
    elements_read,
    has_weights,
    out_width,
    waves_of,
)
from reference.maps import DOMAINS, OTHER, PROTECTED, UNPROTECTED, Map, Memory

from nce_sim.workload.layer import INPUT, Kind

COPIES = {"tmr": 3, "dmr_retry": 2}
VOTING = ("tmr", "dmr_retry", "temporal_dmr", "temporal_tmr")
BIAS_BYTES = 4
RETRY = "repeat after a mismatch"


class Moved(NamedTuple):
    """Data that move for one tile; `holder` is the domain at the far end."""

    what: str
    holder: str
    external: bool
    data_bytes: int
    moved_bytes: int
    rows_opened: int


@dataclass(frozen=True)
class Tile:
    """One tile. `done` lists what it completes, as (image, neuron); `cycles` sum over causes.

    `lanes` tells, from the tile's first cycle on, who is where and when: (image, neuron), (row,
    column), start, end.
    """

    cycles: int
    loads: tuple
    stores: tuple
    keeps_inputs: bool
    keeps_weights: bool
    done: tuple
    causes: Counter
    counts: Counter
    lanes: tuple = ()


@dataclass(frozen=True)
class Work:
    """One layer: the tiles of each array, and what happens before it."""

    layer: object
    tiles: dict
    output: Map
    map_bytes: int
    switches: bool


class ArrayShare:
    """Recounts the tiles of one domain's neurons on one array."""

    def __init__(self, recount, work, share, neurons, source, output):
        self.machine, self.memory, self.batch = recount.machine, recount.memory, recount.batch
        self.layer, self.share, self.plan = work.layer, share, share.plan
        self.source, self.output = source, output
        buffers = self.machine.domains[share.array].buffers
        self.lanes = Lanes(
            work.arrays[share.array], self.machine.dataflow == "systolic_os", buffers.codec_cycles
        )
        if self.plan.image_rows:  # the positions of a feature are the images
            neurons = {(channel, image) for channel, _ in neurons for image in range(self.batch)}
        self.neurons = neurons
        self.waves = waves_of(self.plan, self.layer, neurons)
        assert max(len(wave.neurons) for wave in self.waves.values()) <= self.lanes.config.lanes
        self.passes = Counter()

    def tiles(self):
        decisions = self.share.tiles
        for number, tile in enumerate(decisions):
            following = number + 1
            while following < len(decisions) and decisions[following].keeps_inputs:
                following += 1
            yield self._tile(tile, decisions[number:following])

    def _tile(self, tile, served):
        """Recount a tile; it loads the inputs of all tiles that it serves."""
        runs, last = self._runs(tile)
        length, ends = tile.reduction[1] - tile.reduction[0], tile.reduction[1] == self._whole
        causes, counts, lanes = Counter(), Counter(waves=len(runs) if last else 0), []
        for place, times in runs:
            wave, start = self.waves[place], causes.total()
            once = self.lanes.causes(wave, length, ends)
            again = times if self._is_repeated(tile) else times - 1
            for cause, cycles in once.items():
                causes[cause] += cycles * (times - again)
            causes[RETRY] += once.total() * again
            lanes += self._lanes_of(tile, place, start, causes.total())
            self._count(counts, wave, length, times, once.total())
            counts["retried_macs"] += self._macs(wave, length) * again
            counts["repeated_waves"] += again * ends
            counts["votes"] += len(wave.neurons) * times * ends * self._votes
        self.passes[self._key(tile)] += ends
        return Tile(
            causes.total(), self._loads(tile, served), self._stores(tile) if last else (),
            tile.keeps_inputs, tile.keeps_weights, self._done(tile) if last else (), causes, counts,
            tuple(lanes),
        )  # fmt: skip

    @property
    def _votes(self):
        return self.lanes.config.scheme in VOTING

    @property
    def _whole(self):
        return self.layer.reduction_length

    def _key(self, tile):
        return tile.image, tile.windows, tile.groups, tile.chunk

    def _is_repeated(self, tile):
        """Tell whether a range of K comes again after a mismatch."""
        return tile.chunk is not None and self.passes[self._key(tile)] > 0

    def _places(self, tile):
        """Return the waves of a tile."""
        return [
            place
            for place in sorted(self.waves)
            if tile.windows[0] <= place[0] < tile.windows[1]
            and tile.groups[0] <= place[1] < tile.groups[1]
            and tile.chunk in (None, place[2])
        ]

    def _neurons(self, tile):
        return [neuron for place in self._places(tile) for neuron in self.waves[place].neurons]

    def _runs(self, tile):
        """Return the waves of a tile with how often they run, and whether it stores them.

        Ranges of K of one wave run once: what runs again are further tiles.
        """
        times = [(place, 1 + self._mismatch(tile, place)) for place in self._places(tile)]
        if tile.chunk is None:
            assert tile.reduction == (0, self._whole)
            return times, True
        ((place, times),) = times
        passes = self.passes[self._key(tile)]
        assert passes < times
        return [(place, 1)], tile.reduction[1] == self._whole and passes + 1 == times

    def _mismatch(self, tile, place):
        drawn = self.share.mismatches
        return 0 if drawn is None else int(drawn[(tile.image or 0, *place)])

    def _macs(self, wave, length):
        """Multiply-accumulates of one run of a wave, in all copies and repeats."""
        copies = COPIES.get(self.lanes.config.scheme, 1)
        return len(wave.neurons) * length * self.lanes.repeats * copies

    def _count(self, counts, wave, length, times, cycles):
        """Count what lanes and operand buffers do in `times` runs of a wave."""
        neurons, again = len(wave.neurons), times * self.lanes.repeats
        config, size = self.lanes.config, self.memory.size
        counts["lane_macs"] += self._macs(wave, length) * times
        counts["input_read_bytes"] += wave.activations * length * again * size
        counts["weight_read_bytes"] += wave.weights * length * again * size
        counts["busy_lane_cycles"] += neurons * cycles * times
        counts["idle_lane_cycles"] += (config.lanes - neurons) * cycles * times

    def _lanes_of(self, tile, place, start, end):
        """Yield who of a wave is where, from start to end."""
        order, plan, config = self.plan.channel_order.tolist(), self.plan, self.lanes.config
        ranks = Counter()
        for channel, position in sorted(self.waves[place].neurons):
            column, row = order.index(channel) % plan.group_size, ranks[channel] % plan.rows
            ranks[channel] += 1
            if self.lanes.systolic:
                row = position % plan.rows
            elif plan.group_size > config.columns:  # a neuron a lane, row by row
                row, column = divmod(column, config.columns)
            image = position if plan.image_rows else tile.image
            neuron = (channel, 0 if plan.image_rows else position)
            yield (image, neuron), (row, column), start, end

    def _done(self, tile):
        neurons = self._neurons(tile)
        if self.plan.image_rows:
            return tuple((image, (channel, 0)) for channel, image in neurons)
        return tuple((tile.image, neuron) for neuron in neurons)

    def _loads(self, tile, served):
        loads = []
        if has_weights(self.layer) and not tile.keeps_weights:
            loads.append(self._weights(tile))
        if not tile.keeps_inputs:
            neurons = {neuron for each in served for neuron in self._neurons(each)}
            read = elements_read(self.layer, self.source, neurons, *tile.reduction)
            images = len({image for _, image in neurons}) if self.plan.image_rows else 1
            loads += streams_in(
                self.memory, self.share.array, self.source, self.layer, read, images
            )
        return tuple(loads)

    def _weights(self, tile):
        """Weights and biases of all channels of the tile's groups, wherever their neurons are."""
        own = {channel for channel, _ in self.neurons}
        order = self.plan.channel_order.tolist()
        start, stop = (group * self.plan.group_size for group in tile.groups)
        channels = len([channel for channel in order[start:stop] if channel in own])
        each = (tile.reduction[1] - tile.reduction[0]) * self.memory.size
        if self.layer.bias and tile.reduction[0] == 0:
            each += BIAS_BYTES
        domain = self.share.domain
        held = PROTECTED if self.machine.weights == "protected_only" else domain
        segments, size = (1, channels * each) if held == domain else (channels, each)
        moved, opened = self.memory.segment(held, size)
        return Moved("weights", held, True, channels * each, segments * moved, segments * opened)

    def _stores(self, tile):
        domain, size = self.share.domain, self.memory.size
        neurons = self._neurons(tile)
        data = len(neurons) * size
        if not self.output.external[domain]:
            return (Moved("outputs", domain, False, data, data, 0),)
        if len(self.layer.out_shape) == 1:
            images = len({image for _, image in neurons}) if self.plan.image_rows else 1
            moved, opened = self.memory.segment(domain, data // images)
            return (Moved("outputs", domain, True, data, images * moved, images * opened),)
        width = out_width(self.layer)
        written = {(channel, *divmod(position, width)) for channel, position in neurons}
        return (Moved("outputs", domain, True, *self.output.moved(self.memory, domain, written)),)

    def check(self):
        """Every wave was repeated as often as it had to be."""
        for (image, windows, groups, chunk), passes in self.passes.items():
            if chunk is not None:
                drawn = self.share.mismatches
                place = image or 0, windows[0], groups[0], chunk
                assert passes == 1 + (0 if drawn is None else int(drawn[place]))


def streams_in(memory, array, source, layer, elements, images=1):
    """Return the streams of the inputs read: those of the own domain, then the other's."""
    streams = []
    for what, holder in (("inputs", array), ("crossings", OTHER[array])):
        found = source.moved(memory, holder, elements, layer.kind is Kind.LINEAR)
        if found[0]:
            external = source.external[holder]
            streams.append(Moved(what, holder, external, *(images * each for each in found)))
    return streams


def vector_tile(recount, layer, array, tile, mask, sources, output):
    """Recount a band of rows of some channels of a pooling or an addition."""
    memory, width = recount.memory, out_width(layer)
    neurons = {
        (channel, position)
        for (channel, position), unprotected in mask.items()
        if unprotected == (array == UNPROTECTED)
        and tile.groups[0] <= channel < tile.groups[1]
        and tile.windows[0] <= position // width < tile.windows[1]
    }
    parts = len(sources) if layer.kind is Kind.ADD else layer.window
    loads = [
        stream
        for source in sources
        for stream in streams_in(
            memory, array, source, layer, elements_read(layer, source, neurons, 0, 1)
        )
    ]
    written = {(channel, *divmod(position, width)) for channel, position in neurons}
    found = output.moved(memory, array, written) if len(layer.out_shape) == 3 else None
    if found is None:
        data = len(neurons) * memory.size
        external = output.external[array]
        found = (data, *(memory.segment(array, data) if external else (data, 0)))
    cycles = ceil(len(neurons) * parts / recount.machine.domains[array].vector_lanes)
    return Tile(
        cycles, tuple(loads), (Moved("outputs", array, output.external[array], *found),),
        False, False, tuple((tile.image, neuron) for neuron in sorted(neurons)), Counter(),
        Counter(
            vector_elements=len(neurons) * parts,
            input_read_bytes=len(neurons) * parts * memory.size,
        ),
    )  # fmt: skip


class Recount:
    """Walks through a run's layers and recounts all its tiles."""

    def __init__(self, layers, run, split):
        self.layers, self.run = layers, run
        self.split, self.unprotected = split, split.unprotected
        self.machine, self.batch = run.machine.config, run.program.batch
        self.memory = Memory(self.machine)
        self.works = list(self._works())

    def _works(self):
        shape = self.layers[0].in_shape
        everything = {PROTECTED: True, UNPROTECTED: True}
        maps = {INPUT: Map(shape, set(), everything)}
        decided = {work.layer.name: work for work in self.run.program.layers}
        arrays = self.machine.arrays
        for layer in self.layers:
            sources = [maps[name] for name in (layer.source, *layer.others)]
            if layer.kind is Kind.FLATTEN:
                maps[layer.name] = sources[0]
                continue
            work = decided[layer.name]
            mask = self._mask(layer, sources)
            external = {share.domain: share.outputs == "external" for share in work.shares}
            marked = {neuron for neuron, unprotected in mask.items() if unprotected}
            output = maps[layer.name] = Map(layer.out_shape, marked, external)
            before, arrays = arrays, work.arrays
            map_bytes = ceil(self._map_bits(layer.out_shape) / 8) if layer.has_neurons else 0
            tiles = {array: self._tiles(work, array, mask, sources, output) for array in DOMAINS}
            yield Work(layer, tiles, output, map_bytes, arrays != before)

    def _map_bits(self, shape):
        """Return one bit a unit of the split; blocks are 4 x 4 neurons, or 16 in a row."""
        unit = self.split.granularity
        if unit == "block" and len(shape) == 1:
            return ceil(shape[0] / 16)
        blocks = shape[0] * prod(ceil(size / 4) for size in shape[1:])
        return {"neuron": prod(shape), "block": blocks, "channel": shape[0], "layer": 1}[unit]

    def _mask(self, layer, sources):
        """Tell of each (channel, position) whether it is unprotected."""
        if not layer.has_neurons:
            return carried(layer, sources)
        by_channel = self.unprotected[layer.name].reshape(layer.channels, -1).tolist()
        return {
            (channel, position): mark
            for channel, row in enumerate(by_channel)
            for position, mark in enumerate(row)
        }

    def _tiles(self, work, array, mask, sources, output):
        found = []
        taken = _taken(work)
        for share in work.on(array):
            if not work.layer.has_neurons:
                found += [
                    vector_tile(self, work.layer, array, tile, mask, sources, output)
                    for tile in share.tiles
                ]
                continue
            neurons = {
                neuron
                for neuron, unprotected in mask.items()
                if unprotected == (share.domain == UNPROTECTED)
                and (share.domain == PROTECTED or (neuron in taken) == (array == PROTECTED))
            }
            assert bool(neurons) == (share.plan is not None)
            if neurons:
                part = ArrayShare(self, work, share, neurons, sources[0], output)
                found += part.tiles()
                part.check()
        return found


def _taken(work):
    """Return the neurons that PPEs take over."""
    taken = set()
    for share in work.shares:
        if share.array != share.domain:
            by_channel = share.mask.reshape(work.layer.channels, -1).tolist()
            for channel, row in enumerate(by_channel):
                taken |= {(channel, position) for position, mark in enumerate(row) if mark}
    return taken
