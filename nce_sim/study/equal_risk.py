"""Designs at equal risk: what each costs where its rate of silent errors meets one target.

Risk is the rate of silent errors (SDC) at a demand of so many images a second: raw rates of
transient faults of the technology table, by the bits of each site, times the time that inferences
take, times what one fault does in the real network (`nce_sim.accuracy.risk`). A point meets the
target if the upper end of its interval does, and if it is fast enough for the demand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Literal

from nce_sim.accuracy.risk import Estimate, Risk, RiskMeter
from nce_sim.config.machine import Machine
from nce_sim.config.technology import End
from nce_sim.errors import InputError
from nce_sim.faults.exposure import exposures_of
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.resilience.split import Split
from nce_sim.study.designs import (
    DESIGNS,
    ECC,
    NEURON,
    Choice,
    Design,
    Equal,
    choices_of,
    idle_area_mm2,
    machine_of,
    unused_domain,
)
from nce_sim.workload.graph import Workload

US_PER_SECOND = 1e6
REDUCTION = 2
"""The default target is this part of what codes on all memories reach alone, the cheapest common
protection. Lane protection has to add to that, and cannot add much: it leaves column and output
registers, voters and the bus as they are, about a sixth of what is open then."""

RIVALS = ("channel", "layer", "tmr")
"""What a split by neuron has to beat."""

ANY_UNIT = "layer"
"""The unit of a split that leaves nothing unprotected."""

CostName = Literal["energy", "area", "latency"]
COSTS: tuple[CostName, ...] = ("energy", "area", "latency")


@dataclass(frozen=True)
class Demand:
    """What is asked of all designs, and which ends of the ranges of the fault rates are taken."""

    images_per_second: float = 100.0
    rates: End = "value"

    def __post_init__(self) -> None:
        if not isfinite(self.images_per_second) or self.images_per_second <= 0:
            raise InputError(
                f"images per second must be a number above 0, not {self.images_per_second}"
            )


@dataclass(frozen=True)
class DesignPoint:
    """One design with one choice of its grid; ranges of costs are those of the technology table.

    `fraction` is the share of neurons on PEs that the split achieved. `duty` is the share of the
    time that inferences take at the demand.
    """

    design: Design
    choice: Choice
    fraction: float
    lanes: int
    latency_us: float
    energy_uj: Estimate
    area_mm2: Estimate
    idle_mm2: float
    duty: float
    risk: Risk

    @staticmethod
    def of(
        design: Design, choice: Choice, fraction: float, run: Run, demand: Demand, risk: Risk
    ) -> "DesignPoint":
        """Return what is kept of a run with its risk."""
        spent, chip = run.energy, run.area
        return DesignPoint(
            design=design,
            choice=choice,
            fraction=fraction,
            lanes=lanes_of(design, run.machine),
            latency_us=run.latency_us,
            energy_uj=Estimate(spent.total_pj, spent.low_pj, spent.high_pj).times(1e-6),
            area_mm2=Estimate(chip.total_mm2, chip.low_mm2, chip.high_mm2),
            idle_mm2=idle_area_mm2(design, run.machine),
            duty=duty_of(run, demand),
            risk=risk,
        )

    @property
    def sdc_fit(self) -> Estimate:
        """Silent errors in 1e9 hours at the demand."""
        return self.risk.sdc_fit(self.duty)

    @property
    def is_fast_enough(self) -> bool:
        """Whether it computes as many images as are demanded."""
        return self.duty <= 1

    def meets(self, target_fit: float) -> bool:
        """Tell whether it surely meets a target and the demand."""
        return self.is_fast_enough and self.sdc_fit.high <= target_fit

    def cost(self, name: CostName) -> float:
        """Return energy in uJ, area in mm2 or latency in us."""
        return {
            "energy": self.energy_uj.value,
            "area": self.area_mm2.value,
            "latency": self.latency_us,
        }[name]


def lanes_of(design: Design, machine: Machine) -> int:
    """Return the lanes that compute useful neurons."""
    unused = unused_domain(design)
    return sum(array.lanes for name, array in machine.config.arrays.items() if name != unused)


def duty_of(run: Run, demand: Demand) -> float:
    """Return the share of the time that inferences take."""
    return run.latency_us * demand.images_per_second / US_PER_SECOND


@dataclass(frozen=True)
class EqualRisk:
    """All designs with all their choices, and the target that they are to meet at least cost."""

    network: str
    base: Machine
    equal: Equal
    minimise: CostName
    demand: Demand
    target_fit: float
    target_reason: str
    points: tuple[DesignPoint, ...]

    def of(self, design: str) -> list[DesignPoint]:
        """Return a design's points, the cheapest first."""
        mine = [point for point in self.points if point.design.name == design]
        return sorted(mine, key=lambda point: point.cost(self.minimise))

    def chosen(self, design: str) -> DesignPoint | None:
        """Return a design's cheapest point that meets the target; None if none does."""
        meeting = (point for point in self.of(design) if point.meets(self.target_fit))
        return next(meeting, None)

    @cached_property
    def designs(self) -> tuple[Design, ...]:
        """The designs in order."""
        return tuple(dict.fromkeys(point.design for point in self.points))

    @property
    def best_rival(self) -> DesignPoint | None:
        """The cheapest point of coarser splits and of TMR for everything that meets the target."""
        found = [point for name in RIVALS if (point := self.chosen(name)) is not None]
        return min(found, key=lambda point: point.cost(self.minimise), default=None)

    @property
    def neuron_pays(self) -> bool:
        """Whether a split by neuron meets the target for less than all of its rivals."""
        mine, rival = self.chosen(NEURON), self.best_rival
        if mine is None:
            return False
        return rival is None or mine.cost(self.minimise) < rival.cost(self.minimise)

    def front(self) -> list[DesignPoint]:
        """Return the points that no other beats in both energy and what is shown of the risk.

        What is shown is the upper end of the interval: a design is not safe because few faults were
        injected into it.
        """
        return [
            point
            for point in self.points
            if not any(_dominates(other, point) for other in self.points)
        ]


