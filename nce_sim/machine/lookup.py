"""Which lane computes a neuron, and when; and which neuron a lane computes in a cycle."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nce_sim.errors import InputError
from nce_sim.machine.probe import COMPUTE, Timeline
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import DomainWork, LayerWork, Program
from nce_sim.schedule.tiles import Tile
from nce_sim.schedule.waves import Placement, place_neurons


@dataclass(frozen=True)
class Slot:
    """One neuron on one lane, from `start_cycle` to `end_cycle` (exclusive).

    `neuron` is the index within the layer: channel, row, column, the last running fastest.
    """

    layer: str
    neuron: int
    domain: str
    row: int
    column: int
    start_cycle: int
    end_cycle: int


class Schedule:
    """A program with the times at which its tiles were computed."""

    def __init__(self, program: Program, timeline: Timeline) -> None:
        self.program = program
        self._works: Mapping[str, LayerWork] = {w.layer.name: w for w in program.layers}
        self._compute: dict[tuple[str, str, int], tuple[int, int]] = {}
        for span in timeline.spans:
            domain = span.domain_of_array
            if span.what == COMPUTE and domain is not None:
                key = (domain, span.layer, span.tile)
                self._compute[key] = (span.start_cycle, span.end_cycle)
        self._placements: dict[tuple[str, str], Placement] = {}

    def slot_of(self, layer: str, neuron: int) -> Slot:
        """Return where and when a neuron is computed.

        Raises InputError for an unknown layer or neuron.
        """
        work = self._works.get(layer)
        if work is None or not work.on_array:
            known = ", ".join(name for name, each in self._works.items() if each.on_array)
            raise InputError(f"no layer '{layer}' with neurons: there are {known}")
        if not 0 <= neuron < work.layer.neurons:
            raise InputError(f"layer {layer} has neurons 0 to {work.layer.neurons - 1}")
        for domain in DOMAINS:
            placement = self._placement(work, domain)
            if placement is None:
                continue
            found = np.flatnonzero(placement.neuron == neuron)
            if len(found):
                return self._slot(work, domain, placement, int(found[0]))
        raise AssertionError(f"neuron {neuron} of {layer} is in no domain")

    def neuron_at(self, domain: str, row: int, column: int, cycle: int) -> Slot | None:
        """Return what a lane computes in a cycle, or None if it is idle."""
        for (of_domain, layer, number), (start, end) in self._compute.items():
            if of_domain != domain or not start <= cycle < end:
                continue
            work = self._works[layer]
            placement = self._placement(work, domain)
            assert placement is not None
            tile = work.domains[domain].tiles[number]
            candidates = np.flatnonzero(
                (placement.row == row)
                & (placement.column == column)
                & (placement.window >= tile.windows[0])
                & (placement.window < tile.windows[1])
                & (placement.group >= tile.groups[0])
                & (placement.group < tile.groups[1])
            )
            for place in candidates:
                slot = self._slot(work, domain, placement, int(place))
                if slot.start_cycle <= cycle < slot.end_cycle:
                    return slot
        return None

    def _placement(self, work: LayerWork, domain: str) -> Placement | None:
        key = (work.layer.name, domain)
        share = work.domains[domain]
        if share.plan is None:
            return None
        if key not in self._placements:
            self._placements[key] = place_neurons(share.plan, share.mask)
        return self._placements[key]

    def _slot(self, work: LayerWork, domain: str, placement: Placement, place: int) -> Slot:
        share = work.domains[domain]
        wave = (
            int(placement.window[place]), int(placement.group[place]), int(placement.chunk[place])
        )  # fmt: skip
        start, end = self._wave_times(work.layer.name, domain, share, wave)
        return Slot(
            layer=work.layer.name,
            neuron=int(placement.neuron[place]),
            domain=domain,
            row=int(placement.row[place]),
            column=int(placement.column[place]),
            start_cycle=start,
            end_cycle=end,
        )

    def _wave_times(
        self, layer: str, domain: str, share: DomainWork, wave: tuple[int, int, int]
    ) -> tuple[int, int]:
        """Return when a wave starts and ends; over several tiles if its K was split."""
        numbers = [n for n, tile in enumerate(share.tiles) if _holds(tile, wave)]
        starts = [self._compute[domain, layer, number] for number in numbers]
        tile = share.tiles[numbers[0]]
        if tile.chunk is not None:
            return starts[0][0], starts[-1][1]
        assert share.plan is not None
        part = share.plan.cycles[slice(*tile.windows), slice(*tile.groups)]
        before = np.cumsum(part.ravel()).reshape(part.shape)
        place = (wave[0] - tile.windows[0], wave[1] - tile.groups[0], wave[2])
        end = starts[0][0] + int(before[place])
        return end - int(part[place]), end


def _holds(tile: Tile, wave: tuple[int, int, int]) -> bool:
    return (
        tile.windows[0] <= wave[0] < tile.windows[1]
        and tile.groups[0] <= wave[1] < tile.groups[1]
        and tile.chunk in (None, wave[2])
    )
