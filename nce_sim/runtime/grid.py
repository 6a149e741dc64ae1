"""The splits among which a policy chooses, as the machine was simulated with each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from nce_sim.config.machine import Machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.split import Split
from nce_sim.runtime.metering import Meter, run_aj
from nce_sim.runtime.transitions import Transition, transition

__all__ = ["Grid", "GridPoint", "Splitting", "Transition", "build_grid"]


class Splitting(Protocol):
    """What makes splits: a ranking."""

    def split(self, unprotected_fraction: float, granularity: str = "neuron") -> Split:
        """Return the split that leaves that share of the neurons unprotected."""


@dataclass(frozen=True)
class GridPoint:
    """One split on the machine: `run` has its schedule, latency and energy.

    The points of a grid share a meter, so that conditions are worked out once for all of them.
    """

    fraction: float
    split: Split
    run: Run
    shared_meter: Meter | None = field(default=None, repr=False, compare=False)
    _runs_aj: dict[tuple[float | None, float | None], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def meter(self) -> Meter:
        """What the machine spends under conditions."""
        return self.shared_meter or Meter(self.run.machine)

    @property
    def cycles(self) -> int:
        """Cycles of an inference in which no wave runs again."""
        return self.run.latency_cycles

    def energy_aj(
        self,
        temperature_c: float | None = None,
        supply_v: float | None = None,
        *,
        extra_cycles: int = 0,
        extra_energy_aj: int = 0,
    ) -> int:
        """Return the energy of one inference in attojoules under conditions.

        None is the machine's own figure. `extra_energy_aj` is what `extra_cycles` of checks and of
        waves that ran again took under the machine's own conditions: what leaks in them follows the
        conditions here, the rest is taken to be that of the protected domain, whose supply stays.
        Raises InputError for conditions that the machine's tables do not allow.
        """
        rates, own = self.meter.rates(temperature_c, supply_v), self.meter.rates()
        key = temperature_c, supply_v
        if key not in self._runs_aj:
            self._runs_aj[key] = run_aj(self.run, rates)
        more_leaks = rates.idle_aj_per_cycle - own.idle_aj_per_cycle
        return self._runs_aj[key] + extra_energy_aj + extra_cycles * more_leaks


@dataclass(frozen=True)
class Grid:
    """Splits in order of rising unprotected fraction, and what changing between them takes.

    `transitions` has an entry for each ordered pair of different indices.
    """

    points: tuple[GridPoint, ...]
    transitions: Mapping[tuple[int, int], Transition]
    _changes_aj: dict[tuple[int, int, float | None, float | None], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def meter(self) -> Meter:
        """What the machine spends under conditions."""
        return self.points[0].meter

    @property
    def clock_mhz(self) -> float:
        """The clock whose cycles all times are counted in."""
        return self.points[0].run.machine.config.clock_mhz

    def change_cycles(self, before: int, after: int) -> int:
        """Return the cycles of a change; none if the split stays."""
        return 0 if before == after else self.transitions[before, after].cycles

    def change_aj(
        self,
        before: int,
        after: int,
        temperature_c: float | None = None,
        supply_v: float | None = None,
    ) -> int:
        """Return the energy of a change under conditions; none if the split stays."""
        if before == after:
            return 0
        key = before, after, temperature_c, supply_v
        if key not in self._changes_aj:
            activity = self.transitions[before, after].activity
            rates = self.meter.rates(temperature_c, supply_v)
            self._changes_aj[key] = rates.energy_aj([activity])
        return self._changes_aj[key]


def build_grid(
    network: Network,
    machine: Machine,
    ranking: Splitting,
    fractions: Sequence[float],
    granularity: str = "neuron",
) -> Grid:
    """Simulate the machine with each split, and work out what every change takes.

    Raises InputError for no fraction, for fractions of which two give the same split, and as
    `Ranking.split` and `simulate` do.
    """
    if not fractions:
        raise InputError("a grid needs at least one unprotected fraction: none is given")
    meter = Meter(machine)
    points: list[GridPoint] = []
    for fraction in sorted(fractions):
        split = ranking.split(fraction, granularity)
        for other in points:
            if other.split.identity == split.identity:
                raise InputError(
                    f"unprotected fractions {other.fraction:g} and {fraction:g} give the same "
                    f"split by {granularity}: leave one of them out"
                )
        points.append(GridPoint(fraction, split, simulate(network, machine, split), meter))
    return Grid(
        tuple(points),
        {
            (before, after): transition(points[before].run, points[after].run, meter)
            for before in range(len(points))
            for after in range(len(points))
            if before != after
        },
    )
