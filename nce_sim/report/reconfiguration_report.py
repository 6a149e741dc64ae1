"""The report of a run-time scenario: which policy is worth what, and what happened over time."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from nce_sim.report.latency_figure import figure_latency
from nce_sim.report.mission_figure import figure_mission
from nce_sim.report.policies_figure import figure_against, figure_policies
from nce_sim.report.policy_choice import best_adaptive, best_static
from nce_sim.report.reconfiguration_rows import (
    against_rows,
    change_rows,
    full_row,
    lag_rows,
    series_rows,
    short_row,
)
from nce_sim.report.reconfiguration_words import adapting_pays, headline, verdict
from nce_sim.report.study_page import StudyReport
from nce_sim.study.reconfiguration import Reconfiguration

COLUMNS = (
    "right: answers over the mission; worst: of the worst window, with the longer half of its "
    "interval; below: of the time, the window was below the target; uJ: by inference; late: "
    "deadlines missed; changes: of the split; regret: cost above the optimum's"
)
"""What the columns of the page's table mean."""


def reconfiguration_report(
    result: Reconfiguration, making: Sequence[tuple[str, str]]
) -> StudyReport:
    """Return the report; its files are points, series, changes and against, all CSV."""
    tables = {
        "points": [full_row(result, each) for each in result.played],
        "series": series_rows(result),
        "changes": change_rows(result),
        "against": against_rows(result),
    }
    return StudyReport(
        title=f"{result.scenario.name}: {result.network} on {result.machine}",
        lead=(
            f"{result.scenario.description} All policies meet the same requests and the same "
            f"faults."
        ),
        headline=headline(result),
        figures=_figures(result),
        rows=[short_row(each) for each in result.played],
        making=[("Columns", COLUMNS), *making, *_about(result)],
        tables={name: rows for name, rows in tables.items() if rows},
    )


def _figures(result: Reconfiguration) -> dict[str, tuple[Figure, str]]:
    window = result.goals.window_requests
    figures = {
        "mission": (
            figure_mission(result),
            f"The best adaptive policy, the best static split and both bounds over time, means "
            f"over short stretches. Black: the environment, the true rate, the quality target and "
            f"the budget. Rates are those at which the surface has as many mismatches as the "
            f"monitor's estimate, which starts anew with each split; where all is protected there "
            f"is none. Shaded: the {result.fault_free.confidence:.0%} interval of one window of "
            f"{window:,} requests of the policy drawn on top.",
        ),
        "policies": (
            figure_policies(result),
            f"Each policy's worst window of {window:,} requests, with the interval of one window, "
            f"and its energy, idle time and changes included. The front leaves out oracle and "
            f"optimum, which no engine can follow.",
        ),
        "latency": (
            figure_latency(result),
            "Latency from arrival to answer, waiting and changes included, beside the deadline and "
            "the fault-tolerant time interval. Regret: cost above that of the optimum as it was "
            "played, in per cent of it; cost is energy, expected accuracy below the target and "
            "missed deadlines.",
        ),
    }
    against = figure_against(result)
    if against is not None:
        figures["against"] = (
            against,
            "The best adaptive policy less each static split, on the same requests and faults: "
            "accuracy of each one's worst window, with the interval of paired resampling of blocks "
            "of requests, and energy.",
        )
    return figures


def _about(result: Reconfiguration) -> list[tuple[str, str]]:
    """Return what the missions took place in."""
    goals, environment, surface = result.goals, result.environment, result.surface
    requests, monitor = result.scenario.requests, result.scenario.monitor
    return [
        (
            "Environment",
            f"{environment.name}: {', '.join(environment.columns) or 'constant'}, "
            f"{len(environment.time_s):,} steps",
        ),
        (
            "Requests",
            f"{result.played[0].result.counts['answered']:,} {requests.arrivals.kind}, due after "
            f"{requests.deadline_us:g} us",
        ),
        (
            "Quality",
            f"target {goals.quality_target:.1%}, window of {goals.window_requests:,} requests; "
            f"without faults {result.fault_free}",
        ),
        (
            "Monitor",
            f"{monitor.checked_share:.1%} of the unprotected computations twice, window of "
            f"{monitor.window_checks:,} checks, {monitor.false_alarm_rate:g} false alarms a check, "
            f"{monitor.missed_share:.1%} of mismatches missed",
        ),
        ("Splits", ", ".join(f"{point.fraction:.0%}" for point in result.grid.points)),
        ("Surface", str(surface)),
    ]


def summary(result: Reconfiguration) -> dict[str, Any]:
    """Return the result as plain data."""
    adaptive, static = best_adaptive(result), best_static(result)
    error = result.surface.accuracy_error
    return {
        "scenario": result.scenario.name,
        "network": result.network,
        "machine": result.machine,
        "verdict": verdict(result),
        "adapting_pays": adapting_pays(result),
        "best_adaptive": None if adaptive is None else adaptive.name,
        "best_static": None if static is None else static.name,
        "quality_target": result.goals.quality_target,
        "window_requests": result.goals.window_requests,
        "accuracy_without_faults": result.fault_free.value,
        "deadline_us": result.scenario.requests.deadline_us,
        "fault_tolerant_time_us": result.scenario.requests.fault_tolerant_time_us,
        "fast": result.fast,
        "surface_error_mean": error.mean,
        "surface_error_largest": error.largest,
        "points": [full_row(result, each) for each in result.played],
        "against": against_rows(result),
        "lags": lag_rows(result),
    }