def _dominates(other: DesignPoint, point: DesignPoint) -> bool:
    """Tell whether another point is at least as good in both, and better in one."""
    theirs = other.energy_uj.value, other.sdc_fit.high
    mine = point.energy_uj.value, point.sdc_fit.high
    return theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))


Place = tuple[Design, Choice, Split]
"""A design with one choice of its grid, and the split that follows."""


def grid_of(ranking: Ranking, fractions: Sequence[float]) -> list[Place]:
    """Return all designs with all choices.

    Coarse units reach a share only roughly: splits that leave nothing unprotected, or as much as
    another one, are left out.
    """
    found: dict[tuple[Design, str, float], Place] = {}
    for design in DESIGNS:
        for choice in choices_of(design, tuple(fractions)):
            split = ranking.split(choice.fraction, design.granularity or ANY_UNIT)
            share = split.unprotected_fraction
            if share > 0 or not design.is_split:
                found.setdefault((design, choice.pe_buffers, share), (design, choice, split))
    return list(found.values())


def study_equal_risk(
    network: Workload,
    base: Machine,
    grid: Sequence[Place],
    meter: RiskMeter,
    *,
    equal: Equal = "lanes",
    demand: Demand | None = None,
    target_fit: float | None = None,
    minimise: CostName = "energy",
    advance: Callable[[int], None] = lambda _: None,
) -> EqualRisk:
    """Measure all designs on their grid; `advance` is told each point that is done.

    Without a target, it is half the rate of the design that has codes alone (`REDUCTION`). Raises
    InputError if that rate is 0 as measured.
    """
    demand = demand or Demand()

    def measured(place: Place, most_fit: float | None) -> DesignPoint:
        design, choice, split = place
        run = simulate(network, machine_of(design, choice, base, equal), split)
        exposures = exposures_of(
            run.schedule, run.machine.technology, demand.rates, unused_domain(design)
        )
        most = None if most_fit is None else most_fit / duty_of(run, demand)
        risk = meter.measure(run.schedule, exposures, most)
        advance(1)
        return DesignPoint.of(design, choice, split.unprotected_fraction, run, demand, risk)

    if target_fit is not None:
        points = tuple(measured(place, target_fit) for place in grid)
        return EqualRisk(network.name, base, equal, minimise, demand, target_fit, "given", points)
    usual = next(number for number, place in enumerate(grid) if place[0].name == ECC)
    first = measured(grid[usual], None)
    target_fit = first.sdc_fit.value / REDUCTION
    if target_fit == 0:
        raise InputError(
            "with codes alone no silent error was seen, so that there is no rate to aim at: take "
            "more images or faults, or give a target"
        )
    points = tuple(
        first if number == usual else measured(place, target_fit)
        for number, place in enumerate(grid)
    )
    reason = "half of what codes alone reach"
    return EqualRisk(network.name, base, equal, minimise, demand, target_fit, reason, points)
