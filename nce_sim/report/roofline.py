"""The roofline of a run: what each layer reached, and the most that the machine allows there."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from nce_sim.config.array_scheme import ArrayScheme
from nce_sim.config.machine_schema import ArrayConfig
from nce_sim.machine.engine import Run
from nce_sim.machine.probe import BARRIER, SWITCH
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import LayerWork

BOTH = "both arrays"
WHOLE = "the whole run"


@dataclass(frozen=True)
class RooflinePoint:
    """What one array, or both, did in one layer or in all.

    `memory_bytes` are all that its tiles moved from and to the external memory, check bits and
    unused parts of bursts included. `cycles` are those in which it computed or waited for data: not
    at a barrier, nor while columns were fused. Of both arrays they are all of the layer, and of the
    whole run its latency.
    """

    array: str
    layer: str
    macs: int
    memory_bytes: int
    cycles: int

    @property
    def macs_per_byte(self) -> float:
        """Multiply-accumulates for each byte of external memory; infinite if none moved."""
        return self.macs / self.memory_bytes if self.memory_bytes else inf

    @property
    def macs_per_cycle(self) -> float:
        """Multiply-accumulates a cycle."""
        return self.macs / self.cycles


@dataclass(frozen=True)
class Roofs:
    """What bounds the points of an array, or of both, in bytes and multiply-accumulates a cycle."""

    peak_macs: float
    memory_bytes: float
    bus_bytes: float

    def at(self, macs_per_byte: float) -> float:
        """Return the most multiply-accumulates a cycle at so many for each byte."""
        return min(self.peak_macs, min(self.memory_bytes, self.bus_bytes) * macs_per_byte)


def roofline_points(run: Run) -> list[RooflinePoint]:
    """Return a point for each array, or both, and layer in which it works, and for all layers.

    Layers without neurons do no multiply-accumulates; they count in the whole run only.
    """
    moved = {work.layer.name: _memory_bytes(work) for work in run.program.layers}
    points = []
    for array in (*DOMAINS, BOTH):
        arrays = DOMAINS if array == BOTH else (array,)
        for layer, by_array in run.useful_macs_by_layer.items():
            macs = sum(by_array[each] for each in arrays)
            memory = sum(moved[layer][each] for each in arrays)
            cycles = _cycles(run, layer, array)
            points.append(RooflinePoint(array, layer, macs, memory, cycles))
        points.append(_whole(run, array, arrays, moved))
    return [point for point in points if point.macs]


def _whole(
    run: Run, array: str, arrays: tuple[str, ...], moved: Mapping[str, Mapping[str, int]]
) -> RooflinePoint:
    """Return the point of all layers; to both arrays belong the fetches of the protection map."""
    macs = sum(run.counts.domains[each].useful_macs for each in arrays)
    memory = sum(of_layer[each] for of_layer in moved.values() for each in arrays)
    if array == BOTH:
        memory = run.counts.memory_bytes
    return RooflinePoint(array, WHOLE, macs, memory, run.latency_cycles)


def _memory_bytes(work: LayerWork) -> dict[str, int]:
    """Return the bytes that each array's tiles of a layer move from and to external memory."""
    return {
        array: sum(
            stream.moved_bytes
            for tile in work.tiles(array)
            for stream in (*tile.loads, *tile.stores)
            if stream.external
        )
        for array in DOMAINS
    }


def _cycles(run: Run, layer: str, array: str) -> int:
    if array == BOTH:
        start, end = run.layer_intervals[layer]
        return end - start
    causes = run.cycles_by_layer_and_cause[layer][array]
    return sum(cycles for cause, cycles in causes.items() if cause not in (BARRIER, SWITCH))


def roofs(run: Run, array: str) -> Roofs:
    """Return the roofs of an array or of both; of a fabric, the most lanes that it ever has.

    Of a temporal scheme's repeats one is useful. The memory's slope is that of its best streams.
    """
    arrays = DOMAINS if array == BOTH else (array,)
    config = run.machine.config
    peak = max(
        sum(_useful_peak(work.arrays[each], config.scheme_of(each)) for each in arrays)
        for work in run.program.layers
    )
    memory, bus = config.memory, config.bus
    best = max(memory.efficiency.weights, memory.efficiency.maps, memory.efficiency.writes)
    return Roofs(peak, float(memory.rate(best)), bus.bytes_per_cycle)


def _useful_peak(array: ArrayConfig, scheme: ArrayScheme) -> float:
    return array.lanes * array.macs_per_cycle / scheme.repeats
