"""What the memories hold when: operands of tiles, outputs on their way, maps and weights.

A *holding* is one set of words in one memory from the cycle in which it is complete to the cycle in
which it is last read or written over. Fault injection asks which holding a bit belongs to in a
cycle, and which neurons read it afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from nce_sim.machine.executions import Counts, Executions
from nce_sim.machine.operands import users_of_input, users_of_weight
from nce_sim.machine.probe import COMPUTE, Span
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.schedule.footprint import dilate
from nce_sim.schedule.layout import EXTERNAL, RESIDENT
from nce_sim.schedule.program import LayerWork, Program, Share
from nce_sim.schedule.tiles import Tile
from nce_sim.workload.layer import INPUT, Kind

WEIGHT_WORDS, INPUT_WORDS, OUTPUT_WORDS = "weights", "inputs", "outputs"
"""What a holding consists of."""

WHOLE_RUN = 2**62

PLACES_KEPT = 64
"""Holdings whose words are remembered: each is at most as large as a buffer or a map."""

Pieces = tuple[tuple[int, int], ...]
"""Where words lie: (first bit, number of words), in the order of the words."""


@dataclass(frozen=True)
class Holding:
    """Words of one layer in one memory, from cycle `start` to `end` (exclusive).

    They lie in `pieces` of the memory. `words` is "weights" (places: channel x K + step), "inputs"
    (places among the layer's inputs, see `Operand`) or "outputs" (neurons, or outputs of a vector
    unit). In a double buffer, `tiles` (first and last number on the array of `domain`) compute on
    them, or have computed them; of maps and of what lies in external memory, all tiles that load
    them read them.
    """

    domain: str
    work: int
    words: str
    pieces: Pieces
    start: int
    end: int
    tiles: tuple[int, int] | None = None

    @property
    def base(self) -> int:
        """The first bit."""
        return self.pieces[0][0]

    @property
    def length(self) -> int:
        """Number of words."""
        return sum(words for _, words in self.pieces)

    def bits(self, numbers: Counts, width: int) -> Counts:
        """Return the bits at which words begin that are `width` bits wide."""
        bases, lengths = np.array(self.pieces, np.int64).T
        ends = np.cumsum(lengths)
        piece = np.searchsorted(ends, numbers, side="right")
        return np.asarray(bases[piece] + (numbers - (ends - lengths)[piece]) * width)


@dataclass(frozen=True)
class Operand:
    """One map among a layer's inputs: places `first` to `end` (exclusive) of all of them.

    Inputs are counted map by map: the branches of an addition one after another, and the maps that
    a joined one consists of. `name` is the layer whose map it is, `work` its place in the program;
    None for the network's input.
    """

    name: str
    work: int | None
    first: int
    end: int


class Held:
    """The holdings of one memory, to be asked for many bits at once."""

    def __init__(self, holdings: Sequence[Holding], width: int) -> None:
        self.holdings = list(holdings)
        rows = [
            (number, each.start, each.end, base, base + words * width, before)
            for number, each in enumerate(self.holdings)
            for (base, words), before in zip(
                each.pieces, np.cumsum([0, *(w for _, w in each.pieces)]).tolist(), strict=False
            )
        ]
        table = np.array(rows, np.int64).reshape(-1, 6)
        self._number, self._start, self._end, self._base, self._top, self._before = table.T
        self.width = width
        self.bits = int(self._top.max(initial=0))

    def struck(self, bits: Counts, starts: Counts, ends: Counts) -> tuple[Counts, Counts, Counts]:
        """Find the words that lie at bits at any time from `starts` to `ends` (exclusive).

        Returns the place of each question answered, the number of the holding, and that of the word
        in it, by question; a question may have several answers or none.
        """
        found: list[tuple[Counts, Counts]] = []
        at_once = max(1, (1 << 22) // max(1, len(self._base)))
        for first in range(0, len(bits), at_once):
            part = slice(first, first + at_once)
            bit, start, end = (each[part, None] for each in (bits, starts, ends))
            inside = (bit >= self._base) & (bit < self._top)
            inside &= (start < self._end) & (end > self._start)
            asked, piece = np.nonzero(inside)
            found.append((asked + first, piece))
        asked = np.concatenate([np.empty(0, np.int64), *(each[0] for each in found)])
        piece = np.concatenate([np.empty(0, np.int64), *(each[1] for each in found)])
        word = self._before[piece] + (bits[asked] - self._base[piece]) // self.width
        return asked, self._number[piece], word


@dataclass(frozen=True)
class Reading:
    """When and where the neurons of a layer are computed, one entry a neuron.

    `array` is the place in DOMAINS, `first_tile` to `last_tile` are the tiles that hold the ranges
    of its K (one tile, if K is whole), `start` and `end` (exclusive) are those of its lane in the
    last of them.
    """

    array: Counts
    first_tile: Counts
    last_tile: Counts
    start: Counts
    end: Counts


@dataclass(frozen=True)
class TileTimes:
    """The tiles of one layer on one array, one entry a tile.

    `first_step` and `last_step` (exclusive) are the range of K, `weights` and `inputs` the cycles
    in which the operands that it computes on have come, maybe with an earlier tile; it computes
    from `start` to `end`, and its outputs are where they stay at `stored`.
    """

    first_step: Counts
    last_step: Counts
    weights: Counts
    inputs: Counts
    start: Counts
    end: Counts
    stored: Counts


class Storage:
    """All holdings of one run of a single image."""

    def __init__(
        self, program: Program, spans: Sequence[Span], executions: Mapping[str, Executions]
    ) -> None:
        self.program, self.executions, self.spans = program, executions, spans
        self.width = 8 * program.element_bytes
        self.number = {work.layer.name: place for place, work in enumerate(program.layers)}
        self._times: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
        for span in spans:
            if span.tile >= 0 and (span.what in ("load", "store", COMPUTE)):
                key = f"{span.resource.split(' ')[0]} {span.what}", span.layer
                self._times.setdefault(key, {})[span.tile] = span.start_cycle, span.end_cycle
        self._readings: dict[int, Reading] = {}
        self._tile_times: dict[tuple[int, str], TileTimes] = {}
        self._with_shares: dict[tuple[int, str], list[tuple[Share, Tile]]] = {}
        self._intervals: dict[int, tuple[int, int]] = {}
        self._stored_by: dict[tuple[int, str], NDArray[np.bool_]] = {}
        self._held: dict[tuple[str, str], Held] = {}
        self._operand_maps: dict[int, tuple[Operand, ...]] = {}
        self.places_of = lru_cache(PLACES_KEPT)(self._places_of)

    def held(self, component: str, domain: str) -> Held:
        """Return the holdings of a memory: "input_buffer" ... "resident", "memory"."""
        key = component, domain
        if key not in self._held:
            holdings: Mapping[str, list[Holding]] = {
                "input_buffer": self.input_buffers,
                "weight_buffer": self.weight_buffers,
                "output_buffer": self.output_buffers,
                "resident": self.resident,
                "memory": self.memory,
            }[component]
            self._held[key] = Held(holdings[domain], self.width)
        return self._held[key]

    def _time(self, domain: str, what: str, work: LayerWork, tile: int) -> tuple[int, int] | None:
        """Return when a tile was loaded, computed or stored; None if it took no time."""
        return self._times.get((f"{domain} {what}", work.layer.name), {}).get(tile)

    def tile_times(self, place: int, domain: str) -> TileTimes:
        """Return the times of a layer's tiles on one array, or vector unit."""
        key = place, domain
        if key not in self._tile_times:
            self._tile_times[key] = self._times_of_tiles(self.program.layers[place], domain)
        return self._tile_times[key]

    def _times_of_tiles(self, work: LayerWork, domain: str) -> TileTimes:
        rows = np.zeros((7, len(work.tiles(domain))), np.int64)
        weights = inputs = 0
        for number, tile in enumerate(work.tiles(domain)):
            start, end = self._time(domain, COMPUTE, work, number) or (0, 0)
            _, loaded = self._time(domain, "load", work, number) or (start, start)
            weights = weights if tile.keeps_weights else loaded
            inputs = inputs if tile.keeps_inputs else loaded
            _, stored = self._time(domain, "store", work, number) or (end, end)
            rows[:, number] = *tile.reduction, weights, inputs, start, end, stored
        return TileTimes(*rows)

    @cached_property
    def weight_buffers(self) -> Mapping[str, list[Holding]]:
        """Holdings of both weight buffers by domain, in order of time."""
        return {domain: list(self._operands(domain, WEIGHT_WORDS)) for domain in DOMAINS}

    @cached_property
    def input_buffers(self) -> Mapping[str, list[Holding]]:
        """Holdings of both input buffers by domain, in order of time."""
        return {domain: list(self._operands(domain, INPUT_WORDS)) for domain in DOMAINS}

    def _operands(self, domain: str, words: str) -> Iterator[Holding]:
        """Yield what the halves of a double buffer hold in turn, each until its last tile ends."""
        buffers = self.program.machine.domains[domain].buffers
        size = buffers.weight_bytes if words == WEIGHT_WORDS else buffers.input_bytes
        half = 0
        for place, work in enumerate(self.program.layers):
            if not work.on_array or (words == WEIGHT_WORDS and not work.layer.weights):
                continue
            tiles, times = work.tiles(domain), self.tile_times(place, domain)
            loaded = times.weights if words == WEIGHT_WORDS else times.inputs
            first = 0
            for number in range(1, len(tiles) + 1):
                if number < len(tiles) and _keeps(tiles[number], words):
                    continue
                length = (
                    len(self._channels_of(place, domain, first)) * _steps(tiles[first])
                    if words == WEIGHT_WORDS
                    else tiles[first].input_bytes // self.program.element_bytes
                )
                yield Holding(
                    domain, place, words, ((half * size * 8, length),), int(loaded[first]),
                    int(times.end[number - 1]), (first, number - 1),
                )  # fmt: skip
                first, half = number, 1 - half

    @cached_property
    def output_buffers(self) -> Mapping[str, list[Holding]]:
        """Holdings of both output buffers by domain: from a tile's first result to its store."""
        return {domain: list(self._results(domain)) for domain in DOMAINS}

    def _results(self, domain: str) -> Iterator[Holding]:
        size = self.program.machine.domains[domain].buffers.output_bytes
        half = 0
        for place, work in enumerate(self.program.layers):
            if not work.on_array:
                continue
            times = self.tile_times(place, domain)
            for number, tile in enumerate(work.tiles(domain)):
                if not tile.stores:
                    continue
                yield Holding(
                    domain, place, OUTPUT_WORDS, ((half * size * 8, tile.neurons),),
                    int(times.start[number]), int(times.stored[number]), (number, number),
                )  # fmt: skip
                half = 1 - half

    @cached_property
    def resident(self) -> Mapping[str, list[Holding]]:
        """Maps in the resident buffers by domain, each from its first result to its last reader."""
        return {domain: list(self._maps(domain, RESIDENT)) for domain in DOMAINS}

    @cached_property
    def memory(self) -> Mapping[str, list[Holding]]:
        """What the regions of the external memory hold: weights, and maps that are spilled."""
        return {
            domain: [*self._stored_weights[domain], *self._maps(domain, EXTERNAL)]
            for domain in DOMAINS
        }

    def _maps(self, domain: str, place: str) -> Iterator[Holding]:
        """Yield the maps of a domain in one place; each lies in the first bits that are free.

        In a resident buffer a map may lie in several pieces: all that its capacity promises fits.
        """
        weights = self._stored_weights[domain]
        first = weights[-1].base + weights[-1].length * self.width if weights else 0
        live: list[Holding] = []
        for number, work in enumerate(self.program.layers):
            shares = [share for share in work.shares if share.domain == domain]
            if not shares or all(share.outputs != place for share in shares):
                continue
            words = sum(share.elements for share in shares)
            start, end = self._interval(number)[0], self._last_read(number)
            live = [each for each in live if each.end > start]
            if not words:
                continue
            gaps = _gaps(live, first if place == EXTERNAL else 0, self.width)
            pieces = _fill(gaps, words, self.width, whole=place == EXTERNAL)
            live.append(Holding(domain, number, OUTPUT_WORDS, pieces, start, end))
            yield live[-1]

    @cached_property
    def _stored_weights(self) -> dict[str, list[Holding]]:
        """The weights in each region: those of the channels whose neurons' weights lie there."""
        found: dict[str, list[Holding]] = {domain: [] for domain in DOMAINS}
        for domain in DOMAINS:
            base = 0
            for number, work in enumerate(self.program.layers):
                length = len(self._stored_channels(number, domain)) * work.layer.reduction_length
                if not work.layer.weights or not length:
                    continue
                pieces = ((base, length),)
                found[domain].append(Holding(domain, number, WEIGHT_WORDS, pieces, 0, WHOLE_RUN))
                base += length * self.width
        return found

    def _stored_channels(self, place: int, domain: str) -> Counts:
        work = self.program.layers[place]
        if self.program.machine.weights == "protected_only":
            return np.arange(work.layer.channels if domain == PROTECTED else 0)
        mine = self.stored_by(work, domain).reshape(work.layer.channels, -1)
        return np.flatnonzero(mine.any(axis=1))

    def weights_end(self, domain: str) -> int:
        """Return the bit after the last weight in a region: weights lie before all maps."""
        return max(
            (each.base + each.length * self.width for each in self._stored_weights[domain]),
            default=0,
        )

    def _interval(self, place: int) -> tuple[int, int]:
        """Return the first and the last cycle of a layer's computing and storing."""
        if place not in self._intervals:
            work = self.program.layers[place]
            times = [
                time
                for domain in DOMAINS
                for what in (COMPUTE, "store", "load")
                for time in self._times.get((f"{domain} {what}", work.layer.name), {}).values()
            ]
            self._intervals[place] = min(t[0] for t in times), max(t[1] for t in times)
        return self._intervals[place]

    def _last_read(self, place: int) -> int:
        """Return when the last reader of a layer's map ends; of the network's output, never."""
        readers = self.readers(place)
        return max((self._interval(reader)[1] for reader, _ in readers), default=WHOLE_RUN)

    def readers(self, place: int) -> list[tuple[int, int]]:
        """Return the layers that read a layer's map, each with the first place of it there.

        One that reads it twice, as an addition of a map to itself, comes twice.
        """
        return [
            (number, part.first)
            for number in range(len(self.program.layers))
            for part in self.operands(number)
            if part.work == place
        ]

    def operands(self, place: int) -> tuple[Operand, ...]:
        """Return the maps that a layer reads, in the order in which its inputs are counted."""
        if place not in self._operand_maps:
            found: list[Operand] = []
            layer = self.program.layers[place].layer
            for source in layer.sources:
                first = found[-1].end if found else 0
                found += self._maps_of(source, first, prod(layer.in_shape))
            self._operand_maps[place] = tuple(found)
        return self._operand_maps[place]

    def operand_of(self, place: int, word: int) -> Operand:
        """Return the map to which one of a layer's inputs belongs."""
        return next(part for part in self.operands(place) if word < part.end)

    def _maps_of(self, source: str, first: int, size: int) -> Iterator[Operand]:
        """Yield the maps that a source of so many words consists of."""
        names = self._joined_in(source)
        sizes = {
            name: self.program.layers[self.number[name]].layer.outputs
            for name in names if name != INPUT
        }  # fmt: skip
        if INPUT in names:
            others = sum(sizes.get(name, 0) for name in names)
            sizes[INPUT] = (size - others) // names.count(INPUT)
        for name in names:
            yield Operand(name, self.number.get(name), first, first + sizes[name])
            first += sizes[name]

    def _joined_in(self, name: str) -> list[str]:
        """Return the maps that a source is: flattening and joining only give them another shape."""
        name = self.program.flattened.get(name, name)
        if name not in self.program.joined:
            return [name]
        return [each for source in self.program.joined[name] for each in self._joined_in(source)]

    def start_of(self, place: int) -> int:
        """Return the first cycle of a layer."""
        return self._interval(place)[0]

    def reading(self, place: int) -> Reading:
        """Return when and where the neurons of a layer are computed."""
        if place not in self._readings:
            self._readings[place] = self._reading(place)
        return self._readings[place]

    def _reading(self, place: int) -> Reading:
        work = self.program.layers[place]
        columns = np.zeros((5, work.layer.neurons), np.int64)
        for number, domain in enumerate(DOMAINS):
            executions = self.executions[domain]
            for share_place, share in enumerate(work.on(domain)):
                if share.plan is None:
                    continue
                placed = executions.placement(place, share_place)
                mine = np.flatnonzero(
                    (executions.work == place) & (executions.share == share_place)
                )
                shape = share.plan.neurons.shape
                wave = np.ravel_multi_index(
                    (executions.window[mine], executions.group[mine], executions.chunk[mine]), shape
                )
                # A wave whose K is cut has several executions: the first, and the last, of each.
                ends, begins = np.zeros(shape, np.int64).ravel(), np.zeros(shape, np.int64).ravel()
                begins[wave[::-1]] = mine[::-1]
                ends[wave] = mine
                own = np.ravel_multi_index((placed.window, placed.group, placed.chunk), shape)
                first, last = begins[own], ends[own]
                columns[:, placed.neuron] = (
                    np.full(len(own), number), executions.tile[first], executions.tile[last],
                    executions.start[last], executions.end[last],
                )  # fmt: skip
        return Reading(*columns)

    def splits(self, place: int) -> bool:
        """Tell whether the K of any neuron of a layer is cut into ranges."""
        reading = self.reading(place)
        return bool((reading.first_tile != reading.last_tile).any())

    def users(self, place: int, words: str, word: int) -> tuple[Counts, Counts]:
        """Return the neurons (or outputs of a vector unit) that use a word, and its step of each.

        `word` is a place as in `Holding`: of "weights" or "inputs".
        """
        layer = self.program.layers[place].layer
        return users_of_weight(layer, word) if words == WEIGHT_WORDS else (
            users_of_input(layer, word)
        )  # fmt: skip

    def moments(
        self, place: int, words: str, neurons: Counts, steps: Counts | None, *, loaded: bool
    ) -> tuple[Counts, Counts]:
        """Return the tiles in which neurons use operands of given steps, and when they read them.

        `loaded`: when the tile's load ends (they read the memory that it comes from); else when
        their lane begins (they read the buffer). Without steps, K is whole. A vector unit reads a
        map as a whole before its layer begins.
        """
        if not self.program.layers[place].on_array:
            return np.zeros_like(neurons), np.full_like(neurons, self.start_of(place) - 1)
        reading = self.reading(place)
        arrays, tiles = reading.array[neurons], reading.first_tile[neurons]
        moments = reading.start[neurons]
        for number, domain in enumerate(DOMAINS):
            mine = np.flatnonzero(arrays == number)
            times, tile = self.tile_times(place, domain), tiles[mine]
            if steps is not None:
                while (later := times.last_step[tile] <= steps[mine]).any():
                    tile = tile + later
                tiles[mine] = tile
                cut = reading.first_tile[neurons[mine]] != reading.last_tile[neurons[mine]]
                moments[mine] = np.where(cut, times.start[tile], moments[mine])
            if loaded:
                came = times.weights if words == WEIGHT_WORDS else times.inputs
                moments[mine] = came[tile] - 1
        return tiles, moments

    def written(self, holding: Holding) -> Counts:
        """Return the cycle from which each word of a holding of outputs is there."""
        places = self.places_of(holding)
        if holding.tiles is not None:
            return self.reading(holding.work).end[places]
        return self.stored(holding.work)[places]

    def stored(self, place: int) -> Counts:
        """Return the cycle from which each output of a layer is where it stays."""
        work = self.program.layers[place]
        found = np.zeros(work.layer.outputs, np.int64)
        if work.on_array:
            reading = self.reading(place)
            for number, domain in enumerate(DOMAINS):
                mine = reading.array == number
                found[mine] = self.tile_times(place, domain).stored[reading.last_tile[mine]]
            return found
        rows = found.reshape(work.layer.channels, -1, work.layer.out_shape[-1]) if (
            len(work.layer.out_shape) == 3
        ) else found.reshape(-1, 1, 1)  # fmt: skip
        for domain in DOMAINS:
            times = self.tile_times(place, domain)
            for number, (share, tile) in enumerate(self._tiles(place, domain)):
                part = (slice(*tile.groups), slice(*tile.windows))
                own = share.mask.reshape(rows.shape)[part]
                rows[part][own] = times.stored[number]
        return found

    def _places_of(self, holding: Holding) -> Counts:
        """Return what the words of a holding are, in their order: see `Holding`."""
        if holding.words == WEIGHT_WORDS:
            return self._weight_places(holding)
        if holding.words == INPUT_WORDS:
            return self._input_places(holding)
        work = self.program.layers[holding.work]
        if holding.tiles is None:
            return np.flatnonzero(self.stored_by(work, holding.domain))
        reading = self.reading(holding.work)
        mine = reading.array == DOMAINS.index(holding.domain)
        return np.flatnonzero(mine & (reading.last_tile == holding.tiles[0]))

    def _tiles(self, place: int, domain: str) -> list[tuple[Share, Tile]]:
        """Return the tiles of one array in order, each with the share that it belongs to."""
        key = place, domain
        if key not in self._with_shares:
            shares = self.program.layers[place].on(domain)
            self._with_shares[key] = [(share, tile) for share in shares for tile in share.tiles]
        return self._with_shares[key]

    def _channels_of(self, place: int, domain: str, tile: int) -> Counts:
        """Return the channels whose weights a tile computes on, in the order of its columns."""
        share, chosen = self._tiles(place, domain)[tile]
        assert share.plan is not None
        size = share.plan.group_size
        channels = share.plan.channel_order[chosen.groups[0] * size : chosen.groups[1] * size]
        held: NDArray[np.bool_] = np.any(
            share.mask.reshape(share.plan.layer.channels, -1)[channels], axis=1
        )
        return channels[held]

    def _weight_places(self, holding: Holding) -> Counts:
        """Return channel x K + step; the bias, in the sums' own width, lies outside."""
        work = self.program.layers[holding.work]
        length = work.layer.reduction_length
        if holding.tiles is None:
            channels, reduction = self._stored_channels(holding.work, holding.domain), (0, length)
        else:
            first = holding.tiles[0]
            channels = self._channels_of(holding.work, holding.domain, first)
            reduction = work.tiles(holding.domain)[first].reduction
        return (channels[:, None] * length + np.arange(*reduction)).ravel()

    def _input_places(self, holding: Holding) -> Counts:
        """Return the inputs that a holding's tiles read, in the order of the map."""
        work = self.program.layers[holding.work]
        layer = work.layer
        assert holding.tiles is not None
        times = self.tile_times(holding.work, holding.domain)
        part = slice(holding.tiles[0], holding.tiles[1] + 1)
        first, last = int(times.first_step[part].min()), int(times.last_step[part].max())
        if layer.kind is Kind.LINEAR:
            return np.arange(first, last)
        reading = self.reading(holding.work)
        mine = (reading.array == DOMAINS.index(holding.domain)) & (
            (reading.last_tile >= holding.tiles[0]) & (reading.first_tile <= holding.tiles[1])
        )
        shape = layer.out_shape if len(layer.out_shape) == 3 else (layer.channels, 1, 1)
        neurons = mine.reshape(shape)
        per_family = layer.in_shape[0] // layer.groups if layer.weights else 1
        families = layer.in_shape[0] // per_family
        touched = neurons.reshape(families, -1, *shape[1:]).any(axis=1)
        needed, top = dilate(layer, touched)
        inputs = np.zeros((families, *layer.in_shape[1:]), bool)
        inputs[:, top : top + needed.shape[1]] = needed
        every = np.repeat(inputs, per_family, axis=0)
        steps = np.arange(layer.in_shape[0]) % per_family * layer.window
        within = (steps < last) & (steps + layer.window > first)
        return np.flatnonzero(every & within[:, None, None])

    def stored_by(self, work: LayerWork, domain: str) -> NDArray[np.bool_]:
        """Mark the neurons of a layer whose values a domain stores."""
        key = self.number[work.layer.name], domain
        if key not in self._stored_by:
            found = np.zeros(work.layer.outputs, bool)
            for share in work.shares:
                if share.domain == domain:
                    found |= share.mask.reshape(-1)
            self._stored_by[key] = found
        return self._stored_by[key]

    def read_from(self, place: int, domain: str) -> NDArray[np.bool_]:
        """Mark those inputs of a layer that a domain stores; the network's are protected."""
        return np.concatenate(
            [
                np.full(part.end - part.first, domain == PROTECTED)
                if part.work is None
                else self.stored_by(self.program.layers[part.work], domain)
                for part in self.operands(place)
            ]
        )

    def is_foreign(self, holding: Holding) -> NDArray[np.bool_]:
        """Mark the words of a protected double buffer that are data of the unprotected domain."""
        places = self.places_of(holding)
        if holding.domain != PROTECTED or holding.tiles is None:
            return np.zeros(len(places), bool)
        if holding.words == INPUT_WORDS:
            return self.read_from(holding.work, UNPROTECTED)[places]
        share, _ = self._tiles(holding.work, holding.domain)[holding.tiles[0]]
        once = holding.words == WEIGHT_WORDS and self.program.machine.weights == "protected_only"
        return np.full(len(places), share.domain == UNPROTECTED and not once)


def _steps(tile: Tile) -> int:
    return tile.reduction[1] - tile.reduction[0]


def _keeps(tile: Tile, words: str) -> bool:
    return tile.keeps_weights if words == WEIGHT_WORDS else tile.keeps_inputs


def _gaps(live: Sequence[Holding], first: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the free bits (start, end) from `first` on, the last without an end."""
    taken = sorted((base, base + words * width) for each in live for base, words in each.pieces)
    for start, end in taken:
        if start > first:
            yield first, start
        first = max(first, end)
    yield first, WHOLE_RUN


def _fill(gaps: Iterator[tuple[int, int]], words: int, width: int, *, whole: bool) -> Pieces:
    """Return the first bits that hold so many words, in one piece if `whole`."""
    pieces = []
    for start, end in gaps:
        room = min(words, (end - start) // width)
        if room == words or (room and not whole):
            pieces.append((start, room))
            words -= room
        if not words:
            break
    return tuple(pieces)
