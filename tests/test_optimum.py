"""The offline optimum: the best of all plans, and what missions cost beside it."""

from itertools import product

import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from runtime_parts import FRACTIONS, Counting, Steps, Telling, context, seen, small_grid

from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.mission import Goals, MissionResult, run_mission
from nce_sim.runtime.observations import Policy
from nce_sim.runtime.optimum import (
    Plan,
    Planned,
    Prices,
    Slots,
    best_plan,
    cost_of,
    plan_with_cost,
    slots_of,
)
from nce_sim.runtime.policies.oracle import Oracle
from nce_sim.runtime.policies.static import Static

PRICES = Prices(shortfall_aj=2e13, miss_aj=5e12)

CONDITIONS = st.builds(
    Conditions,
    rate_factor=st.floats(0, 6),
    temperature_c=st.sampled_from([None, 60.0, 100.0]),
    supply_v=st.sampled_from([None, 0.7]),
)


def slow_cost(slots: Slots, points: tuple[int, ...], start: int) -> float:
    """Return the cost of a plan, slot by slot."""
    grid, before, found = small_grid(), start, 0.0
    for conditions, requests, point in zip(slots.conditions, slots.requests, points, strict=True):
        where = conditions.temperature_c, conditions.supply_v
        cycles, changing = grid.points[point].cycles, grid.change_cycles(before, point)
        rest = max(0, slots.cycles - changing - requests * cycles)
        found += requests * grid.points[point].energy_aj(*where)
        found += grid.change_aj(before, point, *where)
        found += rest * grid.meter.rates(*where).idle_aj_per_cycle
        accuracy = max(0.0, 0.9 - 0.1 * conditions.rate_factor * FRACTIONS[point])
        found += 2e13 * requests * max(0.0, 0.8 - accuracy)
        found += 5e12 * max(0.0, requests - max(0, slots.cycles - changing) / cycles)
        before = point
    return found


@given(
    st.lists(st.tuples(CONDITIONS, st.integers(0, 30)), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from([2000, 20_000, 60_000]),
)
@examples(30)
def test_no_plan_is_cheaper_than_the_best(steps, start, cycles):
    slots = Slots(cycles, *(tuple(column) for column in zip(*steps, strict=True)))
    best = best_plan(context(), slots, PRICES, start_point=start)
    every = {
        points: slow_cost(slots, points, start)
        for points in product(range(4), repeat=len(slots.requests))
    }
    assert best.cost.total_aj == pytest.approx(every[best.points], rel=1e-9)
    assert best.cost.total_aj == pytest.approx(min(every.values()), rel=1e-9)


def test_a_split_that_is_slower_than_the_deadline_misses_all():
    slots = Slots(100_000, (Conditions(),), (10,))
    tight = context(deadline_cycles=small_grid().points[1].cycles)
    missed = [
        plan_with_cost(tight, slots, PRICES, (point,), start_point=point).cost.missed_aj
        for point in range(4)
    ]
    assert missed == [5e13, 0, 0, 0]
    assert best_plan(tight, slots, PRICES).points != (0,)


def test_changing_pays_only_where_conditions_last():
    """A short spell of faults is sat out where changing twice costs more than it saves."""
    calm, rough = Conditions(rate_factor=0.5), Conditions(rate_factor=2.0)
    cheap = Prices(shortfall_aj=4e12, miss_aj=5e12)

    def best(length: int) -> Plan:
        conditions = (calm,) * 30 + (rough,) * length + (calm,) * 30
        slots = Slots(4000, conditions, (1,) * len(conditions))
        return best_plan(context(), slots, cheap, start_point=3)

    assert set(best(1).points) == {3}
    assert best(1).changes == 0
    assert min(best(60).points) < 3
    assert best(60).changes == 2
    assert set(best(60).points[30:90]) <= {0, 1, 2}
    assert best(60).points[-1] == 3


SPELLS = Steps(
    (
        (0.0, Conditions(rate_factor=0.3, temperature_c=60.0)),
        (2e-3, Conditions(rate_factor=4.0, temperature_c=60.0)),
        (4e-3, Conditions(rate_factor=0.3, temperature_c=80.0)),
    )
)
GAP, REQUESTS = 4000, 150


def arrivals() -> list[tuple[int, int]]:
    return [(number, number * GAP) for number in range(REQUESTS)]


def mission(policy: Policy, start_point: int) -> MissionResult:
    return run_mission(
        small_grid(), SPELLS, arrivals(), Telling(), Counting(), policy,
        Goals(0.8, 50_000, 20), start_point=start_point,
    )  # fmt: skip


def test_missions_cost_by_the_same_function_and_none_less_than_the_bound():
    given_ = context(surroundings=SPELLS)
    slots = slots_of(SPELLS, arrivals(), small_grid(), 20_000, GAP * REQUESTS)
    assert slots.requests == (5,) * 30
    assert [c.rate_factor for c in slots.conditions] == [0.3] * 10 + [4.0] * 10 + [0.3] * 10
    for start in (0, 3):
        best = best_plan(given_, slots, PRICES, start_point=start)
        costs = {
            name: cost_of(mission(policy, start), given_, slots, PRICES).total_aj
            for name, policy in {
                "plan": Planned(best),
                "oracle": Oracle(given_),
                **{str(f): Static(given_, fraction=f) for f in FRACTIONS},
            }.items()
        }
        assert min(costs.values()) >= best.cost.total_aj
        # Played, a plan is one inference late where faults set in: with the split of all PEs that
        # is 0.3 below the target, and all that the discretisation leaves out here.
        late = 0.3 * PRICES.shortfall_aj
        assert best.cost.total_aj + 0.9 * late < costs["plan"] < best.cost.total_aj + 1.1 * late
        assert costs["plan"] - late < min(costs.values())


def test_a_static_mission_costs_what_its_plan_does():
    given_ = context()
    slots = slots_of(SPELLS, arrivals(), small_grid(), 20_000, GAP * REQUESTS)
    for point, fraction in enumerate(FRACTIONS):
        flown = cost_of(mission(Static(given_, fraction=fraction), point), given_, slots, PRICES)
        planned = plan_with_cost(given_, slots, PRICES, (point,) * 30, start_point=point).cost
        assert flown.shortfall_aj == pytest.approx(planned.shortfall_aj)
        assert flown.missed_aj == planned.missed_aj == 0
        assert flown.energy_aj == planned.energy_aj


def test_a_plan_is_played_by_the_cycle_and_stays_at_its_end():
    plan = plan_with_cost(context(), Slots(100, (Conditions(),) * 3, (0,) * 3), PRICES, (1, 3, 2))
    played = [Planned(plan).decide(seen(cycle=cycle)) for cycle in (0, 99, 100, 299, 300, 10**6)]
    assert played == [1, 1, 3, 2, 2, 2]
    assert plan.changes == 3


def test_slots_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="at least a cycle"):
        slots_of(SPELLS, [], small_grid(), 0, 100)
    with pytest.raises(InputError, match="request 0 arrives in cycle 100, after the end, 100"):
        slots_of(SPELLS, [(0, 100)], small_grid(), 10, 100)
    with pytest.raises(InputError, match="prices are at least 0"):
        Prices(-1, 0)
    with pytest.raises(InputError, match="need an accuracy surface"):
        best_plan(context(true_accuracy=None), Slots(10, (Conditions(),), (1,)), PRICES)
