"""The missions of one scenario: every policy on the same arrivals, faults and engine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from nce_sim.accuracy.statistics import Proportion
from nce_sim.config.scenario import Policy as PolicyConfig
from nce_sim.config.scenario import ScenarioConfig
from nce_sim.errors import InputError
from nce_sim.runtime.answers import Answerer
from nce_sim.runtime.arrivals import arrivals
from nce_sim.runtime.checks import Sampler
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.mission import Goals, MissionResult, run_mission
from nce_sim.runtime.monitor import Lag, Monitor
from nce_sim.runtime.observations import Policy
from nce_sim.runtime.optimum import Cost, Plan, Planned, Prices, Slots, best_plan, cost_of, slots_of
from nce_sim.runtime.policies.build import build_policy, start_point, watches
from nce_sim.runtime.policies.context import PolicyContext
from nce_sim.runtime.real_answers import RealAnswers
from nce_sim.runtime.shared_answers import Counted, SharedAnswers, Unchecked
from nce_sim.runtime.surface import Surface
from nce_sim.runtime.surface_answers import SurfaceAnswers
from nce_sim.study.monitor_lags import lags_of
from nce_sim.study.scenario_engine import Engine

LONGEST_CYCLES = 1 << 62
"""A mission that is counted in requests may take as long as it likes."""


@dataclass(frozen=True)
class Stream:
    """The requests of a mission, the same ones each time that they are read.

    There are `count`, the last of which arrives in `last_cycle`; the mission is planned to last
    `duration_cycles`.
    """

    scenario: ScenarioConfig
    clock_mhz: float
    seed: int
    most: int | None
    count: int
    last_cycle: int

    @staticmethod
    def of(scenario: ScenarioConfig, clock_mhz: float, seed: int, most: int | None) -> "Stream":
        """Count a scenario's requests, or the first `most`, whatever its duration.

        Raises InputError for a file of arrivals that cannot be used, and if no request arrives.
        """
        empty = Stream(scenario, clock_mhz, seed, most, 0, 0)
        count, last_cycle = 0, 0
        for _, cycle in empty.read():
            count, last_cycle = count + 1, cycle
        if not count:
            raise InputError(
                f"scenario '{scenario.name}': no request arrives within {scenario.duration_s:g} s"
            )
        return Stream(scenario, clock_mhz, seed, most, count, last_cycle)

    @property
    def duration_cycles(self) -> int:
        """Cycles from the start to the end of the scenario, or to the last request that counts."""
        if self.most is not None:
            return self.last_cycle + 1
        return round(self.scenario.duration_s * self.clock_mhz * 1e6)

    def read(self) -> Iterator[tuple[int, int]]:
        """Yield number and cycle of arrival of each request."""
        duration = LONGEST_CYCLES if self.most is not None else self.duration_cycles
        found = arrivals(self.scenario.requests, duration, self.clock_mhz, self.seed)
        return islice(found, self.most)


@dataclass(frozen=True)
class Missions:
    """Flies policies, and prices what they did; answers are real ones, or drawn if `fast`."""

    engine: Engine
    stream: Stream
    surface: Surface
    fast: bool

    @cached_property
    def fault_free(self) -> Proportion:
        """Accuracy without faults, of the images with which the surface was measured."""
        return self.surface.measured(0, 0)

    @cached_property
    def goals(self) -> Goals:
        """What is asked: without a target for the quality, none is missed."""
        scenario, clock_mhz = self.engine.scenario, self.stream.clock_mhz
        lost = scenario.quality.most_lost_points
        target = 0.0 if lost is None else max(0.0, self.fault_free.value - lost / 100)
        deadline = max(1, round(scenario.requests.deadline_us * clock_mhz))
        return Goals(target, deadline, scenario.quality.window_requests)

    @cached_property
    def prices(self) -> Prices:
        """The scenario's prices in attojoules."""
        dearest = max(point.energy_aj() for point in self.engine.grid.points)
        given = self.engine.scenario.prices
        return Prices(given.shortfall_inferences * dearest, given.miss_inferences * dearest)

    @cached_property
    def checked(self) -> Answerer:
        """Answers of an engine with its checks on."""
        engine = self.engine
        if self.fast:
            return SurfaceAnswers(
                self.surface, engine.faults, engine.checks, engine.check_costs, engine.seed
            )
        real = RealAnswers(
            engine.network, engine.grid, engine.images, engine.labels, engine.faults,
            engine.checks, seed=engine.seed, calibration=engine.calibration,
        )  # fmt: skip
        return SharedAnswers(real)

    @cached_property
    def slots(self) -> Slots:
        """The trace as the optimum sees it."""
        engine, stream = self.engine, self.stream
        slot_cycles = max(1, round(engine.scenario.optimum_slot_us * stream.clock_mhz))
        return slots_of(
            engine.environment, stream.read(), engine.grid, slot_cycles, stream.duration_cycles
        )

    def context(self, watching: bool) -> PolicyContext:
        """Return what policies may know; checks cost those that watch the monitor."""
        costs = self.engine.check_costs if watching else ()
        return PolicyContext(
            self.engine.grid, self.goals.quality_target, self.goals.deadline_cycles,
            self.surface, self.engine.environment, self._true_accuracy,
            tuple(each.cycles for each in costs), tuple(each.energy_aj for each in costs),
        )  # fmt: skip

    def fly(self, given: PolicyConfig, advance: Callable[[], None]) -> MissionResult:
        """Run the mission of a scenario's policy; `advance` is told after each answer."""
        watching = watches(given)
        context = self.context(watching)
        policy = build_policy(given, context)
        return self._run(policy, start_point(given, context), watching, advance)

    def best_plan(self) -> Plan:
        """Return the offline optimum, which may begin with any split, as static ones do."""
        context = self.context(watching=False)
        plans = (
            best_plan(context, self.slots, self.prices, start_point=point)
            for point in range(len(self.engine.grid.points))
        )
        return min(plans, key=lambda plan: plan.cost.total_aj)

    def play(self, plan: Plan, advance: Callable[[], None]) -> MissionResult:
        """Run the mission of a plan, without checks."""
        return self._run(Planned(plan), plan.start_point, False, advance)

    def cost(self, result: MissionResult) -> Cost:
        """Return what a mission cost."""
        return cost_of(result, self.context(watching=False), self.slots, self.prices)

    def lags(self) -> dict[float, Lag | None]:
        """Return how late the monitor sees the largest steps of the rate."""
        engine, point = self.engine, len(self.engine.grid.points) - 1
        return lags_of(
            engine.environment, self.surface, engine.lane_rate, self.checked, self._monitor,
            self.stream.read, self.stream.clock_mhz * 1e6, checks_at(engine, point),
        )  # fmt: skip

    def _run(
        self, policy: Policy, start: int, watching: bool, advance: Callable[[], None]
    ) -> MissionResult:
        answers = self.checked if watching else Unchecked(self.checked, self.engine.check_costs)
        return run_mission(
            self.engine.grid, self.engine.environment, self.stream.read(),
            Counted(answers, advance), self._monitor(), policy, self.goals, start_point=start,
            keep_answers=True,
        )  # fmt: skip

    def _monitor(self) -> Monitor:
        given = self.engine.scenario.monitor
        return Monitor(given.window_checks, given.false_alarm_rate, given.missed_share)

    def _true_accuracy(self, point: int, conditions: Conditions) -> float:
        rate = self.engine.lane_rate.at(conditions)
        return self.surface.accuracy(point, rate, conditions.dead_share)


def checks_at(engine: Engine, point: int) -> int:
    """Return the checks of an inference with one split."""
    return Sampler(engine.grid.points[point].run.schedule, engine.checks, engine.seed).checked


def count_steps(advance: Callable[[int], None]) -> Callable[[], None]:
    """Return a function that adds one step each time that it is called."""
    done = 0

    def add() -> None:
        nonlocal done
        done += 1
        if done % EVERY == 0:
            advance(done)

    return add


EVERY = 64
"""Answers between two notes of progress."""
