"""What each policy decides."""

import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest
from runtime_parts import Choosing, Counting, Falling, Steps, Telling, context, seen, small_grid

from nce_sim.errors import InputError
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.mission import Goals, run_mission
from nce_sim.runtime.observations import Estimate, Observation
from nce_sim.runtime.policies.custom import load_policy
from nce_sim.runtime.policies.deadline import Deadline
from nce_sim.runtime.policies.oracle import Oracle
from nce_sim.runtime.policies.power_cap import PowerCap
from nce_sim.runtime.policies.proportional_integral import ProportionalIntegral
from nce_sim.runtime.policies.static import Static
from nce_sim.runtime.policies.threshold import Threshold
from nce_sim.runtime.policies.tracking import Tracking


def estimated(
    value: float, high: float = 1.0, checks: int = 1000, point: int = 1, low: float = 0.0
) -> Estimate:
    return Estimate(value, low, high, checks, point)


def test_static_stays_with_a_split_of_the_grid():
    policy = Static(context(), fraction=0.8)
    assert {policy.decide(seen(point=p, estimate=estimated(0.5))) for p in range(4)} == {2}
    with pytest.raises(InputError, match=r"no split has unprotected fraction 0\.5: the grid has 0"):
        Static(context(), fraction=0.5)


def test_threshold_steps_and_stays_between_its_thresholds():
    def decide(value: float, point: int) -> int:
        policy = Threshold(context(), above=0.02, below=0.01, hold_requests=1)
        return policy.decide(seen(point=point, estimate=estimated(value)))

    assert [decide(0.03, point) for point in range(4)] == [0, 0, 1, 2]
    assert [decide(0.005, point) for point in range(4)] == [1, 2, 3, 3]
    for between in (0.01, 0.015, 0.02):
        assert [decide(between, point) for point in range(4)] == [0, 1, 2, 3]


def test_threshold_holds_a_split_for_so_many_inferences():
    policy = Threshold(context(), above=0.02, below=0.01, hold_requests=3)
    point, taken = 3, []
    for _ in range(8):
        point = policy.decide(seen(point=point, estimate=estimated(0.5)))
        taken.append(point)
    assert taken == [2, 2, 2, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "options",
    [
        {"above": 0.1, "below": 0.1}, {"above": 0.1, "below": -0.1}, {"above": 2, "below": 0.1},
        {"above": 0.2, "below": 0.1, "hold_requests": 0}, {"above": float("nan"), "below": 0.1},
    ],
)  # fmt: skip
def test_wrong_thresholds_are_refused(options):
    with pytest.raises(InputError, match="policy threshold"):
        Threshold(context(), **options)


def test_tracking_takes_the_least_protection_that_meets_the_target():
    """Accuracy is 0.9 - 0.1 x rate x fraction, the target 0.8: rate x fraction is at most 1."""
    policy = Tracking(context())
    rates = {0.5: 3, 1.0: 3, 1.1: 2, 1.25: 2, 1.3: 1, 2.4: 1, 2.6: 0, 9.0: 0}
    for rate, point in rates.items():
        assert policy.decide(seen(estimate=estimated(rate / 100))) == point, rate
    cautious = Tracking(context(), estimate="high")
    assert cautious.decide(seen(estimate=estimated(0.001, high=0.02))) == 1
    unreachable = Tracking(context(quality_target=0.95))
    assert unreachable.decide(seen(estimate=estimated(0.01))) == 0


def test_tracking_waits_for_evidence_unless_even_the_lower_end_asks_for_protection():
    policy = Tracking(context(), least_checks=500)
    few = {"value": 0.03, "checks": 499}  # the value asks for split 0
    assert policy.decide(seen(point=2, estimate=estimated(**few, low=0.0))) == 2
    assert policy.decide(seen(point=2, estimate=estimated(**few, low=0.02))) == 1
    assert policy.decide(seen(point=0, estimate=estimated(0.0, checks=499))) == 0
    assert policy.decide(seen(point=0, estimate=estimated(0.0, checks=500))) == 3


def test_tracking_probes_where_nothing_is_checked():
    policy = Tracking(context(), probe_requests=3)
    blind = seen(estimate=estimated(0.0, checks=0), point=0)
    assert [policy.decide(blind) for _ in range(6)] == [0, 0, 1, 0, 0, 1]


def test_tracking_needs_a_surface_and_known_words():
    with pytest.raises(InputError, match="policy tracking needs an accuracy surface"):
        Tracking(context(surface=None))
    with pytest.raises(InputError, match="estimate is value or high, not 'low'"):
        Tracking(context(), estimate="low")
    for wrong in ("probe_requests", "least_checks"):
        with pytest.raises(InputError, match=f"{wrong} is at least 1, not 0"):
            Tracking(context(), **{wrong: 0})


