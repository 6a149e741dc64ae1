"""Policies of a scenario as rows: short ones to read, full ones for files."""

from collections.abc import Iterator
from typing import Any

from nce_sim.config.trace_table import CONDITIONS
from nce_sim.report.mission_series import series_of
from nce_sim.report.policy_choice import AJ_PER_UJ, energy_uj, keeps_target
from nce_sim.report.wording import plus_minus
from nce_sim.study.reconfiguration import Played, Reconfiguration

Row = dict[str, str | float]

QUANTILES = {"p50": 0.5, "p99": 0.99, "p9999": 0.9999}
"""Quantiles of the latency by the names that they have in columns."""


def short_row(played: Played) -> Row:
    """Return what a page and a terminal of 100 columns show of a policy.

    `uJ` is by inference; `below` is the share of the time in which the window was below the target.
    """
    result = played.result
    return {
        "policy": played.name,
        "right %": f"{100 * result.accuracy:.1f}",
        "worst %": plus_minus(played.worst_window),
        "below %": f"{100 * below_target_share(played):.1f}",
        "uJ": shown_uj(energy_uj(played)),
        "late %": f"{100 * result.missed_share:.2f}",
        "p99.99 us": f"{latency_us(played, 'p9999'):,.1f}",
        "changes": f"{result.counts['changes']:,}",
        "regret %": f"{100 * played.regret:,.1f}",
    }


def shown_uj(energy: float) -> str:
    """Return an energy in microjoules with four digits."""
    return f"{energy:,.0f}" if energy >= 1000 else f"{energy:.4g}"


def below_target_share(played: Played) -> float:
    """Return the share of a mission in which the sliding window was below the target."""
    return played.result.below_target_cycles / played.result.end_cycle


def latency_us(played: Played, quantile: str) -> float:
    """Return a quantile of a policy's latencies in microseconds."""
    return played.result.latencies.quantile(QUANTILES[quantile]) / played.result.clock_mhz


def full_row(study: Reconfiguration, played: Played) -> Row:
    """Return all figures of a policy, flat.

    The parts of energy and time add up to the totals; regret is a share of the optimum's cost.
    """
    result, window, cost = played.result, played.worst_window, played.cost
    spent, hertz = result.spent, result.clock_mhz * 1e6
    first = result.worst_window.first if result.worst_window is not None else 0
    return {
        "policy": played.name,
        "kind": played.kind,
        "requests": result.counts["answered"],
        "accuracy": result.accuracy,
        "accuracy_without_faults": result.counts["clean_right"] / result.counts["answered"],
        "worst_window": window.value,
        "worst_window_low": window.low,
        "worst_window_high": window.high,
        "confidence": window.confidence,
        "worst_window_first": first,
        "keeps_target": int(keeps_target(study, played)),
        "below_target_s": result.below_target_cycles / hertz,
        "below_target_share": below_target_share(played),
        "energy_per_inference_uj": energy_uj(played),
        "energy_uj": spent.total_aj / AJ_PER_UJ,
        "requests_uj": spent.requests_aj / AJ_PER_UJ,
        "idle_uj": spent.idle_aj / AJ_PER_UJ,
        "changes_uj": spent.changes_aj / AJ_PER_UJ,
        "power_mw": result.power_mw,
        "mission_s": result.seconds,
        "busy_s": spent.busy_cycles / hertz,
        "idle_s": spent.idle_cycles / hertz,
        "changing_s": spent.changing_cycles / hertz,
        "changes": result.counts["changes"],
        "missed": result.counts["missed"],
        "missed_share": result.missed_share,
        "due": result.counts["due"],
        "checked": result.counts["checked"],
        "mismatches": result.counts["mismatches"],
        "latency_mean_us": result.latencies.mean / result.clock_mhz,
        **{f"latency_{name}_us": latency_us(played, name) for name in QUANTILES},
        "latency_most_us": result.latencies.most / result.clock_mhz,
        "cost_energy_uj": cost.energy_aj / AJ_PER_UJ,
        "cost_shortfall_uj": cost.shortfall_aj / AJ_PER_UJ,
        "cost_missed_uj": cost.missed_aj / AJ_PER_UJ,
        "cost_uj": cost.total_aj / AJ_PER_UJ,
        "regret": played.regret,
    }


def series_rows(study: Reconfiguration) -> list[Row]:
    """Return one row a policy and bin of time; empty cells where there is nothing to tell."""
    return [row for played in study.played for row in _series_of(study, played)]


def _series_of(study: Reconfiguration, played: Played) -> Iterator[Row]:
    series = series_of(study, played.result)
    columns = [name for name in CONDITIONS if name in study.environment.columns]
    figures = {
        "true_rate": series.true_rate,
        "estimate": series.estimate,
        "estimated_rate": series.estimated_rate,
        "unprotected_fraction": series.fraction,
        "window_accuracy": series.accuracy,
        "window_accuracy_low": series.accuracy_low,
        "window_accuracy_high": series.accuracy_high,
        "power_mw": series.power_mw,
        "waiting": series.queue,
        "answered": series.answered,
        "missed": series.missed,
        "changes": series.changes,
    }
    for place, conditions in enumerate(series.conditions):
        yield {
            "policy": played.name,
            "start_s": float(series.edges_s[place]),
            "end_s": float(series.edges_s[place + 1]),
            **{name: getattr(conditions, name) for name in columns},
            **{name: float(values[place]) for name, values in figures.items()},
        }


def change_rows(study: Reconfiguration) -> list[Row]:
    """Return one row a reconfiguration: when it began, what it took, and from what to what."""
    points = study.grid.points
    return [
        {
            "policy": played.name,
            "start_s": change.cycle / (played.result.clock_mhz * 1e6),
            "cycle": change.cycle,
            "cycles": study.grid.change_cycles(change.before, change.after),
            "fraction_before": points[change.before].fraction,
            "fraction_after": points[change.after].fraction,
        }
        for played in study.played
        for change in played.result.changes
    ]


def against_rows(study: Reconfiguration) -> list[Row]:
    """Return one row a static split: the best adaptive policy against it."""
    return [
        {
            "adaptive": each.adaptive,
            "static": each.static,
            "worst_window_points": 100 * each.worst_window.value,
            "worst_window_points_low": 100 * each.worst_window.low,
            "worst_window_points_high": 100 * each.worst_window.high,
            "confidence": each.worst_window.confidence,
            "energy_share": each.energy_share,
        }
        for each in study.against
    ]


def lag_rows(study: Reconfiguration) -> list[dict[str, Any]]:
    """Return one row a step of the rate: how late the monitor saw it; None if it did not."""
    clock_mhz = study.grid.clock_mhz
    return [
        {
            "step_s": seconds,
            "requests": None if lag is None else lag.requests,
            "us": None if lag is None else lag.cycles / clock_mhz,
        }
        for seconds, lag in study.lags.items()
    ]
