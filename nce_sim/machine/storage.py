"""What the memories hold when: operands of tiles, outputs on their way, maps and weights.

A *holding* is one set of words in one memory from the cycle in which it is complete to the cycle in
which it is last read or written over. Fault injection asks which holding a bit belongs to in a
cycle, and which neurons read it afterwards.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.machine.executions import Counts, Executions
from nce_sim.machine.probe import COMPUTE, Span
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.footprint import dilate
from nce_sim.schedule.layout import EXTERNAL, RESIDENT
from nce_sim.schedule.program import LayerWork, Program
from nce_sim.schedule.tiles import OUTPUTS, WEIGHTS, Tile
from nce_sim.workload.layer import Kind

WEIGHT_WORDS, INPUT_WORDS, OUTPUT_WORDS = "weights", "inputs", "outputs"
"""What a holding consists of."""

WHOLE_RUN = 2**62


@dataclass(frozen=True)
class Holding:
    """Words of one layer in one memory, from cycle `start` to `end` (exclusive).

    They begin at bit `base` of the memory. `words` is "weights" (places: channel x K + step),
    "inputs" (places in the layer's input map) or "outputs" (neurons). Of operands, `tiles` (first
    and last number on the array of `domain`) compute on them; of maps and of what lies in external
    memory, all tiles that load after a strike read it.
    """

    domain: str
    work: int
    words: str
    base: int
    start: int
    end: int
    tiles: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """When and where the neurons of a layer are computed, one entry a neuron.

    `array` is the place in DOMAINS, `first_tile` to `last_tile` are the tiles that hold the ranges
    of its K (one tile, if K is whole), `start` the cycle in which its lane begins, `loaded` the
    cycle in which its last operands have come.
    """

    array: Counts
    first_tile: Counts
    last_tile: Counts
    start: Counts
    loaded: Counts


class Storage:
    """All holdings of one run of a single image."""

    def __init__(
        self, program: Program, spans: Sequence[Span], executions: Mapping[str, Executions]
    ) -> None:
        self.program, self.executions, self._spans = program, executions, spans
        self.number = {work.layer.name: place for place, work in enumerate(program.layers)}
        self._times: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
        for span in spans:
            if span.tile >= 0 and (span.what in ("load", "store", COMPUTE)):
                key = f"{span.resource.split(' ')[0]} {span.what}", span.layer
                self._times.setdefault(key, {})[span.tile] = span.start_cycle, span.end_cycle
        self._readings: dict[int, Reading] = {}

    def _time(self, domain: str, what: str, work: LayerWork, tile: int) -> tuple[int, int] | None:
        """Return when a tile was loaded, computed or stored; None if it took no time."""
        return self._times.get((f"{domain} {what}", work.layer.name), {}).get(tile)

    def _loaded(self, domain: str, work: LayerWork, tile: int) -> int:
        """Return when a tile's operands have come: no later than its computing begins."""
        load = self._time(domain, "load", work, tile)
        if load is not None:
            return load[1]
        computed = self._time(domain, COMPUTE, work, tile)
        return computed[0] if computed is not None else 0

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
            tiles = work.tiles(domain)
            if not work.on_array or (words == WEIGHT_WORDS and not work.layer.weights):
                continue
            first = 0
            for number in range(1, len(tiles) + 1):
                if number < len(tiles) and _keeps(tiles[number], words):
                    continue
                computed = self._time(domain, COMPUTE, work, number - 1)
                yield Holding(
                    domain, place, words, half * size * 8, self._loaded(domain, work, first),
                    computed[1] if computed else 0, (first, number - 1),
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
            for number, tile in enumerate(work.tiles(domain)):
                computed = self._time(domain, COMPUTE, work, number)
                if not tile.stores or computed is None:
                    continue
                stored = self._time(domain, "store", work, number)
                end = stored[1] if stored is not None else computed[1]
                yield Holding(
                    domain, place, OUTPUT_WORDS, half * size * 8, computed[0], end,
                    (number, number),
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
            domain: [*self._stored_weights(domain), *self._maps(domain, EXTERNAL)]
            for domain in DOMAINS
        }

    def _maps(self, domain: str, place: str) -> Iterator[Holding]:
        """Yield the maps of a domain in one place; each begins where those still needed end."""
        first = self._weights_before(len(self.program.layers)) if place == EXTERNAL else 0
        held: list[tuple[int, int]] = []  # (end of life, end of bits)
        for number, work in enumerate(self.program.layers):
            shares = [share for share in work.shares if share.domain == domain]
            if not shares or all(share.outputs != place for share in shares):
                continue
            bits = 8 * self.program.element_bytes * sum(share.elements for share in shares)
            start, end = self._interval(number)[0], self._last_read(number)
            held = [each for each in held if each[0] > start]
            base = max((top for _, top in held), default=first)
            held.append((end, base + bits))
            yield Holding(domain, number, OUTPUT_WORDS, base, start, end)

    def _stored_weights(self, domain: str) -> Iterator[Holding]:
        for number, work in enumerate(self.program.layers):
            stored = {
                stream.domain for share in work.shares for tile in share.tiles
                for stream in tile.loads if stream.what == WEIGHTS
            }  # fmt: skip
            if work.layer.weights and domain in stored:
                yield Holding(
                    domain, number, WEIGHT_WORDS, self._weights_before(number), 0, WHOLE_RUN
                )

    def _weights_before(self, place: int) -> int:
        """Return the bits of the weights of all layers before one: where its own begin."""
        weights = sum(work.layer.weights for work in self.program.layers[:place])
        return 8 * self.program.element_bytes * weights

    def _interval(self, place: int) -> tuple[int, int]:
        """Return the first and the last cycle of a layer's computing and storing."""
        work = self.program.layers[place]
        times = [
            time
            for domain in DOMAINS
            for what in (COMPUTE, "store", "load")
            for time in self._times.get((f"{domain} {what}", work.layer.name), {}).values()
        ]
        return min((t[0] for t in times), default=0), max((t[1] for t in times), default=0)

    def _last_read(self, place: int) -> int:
        """Return when the last reader of a layer's map ends; of the network's output, never."""
        readers = self.readers(place)
        return max((self._interval(reader)[1] for reader in readers), default=WHOLE_RUN)

    def readers(self, place: int) -> list[int]:
        """Return the layers that read a layer's map (flattening only gives it another shape)."""
        names = {self.program.layers[place].layer.name}
        found = []
        for number, work in enumerate(self.program.layers):
            if names & set(self._unflattened(work)):
                found.append(number)
        return found

    def _unflattened(self, work: LayerWork) -> list[str]:
        """Return the sources of a layer; a flattened map goes by the name of the map."""
        return [self.program.flattened.get(name, name) for name in work.layer.sources]

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
            loaded = np.array(
                [self._loaded(domain, work, t) for t in range(len(work.tiles(domain)))], np.int64
            )
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
                    executions.start[last], loaded[executions.tile[last]],
                )  # fmt: skip
        return Reading(*columns)

    def places_of(self, holding: Holding) -> Counts:
        """Return what the words of a holding are, in their order: see `Holding`."""
        if holding.words == WEIGHT_WORDS:
            return self._weight_places(holding)
        if holding.words == INPUT_WORDS:
            return self._input_places(holding)
        reading = self.reading(holding.work)
        mine = self._stored_in(holding)
        if holding.tiles is not None:
            mine &= (reading.array == DOMAINS.index(holding.domain)) & (
                reading.last_tile == holding.tiles[0]
            )
        return np.flatnonzero(mine)

    def _stored_in(self, holding: Holding) -> NDArray[np.bool_]:
        """Mark the neurons of a layer whose values a holding's domain stores (or its array)."""
        work = self.program.layers[holding.work]
        if holding.tiles is not None:
            return np.ones(work.layer.neurons, bool)
        return self.stored_by(work, holding.domain)

    def _weight_places(self, holding: Holding) -> Counts:
        """Return channel x K + step; the bias, in the sums' own width, lies outside."""
        work = self.program.layers[holding.work]
        length = work.layer.reduction_length
        if holding.tiles is None:
            return np.arange(work.layer.weights)
        tile = work.tiles(holding.domain)[holding.tiles[0]]
        share = next(
            share for share in work.on(holding.domain) if any(each is tile for each in share.tiles)
        )
        assert share.plan is not None
        size = share.plan.group_size
        channels = share.plan.channel_order[tile.groups[0] * size : tile.groups[1] * size]
        steps = np.arange(*tile.reduction)
        return (channels[:, None] * length + steps).ravel()

    def _input_places(self, holding: Holding) -> Counts:
        """Return the inputs that a holding's tiles read, in the order of the map."""
        work = self.program.layers[holding.work]
        layer = work.layer
        assert holding.tiles is not None
        tiles = work.tiles(holding.domain)[holding.tiles[0] : holding.tiles[1] + 1]
        first = min(tile.reduction[0] for tile in tiles)
        last = max(tile.reduction[1] for tile in tiles)
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
        masks = [share.mask.reshape(-1) for share in work.shares if share.domain == domain]
        return np.asarray(np.logical_or.reduce(masks))

    def under_way(self, cycle: int) -> list[tuple[str, Span]]:
        """Return the transfers (domain, span of its port) that the bus serves in a cycle."""
        found = []
        for name, (starts, spans) in self._transfers.items():
            place = bisect_right(starts, cycle) - 1
            if place < 0 or cycle >= spans[place].end_cycle:
                continue
            if self._bus_serves(name, cycle):
                found.append((name.split(" ")[0], spans[place]))
        return found

    def _bus_serves(self, port: str, cycle: int) -> bool:
        starts, spans = self._bus
        place = bisect_right(starts, cycle) - 1
        return (
            place >= 0 and cycle < spans[place].end_cycle
            and port in spans[place].what.split(" + ")
        )  # fmt: skip

    @cached_property
    def _bus(self) -> tuple[list[int], list[Span]]:
        spans = sorted(
            (span for span in self._spans if span.resource == "bus"), key=lambda s: s.start_cycle
        )
        return [span.start_cycle for span in spans], spans

    @cached_property
    def _transfers(self) -> dict[str, tuple[list[int], list[Span]]]:
        """The transfers of each port, in order of time."""
        found = {}
        for domain in DOMAINS:
            for what in ("load", "store"):
                spans = [
                    span for span in self._spans
                    if span.resource == f"{domain} {what}" and span.what == what
                ]  # fmt: skip
                found[f"{domain} {what}"] = [span.start_cycle for span in spans], spans
        return found

    def word_of_transfer(
        self, domain: str, span: Span, passed: float
    ) -> tuple[Holding | None, int]:  # fmt: skip
        """Return the word that is on the bus when a share of a tile's transfer has passed.

        It is named by the holding that it goes to or comes from, and its place there; None where
        nothing of the tile crosses the bus.
        """
        place = self.number[span.layer]
        work = self.program.layers[place]
        tile = work.tiles(domain)[span.tile]
        moved = on_bus(tile, domain, span.what)
        if not work.on_array or not moved:
            return None, 0
        offset = passed * sum(moved.values())
        words, *later = moved
        while later and offset >= moved[words]:
            offset -= moved[words]
            words, *later = later
        buffers = {
            WEIGHT_WORDS: self.weight_buffers, INPUT_WORDS: self.input_buffers,
            OUTPUT_WORDS: self.output_buffers,
        }[words]  # fmt: skip
        for holding in buffers[domain]:
            if holding.work == place and holding.tiles and holding.tiles[0] == span.tile:
                places = self.places_of(holding)
                number = int(offset / moved[words] * len(places))
                return holding, int(places[min(number, len(places) - 1)])
        return None, 0


def _keeps(tile: Tile, words: str) -> bool:
    return tile.keeps_weights if words == WEIGHT_WORDS else tile.keeps_inputs


def on_bus(tile: Tile, domain: str, what: str) -> dict[str, int]:
    """Return the bytes that a tile moves over the bus, by what they are."""
    streams = tile.loads if what == "load" else tile.stores
    found: dict[str, int] = {}
    for stream in streams:
        if stream.external or stream.domain != domain:
            kind = {WEIGHTS: WEIGHT_WORDS, OUTPUTS: OUTPUT_WORDS}.get(stream.what, INPUT_WORDS)
            found[kind] = found.get(kind, 0) + stream.data_bytes
    return found