def test_the_oracle_sees_the_true_conditions_of_now():
    steps = Steps(((0.0, Conditions(rate_factor=1.0)), (1e-3, Conditions(rate_factor=2.4))))
    policy = Oracle(context(surroundings=steps))
    assert policy.decide(seen(cycle=99_999, estimate=estimated(0.5))) == 3
    assert policy.decide(seen(cycle=100_000, estimate=estimated(0.0))) == 1
    with pytest.raises(InputError, match="oracle needs the environment"):
        Oracle(context())
    with pytest.raises(InputError, match="the oracle and the optimum need an accuracy surface"):
        Oracle(context(surroundings=steps, true_accuracy=None))


def loaded_power_mw(point: int, gap: int) -> float:
    """Mean power of a split with a request every `gap` cycles."""
    grid = small_grid()
    chosen, idle_aj = grid.points[point], grid.meter.rates().idle_aj_per_cycle
    if gap <= chosen.cycles:
        return grid.meter.power_mw(chosen.energy_aj(), chosen.cycles)
    energy_aj = chosen.energy_aj() + (gap - chosen.cycles) * idle_aj
    return grid.meter.power_mw(energy_aj, gap)


@pytest.mark.parametrize("gap", [1000, 2000, 5000, 20_000])
def test_the_power_cap_takes_the_most_protected_split_that_fits_the_load(gap):
    powers = [loaded_power_mw(point, gap) for point in range(4)]
    for budget in [0.01, *(power * (1 + shift) for power in powers for shift in (-1e-4, 1e-4))]:
        policy = PowerCap(context(), margin=0.0)
        for number in range(1, 70):
            found = policy.decide(seen(cycle=number * gap, power_budget_mw=budget))
        fitting = [point for point in range(4) if powers[point] <= budget]
        cheapest = powers.index(min(powers))
        assert found == (fitting[0] if fitting else cheapest), budget


def test_the_power_cap_counts_what_piles_up_and_keeps_a_margin():
    grown, steady = PowerCap(context(), margin=0.0), PowerCap(context(), margin=0.0)
    budget = loaded_power_mw(3, 20_000) * 1.001
    for number in range(1, 20):
        at = {"cycle": number * 20_000, "power_budget_mw": budget}
        piled = grown.decide(seen(queue=5 * number, **at))
        alone = steady.decide(seen(queue=7, **at))
    powers = [loaded_power_mw(point, 20_000 // 6) for point in range(4)]
    assert min(powers) > budget
    assert piled == powers.index(min(powers))
    assert alone == min(p for p in range(4) if loaded_power_mw(p, 20_000) <= budget)
    careful = PowerCap(context(), margin=0.05)
    assert careful.decide(seen(cycle=20_000, power_budget_mw=1e9)) == 0
    assert careful.decide(seen(cycle=40_000, power_budget_mw=None)) == 0
    for wrong in ({"margin": 1.0}, {"margin": -0.1}, {"window_requests": 0}):
        with pytest.raises(InputError, match="policy power_cap"):
            PowerCap(context(), **wrong)


def test_checks_take_time_and_power():
    idle_aj = small_grid().meter.rates().idle_aj_per_cycle
    checks = {"check_cycles": (0, 0, 0, 1000), "check_aj": (0, 0, 0, 10**12)}
    given = context(**checks)
    assert given.cycles(3) == small_grid().points[3].cycles + 1000
    assert given.energy_aj(3) == small_grid().points[3].energy_aj() + 10**12
    warmer = small_grid().meter.rates(90.0).idle_aj_per_cycle - idle_aj
    plain = small_grid().points[3].energy_aj(90.0) + 10**12
    assert given.energy_aj(3, 90.0) == plain + 1000 * warmer
    assert (context().fastest, given.fastest) == (3, 2)
    budget = loaded_power_mw(3, 4000) * 1.001
    at = seen(cycle=4000, power_budget_mw=budget)
    assert PowerCap(context(), margin=0.0).decide(at) == 3
    assert PowerCap(context(check_aj=(0, 0, 0, 10**12)), margin=0.0).decide(at) != 3
    with pytest.raises(InputError, match="check_aj has 2 entries: the grid has 4 splits"):
        context(check_aj=(1, 2))


def test_the_deadline_policy_hurries_only_where_time_is_short():
    asked = []

    def inner(observation: Observation) -> int:
        asked.append(observation)
        return 1

    policy = Deadline(context(), inner=Choosing(inner), slack_cycles=5000)
    assert policy.decide(seen(slack_cycles=None)) == 1
    assert policy.decide(seen(slack_cycles=5000)) == 1
    assert policy.decide(seen(slack_cycles=4999)) == 3
    assert policy.decide(seen(slack_cycles=-10)) == 3
    assert len(asked) == 4


def test_the_controller_settles_where_the_estimate_is_at_its_set_point():
    """Mismatches grow with the unprotected fraction: 0.02 at 0.4, the set point."""
    policy = ProportionalIntegral(context(), setpoint=0.02, proportional=0.1, integral_per_s=2000)
    fractions, point, taken = (0.0, 0.4, 0.8, 1.0), 0, []
    for number in range(1, 200):
        found = estimated(0.05 * fractions[point], point=point)
        point = policy.decide(seen(cycle=3000 * number, point=point, estimate=found))
        taken.append(point)
    assert set(taken[-100:]) <= {0, 1, 2}
    mean = sum(fractions[each] for each in taken[-100:]) / 100
    assert mean == pytest.approx(0.4, abs=0.1)


def test_the_controller_does_not_wind_up():
    policy = ProportionalIntegral(context(), setpoint=0.02, proportional=0.0, integral_per_s=1000)
    for number in range(1, 10_000):  # no mismatch for a long time: the integral stays at the end
        assert policy.decide(seen(cycle=3000 * number, point=3)) == 3 or number < 100
    assert policy.integral == 1.0
    for number in range(10_000, 10_040):
        last = policy.decide(seen(cycle=3000 * number, point=3, estimate=estimated(0.06)))
    assert last == 0
    assert policy.integral == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"setpoint": 0, "proportional": 1, "integral_per_s": 1},
        {"setpoint": 0.1, "proportional": 0, "integral_per_s": 0},
        {"setpoint": 0.1, "proportional": -1, "integral_per_s": 1},
    ],
)
def test_wrong_controllers_are_refused(options):
    with pytest.raises(InputError, match="policy pi"):
        ProportionalIntegral(context(), **options)


