"""A slow second opinion on strikes: each neuron walks through its operands and asks who hit them.

Plain loops over neurons, the timeline and tiles; of the storage it takes only where words lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from hardware import neurons_of

from nce_sim.machine.engine import Run
from nce_sim.machine.probe import COMPUTE
from nce_sim.workload.execute import Executable
from nce_sim.workload.formats import FORMATS
from nce_sim.workload.layer import INPUT, Kind, Layer
from nce_sim.workload.layout import fast_layout

FOREVER = 2**62


@dataclass(frozen=True)
class Strike:
    """What happens to the word around a bit of a site, from `start` on; it lasts if `end` says so.

    after = ((before & keep) | set) ^ flip
    """

    component: str
    domain: str | None
    bit: int
    start: int
    flip: int = 0
    keep: int = 0xFFFFFFFF
    set: int = 0
    end: int | None = None

    def of(self, word: int) -> int:
        return ((word & self.keep) | self.set) ^ self.flip


class Twin:
    """One image on one run."""

    def __init__(self, run: Run, executable: Executable, image: np.ndarray) -> None:
        self.run, self.executable, self.image = run, executable.in_steps, image
        self.storage, self.program = run.schedule.storage, run.program
        self.works = {work.layer.name: work for work in run.program.layers}
        self.place = {name: number for number, name in enumerate(self.works)}
        self.number_format = executable.format
        self._tiles: dict[str, dict[int, list[tuple[str, int]]]] = {}
        self._maps: dict[str, list[tuple[str, int]]] = {}

    @cached_property
    def spans(self):
        return {
            (span.resource, span.what, span.layer, span.tile): (span.start_cycle, span.end_cycle)
            for span in self.run.timeline
        }

    def compute(self, domain: str, layer: str, tile: int) -> tuple[int, int]:
        return self.spans[f"{domain} array", COMPUTE, layer, tile]

    def tiles_of(self, layer: str, neuron: int) -> list[tuple[str, int]]:
        """The tiles (array and number) that hold the ranges of a neuron's K."""
        if layer not in self._tiles:
            found: dict[int, list[tuple[str, int]]] = {}
            for domain in ("protected", "unprotected"):
                number = 0
                for share_place, share in enumerate(self.works[layer].on(domain)):
                    for tile in share.tiles:
                        executions = self.run.schedule.executions[domain]
                        placed = executions.placement(self.place[layer], share_place)
                        for each in neurons_of(tile, placed):
                            found.setdefault(each, []).append((domain, number))
                        number += 1
            self._tiles[layer] = found
        return self._tiles[layer][neuron]

    def tile_of(self, layer: str, neuron: int, step: int) -> tuple[str, int]:
        for domain, number in self.tiles_of(layer, neuron):
            start, stop = self.works[layer].tiles(domain)[number].reduction
            if start <= step < stop:
                return domain, number
        raise AssertionError("no tile holds this step")

    def began(self, layer: str, neuron: int, tile: tuple[str, int]) -> int:
        """The cycle in which the lane begins to use what a tile holds."""
        if len(self.tiles_of(layer, neuron)) == 1:
            return self.run.schedule.slot_of(layer, neuron).start_cycle
        return self.compute(tile[0], layer, tile[1])[0]

    def first_of_kept(self, layer: str, tile: tuple[str, int], what: str) -> int:
        """The tile that loaded what a tile computes on."""
        domain, number = tile
        while getattr(self.works[layer].tiles(domain)[number], f"keeps_{what}"):
            number -= 1
        return number

    def came(self, layer: str, tile: tuple[str, int], what: str) -> int:
        """The cycle in which the operands of a tile have come."""
        domain, first = tile[0], self.first_of_kept(layer, tile, what)
        load = self.spans.get((f"{domain} load", "load", layer, first))
        return load[1] if load else self.compute(domain, layer, first)[0]

    def stored(self, layer: str, output: int) -> int:
        """The cycle in which an output is where it stays."""
        work = self.works[layer]
        if work.on_array:
            domain, number = self.tiles_of(layer, output)[-1]
            end = self.compute(domain, layer, number)[1]
        else:
            index = np.unravel_index(output, work.layer.out_shape)
            row = index[1] if len(index) > 1 else 0
            for domain in ("protected", "unprotected"):
                number = 0
                for share in work.on(domain):
                    for tile in share.tiles:
                        inside = tile.groups[0] <= index[0] < tile.groups[1]
                        inside &= tile.windows[0] <= row < tile.windows[1]
                        if inside and share.mask[index]:
                            key = f"{domain} vector unit", COMPUTE, layer, number
                            end = self.spans[key][1]
                            return self.spans.get(
                                (f"{domain} store", "store", layer, number), (0, end)
                            )[1]
                        number += 1
        return self.spans.get((f"{domain} store", "store", layer, number), (0, end))[1]

    def begins(self, layer: str) -> int:
        return min(
            start for (_, what, name, tile), (start, _) in self.spans.items()
            if name == layer and tile >= 0 and what in ("load", "store", COMPUTE)
        )  # fmt: skip

    def domain_of(self, layer: str, output: int) -> str:
        (domain,) = {
            share.domain for share in self.works[layer].shares
            if share.mask.reshape(-1)[output]
        }  # fmt: skip
        return domain

    def struck_words(self, strike: Strike):
        """The words that lie at the struck bit while it is struck, with their holdings."""
        end = strike.end if strike.end is not None else strike.start + 1
        for holding in {
            "weight_buffer": self.storage.weight_buffers,
            "input_buffer": self.storage.input_buffers,
            "output_buffer": self.storage.output_buffers,
            "resident": self.storage.resident,
            "memory": self.storage.memory,
        }[strike.component][strike.domain]:
            if strike.start < holding.end and end > holding.start:
                begins = holding.bits(np.arange(holding.length), self.storage.width)
                for number, begin in enumerate(begins.tolist()):
                    if begin <= strike.bit < begin + self.storage.width:
                        yield holding, int(self.storage.places_of(holding)[number])

    def outputs(self, strikes: Sequence[Strike]) -> dict[str, np.ndarray]:
        """Every layer's stored outputs (flat) under the strikes."""
        self.strikes = sorted(strikes, key=lambda each: each.start)
        self.hit = [(s, list(self.struck_words(s))) if s.domain else (s, self.joint(s))
                    for s in self.strikes]  # fmt: skip
        values = {INPUT: self.image.reshape(-1)}
        self.weights = {
            name: self.executable.lane_weights(work.layer) for name, work in self.works.items()
        }
        for layer in self.executable.network.layers:
            read = np.concatenate([values[source] for source in layer.sources])
            shapes = layer.kind in (Kind.FLATTEN, Kind.CONCAT)
            values[layer.name] = read if shapes else self.run_layer(layer, read)
        return values

    def joint(self, strike: Strike):
        """What a strike on the bus or the protection map hits: kind, layer, place, tile."""
        if strike.component == "protection_map":
            first = 0
            for name, work in self.works.items():
                if work.on_array and first <= strike.bit < first + work.layer.neurons:
                    late = strike.start >= self.begins(name)
                    return [("bit", name, strike.bit - first, None)] if late else []
                first += work.layer.neurons
            return []
        transfers = self.run.schedule.transfers
        transfer = transfers.under_way(strike.start)
        if transfer is None or not self.works[transfer.span.layer].on_array:
            return []
        beat = int(np.ceil(8 * self.run.machine.config.bus.bytes_per_cycle))
        holding, place = transfers.word_of_transfer(transfer, strike.bit / beat)
        return [(holding.words, transfer.span.layer, place, (transfer.domain, transfer.span.tile))]

    def maps_of(self, layer: Layer) -> list[tuple[str, int]]:
        """The map of each input word of a layer, branch after branch, and its place there."""
        layers = {each.name: each for each in self.executable.network.layers}

        def words(name: str) -> list[tuple[str, int]]:
            held = layers.get(name)
            if held is not None and held.kind in (Kind.FLATTEN, Kind.CONCAT):
                return [word for source in held.sources for word in words(source)]
            size = held.outputs if held else len(self.image.reshape(-1))
            return [(name, place) for place in range(size)]

        if layer.name not in self._maps:
            self._maps[layer.name] = [word for source in layer.sources for word in words(source)]
        return self._maps[layer.name]

    def compute_alone(self, layer: Layer, inputs: np.ndarray) -> np.ndarray:
        parts = np.split(inputs.astype(np.float32), len(layer.sources))
        shaped = [torch.from_numpy(part.reshape(1, *layer.in_shape)) for part in parts]
        with torch.inference_mode():
            outputs = self.executable.run_layer(layer, *(fast_layout(each) for each in shaped))
        return outputs.float().numpy().reshape(-1).copy()

    def run_layer(self, layer: Layer, inputs: np.ndarray) -> np.ndarray:
        found = self.compute_alone(layer, inputs)
        weights, bias = self.weights[layer.name], self.executable.lane_bias(layer)
        struck_channels, struck_inputs = self.struck_operands(layer)
        for neuron in range(layer.outputs):
            read, used, channel = operands(layer, neuron)
            meets = struck_inputs is None or not struck_inputs.isdisjoint(read)
            if not meets and channel not in struck_channels:
                continue
            left = [
                0.0 if place is None else self.read_input(layer, neuron, place, step, inputs)
                for step, place in zip(used, read, strict=True)
            ]
            if layer.kind is Kind.ADD:
                met = inputs.copy()
                met[read] = left
                found[neuron] = self.compute_alone(layer, met)[neuron]
                continue
            if layer.kind is Kind.MAX_POOL:
                found[neuron] = max(v for v, p in zip(left, read, strict=True) if p is not None)
                continue
            total = float(bias[channel])
            if weights is None:
                total = float(np.sum(left))
            else:
                right = [
                    self.read_weight(layer, neuron, channel, step, weights[channel, step])
                    for step in used
                ]
                with np.errstate(all="ignore"):
                    total += float(np.dot(np.float64(left), np.float64(right)))
            sums = self.number_format.as_sums(np.array([total]))
            found[neuron] = self.executable.finish(layer, sums, np.array([channel]))[0]
        return self.read_as_stored(layer, found)

    def struck_operands(self, layer: Layer) -> tuple[set[int], set[int] | None]:
        """Channels whose weights, and inputs, of a layer lie where strikes are; None: any."""
        channels: set[int] = set()
        inputs: set[int] = set()
        words_of = self.maps_of(layer)
        for strike, hit in self.hit:
            for found in hit:
                if strike.component == "protection_map":
                    if found[1] in {name for name, _ in words_of}:
                        return channels, None
                    continue
                words, name, word = (
                    found[:3]
                    if strike.domain is None
                    else (found[0].words, list(self.works)[found[0].work], found[1])
                )
                if words == "outputs":
                    inputs |= {n for n, word_of in enumerate(words_of) if word_of == (name, word)}
                elif name == layer.name and words == "weights":
                    channels.add(word // layer.reduction_length)
                elif name == layer.name:
                    inputs.add(word)
        return channels, inputs

    def changed(self, value: float, strikes: Sequence[Strike], layer: Layer | None, place: int):
        for each in strikes:
            wide = layer is not None and self.executable.is_read_out(layer)
            if wide:
                shift = place % 4 * 8
                word = int(FORMATS["fp32"].encode(np.float32(value)))
                byte = each.of(word >> shift & 0xFF) & 0xFF
                word = word & ~(0xFF << shift) | byte << shift
                value = float(FORMATS["fp32"].decode(np.array(word, np.uint32)))
                continue
            mask = 2**self.number_format.bits - 1
            word = each.of(int(self.number_format.encode(np.float32(value)))) & mask
            value = float(self.number_format.decode(np.array(word, np.uint32)))
        return value

    def active(self, strike: Strike, moment: int) -> bool:
        """Whether a word that was there is wrong when it is read in a cycle."""
        return strike.start <= moment < (FOREVER if strike.end is None else strike.end)

    def read_weight(self, layer: Layer, neuron: int, channel: int, step: int, value) -> float:
        place, mine = channel * layer.reduction_length + step, []
        tile = None
        for strike, hit in self.hit:
            for found in hit:
                if strike.domain is None:
                    kind, name, where, bus_tile = found
                    if (kind, name, where) != ("weights", layer.name, place):
                        continue
                    tile = tile or self.tile_of(layer.name, neuron, step)
                    first = self.first_of_kept(layer.name, tile, "weights")
                    if (tile[0], first) == bus_tile:
                        mine.append(strike)
                    continue
                holding, where = found
                if holding.words != "weights" or where != place:
                    continue
                if holding.work != self.place[layer.name]:
                    continue
                tile = tile or self.tile_of(layer.name, neuron, step)
                if holding.tiles is not None:
                    same = tile[0] == strike.domain
                    same &= holding.tiles[0] <= tile[1] <= holding.tiles[1]
                    moment = self.began(layer.name, neuron, tile)
                else:
                    same = strike.domain == self.domain_of(layer.name, neuron)
                    same |= self.run.machine.config.weights == "protected_only"
                    moment = self.came(layer.name, tile, "weights") - 1
                if same and self.active(strike, moment):
                    mine.append(strike)
        return self.changed(float(value), mine, None, place)

    def read_input(self, layer: Layer, neuron: int, place: int, step: int, inputs) -> float:
        source, home = self.maps_of(layer)[place]
        mine, shown, on_array = [], home, self.works[layer.name].on_array
        tile = None

        def tile_here():
            return self.tile_of(layer.name, neuron, step)

        def loaded():
            if not on_array:
                return self.begins(layer.name) - 1
            return self.came(layer.name, tile_here(), "inputs") - 1

        for strike, hit in self.hit:
            for found in hit:
                if strike.component == "protection_map":
                    continue
                if strike.domain is None:
                    kind, name, where, bus_tile = found
                    if kind == "outputs" and name == source and where == home:
                        mine.append(strike)
                    if (kind, name, where) == ("inputs", layer.name, place):
                        tile = tile_here()
                        if (tile[0], self.first_of_kept(layer.name, tile, "inputs")) == bus_tile:
                            mine.append(strike)
                    continue
                holding, where = found
                mine_there = holding.words == "inputs" and holding.work == self.place[layer.name]
                if where == place and mine_there:
                    tile = tile_here()
                    same = tile[0] == strike.domain
                    same &= holding.tiles[0] <= tile[1] <= holding.tiles[1]
                    if same and self.active(strike, self.began(layer.name, neuron, tile)):
                        mine.append(strike)
                spoils = holding.words == "outputs" and holding.work == self.place.get(source)
                if (
                    spoils
                    and where == home
                    and self.spoils_output(strike, holding, source, home)
                    and (holding.tiles is not None or self.active(strike, loaded()))
                ):
                    mine.append(strike)
        wrong = [
            found[0][2] for strike, found in self.hit
            if strike.component == "protection_map" and found and found[0][1] == source
            and self.active(strike, loaded())
        ]  # fmt: skip
        layers = {each.name: each for each in self.executable.network.layers}
        held = layers.get(source)
        if wrong:
            shown = self.found_at(source, home, wrong)
            if shown is None:
                return 0.0
        if shown != home:  # strikes on words and on the map at once are not modelled here
            assert not mine
        return self.changed(float(inputs[place - home + shown]), mine, held, home)

    def found_at(self, source: str, place: int, wrong: list[int]) -> int | None:
        """The element that a reader finds in place of one, by a map with wrong bits."""
        width = self.works[source].layer.out_shape[-1]
        row = [place // width * width + column for column in range(width)]
        stored = {each: self.domain_of(source, each) for each in row}
        read = dict(stored)
        for each in wrong:
            if each in read:
                read[each] = "protected" if read[each] == "unprotected" else "unprotected"
        domain = read[place]
        if self.run.machine.config.layout == "holes":
            return place if domain == stored[place] else None
        rank = [each for each in row if read[each] == domain].index(place)
        there = [each for each in row if stored[each] == domain]
        return there[rank] if rank < len(there) else None

    def spoils_output(self, strike: Strike, holding, layer: str, place: int) -> bool:
        """Whether a strike changes an output that is there, or that passes while it lasts."""
        if holding.tiles is not None:
            written = self.run.schedule.slot_of(layer, place).end_cycle
            if strike.end is not None:
                return self.active(strike, holding.end - 1)
            return written <= strike.start < holding.end
        return strike.end is not None or strike.start >= self.stored(layer, place)

    def read_as_stored(self, layer: Layer, found: np.ndarray) -> np.ndarray:
        """Outputs that nobody reads but the outside world are the answer: wrong as they lie."""
        read = {name for work in self.works.values() for name, _ in self.maps_of(work.layer)}
        if layer.name in read:
            return found
        answer, wrong = found.copy(), []
        for strike, hit in self.hit:
            for each in hit:
                if strike.component == "protection_map":
                    if each[1] == layer.name:
                        wrong.append(each[2])
                    continue
                if strike.domain is None:
                    if each[:2] == ("outputs", layer.name):
                        answer[each[2]] = self.changed(answer[each[2]], [strike], layer, each[2])
                    continue
                holding, place = each
                mine = holding.words == "outputs" and holding.work == self.place[layer.name]
                if mine and self.spoils_output(strike, holding, layer.name, place):
                    answer[place] = self.changed(answer[place], [strike], layer, place)
        if wrong:
            sources = [self.found_at(layer.name, place, wrong) for place in range(len(answer))]
            answer = np.array([0.0 if s is None else answer[s] for s in sources], np.float32)
        return answer


@lru_cache(None)
def operands(layer: Layer, neuron: int):
    """Input places (None: padding) and steps of a neuron, in order, and its channel."""
    if layer.kind is Kind.LINEAR:
        return list(range(layer.in_shape[0])), list(range(layer.in_shape[0])), neuron
    if layer.kind is Kind.ADD:
        branches = list(range(len(layer.sources)))
        return [neuron + layer.outputs * each for each in branches], branches, 0
    shape = layer.out_shape if len(layer.out_shape) == 3 else (layer.channels, 1, 1)
    channel, row, column = (int(each) for each in np.unravel_index(neuron, shape))
    pooled = not layer.weights
    size = 1 if pooled else layer.in_shape[0] // layer.groups
    base = channel if pooled else channel // (layer.channels // layer.groups) * size
    places, steps = [], []
    for number in range(size):
        for i in range(layer.kernel[0]):
            for j in range(layer.kernel[1]):
                y = row * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
                x = column * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
                inside = 0 <= y < layer.in_shape[1] and 0 <= x < layer.in_shape[2]
                index = (base + number, y, x)
                places.append(int(np.ravel_multi_index(index, layer.in_shape)) if inside else None)
                steps.append((number * layer.kernel[0] + i) * layer.kernel[1] + j)
    return places, steps, channel
