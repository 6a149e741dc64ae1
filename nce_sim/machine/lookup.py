"""Which lane computes a neuron, and when; and which neuron a lane computes in a cycle."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.machine.executions import Executions, executions_of
from nce_sim.machine.probe import COMPUTE, Span, Timeline
from nce_sim.machine.storage import Storage
from nce_sim.machine.transfers import Transfers
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import LayerWork, Program, Share
from nce_sim.schedule.rotation import Moment, steps, to_logical, to_physical
from nce_sim.schedule.tiles import Tile
from nce_sim.schedule.waves import Placement, Wave, place_neurons


@dataclass(frozen=True)
class Slot:
    """One neuron of one image on one lane, from `start_cycle` to `end_cycle` (exclusive).

    `neuron` is the index within the layer: channel, row, column, the last running fastest. `array`
    is the domain of the lane, `domain` that of the neuron. `row` and `column` are the physical
    lane; of the first run, where a temporal scheme changes lanes between its runs.
    """

    layer: str
    neuron: int
    image: int
    array: str
    domain: str
    row: int
    column: int
    start_cycle: int
    end_cycle: int


class Schedule:
    """A program with the times at which its tiles were computed."""

    def __init__(self, program: Program, timeline: Timeline) -> None:
        self.program, self._spans = program, timeline.spans
        self._works: Mapping[str, LayerWork] = {w.layer.name: w for w in program.layers}
        self._number = {work.layer.name: place for place, work in enumerate(program.layers)}
        self._placements: dict[int, Placement] = {}

    @cached_property
    def executions(self) -> Mapping[str, Executions]:
        """All executions of waves by array, for many questions at once.

        Raises InputError for a batch of several images and where waves were repeated.
        """
        return {name: executions_of(self.program, self._spans, name) for name in DOMAINS}

    @cached_property
    def storage(self) -> Storage:
        """What the memories hold when; raises InputError as `executions` does.

        Raises InputError for a network that answers with joined maps.
        """
        flattened, joined = self.program.flattened, self.program.joined
        sources = [work.layer.sources for work in self.program.layers] + [*joined.values()]
        read = {flattened.get(name, name) for each in sources for name in each}
        for name in joined:
            if name not in read:
                raise InputError(
                    f"what memories hold is not known for a network that answers with joined maps "
                    f"({name}): let a layer read them"
                )
        return Storage(self.program, self._spans, self.executions)

    @cached_property
    def transfers(self) -> Transfers:
        """What is on the bus when; raises InputError as `executions` does."""
        return Transfers(self.storage)

    @cached_property
    def latency_cycles(self) -> int:
        """Cycles of the inference: every cycle of each array has a cause up to the end."""
        return max(span.end_cycle for span in self._spans)

    @property
    def spans(self) -> Sequence[Span]:
        """All spans of the timeline."""
        return self._spans

    @cached_property
    def _order(self) -> dict[str, list[tuple[int, int, str, int]]]:
        """When each array computed: (start, end, layer, tile) in order of time."""
        order: dict[str, list[tuple[int, int, str, int]]] = {name: [] for name in DOMAINS}
        for span in self._spans:
            array = span.domain_of_array
            if span.what == COMPUTE and array is not None:
                order[array].append((span.start_cycle, span.end_cycle, span.layer, span.tile))
        return order

    @cached_property
    def _times(self) -> dict[tuple[str, str], dict[int, tuple[int, int]]]:
        """Start and end of each tile's computing, by array and layer."""
        times: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
        for array, entries in self._order.items():
            for start, end, layer, tile in entries:
                times.setdefault((array, layer), {})[tile] = start, end
        return times

    def slot_of(self, layer: str, neuron: int, image: int = 0, inference: int = 0) -> Slot:
        """Return where and when a neuron of an image of the batch is computed.

        `inference` counts the batches since the start: lanes may rotate with it.

        Raises InputError for an unknown layer, neuron or image.
        """
        work = self._works.get(layer)
        if work is None or not work.on_array:
            known = ", ".join(name for name, each in self._works.items() if each.on_array)
            raise InputError(f"no layer '{layer}' with neurons: there are {known}")
        if not 0 <= neuron < work.layer.neurons:
            raise InputError(f"layer {layer} has neurons 0 to {work.layer.neurons - 1}")
        if not 0 <= image < self.program.batch:
            raise InputError(f"the batch has images 0 to {self.program.batch - 1}")
        for share, first_tile in self._shares(work):
            if share.mask.reshape(-1)[neuron]:
                place = int(np.searchsorted(self._placement(share).neuron, neuron))
                return self._slot(work, share, first_tile, place, image, inference)
        raise AssertionError(f"neuron {neuron} of {layer} is in no domain")

    def neuron_at(
        self, array: str, row: int, column: int, cycle: int, inference: int = 0
    ) -> Slot | None:
        """Return what a lane of a domain's array holds in a cycle, or None if it is idle.

        Between two ranges of K of a wave the lane holds the neuron's sum, and waits. Where the runs
        of a temporal scheme change lanes, the answer is that of the first run's lane.
        """
        order = self._order[array]
        latest = bisect_right(order, cycle, key=lambda entry: entry[0]) - 1
        if latest < 0:
            return None
        _, end, layer, number = order[latest]
        work = self._works[layer]
        tile = work.tiles(array)[number]
        if cycle >= end and tile.stores:
            return None
        for share, first_tile in self._shares(work):
            if share.array == array and first_tile <= number < first_tile + len(share.tiles):
                tile_place = first_tile, number - first_tile
                return self._held(work, share, tile_place, (row, column), cycle, inference)
        raise AssertionError(f"tile {number} of {layer} belongs to no share")

    def _held(
        self, work: LayerWork, share: Share, tile_place: tuple[int, int], lane: tuple[int, int],
        cycle: int, inference: int,
    ) -> Slot | None:  # fmt: skip
        first_tile, number = tile_place
        placement, tile, plan = self._placement(share), share.tiles[number], share.plan
        assert plan is not None
        in_tile = (placement.group >= tile.groups[0]) & (placement.group < tile.groups[1])
        images = range(self.program.batch) if tile.image is None else [tile.image]
        row, column = self._logical(work, share.array, lane, inference)
        own = in_tile & (placement.column == column)
        if not plan.image_rows:
            own &= placement.row == row
        for place in np.flatnonzero(own):
            for image in images:
                slot = self._slot(work, share, first_tile, int(place), image, inference)
                if (slot.row, slot.column) == lane and slot.start_cycle <= cycle < slot.end_cycle:
                    return slot
        return None

    def _logical(
        self, work: LayerWork, array: str, lane: tuple[int, int], inference: int
    ) -> tuple[int, int]:
        moved = self._moved(work, inference)
        rows, columns = np.array([lane[0]]), np.array([lane[1]])
        row, column = to_logical(work.arrays[array], rows, columns, moved)
        return int(row[0]), int(column[0])

    def _moved(self, work: LayerWork, inference: int) -> int:
        moment = Moment(self._number[work.layer.name], inference, run=0)
        return int(steps(self.program.machine.controller.rotation, moment))

    def _shares(self, work: LayerWork) -> Iterator[tuple[Share, int]]:
        """Yield each share with the number of its first tile on its array."""
        for array in DOMAINS:
            first = 0
            for share in work.on(array):
                yield share, first
                first += len(share.tiles)

    def _placement(self, share: Share) -> Placement:
        if id(share) not in self._placements:
            assert share.plan is not None
            self._placements[id(share)] = place_neurons(share.plan, share.mask)
        return self._placements[id(share)]

    def _slot(
        self, work: LayerWork, share: Share, first_tile: int, place: int, image: int,
        inference: int,
    ) -> Slot:  # fmt: skip
        placement, plan = self._placement(share), share.plan
        assert plan is not None
        wave = (
            int(placement.window[place]), int(placement.group[place]), int(placement.chunk[place])
        )  # fmt: skip
        row = int(placement.row[place])
        if plan.image_rows:
            window, position = divmod(image, plan.window)
            chunk, row = divmod(position, plan.rows)
            wave = (window, wave[1], chunk)
        start, end = self._wave_times(work.layer.name, share, first_tile, wave, image)
        moved = self._moved(work, inference)
        physical_row, physical_column = to_physical(
            work.arrays[share.array], np.array([row]), placement.column[place : place + 1], moved
        )
        return Slot(
            layer=work.layer.name,
            neuron=int(placement.neuron[place]),
            image=image,
            array=share.array,
            domain=share.domain,
            row=int(physical_row[0]),
            column=int(physical_column[0]),
            start_cycle=start,
            end_cycle=end,
        )

    def _wave_times(
        self, layer: str, share: Share, first_tile: int, wave: Wave, image: int
    ) -> tuple[int, int]:
        """Return when a wave starts and ends; over several tiles if its K was split."""
        times = self._times[share.array, layer]
        numbers = [n for n, tile in enumerate(share.tiles) if _holds(tile, wave, image)]
        found = [times[first_tile + number] for number in numbers]
        tile = share.tiles[numbers[0]]
        if tile.chunk is not None:
            return found[0][0], found[-1][1]
        part = _cycles(share, tile)
        before = np.cumsum(part.ravel()).reshape(part.shape)
        place = (wave[0] - tile.windows[0], wave[1] - tile.groups[0], wave[2])
        end = found[0][0] + int(before[place])
        return end - int(part[place]), end


def _cycles(share: Share, tile: Tile) -> NDArray[np.int64]:
    """Return the cycles of each wave of a tile, with those that run again."""
    assert share.plan is not None
    part = (slice(*tile.windows), slice(*tile.groups))
    cycles = share.plan.cycles[part]
    if share.mismatches is None:
        return cycles
    return cycles * (1 + share.mismatches[tile.image or 0][part])


def _holds(tile: Tile, wave: Wave, image: int) -> bool:
    return (
        tile.image in (None, image)
        and tile.windows[0] <= wave[0] < tile.windows[1]
        and tile.groups[0] <= wave[1] < tile.groups[1]
        and tile.chunk in (None, wave[2])
    )
