"""What fine granularity buys and costs in hardware: the same share protected in coarser units.

Neuron by neuron a split follows the ranking best, but its holes cost operand bandwidth, crossings,
and weights in both domains. Coarser units cost less and protect less precisely. Here is what the
hardware says; what it does to accuracy is a matter of `evaluate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nce_sim.config.machine import Machine
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.resilience.split import Alignment, Block, Split

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Unit:
    """A granularity under its name. `aligned` rounds a split by neurons to rows and windows."""

    name: str
    granularity: str
    block: Block | None = None
    aligned: bool = False


UNITS = (
    Unit("neuron", "neuron"),
    Unit("neuron, aligned", "neuron", aligned=True),
    Unit("block 4x4", "block", (4, 4)),
    Unit("channel", "channel"),
    Unit("layer", "layer"),
)


@dataclass(frozen=True)
class GranularityPoint:
    """One split on the machine. Energies and latencies are one inference's."""

    unit: str
    asked_fraction: float
    fraction: float
    mac_share: float
    latency_cycles: int
    latency_us: float
    energy_pj: float
    crossing_bytes: int
    map_bytes: int

    @staticmethod
    def of(unit: str, split: Split, run: Run) -> "GranularityPoint":
        """Return what is kept of a run."""
        return GranularityPoint(
            unit=unit,
            asked_fraction=split.asked_fraction,
            fraction=split.unprotected_fraction,
            mac_share=run.mac_share_unprotected,
            latency_cycles=run.latency_cycles,
            latency_us=run.latency_us,
            energy_pj=run.energy.total_pj,
            crossing_bytes=run.counts.crossing_bytes,
            map_bytes=run.counts.map_bytes,
        )


@dataclass(frozen=True)
class GranularityStudy:
    """A network on a machine in all units and fractions.

    `protected` and `unprotected` are the ends that all units share: everything on one side.
    """

    network: str
    machine: str
    method: str
    points: tuple[GranularityPoint, ...]
    protected: GranularityPoint
    unprotected: GranularityPoint

    def of(self, unit: str) -> list[GranularityPoint]:
        """Return a unit's points in order of the fraction, with both ends."""
        inner = [point for point in self.points if point.unit == unit]
        return [self.protected, *sorted(inner, key=lambda p: p.fraction), self.unprotected]


def study_granularity(
    network: Network,
    name: str,
    ranking: Ranking,
    machine: Machine,
    fractions: Sequence[float] = FRACTIONS,
    units: Sequence[Unit] = UNITS,
    advance: Callable[[int], None] = lambda _: None,
) -> GranularityStudy:
    """Simulate splits of one ranking in all units; `advance` is told each that is done."""

    def point(unit: Unit, fraction: float) -> GranularityPoint:
        split = _split(ranking, unit, fraction, machine)
        advance(1)
        return GranularityPoint.of(unit.name, split, simulate(network, machine, split))

    ends = [point(Unit("all", "layer"), fraction) for fraction in (0.0, 1.0)]
    points = tuple(point(unit, fraction) for unit in units for fraction in fractions)
    method = ranking.origin.method
    return GranularityStudy(name, machine.config.name, method, points, ends[0], ends[1])


def _split(ranking: Ranking, unit: Unit, fraction: float, machine: Machine) -> Split:
    if not unit.aligned:
        return ranking.split(fraction, unit.granularity, block=unit.block)
    rows = machine.config.unprotected.array.rows
    return ranking.split(fraction, align=Alignment(rows=rows, window=4 * rows))
