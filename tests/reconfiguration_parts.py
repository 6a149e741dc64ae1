"""Small results of a scenario: a surface and a trace made by hand, and real missions over both."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from runtime_parts import FRACTIONS, small_grid

from nce_sim.accuracy.statistics import Difference, clopper_pearson
from nce_sim.config.scenario import ScenarioConfig
from nce_sim.faults.effects import BitFlip
from nce_sim.faults.sites import Site
from nce_sim.runtime.check_cost import AddedCost
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.environment import Environment
from nce_sim.runtime.mission import Goals, run_mission
from nce_sim.runtime.monitor import Lag, Monitor
from nce_sim.runtime.observations import Policy
from nce_sim.runtime.optimum import Planned, Prices, best_plan, cost_of, slots_of
from nce_sim.runtime.policies.context import PolicyContext
from nce_sim.runtime.policies.oracle import Oracle
from nce_sim.runtime.policies.static import Static
from nce_sim.runtime.policies.threshold import Threshold
from nce_sim.runtime.policies.tracking import Tracking
from nce_sim.runtime.strikes import LaneFaults
from nce_sim.runtime.surface import Surface, held_out_rates, log_rates
from nce_sim.runtime.surface_answers import SurfaceAnswers
from nce_sim.study.reconfiguration import Against, Played, Reconfiguration

PERIOD, DEADLINE, WINDOW, TARGET = 3000, 6000, 50, 0.93
STEPS = 16
BASE_RATE = 1e-6

COLUMNS = {
    "rate_factor": lambda share: 1 + 99 * (0.3 <= share < 0.6),
    "dead_share": lambda share: round(0.1 * share, 3),
    "temperature_c": lambda share: 40 + 60 * share,
    "supply_v": lambda share: 0.6 - 0.05 * (0.3 <= share < 0.6),
    "power_budget_mw": lambda share: 60 - 20 * (share > 0.5),
}
"""What a trace's columns are at a share of the mission."""


def scenario(name: str = "by hand") -> ScenarioConfig:
    return ScenarioConfig.model_validate(
        {
            "name": name,
            "description": "A burst made by hand.",
            "machine": "nce-28nm",
            "grid": list(FRACTIONS),
            "environment": "by-hand",
            "duration_s": 0.02,
            "faults": {"rate": BASE_RATE},
            "requests": {
                "arrivals": {"kind": "periodic", "period_us": 30},
                "deadline_us": 60,
                "fault_tolerant_time_us": 500,
            },
            "quality": {"most_lost_points": 2.0, "window_requests": WINDOW},
            "policies": [{"kind": "oracle", "name": "oracle"}],
        }
    )


def environment(columns: Sequence[str], seconds: float) -> Environment:
    times = tuple(seconds * step / STEPS for step in range(STEPS))
    conditions = tuple(
        Conditions(**{name: COLUMNS[name](step / STEPS) for name in columns})
        for step in range(STEPS)
    )
    return Environment("by hand", times, conditions, tuple(columns))


@cache
def surface() -> Surface:
    """Accuracy falls and mismatches rise with rate and unprotected share."""
    rates, inferences = log_rates(1e-6, 1e-3, 2), 2000
    held = held_out_rates(rates)
    fractions = np.array(FRACTIONS)
    unprotected = np.round(fractions * 224).astype(np.int64)

    def counts(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hit = fractions[:, None, None] * rates[None, None, :]
        right = np.round(inferences * 0.95 * np.exp(-2000 * hit)).astype(np.int64)
        share = np.minimum(0.5, 300 * rates) * (fractions > 0)[:, None, None]
        return right, np.round(inferences * unprotected[:, None, None] * share).astype(np.int64)

    return Surface(
        "{}", fractions, np.array([0.0]), rates, inferences, unprotected, *counts(rates), held,
        *counts(held),
    )  # fmt: skip


POLICIES: dict[str, tuple[str, Callable[[PolicyContext], Policy]]] = {
    "all protected": ("static", partial(Static, fraction=0.0)),
    "static 0.4": ("static", partial(Static, fraction=0.4)),
    "static 0.8": ("static", partial(Static, fraction=0.8)),
    "none protected": ("static", partial(Static, fraction=1.0)),
    "threshold": ("threshold", partial(Threshold, above=0.005, below=0.001)),
    "tracking": ("tracking", Tracking),
    "cautious tracking": ("tracking", partial(Tracking, estimate="high")),
    "oracle": ("oracle", Oracle),
}


def made(
    columns: Sequence[str] = ("rate_factor",), requests: int = 600, period: int = PERIOD
) -> Reconfiguration:
    """Return a study of a small scenario whose trace has these columns."""
    grid, seconds = small_grid(), requests * period / (small_grid().clock_mhz * 1e6)
    here = environment(columns, seconds)
    faults = LaneFaults(Site.parse("unprotected.lane"), BitFlip(), BASE_RATE)
    answerer = SurfaceAnswers(surface(), faults, Checks(0.1), [AddedCost(0, 0)] * 4, seed=1)
    goals = Goals(TARGET, DEADLINE, WINDOW)
    context = PolicyContext(
        grid, TARGET, DEADLINE, surface(), here,
        lambda point, now: surface().accuracy(point, faults.rate_per_cycle(now)),
    )  # fmt: skip
    arrivals = [(number, number * period) for number in range(requests)]
    slots = slots_of(here, arrivals, grid, 20 * period, requests * period)
    prices = Prices(1e14, 1e13)
    plan = best_plan(context, slots, prices)
    policies = {**POLICIES, "optimum": ("optimum", lambda _: Planned(plan))}
    found = {}
    for name, (_, make) in policies.items():
        policy = make(context)
        start = policy.point if isinstance(policy, Static) else 0
        found[name] = run_mission(
            grid, here, arrivals, answerer, Monitor(400), policy, goals, start_point=start
        )
    costs = {name: cost_of(each, context, slots, prices) for name, each in found.items()}
    least = costs["optimum"].total_aj
    played = tuple(
        Played(
            name, kind, found[name],
            clopper_pearson(found[name].worst_window.right, found[name].worst_window.requests),
            costs[name], costs[name].total_aj / least - 1,
        )
        for name, (kind, _) in policies.items()
    )  # fmt: skip
    return Reconfiguration(
        scenario(), "cnn-small", "by-hand", here, grid, surface(), goals,
        clopper_pearson(950, 1000), played, held_against(played, "tracking"),
        {0.3 * seconds: Lag(7, 21_000, True, False), 0.6 * seconds: None}, fast=True,
    )  # fmt: skip


def held_against(played: Sequence[Played], adaptive: str) -> tuple[Against, ...]:
    """Hold a policy against the static ones; the intervals are made up."""
    mine = next(each for each in played if each.name == adaptive)
    return tuple(
        Against(
            adaptive, each.name,
            Difference(*(mine.worst_window.value - each.worst_window.value + reach
                         for reach in (0, -0.04, 0.04)), 0.95),
            mine.result.energy_per_request_aj / each.result.energy_per_request_aj,
        )
        for each in played
        if each.is_static
    )  # fmt: skip
