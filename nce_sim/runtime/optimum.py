"""The best plan over a whole trace, known beforehand, with what changing costs: the bound.

Time is cut into slots with one split each. A slot's conditions are those of its middle, and all its
requests are served in it. By dynamic programming (Bellman 1957) over slots and splits the plan with
the least cost is found, exactly for this discretised trace; the cost is energy, with a price on
expected accuracy below the target and on missed deadlines.

What the discretisation leaves out:

- Conditions that change within a slot count from a border on, at most half a slot off.
- A split changes at borders only. Where the conditions do, too, a plan that changes in between can
  be cheaper by less than what one slot costs more with the dearer split, for each change.
- A backlog does not reach into the next slot. Of more requests than a slot has time for, those
  beyond miss their deadline; that they delay those behind them is left out, and so are deadlines
  missed at a load below 1. The plan's cost is too low there, with slots of any length.

- A decision is for the inference that comes next, so a plan that is played changes with the first
  decision in a slot: one inference late.

Play the plan (`Planned`) in a mission to see what it is worth with queues and all: the difference
between its cost and the plan's own is the discretisation error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions, Surroundings
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.mission import MissionResult
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext

Served = Mapping[tuple[int, Conditions], int]
"""Requests by split and conditions."""


@dataclass(frozen=True)
class Prices:
    """What falling short of the goals costs in attojoules, so that it adds to energy.

    `shortfall_aj` is for one request of which the expected accuracy is 1 below the target (in
    proportion, if it is less), `miss_aj` for one missed deadline.
    """

    shortfall_aj: float
    miss_aj: float

    def __post_init__(self) -> None:
        if not (self.shortfall_aj >= 0 and self.miss_aj >= 0):
            raise InputError(f"prices are at least 0: {self.shortfall_aj:g}, {self.miss_aj:g}")


@dataclass(frozen=True)
class Cost:
    """What a mission or a plan costs, in attojoules; energy is exact."""

    energy_aj: int
    shortfall_aj: float
    missed_aj: float

    @property
    def total_aj(self) -> float:
        """All of it."""
        return self.energy_aj + self.shortfall_aj + self.missed_aj


@dataclass(frozen=True)
class Slots:
    """A trace cut into slots of `cycles` each: the conditions and the requests of each slot."""

    cycles: int
    conditions: tuple[Conditions, ...]
    requests: tuple[int, ...]

    @property
    def end_cycle(self) -> int:
        """First cycle after the last slot."""
        return self.cycles * len(self.conditions)


@dataclass(frozen=True)
class Plan:
    """A split for each slot, beginning from the split `start_point`, and its cost."""

    slot_cycles: int
    start_point: int
    points: tuple[int, ...]
    cost: Cost

    @property
    def changes(self) -> int:
        """How often the split changes."""
        return sum(
            a != b for a, b in zip((self.start_point, *self.points), self.points, strict=False)
        )


class Planned:
    """The policy that plays a plan; after its last slot it stays."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def decide(self, seen: Observation) -> int:
        """Return the split of this cycle's slot."""
        slot = seen.cycle // self.plan.slot_cycles
        return self.plan.points[min(slot, len(self.plan.points) - 1)]