@dataclass
class Own:
    """A user's policy."""

    context: object
    point: int = 0
    log: list[int] = field(default_factory=list)

    def decide(self, observation: Observation) -> int:
        return self.point


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("their_policies")
    made.Own, made.number = Own, 5
    made.none = lambda context: None
    monkeypatch.setitem(sys.modules, "their_policies", made)
    return made


def test_a_policy_of_the_users_own_is_made_with_its_options(module):
    given = context()
    policy = load_policy("their_policies:Own", given, {"point": 2})
    assert policy.decide(seen()) == 2
    assert policy.policy.context is given


def test_what_goes_wrong_in_a_policy_of_the_users_own_is_told(module):
    policy = load_policy("their_policies:Own", context())
    policy.policy.decide = lambda observation: observation.no_such_thing
    with pytest.raises(
        InputError, match=r"their_policies:Own': decide failed in cycle 1,000: Attr"
    ):
        policy.decide(seen())


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("their_policies", {}, "must be given as package.module:factory"),
        (":Own", {}, "must be given as package.module:factory"),
        ("no_such_module:Own", {}, "cannot import no_such_module: ModuleNotFoundError"),
        ("their_policies:Other", {}, "module their_policies has no 'Other'"),
        ("their_policies:number", {}, "something else than a function as 'number'"),
        ("their_policies:Own", {"pont": 2}, "the factory failed: TypeError.*pont"),
        ("their_policies:none", {}, "returned a NoneType, which has no method decide"),
    ],
)
def test_what_is_wrong_with_a_policy_of_the_users_own_is_said(module, path, options, message):
    with pytest.raises(InputError, match=message):
        load_policy(path, context(), options)


def test_policies_follow_a_burst_in_a_closed_loop():
    """Rates rise from 0.2 to 5 and fall again; mismatches are the rate in hundredths."""
    steps = Steps(
        (
            (0.0, Conditions(rate_factor=0.2)),
            (3e-3, Conditions(rate_factor=5.0)),
            (6e-3, Conditions(rate_factor=0.2)),
        )
    )
    burst = range(300_000, 600_000)

    def tell(asked: Asked) -> Answer:
        mismatches = round(asked.conditions.rate_factor * 10) if asked.point else 0
        return Answer(True, True, 1000 if asked.point else 0, mismatches)

    given = context(surroundings=steps, surface=Falling())
    protected = {}
    for policy in (
        Oracle(given),
        Tracking(given, probe_requests=10),
        Threshold(given, above=0.04, below=0.01, hold_requests=2),
        ProportionalIntegral(given, setpoint=0.02, proportional=0.1, integral_per_s=2000),
    ):
        answering = Telling(tell)
        arrivals = ((number, number * 4000) for number in range(225))
        run_mission(
            small_grid(), steps, arrivals, answering, Counting(), policy,
            Goals(0.8, 50_000, 20), start_point=3,
        )  # fmt: skip
        late = [a for a in answering.asked if a.start_cycle in burst][15:]
        calm = [a for a in answering.asked if a.start_cycle > burst.stop][15:]
        protected[type(policy).__name__] = (
            sum(a.point <= 1 for a in late) / len(late),
            sum(a.point <= 1 for a in calm) / len(calm),
        )
    for name, (in_burst, in_calm) in protected.items():
        assert in_burst > 0.7, (name, in_burst)
        assert in_calm < 0.3, (name, in_calm)
