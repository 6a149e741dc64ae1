"""All policies of a scenario on the same arrivals and the same faults, held against one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.statistics import Difference, Proportion, clopper_pearson
from nce_sim.accuracy.worst_window import worst_window_differences
from nce_sim.config.scenario import ScenarioConfig
from nce_sim.runtime.environment import Environment
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.mission import Goals, MissionResult
from nce_sim.runtime.monitor import Lag
from nce_sim.runtime.optimum import Cost, Plan, Prices
from nce_sim.runtime.surface import Surface
from nce_sim.study.kept_surface import surface_of
from nce_sim.study.missions import Missions, Stream, count_steps
from nce_sim.study.scenario_engine import Stage, prepare_engine

OPTIMUM = "optimum"
"""Name and kind of the offline optimum as it is played."""


@dataclass(frozen=True)
class Played:
    """One policy's mission.

    `is_static` tells whether it never changes the split, `adaptive` whether an engine could follow
    it (neither static, nor the oracle, nor the optimum). `worst_window` is the accuracy of the
    worst sliding window, with an interval at the scenario's confidence that holds for one window.
    `cost` prices energy, shortfall and misses as the offline optimum does, and `regret` is what it
    is above the cost of the optimum as it was played, as a share of that.
    """

    name: str
    kind: str
    result: MissionResult
    worst_window: Proportion
    cost: Cost
    regret: float

    @property
    def is_static(self) -> bool:
        """Whether the split never changes."""
        return self.kind == "static"

    @property
    def is_adaptive(self) -> bool:
        """Whether it decides by what an engine can know."""
        return self.kind not in ("static", "oracle", "optimum")


@dataclass(frozen=True)
class Against:
    """The best adaptive policy against one static split, on the same requests and faults.

    `worst_window` is the difference of the accuracies of each one's worst window, adaptive less
    static, with an interval from paired resampling of whole blocks of requests; all intervals hold
    together. `energy_share` is the adaptive one's energy by request over the static one's.
    """

    adaptive: str
    static: str
    worst_window: Difference
    energy_share: float


@dataclass(frozen=True)
class Reconfiguration:
    """What a scenario gave.

    `played` has the policies in the scenario's order, then the optimum. `lags` are those of the
    monitor after the largest steps of the rate, by the time of the step in seconds; None where the
    monitor never saw it. `fast` tells whether answers were drawn from the surface. `plan` is the
    optimum's, with the cost that it was planned with, and `prices` are those of all costs.
    """

    scenario: ScenarioConfig
    network: str
    machine: str
    environment: Environment
    grid: Grid
    surface: Surface
    goals: Goals
    fault_free: Proportion
    played: tuple[Played, ...]
    against: tuple[Against, ...]
    lags: Mapping[float, Lag | None]
    fast: bool
    plan: Plan | None = None
    prices: Prices | None = None


def study_scenario(
    scenario: ScenarioConfig,
    *,
    fast: bool = False,
    seed: int | None = None,
    requests: int | None = None,
    stage: Stage,
    keep: Path | None = None,
) -> Reconfiguration:
    """Run all policies of a scenario on the same arrivals and faults, then the offline optimum.

    `fast` draws answers from the measured surface in place of real inferences. `seed` takes the
    place of the scenario's own. With `requests` the mission ends after so many, however long that
    takes. `keep` is a folder for the measured surface, so that the next run need not measure it.
    Only policies that go by the monitor pay for its checks.

    Raises InputError for what the scenario names and cannot be used.
    """
    engine = prepare_engine(scenario, scenario.seed if seed is None else seed, stage)
    stream = Stream.of(scenario, engine.grid.clock_mhz, engine.seed, requests)
    missions = Missions(engine, stream, surface_of(engine, stage, keep), fast)
    total = stream.count * (len(scenario.policies) + 1)
    shown = stage("serving requests", total)
    advance = count_steps(shown)
    flown = [missions.fly(each, advance) for each in scenario.policies]
    plan = missions.best_plan()
    optimum = missions.play(plan, advance)
    shown(total)
    least = missions.cost(optimum)
    names = [*((each.name, each.kind) for each in scenario.policies), (OPTIMUM, OPTIMUM)]
    played = tuple(
        _played(name, kind, result, missions.cost(result), least)
        for (name, kind), result in zip(names, [*flown, optimum], strict=True)
    )
    return Reconfiguration(
        scenario=scenario, network=engine.network.name,
        machine=engine.grid.points[0].run.machine.config.name, environment=engine.environment,
        grid=engine.grid, surface=missions.surface, goals=missions.goals,
        fault_free=missions.fault_free, played=played,
        against=hold_against(played, missions.goals.window_requests, engine.seed),
        lags=missions.lags(), fast=fast, plan=plan, prices=missions.prices,
    )  # fmt: skip


def _played(name: str, kind: str, result: MissionResult, cost: Cost, least: Cost) -> Played:
    worst = result.worst_window
    assert worst is not None  # there is a request at least
    regret = (cost.total_aj - least.total_aj) / least.total_aj
    return Played(name, kind, result, clopper_pearson(worst.right, worst.requests), cost, regret)


def hold_against(played: Sequence[Played], window: int, seed: int) -> tuple[Against, ...]:
    """Hold the adaptive policy of the least cost against every static split."""
    adaptive = [each for each in played if each.is_adaptive]
    static = [each for each in played if each.is_static]
    if not adaptive or not static:
        return ()
    best = min(adaptive, key=lambda each: each.cost.total_aj)
    differences = worst_window_differences(
        _answers(best), [_answers(each) for each in static], window, seed=seed
    )
    return tuple(
        Against(
            best.name, each.name, difference,
            best.result.energy_per_request_aj / each.result.energy_per_request_aj,
        )
        for each, difference in zip(static, differences, strict=True)
    )  # fmt: skip


def _answers(played: Played) -> NDArray[np.bool_]:
    assert played.result.answers is not None
    return played.result.answers