def slots_of(
    surroundings: Surroundings,
    arrivals: Iterable[tuple[int, int]],
    grid: Grid,
    slot_cycles: int,
    duration_cycles: int,
) -> Slots:
    """Cut a trace into slots, the last of which reaches to the end of the duration or beyond.

    Raises InputError for a slot or a duration below one cycle, and for a later arrival.
    """
    if slot_cycles < 1 or duration_cycles < 1:
        raise InputError(
            f"slots and the duration last at least a cycle, not {slot_cycles} and {duration_cycles}"
        )
    requests = [0] * -(-duration_cycles // slot_cycles)
    for request, cycle in arrivals:
        if cycle >= duration_cycles:
            raise InputError(
                f"request {request} arrives in cycle {cycle:,}, after the end, {duration_cycles:,}"
            )
        requests[cycle // slot_cycles] += 1
    hertz = grid.clock_mhz * 1e6
    middles = ((slot + 0.5) * slot_cycles / hertz for slot in range(len(requests)))
    return Slots(slot_cycles, tuple(surroundings.at(s) for s in middles), tuple(requests))


def best_plan(
    context: PolicyContext, slots: Slots, prices: Prices, *, start_point: int = 0
) -> Plan:
    """Return the plan with the least cost.

    Of equal ways, that from the more protected split before is taken. Raises InputError without a
    surface.
    """
    costs = _SlotCosts(context, slots, prices)
    reached = np.full(len(context.grid.points), np.inf)
    reached[start_point] = 0.0
    came_from = []
    for slot in range(len(slots.requests)):
        ways = reached[:, None] + costs.matrix(slot)
        came_from.append(ways.argmin(axis=0))
        reached = ways.min(axis=0)
    points = [int(reached.argmin())]
    for before in reversed(came_from[1:]):
        points.append(int(before[points[-1]]))
    return plan_with_cost(context, slots, prices, tuple(reversed(points)), start_point=start_point)


def plan_with_cost(
    context: PolicyContext,
    slots: Slots,
    prices: Prices,
    points: tuple[int, ...],
    *,
    start_point: int = 0,
) -> Plan:
    """Return any plan, a split for each slot, with its cost under the same model."""
    costs = _SlotCosts(context, slots, prices)
    served: dict[tuple[int, Conditions], int] = {}
    energy_aj, missed, before = 0, 0.0, start_point
    for slot, point in enumerate(points):
        key = point, slots.conditions[slot]
        served[key] = served.get(key, 0) + slots.requests[slot]
        energy_aj += costs.energy_aj(slot, before, point)
        missed += costs.missed(slot, before, point)
        before = point
    cost = _cost(context, prices, energy_aj, served, missed)
    return Plan(slots.cycles, start_point, points, cost)


def cost_of(result: MissionResult, context: PolicyContext, slots: Slots, prices: Prices) -> Cost:
    """Return what a mission cost: its own energy and missed deadlines, and expected accuracy.

    Accuracy counts as the surface expects it for each request's split and conditions, as in a plan,
    not as the few answers came out. A mission that ends before the last slot is idle from there on,
    under the last conditions.
    """
    rest = max(0, slots.end_cycle - result.end_cycle)
    idle_aj = rest * _idle_aj(context.grid, slots.conditions[-1])
    return _cost(
        context, prices, result.spent.total_aj + idle_aj, result.served, result.counts["missed"]
    )


def _cost(
    context: PolicyContext, prices: Prices, energy_aj: int, served: Served, missed: float
) -> Cost:
    """The one cost function, of plans and of missions."""
    short = sum(
        requests * _shortfall(context, point, conditions)
        for (point, conditions), requests in served.items()
    )
    return Cost(energy_aj, prices.shortfall_aj * short, prices.miss_aj * missed)


def _shortfall(context: PolicyContext, point: int, conditions: Conditions) -> float:
    return max(0.0, context.quality_target - context.all_knowing(point, conditions))


def _idle_aj(grid: Grid, conditions: Conditions) -> int:
    rates = grid.meter.rates(conditions.temperature_c, conditions.supply_v)
    return rates.idle_aj_per_cycle


class _SlotCosts:
    """What a slot costs with a split, by the split before it."""

    def __init__(self, context: PolicyContext, slots: Slots, prices: Prices) -> None:
        self.context, self.grid, self.slots, self.prices = context, context.grid, slots, prices
        self._places = range(len(self.grid.points))
        self._figures: dict[Conditions, _Figures] = {}

    def matrix(self, slot: int) -> NDArray[np.float64]:
        """Return the cost in attojoules: splits before x splits in the slot."""
        figures, requests = self._of(slot), self.slots.requests[slot]
        idle = np.maximum(0, self.slots.cycles - self._changing - requests * self._lasting)
        energy = requests * figures.run_aj + idle * figures.idle_aj + figures.change_aj
        time = np.maximum(0, self.slots.cycles - self._changing)
        missed = np.maximum(0, requests - time / self._lasting)
        missed = np.where(self._lasting > self.context.deadline_cycles, requests, missed)
        short = self.prices.shortfall_aj * requests * figures.shortfall
        return np.asarray(energy + short + self.prices.miss_aj * missed)

    def energy_aj(self, slot: int, before: int, point: int) -> int:
        """Return the energy of a slot in whole attojoules, with that of the change."""
        conditions, requests = self.slots.conditions[slot], self.slots.requests[slot]
        where = conditions.temperature_c, conditions.supply_v
        passed = self.grid.change_cycles(before, point) + requests * self.context.cycles(point)
        idle_aj = max(0, self.slots.cycles - passed) * _idle_aj(self.grid, conditions)
        run_aj = requests * self.context.energy_aj(point, *where)
        return run_aj + idle_aj + self.grid.change_aj(before, point, *where)

    def missed(self, slot: int, before: int, point: int) -> float:
        """Return the expected requests of a slot that miss their deadline."""
        requests, lasting = self.slots.requests[slot], self.context.cycles(point)
        if lasting > self.context.deadline_cycles:
            return requests
        time = max(0, self.slots.cycles - self.grid.change_cycles(before, point))
        return max(0.0, requests - time / lasting)

    @cached_property
    def _lasting(self) -> NDArray[np.float64]:
        """Cycles of an inference, by split."""
        return np.array([self.context.cycles(point) for point in self._places], np.float64)

    @cached_property
    def _changing(self) -> NDArray[np.float64]:
        """Cycles of a change: splits before x splits after."""
        return np.array(list(self._pairs(self.grid.change_cycles)), np.float64)

    def _pairs(self, figure: Callable[[int, int], int]) -> Iterator[list[int]]:
        for before in self._places:
            yield [figure(before, after) for after in self._places]

    def _of(self, slot: int) -> "_Figures":
        """Return the figures of a slot's conditions; each different ones are worked out once."""
        conditions = self.slots.conditions[slot]
        if conditions not in self._figures:
            self._figures[conditions] = self._worked_out(conditions)
        return self._figures[conditions]

    def _worked_out(self, conditions: Conditions) -> "_Figures":
        where = conditions.temperature_c, conditions.supply_v
        return _Figures(
            run_aj=np.array([self.context.energy_aj(p, *where) for p in self._places], np.float64),
            idle_aj=float(_idle_aj(self.grid, conditions)),
            change_aj=np.array(
                list(self._pairs(lambda i, j: self.grid.change_aj(i, j, *where))), np.float64
            ),
            shortfall=np.array([_shortfall(self.context, p, conditions) for p in self._places]),
        )


@dataclass(frozen=True)
class _Figures:
    """Energies in attojoules and accuracy below the target under some conditions, by split."""

    run_aj: NDArray[np.float64]
    idle_aj: float
    change_aj: NDArray[np.float64]
    shortfall: NDArray[np.float64]
